"""What in a session waits for a verdict before the kernel may have it. Decides what is to be judged next, and how a
verdict is told; what a verdict says, and who gives it, is none of its business. Pure.

A cell that waits keeps its place in the queue meanwhile: so cells run in the order in which they came, and one that
fails or is denied takes along what stands behind it, however long each verdict took. What overtakes cells waits in a
lane of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from cellgate.errors import PolicyError
from cellgate.policy.verdicts import Finding, Severity, Verdict, as_traceback
from cellgate.sessions.cells import Cell, Judgement, Waiting
from cellgate.sessions.states import Phase
from cellgate.terminal import one_line
from cellgate.wire.jupyter import ClientMessage

__all__ = ["Denial", "Docket", "Warner", "permit"]

MAX_WARNED = 1000  # different warnings of one session; who has seen so many reads no more of them
MAX_SHOWN = 3  # of one cell, in the line that people read; programs get all


@dataclass
class _Lane:
    items: deque[Cell | Waiting] = field(default_factory=deque)
    is_asked: bool = False  # for its first


class Docket:
    """Of each of its two lanes one is judged at a time: a burst of cells is no reason to keep other sessions waiting,
    and the kernel runs them one by one too."""

    def __init__(self) -> None:
        self._lanes = {False: _Lane(), True: _Lane()}

    @property
    def overtaking(self) -> Collection[Cell | Waiting]:
        """What waits that has no place in the queue."""
        return self._lanes[True].items

    def add(self, item: Cell | Waiting) -> None:
        self._lanes[item.overtakes].items.append(item)

    def due(self) -> Iterator[Cell | Waiting]:
        """What is to be judged now; each is told once."""
        for lane in self._lanes.values():
            while lane.items and not lane.is_asked:
                first = lane.items[0]
                if isinstance(first, Cell) and first.phase is Phase.DONE:  # it was cancelled
                    lane.items.popleft()
                    continue
                lane.is_asked = True
                yield first

    def take(self, item: Cell | Waiting) -> bool:
        """Its verdict is there. Whether it is still waited for."""
        lane = self._lanes[item.overtakes]
        if not lane.items or lane.items[0] is not item:
            return False
        lane.items.popleft()
        lane.is_asked = False
        return True

    def clear(self) -> list[Waiting]:
        """No verdict is waited for any more. Returns what has no place in the queue, and is answered by nobody."""
        left = [item for item in self._lanes[True].items if isinstance(item, Waiting)]
        self._lanes = {False: _Lane(), True: _Lane()}
        return left


def permit(judgement: Judgement) -> Verdict | None:
    """The verdict, if it lets pass. What could not be judged does not."""
    return judgement if isinstance(judgement, Verdict) and judgement.allowed else None


@dataclass(frozen=True)
class Denial:
    """How it is told that something was not done."""

    sentence: str
    facts: Mapping[str, object]
    traceback: tuple[str, ...] = ()

    @staticmethod
    def of(judgement: Judgement, message: ClientMessage) -> Denial:
        if isinstance(judgement, PolicyError):
            return Denial(judgement.text(), {"error": judgement.code, "findings": [], "more": 0})
        first = judgement.of(Severity.DENY)[0]  # there is one, else it were allowed
        said = judgement.to_json()
        facts = {name: said[name] for name in ("policy", "findings", "more")}
        if message.msg_type != "execute_request":
            return Denial(f"{_told(first)}; {first.hint}", facts)
        code = str(message.content.get("code", ""))
        return Denial(f"{_told(first)}; {first.hint}", facts, tuple(as_traceback(judgement, code)))


class Warner:
    """Says of allowed cells what will hardly do what is wanted; the same thing once in a session."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def note(self, verdict: Verdict) -> tuple[str, Mapping[str, object]] | None:
        """A line for people, and facts for programs; nothing if all was told before."""
        new: list[Finding] = []
        for finding in verdict.of(Severity.WARN):
            about = finding.rule, finding.seen
            if about not in self._told and len(self._told) < MAX_WARNED:
                self._told.add(about)
                new.append(finding)
        if not new:
            return None
        text = ". ".join(_told(finding) for finding in new[:MAX_SHOWN])
        text += f". And {len(new) - MAX_SHOWN} more" if len(new) > MAX_SHOWN else f"; {one_line(new[-1].hint)}"
        findings = [finding.to_json() for finding in new]
        return text, {"note": "policy_warnings", "policy": verdict.policy, "findings": findings}


def _told(finding: Finding) -> str:
    part = "" if finding.part == "code" else f"{finding.part}, "
    return one_line(f"{part}line {finding.line}: {finding.message}")
