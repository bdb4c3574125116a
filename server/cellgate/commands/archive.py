"""A server's state as one file, and the other way: what `cellgate backup` and `cellgate restore` do.

    cellgate-backup.json     which version wrote it, and when
    gateway/…                registry, journals, scripts, the audit log
    access/tokens.sqlite     tokens, by their hashes

A database is copied by SQLite itself, whole at one moment, also while a server writes to it. A journal is copied as it
lies there: it is appended to, and what is torn at its end is found by whoever opens it, as after a crash. So a backup
can be made while the server serves. Sandboxes are in none: sessions that are restored get fresh kernels.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cellgate.errors import UsageError

__all__ = ["MANIFEST", "add_database", "add_tree", "begin_archive", "check_archive", "unpack"]

MANIFEST = "cellgate-backup.json"
VERSION = 1
MAX_DEPTH = 6  # gateway/sessions/ID/segment
_LEFT_OUT = ("lock", "ready")  # of a process that runs
_BESIDE = ("-wal", "-shm", "-journal", ".new")  # a database's own, and files that are being made


def begin_archive(file: BinaryIO) -> tarfile.TarFile:
    """To add to, and then to be closed."""
    # Journals are text, of which the quickest level takes away most of what the best does.
    archive = tarfile.open(fileobj=file, mode="w:gz", compresslevel=1)  # noqa: SIM115 - whoever asked closes it
    _add_bytes(archive, MANIFEST, json.dumps({"version": VERSION, "made": time.time()}).encode())
    return archive


def add_database(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """As it is at one moment."""
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
        tempfile.TemporaryDirectory() as beside,
        closing(sqlite3.connect(Path(beside, "copy"))) as copy,
    ):
        source.backup(copy)
        _add_bytes(archive, name, Path(beside, "copy").read_bytes())


def add_tree(archive: tarfile.TarFile, top: Path, name: str) -> int:
    """All files below, and how many: directories and plain files, and nothing that a name leads to elsewhere."""
    count = 0
    for directory, names, files in os.walk(top, followlinks=False):
        names.sort()
        for file in sorted(files):
            path = Path(directory, file)
            inside = f"{name}/{path.relative_to(top)}"
            if file in _LEFT_OUT or file.endswith(_BESIDE):
                continue
            if file.endswith(".sqlite"):
                add_database(archive, path, inside)
                count += 1
            else:
                count += _add_file(archive, path, inside)
    return count


def check_archive(archive: tarfile.TarFile) -> None:
    """Raises UsageError for what is no backup, or one that this version cannot read."""
    first = archive.next()
    found = archive.extractfile(first) if first is not None and first.name == MANIFEST else None
    try:
        version = json.loads(found.read())["version"] if found else None
    except (ValueError, KeyError, TypeError):
        version = None
    if version != VERSION:
        raise UsageError(f"this is no backup of version {VERSION}; one that `cellgate backup` made would pass")


def unpack(archive: tarfile.TarFile, place: Path, name: str) -> int:
    """What stands in the archive below `name`, as whoever calls; how many files. Nothing that is there is replaced.
    Raises UsageError, OSError."""
    count = 0
    for member in archive.getmembers():
        parts = PurePosixPath(member.name).parts
        if member.name == MANIFEST or parts[:1] != (name,):
            continue
        if not member.isreg() or ".." in parts or len(parts) > MAX_DEPTH or member.name.startswith("/"):
            raise UsageError(f"the backup holds {member.name[:200]!r}, which is no file of a server's state")
        target = place.joinpath(*parts[1:])
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        source = archive.extractfile(member)
        assert source is not None  # it is a plain file
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            shutil.copyfileobj(source, file)
        count += 1
    return count


def _add_file(archive: tarfile.TarFile, path: Path, name: str) -> int:
    """As much as it has now: it may grow, or go, meanwhile."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError:
        return 0
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return 0
        info = _info(name, found.st_size)
        archive.addfile(info, _Padded(file, found.st_size))
    return 1


class _Padded(io.RawIOBase):
    """So many bytes of a file; where it was cut meanwhile, zeros in their place."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= wanted
        return data.ljust(wanted, b"\0")


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_info(name, len(data)), io.BytesIO(data))


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(time.time())
    return info
