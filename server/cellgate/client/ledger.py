"""What one client has asked of one session and has no answer to yet, and what of that is to be said again when its
connection broke. Sans-IO: takes what the server says, gives what is to be sent.

    connected ──▶ attached: what cannot wait is said again ──▶ history ──▶ caught_up: so is all else that is open
                                                                              │
                                          what is asked now goes at once ◀────┘

Nothing is lost, as what has no answer is said again; nothing is done twice, as the server knows a cell by its id, and
the other requests either change nothing or are looked at here. Nothing is seen twice, as numbers only rise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cellgate.client.errors import CellgateError, OutcomeLost, error_of

__all__ = ["CellSink", "Ledger", "Request"]

Message = Mapping[str, Any]
_SOON = frozenset({"cancel", "input", "interrupt", "touch"})  # also while history is still on its way


class CellSink(Protocol):
    """A cell of ours, for who waits for it."""

    def take(self, event: Message) -> None:
        """The last one is `finished`."""

    def fail(self, error: CellgateError) -> None:
        """It gets no more events."""


# Given a cell's id, the number under which it was accepted, and who wants its events.
Recall = Callable[[str, int, CellSink], object]


@dataclass(eq=False)
class Request:
    """One that is answered by a reply."""

    message: Message
    answer: Callable[[Message], None]
    fail: Callable[[CellgateError], None]
    incarnation: int = 0  # when it was asked
    running: str | None = None  # the cell that ran then, as far as we know


@dataclass(eq=False)
class _OpenCell:
    message: Message
    sink: CellSink
    is_accepted: bool = False
    answered: Message | None = None  # the last answer to a question of its, until anything shows that it came


class Ledger:
    def __init__(
        self, listener: Callable[[Message], None], recall: Recall = lambda *_: None, since: int | None = None
    ) -> None:
        """`listener` is given every event of the session once, whoever caused it. `recall` is asked for the events of a
        cell that began before what is read here. `since`: the last event that is known already."""
        self.seen = since
        self.attached: Message = {}  # what the server said when we came last
        self.state = ""
        self.incarnation = 0
        self.running: str | None = None  # the cell that runs, as far as was said
        self._listener = listener
        self._recall = recall
        self._is_attached = False
        self._is_caught_up = False
        self._cells: dict[str, _OpenCell] = {}
        self._requests: dict[str, Request] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open."""
        return not self._cells and not self._requests

    # -- what is asked; each returns what is to be sent now ----------------------------------------------

    def execute(self, message: Message, sink: CellSink) -> list[Message]:
        self._cells[message["id"]] = _OpenCell(message, sink)
        return [message] if self._is_caught_up else []

    def sink_of(self, cell: str) -> CellSink | None:
        """Who waits for a cell that was sent and has not ended."""
        found = self._cells.get(cell)
        return None if found is None else found.sink

    def ask(self, request: Request) -> list[Message]:
        request.incarnation, request.running = self.incarnation, self.running
        self._requests[request.message["id"]] = request
        is_time = self._is_attached if request.message["op"] in _SOON else self._is_caught_up
        return [request.message] if is_time else []

    def answer_input(self, cell: str, value: str) -> list[Message]:
        message = {"op": "input", "cell": cell, "value": value}
        if cell in self._cells:
            self._cells[cell].answered = message
        return [message] if self._is_attached else []

    def forget(self, request_id: str) -> None:
        """Nobody waits for the answer any more."""
        self._requests.pop(request_id, None)

    # -- what happens ------------------------------------------------------------------------------------

    def connected(self) -> None:
        """A connection is there; the server has said nothing on it yet."""
        self._is_attached = self._is_caught_up = False

    def take(self, message: Message) -> list[Message]:
        """Something the server said; what is to be sent now."""
        match message.get("event"):
            case "attached":
                return self._on_attached(message)
            case "caught_up":
                return self._on_caught_up()
            case "reply" if message.get("re") in self._cells:
                self._on_known(message)
            case "reply":
                if request := self._requests.pop(message.get("re", ""), None):
                    request.answer(message)
            case "error" if "seq" not in message:  # one that has a number is a cell's
                self._on_refused(message)
            case _:
                self._on_event(message)
        return []

    def fail(self, error: CellgateError) -> None:
        """There will be no other connection."""
        cells, self._cells = self._cells, {}
        requests, self._requests = self._requests, {}
        for cell in cells.values():
            cell.sink.fail(error)
        for request in requests.values():
            request.fail(error)

    # -- within ------------------------------------------------------------------------------------------

    def _on_attached(self, message: Message) -> list[Message]:
        self.attached = message
        self._is_attached = True
        self.incarnation = message.get("incarnation", 0)
        self.state = message.get("state", "")
        if self.seen is None:
            self.seen = message.get("since")
        running = [one.get("cell") for one in message.get("pending", ()) if one.get("phase") != "waiting"]
        self.running = running[0] if running else None
        for request in list(self._requests.values()):
            if self._was_done(request):
                del self._requests[request.message["id"]]
                request.answer({"event": "reply", "re": request.message["id"], "ok": True})
        return [one.message for one in self._requests.values() if one.message["op"] in _SOON]

    def _on_caught_up(self) -> list[Message]:
        self._is_caught_up = True
        pending = {one.get("cell") for one in self.attached.get("pending", ())}
        again: list[Message] = []
        for name, cell in list(self._cells.items()):
            if not cell.is_accepted:
                again.append(cell.message)
            elif name not in pending:  # it ended, and what was said of its end is not kept any more
                del self._cells[name]
                cell.sink.fail(OutcomeLost(f"how cell {name} ended is not kept any more", facts={"cell": name}))
            elif cell.answered:
                again.append(cell.answered)
        return again + [one.message for one in self._requests.values() if one.message["op"] not in _SOON]

    def _on_event(self, message: Message) -> None:
        seq = message.get("seq")
        if seq is not None:
            if self.seen is not None and seq <= self.seen:
                return
            self.seen = seq
        name, kind = message.get("cell"), message.get("event")
        if kind == "state":
            self.incarnation = message.get("incarnation", self.incarnation)
            self.state = message.get("state", self.state)
        elif kind == "started":
            self.running = name
        elif kind == "finished" and self.running == name:
            self.running = None
        self._listener(message)
        if name is not None and (cell := self._cells.get(name)):
            cell.is_accepted = True
            cell.answered = None
            if kind == "finished":
                del self._cells[name]
            cell.sink.take(message)

    def _on_known(self, message: Message) -> None:
        """A cell of ours that somebody, perhaps we, had sent before."""
        name, accepted = message["re"], message.get("accepted", 0)
        if not self._cells[name].is_accepted and accepted <= (self.seen or 0):
            self._recall(name, accepted, self._cells.pop(name).sink)

    def _on_refused(self, message: Message) -> None:
        """An error that answers something: a request, or a cell that was not taken."""
        name = message.get("re")
        if name in self._requests:
            self._requests.pop(name).fail(error_of(message))
        elif name in self._cells:
            self._cells.pop(name).sink.fail(error_of(message))

    def _was_done(self, request: Request) -> bool:
        """Whether all that it was for has come about, so that its reply was lost with a connection. A restart or an
        interrupt that is said twice would strike what has come in between."""
        match request.message["op"]:
            case "restart":
                return 0 < request.incarnation < self.incarnation
            case "interrupt":
                return request.running is not None and request.running != self.running
        return False
