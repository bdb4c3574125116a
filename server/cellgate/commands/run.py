"""Run code in a fresh sandbox: what it prints comes out here as it comes, and the exit status says how it ended."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from cellgate.commands.exits import ExitStatus, exits_as_text, status_of_run
from cellgate.commands.output import Printer
from cellgate.commands.signals import Signals
from cellgate.commands.sources import read_code, read_timeout
from cellgate.commands.typed import LineReader
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.client import ExecuteResult, KernelClient
from cellgate.sandbox.drivers import DEFAULT_DRIVER, DRIVERS, open_driver
from cellgate.sandbox.limits import LIMIT_ROWS, Limits
from cellgate.terminal import one_line
from cellgate.wire.jupyter import JupyterMessage

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "run code in a fresh sandbox"
EXITS = exits_as_text()
NOTICE_AFTER_SECONDS = 1.0  # a start takes milliseconds; who waits longer wants to know for what
SHORT_FLAGS = {"memory_bytes": "--memory", "cpu_cores": "--cpus"}


# -- the command line --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-c", dest="code", metavar="CODE", help="the code itself")
    what.add_argument("file", nargs="?", metavar="FILE", help="a file of code, in UTF-8; - for standard input")
    parser.add_argument("--template", default="python", help="what is already imported (default: python)")
    parser.add_argument("--driver", choices=DRIVERS, default=DEFAULT_DRIVER, help=f"(default: {DEFAULT_DRIVER})")
    parser.add_argument("--runtime", default="", help="of driver docker: runc, runsc, ... (default: the engine's)")
    parser.add_argument("--timeout", metavar="SECONDS", help="interrupt the code after so long, then end the sandbox")
    parser.add_argument("--json", action="store_true", help="print one object at the end instead of the output")
    group = parser.add_argument_group("limits", "Sizes may be written 512M or 1G.")
    for row in LIMIT_ROWS:
        flags = [flag for flag in (SHORT_FLAGS.get(row.name), "--" + row.name.replace("_", "-")) if flag]
        is_size = row.name.endswith("_bytes")
        default = f"{int(row.default) >> 20}M" if is_size else row.default
        group.add_argument(
            *flags, dest=row.name, metavar="SIZE" if is_size else "N", help=f"{row.unit} (default: {default})"
        )


def read_limits(values: Mapping[str, str | None]) -> Limits:
    """Limits from the words of a command line; None where none was given. Raises LimitError."""
    given = {row.name: row.read(text) for row in LIMIT_ROWS if (text := values.get(row.name)) is not None}
    return Limits.from_mapping(given)


# -- the result object ---------------------------------------------------------------------------------


def as_json(outcome: Outcome) -> dict[str, object]:
    """The result object of `--json`. Names are a promise to programs."""
    result = outcome.result
    return {
        "status": result.status,
        "exit_status": int(outcome.status),
        "timed_out": result.timed_out,
        "reply": result.reply,
        "outputs": [{"type": out["msg_type"], **out["content"]} for out in joined_streams(result.outputs)],
        "dropped": {"messages": result.dropped_messages, "bytes": result.dropped_bytes},
        "certificate": result.certificate.to_json() if result.certificate else None,
        "sandbox": {
            "driver": outcome.driver,
            "template": outcome.spec.template,
            "limits": outcome.spec.limits.to_mapping(),
        },
        "timings": {name: round(seconds, 6) for name, seconds in outcome.timings.items()},
    }


def joined_streams(outputs: Iterable[JupyterMessage]) -> Iterator[JupyterMessage]:
    """The outputs, prints that follow each other on one stream made one, as a notebook keeps them."""
    for (kind, name), group in groupby(outputs, lambda out: (out["msg_type"], out["content"].get("name"))):
        if kind == "stream":
            messages = list(group)
            text = "".join(str(message["content"].get("text", "")) for message in messages)
            yield {**messages[0], "content": {"name": name, "text": text}}
        else:
            yield from group


# -- running ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    result: ExecuteResult
    driver: str
    spec: SandboxSpec
    timings: dict[str, float]

    @property
    def status(self) -> ExitStatus:
        return status_of_run(self.result.reply, self.result.certificate, timed_out=self.result.timed_out)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate run`. Raises CellgateError, BrokenPipeError, EndedBySignal."""
    spec = SandboxSpec(template=args.template, limits=read_limits(vars(args)))
    timeout = read_timeout(args.timeout)
    code = read_code(args.code, args.file)
    stdin_is_code = args.code is None and args.file == "-"
    outcome = asyncio.run(_run(code, spec, args.driver, args.runtime, timeout, not stdin_is_code, args.json))
    if args.json:
        print(json.dumps(as_json(outcome)))
    if outcome.status in (ExitStatus.ENDED, ExitStatus.FAILED):
        print(f"cellgate: {one_line(_how_it_ended(outcome, timeout))}", file=sys.stderr)
    return outcome.status


def _how_it_ended(outcome: Outcome, timeout: float | None) -> str:
    if certificate := outcome.result.certificate:
        return f"{certificate.reason}: {certificate.sentence()}"
    return f"{Reason.TIMEOUT_WALL}: the code ran longer than {timeout} s and was interrupted"


async def _run(
    code: str,
    spec: SandboxSpec,
    driver_name: str,
    runtime: str,
    timeout: float | None,
    allow_stdin: bool,
    collect: bool,
) -> Outcome:
    printer = Printer(sys.stdout, sys.stderr)
    clock = time.monotonic
    with closing(printer):
        async with Signals(printer.broken) as signals, AsyncExitStack() as stack:
            with _notice("cellgate: starting a sandbox"):
                began = clock()
                driver = await open_driver(driver_name, runtime=runtime)
                stack.push_async_callback(driver.close)
                opened = clock()
                sandbox = await driver.create(spec)
                stack.push_async_callback(sandbox.destroy)
                kernel = await stack.enter_async_context(KernelClient(sandbox, on_other=printer.show))
                await kernel.request("kernel_info_request")  # a time limit is the code's, not that of a cold start
            started = clock()
            end = partial(sandbox.kill, Reason.SESSION_DELETED, "a second Ctrl-C")
            with signals.given_to(sandbox.interrupt, end):
                result = await kernel.execute(
                    code,
                    timeout=timeout,
                    on_output=None if collect else printer.show,
                    on_input=_Answers(printer) if allow_stdin else None,
                )
            timings = {
                "driver_seconds": opened - began,
                "start_seconds": started - opened,
                "run_seconds": clock() - started,
            }
            return Outcome(result, sandbox.driver, spec, timings)


class _Answers:
    """Asks the question on standard output, as Python does, and reads the answer from standard input."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._lines = LineReader(0)

    async def __call__(self, prompt: str, is_password: bool) -> str:
        with self._lines.hidden() if is_password else nullcontext():
            self._printer.write("stdout", prompt)
            return await self._lines.read_line()


@contextmanager
def _notice(text: str) -> Iterator[None]:
    """Tells a person who has waited a while what for."""
    loop = asyncio.get_running_loop()
    later = loop.call_later(NOTICE_AFTER_SECONDS, lambda: print(text, file=sys.stderr, flush=True))
    if not sys.stderr.isatty():
        later.cancel()
    try:
        yield
    finally:
        later.cancel()
