"""Run `calculate(inputs)` once for each line of a file, each time in a fresh session of a server; a line of JSON comes
out for each, in the same order."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from cellgate.client.client import AsyncClient
from cellgate.commands.exits import ExitStatus
from cellgate.commands.output import printing
from cellgate.commands.progress import Progress
from cellgate.commands.remote import add_server_flag, reached
from cellgate.commands.signals import Signals
from cellgate.commands.sources import MAX_CODE_BYTES, read_code, read_file, read_input, read_timeout
from cellgate.errors import UsageError

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "run code once for each line of a file"
EXITS = """\
exit status:
  0  each returned something
  1  at least one did not; its line has the error
  2  usage: code or inputs that cannot be, no server
  4  the server failed, or did not answer"""
AT_ONCE = 8  # that one client asks for: the server has them wait for their turn anyway


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="code that defines `calculate`, in UTF-8")
    parser.add_argument("inputs", metavar="INPUTS", help="a file of JSON, one value a line; - for standard input")
    parser.add_argument("--timeout", metavar="SECONDS", help="interrupt each after so long")
    parser.add_argument("--stop", action="store_true", help="begin no other one after the first that fails")
    parser.add_argument("--json", action="store_true", help="print one object instead of lines")
    add_server_flag(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate batch`. Raises UsageError, the SDK's errors, BrokenPipeError, EndedBySignal."""
    if args.file == args.inputs == "-":
        raise UsageError("standard input can be one of the two; a file for the other would pass")
    code, timeout = read_code(None, args.file), read_timeout(args.timeout)
    return asyncio.run(_run(args, code, timeout, read_lines(args.inputs)))


def read_lines(file: str) -> list[Any]:
    """Raises UsageError."""
    data = read_file(file)
    if len(data) > MAX_CODE_BYTES:
        raise UsageError(f"{file!r} is longer than {MAX_CODE_BYTES >> 20} MiB; several, each of up to that, would pass")
    try:
        lines = data.decode("utf-8-sig").split("\n")  # nothing else ends a line: JSON's text may hold what looks so
    except UnicodeDecodeError as error:
        raise UsageError(f"{file!r} is not UTF-8 (byte {error.start}); JSON in UTF-8 would pass") from error
    values = [read_input(line) for line in lines if line.strip()]
    if None in values:
        raise UsageError(f"line {values.index(None) + 1} is null, which says that there is no input; {{}} would pass")
    return values


async def _run(args: argparse.Namespace, code: str, timeout: float | None, inputs: Sequence[Any]) -> ExitStatus:
    items: list[Mapping[str, Any]] = []
    with printing() as printer, Progress("batch", len(inputs), is_bytes=False) as progress:
        async with (
            Signals(printer.broken),
            reached(args) as client,
            aclosing(_outcomes(client, code, timeout, inputs, stops=args.stop)) as outcomes,
        ):
            async for item in outcomes:
                items.append(item)
                progress.add(1)
                if not args.json:
                    printer.write("stdout", json.dumps(item) + "\n")
        failed = sum("error" in item for item in items)
        if args.json:
            printer.write("stdout", json.dumps({"done": len(items), "failed": failed, "items": items}) + "\n")
    return ExitStatus.RAISED if failed else ExitStatus.OK


async def _outcomes(
    client: AsyncClient, code: str, timeout: float | None, inputs: Sequence[Any], *, stops: bool
) -> AsyncGenerator[Mapping[str, Any], None]:
    """In the order of the inputs."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(value: Any) -> Mapping[str, Any]:
        async with room:
            run = await client.run(code, inputs=value, timeout=timeout)
        if run.result.is_ok:
            return {"value": run.value}
        error = run.result.error or {"name": run.result.reason, "value": run.result.sentence}
        return {"error": {name: error[name] for name in ("name", "value")}}

    tasks = [asyncio.create_task(one(value)) for value in inputs]
    try:
        for task in tasks:
            item = await task
            yield item
            if stops and "error" in item:
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
