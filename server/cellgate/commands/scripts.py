"""Scripts that a server keeps: code under a name, every version of it, run as often as it is wanted."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from cellgate.client.client import AsyncClient
from cellgate.commands.exits import ExitStatus, exits_as_text, status_of_result
from cellgate.commands.output import printing
from cellgate.commands.remote import add_common_flags, reached
from cellgate.commands.running import show_run, tell_end
from cellgate.commands.sources import read_code, read_input, read_timeout
from cellgate.commands.table import columns, line_width
from cellgate.terminal import one_line

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "keep scripts on a server, and run them"
EXITS = exits_as_text()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_flags(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    for name, (_, help_text) in ACTIONS.items():
        action = actions.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        if name != "ls":
            action.add_argument("script", metavar="NAME")
        if name == "save":
            action.add_argument("file", metavar="FILE", help="a file of code, in UTF-8; - for standard input")
            action.add_argument("--language", help="(default: python)")
        if name in ("show", "run"):
            action.add_argument("--version", type=int, metavar="N", help="(default: the newest)")
        if name == "diff":
            action.add_argument("old", type=int, nargs="?", metavar="OLD", help="(default: the one before the newest)")
            action.add_argument("new", type=int, nargs="?", metavar="NEW", help="(default: the newest)")
        if name == "run":
            action.add_argument("--input", metavar="JSON", help="what its `calculate(inputs)` gets")
            action.add_argument("--timeout", metavar="SECONDS", help="interrupt it after so long, then end it")
        add_common_flags(action, default=argparse.SUPPRESS)  # before the action or behind it


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate scripts`. Raises UsageError, the SDK's errors."""
    return asyncio.run(_execute(args))


async def _execute(args: argparse.Namespace) -> ExitStatus:
    async with reached(args) as client:
        act, _ = ACTIONS[args.action or "ls"]
        return await act(client, args)


async def _list(client: AsyncClient, args: argparse.Namespace) -> ExitStatus:
    scripts = await client.scripts.list()
    width = line_width()
    print(json.dumps({"scripts": scripts}) if args.json else render_scripts(scripts, width))
    return ExitStatus.OK


async def _show(client: AsyncClient, args: argparse.Namespace) -> ExitStatus:
    script = await client.scripts.get(args.script, version=args.version)
    _tell(args, script, script["code"] + "\n")
    return ExitStatus.OK


async def _save(client: AsyncClient, args: argparse.Namespace) -> ExitStatus:
    saved = await client.scripts.save(args.script, read_code(None, args.file), language=args.language)
    print(json.dumps(saved) if args.json else f"{one_line(saved['name'])}, version {saved['version']}")
    return ExitStatus.OK


async def _diff(client: AsyncClient, args: argparse.Namespace) -> ExitStatus:
    diff = await client.scripts.diff(args.script, old=args.old, new=args.new)
    _tell(args, {"diff": diff}, diff)
    return ExitStatus.OK


async def _remove(client: AsyncClient, args: argparse.Namespace) -> ExitStatus:
    await client.scripts.delete(args.script)
    if args.json:
        print(json.dumps({"done": "removed"}))
    return ExitStatus.OK


async def _run(client: AsyncClient, args: argparse.Namespace) -> ExitStatus:
    timeout, inputs = read_timeout(args.timeout), read_input(args.input)
    run = await client.scripts.run(args.script, version=args.version, inputs=inputs, timeout=timeout)
    if args.json:
        print(
            json.dumps({"exit_status": int(status_of_result(run.result)), **run.result.to_json(), "value": run.value})
        )
    else:
        with printing() as printer:
            show_run(run, printer, has_value=inputs is not None)
    return tell_end(run.result)


def _tell(args: argparse.Namespace, model: Mapping[str, Any], text: str) -> None:
    """To a terminal only text that cannot steer it."""
    with printing() as printer:
        printer.write("stdout", json.dumps(model) + "\n" if args.json else text)


Act = Callable[[AsyncClient, argparse.Namespace], Awaitable[ExitStatus]]
ACTIONS: dict[str, tuple[Act, str]] = {
    "ls": (_list, "list them"),
    "show": (_show, "the code of one"),
    "save": (_save, "keep code under a name; a new version, if it is new"),
    "diff": (_diff, "how two versions differ"),
    "run": (_run, "run one, in a session that is made for it"),
    "rm": (_remove, "remove one, with all its versions"),
}


def render_scripts(scripts: Sequence[Mapping[str, Any]], width: int) -> str:
    """A line for each, no wider than the terminal."""
    if not scripts:
        return "there are none; `cellgate scripts save NAME FILE` keeps one"
    rows = [
        ("NAME", "VERSION", "DESCRIPTION"),
        *((one_line(one["name"]), str(one["version"]), one_line(one.get("description") or "")) for one in scripts),
    ]
    return "\n".join(line[:width].rstrip() for line in columns(rows).splitlines())
