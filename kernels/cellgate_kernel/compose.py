"""Jupyter messages as bytes: read a request, compose what answers it.

Knows JSON and the Jupyter messaging specification, nothing of links, threads or kernels. What it composes is
always valid JSON in valid UTF-8, whatever objects user code hands in: the host side never has to doubt it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import numbers
import os
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from json.encoder import encode_basestring
from typing import Any

from .message import OUTCOMES, STATES, Channel, Status, split_v1

__all__ = ["Composer", "Parent", "Request", "RequestError", "cut", "dumps", "escape", "outcome"]

Buffer = bytes | bytearray | memoryview

PROTOCOL_VERSION = "5.3"
MAX_KEPT_BYTES = 64 << 10  # of one value in a message that is cut: enough to see what it was
LONG_TEXT = 4096  # characters from which looking for control characters first is the faster way to escape


# -- JSON ---------------------------------------------------------------------------------------------


def dumps(value: Any, levels: int = 2) -> bytes:
    """Any object as valid JSON. What JSON cannot say is made to fit: bytes become base64, NaN and the
    infinities their names, lone surrogates U+FFFD, unknown objects their repr; what nests too deep or is
    too large to be written becomes a string that says so, where it stands in the first `levels` of objects:
    a message's content must stay an object."""
    try:
        text = _encode(value)
    except (TypeError, ValueError):  # NaN, keys that are not strings, cycles, unknown objects, huge integers
        try:
            text = _encode(_clean(value))
        except (TypeError, ValueError, RecursionError) as error:
            return _piecewise(value, levels, f"{type(error).__name__} while encoding it as JSON")
    except RecursionError:
        return _piecewise(value, levels, "nested too deep for JSON")
    return _utf8(text)


def _piecewise(value: Any, levels: int, why: str) -> bytes:
    if levels and isinstance(value, Mapping):
        return b"{%b}" % b",".join(dumps(str(name)) + b":" + dumps(of, levels - 1) for name, of in value.items())
    return dumps(f"<not shown: {why}>")


def _default(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.astimezone()).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default).encode


def _clean(value: Any) -> Any:
    """The same as something `_encode` accepts; may raise RecursionError, also for a cycle."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):
        whole = int(value)
        return whole if whole.bit_length() < 8192 else f"<integer of {whole.bit_length()} bits>"
    if isinstance(value, numbers.Real):
        real = float(value)
        return real if math.isfinite(real) else repr(real)
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (bytes, bytearray, memoryview, date)):
        return _default(value)
    if hasattr(value, "__iter__"):
        return [_clean(item) for item in value]
    return repr(value)


def escape(text: str) -> bytes:
    """A string as JSON, quotes included. The hot path of all output."""
    if len(text) < LONG_TEXT or any(control in text for control in _CONTROLS):
        return _utf8(encode_basestring(text))
    for character, escaped in _ESCAPES:  # memchr finds each at GB/s; the json module takes 2 ns for any character
        if character in text:
            text = text.replace(character, escaped)
    return _utf8(f'"{text}"')


_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"))
_CONTROLS = tuple(chr(code) for code in range(32) if chr(code) != "\n")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # join what are pairs, replace what is lone
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


# -- requests -----------------------------------------------------------------------------------------


class RequestError(ValueError):
    """A message that lies well in its frame but is no Jupyter message."""


class Parent:
    """What an answer says about the request it belongs to."""

    __slots__ = ("header", "header_json", "id", "key")

    def __init__(self, header: dict[str, Any]) -> None:
        self.header = header
        self.header_json = dumps(header)
        self.id = str(header.get("msg_id", ""))
        self.key = _utf8(self.id)  # as a tag has it


class Request(Parent):
    """A message from a client, read as far as routing needs; its content when asked for.
    Raises MessageError and RequestError."""

    __slots__ = ("_content", "channel", "number", "parts", "size", "type")

    def __init__(self, number: int, message: memoryview) -> None:
        channel, parts = split_v1(message)
        header = _object(parts[0], "header")
        message_id, message_type = header.get("msg_id"), header.get("msg_type")
        if not isinstance(message_id, str) or not isinstance(message_type, str):
            raise RequestError("header: msg_id and msg_type must be strings")
        self.number = number  # the link's: requests of one link are ordered by it
        self.channel = _CHANNELS[channel]
        self.parts = parts
        self.size = len(message)
        super().__init__(header)
        self.type = message_type
        self._content: dict[str, Any] | None = None

    @property
    def content(self) -> dict[str, Any]:
        if self._content is None:
            self._content = _object(self.parts[3], "content")
        return self._content

    @property
    def message(self) -> dict[str, Any]:
        """As the dict that ipykernel's handlers take."""
        return {
            "header": self.header,
            "msg_id": self.id,
            "msg_type": self.type,
            "parent_header": _object(self.parts[1], "parent_header"),
            "metadata": _object(self.parts[2], "metadata"),
            "content": self.content,
            "buffers": self.parts[4:],
        }


