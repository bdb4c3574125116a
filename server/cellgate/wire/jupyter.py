"""Jupyter messages as the kernel's link and both websocket subprotocols carry them: read, make, frame.

    a client's frame ── read_frame ──▶ ClientMessage      tolerant of what real clients leave out, strict in all else
    Composer ──▶ Said                                     what the gateway itself has to say, complete
    a journalled message ── write_frame ──▶ Frame         v1 as it is; legacy spliced from the parts, unparsed
    make_message, parse_message                           the other end, for whoever speaks to a kernel directly

Pure: bytes and dictionaries in, bytes and dictionaries out; ids and time come in as arguments. Knows nothing of
sockets, of the link's frames, or of what a reply means.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

from cellgate.wire.strict import as_object, dump, dump_again, load, read_object
from cellgate_kernel.message import (
    CHANNELS,
    MAX_BUFFERS,
    MAX_PARENT_ID_BYTES,
    MESSAGE_TYPES,
    OUTCOMES,
    STATES,
    Channel,
    MessageError,
    Status,
    Tag,
    join_v1,
    split_v1,
)

__all__ = [
    "CLIENT_ERRORS",
    "ERROR_NAMES",
    "MAX_INFO_BYTES",
    "PROTOCOL_VERSION",
    "Buffer",
    "ClientMessage",
    "Composer",
    "Dialect",
    "Ending",
    "Frame",
    "JupyterMessage",
    "MessageError",
    "Said",
    "choose_dialect",
    "clean_kernel_info",
    "close_code",
    "execute_content",
    "make_message",
    "make_request",
    "parse_message",
    "read_frame",
    "session_of",
    "tag_is_true",
    "usual_count",
    "write_frame",
]

Buffer = bytes | bytearray | memoryview

PROTOCOL_VERSION = "5.3"  # of the Jupyter messaging specification; what ipykernel 7 answers


class JupyterMessage(TypedDict):
    """A message that was read. `parent_id` is the id of the request it belongs to, as its header says."""

    channel: str
    msg_type: str
    header: dict[str, Any]
    parent_header: dict[str, Any]
    parent_id: str
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: list[memoryview]


def make_message(
    msg_type: str,
    content: Mapping[str, Any],
    *,
    channel: Channel,
    msg_id: str,
    session: str,
    date: str,
    username: str = "",
    parent_header: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
) -> tuple[Tag, list[Buffer]]:
    """The tag of a message to the kernel, and its parts as `join_v1` takes them. Raises TypeError or
    ValueError for content that JSON cannot say."""
    header = {
        "msg_id": msg_id,
        "msg_type": msg_type,
        "session": session,
        "username": username,
        "date": date,
        "version": PROTOCOL_VERSION,
    }
    parts: list[Buffer] = [dump(part) for part in (header, parent_header or {}, metadata or {}, content)]
    return Tag(channel, msg_type, Status.NONE, msg_id.encode()), [*parts, *buffers]


def execute_content(
    code: str,
    *,
    silent: bool = False,
    store_history: bool = True,
    user_expressions: Mapping[str, str] | None = None,
    allow_stdin: bool = False,
    stop_on_error: bool = True,
) -> dict[str, Any]:
    """The content of an execute_request, complete."""
    return {
        "code": code,
        "silent": silent,
        "store_history": store_history,
        "user_expressions": dict(user_expressions or {}),
        "allow_stdin": allow_stdin,
        "stop_on_error": stop_on_error,
    }


def parse_message(v1: memoryview) -> JupyterMessage:
    """A v1 message as a dictionary; the buffers are views into it. Raises MessageError for whatever is not
    one, be it ever so deeply nested."""
    channel, (header, parent_header, metadata, content, *buffers) = split_v1(v1)
    head, parent = load(header, "header"), load(parent_header, "parent_header")
    msg_type, parent_id = head.get("msg_type"), parent.get("msg_id", "")
    if not isinstance(msg_type, str) or not isinstance(parent_id, str):
        raise MessageError("bad_header", "msg_type, and msg_id of the parent, must be text")
    return JupyterMessage(
        channel=channel.decode(),
        msg_type=msg_type,
        header=head,
        parent_header=parent,
        parent_id=parent_id,
        metadata=load(metadata, "metadata"),
        content=load(content, "content"),
        buffers=buffers,
    )


# -- the two subprotocols ------------------------------------------------------------------------------


class Dialect(Enum):
    """How a websocket carries messages; the value is the subprotocol to answer a handshake with."""

    V1 = "v1.kernel.websocket.jupyter.org"
    LEGACY = None  # no subprotocol: JSON in text frames, and binary frames for what has buffers


class Frame(NamedTuple):
    """One websocket message."""

    data: Buffer
    is_binary: bool


def choose_dialect(offered: Iterable[str]) -> Dialect:
    """V1 for whoever offers it, whatever else is offered too; legacy for the rest."""
    return Dialect.V1 if Dialect.V1.value in offered else Dialect.LEGACY


# Every code that `read_frame` may refuse a frame with, the code to close the websocket with, and what was sent. All
# close it: a client that sends these speaks something else, and there may be no request to answer. The session goes on.
CLIENT_ERRORS: dict[str, tuple[int, str]] = {
    "too_large": (1009, "more bytes than a message may have"),
    "text_frame": (1003, "a text frame, where a binary subprotocol was agreed on"),
    "short_message": (1007, "a binary frame that ends before its table of offsets begins"),
    "bad_count": (1007, "a binary frame whose count of offsets does not fit a message or the bytes present"),
    "bad_offsets": (1007, "offsets that do not rise from the end of their table to the end of the frame"),
    "bad_channel": (1007, "a channel name other than shell, control, stdin"),
    "bad_json": (1007, "what is not a JSON object in UTF-8, has NaN or a key twice, or nests too deep"),
    "bad_header": (1007, "a header that is too long, or without a msg_id or msg_type that would pass"),
    "bad_content": (1007, "an execute_request without code, or with a field of another type than the specification's"),
    "bad_buffers": (1007, "buffers in a text frame"),
    "wrong_channel": (1008, "a type of message on a channel where it does not belong"),
}


def close_code(error: MessageError) -> int:
    """The websocket close code for what `read_frame` raised; the reason to close with is the text of the error."""
    return CLIENT_ERRORS[error.code][0]


# -- from clients --------------------------------------------------------------------------------------

MAX_HEADER_BYTES = 8192  # it is sent back with every answer; real ones have some 200
MAX_GROWTH_BYTES = 64 << 10  # of a message that is made into v1: a table of offsets, and what its header lacked
MAX_TYPE_CHARS = 64  # the longest in the specification has 22

# Where a type belongs when that matters: what is on no shell is no cell, and stdin carries only answers.
_PLACES = {"execute_request": Channel.SHELL, "input_reply": Channel.STDIN}
_CHANNELS: dict[object, Channel] = {"shell": Channel.SHELL, "control": Channel.CONTROL, "stdin": Channel.STDIN}

# A kernel that finds `code` missing, or of the wrong type, answers nothing at all: its client would wait for ever.
_EXECUTE_FIELDS: dict[str, type] = {
    "code": str,
    "silent": bool,
    "store_history": bool,
    "user_expressions": dict,
    "allow_stdin": bool,
    "stop_on_error": bool,
}


@dataclass(frozen=True)
class ClientMessage:
    """A request, or an answer on stdin, that can be journalled, sent to a kernel, and answered. What clients leave
    out of headers is filled in. `v1` is the whole; `read_frame(v1, Dialect.V1, ...)` gives an equal message."""

    channel: Channel
    msg_type: str
    msg_id: str
    header: dict[str, Any]
    content: dict[str, Any] = field(repr=False)  # code and answers are nobody's to log
    v1: bytes = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict)  # what its metadata says for us, under `cellgate`

    @property
    def parts(self) -> list[memoryview]:
        """Header, parent header, metadata, content and any buffers, as views."""
        return split_v1(memoryview(self.v1))[1]

    @property
    def tag(self) -> Tag:
        """As the link to the kernel takes it."""
        return Tag(self.channel, self.msg_type, Status.NONE, self.msg_id.encode())

    def envelope(self) -> ClientMessage:
        """The same without what it says: all that an answer needs of it, in no more than a header's bytes."""
        parts: list[Buffer] = [self.parts[0], b"{}", b"{}", b"{}"]
        return replace(self, content={}, options={}, v1=b"".join(join_v1(CHANNELS[self.channel], parts)))


