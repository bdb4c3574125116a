"""What happens in a session, as values: each kind of event is a class, so that a program can match on it.

    for event in session.stream(code):
        match event:
            case Stdout(text=text):
                print(text, end="")
            case Display(data=data) if "image/png" in data:
                ...

A kind that this version does not know is a plain `Event`; `raw` has everything that was said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = [
    "EVENTS",
    "Accepted",
    "ClearOutput",
    "Comm",
    "Display",
    "Event",
    "Failed",
    "Finished",
    "GapTold",
    "InputRequested",
    "Noticed",
    "ResultShown",
    "Started",
    "StateChanged",
    "Stderr",
    "Stdout",
    "UpdateDisplay",
    "read_event",
]

Bundle = dict[str, Any]


@dataclass(frozen=True)
class Event:
    raw: Mapping[str, Any] = field(repr=False)  # as it came
    seq: int = 0  # its number; they rise, and are not contiguous
    time: float = 0.0  # seconds since 1970
    cell: str = ""  # the cell it belongs to, if any

    @property
    def name(self) -> str:
        return str(self.raw.get("event", ""))


@dataclass(frozen=True)
class Accepted(Event):
    """A cell is in the queue; `client` sent it."""

    client: str = ""
    code: str = ""


@dataclass(frozen=True)
class Started(Event):
    code: str = ""
    count: int | None = None


@dataclass(frozen=True)
class Stdout(Event):
    text: str = ""


@dataclass(frozen=True)
class Stderr(Event):
    text: str = ""


@dataclass(frozen=True)
class Display(Event):
    """Something that was displayed: MIME types, and what is shown for each, as Jupyter has them."""

    data: Bundle = field(default_factory=dict)
    metadata: Bundle = field(default_factory=dict)
    display_id: str | None = None


@dataclass(frozen=True)
class UpdateDisplay(Display):
    """What is shown in place of an earlier one with this `display_id`."""


@dataclass(frozen=True)
class ClearOutput(Event):
    wait: bool = False


@dataclass(frozen=True)
class ResultShown(Event):
    """The value of a cell's last expression."""

    data: Bundle = field(default_factory=dict)
    metadata: Bundle = field(default_factory=dict)
    count: int | None = None


@dataclass(frozen=True)
class Failed(Event):
    """The cell raised; `type` and `value` say what."""

    type: str = ""
    value: str = ""
    traceback: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class InputRequested(Event):
    prompt: str = ""
    password: bool = False


@dataclass(frozen=True)
class Finished(Event):
    """A cell's last event; there is exactly one."""

    status: str = ""
    reason: str = ""
    sentence: str = ""
    metrics: Bundle = field(default_factory=dict)


@dataclass(frozen=True)
class Noticed(Event):
    """What Cellgate has to say beside."""

    note: str = ""
    text: str = ""
    facts: Bundle = field(default_factory=dict)


@dataclass(frozen=True)
class GapTold(Event):
    """What had these numbers is not kept any more."""

    first: int = 0
    last: int = 0
    count: int = 0


@dataclass(frozen=True)
class StateChanged(Event):
    state: str = ""
    incarnation: int = 0
    reason: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Comm(Event):
    msg_type: str = ""
    content: Bundle = field(default_factory=dict)
    buffers: list[bytes] = field(default_factory=list)


EVENTS: dict[str, type[Event]] = {
    "accepted": Accepted,
    "started": Started,
    "stdout": Stdout,
    "stderr": Stderr,
    "display": Display,
    "update_display": UpdateDisplay,
    "clear_output": ClearOutput,
    "result": ResultShown,
    "error": Failed,
    "input_request": InputRequested,
    "finished": Finished,
    "notice": Noticed,
    "gap": GapTold,
    "state": StateChanged,
    "comm": Comm,
}
_RENAMED = {"type": "name"}  # of an error: an event's own name is another thing
_KINDS: tuple[type[Event], ...] = (Event, *EVENTS.values())
_FIELDS = {kind: tuple(f.name for f in fields(kind) if f.name != "raw") for kind in _KINDS}


def read_event(raw: Mapping[str, Any]) -> Event:
    """One event of the agents' protocol. What is absent or null has its default."""
    kind = EVENTS.get(raw.get("event", ""), Event)
    said = {name: raw.get(_RENAMED.get(name, name)) for name in _FIELDS[kind]}
    return kind(raw=raw, **{name: value for name, value in said.items() if value is not None})
