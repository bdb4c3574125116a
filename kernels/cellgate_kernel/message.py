"""How a Jupyter message lies in the body of a link's frame.

A body is a tag (channel, message type, status, parent id) and the message as the websocket subprotocol
v1.kernel.websocket.jupyter.org lays it out. The host routes by the tag and passes the rest on untouched.
Pure; knows nothing of sockets or of JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

__all__ = [
    "CHANNELS",
    "ERROR_CODES",
    "MAX_BUFFERS",
    "MESSAGE_TYPES",
    "OUTCOMES",
    "STATES",
    "Channel",
    "MessageError",
    "Status",
    "Tag",
    "join_v1",
    "split_v1",
]

Buffer = bytes | bytearray | memoryview


class Channel(IntEnum):
    SHELL = 0
    CONTROL = 1
    STDIN = 2
    IOPUB = 3


CHANNELS: tuple[bytes, ...] = (b"shell", b"control", b"stdin", b"iopub")

# The position is the code on the wire: append only. Code 0 stands for any type that is not listed.
MESSAGE_TYPES: tuple[str, ...] = (
    "",
    "status",
    "stream",
    "display_data",
    "update_display_data",
    "execute_input",
    "execute_result",
    "error",
    "clear_output",
    "execute_request",
    "execute_reply",
    "input_request",
    "input_reply",
    "comm_open",
    "comm_msg",
    "comm_close",
    "kernel_info_request",
    "kernel_info_reply",
    "interrupt_request",
    "interrupt_reply",
    "shutdown_request",
    "shutdown_reply",
    "complete_request",
    "complete_reply",
    "inspect_request",
    "inspect_reply",
    "is_complete_request",
    "is_complete_reply",
    "history_request",
    "history_reply",
    "comm_info_request",
    "comm_info_reply",
    "debug_request",
    "debug_reply",
    "debug_event",
    "files_request",
    "files_reply",
    "variables_request",
    "variables_reply",
)


class Status(IntEnum):
    """A hint of what the content says, so that the host need not parse it: of `status` messages the
    execution state, of replies the outcome."""

    NONE = 0
    STARTING = 1
    BUSY = 2
    IDLE = 3
    OK = 4
    ERROR = 5
    ABORTED = 6


# How messages say it: the execution_state of a `status`, the status of a reply.
STATES = {"starting": Status.STARTING, "busy": Status.BUSY, "idle": Status.IDLE}
OUTCOMES = {"ok": Status.OK, "error": Status.ERROR, "aborted": Status.ABORTED, "abort": Status.ABORTED}


MAX_PARENT_ID_BYTES = 255  # message ids are uuids of some 40 bytes; one byte of length on the wire
MAX_BUFFERS = 4096  # a widget sends a handful; each costs an offset, a view and a loop turn at the receiver
MIN_OFFSETS = 6  # where channel, header, parent header, metadata and content begin, and where the last part ends
MAX_OFFSETS = MIN_OFFSETS + MAX_BUFFERS
_TAG = struct.Struct("<BBBB")  # channel, type code, status, length of the parent id
_USUAL = struct.Struct(f"<{1 + MIN_OFFSETS}Q")  # count and offsets of a message without buffers
TYPE_CODES = {name: code for code, name in enumerate(MESSAGE_TYPES)}
_CHANNEL = tuple(Channel)  # looking up is a tenth of calling the enum, and this is done for every frame
_STATUS = tuple(Status)

# Every code a MessageError can carry, and what is wrong.
ERROR_CODES = {
    "short_tag": "the body ends within its tag",
    "bad_tag": "a channel, type code or status that is not in the tables",
    "short_message": "less than the count of offsets",
    "bad_count": "fewer offsets than a message has, more than MAX_BUFFERS allows, or more than fit the bytes present",
    "bad_offsets": "offsets that do not rise from the end of their table to the end of the message",
    "bad_channel": "a channel name other than shell, control, stdin, iopub",
}


class MessageError(ValueError):
    """The bytes are not a message; `code` is stable, the text says what would have passed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class Tag(NamedTuple):
    """What the host needs to know of a message to route it. `parent_id` is the id of the request it
    belongs to; of a request itself, its own id."""

    channel: Channel
    message_type: str  # "" when it is not in MESSAGE_TYPES
    status: Status
    parent_id: bytes

    def pack(self) -> bytes:
        """The bytes before the message. A longer parent id is cut; compare it cut as well."""
        return _pack_tag(self)

    @staticmethod
    def unpack(body: memoryview) -> tuple[Tag, memoryview]:
        """The tag of a frame's body, and the message behind it. Raises MessageError."""
        if len(body) < _TAG.size:
            raise MessageError("short_tag", f"{len(body)} bytes where a tag takes {_TAG.size}")
        channel, kind, status, size = _TAG.unpack_from(body)
        if channel >= len(_CHANNEL) or kind >= len(MESSAGE_TYPES) or status >= len(_STATUS):
            raise MessageError("bad_tag", f"channel {channel}, type {kind}, status {status}")
        end = _TAG.size + size
        if len(body) < end:
            raise MessageError("short_tag", f"parent id of {size} bytes in a body of {len(body)}")
        parent = bytes(body[_TAG.size : end])
        return Tag(_CHANNEL[channel], MESSAGE_TYPES[kind], _STATUS[status], parent), body[end:]


