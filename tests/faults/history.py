"""Whether what clients saw is what a session that loses nothing would have shown them. Pure: histories in, faults out.

Cells print `nonce cell i counter` for i from 0 on; the counter lives in the kernel's memory and goes up by one with
each cell that runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cellgate.sessions.records import Kind, Record
from tests.faults.roamer import Seen
from tests.faults.websocket import Message

__all__ = ["Expected", "Tally", "check_journal", "check_owner", "check_visitor", "first_sights", "print_lines"]


@dataclass(frozen=True)
class Expected:
    """A cell that was asked for."""

    id: str
    number: int  # from 0 on, in the order in which they were asked for
    lines: int


@dataclass
class Tally:
    """Of all sessions together; `faults` say what is wrong, one sentence each."""

    cells: int = 0
    lines: int = 0
    lost: int = 0
    doubled: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, sentence: str) -> None:
        if len(self.faults) < 100:  # one cause has many symptoms
            self.faults.append(sentence)

    def add(self, other: Tally) -> None:
        for name in ("cells", "lines", "lost", "doubled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults


def print_lines(nonce: str, number: int, lines: int, *, pause: float = 0.0, flush: bool = True) -> str:
    """The code of a cell as the checker wants it."""
    return f"""\
import time
counter = globals().get("counter", 0) + 1
for i in range({lines}):
    print({nonce!r}, {number}, i, counter, flush={flush})
    if {pause}:
        time.sleep({pause})
"""


def check_owner(nonce: str, cells: Sequence[Expected], seen: Sequence[Seen]) -> Tally:
    """The client that asked for the cells and named what it saw last: everything came, once, in order."""
    tally = Tally(cells=len(cells))
    messages = [message for _, message in seen]
    for message_id, times in Counter(message.id for message in messages).items():
        if times > 1:
            tally.fault(f"{nonce}: message {message_id} came {times} times")
    by_parent: dict[str, list[Message]] = {}
    for message in messages:
        by_parent.setdefault(message.parent, []).append(message)
    for cell in cells:
        _check_cell(nonce, cell, by_parent.get(cell.id, []), tally)
    started = [m.parent for m in messages if m.type == "execute_input"]
    if started != (wanted := [cell.id for cell in cells]):
        tally.fault(f"{nonce}: cells ran as {started}, and were asked for as {wanted}")
    return tally


def _check_cell(nonce: str, cell: Expected, said: Sequence[Message], tally: Tally) -> None:
    kinds = Counter(m.state or m.type for m in said if m.type != "stream")
    if kinds != {"busy": 1, "execute_input": 1, "execute_reply": 1, "idle": 1}:
        tally.fault(f"{nonce}: cell {cell.number} was told of by {dict(kinds)}")
    for reply in (m for m in said if m.type == "execute_reply"):
        if reply.content.get("status") != "ok":
            tally.fault(f"{nonce}: cell {cell.number} ended as {dict(reply.content)}")
    text = "".join(str(m.content["text"]) for m in said if m.type == "stream")
    wanted = [f"{nonce} {cell.number} {i} {cell.number + 1}" for i in range(cell.lines)]
    came = text.splitlines()
    tally.lines += len(came)
    if came != wanted:
        counts = Counter(came)
        lost = sum(counts[line] == 0 for line in wanted)
        doubled = sum(max(0, times - 1) for times in counts.values())
        foreign = [line for line in came if line not in set(wanted)]
        tally.lost += lost
        tally.doubled += doubled
        tally.fault(
            f"{nonce}: of cell {cell.number} {lost} lines are lost, {doubled} doubled, foreign are {foreign[:3]}"
            + ("" if lost or doubled or foreign else "; all are there, out of order")
        )


def public_ids(seen: Iterable[Seen]) -> list[str]:
    """What all clients of a session are shown."""
    return [message.id for _, message in seen if message.channel == "iopub"]


def first_sights(ids: Iterable[str]) -> list[str]:
    """Without what came again."""
    return list(dict.fromkeys(ids))


def check_companion(nonce: str, owner: Sequence[Seen], seen: Sequence[Seen]) -> tuple[int, Tally]:
    """A client that kept its identity and named nothing: messages may come twice, how many is returned, and none is
    missing or out of order among those it saw for the first time."""
    tally = Tally()
    ids = public_ids(seen)
    firsts = first_sights(ids)
    all_ids = public_ids(owner)
    begin = all_ids.index(firsts[0]) if firsts and firsts[0] in all_ids else 0
    if firsts != all_ids[begin : begin + len(firsts)] or begin + len(firsts) != len(all_ids):
        missing = set(all_ids[begin:]) - set(firsts)
        kinds = Counter(f"{m.type} of {m.parent}" for _, m in owner if m.id in missing)
        tally.fault(
            f"{nonce}: a client that kept its identity saw {len(firsts)} messages, {len(missing)} are missing: "
            f"{dict(kinds.most_common(3))}"
        )
    return len(ids) - len(firsts), tally


def check_visitor(nonce: str, owner: Sequence[Seen], seen: Sequence[Seen]) -> Tally:
    """A client with a new identity for each connection: it sees one stretch of what the owner saw, without a hole; and
    of the first cell in it everything, or nothing but what is not the cell's."""
    tally = Tally()
    all_ids = public_ids(owner)
    places = {message_id: place for place, message_id in enumerate(all_ids)}
    by_connection: dict[int, list[Message]] = {}
    for connection, message in seen:
        if message.channel == "iopub":
            by_connection.setdefault(connection, []).append(message)
    for messages in by_connection.values():
        came = [places.get(m.id, -1) for m in messages]
        if came != list(range(came[0], came[0] + len(came))):
            tally.fault(f"{nonce}: a visitor saw the messages {came[:20]}, which have holes")
        states = [m.state for m in messages if m.state and "-cell-" in m.parent]
        if states and states[0] != "busy":
            tally.fault(f"{nonce}: a visitor saw a cell's {states[0]} and not its beginning")
    return tally


def check_journal(nonce: str, cells: Sequence[Expected], records: Iterable[Record]) -> Tally:
    """Each cell was accepted once and has one end."""
    tally = Tally()
    requests: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for record in records:
        if record.kind is Kind.REQUEST:
            requests[record.tag.parent_id.decode()] += 1
        elif record.kind is Kind.TERMINAL:
            ends[record.tag.parent_id.decode()] += 1
    once = Counter(cell.id for cell in cells)
    for name, counted in (("accepted", requests), ("ended", ends)):
        if counted != once:
            wrong = {cell_id: counted[cell_id] for cell_id in {*once, *counted} if counted[cell_id] != 1}
            tally.fault(f"{nonce}: its journal has cells {name} otherwise than once: {dict(list(wrong.items())[:5])}")
    return tally
