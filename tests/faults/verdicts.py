"""Whether what the owner of a session was told is what the faults that struck it allow. Pure: histories in, faults out.

Where `history.py` wants every cell to end well, here a cell may fail, if something struck since the last that did not
which explains the reason that is given. What was printed must be whole (or, of a cell that failed, whole up to its
end), and variables must be as they were wherever nothing struck that costs them. Histories are plain data, which is
kept as JSON, so that a verdict can be had again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.history import Tally

__all__ = ["EXPLAINS", "LOSES_VARIABLES", "History", "Strike", "Told", "check_history", "recoveries"]

# What a cell may end with, beside "ok", by what struck. Those that wait are cancelled when their kernel ends, or
# the cell before them fails.
EXPLAINS: Mapping[str, frozenset[str]] = {
    "drop": frozenset(),
    "stall": frozenset(),
    "hangup": frozenset(),
    "gateway_kill": frozenset(),
    "gateway_stop": frozenset(),
    "disk_full": frozenset({"backend_error"}),
    "interrupt": frozenset({"interrupted"}),
    "restart": frozenset({"cancelled"}),
    "kernel_kill": frozenset({"kernel_signal", "cancelled"}),
    "warden_kill": frozenset({"supervisor_lost", "cancelled"}),
}
IPYTHONS_OWN = (
    "Unexpected exception formatting exception"  # on stdout, when an interrupt meets a traceback in the making
)
LOSES_VARIABLES = frozenset({"restart", "kernel_kill", "warden_kill"})


@dataclass(frozen=True)
class Strike:
    """A fault, from when it began until it was over, in seconds of the round."""

    what: str
    session: str  # its nonce; "" for all
    at: float
    until: float

    def met(self, nonce: str) -> bool:
        return self.session in ("", nonce)


@dataclass(frozen=True)
class Told:
    """One cell, as its owner was told of it."""

    id: str
    number: int  # from 0 on, in the order in which they were asked for
    lines: int
    asked_at: float
    ended_at: float | None  # None: it never did
    began: int  # how many times it was told so; that it ended, too
    replied: int
    idled: int
    status: str
    reason: str
    text: str

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class History:
    """Of one session. Accepted and ended are counted in its journal, by the ids of cells."""

    nonce: str
    cells: Sequence[Told]
    ran: Sequence[int]  # numbers of cells, in the order in which they began
    came_twice: Sequence[str] = ()  # messages that its owner saw again, though it had named what it saw last
    accepted: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    watchers: Sequence[str] = ()  # what others found missing or doubled, a sentence each

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> History:
        return History(**{**given, "cells": [Told(**cell) for cell in given["cells"]]})


def check_history(history: History, strikes: Sequence[Strike]) -> Tally:
    mine = [strike for strike in strikes if strike.met(history.nonce)]
    tally = Tally(cells=len(history.cells))
    for name in history.came_twice:
        tally.fault(f"{history.nonce}: message {name} came twice")
    for sentence in history.watchers:
        tally.fault(f"{history.nonce}: {sentence}")
    if list(history.ran) != sorted(set(history.ran)):
        tally.fault(f"{history.nonce}: its cells began as {_short(history.ran)}")
    for cell in history.cells:
        _check_end(history, cell, tally)
        _check_text(history, cell, tally)
    _check_reasons(history, mine, tally)
    _check_variables(history, mine, tally)
    return tally


def _check_end(history: History, cell: Told, tally: Tally) -> None:
    """One reply, one idle, one end in the journal. What was refused for want of room may stand in no journal."""
    name = f"{history.nonce}: cell {cell.number} ({cell.reason})"
    if cell.ended_at is None or (cell.replied, cell.idled) != (1, 1):
        tally.fault(f"{name} has {cell.replied} replies and {cell.idled} times idle")
    if cell.began > 1 or (cell.is_ok and not cell.began):
        tally.fault(f"{name} began {cell.began} times")
    accepted, ended = history.accepted.get(cell.id, 0), history.ended.get(cell.id, 0)
    if (accepted, ended) != (1, 1) and not (cell.reason == "backend_error" and accepted == ended == 0):
        tally.fault(f"{name} was accepted {accepted} times and ended {ended} times, by its journal")


def _check_text(history: History, cell: Told, tally: Tally) -> None:
    text = cell.text if cell.is_ok else cell.text.partition(IPYTHONS_OWN)[0]
    came = text.splitlines()
    tally.lines += len(came)
    counter = came[0].rpartition(" ")[2] if came else ""
    wanted = [f"{history.nonce} {cell.number} {i} {counter}" for i in range(cell.lines)]
    whole = "".join(f"{line}\n" for line in wanted)
    if text == whole or (not cell.is_ok and whole.startswith(text)):
        return
    counts = Counter(came)
    seen = len(came) if not cell.is_ok else cell.lines  # of a cell that failed nobody knows how far it came
    lost = sum(counts[line] == 0 for line in wanted[:seen])
    doubled = sum(times - 1 for times in counts.values())
    tally.lost += lost
    tally.doubled += doubled
    tally.fault(f"{history.nonce}: of cell {cell.number} {lost} lines are lost, {doubled} doubled: {_short(came)}")


def _check_reasons(history: History, strikes: Sequence[Strike], tally: Tally) -> None:
    """Each failure has its cause: what struck since the last cell that ended well was asked for."""
    since, before_failed = 0.0, False
    for cell in history.cells:
        if not cell.is_ok and not (before_failed and cell.reason == "cancelled"):
            met = [s for s in strikes if s.until >= since and (cell.ended_at is None or s.at <= cell.ended_at)]
            if not any(cell.reason in EXPLAINS[strike.what] for strike in met):
                struck = sorted({strike.what for strike in met})
                tally.fault(
                    f"{history.nonce}: cell {cell.number} ended as {cell.reason}, which {struck} do not explain"
                )
        if cell.is_ok:
            since = cell.asked_at
        before_failed = not cell.is_ok


def _check_variables(history: History, strikes: Sequence[Strike], tally: Tally) -> None:
    """A counter goes up by one with each cell that runs to its end, and by one or none with each that fails. It begins
    anew where something struck that costs variables, and nowhere else."""
    last: Told | None = None
    well = failed = 0  # cells since the last that showed its counter
    for cell in history.cells:
        well, failed = (well + 1, failed) if cell.is_ok else (well, failed + 1)
        if not cell.is_ok or not (now := _counter(cell)):
            continue
        before = _counter(last) if last else 0
        is_kept = before + well <= now <= before + well + failed
        is_lost = now <= well + failed and any(
            strike.what in LOSES_VARIABLES
            and strike.until >= (last.asked_at if last else 0.0)
            and strike.at <= (cell.ended_at or strike.at)
            for strike in strikes
        )
        if not (is_kept or is_lost):
            tally.fault(f"{history.nonce}: the counter is {now} in cell {cell.number}, and was {before} before")
        last, well, failed = cell, 0, 0


def _counter(cell: Told) -> int:
    """What it printed of it; 0 if it printed nothing that makes sense."""
    word = cell.text.partition("\n")[0].rpartition(" ")[2]
    return int(word) if word.isdecimal() else 0


def _short(things: Iterable[object]) -> str:
    listed = list(things)
    return f"{listed[:5]} … {listed[-5:]}" if len(listed) > 10 else str(listed)


def recoveries(histories: Sequence[History], strikes: Sequence[Strike]) -> dict[str, list[float]]:
    """By fault, the seconds from when each was over until every session that it met had ended another cell well, which
    was asked for after it: the cell's own time is part of it. Strikes behind which none was asked for do not count."""
    found: dict[str, list[float]] = {}
    for strike in strikes:
        waits = [_recovery(history, strike.until) for history in histories if strike.met(history.nonce)]
        known = [seconds for seconds in waits if seconds is not None]
        if known:
            found.setdefault(strike.what, []).append(max(known))
    return found


def _recovery(history: History, over: float) -> float | None:
    ends = [c.ended_at - over for c in history.cells if c.is_ok and c.asked_at >= over and c.ended_at is not None]
    return min(ends, default=None)
