"""Decides which output of one cell passes when there is too much: the head as it comes, and at the end the tail.

    head passes live ── full ──▶ the newest are held, older ones dropped ── essential or end ──▶ count, tail, it

Pure; knows no message, only sizes and what its caller says is essential. Counts are exact, also over a crash:
`state()` goes into the journal with each batch, and an heir counts as dropped what had only been held.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

__all__ = ["MAX_ESSENTIAL", "MAX_ESSENTIAL_BYTES", "STATE_BYTES", "CapLimits", "OutputCap", "Truncated"]

Item = TypeVar("Item")

# Kernels may call anything a result. Beyond either of these a cell's results are output like other output; the
# last of them is then still in the tail.
MAX_ESSENTIAL = 64  # a cell has one result and one error; some shells show the value of every line
MAX_ESSENTIAL_BYTES = 16 << 20  # two results of the largest size a kernel host sends

TAIL_PART = 4  # a quarter is for the tail: an error is told in the last lines, what led there in the first
MAX_TAIL_BYTES = 256 << 10  # lies in memory until the cell ends, in every session that floods at once
MAX_TAIL_MESSAGES = 1024  # some screens of single lines; each costs about 200 bytes beside its own

_STATE = struct.Struct("<?8Q")
STATE_BYTES = _STATE.size


@dataclass(frozen=True)
class CapLimits:
    """What of one cell's output is kept. Whichever of bytes and messages is reached first counts."""

    head_bytes: int
    head_messages: int
    tail_bytes: int
    tail_messages: int

    @staticmethod
    @lru_cache(maxsize=64)  # nearly all cells have their session's
    def of(output_bytes: int, output_messages: int) -> CapLimits:
        """Both limits of a cell, shared out between its head and its tail."""
        tail_bytes = min(output_bytes // TAIL_PART, MAX_TAIL_BYTES)
        tail_messages = min(output_messages // TAIL_PART, MAX_TAIL_MESSAGES)
        return CapLimits(output_bytes - tail_bytes, output_messages - tail_messages, tail_bytes, tail_messages)


@dataclass(frozen=True)
class Truncated:
    """Stands where output is missing; becomes the note `output_truncated`. Says what is missing at this place,
    beside what this cell has lost in all."""

    messages: int
    bytes: int
    messages_in_all: int
    bytes_in_all: int


class OutputCap(Generic[Item]):
    """The cap of one cell. Items are the caller's own, whatever is to pass or be held: give it nothing that
    keeps more memory alive than its size says (`bytes`, not a view of a whole read)."""

    def __init__(self, limits: CapLimits, state: bytes = b"") -> None:
        """`state` is what `state()` of a predecessor said. Raises ValueError when it is none."""
        self.limits = limits
        self._is_cutting = False
        self._messages = self._bytes = 0  # of the head
        self._essentials = self._essential_bytes = 0  # since the head was full
        self._dropped = self._dropped_bytes = 0  # in all
        self._told = self._told_bytes = 0  # of what was dropped, by a Truncated
        self._tail: deque[tuple[Item, int]] = deque()
        self._tail_bytes = 0
        self._passed = self._passed_bytes = 0  # of tails
        if state:
            try:
                (
                    self._is_cutting, self._messages, self._bytes, self._essentials, self._essential_bytes,
                    self._dropped, self._dropped_bytes, self._told, self._told_bytes,
                ) = _STATE.unpack(state)  # fmt: skip
            except struct.error:
                raise ValueError(f"not the state of an output cap: {state[:80]!r}") from None

    @property
    def is_cutting(self) -> bool:
        """Whether the head is full: from now on the journal gets a CUT record with each batch."""
        return self._is_cutting

    @property
    def dropped(self) -> tuple[int, int]:
        """Messages and bytes of what did not pass."""
        return self._dropped, self._dropped_bytes

    @property
    def seen(self) -> tuple[int, int]:
        """Messages and bytes of all that came, passed or not. After a crash without the tails that passed before."""
        messages = self._messages + self._essentials + self._passed + self._dropped + len(self._tail)
        size = self._bytes + self._essential_bytes + self._passed_bytes + self._dropped_bytes + self._tail_bytes
        return messages, size

    def take(self, item: Item, size: int, *, essential: bool = False) -> Sequence[Item | Truncated]:
        """What passes now, in order: `item` while the head has room, nothing while it is held. Essential (an
        `error`, a result, a request for input) passes always, after the count and the tail that came before it.
        Of that there is an end too, MAX_ESSENTIAL a cell: beyond it nothing is essential."""
        if not self._is_cutting:
            self._messages += 1
            self._bytes += size
            if self._bytes <= self.limits.head_bytes and self._messages <= self.limits.head_messages:
                return (item,)
            self._messages -= 1
            self._bytes -= size
            self._is_cutting = True  # for good: a small message must not overtake a large one
        if essential and self._essentials < MAX_ESSENTIAL and self._essential_bytes < MAX_ESSENTIAL_BYTES:
            self._essentials += 1
            self._essential_bytes += size
            return [*self.finish(), item]
        self._hold(item, size)
        return ()

    def finish(self) -> Sequence[Item | Truncated]:
        """The cell has ended: the count and the tail, if anything was held. To be said before its reply and its
        idle, which never come here: a session passes one of each whatever the cap says."""
        passing: list[Item | Truncated] = []
        if self._dropped > self._told:
            here, here_bytes = self._dropped - self._told, self._dropped_bytes - self._told_bytes
            passing.append(Truncated(here, here_bytes, self._dropped, self._dropped_bytes))
            self._told, self._told_bytes = self._dropped, self._dropped_bytes
        passing.extend(item for item, _ in self._tail)
        self._passed += len(self._tail)
        self._passed_bytes += self._tail_bytes
        self._tail.clear()
        self._tail_bytes = 0
        return passing

    def state(self) -> bytes:
        """All that an heir must know, for the body of a CUT record. What is held counts as dropped in it."""
        return _STATE.pack(
            self._is_cutting, self._messages, self._bytes, self._essentials, self._essential_bytes,
            self._dropped + len(self._tail), self._dropped_bytes + self._tail_bytes, self._told, self._told_bytes,
        )  # fmt: skip

    def _hold(self, item: Item, size: int) -> None:
        """Into the tail; the newest always fits, so that a large picture at the end is not what is missing."""
        tail, limits = self._tail, self.limits
        tail.append((item, size))
        self._tail_bytes += size
        while len(tail) > 1 and (self._tail_bytes > limits.tail_bytes or len(tail) > limits.tail_messages):
            _, gone = tail.popleft()
            self._tail_bytes -= gone
            self._dropped += 1
            self._dropped_bytes += gone
