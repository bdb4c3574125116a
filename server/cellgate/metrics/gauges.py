"""What can be seen of a server at a moment, and how late its loop is."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from cellgate.live.manager import Manager
from cellgate.metrics.tally import Tally

__all__ = ["Gauges", "LoopLag", "look"]

BEAT_SECONDS = 0.1  # between two looks at the loop
MEMORY_BEATS = 100  # the worst of the last ten seconds counts: a scrape comes every ten or fifteen


@dataclass(frozen=True)
class Gauges:
    """All are of now; memory as it was sampled last."""

    sessions: Counter[tuple[str, str]]  # by state and kernel
    clients: int
    cells_running: int
    cells_waiting: int
    starts_waiting: int  # kernels that wait for their turn to be started
    journal_bytes: int
    memory_bytes: int  # of all sandboxes
    loop_lag_seconds: float


def look(manager: Manager, tally: Tally, lag: LoopLag) -> Gauges:
    sessions: Counter[tuple[str, str]] = Counter()
    running = waiting = stored = 0
    for live in manager.all_sessions():
        sessions[live.session.state.value, live.kernel_name] += 1
        running += live.is_running
        waiting += live.session.waiting_cells
        stored += live.journal.size_bytes
    return Gauges(
        sessions,
        tally.clients,
        running,
        waiting,
        manager.starts_waiting,
        stored,
        sum(tally.memory.values()),
        lag.worst_seconds,
    )


class LoopLag:
    """How much later than it should a timer is called: so long others wait for whatever holds the loop."""

    def __init__(self) -> None:
        self._beats = [0.0] * MEMORY_BEATS

    @property
    def worst_seconds(self) -> float:
        return max(self._beats)

    async def watch(self) -> None:
        """Until cancelled."""
        loop, at = asyncio.get_running_loop(), 0
        while True:
            due = loop.time() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self._beats[at] = max(loop.time() - due, 0.0)
            at = (at + 1) % MEMORY_BEATS
