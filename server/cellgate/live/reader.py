"""One client's place in a session's journal, and what goes to it next.

    (seeking what it saw last, if it says) ──▶ behind
    appended ──▶ live: sent at once ── its connection does not keep up ──▶ behind: served from the journal
                  ▲                                                            │
                  └───────────────────── has caught up ◀───────────────────────┘

A client costs no more memory than its connection's buffer, however slow it is. What it has surely received it says
itself, or it is known by marks: each carries a position, and comes back only after everything that was sent before it.
A client of the second kind that closes its connection in order has received what was sent, too.

Sans-IO: knows the journal, a `Voice` that makes records into frames, and a `Sink` that takes them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from enum import Enum
from typing import Any, Protocol

from cellgate.live.voices import Voice
from cellgate.sessions.journal import Cursor, Journal
from cellgate.sessions.records import Kind, Record
from cellgate.wire.jupyter import Frame, MessageError
from cellgate_kernel.message import split_v1

__all__ = ["Parting", "Reader", "Sink"]

CHUNK_BYTES = 256 << 10  # read from the journal at a time: some 0.3 ms of work
MAX_CHUNKS = 8  # in a row for one client, before others have their turn
SEEK_BYTES = 32 << 20  # for what a client saw last, behind what it confirmed: more cannot have been on its way
SEEK_RECORDS = 1024  # and then before it, so many at a time, as far: more does no client's library keep from its owner
MARK_SECONDS = 0.02  # from one mark to the next: a flood of them would cost as much as what they stand behind
_MARK = struct.Struct("<Q")
_OUTPUT, _NOTE = Kind.OUTPUT, Kind.NOTE


class Parting(Enum):
    """Why a reader is let go of."""

    SESSION_OVER = "session_over"  # everything was delivered, the news of the end included
    REPLACED = "replaced"  # its client has come again on another connection
    TOO_SLOW = "too_slow"  # it took nothing for too long; it may come again and read on
    UNWELCOME = "unwelcome"  # what let it in does so no longer
    GOING_AWAY = "going_away"  # this gateway ends; the session may live on


class Sink(Protocol):
    """The connection of a client."""

    @property
    def buffered_bytes(self) -> int:
        """Sent, and not yet taken by the connection."""
        ...

    @property
    def sent_bytes(self) -> int:
        """Taken by the connection so far."""
        ...

    def send(self, frames: Sequence[Frame], mark: bytes | None = None) -> None:
        """In one go. The client gives the mark back when it has received all that was sent before it."""
        ...

    def part(self, why: Parting) -> None:
        """Close it. Called once."""
        ...


class Remember(Protocol):
    def __call__(self, position: int, *, is_sure: bool = True) -> None:
        """The client has received everything before this; sure is what it confirmed."""
        ...


class Reader:
    """Made by `LiveSession.join`. Its connection tells it `drained` and `marked`."""

    def __init__(
        self,
        client: bytes,
        sink: Sink,
        journal: Journal,
        *,
        voice: Voice,
        start: int,
        limit_bytes: int,
        remember: Remember,
        later: Callable[[float, Callable[[], None]], object],
        after: str = "",
    ) -> None:
        """Reads from record `start` on; or from behind the message with the id `after`, if that is found about there.
        `remember` is told, ever later, up to where the client has received.
        `later` calls something in so many seconds, when others have had their turn. Call `catch_up` next."""
        start = min(start, journal.next_seq)  # a power failure may have taken what the client saw
        self.client = client
        self.delivered = start  # everything before this has surely been received
        self.is_over = False
        self.counts = True  # what it confirms; not of a second connection of the same client
        self.context = copy_context()  # of the request that brought it
        self._sink = sink
        self._cursor = Cursor(journal, start)
        self._sought = f'"{after}"'.encode("utf-8", "replace") if after else b""  # as a header has it
        self._sought_bytes = 0
        self._seek_from, self._seek_end = start, journal.next_seq  # the stretch that is searched now
        self._voice = voice
        self._limit_bytes = limit_bytes
        self._remember_place = remember
        self._later = later
        self._is_live = False
        self._has_caught_up = False
        self._is_called = False  # `later` will call `catch_up`
        self._is_resting = False  # from marks, until `later` calls `_rested`
        self._marked: int | None = None  # the mark that is on its way
        self._parting: Parting | None = None  # when everything is delivered
        self._taken_bytes = 0
        self._taken_at: float | None = None  # since when the connection has taken nothing of what waits

    @property
    def position(self) -> int:
        """The record that is sent next."""
        return self._cursor.seq

    # -- to the client -------------------------------------------------------------------------------

    def appended(self, first: int, records: Sequence[Record]) -> None:
        """The journal has grown by these. The hot path: a client that keeps up gets them without a detour."""
        if not self._is_live or self.is_over:
            return
        self._cursor.seq = first + len(records)
        if frames := self._voice.frames(records, first):
            # At some news (a restart) clients hang up and come again, and shall not hear it twice.
            self._send(frames, mark_now=any(record.kind is _NOTE for record in records))
            if self._sink.buffered_bytes > self._limit_bytes:
                self._is_live = False

    def catch_up(self) -> None:
        """Send what the journal has, as long as the connection takes it."""
        self._is_called = False
        chunks = 0
        while not self.is_over and not self._is_live and not self._sink.buffered_bytes:
            if chunks == MAX_CHUNKS:
                self._is_called = True
                self._later(0.0, self.catch_up)
                return
            chunks += 1
            if self._sought:
                self._seek()
                continue
            reading = self._cursor.read(CHUNK_BYTES)
            frames = self._voice.frames(reading.records, reading.next_seq - len(reading.records))
            if reading.gap:
                frames.insert(0, self._voice.gap(reading.gap))
            if frames:
                self._send(frames)
            if self._cursor.is_at_end:
                self._is_live = True
                self._say_caught_up()
                if self._parting:
                    self._part(self._parting)

    def tell(self, event: Mapping[str, Any]) -> None:
        """What is no record, at once; may overtake records."""
        if not self.is_over and (frame := self._voice.tell(event)):
            self._sink.send([frame])

    def finish(self, why: Parting) -> None:
        """Part when everything that is journalled has been sent."""
        self._parting = why
        if self._is_live:
            self._part(why)

    def part(self, why: Parting) -> None:
        """Part now."""
        self._part(why)

    # -- from its connection -------------------------------------------------------------------------

    def drained(self) -> None:
        """Nothing is buffered any more."""
        if not self._is_live and not self._is_called:
            self.catch_up()

    def marked(self, mark: bytes) -> None:
        """A mark has come back; one that was never sent is the client's own and says nothing."""
        if self._marked is None or mark != _MARK.pack(self._marked):
            return
        self.delivered, self._marked = self._marked, None
        self._remember(self.delivered)
        self._mark_rest()

    def confirm(self, seq: int) -> bool:
        """The client says that it has seen all up to this record. False for one that it was not sent."""
        if seq >= self._cursor.seq:
            return False
        if seq >= self.delivered:
            self.delivered = seq + 1
            self._remember(self.delivered)
        return True

    def gone(self, *, in_order: bool) -> None:
        """The connection has ended; `in_order` when the client said so itself, having read what came before. One that
        has not answered a mark by then, as it answers all, had not got so far."""
        self.is_over = True
        if not self._voice.has_marks:
            return
        if in_order and self._marked is None and not self._sink.buffered_bytes and not self._sought:
            self.delivered = self._cursor.seq
            self._remember(self.delivered, is_sure=False)

    def stalled_seconds(self, now: float) -> float:
        """For how long the connection has taken nothing of what waits for it. To be asked now and then."""
        if not self._sink.buffered_bytes or self._sink.sent_bytes != self._taken_bytes or self._taken_at is None:
            self._taken_bytes, self._taken_at = self._sink.sent_bytes, now
        return now - self._taken_at

    # -- within --------------------------------------------------------------------------------------

    def _seek(self) -> None:
        """Look for what the client saw last, in a part of where it may be: behind what it has confirmed; or before
        that, the newest first, as what a library has received and confirmed its owner may never have come to see."""
        reading = self._cursor.read(CHUNK_BYTES)
        for record in reading.records:
            if record.seq >= self._seek_end:
                break
            if (record.kind is _OUTPUT or record.kind is _NOTE) and _header_has(record, self._sought):
                self._sought = b""
                self.delivered = self._cursor.seq = record.seq + 1
                self._remember(self.delivered)
                return
            self._sought_bytes += len(record.body)
        if self._cursor.seq >= self._seek_end or self._sought_bytes > SEEK_BYTES:
            self._seek_further()

    def _seek_further(self) -> None:
        """Not in this stretch: in the one before it, if there is one."""
        is_first = self._seek_from == self.delivered
        if self._seek_from <= self._cursor.journal.first_seq or (self._sought_bytes > SEEK_BYTES and not is_first):
            self._sought = b""
            self._cursor.seq = self.delivered
            return
        if is_first:
            self._sought_bytes = 0
        self._seek_end = self._seek_from
        self._cursor.seq = self._seek_from = max(self._seek_from - SEEK_RECORDS, 1)

    def _remember(self, position: int, *, is_sure: bool = True) -> None:
        if self.counts:
            self._remember_place(position, is_sure=is_sure)

    def _say_caught_up(self) -> None:
        if not self._has_caught_up:
            self._has_caught_up = True
            if frame := self._voice.caught_up(self._cursor.seq - 1):
                self._sink.send([frame])

    def _send(self, frames: list[Frame], *, mark_now: bool = False) -> None:
        if not self._voice.has_marks:
            self._sink.send(frames)
        elif mark_now or (self._marked is None and not self._is_resting):
            self._sink.send(frames, self._next_mark())
        else:
            self._sink.send(frames)

    def _next_mark(self) -> bytes:
        self._marked = self._cursor.seq
        if not self._is_resting:
            self._is_resting = True
            self._later(MARK_SECONDS, self._rested)
        return _MARK.pack(self._marked)

    def _rested(self) -> None:
        self._is_resting = False
        self._mark_rest()

    def _mark_rest(self) -> None:
        """What was sent since the last mark."""
        if self._marked is None and not self._is_resting and not self.is_over and self.delivered < self._cursor.seq:
            self._sink.send([], self._next_mark())

    def _part(self, why: Parting) -> None:
        if not self.is_over:
            self.is_over = True
            self._sink.part(why)


def _header_has(record: Record, needle: bytes) -> bool:
    with suppress(MessageError):
        return needle in bytes(split_v1(memoryview(record.body))[1][0])
    return False
