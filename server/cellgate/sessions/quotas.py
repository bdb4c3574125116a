"""What one principal may use of a server, and what it has used today. Pure: facts and the time come in.

What is held (sessions, memory, journals) is counted when it is asked for. What is spent (CPU and wall time) is summed
over a day, which begins at midnight in UTC for everybody, so that what is left, and when there is more, can be told in
a line. Leaves to the manager who asks for what, and to `live/accounts.py` to keep the sums over a restart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cellgate.errors import CellgateError, QuotaUsedUp, TooManySessions
from cellgate.sessions.limits import ServerLimits

__all__ = ["Holding", "Ledger", "Used", "refusal", "seconds_left", "spent_refusal"]

DAY_SECONDS = 86400


@dataclass(frozen=True)
class Holding:
    """Of one principal, now."""

    sessions: int = 0
    memory_bytes: int = 0  # the sum of their limits: what they may come to use
    stored_bytes: int = 0  # by journals, on disk


@dataclass
class Used:
    """By one principal, today."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0  # of cells, those that ran beside each other each for itself


def refusal(
    limits: ServerLimits, holding: Holding, used: Used, *, memory_bytes: int, now: float
) -> CellgateError | None:
    """Why there is no further session, with so much memory, for who holds and has used this. `now` is in seconds since
    1970."""
    if holding.sessions >= limits.sessions_per_principal:
        return TooManySessions(holding.sessions)
    left = limits.memory_bytes_per_principal - holding.memory_bytes
    if memory_bytes > left:
        return QuotaUsedUp("memory_bytes_per_principal", memory_bytes, max(left, 0), "deleting a session makes room")
    if holding.stored_bytes >= limits.stored_bytes_per_principal:
        return QuotaUsedUp("stored_bytes_per_principal", 1, 0, "deleting a session makes room")
    return spent_refusal(limits, used, now)


def spent_refusal(limits: ServerLimits, used: Used, now: float) -> QuotaUsedUp | None:
    """Why nothing more runs today for who has used this."""
    seconds = seconds_left(now)
    for name, spent in (("cpu_seconds_per_day", used.cpu_seconds), ("wall_seconds_per_day", used.wall_seconds)):
        if spent >= getattr(limits, name):
            return QuotaUsedUp(name, 1, 0, f"the day ends in {seconds} s", retry_seconds=seconds)
    return None


def seconds_left(now: float) -> int:
    """Until the day ends."""
    return math.ceil(DAY_SECONDS - now % DAY_SECONDS)


class Ledger:
    """What everybody has used today. A kernel's CPU time is told as a sum since it began: of each the part that was
    counted is known, so that nothing counts twice, whatever is told how often."""

    def __init__(self) -> None:
        self._day = 0
        self._used: dict[str, Used] = {}
        self._counted: dict[str, float] = {}  # CPU seconds, by kernel

    def used(self, principal: str, now: float) -> Used:
        self._turn_to(now)
        return self._used.get(principal) or Used()

    def count_cpu(self, principal: str, kernel: str, total_seconds: float, now: float) -> None:
        """`kernel` names one incarnation of one session."""
        more = total_seconds - self._counted.get(kernel, 0.0)
        if more > 0:
            self._counted[kernel] = total_seconds
            self._of(principal, now).cpu_seconds += more

    def count_wall(self, principal: str, seconds: float, now: float) -> None:
        if seconds > 0:
            self._of(principal, now).wall_seconds += seconds

    def forget_kernel(self, kernel: str) -> None:
        """It has ended, and its last sum was told."""
        self._counted.pop(kernel, None)

    def to_json(self) -> dict[str, object]:
        used = {name: [used.cpu_seconds, used.wall_seconds] for name, used in self._used.items()}
        return {"day": self._day, "used": used, "kernels": self._counted}

    @staticmethod
    def from_json(data: Mapping[str, object]) -> Ledger:
        """What `to_json` made; what makes no sense is left out, and counts as not used."""
        ledger = Ledger()
        day, used, kernels = (data.get(name) for name in ("day", "used", "kernels"))
        if isinstance(day, int) and isinstance(used, dict) and isinstance(kernels, dict):
            ledger._day = day
            ledger._counted = {name: seconds for name, seconds in kernels.items() if _is_number(seconds)}
            for name, spent in used.items():
                if isinstance(spent, list) and len(spent) == 2 and all(map(_is_number, spent)):
                    ledger._used[name] = Used(*spent)
        return ledger

    def _of(self, principal: str, now: float) -> Used:
        self._turn_to(now)
        return self._used.setdefault(principal, Used())

    def _turn_to(self, now: float) -> None:
        day = int(now // DAY_SECONDS)
        if day > self._day:  # a clock that is set back begins no day anew
            self._day = day
            self._used.clear()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