def read_frame(data: str | Buffer, dialect: Dialect, *, date: str, max_bytes: int) -> ClientMessage:
    """What a client sent, a text frame as `str`. `date` is for a header that has none. Raises MessageError with one
    of CLIENT_ERRORS, whatever the bytes."""
    if isinstance(data, str):
        if dialect is Dialect.V1:
            raise MessageError("text_frame", "only binary frames pass under the subprotocol that was agreed on")
        _check_size(len(data), max_bytes)  # in characters: not worth encoding what is too long already
        data = data.encode("utf-8", "replace")
        read = _read_legacy_text
    else:
        read = _read_v1 if dialect is Dialect.V1 else _read_legacy_binary
    _check_size(len(data), max_bytes)
    message = read(bytes(data), date)
    if len(message.v1) > max_bytes + MAX_GROWTH_BYTES:  # 1e15 is written with 18 digits
        raise MessageError("too_large", f"{len(message.v1)} bytes once it is v1; up to {max_bytes} would pass")
    return message


def make_request(
    msg_type: str,
    content: Mapping[str, Any],
    *,
    channel: Channel,
    msg_id: str,
    session: str,
    date: str,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
    max_bytes: int = 0,
) -> ClientMessage:
    """What the gateway sends a kernel in its own words, read as a client's would be. Raises TypeError or ValueError
    for content that JSON cannot say, and MessageError."""
    _, parts = make_message(
        msg_type,
        content,
        channel=channel,
        msg_id=msg_id,
        session=session,
        date=date,
        metadata=metadata,
        buffers=buffers,
    )
    v1 = b"".join(join_v1(CHANNELS[channel], parts))
    return read_frame(v1, Dialect.V1, date=date, max_bytes=max(max_bytes, len(v1)))


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise MessageError("too_large", f"{size} bytes; up to {max_bytes} would pass")


