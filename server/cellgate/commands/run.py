"""Run code in a fresh sandbox: what it prints comes out here as it comes, and the exit status says how it ended."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from cellgate.commands.exits import EndedBySignal, ExitStatus, exits_as_text, status_of_run
from cellgate.commands.output import Printer
from cellgate.commands.typed import LineReader
from cellgate.errors import LimitError, UsageError
from cellgate.sandbox.base import Sandbox, SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.client import ExecuteResult, KernelClient
from cellgate.sandbox.drivers import DEFAULT_DRIVER, DRIVERS, open_driver
from cellgate.sandbox.limits import LIMIT_ROWS, Limits
from cellgate.terminal import one_line
from cellgate.wire.jupyter import JupyterMessage

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "run code in a fresh sandbox"
EXITS = exits_as_text()
MAX_CODE_BYTES = 8 << 20  # a message of the link takes 16 MiB, and JSON may double the size of what it quotes
NOTICE_AFTER_SECONDS = 1.0  # a start takes milliseconds; who waits longer wants to know for what
MAX_TIMEOUT_SECONDS = 365 * 24 * 3600  # a year is as good as no limit, and fits every clock
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHORT_FLAGS = {"memory_bytes": "--memory", "cpu_cores": "--cpus"}


# -- the command line --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-c", dest="code", metavar="CODE", help="the code itself")
    what.add_argument("file", nargs="?", metavar="FILE", help="a file of code, in UTF-8; - for standard input")
    parser.add_argument("--template", default="python", help="what is already imported (default: python)")
    parser.add_argument("--driver", choices=DRIVERS, default=DEFAULT_DRIVER, help=f"(default: {DEFAULT_DRIVER})")
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


def read_timeout(text: str | None) -> float | None:
    """Seconds, or None where no limit was asked for. Raises LimitError."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:  # false for NaN too
        raise LimitError("timeout", text, f"a number of seconds above 0 and up to {MAX_TIMEOUT_SECONDS}")
    return seconds


def read_code(code: str | None, file: str | None) -> str:
    """The code that was named. Raises UsageError."""
    if code is not None:
        data, name = os.fsencode(code), "-c"
    else:
        data, name = read_file(file or "-"), "standard input" if file == "-" else repr(file)
    if len(data) > MAX_CODE_BYTES:
        raise UsageError(f"the code in {name} is longer than {MAX_CODE_BYTES >> 20} MiB; up to that would pass")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 (byte {error.start}); code in UTF-8 would pass") from error


def read_file(file: str) -> bytes:
    """At most one byte more than may be run. Raises UsageError."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(MAX_CODE_BYTES + 1)
        with Path(file).open("rb") as source:
            return source.read(MAX_CODE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {file!r}: {reason}; the name of a readable file would pass") from error


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
    outcome = asyncio.run(_run(code, spec, args.driver, timeout, not stdin_is_code, args.json))
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
    code: str, spec: SandboxSpec, driver_name: str, timeout: float | None, allow_stdin: bool, collect: bool
) -> Outcome:
    printer = Printer(sys.stdout, sys.stderr)
    clock = time.monotonic
    with closing(printer):
        async with Signals(printer.broken) as signals, AsyncExitStack() as stack:
            with _notice("cellgate: starting a sandbox"):
                began = clock()
                driver = await open_driver(driver_name)
                stack.push_async_callback(driver.close)
                opened = clock()
                sandbox = await driver.create(spec)
                stack.push_async_callback(sandbox.destroy)
                kernel = await stack.enter_async_context(KernelClient(sandbox, on_other=printer.show))
                await kernel.request("kernel_info_request")  # a time limit is the code's, not that of a cold start
            started = clock()
            with signals.given_to(sandbox):
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


class Signals:
    """What the terminal and the system ask of this command while it runs.

    Ctrl-C goes to the code while there is some running: the first interrupts it, the next ends its sandbox. Any other
    time, and for any other signal, the command itself stops: its task is cancelled, everything is taken down, and
    whoever runs it learns why from EndedBySignal. Output that nobody reads stops it likewise.
    """

    def __init__(self, broken: asyncio.Future[None]) -> None:
        self._broken = broken
        self._sandbox: Sandbox | None = None
        self._presses = 0
        self._why: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Signals:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # in a coroutine there is one
        self._task = task
        for number in _STOPPING:
            self._loop.add_signal_handler(number, self._take, number)
        self._broken.add_done_callback(lambda broken: self._stop(broken.exception()))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number in _STOPPING:
            self._loop.remove_signal_handler(number)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._why and kind is asyncio.CancelledError:
            raise self._why from None

    @contextmanager
    def given_to(self, sandbox: Sandbox) -> Iterator[None]:
        self._sandbox = sandbox
        try:
            yield
        finally:
            self._sandbox = None

    def _take(self, number: int) -> None:
        if number != signal.SIGINT or self._sandbox is None:
            return self._stop(EndedBySignal(number))
        self._presses += 1
        if self._presses == 1:
            asking = self._sandbox.interrupt()
        else:
            asking = self._sandbox.kill(Reason.SESSION_DELETED, "a second Ctrl-C")
        task = self._loop.create_task(asking)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop(self, why: BaseException | None) -> None:
        if self._why is None and why is not None:
            self._why = why
            self._task.cancel()


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
