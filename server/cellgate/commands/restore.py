"""Make the state of a server from a file that `cellgate backup` has made, where there is none yet.

The next `cellgate serve` goes on with it: sessions have all that was said in them, and fresh kernels."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from cellgate.commands.archive import check_archive, unpack
from cellgate.commands.exits import ExitStatus
from cellgate.commands.places import add_place_flags, as_gateway, places_of
from cellgate.errors import StorageFull, UsageError
from cellgate.serve.places import Places, gateway_account

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

UNFINISHED = "restoring"  # where all is put until it is whole
WOULD_PASS = "what `cellgate backup` has made would pass"

HELP = "make the state of a server from such a file"
EXITS = """\
exit status:
  0  it is made
  2  usage: no backup, or a state directory that holds a state already
  4  the state cannot be written"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="that `cellgate backup` has made")
    add_place_flags(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate restore`. Raises UsageError, StorageFull."""
    try:
        file = args.file.open("rb")
    except OSError as error:
        raise UsageError(f"{args.file} cannot be read: {error.strerror}; {WOULD_PASS}") from error
    with file:
        return _execute(args, file, places_of(args))


def _execute(args: argparse.Namespace, file: BinaryIO, places: Places) -> ExitStatus:
    try:
        with as_gateway():
            is_used = any(entry.name != UNFINISHED for entry in places.gateway.iterdir())
        if is_used or places.tokens.exists():
            raise UsageError(f"{places.top} holds a state already; another --state-dir, or an empty one, would pass")
        with tarfile.open(fileobj=file) as archive:
            check_archive(archive)
            _clear(places)  # of one that was killed
            try:
                count = _restore(archive, places)
            finally:
                _clear(places)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UsageError(f"{args.file} cannot be read: {error}; {WOULD_PASS}") from error
    except OSError as error:
        raise StorageFull(f"{places.top}: {error}") from error
    print(f"cellgate: {places.top} has {count} files of {args.file}", file=sys.stderr)
    return ExitStatus.OK


def _restore(archive: tarfile.TarFile, places: Places) -> int:
    """All of it, then each thing to its place: whoever fails before that has changed nothing. How many files."""
    gateway, access = places.gateway / UNFINISHED, places.tokens.parent / UNFINISHED
    with as_gateway():
        count = unpack(archive, gateway, "gateway")
    count += unpack(archive, access, "access")
    tokens = access / places.tokens.name
    if tokens.exists():
        if os.geteuid() == 0:
            os.chown(tokens, -1, gateway_account().gid, follow_symlinks=False)
            tokens.chmod(0o640)
        tokens.rename(places.tokens)
    with as_gateway():
        for entry in sorted(gateway.iterdir()) if gateway.exists() else ():
            entry.rename(places.gateway / entry.name)
    return count


def _clear(places: Places) -> None:
    shutil.rmtree(places.tokens.parent / UNFINISHED, ignore_errors=True)
    with as_gateway():
        shutil.rmtree(places.gateway / UNFINISHED, ignore_errors=True)
