"""Server-sent events, read as a client of HTTP/1.0 would: event by event, until the server or the test hangs up.

async with streamed(here, "GET", f"/v1/sessions/{session_id}/events") as events:
    event = await events.next()
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.gateway import TOKEN, Gateway

__all__ = ["Events", "streamed"]

BOUND = 30.0  # seconds, for the next event


class Events:
    def __init__(self, reader: asyncio.StreamReader, head: str) -> None:
        self.head = head
        self.reader = reader

    async def next(self) -> dict:
        """Of what is not there any more, an empty one."""
        lines: list[str] = []
        while line := (await asyncio.wait_for(self.reader.readline(), BOUND)).decode():
            text = line.rstrip("\r\n")
            if not text and lines:
                fields = dict(one.split(": ", 1) for one in lines)
                event = json.loads(fields["data"])
                assert fields["event"] == event["event"]
                assert fields.get("id") == (str(event["seq"]) if "seq" in event else None)
                return event
            if ": " in text and not text.startswith(":"):
                lines.append(text)
        return {}

    async def rest(self) -> list[dict]:
        events = []
        while event := await self.next():
            events.append(event)
        return events


@asynccontextmanager
async def streamed(here: Gateway, method: str, path: str, body: object = None, **headers: str) -> AsyncIterator[Events]:
    """Hangs up at its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port, limit=1 << 24)
    sent = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": "x", "Authorization": f"token {TOKEN}", "Accept": "text/event-stream"}
    fields |= {"Content-Length": str(len(sent)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"{method} {path} HTTP/1.0\r\n{head}\r\n".encode() + sent)  # 1.0: the answer comes without chunks
    try:
        answered = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND)
        yield Events(reader, answered.decode())
    finally:
        writer.transport.abort()
