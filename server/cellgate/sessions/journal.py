"""Keeps what was said in a session: append-only, numbered, bounded, and readable from any number.

A journal is a directory of segment files, the oldest of which go when it grows beyond its bounds. What `append`
has returned from survives the death of this process (`kill -9` included) because the kernel has it; nothing is
fsynced, so a power failure may take the last seconds of it, and with them the sandboxes it spoke of. Every
record has a checksum; damage is told as a gap and never read out.

Leaves to others what the records mean, who may read them, and what to tell a client of a gap. One writer, one
thread; readers are cursors, and cost no memory between two reads. There is no cache: the kernel's page cache is
the memory of what was just written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from cellgate_kernel.message import Channel, Status, Tag

__all__ = ["Budget", "Cursor", "Gap", "Journal", "Kind", "Reading", "Record", "Recovery"]

Buffer = bytes | bytearray | memoryview
NO_TAG = Tag(Channel.SHELL, "", Status.NONE, b"")


class Kind(IntEnum):
    """What a record is. The journal itself heeds four of them, to know at any crash what was pending."""

    INCARNATION = 1  # a kernel has begun: link numbers start anew. The body is the session's own
    REQUEST = 2  # a cell was accepted: opens `cell`. The body is the client's message
    OUTPUT = 3  # what a kernel said, or what the gateway said for it
    TERMINAL = 4  # how a cell ended: closes `cell`
    NOTE = 5  # what the gateway has to say beside: a notice, a truncation, a death certificate
    CUT = 6  # the link's number was reached without OUTPUT. The body is the state of the cell's output cap


class Record(NamedTuple):
    """One thing that was said. Its sequence number is given by `append`, and filled in by `read`."""

    kind: Kind
    cell: int = 0  # which cell it belongs to; 0 for none. A cell's key is the sequence number of its REQUEST
    link: int = 0  # number of the link's message that brought it; 0 when none did
    client: bytes = b""  # whom it is for, or from (REQUEST); b"" for all. At most 255 bytes
    tag: Tag = NO_TAG
    body: Buffer = b""  # the v1 message; from `read` a view of what was read
    seq: int = 0


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


class Budget:
    """Bytes that all journals share. Whoever holds most gives first."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0


class Journal:
    """The journal of one session. Made by `open`."""

    recovery: Recovery
    next_seq: int  # of the record that is appended next. Also the end of what can be read

    @classmethod
    def open(cls, directory: Path, *, limit_bytes: int, budget: Budget | None = None) -> Journal:
        """The journal in this directory, which is made when it is not there. Looks at no more than the newest
        segment, so that a thousand journals are open in a second. Never raises for what a file holds: what makes
        no sense is renamed to `*.corrupt` and told in `recovery.damage`. Raises OSError when the directory cannot
        be made or listed."""
        raise NotImplementedError

    @property
    def first_seq(self) -> int:
        """The oldest that may still be there."""
        raise NotImplementedError

    @property
    def is_degraded(self) -> bool:
        """Whether the disk refuses writes. What is appended is then kept in memory, up to MAX_UNWRITTEN_BYTES, the
        oldest going first and told as a gap; each append and each `retry` tries the disk again. A session
        accepts no cell meanwhile, and may hold back acknowledgements to its link."""
        raise NotImplementedError

    def append(self, records: Sequence[Record]) -> int:
        """Write a batch, with one system call, and return the number of its first record; the others follow
        without a gap (`seq` of what is given is ignored). Never raises for the disk's sake: see `is_degraded`."""
        raise NotImplementedError

    def retry(self) -> bool:
        """Try to write what the disk refused. Whether nothing is left of it."""
        raise NotImplementedError

    def read(self, from_seq: int, max_bytes: int) -> Reading:
        """Records from this number on, in order, about `max_bytes` of them, and one at least if there is any.
        A number beyond the end (of a client who saw more than a power failure left) reads from the end."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the files, and of the budget. Does nothing twice."""
        raise NotImplementedError

    def delete(self) -> None:
        """Close, and remove the directory with all that is in it."""
        raise NotImplementedError


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