def _read_v1(data: bytes, date: str) -> ClientMessage:
    name, (head, parent, metadata, content, *buffers) = split_v1(memoryview(data))
    channel = _read_channel(name.decode())
    if len(head) > MAX_HEADER_BYTES:
        raise MessageError("bad_header", f"{len(head)} bytes; up to {MAX_HEADER_BYTES} would pass")
    header = read_object(head, "header")
    complete = _complete_header(header, date)
    if complete is not header or not (parent and metadata and content):
        objects = [dump_again(complete), *(part or b"{}" for part in (parent, metadata, content))]
        return _read_v1(b"".join(join_v1(name, [*objects, *buffers])), date)
    msg_type = header["msg_type"]
    _check_place(channel, msg_type)
    if not isinstance(read_object(parent, "parent_header").get("msg_id", ""), str):
        raise MessageError("bad_header", "parent_header: none, or one whose msg_id is text, would pass")
    options = read_object(metadata, "metadata").get("cellgate")
    values = read_object(content, "content")
    _check_content(msg_type, values)
    options = options if isinstance(options, dict) else {}
    return ClientMessage(channel, msg_type, header["msg_id"], header, values, data, options)


def _read_legacy_text(data: bytes, date: str) -> ClientMessage:
    message = read_object(memoryview(data), "the message")
    if message.get("buffers"):  # absent, null, [] and {} are all sent by somebody, and mean none
        raise MessageError("bad_buffers", "a binary frame would pass")
    return _from_legacy(message, [], date)


