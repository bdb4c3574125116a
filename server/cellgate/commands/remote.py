"""The server that a command talks to, and the session that it is about.

It is named by --server or CELLGATE_URL, with its token in CELLGATE_TOKEN; else it is the one of this host.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from cellgate.client.client import AsyncClient
from cellgate.errors import UsageError
from cellgate.terminal import one_line

__all__ = ["add_common_flags", "add_server_flag", "choose_session", "find_session", "reached"]


def add_server_flag(parser: argparse.ArgumentParser, **default: Any) -> None:
    words = "(default: CELLGATE_URL, or the server of this host)"
    parser.add_argument("--server", metavar="URL", help=words, **default)


def add_common_flags(parser: argparse.ArgumentParser, **default: Any) -> None:
    """Of a command with actions, and of each of its actions: they may stand before the action or behind it."""
    parser.add_argument("--json", action="store_true", help="print objects instead of text", **default)
    add_server_flag(parser, **default)


@asynccontextmanager
async def reached(args: argparse.Namespace, *, starts: bool = False) -> AsyncIterator[AsyncClient]:
    """A client of that server; with `starts`, of one that is started where there is none. Raises the SDK's errors."""
    async with AsyncClient(args.server, starts=starts) as client:
        yield client


async def find_session(client: AsyncClient, named: str) -> dict[str, Any]:
    """By its id, by how that begins, or by its name. Raises UsageError, and the SDK's errors."""
    return choose_session(await client.sessions(), named)


def choose_session(sessions: Sequence[dict[str, Any]], named: str) -> dict[str, Any]:
    """Raises UsageError for none and for several."""
    for matches in (
        [one for one in sessions if one["id"] == named],
        [one for one in sessions if one["name"] == named],
        [one for one in sessions if named and one["id"].startswith(named)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            ids = ", ".join(one["id"] for one in matches[:5])
            raise UsageError(f"{len(matches)} sessions are {one_line(named)!r}; one of the ids would pass: {ids}")
    raise UsageError(f"there is no session {one_line(named)!r}; `cellgate sessions` lists those that would pass")
