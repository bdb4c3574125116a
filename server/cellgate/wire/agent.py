"""What agents and the gateway say to each other over a websocket of theirs, in either of two forms.

    a frame ── read_request ──▶ Execute, Ack, Input, ...      strictly: a name that is unknown is a mistake
    an event, a reply ── write ──▶ Frame                      the same map, as msgpack or as JSON
    request_of, write, read_event                             the other end, for clients

Pure. What requests do is decided by the session; which events there are is in `sessions.agents`.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any

import msgpack

from cellgate.wire.jupyter import Frame
from cellgate.wire.strict import MAX_DEPTH, MAX_VALUES, is_deeper, read_object
from cellgate_kernel.message import MAX_BUFFERS, MessageError

__all__ = [
    "CLOSED_FOR",
    "OPS",
    "PROTOCOL",
    "REFUSALS",
    "Ack",
    "Cancel",
    "Comm",
    "Complete",
    "Execute",
    "Form",
    "Input",
    "Inspect",
    "Interrupt",
    "IsComplete",
    "MessageError",
    "Refused",
    "Request",
    "Restart",
    "Touch",
    "Variables",
    "choose_form",
    "make_request",
    "read_event",
    "read_request",
    "reply_to",
    "request_of",
    "write",
]

PROTOCOL = 1

MAX_ID_CHARS = 128  # a uuid, or what a client makes of a job's name and a step's
MAX_ID_BYTES = 255  # of it in UTF-8: one byte of length in a tag
MAX_NAME_CHARS = 1000  # of a variable, or of an expression
MAX_EXPRESSIONS = 100
MAX_VARIABLES = 10_000  # that one answer lists


class Form(Enum):
    """How messages are written; the value is the subprotocol."""

    MSGPACK = "cellgate.v1.msgpack"
    JSON = "cellgate.v1.json"


def choose_form(offered: Iterable[str]) -> Form | None:
    """The first of ours that a client offers."""
    names = {form.value: form for form in Form}
    return next((names[name] for name in offered if name in names), None)


# What closes a websocket, because it is no message at all: the close code, and what was sent.
CLOSED_FOR: dict[str, tuple[int, str]] = {
    "too_large": (1009, "more bytes than a message may have"),
    "text_frame": (1003, "a text frame, where msgpack was agreed on"),
    "binary_frame": (1003, "a binary frame, where JSON was agreed on"),
    "bad_message": (1007, "what is no map with names of text in that form, has a name twice, or nests too deep"),
}


# What a request may be refused for here; beside the codes of `errors`, and how cells end.
REFUSALS: dict[str, str] = {
    "unknown_op": "there is no such op",
    "bad_field": "a field is missing, of another type, too long, or none that the op has",
    "observer": "an observer asks for something",
    "future_cursor": "an event is acknowledged that was not sent",
    "input_unasked": "the cell does not wait for input",
    "unknown_cell": "no cell of this id was accepted, or it is known no longer",
    "id_taken": "there was a cell of this id, with other code",
    "kernel_error": "the kernel could not answer; `facts` has the error's `name` and `value`",
}


class Refused(Exception):
    """A message that asks for what cannot be. The connection stays."""

    def __init__(self, code: str, message: str, re: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.re = re  # the id of what is refused, if it has one
        self.facts = facts

    def to_event(self) -> dict[str, Any]:
        return {
            "event": "error",
            "re": self.re,
            "code": self.code,
            "message": self.message,
            "fault": "yours",
            "facts": self.facts,
        }


def reply_to(re: str | None, **more: object) -> dict[str, Any]:
    """The answer to a request that was granted."""
    return {"event": "reply", "re": re, "ok": True, **more}


# -- what fields may be --------------------------------------------------------------------------------

Check = Callable[[Any], Any]  # the value as it is kept; raises ValueError with what would have passed


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def _id(value: Any) -> str:
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= MAX_ID_CHARS
        or not value.isprintable()
        or len(value.encode()) > MAX_ID_BYTES
    ):
        raise ValueError(f"printable text of 1 to {MAX_ID_CHARS} characters, {MAX_ID_BYTES} bytes at most,")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME_CHARS:
        raise ValueError(f"text of 1 to {MAX_NAME_CHARS} characters")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _whole(least: int, most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:  # an int of JSON may be larger
        raise ValueError("a number of seconds above 0")
    return float(value)


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a map")
    return value


def _limits(value: Any) -> dict[str, int]:
    known = ("output_bytes_per_cell", "output_messages_per_cell")
    if not isinstance(value, dict) or not value.keys() <= set(known):
        raise ValueError(f"a map of {' and '.join(known)}")
    for number in value.values():
        if type(number) is not int or not 0 < number < 1 << 53:
            raise ValueError("whole numbers above 0")
    return value


def _expressions(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_EXPRESSIONS:
        raise ValueError(f"a map of up to {MAX_EXPRESSIONS} names")
    return {_name(name): _text(code) for name, code in value.items()}


def _buffers(value: Any) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MAX_BUFFERS:
        raise ValueError(f"a list of up to {MAX_BUFFERS} byte strings")
    return tuple(map(_bytes, value))


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError):
            pass
    raise ValueError('a list of byte strings, in JSON {"base64": "..."},')


def _comm_type(value: Any) -> str:
    if value not in ("comm_open", "comm_msg", "comm_close"):
        raise ValueError("comm_open, comm_msg or comm_close")
    return str(value)


def _is(check: Check) -> Any:
    return field(metadata={"check": check})


def _may(check: Check, default: Any = None) -> Any:
    made = {"default_factory": type(default)} if isinstance(default, dict) else {"default": default}
    return field(metadata={"check": check}, **made)


# -- what clients ask ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Execute:
    """A cell; `id` is its name and its idempotency key."""

    id: str = _is(_id)
    code: str = _is(_text)
    timeout: float | None = _may(_seconds)
    stdin: bool = _may(_truth, False)
    store_history: bool = _may(_truth, True)
    silent: bool = _may(_truth, False)
    stop_on_error: bool = _may(_truth, True)
    limits: Mapping[str, int] = _may(_limits, {})
    expressions: Mapping[str, str] = _may(_expressions, {})
    diff: bool = _may(_truth, False)


@dataclass(frozen=True)
class Ack:
    """All up to this has been seen: where this client reads on when it says nothing else."""

    seq: int = _is(_whole(0, (1 << 53) - 1))
    id: str | None = _may(_id)


@dataclass(frozen=True)
class Input:
    """An answer to `input_request`."""

    cell: str = _is(_id)
    value: str = _is(_text)
    id: str | None = _may(_id)


@dataclass(frozen=True)
class Interrupt:
    """What runs."""

    id: str = _is(_id)


@dataclass(frozen=True)
class Cancel:
    """One cell, wherever it is."""

    id: str = _is(_id)
    cell: str = _is(_id)


@dataclass(frozen=True)
class Complete:
    """What could stand at the cursor, which counts characters."""

    id: str = _is(_id)
    code: str = _is(_text)
    cursor: int = _is(_whole(0, 1 << 31))


@dataclass(frozen=True)
class Inspect:
    """What stands at the cursor; `detail` 1 asks for its source too."""

    id: str = _is(_id)
    code: str = _is(_text)
    cursor: int = _is(_whole(0, 1 << 31))
    detail: int = _may(_whole(0, 1), 0)


@dataclass(frozen=True)
class IsComplete:
    """Whether code could be run as it is."""

    id: str = _is(_id)
    code: str = _is(_text)


@dataclass(frozen=True)
class Variables:
    """What names the kernel has; with `name` one of them in detail."""

    id: str = _is(_id)
    name: str | None = _may(_name)
    max: int | None = _may(_whole(1, MAX_VARIABLES))


@dataclass(frozen=True)
class Comm:
    """To a comm in the kernel, as Jupyter has it."""

    msg_type: str = _is(_comm_type)
    content: Mapping[str, Any] = _is(_map)
    buffers: tuple[bytes, ...] = _may(_buffers, ())
    id: str | None = _may(_id)


@dataclass(frozen=True)
class Restart:
    """Lose all variables, keep the session."""

    id: str = _is(_id)


@dataclass(frozen=True)
class Touch:
    """Somebody is still there: an idle session lives on."""

    id: str = _is(_id)


Request = (
    Execute | Ack | Input | Interrupt | Cancel | Complete | Inspect | IsComplete | Variables | Comm | Restart | Touch
)
OPS: dict[str, type[Request]] = {
    "execute": Execute,
    "ack": Ack,
    "input": Input,
    "interrupt": Interrupt,
    "cancel": Cancel,
    "complete": Complete,
    "inspect": Inspect,
    "is_complete": IsComplete,
    "variables": Variables,
    "comm": Comm,
    "restart": Restart,
    "touch": Touch,
}
_NAMES = {kind: name for name, kind in OPS.items()}


def read_request(data: bytes | str, form: Form, *, max_bytes: int) -> Request:
    """What a client sent, a text frame as `str`. Raises Refused; or MessageError, with a code out of CLOSED_FOR, for
    what is no message, whatever the bytes."""
    return make_request(_read(data, form, max_bytes))


def make_request(message: Mapping[str, Any]) -> Request:
    """Of a map that was read. Raises Refused."""
    given = dict(message)
    op = given.pop("op", None)
    named = given.get("id")
    about = named if isinstance(named, str) and len(named) <= MAX_ID_CHARS else None
    kind = OPS.get(op) if isinstance(op, str) else None
    if kind is None:
        raise Refused("unknown_op", f"op is {str(op)[:40]!r}; one of {', '.join(OPS)} would pass", about)
    values = {}
    for one in fields(kind):
        value = given.pop(one.name, None)
        if value is None and (one.default is not MISSING or one.default_factory is not MISSING):
            continue
        try:
            values[one.name] = one.metadata["check"](value)
        except ValueError as error:
            raise Refused("bad_field", f"{one.name} of {op}: {error} would pass", about, field=one.name) from error
    if given:
        name = str(next(iter(given)))[:80]
        known = ", ".join(one.name for one in fields(kind))
        raise Refused("bad_field", f"{op} has no {name!r}; it may have {known}", about, field=name)
    return kind(**values)


def request_of(request: Request) -> dict[str, Any]:
    """As a client writes it: what is as by default is left out."""
    said: dict[str, Any] = {"op": _NAMES[type(request)]}
    for one in fields(request):
        value = getattr(request, one.name)
        if one.default is MISSING or value != one.default:
            said[one.name] = list(value) if isinstance(value, tuple) else value
    return said


# -- the two forms -------------------------------------------------------------------------------------


def write(message: Mapping[str, Any], form: Form) -> Frame:
    """For values that JSON and msgpack both know, and bytes."""
    if form is Form.MSGPACK:
        return Frame(msgpack.packb(message, unicode_errors="replace"), True)
    text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_in_json)
    return Frame(text.encode("utf-8", "replace"), False)


def read_event(data: bytes | str, form: Form) -> dict[str, Any]:
    """What a gateway sent, which is trusted not to make too much of it. Raises MessageError."""
    try:
        event = json.loads(data) if form is Form.JSON else msgpack.unpackb(data)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MessageError("bad_message", str(error)[:200]) from error
    if not isinstance(event, dict):
        raise MessageError("bad_message", "a map would pass")
    if isinstance(buffers := event.get("buffers"), list):
        event["buffers"] = [_bytes(one) for one in buffers]
    return event


def _in_json(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} is no value of a message")


def _read(data: bytes | str, form: Form, max_bytes: int) -> dict[str, Any]:
    if isinstance(data, str):
        if form is not Form.JSON:
            raise MessageError("text_frame", f"binary frames pass under {form.value}, which was agreed on")
        _check_size(len(data), max_bytes)  # in characters: not worth encoding what is too long already
        data = data.encode("utf-8", "replace")
    elif form is Form.JSON:
        raise MessageError("binary_frame", f"text frames pass under {form.value}, which was agreed on")
    _check_size(len(data), max_bytes)
    return _read_json(data) if form is Form.JSON else _read_msgpack(data)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise MessageError("too_large", f"{size} bytes; up to {max_bytes} would pass")


def _read_json(data: bytes) -> dict[str, Any]:
    try:
        return read_object(memoryview(data), "the message")
    except MessageError as error:
        raise MessageError("bad_message", str(error).partition(": ")[2]) from error


def _read_msgpack(data: bytes) -> dict[str, Any]:
    """As strict as with JSON. An empty list of one byte takes 56, so that what holds others is counted."""
    count = 0

    def take(holder: Any) -> Any:
        nonlocal count
        count += 1 + len(holder)
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        return holder

    def pairs(items: list[tuple[Any, Any]]) -> dict[str, Any]:
        made = dict(take(items))
        if len(made) != len(items) or not all(isinstance(name, str) for name in made):
            raise ValueError("a map has a name twice, or one that is no text")
        return made

    try:
        value = msgpack.unpackb(
            data,
            object_pairs_hook=pairs,
            list_hook=take,
            ext_hook=_no_extension,
            max_array_len=MAX_VALUES,
            max_map_len=MAX_VALUES,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MessageError("bad_message", str(error)[:200] or type(error).__name__) from error
    if not isinstance(value, dict):
        raise MessageError("bad_message", "a map would pass")
    if is_deeper(value, MAX_DEPTH):
        raise MessageError("bad_message", f"it nests too deep; {MAX_DEPTH} levels would pass")
    return value


def _no_extension(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code} is not in use here")
