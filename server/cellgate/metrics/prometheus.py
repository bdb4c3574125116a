"""Writes counts and gauges as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from cellgate.metrics.gauges import Gauges
from cellgate.metrics.tally import COUNTERS, HISTOGRAMS, Histogram, Tally

__all__ = ["GAUGES", "MEDIA_TYPE", "Exposition", "metrics_as_markdown"]

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sessions": ("Sessions, by state and kernel.", ("state", "kernel")),
    "clients": ("Connections of clients to sessions.", ()),
    "cells_running": ("Cells that run.", ()),
    "cells_waiting": ("Cells that wait, in the queues of their sessions.", ()),
    "starts_waiting": ("Kernels that wait for their turn to be started.", ()),
    "journal_bytes": ("Bytes on disk of all journals.", ()),
    "memory_bytes": ("Memory of all sandboxes, as last sampled.", ()),
    "loop_lag_seconds": ("How late the gateway's loop was at worst in the last ten seconds.", ()),
}


class Exposition:
    """What `/metrics` answers; `look` is asked each time."""

    def __init__(self, tally: Tally, look: Callable[[], Gauges]) -> None:
        self._tally = tally
        self._look = look
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        for name, (text, labels) in COUNTERS.items():
            counter = CounterMetricFamily(f"cellgate_{name}", text, labels=labels)
            for values, count in (self._tally.counters[name] or ({} if labels else {(): 0})).items():
                counter.add_metric(values, count)
            yield counter
        for name, (text, _) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"cellgate_{name}", text)
            histogram.add_metric((), _buckets(self._tally.histograms[name]), self._tally.histograms[name].total)
            yield histogram
        seen = self._look()
        for name, (text, labels) in GAUGES.items():
            gauge = GaugeMetricFamily(f"cellgate_{name}", text, labels=labels)
            value = getattr(seen, name)
            for values, number in value.items() if labels else [((), value)]:
                gauge.add_metric(values, number)
            yield gauge


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """As Prometheus has them: each holds what is in those before it."""
    so_far, buckets = 0, []
    for end, count in zip((*histogram.ends, float("inf")), histogram.counts):
        so_far += count
        buckets.append(("+Inf" if end == float("inf") else str(end), float(so_far)))
    return buckets


def metrics_as_markdown() -> str:
    """A line for each, for people."""
    lines = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    for kind, table in (("counter", COUNTERS), ("gauge", GAUGES)):
        suffix = "_total" if kind == "counter" else ""
        for name, (text, labels) in table.items():
            lines.append(f"| `cellgate_{name}{suffix}` | {kind} | {', '.join(labels)} | {text} |")
    lines += [f"| `cellgate_{name}` | histogram |  | {text} |" for name, (text, _) in HISTOGRAMS.items()]
    return "\n".join(lines) + "\n"
