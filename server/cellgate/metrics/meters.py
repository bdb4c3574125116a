"""All that is measured of one server, brought together."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from cellgate.live.manager import Manager
from cellgate.metrics.gauges import LoopLag, look
from cellgate.metrics.history import SAMPLE_SECONDS, History
from cellgate.metrics.prometheus import Exposition
from cellgate.metrics.tally import COUNTERS, Tally

__all__ = ["Meters"]


class Meters:
    """Counts from when it is made; whoever made it lets `watch` run, for what no happening tells."""

    def __init__(self, manager: Manager) -> None:
        self.tally = Tally()
        self.history = History()
        self._lag = LoopLag()
        self._look = partial(look, manager, self.tally, self._lag)
        self._exposition = Exposition(self.tally, self._look)
        manager.happenings.listen(self.tally.hear)

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
