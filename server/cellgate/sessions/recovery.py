"""What a gateway that starts has to do about the sessions of the one before: decided from what the registry, the
journals and the driver each say, which a death between any two instructions may have left apart.

    registry row  journal      sandbox    so
    gone          any          any        clear it away: a deletion was under way
    starting, 0   any          any        clear it away: whoever asked for it was never answered
    any           same number  its own    adopt
    any           else         any        go on without a kernel: end the cells it had, start another

A sandbox that no session adopts is ended. Pure; whoever calls it does what it says.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from cellgate.sessions.journal import Recovery
from cellgate.sessions.registry import SessionRow
from cellgate.sessions.states import State

__all__ = ["Decision", "Fate", "Plan", "born_at", "decide", "newest_incarnation"]


class Fate(str, Enum):
    """Of a session that a former gateway had."""

    ADOPT = "adopt"  # its kernel lives: `Session.recover`, attach, `Session.adopted`
    WITHOUT_KERNEL = "without_kernel"  # `Session.recover`, `Session.kernel_lost`
    CLEAR_AWAY = "clear_away"  # delete its journal, then its row


@dataclass(frozen=True)
class Decision:
    row: SessionRow  # as `Session.recover` shall take it
    fate: Fate


@dataclass(frozen=True)
class Plan:
    decisions: tuple[Decision, ...]
    orphans: tuple[str, ...]  # sandboxes to destroy, before any session starts another
    stray_journals: tuple[str, ...]  # of sessions that the registry does not know


def decide(rows: Sequence[SessionRow], incarnations: Mapping[str, int | None], living: Collection[str]) -> Plan:
    """`incarnations`: of each journal that is there, the newest it tells of, or None. `living`: ids of sandboxes."""
    decisions = tuple(_decide(row, incarnations.get(row.id), living) for row in rows)
    adopted = {decision.row.sandbox_id for decision in decisions if decision.fate is Fate.ADOPT}
    known = {row.id for row in rows}
    return Plan(
        decisions,
        orphans=tuple(sorted(set(living) - adopted)),
        stray_journals=tuple(sorted(set(incarnations) - known)),
    )


def _decide(row: SessionRow, told: int | None, living: Collection[str]) -> Decision:
    if row.state is State.GONE or row.incarnation == 0:
        return Decision(row, Fate.CLEAR_AWAY)
    has_kernel = row.state not in (State.STARTING, State.RESTARTING, State.DEAD)
    if has_kernel and told == row.incarnation and row.sandbox_id in living:
        return Decision(row, Fate.ADOPT)
    if told is not None and told > row.incarnation:  # it died between telling of the next kernel and saving it
        row = replace(row, state=State.RESTARTING, incarnation=told)
    return Decision(replace(row, sandbox_id=""), Fate.WITHOUT_KERNEL)


def newest_incarnation(found: Recovery) -> int | None:
    """What a journal says of it."""
    if found.incarnation is None:
        return None
    try:
        body = json.loads(bytes(found.incarnation.body))
        number = body["incarnation"]
    except (ValueError, KeyError, TypeError):
        return None
    return number if type(number) is int and number > 0 else None


def born_at(row: SessionRow, *, boot_id: str, monotonic: float, wall: float, now: float) -> float:
    """When the session began, on the clock of which `now` is the time. Across a reboot only the wall clock knows,
    which somebody may have set."""
    age = monotonic - row.created_monotonic if row.boot_id == boot_id else wall - row.created
    return now - max(0.0, age)
