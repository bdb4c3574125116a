"""Have a server take no new sessions; those that there are go on.

With --wait it returns when the last of them has ended. The server forgets it when its gateway is started again."""

from __future__ import annotations

import argparse
import asyncio

from cellgate.commands.exits import ExitStatus
from cellgate.commands.remote import add_server_flag, reached

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "have a server take no new sessions"
EXITS = """\
exit status:
  0  it is so
  2  usage: no such server, or a token without the scope `admin`
  4  the server failed, or did not answer"""

PAUSE_SECONDS = 1.0  # between two questions whether the last session has ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--wait", action="store_true", help="until there is no session any more")
    which.add_argument("--undo", action="store_true", help="have it take sessions again")
    add_server_flag(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate drain`. Raises the SDK's errors."""
    asyncio.run(_execute(args))
    return ExitStatus.OK


async def _execute(args: argparse.Namespace) -> None:
    async with reached(args) as client:
        if args.undo:
            await client.ask("DELETE", "/v1/drain")
            return
        state = await client.ask("PUT", "/v1/drain")
        print(f"{client.url} takes no new sessions; {state['sessions']} go on", flush=True)
        while args.wait and state["sessions"]:
            await asyncio.sleep(PAUSE_SECONDS)
            state = await client.ask("GET", "/v1/drain")
