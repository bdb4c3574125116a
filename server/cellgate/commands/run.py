"""Run code once: what it prints comes out here as it comes, and the exit status says how it ended.

Where a server is named, or one runs on this host, it runs in a session of that server, which ends with the code; else,
and with --driver, in a sandbox of its own. With --session it runs in a session that exists, and goes on."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellgate.commands.exits import ExitStatus, exits_as_text
from cellgate.commands.sources import add_code_arguments, read_code, read_input, read_timeout
from cellgate.errors import UsageError
from cellgate.sandbox.drivers import DEFAULT_DRIVER, DRIVERS
from cellgate.sandbox.limits import LIMIT_ROWS, Limits
from cellgate.terminal import one_line

if TYPE_CHECKING:
    from cellgate.client import AsyncClient, Result
    from cellgate.commands.in_sandbox import Outcome
    from cellgate.commands.output import Printer

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "run code once, in a session of a server or in a sandbox of its own"
EXITS = exits_as_text()
SHORT_FLAGS = {"memory_bytes": "--memory", "cpu_cores": "--cpus"}


# -- the command line --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_code_arguments(parser)
    parser.add_argument("--template", default="python", help="what is already imported (default: python)")
    parser.add_argument(
        "--driver", choices=DRIVERS, help=f"a sandbox of its own (default, where there is no server: {DEFAULT_DRIVER})"
    )
    parser.add_argument("--runtime", default="", help="of driver docker: runc, runsc, ... (default: the engine's)")
    parser.add_argument("--timeout", metavar="SECONDS", help="interrupt the code after so long, then end the sandbox")
    parser.add_argument("--json", action="store_true", help="print one object at the end instead of the output")
    group = parser.add_argument_group("on a server")
    group.add_argument("--server", metavar="URL", help="(default: CELLGATE_URL, or the server of this host)")
    group.add_argument("--session", metavar="SESSION", help="run it in this one: an id, its beginning, or a name")
    group.add_argument(
        "--file", dest="files", action="append", default=[], metavar="PATH[=NAME]", help="bring a file along"
    )
    group.add_argument(
        "--input", metavar="JSON", help="what the code's `calculate(inputs)` gets; what it returns is printed as JSON"
    )
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
    return Limits.from_mapping(given_limits(values))


def given_limits(values: Mapping[str, str | None]) -> dict[str, Any]:
    """Those alone that were given. Raises LimitError."""
    return {row.name: row.read(text) for row in LIMIT_ROWS if (text := values.get(row.name)) is not None}


def read_file_words(words: list[str]) -> dict[str, Path]:
    """Files of this side by the name that they get. Raises UsageError."""
    files = {}
    for word in words:
        path, _, name = word.partition("=")
        if not Path(path).is_file():
            raise UsageError(f"{one_line(path)!r} is no file; one that can be read would pass")
        files[name or Path(path).name] = Path(path)
    return files


# -- running ------------------------------------------------------------------------------------------


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate run`. Raises CellgateError, the SDK's errors, BrokenPipeError, EndedBySignal."""
    limits = read_limits(vars(args))
    wants_server = [name for name in ("server", "session", "files", "input") if getattr(args, name)]
    if args.driver and wants_server:
        raise UsageError("a sandbox of its own knows no server; either --driver or what needs a server would pass")
    if args.session:
        from cellgate.commands.exec import execute_in

        return execute_in(args, args.session)
    if not args.driver and not args.runtime and (wants_server or is_server_near()):
        return _on_server(args)
    return _in_sandbox(args, limits)


def is_server_near() -> bool:
    """Whether one is named, or runs on this host for this user."""
    from cellgate.wire.local import LocalServer, local_state_dir

    return bool(os.environ.get("CELLGATE_URL")) or LocalServer.read(local_state_dir()) is not None


def _in_sandbox(args: argparse.Namespace, limits: Limits) -> ExitStatus:
    from cellgate.sandbox.base import SandboxSpec

    timeout, code = read_timeout(args.timeout), read_code(args.code, args.file)
    outcome = asyncio.run(_run_in_sandbox(args, code, SandboxSpec(template=args.template, limits=limits), timeout))
    if args.json:
        print(json.dumps(outcome.to_json()))
    if outcome.status in (ExitStatus.ENDED, ExitStatus.FAILED):
        print(f"cellgate: {one_line(f'{outcome.reason}: {outcome.sentence}')}", file=sys.stderr)
    return outcome.status


async def _run_in_sandbox(args: argparse.Namespace, code: str, spec: Any, timeout: float | None) -> Outcome:
    from cellgate.commands.in_sandbox import run_in_sandbox
    from cellgate.commands.output import printing
    from cellgate.commands.signals import Signals
    from cellgate.commands.typed import Answers

    with printing() as printer:
        async with Signals(printer.broken) as signals:
            return await run_in_sandbox(
                code,
                spec,
                driver_name=args.driver or DEFAULT_DRIVER,
                runtime=args.runtime,
                timeout=timeout,
                printer=printer,
                signals=signals,
                shows=not args.json,
                answers=None if _stdin_is_code(args) else Answers(printer.write),
            )


def _stdin_is_code(args: argparse.Namespace) -> bool:
    return args.code is None and args.file == "-"


def _on_server(args: argparse.Namespace) -> ExitStatus:
    from cellgate.commands.exits import status_of_result
    from cellgate.commands.running import tell_end

    timeout, code = read_timeout(args.timeout), read_code(args.code, args.file)
    files = read_file_words(args.files)
    read_input(args.input)  # what cannot be is told before anybody is asked
    result, more = asyncio.run(_run_on_server(args, code, timeout, files))
    if args.json:
        print(json.dumps({"exit_status": int(status_of_result(result)), **result.to_json(), **more}))
    return tell_end(result)


async def _run_on_server(
    args: argparse.Namespace, code: str, timeout: float | None, files: Mapping[str, Path]
) -> tuple[Result, dict[str, Any]]:
    from cellgate.commands.output import printing
    from cellgate.commands.remote import reached
    from cellgate.commands.running import run_in
    from cellgate.commands.signals import Signals
    from cellgate.commands.typed import Answers

    wish = {"template": args.template, "limits": given_limits(vars(args)) or None}
    with printing() as printer:
        async with Signals(printer.broken) as signals, reached(args) as client:
            if args.input is not None:
                return await _calculate(client, args, printer, code, timeout, files, wish)
            async with client.session(**wish) as session:
                await session.open()
                for name, path in files.items():
                    await session.files.put(path, name)
                result = await run_in(
                    session,
                    code,
                    printer=printer,
                    signals=signals,
                    shows=not args.json,
                    timeout=timeout,
                    answers=None if _stdin_is_code(args) else Answers(printer.write),
                    give_up=partial(client.delete, session.id),  # and stay, to hear how the cell ends
                )
                return result, {"session": session.id}


async def _calculate(
    client: AsyncClient,
    args: argparse.Namespace,
    printer: Printer,
    code: str,
    timeout: float | None,
    files: Mapping[str, Path],
    wish: Mapping[str, Any],
) -> tuple[Result, dict[str, Any]]:
    """The code defines `calculate`, which gets the inputs; what it returns is the result."""
    from cellgate.commands.running import show_run

    brought = {name: path.read_bytes() for name, path in files.items()}
    run = await client.run(code, inputs=read_input(args.input), files=brought, timeout=timeout, **wish)
    if not args.json:
        show_run(run, printer, has_value=True)
    return run.result, {"value": run.value}