def _read_legacy_binary(data: bytes, date: str) -> ClientMessage:
    """Big-endian 32-bit count and offsets; then, without gaps, JSON and the buffers."""
    size = len(data)
    if size < 4:
        raise MessageError("short_message", f"{size} bytes; a binary frame begins with a 4-byte count")
    (count,) = struct.unpack_from("!I", data)
    if not 1 <= count <= MAX_BUFFERS + 1 or 4 * (count + 1) > size:
        raise MessageError("bad_count", f"{count} offsets in {size} bytes; 1 to {MAX_BUFFERS + 1} that fit would pass")
    offsets = [*struct.unpack_from(f"!{count}I", data, 4), size]
    if offsets[0] != 4 * (count + 1) or any(a > b for a, b in zip(offsets, offsets[1:])):
        raise MessageError("bad_offsets", f"offsets must rise from {4 * (count + 1)} to {size}")
    view = memoryview(data)
    message, *buffers = (view[a:b] for a, b in zip(offsets, offsets[1:]))
    return _from_legacy(read_object(message, "the message"), buffers, date)


def _from_legacy(message: dict[str, Any], buffers: Sequence[Buffer], date: str) -> ClientMessage:
    """Made into v1 and read as that: one place decides what passes, and sees what the kernel will see."""
    objects = {name: as_object(message.get(name), name) for name in ("header", "parent_header", "metadata", "content")}
    name = message.get("channel")
    if name is None:
        channel = _PLACES.get(_word(objects["header"].get("msg_type")), Channel.SHELL)
    else:
        channel = _read_channel(name)
    parts = map(dump_again, objects.values())
    return _read_v1(b"".join(join_v1(CHANNELS[channel], [*parts, *buffers])), date)


def _complete_header(header: dict[str, Any], date: str) -> dict[str, Any]:
    """The same dictionary when nothing is missing."""
    msg_id, msg_type = header.get("msg_id"), header.get("msg_type")
    if not isinstance(msg_id, str) or not msg_id.isprintable() or not 1 <= len(msg_id.encode()) <= MAX_PARENT_ID_BYTES:
        raise MessageError("bad_header", f"msg_id: printable text of 1 to {MAX_PARENT_ID_BYTES} bytes would pass")
    if not isinstance(msg_type, str) or not _NAME.fullmatch(msg_type):
        raise MessageError("bad_header", f"msg_type: a name of up to {MAX_TYPE_CHARS} letters, digits and _ would pass")
    defaults = {"username": "", "session": "", "date": date, "version": PROTOCOL_VERSION}
    lacks = {name: value for name, value in defaults.items() if not _word(had := header.get(name)) and had != value}
    return {**header, **lacks} if lacks else header


_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_TYPE_CHARS - 1}}}")


def _read_channel(name: object) -> Channel:
    channel = _CHANNELS.get(name) if isinstance(name, str) else None
    if channel is None:
        raise MessageError("bad_channel", f"{str(name)[:20]!r}; shell, control or stdin would pass")
    return channel


def _check_place(channel: Channel, msg_type: str) -> None:
    if channel is not _PLACES.get(msg_type, Channel.SHELL if channel is Channel.STDIN else channel):
        raise MessageError("wrong_channel", f"{msg_type} on {channel.name.lower()}")


def _check_content(msg_type: str, content: Mapping[str, Any]) -> None:
    if msg_type != "execute_request":
        return
    if "code" not in content:
        raise MessageError("bad_content", "an execute_request has code")
    for name, wanted in _EXECUTE_FIELDS.items():
        value = content.get(name)
        if not isinstance(value, wanted) and (value is not None or name == "code"):
            raise MessageError("bad_content", f"{name} of an execute_request must be {wanted.__name__}")


# -- to clients ----------------------------------------------------------------------------------------


def write_frame(v1: Buffer, dialect: Dialect) -> Frame:
    """A journalled message for one client. Only the header of what a legacy client gets is parsed, because
    they look for the type on top; what a kernel sent as JSON is the kernel's to answer for.
    Raises MessageError when there is no header to be found."""
    if dialect is Dialect.V1:
        return Frame(v1, True)
    channel, (header, parent, metadata, content, *buffers) = split_v1(memoryview(v1))
    head = load(header, "header")
    names = {name: _word(head.get(name)) for name in ("msg_id", "msg_type")}
    text = b"".join(
        [
            *(b'{"header":', header, b",", dump(names)[1:-1]),
            *(b',"parent_header":', parent or b"{}"),
            *(b',"metadata":', metadata or b"{}"),
            *(b',"content":', content or b"{}"),
            *(b"" if buffers else b',"buffers":[]', b',"channel":"', channel, b'"}'),
        ]
    )
    try:
        str(text, "utf-8")
    except UnicodeDecodeError:  # browsers drop the connection for it, in a text frame
        text = text.decode("utf-8", "replace").encode()
    if not buffers:
        return Frame(text, False)
    count = 1 + len(buffers)
    offsets = itertools.accumulate([4 * (count + 1), len(text), *map(len, buffers[:-1])])
    table = struct.pack(f"!{count + 1}I", count, *offsets)
    return Frame(b"".join([table, text, *buffers]), True)


