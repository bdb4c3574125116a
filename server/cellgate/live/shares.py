"""Places that several principals want at once: who is next. One with a thousand waiting keeps nobody from having theirs
soon.

Of those who wait, that principal is next that was served least; the longest of its own. Who comes anew is served before
those who have had much, but with no more credit than a moment's, so that nobody can save up. For what takes
long, and how long is not known: what is short, as the start of a kernel, is given out in plain rotation by `turns`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from cellgate.errors import TooManyWaiting

__all__ = ["MAX_WAITING_EACH", "Shares"]

MAX_WAITING_EACH = 1000  # of one principal; what they hold in memory is bounded by whoever takes them in
TURN_SECONDS = 0.05  # that a turn is counted as at its start, before it is known how long it takes
CREDIT_SECONDS = 1.0  # that somebody new is ahead of who was served least: some dozen short turns
SHARE = 0.75  # of all places, that one principal may hold: who comes finds one before any of those ends


@dataclass
class _Party:
    """One principal that waits or holds places."""

    served: float  # seconds, beside others who are here
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    holding: int = 0


class Shares:
    def __init__(self, places: int, clock: Callable[[], float]) -> None:
        self._free = places
        self._most_each = max(int(places * SHARE), 1)
        self._clock = clock
        self._parties: dict[str, _Party] = {}

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many, by principal."""
        return {name: len(party.waiting) for name, party in self._parties.items()}

    @asynccontextmanager
    async def turn(self, principal: str) -> AsyncIterator[None]:
        """Waits for a place, and holds it. Raises TooManyWaiting."""
        party = await self._wait(principal)
        began = self._clock()
        try:
            yield
        finally:
            party.served += max(self._clock() - began - TURN_SECONDS, 0.0)
            self._give_back(party)

    async def _wait(self, principal: str) -> _Party:
        party = self._parties.get(principal)
        if party is None:
            least = min((other.served for other in self._parties.values()), default=CREDIT_SECONDS)
            party = self._parties[principal] = _Party(least - CREDIT_SECONDS)
        if len(party.waiting) >= MAX_WAITING_EACH:
            raise TooManyWaiting(len(party.waiting))
        place = asyncio.get_running_loop().create_future()
        party.waiting.append(place)
        self._give()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given at the same moment
                self._give_back(party)
            else:
                with suppress(ValueError):
                    party.waiting.remove(place)
                self._forget_idle()
            raise
        return party

    def _give(self) -> None:
        while self._free:
            able = [one for one in self._parties.values() if one.waiting and one.holding < self._most_each]
            if not able:
                return
            party = min(able, key=lambda one: one.served)
            place = party.waiting.popleft()
            if not place.done():  # else its task was cancelled, and does not know yet
                party.served += TURN_SECONDS
                party.holding += 1
                self._free -= 1
                place.set_result(None)

    def _give_back(self, party: _Party) -> None:
        party.holding -= 1
        self._free += 1
        self._give()
        self._forget_idle()

    def _forget_idle(self) -> None:
        self._parties = {name: one for name, one in self._parties.items() if one.waiting or one.holding}
