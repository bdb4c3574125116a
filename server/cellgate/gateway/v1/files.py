"""/v1/sessions/{session_id}/files and /archive: what is in a session's workspace, listed, sent and fetched.

Everything is streamed: a transfer takes some pieces of memory here, whatever its size, and goes no faster than its
slower end. What is downloaded comes out of a sandbox and may be anything: a browser is told to keep it as a file, to
guess nothing, and to run nothing of it.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from email.utils import formatdate
from typing import cast
from urllib.parse import quote

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from cellgate.errors import BadRange, CellgateError, FilesFailed, FileTooLarge, NotAFile, UsageError
from cellgate.gateway.base import MAX_DRAINED_BYTES, Handler, Problem
from cellgate.gateway.bodies import check_names, text_of
from cellgate.gateway.v1.sessions import V1Handler
from cellgate.live.files import ARCHIVES, MAX_LISTED, PIECE_BYTES, Entry, SessionFiles, Upload

__all__ = ["ArchiveHandler", "FileHandler", "FilesHandler", "asked_range"]

MAX_PATH_CHARS = 4096
UPLOAD_SECONDS = 3600.0  # for all of a body: the largest file over a line of 300 KB/s
_DOWNLOAD_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the number of bytes that are wanted; None for all. Raises IndexError if none of them are here.
    More than one range, and what is no range, ask for all, as HTTP has it."""
    found = _RANGE.fullmatch((header or "").strip())
    if not found or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        count = min(int(last), size)
        if not count:
            raise IndexError
        return size - count, count
    start, end = int(first), min(int(last or size), size - 1)
    if last and int(last) < start:
        return None
    if start >= size:
        raise IndexError
    return start, end - start + 1


class FilesHandler(V1Handler):
    """Directories."""

    async def get(self, session_id: str) -> None:
        words = self.words("path", "after", "max")
        count = words.get("max", str(MAX_LISTED))
        if not re.fullmatch(r"[1-9]\d{0,2}", count) or int(count) > MAX_LISTED:
            raise UsageError(f"max is {count[:40]!r}; a number from 1 to {MAX_LISTED} would pass")
        path = words.get("path", "")
        files = SessionFiles(self.find(session_id))
        entries, more = await files.list(path, after=words.get("after", ""), count=int(count))
        self.answer({"path": path, "entries": [entry.to_json() for entry in entries], "more": more})

    async def post(self, session_id: str) -> None:
        """Make a directory, or move something."""
        files, fields = SessionFiles(self.find(session_id)), self.fields()
        check_names(fields, ("make_directory", "rename", "to"))
        made, path, to = (_path_of(fields, name) for name in ("make_directory", "rename", "to"))
        if made and not (path or to):
            entry = await files.make_directory(made)
        elif path and to and not made:
            entry = await files.rename(path, to)
        else:
            raise UsageError("nothing that can be done; `make_directory` alone, or `rename` with `to`, would pass")
        self.answer(entry.to_json(), 201 if made else 200)


def _path_of(fields: dict[str, object], name: str) -> str:
    return text_of(fields, name, max_chars=MAX_PATH_CHARS)


class _Streaming(V1Handler):
    """Sends without holding it all, and takes what is sent in the same way: the body of a PUT goes into an Upload. The
    first error ends that; the rest of the body is read all the same, so that its sender hears of it."""

    def initialize(self) -> None:
        super().initialize()
        self._upload: Upload | None = None
        self._waiting = bytearray()
        self._problem: CellgateError | None = None
        self._giving_up: asyncio.Task[None] | None = None

    def begin_upload(self, files: SessionFiles) -> Upload:
        """Where the body goes."""
        raise NotImplementedError

    def prepare(self) -> None:
        if self.request.method != "PUT":
            super().prepare()
            return
        Handler.prepare(self)  # not RestHandler's: its limits are for what is kept in memory
        connection = cast(HTTP1Connection, self.request.connection)
        connection.set_max_body_size(MAX_DRAINED_BYTES)
        files = SessionFiles(self.find(self.path_args[0]))
        upload = self.begin_upload(files)
        length = self.request.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > files.max_bytes:
            raise FileTooLarge(self.path_args[-1], files.max_bytes)
        self._upload = upload
        connection.set_max_body_size(max(files.max_bytes, MAX_DRAINED_BYTES))
        connection.set_body_timeout(UPLOAD_SECONDS)

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]  # tornado awaits it
        if self.request.method != "PUT":
            super().data_received(chunk)
        elif self._upload and not self._problem:
            self._waiting += chunk
            if len(self._waiting) >= PIECE_BYTES:
                await self._pass_on(self._upload)

    async def _pass_on(self, upload: Upload) -> None:
        try:
            while self._waiting:
                piece = bytes(self._waiting[:PIECE_BYTES])
                del self._waiting[:PIECE_BYTES]
                await upload.write(piece)
        except CellgateError as error:
            self._problem = error
            self._waiting.clear()
            await upload.close()

    async def received(self) -> Upload:
        """The upload, when all of the body has gone into it. Raises what kept it from that. Close it."""
        assert self._upload is not None
        await self._pass_on(self._upload)
        if self._problem:
            raise self._problem
        return self._upload

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._upload:
            self._giving_up = asyncio.ensure_future(self._upload.close())

    async def send(self, piece: bytes, seconds: float) -> None:
        """To the client, who must take it within that time. Raises StreamClosedError."""
        self.write(piece)
        try:
            await asyncio.wait_for(self.flush(), seconds)
        except asyncio.TimeoutError as error:
            raise StreamClosedError from error

    def name_download(self, name: str) -> None:
        """What a browser is to take it for: a file, whose name no two readers read differently."""
        plain, whole = re.sub(r"[^A-Za-z0-9._-]", "_", name), quote(name, safe="")
        self.set_header("Content-Disposition", f"attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}")
        self.set_header("Content-Security-Policy", _DOWNLOAD_POLICY)

    def break_off(self) -> None:
        """End an answer that has begun and cannot be completed, so that nobody takes it for whole."""
        stream = cast(HTTP1Connection, self.request.connection).stream
        if stream is not None:
            stream.close()


