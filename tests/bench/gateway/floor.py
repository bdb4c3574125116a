"""A server with no kernel behind it: what the benches' client costs itself.

    python -m tests.bench.gateway.floor PORT

Answers the REST calls the benches make, and each cell with the frames a kernel would have sent, composed beforehand.
A cell that is a flood is known by its text.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha1

from cellgate.wire.jupyter import make_message
from cellgate_kernel.message import CHANNELS, Channel, join_v1
from tests.bench.gateway.client import BINARY, CLOSE, ID_BYTES, SUBPROTOCOL, frame_head, read_head

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
FLOOD = re.compile(rb"range\((\d+)\): print\('x' \* (\d+)")
MSG_ID = re.compile(rb'"msg_id":\s*"([^"]+)"')
LOOPS = b"while True"
BATCH_BYTES = 1 << 18
MARK = b"?" * ID_BYTES


def said(kind: str, content: dict, channel: Channel = Channel.IOPUB) -> bytes:
    """A frame from a kernel, whose parent is MARK."""
    _, (header, _, metadata, text, *_) = make_message(
        kind, content, channel=channel, msg_id="0" * 36, session="0" * 36, date="2026-01-01T00:00:00.000000Z"
    )
    parent = json.dumps({**json.loads(bytes(header)), "msg_id": MARK.decode(), "msg_type": "execute_request"}).encode()
    v1 = b"".join(join_v1(CHANNELS[channel], [header, parent, metadata, text]))
    return frame_head(BINARY, len(v1), masked=False) + v1


BEFORE = said("status", {"execution_state": "busy"}) + said("execute_input", {"code": "1+1", "execution_count": 1})
RESULT = said("execute_result", {"data": {"text/plain": "2"}, "metadata": {}, "execution_count": 1})
REPLY = said("execute_reply", {"status": "ok", "execution_count": 1}, Channel.SHELL)
AFTER = REPLY + said("status", {"execution_state": "idle"})
RUNS = said("stream", {"name": "stdout", "text": "runs\n"})


def answer(request: bytes) -> Iterator[bytes]:
    """To an execute_request, in pieces."""
    if LOOPS in request:
        yield BEFORE + RUNS
        return
    if not (flood := FLOOD.search(request)):
        yield BEFORE + RESULT + AFTER
        return
    count, size = map(int, flood.groups())
    line = said("stream", {"name": "stdout", "text": "x" * size + "\n"})
    batch = max(1, BATCH_BYTES // len(line))
    yield BEFORE
    for first in range(0, count, batch):
        yield line * min(batch, count - first)
    yield AFTER


class Floor:
    def __init__(self) -> None:
        self._interrupts: dict[str, asyncio.Queue[None]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n")[0].decode().split()
            _, fields = read_head(b"_ 0\r\n" + head.partition(b"\r\n")[2])
            await reader.readexactly(int(fields.get("content-length", 0)))
            if fields.get("upgrade") == "websocket":
                await self._websocket(path.split("/")[3], fields["sec-websocket-key"], reader, writer)
                return
            status, body = self._rest(method, path)
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _rest(self, method: str, path: str) -> tuple[bytes, bytes]:
        if method == "POST" and path.endswith("/kernels"):
            name = f"kernel-{len(self._interrupts)}"
            self._interrupts[name] = asyncio.Queue()
            return b"201 Created", json.dumps({"id": name}).encode()
        if method == "POST":
            self._interrupts[path.split("/")[3]].put_nowait(None)
        return (b"200 OK", b'{"execution_state": "idle"}') if method == "GET" else (b"204 No Content", b"")

    async def _websocket(self, name: str, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accept = b64encode(sha1(key.encode() + MAGIC).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n" % (accept, SUBPROTOCOL.encode())
        )
        interrupts, asked = self._interrupts[name], b""

        async def answer_interrupts() -> None:
            while True:
                await interrupts.get()
                writer.write(AFTER.replace(MARK, asked))

        task = asyncio.ensure_future(answer_interrupts())
        try:
            while request := await read_frame(reader):
                if b'"interrupt_request"' in request:
                    interrupts.put_nowait(None)
                    continue
                found = MSG_ID.search(request)
                assert found
                asked = found[1]
                for piece in answer(request):
                    writer.write(piece.replace(MARK, asked))
                    await writer.drain()
        finally:
            task.cancel()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Empty when the client has closed. Its mask is zero."""
    first, size = await reader.readexactly(2)
    size &= 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    payload = await reader.readexactly(4 + size)
    return b"" if first & 0x0F == CLOSE else payload[4:]


async def main(port: int) -> None:
    server = await asyncio.start_server(Floor().serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
