"""Pools of ready sandboxes: which are handed out, and when one more is to be made. Knows nothing of how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native.commands import Create

__all__ = ["Pool", "Pools"]

REFILL_SECONDS: Final = 0.02  # a session just handed out runs its first cell before its successor is made
REFILL_AFTER_FAILURE_SECONDS: Final = 1.0  # what fails once tends to fail again: no storm of retries

Ready = TypeVar("Ready")
_Kind = tuple[str, Limits]


@dataclass
class Pool(Generic[Ready]):
    """Ready sandboxes of one kind. They have run nobody's code, are handed out once, and never come back."""

    command: Create  # what each of them is
    size: int
    ready: list[Ready] = field(default_factory=list)  # the oldest first
    coming: int = 0  # ordered, and not there yet
    refill_at: float = 0.0

    def lacks(self) -> bool:
        return len(self.ready) + self.coming < self.size

    def on_ready(self, sandbox: Ready) -> bool:
        """Whether it is still wanted."""
        self.coming -= 1
        if len(self.ready) >= self.size:
            return False
        self.ready.append(sandbox)
        return True

    def on_failure(self, now: float) -> None:
        self.coming -= 1
        self.refill_at = now + REFILL_AFTER_FAILURE_SECONDS


class Pools(Generic[Ready]):
    def __init__(self) -> None:
        self._pools: dict[_Kind, Pool[Ready]] = {}

    def keep(self, command: Create, size: int) -> None:
        """Have so many ready from now on. What is too many stays until it is handed out."""
        self._pools.setdefault(_kind(command), Pool(command, 0)).size = size

    def take(self, command: Create, now: float) -> Ready | None:
        """The oldest that is ready, which is the pool's no more."""
        pool = self._pools.get(_kind(command))
        if pool is None or not pool.ready:
            return None
        pool.refill_at = now + REFILL_SECONDS
        return pool.ready.pop(0)

    def dissolve(self) -> list[Ready]:
        """Keep none any more; what was ready is returned, and what is still coming will not be wanted."""
        dissolved = list(self.ready())
        for pool in self._pools.values():
            pool.size, pool.ready = 0, []
        return dissolved

    def drop(self, sandbox: Ready) -> None:
        """It has ended."""
        for pool in self._pools.values():
            if sandbox in pool.ready:
                pool.ready.remove(sandbox)

    def due(self, now: float) -> Iterator[Pool[Ready]]:
        """The pools that must be sent one more: one each, so that a create never waits behind a row of them.
        What is due counts as coming."""
        for pool in self._pools.values():
            if pool.lacks() and pool.refill_at <= now:
                pool.coming += 1
                yield pool

    def next_due(self) -> float | None:
        return min((pool.refill_at for pool in self._pools.values() if pool.lacks()), default=None)

    def ready(self) -> Iterator[Ready]:
        for pool in self._pools.values():
            yield from pool.ready


def _kind(command: Create) -> _Kind:
    return command.template, command.limits
