"""When a cell has run too long, and when a session ends by itself. Pure: time comes in as `now`, in seconds of one
monotonic clock.

Idle means that nothing works: no cell runs or waits, nothing is asked, and the kernel's processes use no CPU worth
the name. A client that merely stays connected keeps no session alive.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cellgate.sessions.limits import SessionLimits

__all__ = ["LONGEST_STEP_SECONDS", "WORKING_CPU_SHARE", "Expiry", "Life", "SteadyClock", "Urge", "urge_of", "urges_at"]

# Of one core. An idle kernel is woken by a ping every few seconds and uses a thousandth; a thread that polls
# something ten times a second uses about a hundredth, and whoever wrote it wants it to go on.
WORKING_CPU_SHARE = 0.01
LONGEST_STEP_SECONDS = 2.0  # between two looks at the clock, one a second; who takes longer is as good as asleep


class SteadyClock:
    """Seconds that were lived through. When host or gateway were suspended (a laptop's lid, SIGSTOP) the kernels
    stood still too, or could not be heard: a step of a monotonic clock longer than any pause between two looks
    counts as that pause, so that nobody's time is over on waking."""

    def __init__(self, monotonic: float) -> None:
        self._seen = self.now = monotonic

    def look(self, monotonic: float) -> float:
        """The time now. To be called at least every LONGEST_STEP_SECONDS."""
        self.now += min(max(monotonic - self._seen, 0.0), LONGEST_STEP_SECONDS)
        self._seen = monotonic
        return self.now


class Urge(Enum):
    """What is due to a cell that takes long."""

    NONE = 0
    INTERRUPT = 1
    KILL = 2


def urges_at(seconds: float, grace_seconds: float, sent_at: float, interrupted_at: float | None) -> float:
    """When the next is due to a cell that may run so long. `interrupted_at`: when it was interrupted for its time, if
    it was."""
    return sent_at + seconds if interrupted_at is None else interrupted_at + grace_seconds


def urge_of(seconds: float, grace_seconds: float, sent_at: float, interrupted_at: float | None, now: float) -> Urge:
    if now < urges_at(seconds, grace_seconds, sent_at, interrupted_at):
        return Urge.NONE
    return Urge.INTERRUPT if interrupted_at is None else Urge.KILL


class Expiry(NamedTuple):
    """When a session ends by itself, and why: `idle` or `lifetime`."""

    at: float
    why: str


@dataclass
class Life:
    """What the end of a session depends on. Not started again by a restart of its kernel."""

    born_at: float
    active_at: float  # when it was last known to work
    noticed: Expiry | None = None  # what its clients were told
    _cpu: tuple[float, float] | None = None  # seconds used, and when that was

    def expiry(self, limits: SessionLimits) -> Expiry:
        idle = Expiry(self.active_at + limits.idle_seconds, "idle")
        life = Expiry(self.born_at + limits.lifetime_seconds, "lifetime")
        return idle if idle.at < life.at else life

    def sample(self, cpu_seconds: float, now: float) -> None:
        """A count of the CPU time that the sandbox has used, as its host counts it."""
        if self._cpu is not None:
            used, since = self._cpu
            if now > since and (cpu_seconds - used) / (now - since) >= WORKING_CPU_SHARE:
                self.active_at = now
        self._cpu = (cpu_seconds, now)

    def forget_samples(self) -> None:
        """Another sandbox counts from zero."""
        self._cpu = None

    def notice_due(self, limits: SessionLimits, now: float) -> Expiry | None:
        """What to tell the clients now, once for each end that comes near."""
        expiry = self.expiry(limits)
        if expiry == self.noticed or now < expiry.at - _notice_seconds(limits, expiry):
            return None
        self.noticed = expiry
        return expiry

    def looks_at(self, limits: SessionLimits, is_working: bool) -> float:
        """When there is next something to tell or to end, if nothing changes."""
        expiry = self.expiry(limits)
        if is_working and expiry.why == "idle":  # it will not come to that
            expiry = Expiry(self.born_at + limits.lifetime_seconds, "lifetime")
        return expiry.at if expiry == self.noticed else expiry.at - _notice_seconds(limits, expiry)


def _notice_seconds(limits: SessionLimits, expiry: Expiry) -> float:
    """Before a short span has half gone by, a notice would say nothing."""
    span = limits.idle_seconds if expiry.why == "idle" else limits.lifetime_seconds
    return min(limits.notice_seconds, span / 2)
