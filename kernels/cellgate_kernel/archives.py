"""tar and zip, packed piece by piece and unpacked with care. Knows nothing of messages, nor where files may be.

An archive that is made has directories and regular files; links, pipes, sockets and devices are left out, as is what
cannot be read. An archive that comes may have nothing else either: each name and size in it is looked at before
anything is written.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

__all__ = ["FORMATS", "BadArchive", "Member", "pack", "read_members", "unpack"]

FORMATS = ("tar", "zip")  # a tar that comes may be gzipped
PIECE_BYTES = 256 << 10  # of an archive at a time
COPY_BYTES = 256 << 10
MAX_MEMBERS = 100_000  # of an archive that comes; each takes a kilobyte to look at, and an inode
MAX_NAME_BYTES = 4095  # PATH_MAX without its NUL
MAX_PART_BYTES = 255  # NAME_MAX
_BLOCK = 512  # of a tar
_EARLIEST, _LATEST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)  # that a zip can say


class BadArchive(ValueError):
    """It cannot be read, or `entry` is what is not unpacked; the text says what would pass."""

    def __init__(self, problem: str, entry: str = "") -> None:
        super().__init__(f"{entry[:200]!r}: {problem}" if entry else problem)
        self.entry = entry[:200]


@dataclass(frozen=True)
class Member:
    """A file or directory that comes. `name` is relative and clean."""

    name: str
    size: int
    is_directory: bool
    is_program: bool
    index: int  # its place in the archive


# -- packing --------------------------------------------------------------------------------------------


def pack(path: str, kind: str) -> Iterator[bytes]:
    """The archive of a directory's contents, or of one file, in pieces of some PIECE_BYTES. Raises BadArchive."""
    if kind not in FORMATS:
        raise BadArchive(f"the format is {kind[:40]!r}; {' or '.join(FORMATS)} would pass")
    return _gather(_tar(path) if kind == "tar" else _zip(path))


