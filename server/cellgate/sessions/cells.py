"""The cells of a session: what is known of each, and the queue in which they wait.

The gateway holds the queue and gives the kernel one cell at a time. A kernel that were given all of them would save a
client who sends many at once some 0.1 ms between two of them, and a client who waits for each answer nothing at all.
For that, at most one cell is ever in doubt when something dies: the others are known not to have run. Each cell's
clock begins when the kernel gets it, an interrupt strikes the cell it was meant for, and a queue can be counted and
cancelled here, for every kind of kernel alike.

Other requests on the shell channel keep their place between the cells, as they would in a kernel's queue.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar

from cellgate.errors import PolicyError
from cellgate.policy.verdicts import Verdict
from cellgate.sessions.limits import SessionLimits
from cellgate.sessions.output_cap import STATE_BYTES, CapLimits, OutputCap
from cellgate.sessions.records import Record
from cellgate.sessions.states import CELL_MOVES, CellMove, CellReason, Phase, moved
from cellgate.wire.jupyter import ClientMessage
from cellgate_kernel.message import Status

__all__ = ["MAX_QUEUED_BYTES", "Cell", "Judgement", "Queue", "Waiting", "cap_limits"]

Judgement = Verdict | PolicyError  # what may be done with it, or why that could not be told

MAX_QUEUED_BYTES = 64 << 20  # of all that waits in one session: thousands of cells, or four of the largest requests
# Of what a reply said, in the record of its cell's progress. There is one of those for each read of the link until the
# kernel says idle, which code may put off while it talks on: more would let it write without an end.
MAX_CARRIED_BYTES = 4 << 10
# Record from which on it runs, number of the link's message that took it to the kernel, phase, outcome. Behind it the
# state of its output cap, and what its reply said as JSON.
_PROGRESS = struct.Struct("<QQBB")
_PHASES = tuple(Phase)


@dataclass
class Cell:
    """One accepted execute_request."""

    overtakes: ClassVar[bool] = False

    key: int  # the sequence number of its REQUEST
    client: bytes
    message: ClientMessage
    cap: OutputCap[Record]
    accepted_at: float
    phase: Phase = Phase.WAITING
    judgement: Judgement | None = None  # the kernel gets it when there is one
    sent_number: int = 0  # of the link's message that took it to the kernel
    sent_at: float = 0.0
    begins_at: int = 0  # the sequence number of what is recorded first of its run, which may be long after `key`
    overdue_at: float | None = None  # when it was interrupted because its time was over
    is_interrupted: bool = False  # somebody asked for it
    outcome: Status = Status.NONE  # what its reply said
    is_busy: bool = False  # the clients were told
    is_named: bool = False  # its execute_input was shown
    asks: bool = False  # for input, and waits
    said: Mapping[str, Any] = field(default_factory=dict)  # what of its reply belongs to its end
    carried: bytes = b""  # the same as `progress` has it, made when that is first asked for
    held: list[ClientMessage] = field(default_factory=list)  # what it shall get once its kernel can be sent something
    id: bytes = field(init=False)  # as the kernel's tags have it

    def __post_init__(self) -> None:
        self.id = self.message.msg_id.encode()

    def move(self, move: CellMove) -> None:
        """Raises IllegalMove."""
        self.phase = moved(CELL_MOVES, self.phase, move)

    @property
    def stops_others(self) -> bool:
        """Whether those behind it shall not run, now that it failed."""
        content = self.message.content
        return self.outcome is Status.ERROR and not content.get("silent") and bool(content.get("stop_on_error", True))

    @property
    def reason(self) -> CellReason:
        """How it ended, if the kernel replied."""
        if self.outcome is Status.OK:
            return CellReason.OK
        if self.outcome is Status.ABORTED:
            return CellReason.CANCELLED
        if self.overdue_at is not None:
            return CellReason.TIMEOUT_WALL
        return CellReason.INTERRUPTED if self.is_interrupted else CellReason.ERROR

    def seconds(self, limits: SessionLimits) -> float:
        """How long it may run: as long as the session's cells, or shorter if whoever sent it said so."""
        return min(limits.cell_seconds, _positive(self.message.options.get("timeout")))

    def account(self, now: float) -> dict[str, Any]:
        """What it took, for its terminal record."""
        began = self.sent_at if self.sent_number else now
        messages, size = self.cap.seen
        metrics = {"wall": round(now - began, 6), "queued": round(began - self.accepted_at, 6)}
        metrics |= {"output_messages": messages, "output_bytes": size, **self.said.get("metrics", {})}
        account = {**self.said, "metrics": metrics}
        messages, size = self.cap.dropped
        return account | ({"truncated": {"messages": messages, "bytes": size}} if messages else {})

    def progress(self) -> bytes:
        """What a gateway that takes over must know of it, beside its request."""
        numbers = self.begins_at, self.sent_number, _PHASES.index(self.phase), self.outcome
        if self.said and not self.carried:  # it has replied, and not ended
            self.carried = json.dumps(self.said).encode()
            if (size := len(self.carried)) > MAX_CARRIED_BYTES:
                self.carried = b'{"left_out_bytes":%d}' % size
        return _PROGRESS.pack(*numbers) + self.cap.state() + self.carried

    @staticmethod
    def accepted(key: int, client: bytes, message: ClientMessage, limits: SessionLimits, now: float) -> Cell:
        return Cell(key, client, message, OutputCap(cap_limits(limits, message.options)), now)

    @staticmethod
    def recovered(
        request: Record, cut: Record | None, message: ClientMessage, limits: SessionLimits, now: float
    ) -> Cell:
        """From its records. What it was when the last of them was written. Raises ValueError for one that is none."""
        if cut is None:
            return Cell.accepted(request.seq, request.client, message, limits, now)
        body = bytes(cut.body)
        try:
            begins_at, number, phase, outcome = _PROGRESS.unpack_from(body)
            said_at = _PROGRESS.size + STATE_BYTES
            cap = OutputCap[Record](cap_limits(limits, message.options), body[_PROGRESS.size : said_at])
            cell = Cell(request.seq, request.client, message, cap, now)
            cell.phase, cell.outcome = _PHASES[phase], Status(outcome)
            cell.said = json.loads(body[said_at:] or b"{}")
        except (struct.error, IndexError) as error:
            raise ValueError(f"no progress of a cell: {error}") from error
        cell.begins_at, cell.sent_number = begins_at, number
        return cell


