"""Work in a session at a terminal: type code, see what it says. Tab completes, Enter runs what is complete, Ctrl-C
interrupts what runs, Ctrl-D leaves.

A session that is begun here ends with it, unless --keep or `:detach` says otherwise; one that is attached lives on, and
who attaches again sees what it has missed."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import socket
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from cellgate.client import NotFound
from cellgate.commands.exits import ExitStatus
from cellgate.commands.remote import add_server_flag, find_session, reached
from cellgate.errors import UsageError

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "work in a session at a terminal"
EXITS = """\
exit status:
  0  it was left
  2  usage: no terminal, no such session, no such server
  3  the session ended
  4  the server failed, or did not answer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--attach", metavar="SESSION", help="one that exists: its id, the beginning of it, or its name")
    parser.add_argument("--name", help="of the session that is begun")
    parser.add_argument("--kernel", help="of the session that is begun (default: python3)")
    parser.add_argument("--keep", action="store_true", help="the session lives on when it is left")
    parser.add_argument("--images", metavar="DIRECTORY", type=Path, help="where pictures are put (default: a new one)")
    add_server_flag(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate repl`. Raises UsageError, the SDK's errors."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("this is no terminal; `cellgate run` or `cellgate exec` would pass")
    if args.attach and (args.name or args.kernel):
        raise UsageError("--name and --kernel are for a session that is begun; --attach alone would pass")
    return asyncio.run(_execute(args))


async def _execute(args: argparse.Namespace) -> ExitStatus:
    from cellgate.commands.repl.conversation import Conversation

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(reached(args, starts=True))
        me = f"{_user()}@{socket.gethostname()}"[:100]
        if args.attach:
            found = await find_session(client, args.attach)
            session = await client.attach(found["id"], client=me)
        else:
            session = await client.create(name=args.name, kernel=args.kernel, client=me)
        conversation = Conversation(session, keeps=bool(args.keep or args.attach), images=args.images)
        try:
            return await conversation.run()
        finally:
            if conversation.lives_on:
                await session.close()
                print(f"it lives on: cellgate repl --attach {session.id[:8]}", file=sys.stderr)
            else:
                with suppress(NotFound):  # it has ended already
                    await session.delete()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # of a uid without a name, as in containers
        return f"uid{os.getuid()}"


def history_file() -> Path:
    """What was typed, of this user alone."""
    state = os.environ.get("XDG_STATE_HOME", "")
    directory = (Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()) / "cellgate"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = directory / "repl-history"
    file.touch(mode=0o600)
    return file
