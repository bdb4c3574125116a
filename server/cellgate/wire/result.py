"""What became of a cell, in one piece: the events of an agent's protocol folded together.

    accepted, started, stdout, display, ... finished ── fold ──▶ Result ── to_json ──▶ what REST answers

Shows what a notebook would show in the end: `clear_output` takes away, `update_display` puts in place. Pure, and
without bounds of its own: whoever asked for the cell has bounded its output. Turning it into text is for `rendering`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Folding", "Result", "fold"]

Event = Mapping[str, Any]
Bundle = dict[str, Any]  # MIME types and what is shown for each, as Jupyter has them


@dataclass(frozen=True)
class Result:
    """Of one cell, or of several that were run as one."""

    cell: str = ""  # its id; of several the last one's
    status: str = ""  # ok, error, aborted; "" while it is not known
    reason: str = ""  # how it ended, out of the protocol's closed list
    sentence: str = ""  # the same for people, where the reason does not say it all
    facts: Bundle = field(default_factory=dict)  # that belong to the reason
    count: int | None = None  # the number of In[]
    stdout: str = ""
    stderr: str = ""
    result: Bundle | None = None  # the value of its last expression
    outputs: tuple[Bundle, ...] = ()  # everything displayed, the result too, in order: {"data", "metadata"}
    error: Bundle | None = None  # {"name", "value", "traceback"}
    notices: tuple[Bundle, ...] = ()  # what Cellgate had to say beside: {"note", "text", "facts"}
    metrics: Bundle = field(default_factory=dict)
    truncated: Bundle | None = None  # {"messages", "bytes"} that are missing
    expressions: Bundle = field(default_factory=dict)
    diff: Bundle | None = None  # of the names in the kernel, if it was asked for
    seq: int = 0  # of the last event; a stream of events reads on behind it

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"

    def to_json(self) -> dict[str, Any]:
        """Always with every name, so that programs need ask for none."""
        return {**vars(self), "outputs": list(self.outputs), "notices": list(self.notices)}

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Result:
        """What `to_json` made; names that a later version added are left out."""
        known = {name: said[name] for name in Result.__dataclass_fields__ if name in said}
        for name in ("outputs", "notices"):
            known[name] = tuple(known.get(name, ()))
        return Result(**known)


def fold(events: Iterable[Event]) -> Result:
    """Of one cell's events, in order; a later one of another cell adds to the same."""
    folding = Folding()
    for event in events:
        folding.take(event)
    return folding.result()


class Folding:
    """The same, event by event."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._outputs: list[Bundle] = []
        self._by_display: dict[str, list[Bundle]] = {}
        self._notices: list[Bundle] = []
        self._known: Bundle = {}
        self._clears_next = False

    def take(self, event: Event) -> None:
        """One that says nothing of a cell's outcome changes nothing."""
        kind = event.get("event")
        if kind == "error" and "re" in event:
            self._refuse(event)
            return
        if kind in self._texts:
            self._clear_if_due()
            self._texts[kind].append(event["text"])
        elif kind in ("display", "result"):
            self._clear_if_due()
            self._show(event)
        elif kind == "update_display":
            for output in self._by_display.get(event.get("display_id") or "", ()):
                output.update(_bundle(event))
        elif kind == "clear_output":
            self._clears_next = True
            if not event.get("wait"):
                self._clear_if_due()
        elif kind == "error":
            self._clear_if_due()
            self._known["error"] = {name: event[name] for name in ("name", "value", "traceback")}
        elif kind == "notice":
            self._notices.append({name: event.get(name) for name in ("note", "text", "facts")})
        elif kind == "finished":
            self._finish(event)
        else:
            return
        self._known["seq"] = event.get("seq", 0)

    @property
    def is_over(self) -> bool:
        """Whether the cell has ended, or was refused."""
        return "status" in self._known

    def result(self) -> Result:
        """Of what has been taken so far."""
        shown = {name: "".join(pieces) for name, pieces in self._texts.items()}
        known = {**self._known, **shown, "outputs": tuple(self._outputs), "notices": tuple(self._notices)}
        return Result(**known)

    def _show(self, event: Event) -> None:
        output = _bundle(event)
        self._outputs.append(output)
        if display_id := event.get("display_id"):
            self._by_display.setdefault(display_id, []).append(output)
        if event["event"] == "result":
            self._known["result"] = output["data"]

    def _clear_if_due(self) -> None:
        if self._clears_next:
            self._clears_next = False
            self._outputs.clear()
            self._by_display.clear()
            self._known.pop("result", None)
            for pieces in self._texts.values():
                pieces.clear()

    def _refuse(self, event: Event) -> None:
        """It was not accepted, and never began."""
        reason, sentence = event["code"], event["message"]
        self._known |= {"cell": event["re"], "status": "error", "reason": reason, "sentence": sentence}
        self._known["facts"] = dict(event.get("facts") or {})

    def _finish(self, event: Event) -> None:
        known = self._known
        for name in ("cell", "status", "reason", "sentence", "facts", "count", "expressions", "diff"):
            if event.get(name):
                known[name] = event[name]
        known["metrics"] = _added(known.get("metrics", {}), event.get("metrics") or {})
        if missing := event.get("truncated"):
            known["truncated"] = _added(known.get("truncated", {}), missing)


def _bundle(event: Event) -> Bundle:
    return {"data": dict(event["data"]), "metadata": dict(event.get("metadata") or {})}


def _added(former: Mapping[str, Any], latter: Mapping[str, Any]) -> Bundle:
    """Sums; of a peak the higher."""
    added = dict(former)
    for name, value in latter.items():
        before = added.get(name)
        if before is None or not isinstance(value, (int, float)):
            added[name] = value
        else:
            added[name] = max(before, value) if name.startswith("peak") else before + value
    return added