def tag_is_true(tag: Tag, v1: memoryview) -> bool:
    """Whether a tag says what the message behind it says, as far as a client would act on it: channel, type, parent,
    and the outcome of a status or a reply. Code in a sandbox can take its host's place, and dress one as the other.
    Of a reply that is too large to be read while all wait the tag's word counts: its outcome concerns its own session
    alone. Raises MessageError for what is laid out as no message at all."""
    channel, (header, parent, _, content, *_) = split_v1(v1)
    if len(header) > 2 * MAX_HEADER_BYTES:
        return False
    try:
        head = bytes(header)
        usual = _USUAL_HEADER.fullmatch(head)
        msg_type = usual[1].decode() if usual else _word(load(header, "header").get("msg_type"))
        if channel != CHANNELS[tag.channel] or msg_type != (tag.message_type or msg_type):
            return False
        if not tag.message_type and msg_type in MESSAGE_TYPES:
            return False
        if _parent_key(bytes(parent)) != tag.parent_id:
            return False
        if msg_type != "status" and not msg_type.endswith("_reply"):
            return tag.status is Status.NONE
        if len(content) > MAX_OUTCOME_BYTES:
            return msg_type != "status" and (tag.status is Status.NONE or tag.status in OUTCOMES.values())
        if msg_type == "status":
            return tag.status is _state_of(bytes(content))
        return tag.status is _outcome_of(content)
    except MessageError:
        return False


# Of what a kernel says are parsed, while all sessions wait: 15 MiB of brackets take a second, and half a gigabyte.
MAX_OUTCOME_BYTES = 64 << 10  # of a status, and of a reply; most have some hundred
# As the kernel host composes it. Anchored at both ends and without escapes, so that no key can be there twice.
_USUAL_HEADER = re.compile(
    rb'\{"msg_id":"[\w-]*","msg_type":"(\w+)","username":"\w*","session":"[\w-]*","version":"[\d.]*","date":"[\w:.+-]*"\}'
)


# The content of most replies: all went well, and there is nothing more to say of it.
_USUAL_REPLY = re.compile(rb'\{"status":"ok","execution_count":(\d{1,9}),"user_expressions":\{\},"payload":\[\]\}')


def usual_count(content: memoryview) -> int | None:
    """The execution count of such a reply; None if it says anything else."""
    usual = _USUAL_REPLY.fullmatch(content)
    return usual and int(usual[1])


@lru_cache(maxsize=8)  # hardly anything but busy and idle, as the kernel host says them
def _state_of(content: bytes) -> Status:
    return STATES.get(_word(load(memoryview(content), "content").get("execution_state")), Status.NONE)


def _outcome_of(content: memoryview) -> Status:
    if usual_count(content) is not None:
        return Status.OK
    return OUTCOMES.get(_word(load(content, "content").get("status")), Status.NONE)


@lru_cache(maxsize=64)  # each running cell has one, of at most MAX_HEADER_BYTES if it is true
def _parent_key(parent: bytes) -> bytes:
    if len(parent) > 2 * MAX_HEADER_BYTES:
        raise MessageError("bad_header", "the parent header is larger than any request's")
    return _word(load(memoryview(parent), "parent_header").get("msg_id")).encode("utf-8", "replace")


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


# -- what the gateway says itself ----------------------------------------------------------------------


class Said(NamedTuple):
    """A message as a journal keeps it."""

    tag: Tag
    v1: bytes


