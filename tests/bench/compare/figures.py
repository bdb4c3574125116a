"""What the comparison keeps: figures, each with samples by contender, and by size where it has an axis. As JSON, as a
text to read on a terminal, and as the table of the README. Uses the standard library alone, and measures nothing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["OURS", "Comparison", "Figure", "Spread", "as_markdown", "as_text"]

OURS = "Cellgate"  # with the driver native; whom ratios are to


@dataclass(frozen=True)
class Spread:
    """Samples, told as people ask for them."""

    median: float
    low: float  # the quartiles: half of the samples lie between
    high: float
    count: int

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        twice = samples if len(samples) > 1 else [*samples, *samples]
        low, median, high = statistics.quantiles(twice, n=4, method="inclusive")
        return Spread(median, low, high, len(samples))


@dataclass
class Figure:
    """`samples` by contender and size; size 0 where there is no axis. `notes` by contender, or for all under ''."""

    name: str
    title: str
    unit: str
    axis: str = ""
    more_is_better: bool = False
    samples: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, contender: str, *samples: float, at: int = 0) -> None:
        kept = self.samples.setdefault(contender, {}).setdefault(at, [])
        kept += [float(f"{sample:.5g}") for sample in samples]

    def sizes(self) -> list[int]:
        return sorted({at for sizes in self.samples.values() for at in sizes})

    def spread(self, contender: str, at: int = 0) -> Spread | None:
        samples = self.samples.get(contender, {}).get(at)
        return Spread.of(samples) if samples else None

    def ratio(self, contender: str, at: int = 0) -> float | None:
        """How many times better ours is than that of the contender, by the medians of one run."""
        ours, theirs = self.spread(OURS, at), self.spread(contender, at)
        if contender == OURS or not ours or not theirs or not ours.median or not theirs.median:
            return None
        return ours.median / theirs.median if self.more_is_better else theirs.median / ours.median


@dataclass
class Comparison:
    """`made`: when, how and where; `contenders`: what each is, in words, with `absent` told why."""

    made: dict[str, Any]
    versions: dict[str, str]
    contenders: dict[str, str]
    absent: dict[str, str] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Comparison:
        kept = json.loads(path.read_text())
        for figure in kept["figures"]:
            figure["samples"] = {
                name: {int(at): samples for at, samples in sizes.items()} for name, sizes in figure["samples"].items()
            }
        return Comparison(**{**kept, "figures": [Figure(**figure) for figure in kept["figures"]]})

    def figure(self, name: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.name == name), None)


# -- showing ---------------------------------------------------------------------------------------------------------


def as_text(figure: Figure) -> str:
    """A table for a terminal: medians, quartiles, how many times better ours is, the number of samples."""
    lines: list[tuple[str, ...]] = [("", figure.axis, "median", "quartiles", "ratio", "n")]
    lines += [_line(figure, name, at) for name, sizes in figure.samples.items() for at in sizes]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    better = "more" if figure.more_is_better else "less"
    told = [f"\n{figure.title}, {figure.unit}; {better} is better"]
    told += ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    return "\n".join(told + [f"  {name or 'all'}: {note}" for name, note in figure.notes.items()])


def _line(figure: Figure, name: str, at: int) -> tuple[str, ...]:
    spread = figure.spread(name, at)
    if not spread:
        return (name, "", "", "", "", "0")
    quartiles = f"{number(spread.low)}-{number(spread.high)}"
    size = f"{at:,}" if figure.axis else ""
    return (name, size, number(spread.median), quartiles, times(figure.ratio(name, at)), str(spread.count))


# What the README shows of a comparison: the figure, its size, and in whose words.
SHOWN = (
    ("start", 0, "start: POST to the first answer"),
    ("start_pooled", 0, "the same, from a pool"),
    ("warm", 0, "warm `1+1`, client as it is"),
    ("warm_quick", 0, "warm `1+1`, client acknowledges at once"),
    ("concurrency", 1, "`1+1` in 1 session"),
    ("concurrency", 10, "`1+1` in 10 sessions"),
    ("concurrency", 50, "`1+1` in 50 sessions"),
    ("lines", 10_000, "10,000 flushed lines"),
    ("bytes", 100, "100 MB of text"),
    ("images", 100, "100 images of 100 KB"),
    ("gateway_cpu", 10_000, "gateway's CPU for each line"),
    ("memory", 1, "memory of 1 session"),
    ("memory", 100, "memory of each of 100 sessions"),
    ("memory", 500, "memory of each of 500"),
    ("memory", 1000, "memory of each of 1,000"),
    ("interrupt", 0, "interrupt to the cell's end"),
    ("kernel_killed_told", 0, "kernel killed: its cell has an end"),
    ("kernel_killed", 0, "kernel killed: the next cell is answered"),
    ("gateway_killed", 0, "gateway killed: the next cell is answered"),
)


def as_markdown(comparison: Comparison) -> str:
    """The table of the README: medians, and beside each how many times better ours is."""
    names = [name for name in comparison.contenders if any(name in figure.samples for figure in comparison.figures)]
    lines = [conditions(comparison), "", f"| | unit | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for wanted, at, words in SHOWN:
        figure = comparison.figure(wanted)
        if figure and at in figure.sizes():
            cells = " | ".join(_cell(figure, name, at) for name in names)
            lines.append(f"| {words} | {figure.unit} | {cells} |")
    return "\n".join(lines) + "\n"


def conditions(comparison: Comparison) -> str:
    """What a reader must know to judge the figures, in a sentence."""
    made = comparison.made
    host = f"{made['cores']} cores of {made['processor']} with {made['memory_gb']} GB, Linux {made['kernel']}"
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    return (
        f"`{made['how']}` on {made['on']}: {host}, Python {made['python']}, load {made['load']} before and "
        f"{made['load_after']} after. {versions}."
    )


def _cell(figure: Figure, name: str, at: int) -> str:
    spread = figure.spread(name, at)
    if not spread:
        return "never" if name in figure.notes and "never" in figure.notes[name] else "-"
    ratio = figure.ratio(name, at)
    told = f"**{number(spread.median)}**" if name == OURS else number(spread.median)
    return f"{told} ({times(ratio)})" if ratio else told


def number(value: float) -> str:
    """Three digits, which is more than a second run would repeat."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x"


def listed(comparison: Comparison) -> Iterable[str]:
    """Who takes part, who does not and why, and in which versions."""
    yield from (f"{name}: {what}" for name, what in comparison.contenders.items())
    yield from (f"{name}: absent, {why}" for name, why in comparison.absent.items())
    yield ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
