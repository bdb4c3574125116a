"""All that is measured of one server, brought together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from functools import partial

from cellgate.live.happenings import Happening, KernelEnded
from cellgate.live.manager import Manager
from cellgate.metrics.gauges import LoopLag, look
from cellgate.metrics.history import SAMPLE_SECONDS, History
from cellgate.metrics.prometheus import Exposition
from cellgate.metrics.tally import COUNTERS, Tally

__all__ = ["Death", "Meters"]

MAX_DEATHS = 50  # that are told one by one: what an operator reads; the counts have all


@dataclass(frozen=True)
class Death:
    """How a kernel ended."""

    at: float  # seconds since 1970
    principal: str
    session: str
    reason: str  # of `certificate.Reason`
    cpu_seconds: float
    memory_peak_bytes: int | None


class Meters:
    """Counts from when it is made; whoever made it lets `watch` run, for what no happening tells."""

    def __init__(self, manager: Manager) -> None:
        self.tally = Tally()
        self.history = History()
        self.deaths: deque[Death] = deque(maxlen=MAX_DEATHS)  # oldest first
        self._lag = LoopLag()
        self._look = partial(look, manager, self.tally, self._lag)
        self._exposition = Exposition(self.tally, self._look)
        manager.happenings.listen(self.tally.hear)
        manager.happenings.listen(self._hear)

    def _hear(self, happening: Happening) -> None:
        match happening:
            case KernelEnded(who, _, reason, cpu, peak):
                self.deaths.append(Death(time.time(), who.principal, who.session, reason, cpu, peak))

    async def watch(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._lag.watch(), self._take_samples())

    async def _take_samples(self) -> None:
        while True:
            self.history.take(self.tally, self._look(), time.time())
            await asyncio.sleep(SAMPLE_SECONDS)

    def exposition(self) -> bytes:
        """For Prometheus."""
        return self._exposition.render()

    def stats(self) -> dict[str, object]:
        """For the page and for `cellgate top`."""
        seen = self._look()
        sessions = [{"state": state, "kernel": name, "count": n} for (state, name), n in sorted(seen.sessions.items())]
        counts = {
            name: [{**dict(zip(labels, values)), "count": n} for values, n in sorted(self.tally.counters[name].items())]
            for name, (_, labels) in COUNTERS.items()
        }
        now = {**vars(seen), "sessions": sessions}
        return {"at": time.time(), "now": now, "counts": counts, "history": self.history.to_json()}