_CHANNELS = {b"shell": Channel.SHELL, b"control": Channel.CONTROL, b"stdin": Channel.STDIN, b"iopub": Channel.IOPUB}


def _object(data: memoryview, name: str) -> dict[str, Any]:
    try:
        value = json.loads(bytes(data) or b"{}")
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{name}: {error}") from error
    if not isinstance(value, dict):
        raise RequestError(f"{name} is not an object")
    return value


# -- answers ------------------------------------------------------------------------------------------


def outcome(message_type: str, content: Any) -> Status:
    """What a tag says about a content: the state of a `status`, the outcome of a reply."""
    if not isinstance(content, Mapping):
        return Status.NONE
    if message_type == "status":
        return STATES.get(content.get("execution_state", ""), Status.NONE)
    return OUTCOMES.get(content.get("status", ""), Status.NONE) if message_type.endswith("_reply") else Status.NONE


class Composer:
    """Makes the headers of one kernel's messages."""

    def __init__(self) -> None:
        self.session = os.urandom(16).hex()
        self._numbers = itertools.count()
        self._tail = f'","username":"kernel","session":"{self.session}","version":"{PROTOCOL_VERSION}","date":"'

    def header(self, message_type: str) -> bytes:
        if not message_type.isidentifier():  # user code may send what it likes
            message_type = dumps(message_type)[1:-1].decode()
        identity = f'{{"msg_id":"{self.session}_{next(self._numbers)}","msg_type":"{message_type}'
        return f'{identity}{self._tail}{_date(time.time())}"}}'.encode()

    def stream(self, name: str, text: str, parent: bytes) -> list[Buffer]:
        return [self.header("stream"), parent, b"{}", b'{"name":"%b","text":%b}' % (name.encode(), escape(text))]


_second = (0, "")


def _date(now: float) -> str:
    """ISO 8601 in UTC with microseconds; the part that seldom changes is kept."""
    global _second
    whole = int(now)
    second, text = _second
    if second != whole:
        text = datetime.fromtimestamp(whole, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.")
        _second = (whole, text)
    return f"{text}{int((now - whole) * 1e6):06d}Z"


def cut(
    message_type: str, content: Mapping[str, Any], parts: Sequence[Buffer], limit: int
) -> tuple[str, dict[str, Any]]:
    """What stands for a message that is larger than `limit`: a note for the reader, and the content without
    its large values. The buffers go with them."""
    digest = hashlib.sha256()
    for part in parts[3:]:
        digest.update(part)
    size = sum(map(len, parts))
    note = (
        f"[{message_type} of {size} bytes not shown: larger than the {limit} bytes a message may have; "
        f"sha256 {digest.hexdigest()}]"
    )
    small = {key: _shorten(value) for key, value in content.items()}
    if "data" in content and not message_type.startswith("comm_"):
        small["data"] = {"text/plain": note}
        small["metadata"] = {}
    return note, small


def _shorten(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_KEPT_BYTES else value[:MAX_KEPT_BYTES] + f" [cut: {len(value)} characters]"
    if isinstance(value, Mapping):
        return value if len(dumps(value)) <= MAX_KEPT_BYTES else {}
    if isinstance(value, (list, tuple)):
        return value if len(dumps(value)) <= MAX_KEPT_BYTES else []
    return value
