"""Keeps what was said in a session: append-only, numbered, bounded, and readable from any number.

A journal is a directory of segment files, the oldest of which go when it grows beyond its bounds. What `append`
has returned from survives the death of this process (`kill -9` included) because the kernel has it; nothing is
fsynced, so a power failure may take the last seconds of it, and with them the sandboxes it spoke of. Every
record has a checksum; damage that it finds is told as a gap and not read out.

Leaves to others what the records mean, who may read them, and what to tell a client of a gap. One writer, one
thread; readers are cursors, and cost no memory between two reads. There is no cache: the kernel's page cache is
the memory of what was just written.

Three rules keep a crash at any instruction harmless. A segment appears whole, by rename, and begins with copies
of all that is pending, so that the newest alone says where to go on. No segment is written to by a second
process, nor after a write to it has failed. An old segment goes only when a newer one is there.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from pathlib import Path
from typing import NamedTuple

from cellgate.sessions.records import (
    CARRIED,
    HEAD_BYTES,
    MARK_BYTES,
    RECORD_BYTES,
    Buffer,
    Kind,
    Marks,
    Record,
    decode,
    encode,
    frames,
    pack_head,
    unpack_head,
)

__all__ = ["Budget", "Cursor", "Gap", "Journal", "Kind", "Reading", "Record", "Recovery"]

MIN_LIMIT_BYTES = 256 << 10  # a few segments, or dropping the oldest would drop nearly all
SEGMENTS = 16  # about so many a journal has when it is full: dropping one takes a sixteenth of what can be replayed
MIN_SEGMENT_BYTES = 64 << 10  # a file costs the host some 4 KiB beside its bytes, and 0.2 ms to begin
MAX_SEGMENT_BYTES = 4 << 20  # a flood of large messages writes a third faster than with 1 MiB, and no faster with more
MAX_SEGMENT_RECORDS = 8192  # the newest is read when a journal is opened, in some 10 ms
MAX_UNWRITTEN_BYTES = 4 << 20  # while the disk refuses: as much as a link's window; then the oldest of it goes
JOINED_BELOW = 4 << 10  # copying small bodies into one is cheaper than naming each to the kernel; large ones are not
MAX_IOVECS = 1024  # Linux takes no more in one writev
FOREIGN_FROM = 1 << 62  # nobody has said so much: a name with such a number was not given by a journal
SUFFIX, UNFINISHED, CORRUPT = ".journal", ".tmp", ".corrupt"


class Gap(NamedTuple):
    """Records that are no longer there: dropped for room, or damaged."""

    first: int
    last: int

    @property
    def records(self) -> int:
        return self.last - self.first + 1


class Reading(NamedTuple):
    """What a read brought: the gap comes before the records; go on from `next_seq`. Both empty: nothing new."""

    gap: Gap | None
    records: list[Record]
    next_seq: int


@dataclass(frozen=True)
class Recovery:
    """What an opened journal holds of the process before: enough to go on, without reading it all."""

    incarnation: Record | None  # the newest
    link_number: int  # the highest of its link's messages that is here: `Link(sent=None, received=link_number)`
    requests: tuple[Record, ...]  # of the cells without a TERMINAL, oldest first
    cuts: tuple[Record, ...]  # the newest CUT of each such cell that has one
    damage: tuple[str, ...]  # what was found wrong, a sentence each, for the log


class Pending:
    """What a successor must know, kept up to date record by record."""

    def __init__(self) -> None:
        self.incarnation: Record | None = None
        self.requests: dict[int, Record] = {}
        self.cuts: dict[int, Record] = {}

    def heed(self, record: Record) -> None:
        if record.kind == Kind.INCARNATION:
            self.incarnation = record
        elif record.kind == Kind.REQUEST:
            self.requests[record.cell] = record
        elif record.kind == Kind.TERMINAL:
            self.requests.pop(record.cell, None)
            self.cuts.pop(record.cell, None)
        elif record.kind == Kind.CUT and record.cell in self.requests:
            self.cuts[record.cell] = record

    def records(self) -> list[Record]:
        first = [self.incarnation] if self.incarnation else []
        return [*first, *self.requests.values(), *self.cuts.values()]

    def as_recovery(self, link_number: int, damage: list[str]) -> Recovery:
        requests, cuts = tuple(self.requests.values()), tuple(self.cuts.values())
        return Recovery(self.incarnation, link_number, requests, cuts, tuple(damage))


class Segment:
    """One stretch of a journal without a gap: a file, or memory while the disk refuses."""

    __slots__ = ("descriptor", "first", "link", "marks", "memory", "path", "size")

    def __init__(self, path: Path, first: int, link: int, size: int) -> None:
        self.path = path
        self.first = first
        self.link = link
        self.size = size  # of what is whole: a failed write may have left more
        self.marks: Marks | None = None  # made when first needed
        self.memory: bytearray | None = None
        self.descriptor: int | None = None  # of the one that is written to

    def write(self, pieces: list[Buffer], size: int) -> None:
        """All or nothing, as far as `size` tells. Raises OSError."""
        if self.memory is not None:
            for piece in pieces:
                self.memory += piece
        else:
            assert self.descriptor is not None  # only the newest is written to
            write_all(self.descriptor, pieces, self.size)
        self.size += size

    def bytes_at(self, offset: int, size: int) -> bytes:
        """As much of this as there is; nothing if the file is gone or cannot be read."""
        size = min(size, self.size - offset)
        if self.memory is not None:
            return bytes(self.memory[offset : offset + size])
        try:
            if self.descriptor is not None:
                return os.pread(self.descriptor, size, offset)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError:
            return b""

    def read(self, seq: int, max_bytes: int) -> tuple[list[Record], int | None]:
        """Records from exactly `seq` on, one at least; or none, and the number after it when that one is damaged
        and the next may be whole."""
        at = self._offset_of(seq)
        if at is None:
            return [], None
        data = self.bytes_at(at, max(max_bytes, RECORD_BYTES))
        frame = next(frames(data, 0, seq), None)
        if frame is None:
            return [], None
        if frame.end > len(data):  # longer than was asked for
            data = self.bytes_at(at, frame.end)
        return decode(data, 0, seq)[0], seq + 1

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _offset_of(self, seq: int) -> int | None:
        if self.marks is None:
            self.marks = Marks()
            for frame in frames(self.bytes_at(0, self.size), HEAD_BYTES, self.first):
                if not frame.is_carried and frame.at >= self.marks.due_at:
                    self.marks.add(frame.seq, frame.at)
        mark = self.marks.before(seq)
        if mark is None:
            return None
        number, at = mark
        # Every record that begins further behind a mark has one of its own, so the headers are all in here.
        for frame in frames(self.bytes_at(at, MARK_BYTES + RECORD_BYTES), 0, number):
            if frame.seq == seq:
                return at + frame.at
        return None


class Budget:
    """Bytes that all journals share. Whoever holds most gives first, its oldest.

    What is pending is never given, so `used_bytes` may exceed the limit by as much as all sessions' queues hold.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._journals: dict[Journal, None] = {}  # a set, in order

    def join(self, journal: Journal) -> None:
        self._journals[journal] = None
        self.used_bytes += journal.size_bytes
        self.make_room()

    def leave(self, journal: Journal) -> None:
        self._journals.pop(journal, None)
        self.used_bytes -= journal.size_bytes

    def make_room(self) -> None:
        """Let the largest drop its oldest, until there is room or nobody can."""
        if self.used_bytes <= self.limit_bytes:
            return
        givers = [(-journal.size_bytes, n, journal) for n, journal in enumerate(self._journals)]
        heapify(givers)
        while givers and self.used_bytes > self.limit_bytes:
            _, n, largest = givers[0]
            if largest.give():
                heapreplace(givers, (-largest.size_bytes, n, largest))
            else:
                heappop(givers)


