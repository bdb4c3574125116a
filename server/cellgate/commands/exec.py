"""Run code in a session that exists: what it prints comes out here as it comes, and the exit status says how it ended.
The session goes on, with all that the code has left in it."""

from __future__ import annotations

import argparse
import asyncio
import json

from cellgate.client import Result
from cellgate.commands.exits import ExitStatus, exits_as_text, status_of_result
from cellgate.commands.output import printing
from cellgate.commands.remote import add_server_flag, find_session, reached
from cellgate.commands.running import run_in, tell_end
from cellgate.commands.signals import Signals
from cellgate.commands.sources import add_code_arguments, read_code, read_timeout
from cellgate.commands.typed import Answers

__all__ = ["EXITS", "HELP", "add_arguments", "execute", "execute_in"]

HELP = "run code in a session that exists"
EXITS = exits_as_text()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="its id, the beginning of its id, or its name")
    add_code_arguments(parser)
    parser.add_argument("--timeout", metavar="SECONDS", help="interrupt the code after so long, then end its kernel")
    parser.add_argument("--json", action="store_true", help="print one object at the end instead of the output")
    add_server_flag(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate exec`. Raises CellgateError, the SDK's errors, BrokenPipeError, EndedBySignal."""
    return execute_in(args, args.session)


def execute_in(args: argparse.Namespace, session: str) -> ExitStatus:
    """Run the code that the arguments name in the session that is named."""
    code = read_code(args.code, args.file)
    stdin_is_code = args.code is None and args.file == "-"
    result = asyncio.run(_run(args, session, code, read_timeout(args.timeout), not stdin_is_code))
    if args.json:
        print(json.dumps({"exit_status": int(status_of_result(result)), **result.to_json()}))
    return tell_end(result)


async def _run(args: argparse.Namespace, named: str, code: str, timeout: float | None, allow_stdin: bool) -> Result:
    with printing() as printer:
        async with Signals(printer.broken) as signals, reached(args) as client:
            found = await find_session(client, named)
            async with await client.attach(found["id"]) as session:
                return await run_in(
                    session,
                    code,
                    printer=printer,
                    signals=signals,
                    shows=not args.json,
                    timeout=timeout,
                    answers=Answers(printer.write) if allow_stdin else None,
                    give_up=session.restart,
                )
