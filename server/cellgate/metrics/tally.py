"""Counts what happens, for Prometheus and for the page of statistics. Pure: it listens, and adds up.

Counted with plain dictionaries, at some microseconds a cell; the library that writes them down for Prometheus is
asked only when somebody reads. Labels are closed lists of ours: no client and no kernel can add one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cellgate.live.happenings import (
    CellAccepted,
    CellFinished,
    CellRefused,
    ClientJoined,
    ClientLeft,
    FileMoved,
    Happening,
    KernelEnded,
    KernelStarted,
    LimitHit,
    SessionCreated,
    SessionEnded,
    TokenRefused,
    UsageSampled,
    VerdictGiven,
    Who,
)

__all__ = ["COUNTERS", "HISTOGRAMS", "Histogram", "Tally"]

# Each counter: what it counts, and its labels.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sessions_created": ("Sessions that were created.", ("kernel",)),
    "sessions_ended": ("Sessions that ended, by the reason.", ("reason",)),
    "kernels_started": ("Kernels that were started.", ("driver", "template")),
    "kernels_ended": ("Kernels that ended, by the reason of the death certificate.", ("reason",)),
    "oom_kills": ("Processes in sandboxes that were killed for memory.", ()),
    "cells_accepted": ("Cells that were accepted.", ()),
    "cells_finished": ("Cells that ended, by the reason.", ("reason",)),
    "cells_refused": ("Cells that were refused, by the reason.", ("reason",)),
    "output_messages": ("Messages of output that cells made.", ()),
    "output_bytes": ("Bytes of output that cells made.", ()),
    "cpu_seconds": ("CPU time of sandboxes, as last sampled.", ()),
    "verdicts": ("Messages that were judged.", ("allowed",)),
    "denials": ("Denials by a policy, by the rule.", ("rule",)),
    "clients_joined": ("Connections of clients to sessions.", ("dialect",)),
    "files_moved": ("Files to and from sandboxes.", ("direction",)),
    "file_bytes": ("Bytes of files to and from sandboxes.", ("direction",)),
    "limits_hit": ("Requests that were refused for a limit or a quota.", ("limit",)),
    "tokens_refused": ("Requests that were not let in for what they showed.", ("refusal",)),
}

# Each histogram: what it measures, and the upper ends of its buckets.
HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "kernel_start_seconds": (
        "From when a kernel was wanted until it could be sent something.",
        (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    ),
    "cell_seconds": (
        "Wall time of cells in their kernels.",
        (0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0, 3600.0),
    ),
    "verdict_seconds": (
        "Time that a verdict took, waiting included.",
        (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0),
    ),
}


@dataclass
class Histogram:
    ends: tuple[float, ...]
    counts: list[int] = field(init=False)  # by bucket; the last is for all that is longer
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.ends) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.ends, value)] += 1
        self.total += value


class Tally:
    """One for each server. `hear` is a listener."""

    def __init__(self) -> None:
        self.counters: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in COUNTERS}
        self.histograms = {name: Histogram(ends) for name, (_, ends) in HISTOGRAMS.items()}
        self.clients = 0
        self.memory: dict[str, int] = {}  # bytes, by session, as last sampled
        self.cpu: dict[tuple[str, int], float] = {}  # seconds that were counted, by session and incarnation
        self._hearing: dict[type, Callable[[Any], None]] = {
            SessionCreated: lambda h: self._count("sessions_created", h.kernel),
            SessionEnded: lambda h: self._count("sessions_ended", h.reason),
            KernelStarted: self._kernel_started,
            KernelEnded: self._kernel_ended,
            UsageSampled: self._usage_sampled,
            CellAccepted: lambda _: self._count("cells_accepted"),
            CellRefused: lambda h: self._count("cells_refused", h.reason),
            CellFinished: self._cell_finished,
            VerdictGiven: self._verdict_given,
            ClientJoined: self._client_joined,
            ClientLeft: self._client_left,
            FileMoved: self._file_moved,
            LimitHit: lambda h: self._count("limits_hit", h.limit),
            TokenRefused: lambda h: self._count("tokens_refused", h.refusal),
        }

    def hear(self, happening: Happening) -> None:
        if hearing := self._hearing.get(type(happening)):
            hearing(happening)

    def total(self, name: str) -> float:
        """Of a counter, whatever its labels."""
        return sum(self.counters[name].values())

    def _count(self, name: str, *labels: str, by: float = 1) -> None:
        self.counters[name][labels] += by  # type: ignore[assignment]  # a Counter counts seconds as well

    def _kernel_started(self, started: KernelStarted) -> None:
        self._count("kernels_started", started.driver, started.template)
        self.histograms["kernel_start_seconds"].add(started.seconds)

    def _kernel_ended(self, ended: KernelEnded) -> None:
        self._count("kernels_ended", ended.reason)
        if ended.oom_kills:
            self._count("oom_kills", by=ended.oom_kills)
        self._count_cpu(ended.who, ended.incarnation, ended.cpu_seconds)
        self.cpu.pop((ended.who.session, ended.incarnation), None)
        self.memory.pop(ended.who.session, None)

    def _usage_sampled(self, sample: UsageSampled) -> None:
        self._count_cpu(sample.who, sample.incarnation, sample.cpu_seconds)
        if sample.memory_bytes is not None:
            self.memory[sample.who.session] = sample.memory_bytes

    def _count_cpu(self, who: Who, incarnation: int, seconds: float) -> None:
        """Of a kernel that a former gateway started, all that it has used so far counts at once: a rate over the
        restart of a gateway is off by that."""
        kernel = who.session, incarnation
        more = seconds - self.cpu.get(kernel, 0.0)
        if more > 0:
            self._count("cpu_seconds", by=more)
            self.cpu[kernel] = seconds

    def _cell_finished(self, cell: CellFinished) -> None:
        self._count("cells_finished", cell.reason)
        self.histograms["cell_seconds"].add(cell.wall_seconds)
        if cell.output_messages:
            self._count("output_messages", by=cell.output_messages)
            self._count("output_bytes", by=cell.output_bytes)

    def _verdict_given(self, verdict: VerdictGiven) -> None:
        self._count("verdicts", "no" if verdict.denied_by else "yes")
        for rule in verdict.denied_by:
            self._count("denials", rule)
        self.histograms["verdict_seconds"].add(verdict.seconds)

    def _client_joined(self, joined: ClientJoined) -> None:
        self._count("clients_joined", joined.dialect)
        self.clients += 1

    def _client_left(self, _: ClientLeft) -> None:
        self.clients -= 1

    def _file_moved(self, moved: FileMoved) -> None:
        self._count("files_moved", moved.direction.value)
        self._count("file_bytes", moved.direction.value, by=moved.size_bytes)
