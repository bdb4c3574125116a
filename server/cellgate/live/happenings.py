"""What happens in a server, told to whoever wants to know: who audits, who measures, who counts what a principal used.

    Manager, LiveSession, gateway ── tell ──▶ Happenings ──▶ each listener, in the order they came

Plain facts. Decides nothing and keeps nothing; who tells does not know who listens. Told once per cell, never per
message: what a flood of output amounts to is counted where it passes, and told when its cell ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "CellAccepted",
    "CellFinished",
    "CellRefused",
    "ClientJoined",
    "ClientLeft",
    "Direction",
    "FileMoved",
    "Happening",
    "Happenings",
    "KernelEnded",
    "KernelStarted",
    "LimitHit",
    "Listener",
    "SessionCreated",
    "SessionEnded",
    "TokenMade",
    "TokenRefused",
    "TokenRevoked",
    "TokenUsed",
    "UsageSampled",
    "VerdictGiven",
    "Who",
]

log = logging.getLogger("cellgate.live")


@dataclass(frozen=True)
class Who:
    """Whose session it happened in."""

    principal: str
    session: str  # its id


class Direction(str, Enum):
    """Of a file, as its client sees it."""

    IN = "in"
    OUT = "out"


# -- sessions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SessionCreated:
    who: Who
    kernel: str  # the kernelspec's name


@dataclass(frozen=True)
class SessionEnded:
    who: Who
    reason: str  # of `certificate.Reason`


@dataclass(frozen=True)
class KernelStarted:
    who: Who
    incarnation: int
    driver: str
    template: str
    seconds: float  # from when it was wanted


@dataclass(frozen=True)
class KernelEnded:
    """Nothing is left of its sandbox. The numbers are of its whole life."""

    who: Who
    incarnation: int
    reason: str  # of `certificate.Reason`
    cpu_seconds: float
    memory_peak_bytes: int | None  # None: this driver does not measure it
    oom_kills: int


@dataclass(frozen=True)
class UsageSampled:
    """What a session's sandbox uses, as its host counts it: told every now and then. CPU time is since the kernel of
    this incarnation began."""

    who: Who
    incarnation: int
    cpu_seconds: float
    memory_bytes: int | None  # None: this driver does not measure it


# -- cells ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CellAccepted:
    """It stands in the queue, and will have one `CellFinished`; from another gateway, when this one is killed."""

    who: Who
    cell: int  # its key in the session's journal
    code: str


@dataclass(frozen=True)
class CellRefused:
    """It was answered at once, and never will run."""

    who: Who
    reason: str  # of `states.CellReason`
    code: str


@dataclass(frozen=True)
class CellFinished:
    who: Who
    cell: int
    reason: str  # of `states.CellReason`
    wall_seconds: float  # in the kernel; 0.0 if it never got there
    output_messages: int  # with those that were dropped
    output_bytes: int


@dataclass(frozen=True)
class VerdictGiven:
    """A message was judged before anything was done with it."""

    who: Who
    message_type: str
    denied_by: tuple[str, ...]  # ids of rules; none when it was allowed
    seconds: float  # that it took, waiting included


# -- clients -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClientJoined:
    who: Who
    dialect: str


@dataclass(frozen=True)
class ClientLeft:
    who: Who


@dataclass(frozen=True)
class FileMoved:
    who: Who
    direction: Direction
    path: str
    size_bytes: int


@dataclass(frozen=True)
class LimitHit:
    """Somebody was refused something, because it would have been more than they may have."""

    principal: str
    limit: str  # its name in the settings, or the error's code
    sentence: str


# -- tokens: of each, what may be shown ----------------------------------------------------------------


@dataclass(frozen=True)
class TokenMade:
    principal: str
    token: str
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class TokenRevoked:
    principal: str
    token: str


@dataclass(frozen=True)
class TokenUsed:
    """Somebody was let in; told for the first time from an address, and then now and then."""

    principal: str
    token: str
    remote: str


@dataclass(frozen=True)
class TokenRefused:
    refusal: str  # a code out of `auth.REFUSALS`
    remote: str


Happening = (
    SessionCreated
    | SessionEnded
    | KernelStarted
    | KernelEnded
    | UsageSampled
    | CellAccepted
    | CellRefused
    | CellFinished
    | VerdictGiven
    | ClientJoined
    | ClientLeft
    | FileMoved
    | LimitHit
    | TokenMade
    | TokenRevoked
    | TokenUsed
    | TokenRefused
)
Listener = Callable[[Happening], object]


class Happenings:
    """One for each server; belongs to its loop."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        """It is called at once with whatever is told, and must not wait. Returns what ends that."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def tell(self, happening: Happening) -> None:
        """A listener that fails harms neither who tells nor other listeners."""
        for listener in tuple(self._listeners):
            try:
                listener(happening)
            except Exception:
                log.exception("%s was told to a listener that failed", type(happening).__name__)