def cap_limits(limits: SessionLimits, options: Mapping[str, Any] = {}) -> CapLimits:
    """What of a cell's output is kept: as much as of the session's cells, or less if its options say so."""
    most_bytes, most_messages = limits.output_bytes_per_cell, limits.output_messages_per_cell
    if isinstance(asked := options.get("limits"), dict):
        most_bytes = int(min(most_bytes, _positive(asked.get("output_bytes_per_cell"))))
        most_messages = int(min(most_messages, _positive(asked.get("output_messages_per_cell"))))
    return CapLimits.of(most_bytes, most_messages)


def _positive(value: object) -> float:
    """What is no number above 0 is no limit."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else inf


@dataclass
class Waiting:
    """A request other than a cell: behind cells that wait, or one that overtakes them."""

    client: bytes
    message: ClientMessage
    overtakes: bool = False
    judgement: Judgement | None = None


class Queue:
    """What waits for the kernel, in the order it came."""

    def __init__(self) -> None:
        self._items: deque[Cell | Waiting] = deque()
        self._ids: set[bytes] = set()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def cells(self) -> int:
        return len(self._ids)

    @property
    def first(self) -> Cell | Waiting | None:
        return self._items[0] if self._items else None

    @property
    def waiting(self) -> Iterable[Cell | Waiting]:
        return self._items

    def has_room(self, message: ClientMessage, beside: int = 0) -> bool:
        """`beside`: bytes of what waits elsewhere in the session."""
        held = self.bytes + beside
        return held + len(message.v1) <= MAX_QUEUED_BYTES or not held

    def has(self, cell_id: bytes) -> bool:
        return cell_id in self._ids

    def remove(self, cell_id: bytes) -> Cell | None:
        """Out of its place."""
        for item in self._items:
            if isinstance(item, Cell) and item.id == cell_id:
                self._items.remove(item)
                self._ids.discard(cell_id)
                self.bytes -= len(item.message.v1)
                return item
        return None

    def add(self, item: Cell | Waiting) -> None:
        self._items.append(item)
        self._count(item)

    def add_first(self, cell: Cell) -> None:
        """Back to where it came from: the kernel never got it."""
        self._items.appendleft(cell)
        self._count(cell)

    def take(self) -> Cell | Waiting:
        item = self._items.popleft()
        self.bytes -= len(item.message.v1)
        if isinstance(item, Cell):
            self._ids.discard(item.id)
        return item

    def take_cells(self) -> list[Cell]:
        """All cells; the other requests stay."""
        items = [self.take() for _ in range(len(self._items))]
        for item in items:
            if isinstance(item, Waiting):
                self.add(item)
        return [item for item in items if isinstance(item, Cell)]

    def take_rest(self) -> list[Waiting]:
        """All that are no cells, when those are gone."""
        items = [self.take() for _ in range(len(self._items))]
        return [item for item in items if isinstance(item, Waiting)]

    def _count(self, item: Cell | Waiting) -> None:
        self.bytes += len(item.message.v1)
        if isinstance(item, Cell):
            self._ids.add(item.id)
