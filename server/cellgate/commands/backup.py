"""Keep the state of a server in one file, also while it serves: sessions with all that was said in them, scripts,
tokens by their hashes, the audit log. Variables and files in sandboxes are not in it.

The file tells whoever reads it what was said in all sessions: it is readable for its owner alone."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path

from cellgate.commands.archive import add_database, add_tree, begin_archive
from cellgate.commands.exits import ExitStatus
from cellgate.commands.places import add_place_flags, as_gateway, places_of
from cellgate.errors import StorageFull, UsageError

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "keep the state of a server in one file"
EXITS = """\
exit status:
  0  it is kept
  2  usage: the file is there already, or cannot be made
  4  the state cannot be read, or the file not be written"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="to make; a tar.gz")
    add_place_flags(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate backup`. Raises UsageError, StorageFull."""
    places = places_of(args)
    try:
        descriptor = os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"{args.file} cannot be made: {error.strerror}; a path where nothing is would pass") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            archive = begin_archive(file)
            count = 0
            if places.tokens.exists():
                add_database(archive, places.tokens, f"access/{places.tokens.name}")
                count += 1
            with as_gateway():  # root follows no name where somebody else may write
                count += add_tree(archive, places.gateway, "gateway")
            archive.close()
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:  # by Ctrl-C, too: half a backup bears the name of one, and would stand in the way
        with suppress(OSError):
            args.file.unlink()
        if isinstance(error, (OSError, sqlite3.Error)):
            raise StorageFull(f"{places.top}: {error}") from error
        raise
    print(f"cellgate: {count} files of {places.top} are kept in {args.file}", file=sys.stderr)
    return ExitStatus.OK
