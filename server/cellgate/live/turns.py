"""Whose turn it is, when more is wanted than is done at a time: principals in turn, each in the order it asked. So a
storm of one's costs another the time of one start, and not that of the storm."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """So many at a time."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the next to come is the first

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def waiting_of(self, principal: str) -> int:
        return len(self._waiting.get(principal, ()))

    @asynccontextmanager
    async def of(self, principal: str) -> AsyncIterator[None]:
        await self._take(principal)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, principal: str) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(principal, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given, and is not wanted any more
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            principal, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[principal] = queue  # behind all others
            if not turn.done():  # else whoever waited was cancelled
                turn.set_result(None)
                return
        self._free += 1
