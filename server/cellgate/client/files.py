"""The files of a session, in its sandbox: paths are relative to where its code runs. They can be asked for while a cell
runs."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from cellgate.client.http import Http

__all__ = ["AsyncFiles", "OnProgress"]

Rows = list[dict[str, Any]]
OnProgress = Callable[[int], object]  # called with how many more bytes have passed, from another thread


class AsyncFiles:
    """Of one session: `session.files`. Everything here may raise CellgateError, and OSError for files on this side."""

    def __init__(self, http: Http, session_id: str) -> None:
        self._http = http
        self._base = f"/v1/sessions/{quote(session_id, safe='')}"

    async def list(self, path: str = "") -> Rows:
        """What is in a directory: {"name", "type", "size", "modified", ...} each."""
        entries: Rows = []
        after = None
        while True:
            said = await self._http.json("GET", f"{self._base}/files", query={"path": path or None, "after": after})
            entries += said["entries"]
            if not said["more"] or not said["entries"]:
                return entries
            after = entries[-1]["name"]

    async def read(self, path: str) -> bytes:
        """A whole file."""
        return await self._http.fetch(self._at(path), on_bytes=_nothing)

    async def write(self, path: str, data: bytes | str) -> None:
        """A whole file, in place of one that may be there; directories above it are made."""
        source = io.BytesIO(data.encode() if isinstance(data, str) else data)
        await self._http.send(self._at(path), source, on_bytes=_nothing)

    async def put(self, local: str | os.PathLike[str], path: str = "", *, on_bytes: OnProgress | None = None) -> None:
        """Send a file of this side."""
        with await asyncio.to_thread(Path(local).open, "rb") as source:
            await self._http.send(self._at(path or Path(local).name), source, on_bytes=on_bytes or _nothing)

    async def get(self, path: str, local: str | os.PathLike[str] = "", *, on_bytes: OnProgress | None = None) -> Path:
        """Fetch a file; it is whole when it bears its name. Returns where it is on this side."""
        return await self._fetch(self._at(path), Path(local or Path(path).name), on_bytes)

    async def pack(
        self, path: str, local: str | os.PathLike[str], *, kind: str = "tar", on_bytes: OnProgress | None = None
    ) -> Path:
        """Fetch a directory with all that is in it, as one archive: tar or zip."""
        query = {"path": path or None, "format": kind}
        return await self._fetch(f"{self._base}/archive", Path(local), on_bytes, query)

    async def unpack(
        self, local: str | os.PathLike[str], path: str = "", *, kind: str = "tar", on_bytes: OnProgress | None = None
    ) -> None:
        """Send an archive, and unpack it into a directory there: all of it or nothing."""
        with await asyncio.to_thread(Path(local).open, "rb") as source:
            query = {"path": path or None, "format": kind}
            await self._http.send(f"{self._base}/archive", source, on_bytes=on_bytes or _nothing, query=query)

    async def make_directory(self, path: str) -> None:
        """With those above it."""
        await self._http.json("POST", f"{self._base}/files", {"make_directory": path})

    async def rename(self, path: str, to: str) -> None:
        """Within the session."""
        await self._http.json("POST", f"{self._base}/files", {"rename": path, "to": to})

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """A file, or an empty directory; with `recursive` all that is in it too."""
        query = {"recursive": "true"} if recursive else {}
        await self._http.json("DELETE", self._at(path), query=query)

    async def _fetch(
        self, at: str, target: Path, on_bytes: OnProgress | None, query: Mapping[str, object] = {}
    ) -> Path:
        part = target.with_name(f".{target.name}.part")
        file: IO[bytes] = await asyncio.to_thread(part.open, "wb")
        try:
            with file:
                await self._http.fetch(at, file, on_bytes=on_bytes or _nothing, query=query)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return target

    def _at(self, path: str) -> str:
        return f"{self._base}/files/{quote(path)}"


def _nothing(count: int) -> None:
    pass
