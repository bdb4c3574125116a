"""What an examination found, as data, as JSON and as a table. Pure: nothing is measured or judged here.

The ids of findings, the marks, the tiers and the names in the JSON are a promise to programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from textwrap import wrap

__all__ = ["Finding", "Mark", "Report", "Standing", "Tier", "Unavailable", "render", "to_json", "worst"]


class Mark(str, Enum):
    """Whether a layer holds."""

    HOLDS = "holds"
    WEAKER = "weaker"  # it holds, but less than on a host that has everything
    MISSING = "missing"
    UNKNOWN = "unknown"  # it could not be measured


class Tier(str, Enum):
    """What a sandbox is good for, when all that its driver promises holds."""

    OWN_KERNEL = "own_kernel"
    UNTRUSTED = "untrusted"
    TRUSTED = "trusted"
    NONE = "none"

    @property
    def promise(self) -> str:
        return _PROMISES[self]


_PROMISES = {
    Tier.OWN_KERNEL: "contains untrusted code behind a kernel of its own, and that one behind the host's",
    Tier.UNTRUSTED: "contains untrusted code, as long as the host's Linux kernel has no bug that it can reach",
    Tier.TRUSTED: "limits some of what trusted code may use up, and contains nothing",
    Tier.NONE: "promises nothing until that is mended; do not run untrusted code in it",
}


class Standing(str, Enum):
    """The whole of a report in one word."""

    OK = "ok"
    MISSING = "missing"
    UNMEASURED = "unmeasured"


@dataclass(frozen=True)
class Finding:
    """One layer, as one driver has it."""

    id: str  # layer.name
    title: str  # what is expected, in words that make a row of the table
    promised: bool  # by this driver
    mark: Mark
    seen: str
    remedy: str

    @property
    def layer(self) -> str:
        return self.id.partition(".")[0]

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "layer": self.layer,
            "title": self.title,
            "promised": self.promised,
            "mark": self.mark.value,
            "seen": self.seen,
            "remedy": self.remedy if self.mark is not Mark.HOLDS else None,
        }


@dataclass(frozen=True)
class Unavailable:
    """Why there is no sandbox to look around in, and what to do."""

    code: str
    missing: str
    remedy: str


@dataclass(frozen=True)
class Report:
    """What one driver was found to give on this host."""

    driver: str
    full_tier: Tier  # what it is when everything promised holds
    findings: tuple[Finding, ...]
    facts: Mapping[str, str] = field(default_factory=dict)  # versions and the like, by name
    caveats: tuple[str, ...] = ()  # what this driver never promises
    unavailable: Unavailable | None = None
    seconds: float = 0.0
    runtime: str = ""  # of containers, as the engine knows it: two of one driver are told apart by it

    @property
    def column(self) -> str:
        return self.runtime or self.driver

    def promised(self, mark: Mark) -> list[Finding]:
        return [finding for finding in self.findings if finding.promised and finding.mark is mark]

    @property
    def standing(self) -> Standing:
        if self.promised(Mark.MISSING):
            return Standing.MISSING
        return Standing.UNMEASURED if self.unavailable or self.promised(Mark.UNKNOWN) else Standing.OK

    @property
    def tier(self) -> Tier:
        """The measured one. What is missing or unmeasured is promised to nobody."""
        return self.full_tier if self.standing is Standing.OK else Tier.NONE

    @property
    def verdict(self) -> str:
        """One sentence or two."""
        if self.unavailable:
            return f"{self.column}: cannot run here: {self.unavailable.missing}; {self.unavailable.remedy}."
        missing, unknown, weaker = (len(self.promised(mark)) for mark in (Mark.MISSING, Mark.UNKNOWN, Mark.WEAKER))
        if missing:
            how = f"{missing} of {sum(f.promised for f in self.findings)} promised layers missing"
        elif unknown:
            how = f"{unknown} promised layers could not be measured"
        else:
            how = "all that it promises holds" + (
                f", {weaker} weaker than on a host that has everything" if weaker else ""
            )
        return f"{self.column}: {how}. Tier {self.tier.value}: it {self.tier.promise}."

    def to_json(self) -> dict[str, object]:
        return {
            "driver": self.driver,
            "runtime": self.runtime,
            "standing": self.standing.value,
            "tier": self.tier.value,
            "tier_promise": self.tier.promise,
            "verdict": self.verdict,
            "unavailable": self.unavailable and vars(self.unavailable),
            "facts": dict(self.facts),
            "findings": [finding.to_json() for finding in self.findings],
            "caveats": list(self.caveats),
            "seconds": round(self.seconds, 3),
        }


def worst(reports: Sequence[Report]) -> Standing:
    """Of several: a layer that is surely missing comes before one that may be."""
    standings = {report.standing for report in reports}
    return next((s for s in (Standing.MISSING, Standing.UNMEASURED) if s in standings), Standing.OK)


def to_json(reports: Sequence[Report]) -> dict[str, object]:
    return {"standing": worst(reports).value, "reports": [report.to_json() for report in reports]}


# -- the table ---------------------------------------------------------------------------------------

# (is it promised, the mark) -> what the table says
_WORDS: Mapping[tuple[bool, Mark], str] = {
    (True, Mark.HOLDS): "ok",
    (True, Mark.WEAKER): "weaker",
    (True, Mark.MISSING): "MISSING",
    (True, Mark.UNKNOWN): "unknown",
    (False, Mark.HOLDS): "(ok)",
    (False, Mark.WEAKER): "(weaker)",
    (False, Mark.MISSING): "-",
    (False, Mark.UNKNOWN): "?",
}
_COLOURS = {"ok": "32", "weaker": "33", "unknown": "33", "MISSING": "1;31"}
LEGEND = "In brackets: not promised, but so here.  - neither promised nor there.  ? not promised, not measured."
MIN_WIDTH, MAX_WIDTH = 80, 100
_TITLE_WIDTH = 44
_MARK_WIDTH = 10


def render(reports: Sequence[Report], *, width: int = MAX_WIDTH, colour: bool = False) -> str:
    """One row for each finding, one column for each driver; beside a single driver what was seen. Then what is not
    as it should be, with its remedy, and a verdict for each driver. One that cannot run here has no column beside
    others that can."""
    width = max(MIN_WIDTH, min(width, MAX_WIDTH))
    columns = [report for report in reports if not report.unavailable] or reports
    return "\n".join((*_table(columns, width, colour), *_trouble(reports, width), *_verdicts(reports, width))) + "\n"


def _table(reports: Sequence[Report], width: int, colour: bool) -> Iterator[str]:
    by_id = [{finding.id: finding for finding in report.findings} for report in reports]
    rows = {finding.id: finding for findings in by_id for finding in findings.values()}
    yield from wrap("; ".join(f"{name} {value}" for name, value in _shared_facts(reports).items()), width)
    yield f"{'':{_TITLE_WIDTH}}" + "".join(f"{report.column:{_MARK_WIDTH}}" for report in reports).rstrip()
    layer = ""
    for row in rows.values():
        if row.layer != layer:
            layer = row.layer
            yield layer.replace("_", " ")
        line = f"{'  ' + row.title:{_TITLE_WIDTH}}"
        for findings in by_id:
            word = _WORDS[findings[row.id].promised, findings[row.id].mark] if row.id in findings else ""
            painted = f"\x1b[{_COLOURS[word]}m{word}\x1b[0m" if colour and word in _COLOURS else word
            line += painted + " " * max(1, _MARK_WIDTH - len(word))
        if len(reports) == 1:
            line += _cut(row.seen, width - _TITLE_WIDTH - _MARK_WIDTH)
        yield line.rstrip()
    if any(not finding.promised for findings in by_id for finding in findings.values()):
        yield from wrap(LEGEND, width)


def _trouble(reports: Sequence[Report], width: int) -> Iterator[str]:
    for report in reports:
        for mark in (Mark.MISSING, Mark.UNKNOWN, Mark.WEAKER):
            for finding in report.promised(mark):
                yield ""
                yield f"{mark.value} in {report.column}: {finding.title} ({finding.id})"
                for name, text in (("seen", finding.seen), ("remedy", finding.remedy)):
                    indent = f"  {name + ':':8}"
                    yield from wrap(text, width, initial_indent=indent, subsequent_indent=" " * len(indent))


def _verdicts(reports: Sequence[Report], width: int) -> Iterator[str]:
    shared = _shared_facts(reports)
    for report in reports:
        yield ""
        own = "; ".join(f"{name} {value}" for name, value in report.facts.items() if name not in shared)
        yield from wrap(report.verdict + (f" ({own})" if own else ""), width)
        for caveat in report.caveats:
            yield from wrap(caveat, width, initial_indent="  not promised: ", subsequent_indent="    ")


def _shared_facts(reports: Sequence[Report]) -> dict[str, str]:
    """Those that are the same in every report."""
    first, *others = (report.facts.items() for report in reports)
    return {name: value for name, value in first if all((name, value) in facts for facts in others)}


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
