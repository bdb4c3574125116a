"""Decides which output of one cell passes when there is too much: the head as it comes, and at the end the tail.

    head passes live ── full ──▶ the newest are held, older ones dropped ── essential or end ──▶ count, tail, it

Pure; knows no message, only sizes and what its caller says is essential. Counts are exact, also over a crash:
`state()` goes into the journal with each batch, and an heir counts as dropped what had only been held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["CapLimits", "OutputCap", "Truncated"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class CapLimits:
    """What of one cell's output is kept. Whichever of bytes and messages is reached first counts."""

    head_bytes: int
    head_messages: int
    tail_bytes: int
    tail_messages: int

    @staticmethod
    def of(output_bytes: int, output_messages: int) -> CapLimits:
        """Both limits of a cell, shared out between its head and its tail."""
        raise NotImplementedError


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
        raise NotImplementedError

    @property
    def is_cutting(self) -> bool:
        """Whether the head is full: from now on the journal gets a CUT record with each batch."""
        raise NotImplementedError

    def take(self, item: Item, size: int, *, essential: bool = False) -> Sequence[Item | Truncated]:
        """What passes now, in order: `item` while the head has room, nothing while it is held. Essential (an
        `error`, a result, a request for input) passes always, after the count and the tail that came before it.
        Of that there is an end too, MAX_ESSENTIAL a cell: beyond it nothing is essential."""
        raise NotImplementedError

    def finish(self) -> Sequence[Item | Truncated]:
        """The cell has ended: the count and the tail, if anything was held. To be said before its reply and its
        idle, which never come here: a session passes one of each whatever the cap says."""
        raise NotImplementedError

    def state(self) -> bytes:
        """All that an heir must know, for the body of a CUT record. What is held counts as dropped in it."""
        raise NotImplementedError
