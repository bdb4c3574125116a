"""What is said of a piece of code: findings, each with its place, and whether it may run. Also how that is told: to
programs as JSON, to people as a compiler would. Pure data; decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum

from cellgate.terminal import one_line

__all__ = ["MAX_FINDINGS", "Finding", "Metrics", "Severity", "Verdict", "as_compiler_output", "as_traceback"]

MAX_FINDINGS = 100  # nobody reads more; the rest is counted
MAX_SHOWN_CHARS = 160  # of a line of code under which a caret stands
SHOWN_FINDINGS = 10  # in a traceback: a screen


class Severity(str, Enum):
    """What a finding means for the code."""

    DENY = "deny"  # it does not run
    WARN = "warn"  # it runs, and will hardly do what was wanted
    NOTE = "note"  # worth knowing

    @property
    def rank(self) -> int:
        """The more severe, the higher."""
        return {Severity.NOTE: 1, Severity.WARN: 2, Severity.DENY: 3}[self]


@dataclass(frozen=True)
class Finding:
    """One thing that a rule has to say. Lines count from 1, columns from 0 and in characters, as in `facts.Place`."""

    rule: str
    severity: Severity
    line: int
    column: int
    end_line: int
    end_column: int
    seen: str  # the name as it was resolved: "os.system", whatever it is called in the code
    message: str  # what was seen and what it does, in a sentence without a full stop
    hint: str  # what would pass
    part: str = "code"  # of a message that has several: "user_expressions.x"

    def to_json(self) -> dict[str, object]:
        return {**vars(self), "severity": self.severity.value}


@dataclass(frozen=True)
class Metrics:
    """How large what was judged is."""

    code_bytes: int = 0
    nodes: int = 0  # of the syntax trees that were walked: none, if the words of the code told all
    depth: int = 0


@dataclass(frozen=True)
class Verdict:
    """Whether it may run, and why not."""

    allowed: bool = True
    findings: tuple[Finding, ...] = ()
    metrics: Metrics = field(default_factory=Metrics)
    policy: str = ""
    more: int = 0  # findings beyond MAX_FINDINGS that are not told; the severest are

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is severity)

    def to_json(self) -> dict[str, object]:
        """The names are a promise to programs."""
        return {
            "allowed": self.allowed,
            "policy": self.policy,
            "findings": [finding.to_json() for finding in self.findings],
            "more": self.more,
            "metrics": asdict(self.metrics),
        }


def as_traceback(verdict: Verdict, code: str) -> list[str]:
    """Lines for a Jupyter client that shows an error's traceback: what was denied, where, and what would pass."""
    denied = verdict.of(Severity.DENY)
    count = f"{len(denied)} finding{'s' if len(denied) != 1 else ''}"
    lines = [f"This cell was not run: {count} of the policy {verdict.policy!r}.", ""]
    for finding in denied[:SHOWN_FINDINGS]:
        lines.append(f"deny[{finding.rule}] {_place(finding)}: {finding.message}")
        lines.extend(_quoted(finding, code))
        lines.extend([f"    {finding.hint}", ""])
    if len(denied) > SHOWN_FINDINGS or verdict.more:
        lines.append(f"and {len(denied) - min(len(denied), SHOWN_FINDINGS) + verdict.more} more")
    return lines


def as_compiler_output(verdict: Verdict, code: str, name: str) -> str:
    """`name:line:column: severity[rule]: message` for each finding, columns from 1 as editors count them."""
    lines: list[str] = []
    for finding in verdict.findings:
        where = f"{one_line(name)}:{finding.line}:{finding.column + 1}"
        lines.append(f"{where}: {finding.severity.value}[{finding.rule}]: {finding.message}")
        lines.extend(_quoted(finding, code))
        lines.append(f"    {finding.hint}")
    if verdict.more:
        lines.append(f"{one_line(name)}: and {verdict.more} more")
    return "".join(line + "\n" for line in lines)


def _place(finding: Finding) -> str:
    part = "" if finding.part == "code" else f"{one_line(finding.part)}, "
    return f"{part}line {finding.line}"


def _quoted(finding: Finding, code: str) -> Iterator[str]:
    """The line of code with a caret under what is meant; the two align because both hold plain characters only."""
    lines = code.split("\n")
    if finding.part != "code" or not 0 < finding.line <= len(lines):
        return
    text = lines[finding.line - 1]
    end = finding.end_column if finding.end_line == finding.line else len(text)
    start = max(0, finding.column - MAX_SHOWN_CHARS // 2)
    before, meant = one_line(text[start : finding.column]), one_line(text[finding.column : end])
    shown = before + one_line(text[finding.column : start + MAX_SHOWN_CHARS])
    yield "    " + shown
    yield "    " + " " * len(before) + "^" * max(1, min(len(meant), MAX_SHOWN_CHARS - len(before)))