class Journal:
    """The journal of one session. Made by `open`."""

    recovery: Recovery
    next_seq: int  # of the record that is appended next. Also the end of what can be read
    size_bytes: int  # on disk, and in memory while the disk refuses

    @classmethod
    def open(cls, directory: Path, *, limit_bytes: int, budget: Budget | None = None) -> Journal:
        """The journal in this directory, which is made when it is not there. Reads no more than the newest
        segment and the heads of the others. Never raises for what a file holds: what makes no sense is renamed to
        `*.corrupt` and told in `recovery.damage`. Raises OSError when the directory cannot be made or listed."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(directory, find_segments(directory), max(limit_bytes, MIN_LIMIT_BYTES), budget)

    def __init__(self, directory: Path, found: Found, limit_bytes: int, budget: Budget | None) -> None:
        self._directory = directory
        self._segments = found.segments  # oldest first; those in memory come last
        self._current: Segment | None = None  # the last of them, when this process has begun it
        self._limit_bytes = limit_bytes
        self._segment_bytes = min(max(limit_bytes // SEGMENTS, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES)
        self._full_at = 0
        self._pending = Pending()
        self._link = 0
        self._budget: Budget | None = None
        self.next_seq = 1
        self.size_bytes = sum(segment.size for segment in self._segments)
        if self._segments:
            self._take_up(self._segments[-1], found.damage)
        self.next_seq = max(self.next_seq, found.numbers_from)
        self.recovery = self._pending.as_recovery(self._link, found.damage)
        if budget:
            self._budget = budget
            budget.join(self)

    def _take_up(self, newest: Segment, damage: list[str]) -> None:
        """Read what the process before left in its newest segment."""
        data = newest.bytes_at(0, newest.size)
        at, seq = HEAD_BYTES, newest.first
        self._link = newest.link
        while (frame := next(frames(data, at, seq), None)) and frame.end <= len(data):
            records, end = decode(data, at, frame.seq, carried=frame.is_carried)
            for record in records:
                if record.kind not in (Kind.OUTPUT, Kind.NOTE):
                    self._pending.heed(record._replace(body=bytes(record.body)))
                    if record.kind == Kind.INCARNATION and not frame.is_carried:
                        self._link = 0
                if not frame.is_carried:
                    self._link = max(self._link, record.link)
            if not records:
                damage.append(f"{newest.path.name}: record {frame.seq} is damaged")
                end = frame.end
            at = end
            seq += 0 if frame.is_carried else len(records) or 1
        self.next_seq = seq
        lost = len(data) - at
        if lost >= RECORD_BYTES and not frame:
            damage.append(f"{newest.path.name}: unreadable from record {seq} on, {lost} bytes")
            self.next_seq += lost // RECORD_BYTES  # as many as there may have been: no number is given out twice
        elif lost:  # a write that was cut off; nobody has been told of what it said
            with suppress(OSError):
                os.truncate(newest.path, at)
            newest.size = at
            self.size_bytes -= lost

    @property
    def first_seq(self) -> int:
        """The oldest that may still be there."""
        return self._segments[0].first if self._segments else self.next_seq

    @property
    def is_degraded(self) -> bool:
        """Whether the disk refuses writes. What is appended is then kept in memory, up to MAX_UNWRITTEN_BYTES, the
        oldest going first and told as a gap, until a `retry` succeeds. A session accepts no cell meanwhile, and
        may hold back acknowledgements to its link."""
        return bool(self._segments) and self._segments[-1].memory is not None

    def append(self, records: Sequence[Record]) -> int:
        """Write a batch, with one system call, and return the number of its first record; the others follow
        without a gap (`seq` of what is given is ignored). Never raises for the disk's sake: see `is_degraded`."""
        first = self.next_seq
        if not records:
            return first
        segment = self._current
        if segment is None or segment.size >= self._full_at or first - segment.first >= MAX_SEGMENT_RECORDS:
            segment = self._begin(first)
        encoded = encode(records, first, self._link, segment.size, segment.marks)
        try:
            segment.write(encoded.pieces, encoded.size)
        except OSError:
            segment = self._begin_in_memory(first)
            segment.write(encoded.pieces, encoded.size)
            segment.marks = None  # they were made for the other
        self.next_seq = first + len(records)
        self._link = encoded.link
        for record in encoded.heeded:
            self._pending.heed(record)
        self._count(encoded.size)
        self._keep_within_bounds()
        return first

    def retry(self) -> bool:
        """Try to write what the disk refused, say once a second. Whether nothing is left of it."""
        for segment in self._segments:
            if segment.memory is not None:
                try:
                    os.close(create_whole(segment.path, segment.memory))
                except OSError:
                    return False
                segment.memory = None
                if segment is self._current:
                    self._current = None
        return True

    def read(self, from_seq: int, max_bytes: int) -> Reading:
        """Records from this number on, in order, about `max_bytes` of them, and one at least if there is any.
        A number beyond the end (of a client who saw more than a power failure left) reads from the end."""
        asked = seq = min(max(from_seq, 1), self.next_seq)
        while seq < self.next_seq:
            at = bisect_right(self._segments, seq, key=lambda segment: segment.first) - 1
            if at >= 0:
                records, step = self._segments[at].read(seq, max_bytes)
                if records:
                    gap = Gap(asked, seq - 1) if seq > asked else None
                    return Reading(gap, records, seq + len(records))
                if step:
                    seq = step
                    continue
            seq = self._segments[at + 1].first if at + 1 < len(self._segments) else self.next_seq
        return Reading(Gap(asked, seq - 1) if seq > asked else None, [], seq)

    def give(self) -> bool:
        """Drop the oldest that there is, for the budget. Whether there was anything to drop."""
        if self.is_degraded or not self._segments:
            return False
        if len(self._segments) == 1:
            if self._segments[0].first == self.next_seq:
                return False  # it says only what is pending
            if self._begin(self.next_seq).memory is not None:
                return False
        self._drop(0)
        return True

    def close(self) -> None:
        """Write what the disk refused, if it takes that by now; let go of the files, and of the budget. Does nothing
        twice."""
        self.retry()
        if self._current:
            self._current.close()
            self._current = None
        if self._budget:
            self._budget.leave(self)
            self._budget = None

    def delete(self) -> None:
        """Close, and remove the directory with all that is in it."""
        self.close()
        self._segments.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    # -- segments -----------------------------------------------------------------------------------

    def _begin(self, first: int) -> Segment:
        """A new segment to write to, in memory if the disk refuses it."""
        if not self.is_degraded:
            path, preface = self._path(first), self._preface(first)
            with suppress(OSError):
                segment = Segment(path, first, self._link, len(preface))
                segment.descriptor = create_whole(path, preface)
                return self._add(segment)
        return self._begin_in_memory(first)

    def _begin_in_memory(self, first: int) -> Segment:
        preface = self._preface(first)
        segment = Segment(self._path(first), first, self._link, len(preface))
        segment.memory = bytearray(preface)
        self._add(segment)
        unwritten = [segment for segment in self._segments if segment.memory is not None]
        excess = sum(segment.size for segment in unwritten) - MAX_UNWRITTEN_BYTES
        for oldest in unwritten[:-1]:
            if excess > 0:
                excess -= oldest.size
                self._drop(self._segments.index(oldest))
        return segment

    def _preface(self, first: int) -> bytes:
        """How a segment begins: with all that a successor must know of the time before it."""
        pieces: list[Buffer] = [pack_head(first, self._link)]
        for record in self._pending.records():
            pieces += encode([record], record.seq, 0, 0, None, CARRIED).pieces
        return b"".join(pieces)

    def _add(self, segment: Segment) -> Segment:
        if self._current:
            self._current.close()
        if self._segments and self._segments[-1].first == segment.first:  # nothing has come into that one
            self._count(-self._segments.pop().size)
        segment.marks = Marks()
        self._segments.append(segment)
        self._current = segment
        self._full_at = max(self._segment_bytes, 2 * segment.size)  # copies of what is pending cost no more than half
        self._count(segment.size)
        return segment

    def _drop(self, index: int) -> None:
        segment = self._segments.pop(index)
        segment.close()
        self._count(-segment.size)
        if segment.memory is None:
            with suppress(OSError):
                segment.path.unlink()

    def _count(self, size: int) -> None:
        self.size_bytes += size
        if self._budget:
            self._budget.used_bytes += size

    def _keep_within_bounds(self) -> None:
        if self.is_degraded:  # memory has a bound of its own, and the files are all that a successor would find
            return
        while self.size_bytes > self._limit_bytes and len(self._segments) > 1:
            self._drop(0)
        if self._budget:
            self._budget.make_room()

    def _path(self, first: int) -> Path:
        return self._directory / f"{first:020}{SUFFIX}"


