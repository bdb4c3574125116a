"""A websocket client of raw bytes, which can break every rule, and a server for handlers under test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import NamedTuple

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from cellgate.gateway.websocket import WebSocket
from cellgate.wire.jupyter import Frame

BOUND = 10.0  # seconds; whatever is waited for comes at once, or never

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x12\x34\x56\x78"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Got(NamedTuple):
    """A frame of the server."""

    opcode: int
    data: bytes


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame; one that must not be, if so asked."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    size, bit = len(data), masked << 7
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    return head + MASK + mask(data) if masked else head + data


def mask(data: bytes) -> bytes:
    key = int.from_bytes((MASK * (len(data) // 4 + 1))[: len(data)], "big")
    return (int.from_bytes(data, "big") ^ key).to_bytes(len(data), "big")


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def handshake(port: int, headers: str = "", key: str = KEY) -> bytes:
    return (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )


class RawClient:
    """After the handshake. Reads nothing, and answers nothing, unless told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader, self.writer, self.head = reader, writer, head

    @classmethod
    async def connect(
        cls,
        port: int,
        *,
        headers: str = "",
        key: str = KEY,
        first: bytes = b"",
        receive_bytes: int = 0,
    ) -> RawClient:
        """`first` goes out together with the handshake; `receive_bytes` bounds what the kernel takes unread."""
        raw = socket.socket()
        if receive_bytes:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=receive_bytes or 1 << 16)
        writer.write(handshake(port, headers, key) + first)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND)
        return cls(reader, writer, head.decode())

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self) -> Got:
        """The next frame. Raises IncompleteReadError at the end, ConnectionResetError when that is a reset."""
        return await asyncio.wait_for(self._read(), BOUND)

    async def _read(self) -> Got:
        first, size = await self.reader.readexactly(2)
        assert first & 0x80 and not first & 0x70 and not size & 0x80, "a server's frames are whole, plain and unmasked"
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return Got(first & 0x0F, await self.reader.readexactly(size))

    async def read_all(self) -> list[Got]:
        """Every frame until the server closes its side, then ours is closed too."""
        got = []
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                got.append(await self.read())
        self.writer.close()
        return got

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Echo(WebSocket):
    """Sends back what it hears, and keeps a record. The one that was opened last is `Echo.opened[-1]`'s."""

    max_message_size = 1 << 20

    def initialize(self, opened: asyncio.Queue[Echo]) -> None:
        self.opened = opened
        self.said: asyncio.Queue[tuple[object, ...]] = asyncio.Queue()  # each call of what may be overridden

    def open(self) -> None:
        assert self._connection is not None
        self.stream = self._connection.stream
        self.opened.put_nowait(self)

    def heard(self, data: bytes | str) -> None:
        self.said.put_nowait(("heard", data))
        self.send([Frame(data, True) if isinstance(data, bytes) else Frame(data.encode(), False)])

    def marked(self, mark: bytes) -> None:
        self.said.put_nowait(("marked", mark))

    def drained(self) -> None:
        self.said.put_nowait(("drained",))

    def ended(self, code: int | None, reason: str) -> None:
        self.said.put_nowait(("ended", code, reason))

    @property
    def is_gone(self) -> bool:
        """Whether our side of the connection is closed for good."""
        return self.stream.closed()

    async def next_call(self) -> tuple[object, ...]:
        return await asyncio.wait_for(self.said.get(), BOUND)


class Stage:
    """A server of one handler, and the handlers that it opened."""

    def __init__(self, port: int, opened: asyncio.Queue[Echo]) -> None:
        self.port, self._opened = port, opened

    async def opened(self) -> Echo:
        return await asyncio.wait_for(self._opened.get(), BOUND)

    async def pair(self, *, receive_bytes: int = 0) -> tuple[RawClient, Echo]:
        return await RawClient.connect(self.port, receive_bytes=receive_bytes), await self.opened()


@contextlib.asynccontextmanager
async def serve(handler: type[Echo] = Echo, *, send_bytes: int = 0) -> AsyncIterator[Stage]:
    """`send_bytes` bounds what the kernel takes of the server before the client has."""
    opened: asyncio.Queue[Echo] = asyncio.Queue()
    sockets = bind_sockets(0, "127.0.0.1")
    if send_bytes:
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    server = HTTPServer(tornado.web.Application([("/", handler, {"opened": opened})], log_function=lambda _: None))
    server.add_sockets(sockets)
    try:
        yield Stage(sockets[0].getsockname()[1], opened)
    finally:
        server.stop()
        await server.close_all_connections()
