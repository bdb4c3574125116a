"""The sessions of a server: list them, look at one, interrupt, restart or end it, and follow what is said in it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cellgate.client import AsyncClient
from cellgate.commands.exits import ExitStatus
from cellgate.commands.output import printing, render_event
from cellgate.commands.remote import add_common_flags, find_session, reached
from cellgate.commands.signals import Signals
from cellgate.commands.table import columns, line_width
from cellgate.terminal import one_line

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "list, show, interrupt, restart, end and follow the sessions of a server"
EXITS = """\
exit status:
  0  it was done
  2  usage: there is no such session, or no such server
  4  the server failed, or did not answer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_flags(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    for name, (_, help_text) in ACTIONS.items():
        action = actions.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        if name != "ls":
            action.add_argument("session", metavar="SESSION", help="its id, the beginning of its id, or its name")
        if name == "logs":
            action.add_argument("-f", "--follow", action="store_true", help="and what comes, until it is over")
            action.add_argument("--since", type=int, default=0, metavar="N", help="only what is behind this event")
        add_common_flags(action, default=argparse.SUPPRESS)  # before the action or behind it


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate sessions`. Raises UsageError, the SDK's errors, BrokenPipeError, EndedBySignal."""
    if args.action == "attach":
        from cellgate.commands import repl

        return repl.execute(
            argparse.Namespace(attach=args.session, server=args.server, name=None, kernel=None, keep=True, images=None)
        )
    asyncio.run(_execute(args))
    return ExitStatus.OK


async def _execute(args: argparse.Namespace) -> None:
    async with reached(args) as client:
        act, _ = ACTIONS[args.action or "ls"]
        await act(client, args)


async def _list(client: AsyncClient, args: argparse.Namespace) -> None:
    sessions = await client.sessions()
    if args.json:
        print(json.dumps({"sessions": sessions}))
    else:
        width = line_width()
        print(render_sessions(sessions, time.time(), width), end="")


async def _show(client: AsyncClient, args: argparse.Namespace) -> None:
    found = await find_session(client, args.session)
    info = await client.ask("GET", f"/v1/sessions/{found['id']}")
    print(json.dumps(info) if args.json else render_session(info), end="\n" if args.json else "")


async def _end(client: AsyncClient, args: argparse.Namespace) -> None:
    await client.delete((await find_session(client, args.session))["id"])
    _say(args, "ended")


async def _interrupt(client: AsyncClient, args: argparse.Namespace) -> None:
    found = await find_session(client, args.session)
    await client.ask("POST", f"/v1/sessions/{found['id']}/interrupt")
    _say(args, "interrupted")


async def _restart(client: AsyncClient, args: argparse.Namespace) -> None:
    found = await find_session(client, args.session)
    await client.ask("POST", f"/v1/sessions/{found['id']}/restart")
    _say(args, "restarted")


async def _logs(client: AsyncClient, args: argparse.Namespace) -> None:
    found = await find_session(client, args.session)
    with printing() as printer:
        async with Signals(printer.broken):
            session = await client.attach(found["id"], role="observer", since=args.since)
            async for event in session.events(follow=args.follow):
                if args.json:
                    printer.write("stdout", json.dumps(event.raw, default=_in_json) + "\n")
                else:
                    printer.write("stdout", render_event(event.raw))
                    printer.show(event.raw)


def _say(args: argparse.Namespace, done: str) -> None:
    if args.json:
        print(json.dumps({"done": done}))
    elif sys.stdout.isatty():
        print(done)


Act = Callable[[AsyncClient, argparse.Namespace], Awaitable[None]]
ACTIONS: dict[str, tuple[Act, str]] = {
    "ls": (_list, "list them"),
    "show": (_show, "all that is known of one"),
    "rm": (_end, "end one"),
    "interrupt": (_interrupt, "interrupt what runs in one"),
    "restart": (_restart, "lose all its variables, keep the session"),
    "logs": (_logs, "what was said in one"),
    "attach": (_list, "work in one, as `cellgate repl --attach` does"),
}


# -- for people ----------------------------------------------------------------------------------------


def render_sessions(sessions: Sequence[Mapping[str, Any]], now: float, width: int) -> str:
    """A line for each, no wider than the terminal; ids as short as they tell sessions apart."""
    if not sessions:
        return "there are none; `cellgate repl` begins one\n"
    length = _shortest([one["id"] for one in sessions])
    rows = [("SESSION", "NAME", "KERNEL", "STATE", "CLIENTS", "ACTIVE")]
    for one in sorted(sessions, key=lambda one: str(one["last_activity"]), reverse=True):
        age = since(now - _moment(one["last_activity"]))
        words = (one["id"][:length], one["name"], one["kernel"], one["state"], str(one["clients"]), age)
        rows.append(tuple(one_line(word) for word in words))  # type: ignore[arg-type]
    return "".join(line[:width].rstrip() + "\n" for line in columns(rows).splitlines())


def render_session(info: Mapping[str, Any]) -> str:
    """A line for each thing, nested ones by their path."""
    return columns(list(_flat("", info)))


def since(seconds: float) -> str:
    """How long ago, in the largest unit that fits."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def _moment(date: str) -> float:
    return datetime.fromisoformat(date.replace("Z", "+00:00")).timestamp()


def _shortest(ids: Sequence[str]) -> int:
    """Of beginnings that tell these apart; at least eight characters."""
    length = 8
    while len({one[:length] for one in ids}) < len(set(ids)):
        length += 1
    return length


def _flat(path: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [row for name, inner in value.items() for row in _flat(f"{path}.{name}" if path else str(name), inner)]
    return [(one_line(path), one_line(value if isinstance(value, str) else json.dumps(value)))]


def _in_json(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
