"""What the benches share: rows of samples, taken by turns, as a table or as JSON. Knows no kernel."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

__all__ = [
    "Counts",
    "Row",
    "as_json",
    "as_table",
    "conditions",
    "cpu_seconds",
    "interleave",
    "resident_megabytes",
    "seconds_of",
]


@dataclass(frozen=True)
class Counts:
    """How often a bench does what it measures: to be quoted, for a first look, and only to see that it runs."""

    full: int
    quick: int
    tiny: int


@dataclass(frozen=True)
class Row:
    """One figure: our samples and a peer's, from the same run. Either may be missing."""

    what: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float] = ()
    more_is_better: bool = False
    target: Mapping[str, float] = field(default_factory=dict)  # of p50, p95 or ratio
    note: str = ""

    def summary(self) -> dict[str, float | None]:
        ours, peer = self._at(self.ours, 0.5), self._at(self.peer, 0.5)
        ratio = None
        if ours and peer:
            ratio = ours / peer if self.more_is_better else peer / ours
        return {
            "p50": ours,
            "p95": self._at(self.ours, 0.95),
            "peer p50": peer,
            "peer p95": self._at(self.peer, 0.95),
            "ratio": ratio,
        }

    def misses(self) -> list[str]:
        """The targets that were not met, in words."""
        summary = self.summary()
        found = []
        for name, target in self.target.items():
            value = summary[name]
            is_floor = name == "ratio" or self.more_is_better
            if value is not None and (value < target if is_floor else value > target):
                found.append(f"{name} {value:.3g}, target {target:g}")
        return found

    def _at(self, samples: Sequence[float], part: float) -> float | None:
        """What this part of the samples is as good as, or better than."""
        if not samples:
            return None
        ordered = sorted(samples, reverse=self.more_is_better)
        return ordered[math.ceil(len(ordered) * part) - 1]


async def interleave(rounds: int, *turns: Callable[[], Awaitable[None]], warm_up: int = 0) -> None:
    """Give each a turn, `rounds` times over, beginning with another one each time: whatever else goes on upon the
    machine meets all alike."""
    for index in range(-warm_up, rounds):
        for turn in range(len(turns)):
            await turns[(index + turn) % len(turns)]()


async def seconds_of(work: Awaitable[object]) -> float:
    begin = perf_counter()
    await work
    return perf_counter() - begin


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of the living threads of these processes; the clock ticks of /proc/PID/stat are too coarse."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_megabytes(pids: Iterable[int]) -> float:
    return (
        sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE") / 1e6
    )


def conditions() -> dict[str, Any]:
    """What a reader must know to judge a figure."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
    }


# -- showing -------------------------------------------------------------------------------------------

COLUMNS = ("what", "unit", "p50", "p95", "peer p50", "peer p95", "ratio", "n", "target")


def as_table(title: str, rows: Sequence[Row]) -> str:
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
    texts = [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    ]
    notes = [f"  {row.what}: {row.note}" for row in rows if row.note]
    return "\n".join([title, texts[0], "-" * len(texts[0]), *texts[1:], *notes])


def _cells(row: Row) -> tuple[str, ...]:
    values = [_short(value) for value in row.summary().values()]
    count = f"{len(row.ours)}/{len(row.peer)}" if row.peer else str(len(row.ours))
    target = ("missed" if row.misses() else "met") if row.target and row.ours else ""
    wanted = " ".join(f"{name} {value:g}" for name, value in row.target.items())
    return (row.what, row.unit, *values, count, f"{wanted}: {target}" if target else "")


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "what": row.what,
            "unit": row.unit,
            "more_is_better": row.more_is_better,
            **{name.replace(" ", "_"): value for name, value in row.summary().items()},
            "samples": len(row.ours),
            "peer_samples": len(row.peer),
            "target": dict(row.target),
            "misses": row.misses(),
            "note": row.note,
        }
        for row in rows
    ]