# For every end of a cell that the gateway itself has to tell: the name of the error that the client is shown. What has
# none is answered as a kernel answers what it aborts.
ERROR_NAMES: dict[str, str | None] = {
    "interrupted": "KeyboardInterrupt",
    "cancelled": None,
    "timeout_wall": "CellTimeout",
    "timeout_cpu": "CpuTimeout",
    "oom": "OutOfMemory",
    "kernel_exit": "KernelExited",
    "kernel_signal": "KernelDied",
    "kernel_unresponsive": "KernelUnresponsive",
    "protocol_violation": "ProtocolViolation",
    "policy_denied": "PolicyDenied",
    "queue_full": "QueueFull",
    "quota_used_up": "QuotaUsedUp",
    "session_deleted": "SessionDeleted",
    "session_expired": "SessionExpired",
    "supervisor_lost": "SupervisorLost",
    "backend_error": "BackendError",
}


@dataclass(frozen=True)
class Ending:
    """How a request ended that its kernel cannot answer any more. `facts` are for programs: they stand beside the
    reason in the metadata of `error` and reply, under `cellgate`."""

    reason: str  # one of ERROR_NAMES
    sentence: str
    facts: Mapping[str, object] = field(default_factory=dict)
    traceback: Sequence[str] = ()  # lines, where the sentence does not say all
    execution_count: int | None = None


