"""What went on in the last hour, a sample every few seconds: for the page, and for `cellgate top`. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import astuple, dataclass, fields

from cellgate.metrics.gauges import Gauges
from cellgate.metrics.tally import Tally

__all__ = ["SAMPLE_SECONDS", "History", "Sample"]

SAMPLE_SECONDS = 5.0
SAMPLES = 720  # an hour; some 100 KB of memory


@dataclass(frozen=True)
class Sample:
    """Rates are of the time since the sample before."""

    at: float  # seconds since 1970
    sessions: int
    clients: int
    cells_running: int
    cells_waiting: int
    cells_per_second: float
    failures_per_second: float  # of cells that ended otherwise than by `ok` or `error`, refusals included
    starts_per_second: float
    output_bytes_per_second: float
    cpu_cores: float  # that sandboxes used
    memory_bytes: int
    journal_bytes: int
    loop_lag_seconds: float


class History:
    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._before: tuple[float, dict[str, float]] | None = None

    def take(self, tally: Tally, gauges: Gauges, now: float) -> None:
        """Another sample."""
        sums = {
            "cells": tally.total("cells_finished"),
            "failures": _failures(tally),
            "starts": tally.total("kernels_started"),
            "output": tally.total("output_bytes"),
            "cpu": tally.total("cpu_seconds"),
        }
        before, self._before = self._before, (now, sums)
        seconds = now - before[0] if before else 0.0
        rates = dict.fromkeys(sums, 0.0)
        if before and seconds > 0:
            rates = {name: (value - before[1][name]) / seconds for name, value in sums.items()}
        self._samples.append(
            Sample(
                now,
                sum(gauges.sessions.values()),
                gauges.clients,
                gauges.cells_running,
                gauges.cells_waiting,
                rates["cells"],
                rates["failures"],
                rates["starts"],
                rates["output"],
                rates["cpu"],
                gauges.memory_bytes,
                gauges.journal_bytes,
                gauges.loop_lag_seconds,
            )
        )

    def to_json(self) -> dict[str, object]:
        """By column, so that a page draws it as it is."""
        columns = list(zip(*(astuple(sample) for sample in self._samples))) or [()] * len(fields(Sample))
        return {row.name: [_rounded(value) for value in column] for row, column in zip(fields(Sample), columns)}


def _failures(tally: Tally) -> float:
    finished = tally.counters["cells_finished"]
    ended = sum(count for (reason,), count in finished.items() if reason not in ("ok", "error"))
    return ended + tally.total("cells_refused")


def _rounded(value: float) -> float:
    return round(value, 4)
