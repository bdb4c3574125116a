"""A client's end of one websocket that can be broken in every way a network breaks one: v1, or what it is told.

A message counts as seen when it is handed on, which is before the answer to any ping behind it is written: what this
end confirms, its owner has seen.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from cellgate.wire.jupyter import execute_content, make_message
from cellgate_kernel.message import CHANNELS, Channel, join_v1, split_v1
from tests.bench.gateway.client import BINARY, CLOSE, PING, PONG, SUBPROTOCOL, frame_head, read_head

__all__ = ["Message", "Websocket", "execute_frame", "request_frame"]

OPEN_SECONDS = 30.0


@dataclass(frozen=True)
class Message:
    channel: str
    header: Mapping[str, Any]
    parent: str  # msg_id of the request that it belongs to, or ""
    metadata: Mapping[str, Any]
    content: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.header["msg_id"])

    @property
    def type(self) -> str:
        return str(self.header["msg_type"])

    @property
    def state(self) -> str:
        return str(self.content["execution_state"]) if self.type == "status" else ""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the gateway says for machines."""
        return cast(Mapping[str, Any], self.metadata.get("cellgate", {}))


def read_message(payload: bytes) -> Message:
    channel, parts = split_v1(memoryview(payload))
    header, parent, metadata, content = (json.loads(bytes(part)) for part in parts[:4])
    return Message(channel.decode(), header, str(parent.get("msg_id", "")), metadata, content)


def request_frame(msg_type: str, content: Mapping[str, Any], msg_id: str, *, channel: Channel = Channel.SHELL) -> bytes:
    _, parts = make_message(
        msg_type, content, channel=channel, msg_id=msg_id, session="chaos", date="2026-01-01T00:00:00Z"
    )
    v1 = b"".join(join_v1(CHANNELS[channel], parts))
    return frame_head(BINARY, len(v1), masked=True) + v1


def execute_frame(code: str, msg_id: str, **options: Any) -> bytes:
    return request_frame("execute_request", execute_content(code, **options), msg_id)


class Websocket(asyncio.Protocol):
    """Made by `open`. `closed` resolves with the code and reason of the server's close frame; (0, "") without one."""

    @staticmethod
    async def open(
        port: int,
        kernel_id: str,
        token: str,
        on_message: Callable[[Any], None],
        *,
        query: Mapping[str, str],
        host: str = "127.0.0.1",
        path: str = "/api/kernels/{}/channels",
        subprotocol: str = SUBPROTOCOL,
        read: Callable[[bytes], Any] = read_message,
    ) -> Websocket:
        """`read` makes what is handed on of a binary frame. Raises OSError when there is no websocket to be had."""
        loop = asyncio.get_running_loop()
        websocket = Websocket(lambda payload: on_message(read(payload)))
        await asyncio.wait_for(loop.create_connection(lambda: websocket, host, port), OPEN_SECONDS)
        fields = {
            "Host": f"{host}:{port}",
            "Authorization": f"token {token}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Protocol": subprotocol,
        }
        lines = [f"GET {path.format(kernel_id)}?{urlencode(query)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        websocket.transport.write("\r\n".join([*lines, "", ""]).encode())
        try:
            await asyncio.wait_for(websocket._is_open, OPEN_SECONDS)
        except BaseException:
            websocket.abort()
            raise
        return websocket

    def __init__(self, on_payload: Callable[[bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.closed: asyncio.Future[tuple[int, str]] = loop.create_future()
        self.received_bytes = 0
        self._on_payload = on_payload
        self._is_open: asyncio.Future[None] = loop.create_future()
        self._rest = b""
        self._is_deaf = False
        self._is_mute = False
        self._close_frame = (0, "")

    def send(self, frame: bytes) -> None:
        if not self._is_mute and not self.transport.is_closing():
            self.transport.write(frame)

    # -- ends ----------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Reset: what is on its way is lost, in both directions."""
        self._is_deaf = True
        if self.transport.is_closing():
            return
        sock = cast(socket.socket, self.transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def half_close(self) -> None:
        """Send no more, but hear on until the server is done."""
        if not self._is_mute and not self.transport.is_closing():
            self._is_mute = True
            with suppress(OSError):  # it is gone already
                self.transport.write_eof()

    def close(self) -> None:
        """As the protocol has it: what the server sent before its own close frame is still heard."""
        self.send(frame_head(CLOSE, 2, masked=True) + struct.pack("!H", 1000))

    def turn_away(self) -> None:
        """As browsers do for a page that has lost interest: nothing is heard any more that is on its way."""
        self.close()
        self._is_deaf = True

    # -- what asyncio calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(self._close_frame)
        if not self._is_open.done():
            self._is_open.set_exception(exc or ConnectionResetError("closed before it was open"))
            self._is_open.exception()  # nobody may be waiting

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        data = self._rest + data
        at = 0 if self._is_open.done() else self._read_handshake(data)
        while self._is_open.done() and not self._is_open.exception() and len(data) - at >= 2:  # a refusal has no frames
            first, size = data[at], data[at + 1]
            start = at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : start], "big") if len(data) >= start else 1 << 62
            if len(data) < start + size:
                break
            at = start + size
            self._take(first & 0x0F, data[start:at])
        self._rest = data[at:]

    def _read_handshake(self, data: bytes) -> int:
        head, end, _ = data.partition(b"\r\n\r\n")
        if not end:
            return 0
        if read_head(head)[0] == 101:
            self._is_open.set_result(None)
        elif not self._is_open.done():
            self._is_open.set_exception(ConnectionRefusedError(f"no websocket: {data!r}"))
        return len(head) + len(end)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == BINARY:
            if not self._is_deaf:
                self._on_payload(payload)
        elif opcode == PING:
            if not self._is_deaf:
                self.send(frame_head(PONG, len(payload), masked=True) + payload)
        elif opcode == CLOSE:
            self._close_frame = int.from_bytes(payload[:2], "big"), payload[2:].decode()
            self.transport.close()