class Composer:
    """Composes messages in the gateway's own name, as complete as a kernel's. `prefix` begins their ids: another for
    each session and each life of a gateway, so that none is given out twice. `date` is the time, in ISO 8601.

    `session` is what their headers name, and is to be that of the kernel for which they stand: JupyterLab drops what it
    has not yet shown when a message of another session comes."""

    def __init__(self, prefix: str) -> None:
        self.session = prefix
        self._prefix = prefix
        self._numbers = itertools.count(1)

    def say(
        self,
        channel: Channel,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        parent: ClientMessage | None,
        date: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> Said:
        """Any message, in answer to `parent`."""
        tag, (head, _, *rest) = make_message(
            msg_type,
            content,
            channel=channel,
            msg_id=f"{self._prefix}_{next(self._numbers)}",
            session=self.session,
            date=date,
            username="cellgate",
            metadata=metadata,
        )
        status = Status.NONE
        if msg_type == "status":
            status = STATES.get(content["execution_state"], Status.NONE)
        elif msg_type.endswith("_reply"):
            status = OUTCOMES.get(content.get("status", ""), Status.NONE)
        tag = tag._replace(status=status, parent_id=parent.msg_id.encode() if parent else b"")
        parts = [head, parent.parts[0] if parent else b"{}", *rest]
        return Said(tag, b"".join(join_v1(CHANNELS[channel], parts)))

    def status(self, state: str, *, parent: ClientMessage | None, date: str) -> Said:
        """starting, busy, idle, restarting, dead, ..."""
        return self.say(Channel.IOPUB, "status", {"execution_state": state}, parent=parent, date=date)

    def note(self, text: str, *, parent: ClientMessage | None, date: str, facts: Mapping[str, object]) -> Said:
        """A line for people among a cell's output, on stderr; `facts` for programs, in the metadata."""
        content = {"name": "stderr", "text": f"[cellgate: {text}]\n"}
        return self.say(Channel.IOPUB, "stream", content, parent=parent, date=date, metadata={"cellgate": dict(facts)})

    def reply(self, request: ClientMessage, content: Mapping[str, Any], *, date: str) -> list[Said]:
        """All that a request gets which the gateway answers in the kernel's stead: busy, reply, idle."""
        return [
            self.status("busy", parent=request, date=date),
            self.say(request.channel, _reply_type(request), content, parent=request, date=date),
            self.status("idle", parent=request, date=date),
        ]

    def end(self, request: ClientMessage, ending: Ending, *, date: str) -> list[Said]:
        """What ends a request that the kernel did not answer: `error` if it is a cell, the reply if its type has one,
        `comm_close` if it would have opened a comm, and idle."""
        name = ERROR_NAMES[ending.reason]
        metadata = {"cellgate": {**ending.facts, "reason": ending.reason}}
        failure: dict[str, Any] = {"ename": name, "evalue": ending.sentence}
        failure["traceback"] = [f"\x1b[31m{name}\x1b[0m: {ending.sentence}", *ending.traceback]
        reply: dict[str, Any] = {"status": "error", **failure} if name else {"status": "aborted"}
        said = []
        if request.msg_type == "execute_request":
            reply |= {"execution_count": ending.execution_count, "user_expressions": {}, "payload": []}
            if name:
                said.append(self.say(Channel.IOPUB, "error", failure, parent=request, date=date, metadata=metadata))
        if request.msg_type.endswith("_request"):
            said.append(
                self.say(request.channel, _reply_type(request), reply, parent=request, date=date, metadata=metadata)
            )
        if request.msg_type == "comm_open":
            gone = {"comm_id": _word(request.content.get("comm_id")), "data": {}}
            said.append(self.say(Channel.IOPUB, "comm_close", gone, parent=request, date=date, metadata=metadata))
        return [*said, self.status("idle", parent=request, date=date)]


def _reply_type(request: ClientMessage) -> str:
    return request.msg_type.removesuffix("_request") + "_reply"


def session_of(v1: memoryview) -> str:
    """The session that a message's header names, if that is a name; else "". Raises MessageError."""
    _, (header, *_) = split_v1(v1)
    named = _word(load(header, "header").get("session"))
    return named if _SESSION.fullmatch(named) else ""


_SESSION = re.compile(r"[\w-]{1,100}")  # real ones are UUIDs, with or without hyphens


# -- what a kernel says of itself ----------------------------------------------------------------------

MAX_INFO_BYTES = 64 << 10  # of the whole reply; ipykernel's has 2 KB, and what is longer says nothing
MAX_HELP_LINKS = 20  # ipykernel has 8
_VERSION_5 = re.compile(r"5\.\d{1,3}")
_HTTP = re.compile(r"https?://[^\s\"'<>\\\x00-\x20]{1,1000}")


def clean_kernel_info(content: Mapping[str, object]) -> dict[str, Any]:
    """The content of a kernel_info_reply with the fields that the specification names, each of its type and of a
    sane length, whatever the kernel says. Links lead to the web or are left out."""
    language = content.get("language_info")
    links = content.get("help_links")
    features = content.get("supported_features")
    version = content.get("protocol_version")
    return {
        "status": "ok",
        "protocol_version": version if isinstance(version, str) and _VERSION_5.fullmatch(version) else PROTOCOL_VERSION,
        "implementation": _text(content.get("implementation"), 100),
        "implementation_version": _text(content.get("implementation_version"), 100),
        "language_info": _language(language if isinstance(language, dict) else {}),
        "banner": _text(content.get("banner"), 4096),
        "help_links": [
            {"text": _text(link.get("text"), 100), "url": link["url"]}
            for link in (links[:MAX_HELP_LINKS] if isinstance(links, list) else ())
            if isinstance(link, dict) and isinstance(link.get("url"), str) and _HTTP.fullmatch(link["url"])
        ],
        "debugger": content.get("debugger") is True,
        "supported_features": [
            feature
            for feature in (features[:20] if isinstance(features, list) else ())
            if isinstance(feature, str) and re.fullmatch(r"[\w -]{1,50}", feature)
        ],
    }


def _language(info: Mapping[str, object]) -> dict[str, Any]:
    fields = ("name", "version", "mimetype", "file_extension", "pygments_lexer", "nbconvert_exporter")
    clean: dict[str, Any] = {name: _text(info[name], 100) for name in fields if name in info}
    mode = info.get("codemirror_mode")
    if isinstance(mode, str):
        clean["codemirror_mode"] = _text(mode, 100)
    elif isinstance(mode, dict):
        short = itertools.islice(mode.items(), 10)
        clean["codemirror_mode"] = {
            _text(key, 50): value if isinstance(value, (bool, int)) else _text(value, 100) for key, value in short
        }
    return clean


def _text(value: object, longest: int) -> str:
    """Without control characters but line ends: a banner is printed by terminals."""
    text = value[:longest] if isinstance(value, str) else ""
    return "".join(character for character in text if character.isprintable() or character == "\n")