def _gather(parts: Iterator[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _tar(top: str) -> Iterator[bytes]:
    for name, path, status in _walk(top):
        info = tarfile.TarInfo(name)
        info.mtime, info.mode = max(0, int(status.st_mtime)), stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
            yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            continue
        with suppress(OSError), open(path, "rb", opener=_open) as file:
            info.size = os.fstat(file.fileno()).st_size
            yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            left = info.size
            while left:  # what grows meanwhile is cut, what shrinks filled up: the header has gone
                piece = file.read(min(left, COPY_BYTES)) or bytes(min(left, COPY_BYTES))
                left -= len(piece)
                yield piece
            yield bytes(-info.size % _BLOCK)
    yield bytes(2 * _BLOCK)


class _Sink(io.RawIOBase):
    """Where zipfile writes to; it cannot go back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _zip(top: str) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path, status in _walk(top):
            when = min(max(_EARLIEST, _local(status.st_mtime)), _LATEST)
            shown = name.encode("utf-8", "replace").decode()
            info = zipfile.ZipInfo(shown + ("/" if stat.S_ISDIR(status.st_mode) else ""), when)  # type: ignore[arg-type]
            info.external_attr = status.st_mode << 16
            if stat.S_ISDIR(status.st_mode):
                archive.writestr(info, b"")
                continue
            info.compress_type = zipfile.ZIP_DEFLATED
            with (
                suppress(OSError),
                open(path, "rb", opener=_open) as file,
                archive.open(info, "w", force_zip64=True) as member,
            ):
                while piece := file.read(COPY_BYTES):
                    member.write(piece)
                    yield sink.take()
    yield sink.take()


def _local(moment: float) -> tuple[int, ...]:
    with suppress(OverflowError, ValueError, OSError):
        return tuple(time.localtime(moment)[:6])
    return _EARLIEST


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)


def _walk(top: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """The name in the archive, path and status of each file and directory beneath `top`, directories before what is
    in them."""
    status = os.stat(top)
    if stat.S_ISREG(status.st_mode):
        yield os.path.basename(top), top, status
        return
    waiting = [""]
    while waiting:
        name = waiting.pop()
        path = os.path.join(top, name)
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                if name:
                    yield name, path, status
                inside = sorted(os.listdir(path), reverse=True)
                waiting += [os.path.join(name, one) for one in inside]
            elif stat.S_ISREG(status.st_mode):
                yield name, path, status
        except OSError:  # gone meanwhile, or closed to its own owner
            continue


# -- unpacking ------------------------------------------------------------------------------------------


def read_members(path: str, kind: str, *, max_bytes: int) -> list[Member]:
    """All that is in an archive. Raises BadArchive for what is not unpacked, OSError for what the disk says."""
    if kind not in FORMATS:
        raise BadArchive(f"the format is {kind[:40]!r}; {' or '.join(FORMATS)} would pass")
    members: list[Member] = []
    total = 0
    try:
        for member in _tar_members(path) if kind == "tar" else _zip_members(path):
            members.append(member)
            total += member.size
            if len(members) > MAX_MEMBERS:
                raise BadArchive(f"it has more than {MAX_MEMBERS} entries; as many would pass")
            if total > max_bytes:
                raise BadArchive(f"it holds more than {max_bytes} bytes; as many would pass", member.name)
    except Exception as error:
        raise _as_bad(error, kind) from error
    return members


def unpack(path: str, kind: str, members: Sequence[Member], to: str) -> None:
    """Write what `read_members` said into an empty directory. Raises BadArchive, OSError."""
    try:
        if kind == "tar":
            with _open_tar(path) as archive:
                infos = {member.index: member for member in members}
                for index, info in enumerate(archive):
                    member = infos.get(index)
                    source = archive.extractfile(info) if member and not member.is_directory else None
                    if member:
                        _write(member, source, to)
        else:
            with zipfile.ZipFile(path) as zipped:
                rows = zipped.infolist()
                for member in members:
                    if member.is_directory:
                        _write(member, None, to)
                    else:
                        with zipped.open(rows[member.index]) as file:
                            _write(member, file, to)
    except Exception as error:
        raise _as_bad(error, kind) from error


def _as_bad(error: Exception, kind: str) -> Exception:
    """What the libraries raise of broken bytes is of many kinds; what the disk says stays."""
    if isinstance(error, (FileExistsError, IsADirectoryError, NotADirectoryError)):
        return BadArchive("it has a file where another entry needs a directory")
    if isinstance(error, (BadArchive, MemoryError)) or (isinstance(error, OSError) and error.errno is not None):
        return error
    return BadArchive(f"it is no {kind} that can be read: {str(error)[:200] or type(error).__name__}")


def _write(member: Member, source: IO[bytes] | None, to: str) -> None:
    path = os.path.join(to, member.name)
    if source is None:
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    left = member.size
    with open(path, "wb") as file:
        while left:
            piece = source.read(min(left, COPY_BYTES))
            if not piece:
                raise BadArchive("it ends before its size is reached", member.name)
            file.write(piece)
            left -= len(piece)
        if source.read(1):
            raise BadArchive("it is longer than its size", member.name)
    if member.is_program:
        os.chmod(path, 0o755)


def _tar_members(path: str) -> Iterator[Member]:
    with _open_tar(path) as archive:
        for index, info in enumerate(archive):
            if info.issym() or info.islnk():
                raise BadArchive("it is a link; files and directories would pass", info.name)
            if not info.isreg() and not info.isdir():
                raise BadArchive("it is a device or a pipe; files and directories would pass", info.name)
            if info.size < 0:
                raise BadArchive("its size is negative", info.name)
            name = _clean(info.name)
            if name:  # else the directory itself
                size = 0 if info.isdir() else info.size
                yield Member(name, size, info.isdir(), bool(info.mode & 0o100), index)


def _open_tar(path: str) -> tarfile.TarFile:
    with open(path, "rb") as file:
        is_gzipped = file.read(2) == b"\x1f\x8b"
    return tarfile.open(path, "r:gz" if is_gzipped else "r:", errorlevel=2)


def _zip_members(path: str) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for index, info in enumerate(archive.infolist()):
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadArchive("it is a link, a device or a pipe; files and directories would pass", info.filename)
            if info.flag_bits & 1:
                raise BadArchive("it is encrypted; what is not would pass", info.filename)
            name = _clean(info.filename)
            if name:
                yield Member(name, 0 if info.is_dir() else info.file_size, info.is_dir(), bool(mode & 0o100), index)


def _clean(name: str) -> str:
    """A name as it may be written; nothing for the archive's own directory. Raises BadArchive."""
    if name.startswith("/") or "\0" in name or "\\" in name:
        raise BadArchive("its name is absolute or has a character that cannot be; a relative path would pass", name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadArchive("its name leads out of the directory; one without '..' would pass", name)
    if len(os.fsencode(name)) > MAX_NAME_BYTES or any(len(os.fsencode(part)) > MAX_PART_BYTES for part in parts):
        raise BadArchive(f"its name is too long; {MAX_PART_BYTES} bytes for each part would pass", name)
    return "/".join(parts)
