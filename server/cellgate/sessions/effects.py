"""What a session asks of whoever drives it. To be carried out in order, each only when the one before it is done:
what was said is in the journal before it is acted on.

An effect names the incarnation it is for, so that one that comes late does nothing to the kernel after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellgate.sandbox.certificate import Reason
from cellgate.sessions.cells import Cell, Waiting
from cellgate.sessions.records import Record
from cellgate.sessions.states import State
from cellgate.wire.jupyter import ClientMessage

__all__ = [
    "Answered",
    "Append",
    "Close",
    "Destroy",
    "Effect",
    "Interrupt",
    "Judge",
    "Kill",
    "Remember",
    "Save",
    "Send",
    "StartKernel",
    "Tell",
]


@dataclass(frozen=True)
class Append:
    """Write these to the journal, in one go. The session has counted their sequence numbers."""

    records: Sequence[Record]


@dataclass(frozen=True)
class Answered:
    """What came of a question of the gateway's own; it stands in no journal."""

    msg_id: str
    body: bytes | None  # the kernel's reply; None when there will be none
    reason: str = ""  # why, out of `states.CellReason`
    sentence: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Remember:
    """Keep this entry of `known.KnownCells`, before anything that follows."""

    entry: bytes


@dataclass(frozen=True)
class Tell:
    """Tell this client's connection, if it has one, what stands in no journal."""

    client: bytes
    event: Mapping[str, Any]


@dataclass(frozen=True)
class Send:
    """Give this to the kernel. It becomes message `number` of the link: none may be left out or overtake another.
    When the window is full it waits, and the clients with it; what is no Send need not wait for one."""

    incarnation: int
    number: int
    message: ClientMessage


@dataclass(frozen=True)
class Judge:
    """Have this judged, and tell the session `judged`. Does not delay what follows."""

    item: Cell | Waiting


@dataclass(frozen=True)
class Interrupt:
    """`Sandbox.interrupt`, and then tell the session `interrupt_sent`: until then it sends no cell, which the
    interrupt might strike instead."""

    incarnation: int


@dataclass(frozen=True)
class Kill:
    """`Sandbox.kill`. What comes of it is told by its certificate."""

    incarnation: int
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Destroy:
    """Let nothing be left of this incarnation's sandbox. Does not delay what follows."""

    incarnation: int


@dataclass(frozen=True)
class StartKernel:
    """Make a sandbox, open its link, and tell the session `kernel_started` or `start_failed`."""

    incarnation: int


@dataclass(frozen=True)
class Save:
    """Keep this in the registry, before anything that follows."""

    state: State
    incarnation: int
    sandbox_id: str  # "" when there is none


@dataclass(frozen=True)
class Close:
    """The session is over: when its clients have read what is journalled, close them. Forget it when nothing is left
    of its sandboxes; one that is still being started is told of as ever, and destroyed."""

    reason: Reason


Effect = Append | Answered | Remember | Tell | Send | Judge | Interrupt | Kill | Destroy | StartKernel | Save | Close
