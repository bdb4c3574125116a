"""Requests over HTTP, each on a connection of its own in a thread: they are few, what is said often goes over the
session's websocket. Knows the one shape of errors, and nothing of what is asked for."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cellgate.client.errors import CellgateError, ConnectionLost, InvalidRequest, NotFound, error_of

if TYPE_CHECKING:
    import http.client  # imported when it is needed: it reads mail too, and takes its time over it

__all__ = ["Http", "Server"]

AGAIN_SECONDS = 0.1  # until a request is made again; a gateway has a successor within a second
CHUNK_BYTES = 256 << 10  # read and written at a time
MAX_ERROR_BYTES = 1 << 20  # of an answer that says what is wrong
OnBytes = Callable[[int], object]  # called with how many more bytes have passed


@dataclass(frozen=True)
class Server:
    """Where one is, and how to be let in."""

    is_secure: bool
    host: str
    port: int
    prefix: str = ""  # of all paths, without a slash at its end
    token: str | None = field(default=None, repr=False)

    @staticmethod
    def at(url: str, token: str | None = None) -> Server:
        """A URL as the server prints it: the token may stand in its query. Raises InvalidRequest."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"{url!r} is no server's URL; http://127.0.0.1:8890 would pass")
        given = parse_qs(parts.query).get("token", [None])[-1]
        is_secure = parts.scheme == "https"
        try:
            port = parts.port or (443 if is_secure else 80)
        except ValueError as error:
            raise InvalidRequest(f"{url!r} has no port that can be; one up to 65535 would pass") from error
        return Server(is_secure, parts.hostname, port, parts.path.rstrip("/"), token or given)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def websocket_url(self, path: str, query: Mapping[str, object]) -> str:
        return f"ws{'s' if self.is_secure else ''}://{self.authority}{self._target(path, query)}"

    def _target(self, path: str, query: Mapping[str, object]) -> str:
        said = {name: value for name, value in query.items() if value is not None}
        return self.prefix + path + ("?" + urlencode(said) if said else "")

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        import http.client

        kind = http.client.HTTPSConnection if self.is_secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=timeout)


class Http:
    """`timeout` bounds each silence of the server, not the whole answer; `patience` how long a request that may be made
    twice is made again, as gateways die over what they are asked."""

    def __init__(self, server: Server, timeout: float, patience: float) -> None:
        self.server = server
        self._timeout = timeout
        self._patience = patience

    async def json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, object] = {},
        timeout: float | None = None,
        may_repeat: bool | None = None,
    ) -> Any:
        """What is answered, None for nothing. `may_repeat`: whether doing it twice does no harm; true of GET, and of
        DELETE, which then finds nothing. Raises CellgateError."""
        data = None if body is None else json.dumps(body).encode()
        if may_repeat is None:
            may_repeat = method in ("GET", "DELETE")
        clock = asyncio.get_running_loop().time
        began, is_again = clock(), False
        while True:
            try:
                return _read(await self._exchange(method, path, query, data, None, lambda n: None, timeout))
            except _Dropped:
                if not may_repeat or clock() - began > self._patience:
                    raise
            except NotFound:
                if method == "DELETE" and is_again:  # the first did it
                    return None
                raise
            is_again = True
            await asyncio.sleep(AGAIN_SECONDS)

    async def send(
        self, path: str, source: bytes | IO[bytes], *, on_bytes: OnBytes, query: Mapping[str, object] = {}
    ) -> Any:
        """PUT the bytes, or what a file has left to read. Raises CellgateError, OSError."""
        return _read(await self._exchange("PUT", path, query, source, None, on_bytes, None))

    async def fetch(
        self, path: str, target: IO[bytes] | None = None, *, on_bytes: OnBytes, query: Mapping[str, object] = {}
    ) -> bytes:
        """GET bytes: into the file, if there is one, else as the answer. Raises CellgateError, OSError."""
        return await self._exchange("GET", path, query, None, target, on_bytes, None)

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: bytes | IO[bytes] | None,
        target: IO[bytes] | None,
        on_bytes: OnBytes,
        timeout: float | None,
    ) -> bytes:
        connection = self.server.connect(timeout or self._timeout)
        url = self.server._target(path, query)
        given_up = threading.Event()
        asking = asyncio.ensure_future(
            asyncio.to_thread(_exchange, connection, given_up, method, url, self.server.headers, body, target, on_bytes)
        )
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            given_up.set()
            if sock := connection.sock:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # which the thread notices
            with suppress(CellgateError, OSError):
                await asking
            raise


def _exchange(
    connection: http.client.HTTPConnection,
    given_up: threading.Event,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | IO[bytes] | None,
    target: IO[bytes] | None,
    on_bytes: OnBytes,
) -> bytes:
    """In a thread."""
    from http.client import HTTPException, IncompleteRead

    sent = dict(headers)
    source: bytes | _Source | None
    if body is None or isinstance(body, bytes):
        source = body
    else:
        source = _Source(body, on_bytes)
        sent["Content-Length"] = str(source.size)
    if body is not None:
        sent["Content-Type"] = "application/octet-stream" if method == "PUT" else "application/json"
    is_there = False
    try:
        connection.connect()
        is_there = True
        if given_up.is_set():  # before there was anything to hang up
            return b""
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it read all
            connection.request(method, url, source, sent)
        response = connection.getresponse()
        if response.status >= 300:  # nobody is followed elsewhere with the token
            raise _refusal(response)
        if target is None:
            return response.read()
        while chunk := response.read(CHUNK_BYTES):
            with _ours():
                target.write(chunk)
            on_bytes(len(chunk))
        if response.length:  # which is told to nobody who reads a part at a time
            raise IncompleteRead(b"", response.length)
        return b""
    except _FileFault as fault:
        raise fault.error from None
    except (OSError, HTTPException) as error:
        where = f"{connection.host}:{connection.port}"
        kind = _Dropped if is_there else ConnectionLost
        raise kind(f"{where} did not answer ({error or type(error).__name__})") from error
    finally:
        connection.close()


def _read(answer: bytes) -> Any:
    """Raises CellgateError for what somebody else answered: a proxy, with a page."""
    try:
        return json.loads(answer) if answer else None
    except ValueError as error:
        raise CellgateError("what answered is no server of Cellgate's; the URL that it prints would pass") from error


def _refusal(response: http.client.HTTPResponse) -> CellgateError:
    try:
        said = json.loads(response.read(MAX_ERROR_BYTES))
    except ValueError:
        said = None
    after = response.headers.get("Retry-After", "")
    return error_of(
        said if isinstance(said, dict) else {},
        status=response.status,
        retry_after=float(after) if after.isdecimal() else None,
    )


class _Source:
    """The rest of a file, told as it is read."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes
        at = file.tell()
        self.size = file.seek(0, os.SEEK_END) - at
        file.seek(at)

    def read(self, size: int = -1) -> bytes:
        with _ours():
            chunk = self._file.read(CHUNK_BYTES)
        self._on_bytes(len(chunk))
        return chunk


class _Dropped(ConnectionLost):
    """Somebody was there, and hung up: another gateway takes its place. Without a server nobody is there at all."""


class _FileFault(Exception):
    """A file on this side could not be read or written: no fault of the connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _FileFault(error) from error
