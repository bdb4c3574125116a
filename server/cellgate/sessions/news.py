"""What a session tells beside its effects: how it stands with its cells, for whoever counts or audits them.

Nothing of the session depends on it. Each is told when it is certain; whoever takes it does so after the effects of
the same call are carried out, when it stands in the journal too.
"""

from __future__ import annotations

from dataclasses import dataclass

from cellgate.sessions.states import CellReason

__all__ = ["Accepted", "Finished", "News", "Refused"]


@dataclass(frozen=True)
class Accepted:
    """It stands in the queue."""

    cell: int  # its key
    code: str


@dataclass(frozen=True)
class Refused:
    """It was answered, and will never run."""

    reason: CellReason
    code: str


@dataclass(frozen=True)
class Finished:
    """It has its one terminal record."""

    cell: int
    reason: CellReason
    sent_at: float | None  # when its kernel was given it; None if none was
    output_messages: int  # with those that were dropped
    output_bytes: int


News = Accepted | Refused | Finished
