"""What a session and a cell may be, and what may become of them: two tables, and the closed list of how cells end.

A move that is not in its table raises `IllegalMove` and changes nothing. The diagrams in PROTOCOL.md are made from
the tables. Decides nothing: `session.py` says when a move is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from cellgate.sandbox.certificate import Reason

__all__ = [
    "CELL_MOVES",
    "CELL_REASONS",
    "SESSION_MOVES",
    "STATE_MEANINGS",
    "CellMove",
    "CellReason",
    "IllegalMove",
    "Move",
    "Phase",
    "State",
    "diagram",
    "moved",
]


class State(str, Enum):
    """Of a session."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    PAUSED = "paused"
    RESTARTING = "restarting"
    DEAD = "dead"
    GONE = "gone"


class Move(str, Enum):
    """What changes a session's state."""

    STARTED = "started"  # its kernel takes requests
    CELL_SENT = "cell sent"
    CELL_ENDED = "cell ended"
    PAUSED = "paused"
    RESUMED = "resumed"
    RESTARTED = "restarted"  # a fresh kernel was asked for, or the old one ended
    GAVE_UP = "gave up"  # kernels do not start, or end as soon as they have
    ENDED = "ended"  # deleted, or expired


STATE_MEANINGS: dict[State, str] = {
    State.STARTING: "its first kernel is on its way; requests wait",
    State.READY: "the kernel runs no cell",
    State.BUSY: "the kernel runs a cell; later ones wait",
    State.PAUSED: "the kernel stands still; cells wait",
    State.RESTARTING: "variables are lost, a fresh kernel is on its way; requests wait",
    State.DEAD: "there is no kernel and none will be started unless a restart is asked for; cells are refused",
    State.GONE: "deleted or expired; only the journal is left",
}

SESSION_MOVES: dict[State, dict[Move, State]] = {
    State.STARTING: {
        Move.STARTED: State.READY,
        Move.GAVE_UP: State.DEAD,
        Move.ENDED: State.GONE,
    },
    State.READY: {
        Move.CELL_SENT: State.BUSY,
        Move.PAUSED: State.PAUSED,
        Move.RESTARTED: State.RESTARTING,
        Move.GAVE_UP: State.DEAD,
        Move.ENDED: State.GONE,
    },
    State.BUSY: {
        Move.CELL_ENDED: State.READY,
        Move.RESTARTED: State.RESTARTING,
        Move.ENDED: State.GONE,
    },
    State.PAUSED: {
        Move.RESUMED: State.READY,
        Move.RESTARTED: State.RESTARTING,
        Move.ENDED: State.GONE,
    },
    State.RESTARTING: {
        Move.STARTED: State.READY,
        Move.GAVE_UP: State.DEAD,
        Move.ENDED: State.GONE,
    },
    State.DEAD: {
        Move.RESTARTED: State.RESTARTING,
        Move.ENDED: State.GONE,
    },
    State.GONE: {},
}


class Phase(str, Enum):
    """Of a cell, from its acceptance to its one terminal event."""

    WAITING = "waiting"  # in the session's queue: the kernel has not seen it
    RUNNING = "running"  # sent to the kernel
    REPLIED = "replied"  # its reply was shown; its idle is still to come
    QUIET = "quiet"  # its idle came first and is held until the reply: the two may come on different ways
    DONE = "done"


class CellMove(str, Enum):
    """What happens to a cell."""

    SENT = "sent"
    REPLY = "reply"
    IDLE = "idle"
    LOST = "lost"  # the session answers in the kernel's place, with what of reply and idle was not yet shown


CELL_MOVES: dict[Phase, dict[CellMove, Phase]] = {
    Phase.WAITING: {CellMove.SENT: Phase.RUNNING, CellMove.LOST: Phase.DONE},
    Phase.RUNNING: {CellMove.REPLY: Phase.REPLIED, CellMove.IDLE: Phase.QUIET, CellMove.LOST: Phase.DONE},
    Phase.REPLIED: {CellMove.IDLE: Phase.DONE, CellMove.LOST: Phase.DONE},
    Phase.QUIET: {CellMove.REPLY: Phase.DONE, CellMove.LOST: Phase.DONE},
    Phase.DONE: {},  # a second reply or idle is the kernel's lie, or a late echo: counted, and not shown
}