@dataclass
class Cursor:
    """A reader's place in a journal. That is all a slow client costs."""

    journal: Journal
    seq: int  # the next to be read

    @property
    def is_at_end(self) -> bool:
        return self.seq >= self.journal.next_seq

    def read(self, max_bytes: int) -> Reading:
        """What comes next, and step behind it."""
        reading = self.journal.read(self.seq, max_bytes)
        self.seq = reading.next_seq
        return reading


# -- files ---------------------------------------------------------------------------------------------


class Found(NamedTuple):
    segments: list[Segment]  # oldest first
    damage: list[str]  # a sentence for each file that is no segment, and is now set aside
    numbers_from: int  # those below may have been given out in such a file behind the last segment


def find_segments(directory: Path) -> Found:
    segments: list[Segment] = []
    damage: list[str] = []
    numbers_from = 1
    for path in sorted(directory.iterdir()):
        if path.suffix == UNFINISHED:
            with suppress(OSError):
                path.unlink()
        elif path.suffix == SUFFIX:
            if segment := open_segment(path):
                segments.append(segment)
                numbers_from = 1  # its own say more
                continue
            damage.append(f"{path.name} is no segment of this version; set aside")
            with suppress(OSError):
                if path.stem.isdecimal() and (first := int(path.stem)) < FOREIGN_FROM:
                    numbers_from = max(numbers_from, first + path.lstat().st_size // RECORD_BYTES)
                path.rename(path.with_name(path.name + CORRUPT))
    return Found(segments, damage, numbers_from)


def open_segment(path: Path) -> Segment | None:
    """A segment as it was left; None when the file is none, or lies under another's name."""
    try:
        size = os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return None
    segment = Segment(path, 0, 0, size)
    head = unpack_head(segment.bytes_at(0, HEAD_BYTES))
    if head is None or path.stem != f"{head[0]:020}":
        return None
    segment.first, segment.link = head
    return segment


def create_whole(path: Path, data: Buffer) -> int:
    """A file with these bytes and its descriptor, or no file. Raises OSError."""
    unfinished = path.with_suffix(UNFINISHED)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(unfinished, flags, 0o600)
    try:
        write_all(descriptor, [data], 0)
        os.rename(unfinished, path)
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            unfinished.unlink()
        raise
    return descriptor


def write_all(descriptor: int, pieces: list[Buffer], offset: int) -> None:
    """Write these, one system call if they are no more than it takes. Raises OSError, with any part written."""
    is_small = sum(map(len, pieces)) < JOINED_BELOW * len(pieces)
    pieces = [b"".join(pieces)] if is_small else pieces.copy()  # the caller may need them whole once more
    at = 0
    while at < len(pieces):
        written = os.pwritev(descriptor, pieces[at : at + MAX_IOVECS], offset)
        offset += written
        while at < len(pieces) and written >= len(pieces[at]):
            written -= len(pieces[at])
            at += 1
        if written:
            pieces[at] = memoryview(pieces[at])[written:]
