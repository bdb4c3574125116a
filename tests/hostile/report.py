"""What a run of the suite says of each row of `rows.py` over each driver, as a table. Pure: outcomes in, Markdown out.

Attacks on whole servers have no driver in their names: they are tried over native sandboxes, and stand in that column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.hostile.differences import DIFFERENCES, left_out
from tests.hostile.rows import Row

__all__ = ["COLUMNS", "Case", "Outcome", "driver_of", "render", "told_of"]

COLUMNS = {"native": "native", "docker": "docker, runc", "docker-runsc": "docker, gVisor"}
KINDS = ("failed", "passed", "not applicable", "not tried")  # of rows; what is said first counts


@dataclass(frozen=True)
class Case:
    """One test as it ran, or one of its parameters."""

    test: str
    driver: str
    outcome: str  # of pytest's: passed, failed, skipped
    reason: str = ""  # why it was skipped


@dataclass
class Outcome:
    """Of one row over one driver."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)  # by test, why

    @property
    def kind(self) -> str:
        """Where some of its tests apply and others do not, those count that do."""
        found = {"failed": self.failed, "passed": self.passed, "not applicable": self.not_applicable}
        return next((kind for kind in KINDS if found.get(kind)), KINDS[-1])

    def __str__(self) -> str:
        if self.failed:
            return f"FAIL: {', '.join(f'`{name}`' for name in sorted(set(self.failed)))}"
        told = [f"pass ({self.passed})"] if self.passed else []
        told += sorted({f"n/a: {reason}" for reason in self.not_applicable.values()})
        return "; ".join(told) or "-"


def driver_of(name: str) -> str:
    """By the parameters of a test's name."""
    inside = name.partition("[")[2].removesuffix("]")
    known = sorted(DIFFERENCES, key=len, reverse=True)
    return next((driver for driver in known if inside == driver or inside.startswith(f"{driver}-")), "native")


def told_of(row: Row, driver: str, cases: Iterable[Case]) -> Outcome:
    outcome = Outcome()
    for case in cases:
        if case.test.partition("[")[0] in row.shown_by and case.driver == driver:
            if case.outcome == "passed":
                outcome.passed += 1
            elif case.outcome == "failed":
                outcome.failed.append(case.test)
            else:
                outcome.not_applicable[case.test] = case.reason
    for test in row.shown_by:
        if reason := left_out(driver, test):
            outcome.not_applicable[test] = reason
    return outcome


def render(rows: Sequence[Row], drivers: Sequence[str], cases: Sequence[Case], conditions: Mapping[str, str]) -> str:
    """The report. Every row is in it, also one that nothing shows."""
    told = {(row.id, driver): told_of(row, driver, cases) for row in rows for driver in drivers}
    counts = {driver: Counter(told[row.id, driver].kind for row in rows) for driver in drivers}
    lines = [
        "# What was withstood",
        "",
        "Made by `python -m tests.hostile`, which runs the tests that `rows.py` names; do not edit. In brackets: how",
        "many cases passed. n/a: what does not apply to a driver, and what holds there. `-`: an attack on servers,",
        "which is tried over native sandboxes, or one that no test tries, for the reason that stands below.",
        "",
        *(f"- {name}: {value}" for name, value in conditions.items()),
        *(f"- {COLUMNS[driver]}: {_spelled(counts[driver])}" for driver in drivers),
        "",
        f"| | attack | {' | '.join(COLUMNS[driver] for driver in drivers)} |",
        f"|---|---|{'---|' * len(drivers)}",
        *(f"| {row.id} | {row.stands_for} | {' | '.join(str(told[row.id, d]) for d in drivers)} |" for row in rows),
        "",
        "## What is not shown",
        "",
        *(f"- **{row.id}**, {row.stands_for}: {row.left_out}." for row in rows if row.left_out),
    ]
    return "\n".join([*lines, ""])


def _spelled(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[kind]} rows {kind}" for kind in KINDS)