class CellReason(str, Enum):
    """How a cell ended: a closed list. Those that a sandbox's end has too mean the same as there."""

    OK = "ok"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    TIMEOUT_WALL = Reason.TIMEOUT_WALL.value
    TIMEOUT_CPU = Reason.TIMEOUT_CPU.value
    OOM = Reason.OOM.value
    KERNEL_EXIT = Reason.KERNEL_EXIT.value
    KERNEL_SIGNAL = Reason.KERNEL_SIGNAL.value
    KERNEL_UNRESPONSIVE = Reason.KERNEL_UNRESPONSIVE.value
    PROTOCOL_VIOLATION = Reason.PROTOCOL_VIOLATION.value
    POLICY_DENIED = "policy_denied"
    QUEUE_FULL = "queue_full"
    QUOTA_USED_UP = "quota_used_up"
    SESSION_DELETED = Reason.SESSION_DELETED.value
    SESSION_EXPIRED = Reason.SESSION_EXPIRED.value
    SUPERVISOR_LOST = Reason.SUPERVISOR_LOST.value
    BACKEND_ERROR = Reason.BACKEND_ERROR.value

    def __str__(self) -> str:
        return self.value


CELL_REASONS: dict[CellReason, str] = {
    CellReason.OK: "It ran to its end.",
    CellReason.ERROR: "It raised an error.",
    CellReason.INTERRUPTED: "Somebody interrupted it, and it raised an error.",
    CellReason.CANCELLED: "It was ended by a restart; or it never ran, as one before it failed or the kernel ended.",
    CellReason.TIMEOUT_WALL: "It ran longer than it may.",
    CellReason.TIMEOUT_CPU: "It used more CPU time than it may.",
    CellReason.OOM: "The sandbox reached its memory limit and the kernel was killed for it.",
    CellReason.KERNEL_EXIT: "The kernel's process exited.",
    CellReason.KERNEL_SIGNAL: "The kernel crashed, or code in the sandbox killed it.",
    CellReason.KERNEL_UNRESPONSIVE: "The kernel stopped answering and was killed.",
    CellReason.PROTOCOL_VIOLATION: "The sandbox broke the protocol of its link and was killed.",
    CellReason.POLICY_DENIED: "It was refused before it ran; the detail says what would pass.",
    CellReason.QUEUE_FULL: "It was refused because too many were waiting.",
    CellReason.QUOTA_USED_UP: "It was refused because its principal has used what one may today.",
    CellReason.SESSION_DELETED: "The session was deleted while it ran.",
    CellReason.SESSION_EXPIRED: "The session expired while it ran.",
    CellReason.SUPERVISOR_LOST: "The process that supervised the sandbox was lost, and the kernel with it.",
    CellReason.BACKEND_ERROR: "Cellgate or its host failed, through no fault of the cell.",
}

S = TypeVar("S", bound=Enum)
M = TypeVar("M", bound=Enum)


class IllegalMove(RuntimeError):
    """A move that the table does not have: a fault of ours, and nothing has changed."""

    def __init__(self, state: Enum, move: Enum) -> None:
        super().__init__(f"{state.value} has no move {move.value!r}")
        self.state = state
        self.move = move


def moved(table: Mapping[S, Mapping[M, S]], state: S, move: M) -> S:
    """The state after the move. Raises IllegalMove."""
    try:
        return table[state][move]
    except KeyError:
        raise IllegalMove(state, move) from None


def diagram(table: Mapping[S, Mapping[M, S]]) -> str:
    """The table as a Mermaid state diagram. The first state is where everything begins."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table)).value}"]
    for state, moves in table.items():
        lines += [f"    {state.value} --> {after.value}: {move.value}" for move, after in moves.items()]
        if not moves:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join(lines) + "\n"
