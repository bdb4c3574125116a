"""Copy files into a session, and out of one.

cellgate cp data.csv SESSION:              into the directory where its code runs
cellgate cp SESSION:plots/a.png .          and out of it
cellgate cp -r SESSION:results backup.tar  a directory with all that is in it; SESSION:dir unpacks one
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cellgate.client import AsyncClient
from cellgate.client.files import AsyncFiles
from cellgate.commands.exits import ExitStatus
from cellgate.commands.progress import Progress
from cellgate.commands.remote import add_server_flag, find_session, reached
from cellgate.errors import UsageError
from cellgate.terminal import one_line

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "copy files into a session, and out of one"
EXITS = """\
exit status:
  0  all was copied
  2  usage: there is no such file, session or server, or it takes no file of this size
  4  the server failed, or did not answer"""
ARCHIVES = {".tar": "tar", ".zip": "zip"}


class Place(NamedTuple):
    session: str | None  # None on this side
    path: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a file, or SESSION:PATH")
    parser.add_argument("target", metavar="TARGET", help="the same; what ends with / is a directory")
    parser.add_argument("-r", dest="recursive", action="store_true", help="a directory, to or from a .tar or .zip here")
    parser.add_argument("--json", action="store_true", help="print one object at the end")
    add_server_flag(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate cp`. Raises UsageError, OSError, the SDK's errors."""
    source, target = read_place(args.source), read_place(args.target)
    if (source.session is None) is (target.session is None):
        raise UsageError("one of the two must be in a session; SESSION:PATH, before or behind, would pass")
    try:
        copied = asyncio.run(_copy(args, source, target))
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}; a file that can be read or written would pass"
        ) from error
    if args.json:
        print(json.dumps({"exit_status": 0, "bytes": copied, "target": args.target}))
    return ExitStatus.OK


def read_place(word: str) -> Place:
    """`SESSION:PATH`, or a path here: one that has a / before any colon."""
    session, colon, path = word.partition(":")
    return Place(session, path) if colon and session and "/" not in session else Place(None, word)


def target_of(source: str, target: str, *, is_directory: bool) -> str:
    """The file that is meant, when a directory may be: the source's name in it."""
    name = PurePosixPath(source).name
    if not target:
        return name
    return f"{target.rstrip('/')}/{name}" if is_directory or target.endswith("/") else target


async def _copy(args: argparse.Namespace, source: Place, target: Place) -> int:
    async with reached(args) as client:
        files = await _files_of(client, source.session or target.session or "")
        kind = _archive_kind(source.path if target.session else target.path) if args.recursive else ""
        if target.session is not None:
            size = Path(source.path).stat().st_size
            with Progress(one_line(source.path), size) as progress:
                if kind:
                    await files.unpack(source.path, target.path, kind=kind, on_bytes=progress.add)
                else:
                    await files.put(
                        source.path, target_of(source.path, target.path, is_directory=False), on_bytes=progress.add
                    )
            return size
        local = Path(target_of(source.path, target.path, is_directory=Path(target.path or ".").is_dir()))
        with Progress(one_line(source.path), None) as progress:
            if kind:
                await files.pack(source.path, local, kind=kind, on_bytes=progress.add)
            else:
                await files.get(source.path, local, on_bytes=progress.add)
        return local.stat().st_size


async def _files_of(client: AsyncClient, named: str) -> AsyncFiles:
    found = await find_session(client, named)
    return (await client.attach(found["id"])).files


def _archive_kind(path: str) -> str:
    kind = ARCHIVES.get(Path(path).suffix)
    if kind is None:
        raise UsageError(
            f"{one_line(path)!r} is no archive by its name; with -r one that ends with .tar or .zip would pass"
        )
    return kind
