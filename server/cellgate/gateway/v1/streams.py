"""Server-sent events: what becomes of a cell, or all that is said in a session, as it comes.

    id: 17
    event: stdout
    data: {"event": "stdout", "text": "1\\n", "cell": "a", "seq": 17, "time": 1760000000.25}

Each event's id is its number in the journal, so that a client which comes again with `Last-Event-ID` misses nothing. Of
what it has not taken yet no more is kept here than of any client: the rest is served from the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from cellgate.live.reader import Parting
from cellgate.sessions.agents import Event, event_of
from cellgate.sessions.journal import Gap
from cellgate.sessions.records import Record
from cellgate.wire.agent import Form, write
from cellgate.wire.jupyter import Buffer, Frame

__all__ = ["EVENT_STREAM", "EventStream", "EventsVoice", "as_sse", "gap_event"]

EVENT_STREAM = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0  # of silence, after which a comment is sent: proxies hang up after some 30 or 60
STALL_SECONDS = 60.0  # that a client may take nothing of a piece; then it is hung up on
PIECE_BYTES = 64 << 10  # written at a time, so that a slow client is seen to take something
LAST_WORDS = {  # of a stream that ends for another reason than its own
    Parting.SESSION_OVER: "the session has ended, and everything was delivered",
    Parting.TOO_SLOW: "nothing was taken for too long; come again with Last-Event-ID to read on",
    Parting.GOING_AWAY: "the server restarts; come again with Last-Event-ID to read on",
    Parting.UNWELCOME: "what let you in does so no longer",
    Parting.REPLACED: "the same client has come again",
}


def as_sse(event: Mapping[str, Any]) -> Frame:
    """Without an id for what stands in no journal."""
    number = f"id: {event['seq']}\n" if "seq" in event else ""
    data = bytes(write(event, Form.JSON).data)
    return Frame(b"%sevent: %s\ndata: %s\n\n" % (number.encode(), event["event"].encode(), data), False)


class EventsVoice:
    """Tells all events; or those of one cell, until it has ended."""

    name = "sse"
    has_marks = False

    def __init__(
        self, client: bytes, cell: str | None = None, has_finished: Callable[[], bool] = lambda: False
    ) -> None:
        """`has_finished` is asked of the cell when all was said."""
        self.client = client
        self.is_over = False
        self._cell = cell
        self._has_finished = has_finished

    def frames(self, records: Sequence[Record], first: int) -> list[Frame]:
        events = (event_of(record, seq, self.client) for seq, record in enumerate(records, first))
        return [as_sse(event) for event in events if event is not None and self._is_wanted(event)]

    def _is_wanted(self, event: Event) -> bool:
        if self._cell is None:
            return True
        is_its_own = self._cell in (event.get("cell"), event.get("re"))
        if is_its_own and (event["event"] == "finished" or "re" in event):
            self.is_over = True
        return is_its_own

    def gap(self, gap: Gap) -> Frame:
        return as_sse(gap_event(gap))

    def caught_up(self, seq: int) -> Frame | None:
        """Of a cell that has finished, and the client has seen it or nobody can any more, nothing will come."""
        if self.is_over or not self._has_finished():
            return None
        self.is_over = True
        message = "the cell has finished, and there is nothing more of it"
        return as_sse({"event": "parted", "why": "finished", "message": message})

    def tell(self, event: Mapping[str, Any]) -> None:
        """The same."""


def gap_event(gap: Gap) -> Event:
    return {"event": "gap", "seq": gap.last, "first": gap.first, "last": gap.last, "count": gap.records}


class EventStream:
    """The answer of a handler, as the connection of a reader. `serve` returns when it has ended."""

    def __init__(self, handler: RequestHandler, voice: EventsVoice) -> None:
        self._handler = handler
        self._voice = voice
        self._waiting = bytearray()
        self._news = asyncio.Event()
        self._is_ending = False
        self.sent_bytes = 0
        self.buffered_bytes = 0

    # -- Sink

    def send(self, frames: Sequence[Frame], mark: bytes | None = None) -> None:
        for frame in frames:
            self.write(frame.data)
        if self._voice.is_over:
            self.end()

    def part(self, why: Parting) -> None:
        self.write(as_sse({"event": "parted", "why": why.value, "message": LAST_WORDS[why]}).data)
        self.end()

    # -- for handlers

    def write(self, data: Buffer) -> None:
        if not self._is_ending:
            self._waiting += data
            self.buffered_bytes += len(data)
            self._news.set()

    def end(self) -> None:
        """When all is written."""
        self._is_ending = True
        self._news.set()

    async def serve(self, drained: Callable[[], object] = lambda: None) -> None:
        """Write what there is until it ends, or the client goes. `drained` is told when nothing is left."""
        handler = self._handler
        handler.set_header("Content-Type", EVENT_STREAM)
        handler.set_header("X-Accel-Buffering", "no")  # nginx would keep events until there are many
        with suppress(StreamClosedError, asyncio.TimeoutError):
            await handler.flush()
            while self._waiting or not self._is_ending:
                if self._waiting:
                    await self._write_piece()
                    if not self._waiting:
                        drained()
                else:
                    await self._wait()
            await asyncio.wait_for(handler.finish(), STALL_SECONDS)
            return
        self._hang_up()

    def _hang_up(self) -> None:
        """On a client that is gone, or as good as gone."""
        connection = cast(HTTP1Connection, self._handler.request.connection)
        connection.stream.close()

    async def _write_piece(self) -> None:
        piece = bytes(self._waiting[:PIECE_BYTES])
        del self._waiting[:PIECE_BYTES]
        self._handler.write(piece)
        try:
            await asyncio.wait_for(self._handler.flush(), STALL_SECONDS)
        except asyncio.TimeoutError:
            raise StreamClosedError from None
        self.sent_bytes += len(piece)
        self.buffered_bytes -= len(piece)

    async def _wait(self) -> None:
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), KEEP_ALIVE_SECONDS)
        except asyncio.TimeoutError:
            self.write(b": still there\n\n")