class FileHandler(_Streaming):
    """One file."""

    def begin_upload(self, files: SessionFiles) -> Upload:
        return files.upload(self.path_args[1])

    async def head(self, *args: str, **kwargs: str) -> None:
        """What it is, also of a directory."""
        session_id, path = args
        entry = await SessionFiles(self.find(session_id)).stat(path)
        self._describe(entry)
        self.set_header("Content-Length", str(entry.size if entry.type == "file" else 0))
        self.finish()

    async def get(self, session_id: str, path: str) -> None:
        live = self.find(session_id)
        files = SessionFiles(live)
        entry = await files.stat(path)
        if entry.type != "file":
            raise NotAFile(path)
        self._describe(entry)
        if self._has(entry):
            self.set_status(304)
            self.finish()
            return
        start, count = self._wanted(path, entry)
        if count > files.max_bytes:  # sparse: no file here has as much to say
            raise FileTooLarge(path, files.max_bytes)
        self.set_header("Content-Length", str(count))
        stall, wanted = live.session.limits.client_stall_seconds, count
        try:
            while count:
                now, piece = await files.read(path, start, count)
                if now.version != entry.version or not piece:
                    raise FilesFailed(path, "it has changed while it was read")
                await self.send(piece, stall)
                start, count = start + len(piece), count - len(piece)
            files.was_sent(path, wanted)
            self.finish()
        except (CellgateError, StreamClosedError):
            if not self._headers_written:
                self.clear()
                raise
            self.break_off()

    def _describe(self, entry: Entry) -> None:
        self.name_download(entry.name)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Cellgate-Type", entry.type)
        self.set_header("ETag", f'"{entry.version}"')
        self.set_header("Accept-Ranges", "bytes")
        with suppress(ValueError, OverflowError, OSError):  # a time that code in the sandbox made up
            self.set_header("Last-Modified", formatdate(entry.modified, usegmt=True))

    def _has(self, entry: Entry) -> bool:
        known = self.request.headers.get("If-None-Match", "")
        return known == "*" or f'"{entry.version}"' in known

    def _wanted(self, path: str, entry: Entry) -> tuple[int, int]:
        """Where to begin, and how many bytes to send. Raises BadRange."""
        headers = self.request.headers
        if headers.get("If-Range", f'"{entry.version}"') != f'"{entry.version}"':
            return 0, entry.size
        try:
            wanted = asked_range(headers.get("Range"), entry.size)
        except IndexError as error:
            raise BadRange(path, entry.size) from error
        if wanted is None:
            return 0, entry.size
        start, count = wanted
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {start}-{start + count - 1}/{entry.size}")
        return wanted

    def set_problem(self, problem: Problem) -> None:
        super().set_problem(problem)
        if problem.code == BadRange.code:
            self.set_header("Content-Range", f"bytes */{problem.facts['size']}")

    async def put(self, session_id: str, path: str) -> None:
        upload = await self.received()
        try:
            entry = await upload.commit()
        finally:
            await upload.close()
        self.set_header("ETag", f'"{entry.version}"')
        self.answer(entry.to_json())

    async def delete(self, session_id: str, path: str) -> None:
        recursive = self.words("recursive").get("recursive", "false")
        if recursive not in ("true", "false"):
            raise UsageError(f"recursive is {recursive[:40]!r}; true or false would pass")
        await SessionFiles(self.find(session_id)).delete(path, recursive=recursive == "true")
        self.answer_nothing()


class ArchiveHandler(_Streaming):
    """Many files at once."""

    def begin_upload(self, files: SessionFiles) -> Upload:
        return files.archive(*self._asked())

    def _asked(self) -> tuple[str, str]:
        words = self.words("path", "format")
        if (kind := words.get("format", "tar")) not in ARCHIVES:
            raise UsageError(f"format is {kind[:40]!r}; {' or '.join(ARCHIVES)} would pass")
        return words.get("path", ""), kind

    async def head(self, *args: str, **kwargs: str) -> None:
        path, kind = self._asked()
        await SessionFiles(self.find(args[0])).stat(path)
        self._describe(path, kind)
        self.finish()

    def _describe(self, path: str, kind: str) -> None:
        name = path.rstrip("/").rpartition("/")[2]
        self.name_download(f"{name if name.strip('.') else 'files'}.{kind}")
        self.set_header("Content-Type", ARCHIVES[kind])

    async def get(self, session_id: str) -> None:
        path, kind = self._asked()
        live = self.find(session_id)
        pieces = SessionFiles(live).pack(path, kind)
        stall = live.session.limits.client_stall_seconds
        try:
            async for piece in pieces:
                if not self._headers_written:
                    self._describe(path, kind)
                await self.send(piece, stall)
            self.finish()
        except (CellgateError, StreamClosedError):
            if not self._headers_written:
                raise
            self.break_off()
        finally:
            await pieces.aclose()

    async def put(self, session_id: str) -> None:
        upload = await self.received()
        try:
            entries, size = await upload.unpack()
        finally:
            await upload.close()
        self.answer({"entries": entries, "bytes": size})