@lru_cache(maxsize=64)  # the messages of a cell share a handful
def _pack_tag(tag: Tag) -> bytes:
    parent = tag.parent_id[:MAX_PARENT_ID_BYTES]
    return _TAG.pack(tag.channel, TYPE_CODES.get(tag.message_type, 0), tag.status, len(parent)) + parent


def join_v1(channel: bytes, parts: Sequence[Buffer]) -> list[Buffer]:
    """The buffers of a v1 message: `parts` are header, parent header, metadata, content and any buffers.
    Parts that are not `bytes` are copied: a link keeps what it sent, while user code changes its array.
    Raises MessageError if the receiver would refuse the number of parts."""
    count = len(parts) + 2
    if not MIN_OFFSETS <= count <= MAX_OFFSETS:
        raise MessageError("bad_count", f"{len(parts)} parts; {MIN_OFFSETS - 2} to {MAX_OFFSETS - 2} would pass")
    flat = [part if isinstance(part, bytes) else bytes(part) for part in parts]
    sizes = accumulate(map(len, (channel, *flat)), initial=8 * (count + 1))
    offsets = _USUAL if count == MIN_OFFSETS else struct.Struct(f"<{count + 1}Q")
    return [offsets.pack(count, *sizes), channel, *flat]


def split_v1(data: memoryview) -> tuple[bytes, list[memoryview]]:
    """The channel and the parts (header, parent header, metadata, content, buffers...) of a v1 message.
    Counts and offsets are held against the bytes present before anything is made. Raises MessageError."""
    size = len(data)
    if size >= _USUAL.size:  # no buffers: nearly all messages, in half the time
        count, at, head, parent, metadata, content, end = _USUAL.unpack_from(data)
        if count == MIN_OFFSETS and _USUAL.size == at <= head <= parent <= metadata <= content <= end == size:
            channel = bytes(data[at:head])
            if channel in CHANNELS:
                return channel, [data[head:parent], data[parent:metadata], data[metadata:content], data[content:end]]
    if size < 8:
        raise MessageError("short_message", f"{size} bytes; a message begins with an 8-byte count")
    (count,) = struct.unpack_from("<Q", data)
    if not MIN_OFFSETS <= count <= MAX_OFFSETS or 8 * (count + 1) > size:
        would_pass = f"{MIN_OFFSETS} to {MAX_OFFSETS} that fit would pass"
        raise MessageError("bad_count", f"{count} offsets in {size} bytes; {would_pass}")
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    if offsets[0] != 8 * (count + 1) or offsets[-1] != size or any(a > b for a, b in zip(offsets, offsets[1:])):
        raise MessageError("bad_offsets", f"offsets must rise from {8 * (count + 1)} to {size}")
    channel = bytes(data[offsets[0] : offsets[1]])
    if channel not in CHANNELS:
        raise MessageError("bad_channel", f"{channel[:20]!r}; shell, control, stdin or iopub would pass")
    return channel, [data[a:b] for a, b in zip(offsets[1:], offsets[2:])]
