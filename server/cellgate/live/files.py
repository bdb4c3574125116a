"""The files of a session's sandbox, asked for over its link, piece by piece: nobody here ever holds a whole one.

What comes back was said beside hostile code, and is believed as little as all else from there: each field is of its
type and bounded, or the answer is none. Paths are relative to the session's work directory; where they may lead is
decided in the sandbox, with the rights of the code there, so that a path can do no more than that code. Knows nothing
of HTTP.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from cellgate.errors import (
    AlreadyThere,
    BadArchive,
    BadPath,
    CellgateError,
    DiskFull,
    FileError,
    FilesFailed,
    FileTooLarge,
    NoSuchFile,
    NotADirectory,
    NotAFile,
    NotEmpty,
    NotPermitted,
    WorkspaceGone,
)
from cellgate.live.happenings import Direction
from cellgate_kernel.message import Channel

__all__ = [
    "ARCHIVES",
    "KINDS",
    "MAX_LISTED",
    "PIECE_BYTES",
    "Answer",
    "Asks",
    "Entry",
    "SessionFiles",
    "Upload",
    "clean",
]

PIECE_BYTES = 512 << 10  # asked for or sent at a time: the memory that a transfer takes here, a few times over
MAX_LISTED = 500  # entries of one answer
MAX_PATH_BYTES = 4095  # Linux takes no more
ANSWER_SECONDS = 30.0  # for a piece, or a look: a sandbox that is busy with its own takes milliseconds
LONG_SECONDS = 600.0  # for what goes through many files: deleting, unpacking
ARCHIVES = {"tar": "application/x-tar", "zip": "application/zip"}
_VERSION = re.compile(r"[0-9a-f-]{1,100}")  # it goes into a header
KINDS = ("file", "directory", "link", "other")
_PART = ".cellgate-"  # how the names of what is not finished begin; the sandbox removes what was left

# What a refusal of the sandbox's means. Its own words are for people who trust it.
_REFUSALS: Mapping[str, type[FileError]] = {
    "bad_path": BadPath,
    "outside": BadPath,
    "no_such_file": NoSuchFile,
    "not_a_file": NotAFile,
    "not_a_directory": NotADirectory,
    "already_there": AlreadyThere,
    "not_empty": NotEmpty,
    "not_permitted": NotPermitted,
    "workspace_gone": WorkspaceGone,
}


class Answer(Protocol):
    """What a kernel host answered."""

    @property
    def content(self) -> Mapping[str, Any]: ...

    @property
    def buffers(self) -> Sequence[bytes | memoryview]: ...


class Asks(Protocol):
    """The part of a LiveSession that is needed here."""

    @property
    def limits(self) -> Mapping[str, int | float]: ...

    async def ask(
        self, msg_type: str, content: Mapping[str, Any], buffers: Sequence[bytes] = (), *, channel: Channel
    ) -> Answer: ...

    def file_moved(self, direction: Direction, path: str, size_bytes: int) -> None:
        """To be told when all of it has."""
        ...


@dataclass(frozen=True)
class Entry:
    """A file or directory, as it was when it was looked at."""

    name: str
    type: str  # one of KINDS
    size: int
    modified: float  # seconds since 1970
    mode: int
    version: str  # another one whenever the file has changed

    def to_json(self) -> dict[str, object]:
        return dict(vars(self))


def clean(path: str) -> str:
    """A path that is worth asking for. Raises BadPath."""
    parts = path.split("/")
    if path.startswith("/"):  # only into the sandbox's own directories; it decides
        parts = parts[1:]
    is_whole = path in ("", ".", "/")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:  # half a character
        raise BadPath(path) from None
    if "\0" in path or ".." in parts or ("" in parts and not is_whole) or size > MAX_PATH_BYTES:
        raise BadPath(path)
    return path


class SessionFiles:
    """Of one session. Everything here may raise a FileError, or whatever keeps the session from answering."""

    def __init__(self, session: Asks) -> None:
        self._session = session

    @property
    def max_bytes(self) -> int:
        """Of one file."""
        return int(self._session.limits["file_bytes"])

    async def list(self, path: str, *, after: str = "", count: int = MAX_LISTED) -> tuple[list[Entry], bool]:
        """Some of what is in a directory, sorted by name, and whether there is more."""
        said, _ = await self._ask(path, {"op": "list", "path": clean(path), "after": after, "max": count})
        entries = said.get("entries")
        if not isinstance(entries, list) or len(entries) > MAX_LISTED:
            raise FilesFailed(path, "it sent no list")
        return [_entry(path, one) for one in entries], said.get("more") is True

    async def stat(self, path: str) -> Entry:
        said, _ = await self._ask(path, {"op": "stat", "path": clean(path)})
        return _entry(path, said)

    async def read(self, path: str, offset: int, count: int) -> tuple[Entry, bytes]:
        """A piece of a file: as much as was asked for, up to PIECE_BYTES, or less where the file ends."""
        count = min(count, PIECE_BYTES)
        said, data = await self._ask(path, {"op": "read", "path": clean(path), "offset": offset, "bytes": count})
        if len(data) > count:
            raise FilesFailed(path, f"it sent {len(data)} bytes for {count}")
        return _entry(path, said), data

    async def read_whole(self, path: str, max_bytes: int) -> bytes:
        """For files that are small, as they are at one moment. Raises FileTooLarge."""
        entry, data = await self.read(path, 0, max_bytes)
        if entry.size > max_bytes:
            raise FileTooLarge(path, max_bytes)
        pieces = [data]
        while (have := sum(map(len, pieces))) < entry.size:
            now, data = await self.read(path, have, entry.size - have)
            if now.version != entry.version or not data:
                raise FilesFailed(path, "it has changed while it was read")
            pieces.append(data)
        whole = b"".join(pieces)
        self.was_sent(path, len(whole))
        return whole

    def was_sent(self, path: str, size_bytes: int) -> None:
        """So much of a file went to a client: to be told by who has read it in pieces."""
        self._session.file_moved(Direction.OUT, path, size_bytes)

    async def write_whole(self, path: str, data: bytes) -> Entry:
        upload = self.upload(path)
        try:
            for at in range(0, len(data), PIECE_BYTES):
                await upload.write(data[at : at + PIECE_BYTES])
            return await upload.commit()
        finally:
            await upload.close()

    async def make_directory(self, path: str) -> Entry:
        said, _ = await self._ask(path, {"op": "mkdir", "path": clean(path)})
        return _entry(path, said)

    async def rename(self, path: str, to: str) -> Entry:
        said, _ = await self._ask(path, {"op": "rename", "path": clean(path), "to": clean(to)})
        return _entry(to, said)

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        content = {"op": "delete", "path": clean(path), "recursive": recursive}
        await self._ask(path, content, seconds=LONG_SECONDS)

    def upload(self, path: str) -> Upload:
        """A file that is to be written. It is there under its name when it is committed. Owes a `close`."""
        return Upload(self, clean(path))

    def archive(self, path: str, kind: str) -> Upload:
        """An archive that is to be unpacked into a directory, all of it or nothing. Owes a `close`."""
        return Upload(self, clean(path), kind)

    async def pack(self, path: str, kind: str) -> AsyncGenerator[bytes, None]:
        """The archive of a directory, in pieces, as they are wanted. Owes an `aclose`."""
        said, _ = await self._ask(path, {"op": "pack", "path": clean(path), "format": kind})
        handle = said.get("handle")
        is_over, size = False, 0
        try:
            while True:
                _, piece = await self._ask(path, {"op": "next", "handle": handle}, seconds=LONG_SECONDS)
                if not piece:
                    is_over = True
                    self.was_sent(path, size)
                    return
                size += len(piece)
                yield piece
        finally:
            if not is_over:
                with suppress(CellgateError):
                    await self._ask(path, {"op": "drop", "handle": handle})

    async def _ask(
        self, path: str, content: dict[str, Any], data: bytes | None = None, *, seconds: float = ANSWER_SECONDS
    ) -> tuple[Mapping[str, Any], bytes]:
        """What the sandbox answered, and the bytes with it. Raises FileError, CellgateError."""
        asked = self._session.ask("files_request", content, () if data is None else (data,), channel=Channel.CONTROL)
        try:
            answer = await asyncio.wait_for(asked, seconds)
        except asyncio.TimeoutError as error:
            raise FilesFailed(path, f"there was no answer in {seconds:g} s") from error
        said = answer.content
        if said.get("status") != "ok":
            raise self._refusal(path, said)
        return said, b"".join(answer.buffers)

    def _refusal(self, path: str, said: Mapping[str, Any]) -> FileError:
        code, facts = said.get("ename"), said.get("facts")
        facts = facts if isinstance(facts, dict) else {}
        limits = self._session.limits
        if isinstance(code, str) and code in _REFUSALS:
            return _REFUSALS[code](path)
        if code == "file_too_large":
            return FileTooLarge(path, self.max_bytes)
        if code == "bad_archive":
            return BadArchive(path, str(facts.get("entry", ""))[:200], str(said.get("evalue", ""))[:200])
        if code == "disk_full":
            free = [facts.get(name) if isinstance(facts.get(name), int) else None for name in _FREE]
            return DiskFull(path, int(limits["workspace_bytes"]), int(limits["workspace_inodes"]), *free)
        return FilesFailed(path, f"{code}: {said.get('evalue')}"[:200])


_FREE = ("free_bytes", "free_inodes")


class Upload:
    """A file on its way into the sandbox, under a name of its own until it is there. Made by `SessionFiles`."""

    def __init__(self, files: SessionFiles, path: str, kind: str = "") -> None:
        self._files = files
        self._path = path
        self._kind = kind  # of an archive that is unpacked into the directory `path`
        directory = path if kind else path.rpartition("/")[0]
        if not kind and path in ("", ".", "/"):
            raise BadPath(path)
        self._directory = "/" if not directory and path.startswith("/") else directory
        self._part = f"{self._directory.rstrip('/')}/" if self._directory else ""
        self._part += f"{_PART}{secrets.token_hex(8)}"
        self._size = 0
        self._is_begun = False
        self._is_closed = False  # perhaps by somebody else, while a piece is on its way

    async def write(self, data: bytes) -> None:
        """The next bytes, PIECE_BYTES at most."""
        if self._size + len(data) > self._files.max_bytes:
            raise FileTooLarge(self._path, self._files.max_bytes)
        if not self._is_begun and self._directory not in ("", "."):
            await self._files._ask(self._path, {"op": "mkdir", "path": self._directory})
        self._check()
        content = {"op": "write", "path": self._part, "offset": self._size, "create": not self._is_begun}
        self._is_begun = True
        await self._files._ask(self._path, content, data)
        self._size += len(data)

    async def commit(self) -> Entry:
        """It takes its name, in place of what had it."""
        if not self._is_begun:
            await self.write(b"")
        self._check()
        said, _ = await self._files._ask(self._path, {"op": "rename", "path": self._part, "to": self._path})
        self._is_begun = False
        self._files._session.file_moved(Direction.IN, self._path, self._size)
        return _entry(self._path, said)

    async def unpack(self) -> tuple[int, int]:
        """What is in it takes its place. How many entries and bytes that were."""
        if not self._is_begun:
            await self.write(b"")
        self._check()
        limit = int(self._files._session.limits["workspace_bytes"])
        content = {"op": "unpack", "path": self._part, "to": self._path, "format": self._kind, "max_bytes": limit}
        said, _ = await self._files._ask(self._path, content, seconds=LONG_SECONDS)
        self._files._session.file_moved(Direction.IN, self._path, self._size)
        return _whole(self._path, said, "entries"), _whole(self._path, said, "bytes")

    async def close(self) -> None:
        """Leave nothing unfinished, and begin nothing more. Also when the task was cancelled; what cannot be removed
        now goes later."""
        self._is_closed = True
        if self._is_begun:
            self._is_begun = False
            with suppress(CellgateError):
                await self._files._ask(self._path, {"op": "delete", "path": self._part})

    def _check(self) -> None:
        """What was closed would begin anew, and take its place with the rest alone. Raises FilesFailed."""
        if self._is_closed:
            raise FilesFailed(self._path, "whoever sent it is gone")


def _entry(path: str, said: object) -> Entry:
    """Raises FilesFailed for what is none."""
    if not isinstance(said, dict):
        raise FilesFailed(path, "it sent what is no entry")
    modified = said.get("modified")
    if not isinstance(modified, (int, float)) or isinstance(modified, bool) or not math.isfinite(modified):
        raise FilesFailed(path, "it sent an entry with a time that is none")
    version, kind = said.get("version"), said.get("type")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise FilesFailed(path, "it sent an entry with a version that is none")
    return Entry(
        name=_name(path, said),
        type=kind if isinstance(kind, str) and kind in KINDS else "other",
        size=_whole(path, said, "size"),
        modified=float(modified),
        mode=_whole(path, said, "mode"),
        version=version,
    )


def _name(path: str, said: Mapping[str, Any]) -> str:
    name = said.get("name")
    if not isinstance(name, str) or len(name) > MAX_PATH_BYTES:
        raise FilesFailed(path, "it sent an entry without a name")
    return name


def _whole(path: str, said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise FilesFailed(path, f"it sent an entry without a {name} that would pass")
    return value
