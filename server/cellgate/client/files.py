"""The files of a session, in its sandbox: paths are relative to where its code runs. They can be asked for while a cell
runs."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from cellgate.client.http import Http

__all__ = ["AsyncFiles", "OnProgress"]

OnProgress = Callable[[int], object]  # called with how many more bytes have passed, from another thread


class AsyncFiles:
    """Of one session: `session.files`. Everything here may raise CellgateError, and OSError for files on this side."""

    def __init__(self, http: Http, session_id: str) -> None:
        self._http = http
        self._base = f"/v1/sessions/{quote(session_id, safe='')}/files"

    async def list(self, path: str = "") -> list[dict[str, Any]]:
        """What is in a directory: {"name", "type", "size", ...} each."""
        said = await self._http.json("GET", self._base, query={"path": path or None})
        return [dict(one) for one in (said["entries"] if isinstance(said, dict) else said)]

    async def read(self, path: str) -> bytes:
        """A whole file."""
        return await self._http.fetch(self._at(path), on_bytes=_nothing)

    async def write(self, path: str, data: bytes | str) -> None:
        """A whole file, in place of one that may be there."""
        source = io.BytesIO(data.encode() if isinstance(data, str) else data)
        await self._http.send(self._at(path), source, on_bytes=_nothing)

    async def put(self, local: str | os.PathLike[str], path: str = "", *, on_bytes: OnProgress | None = None) -> None:
        """Send a file of this side."""
        source = await asyncio.to_thread(Path(local).open, "rb")
        with source:
            await self._http.send(self._at(path or Path(local).name), source, on_bytes=on_bytes or _nothing)

    async def get(self, path: str, local: str | os.PathLike[str] = "", *, on_bytes: OnProgress | None = None) -> Path:
        """Fetch a file; it is whole when it bears its name. Returns where it is on this side."""
        target = Path(local or Path(path).name)
        part = target.with_name(f".{target.name}.part")
        file: IO[bytes] = await asyncio.to_thread(part.open, "wb")
        try:
            with file:
                await self._http.fetch(self._at(path), file, on_bytes=on_bytes or _nothing)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return target

    async def delete(self, path: str) -> None:
        await self._http.json("DELETE", self._at(path))

    def _at(self, path: str) -> str:
        return f"{self._base}/{quote(path)}"


def _nothing(count: int) -> None:
    pass
