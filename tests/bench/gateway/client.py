"""The client that all servers have in common: HTTP and the v1 websocket, doing the least it can for each frame.

Frames are composed beforehand, masked with zeros, and those that come are neither parsed nor copied more than once
before the clock stops. What it costs itself is measured against `floor.py`, which answers without a kernel.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, cast

from cellgate.wire.jupyter import execute_content, make_message
from cellgate_kernel.message import CHANNELS, Channel, join_v1, split_v1
from tests.bench.peers import LOST_SECONDS, OUTPUT, Heard

__all__ = ["Address", "Response", "Websocket", "request"]

SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
REQUEST_SECONDS = 60.0
CELL_SECONDS = 300.0  # a flood of a peer on a busy machine; what takes longer hangs
WATCH_SECONDS = 1.0
ID_BYTES = 16
SMALL_BYTES = 4096  # neither a reply nor a status is larger
NOTE = b"[cellgate: "
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10


@dataclass(frozen=True)
class Address:
    name: str  # whose it is
    port: int
    token: str
    host: str = "127.0.0.1"

    def head(self, method: str, path: str, fields: Mapping[str, object]) -> bytes:
        fields = {"Host": f"{self.host}:{self.port}", "Authorization": f"token {self.token}", **fields}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return "\r\n".join(lines).encode()


@dataclass(frozen=True)
class Response:
    status: int
    fields: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def request(address: Address, method: str, path: str, body: object = None) -> Response:
    """One request over a connection of its own."""
    content = b"" if body is None else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": len(content)}
    return await asyncio.wait_for(_request(address, address.head(method, path, fields) + content), REQUEST_SECONDS)


async def _request(address: Address, sent: bytes) -> Response:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(sent)
        status, names = read_head(await reader.readuntil(b"\r\n\r\n"))
        return Response(status, names, await reader.readexactly(int(names.get("content-length", 0))))
    finally:
        writer.close()


def read_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}


def frame_head(opcode: int, size: int, *, masked: bool) -> bytes:
    """Of a whole message; the mask is zero, so that the payload follows as it is."""
    mask, key = (0x80, bytes(4)) if masked else (0, b"")
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, mask | size) + key
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, mask | 126, size) + key
    return struct.pack("!BBQ", 0x80 | opcode, mask | 127, size) + key


class Asked:
    """A request as a frame, composed but for its id."""

    def __init__(self, kind: str, content: dict[str, Any], *, channel: Channel, session: str) -> None:
        mark = "?" * ID_BYTES
        _, parts = make_message(
            kind, content, channel=channel, msg_id=mark, session=session, date="2026-01-01T00:00:00Z"
        )
        v1 = b"".join(join_v1(CHANNELS[channel], parts))
        self._before, self._after = (frame_head(BINARY, len(v1), masked=True) + v1).split(mark.encode())

    def frame(self, msg_id: bytes) -> bytes:
        return self._before + msg_id + self._after


class Websocket(asyncio.Protocol):
    """One kernel's channels."""

    @staticmethod
    async def open(address: Address, kernel_id: str, *, quick_acks: bool = False) -> Websocket:
        """With `quick_acks` a server that leaves Nagle's algorithm on does not wait for this end."""
        websocket = Websocket(address, quick_acks)
        fields = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": 13,
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Protocol": SUBPROTOCOL,
        }
        path = f"/api/kernels/{kernel_id}/channels?session_id={websocket.session}"
        await websocket._loop.create_connection(lambda: websocket, address.host, address.port)
        websocket._transport.write(address.head("GET", path, fields))
        try:
            await asyncio.wait_for(websocket._is_open, REQUEST_SECONDS)
        except BaseException:
            websocket._transport.abort()
            raise
        return websocket

    def __init__(self, address: Address, quick_acks: bool) -> None:
        self.session = os.urandom(8).hex()
        self.received = 0  # bytes, of the connection
        self.notes: list[str] = []  # that the gateway gave under no cell
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._quick_acks = quick_acks
        self._transport: asyncio.Transport
        self._is_open: asyncio.Future[None] = self._loop.create_future()
        self._is_closed: asyncio.Future[None] = self._loop.create_future()
        self._rest = b""
        self._ids = count(1)
        self._composed: dict[str, Asked] = {}
        self._asked = bytes(ID_BYTES)  # none
        self._begin = self._last = 0.0
        self._outputs: list[bytes] = []
        self._has_output = asyncio.Event()
        self._has_replied = self._is_idle = False
        self._done: asyncio.Future[None] = self._loop.create_future()

    # -- what a bench does ---------------------------------------------------------------------------

    async def execute(self, code: str, *, patience: float = LOST_SECONDS) -> Heard:
        """Until reply and idle; without idle when after the reply nothing comes for `patience` seconds."""
        self.ask(code)
        return await self.collect(patience=patience)

    def ask(self, code: str) -> None:
        if (asked := self._composed.get(code)) is None:
            content = execute_content(code)
            asked = Asked("execute_request", content, channel=Channel.SHELL, session=self.session)
            self._composed[code] = asked
        self._outputs, self._has_replied, self._is_idle = [], False, False
        self._has_output.clear()
        self._done = self._loop.create_future()
        self._asked = b"%0*d" % (ID_BYTES, next(self._ids))
        self._begin = self._last = perf_counter()
        self._transport.write(asked.frame(self._asked))

    async def wait_for_output(self) -> None:
        await asyncio.wait_for(self._has_output.wait(), CELL_SECONDS)

    @property
    def heard_at(self) -> float:
        """When the last bytes came."""
        return self._last

    async def collect(self, *, patience: float = LOST_SECONDS) -> Heard:
        done = self._done
        watch = self._loop.call_later(WATCH_SECONDS, self._watch, done, patience)
        try:
            await done
        finally:
            watch.cancel()
        kept = self._outputs

        def read() -> list[tuple[str, bytes | memoryview]]:
            parts = (split_v1(memoryview(payload))[1] for payload in kept)
            typed = [(json.loads(bytes(header))["msg_type"], content) for header, _, _, content, *_ in parts]
            return [(kind, content) for kind, content in typed if kind in OUTPUT]

        return Heard(self._last - self._begin, read, lost_idle=not self._is_idle)

    def _watch(self, done: asyncio.Future[None], patience: float) -> None:
        if done.done():
            return
        now = perf_counter()
        if self._has_replied and now - self._last > patience:
            done.set_result(None)
        elif now - self._begin > CELL_SECONDS:
            done.set_exception(TimeoutError(f"no answer within {CELL_SECONDS:g} s"))
        else:
            self._loop.call_later(WATCH_SECONDS, self._watch, done, patience)

    def interrupt(self) -> None:
        """By a message on the control channel."""
        asked = Asked("interrupt_request", {}, channel=Channel.CONTROL, session=self.session)
        self._transport.write(asked.frame(b"interrupt%07d" % next(self._ids)))

    def stop_reading(self) -> None:
        self._transport.pause_reading()

    def go_on_reading(self) -> None:
        self._last = perf_counter()
        self._transport.resume_reading()

    async def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame_head(CLOSE, 2, masked=True) + struct.pack("!H", 1000))
            self._transport.close()
        await self._is_closed

    # -- what asyncio calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # asyncio sets TCP_NODELAY

    def connection_lost(self, exc: Exception | None) -> None:
        lost = ConnectionResetError(f"the websocket of {self._address.name} is closed: {exc or 'by the server'}")
        self._is_closed.set_result(None)
        for future in (self._is_open, self._done):
            if not future.done():
                future.set_exception(lost)
                future.exception()  # nobody may be waiting

    def data_received(self, data: bytes) -> None:
        if self._quick_acks:
            self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self.received += len(data)
        data = self._rest + data if self._rest else data
        at = 0 if self._is_open.done() else self._read_handshake(data)
        end = len(data)
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            start = at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                if end < start:
                    break
                size = int.from_bytes(data[at + 2 : start], "big")
            if end < start + size:
                break
            at = start + size
            self._take(first, data[start:at])
        self._rest = data[at:]
        self._last = perf_counter()
        if self._has_replied and self._is_idle and not self._done.done():
            self._done.set_result(None)

    def _read_handshake(self, data: bytes) -> int:
        """How many bytes of it are read: all or nothing."""
        head, end, _ = data.partition(b"\r\n\r\n")
        if not end:
            return 0
        status, fields = read_head(head)
        if status == 101 and fields.get("sec-websocket-protocol") == SUBPROTOCOL:
            self._is_open.set_result(None)
        else:
            self._is_open.set_exception(ConnectionError(f"no websocket: {head!r}"))
        return len(head) + len(end)

    def _take(self, first: int, payload: bytes) -> None:
        if first != 0x80 | BINARY:
            self._take_other(first, payload)
        elif len(payload) > SMALL_BYTES:
            self._outputs.append(payload)
            self._has_output.set()
        elif self._asked not in payload:
            if NOTE in payload:
                self.notes.append(json.loads(bytes(split_v1(memoryview(payload))[1][3]))["text"])
        elif b'"execute_reply"' in payload:
            self._has_replied = True
        elif b'"status"' in payload:
            self._is_idle |= b'"idle"' in payload
        else:
            self._outputs.append(payload)
            if b'"stream"' in payload:
                self._has_output.set()

    def _take_other(self, first: int, payload: bytes) -> None:
        opcode = first & 0x0F
        if opcode == PING:
            self._transport.write(frame_head(PONG, len(payload), masked=True) + payload)
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big")
            if not self._done.done():
                self._done.set_exception(
                    ConnectionResetError(f"{self._address.name} closed with {code}: {payload[2:].decode()}")
                )
            self._transport.close()
        elif opcode != PONG:
            raise RuntimeError(f"a frame of kind {first:#x}: not one whole binary message")
