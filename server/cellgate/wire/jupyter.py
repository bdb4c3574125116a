"""Jupyter messages as the kernel's link and the v1 websocket subprotocol carry them: build requests, read answers.

Pure: bytes and dictionaries in, bytes and dictionaries out; ids and time come in as arguments. Knows nothing
of sockets, of the link's frames, or of what a reply means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from cellgate_kernel.message import Channel, MessageError, Status, Tag, split_v1

__all__ = ["PROTOCOL_VERSION", "Buffer", "JupyterMessage", "execute_content", "make_message", "parse_message"]

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
    parts: list[Buffer] = [_dump(part) for part in (header, parent_header or {}, metadata or {}, content)]
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
    head, parent = _load(header, "header"), _load(parent_header, "parent_header")
    msg_type, parent_id = head.get("msg_type"), parent.get("msg_id", "")
    if not isinstance(msg_type, str) or not isinstance(parent_id, str):
        raise MessageError("bad_header", "msg_type, and msg_id of the parent, must be text")
    return JupyterMessage(
        channel=channel.decode(),
        msg_type=msg_type,
        header=head,
        parent_header=parent,
        parent_id=parent_id,
        metadata=_load(metadata, "metadata"),
        content=_load(content, "content"),
        buffers=buffers,
    )


def _dump(value: Mapping[str, Any]) -> bytes:
    # allow_nan: NaN is not JSON, and a strict reader would refuse the whole message.
    # errors: a lone surrogate in code is the user's to hear about from the compiler, not ours to die of.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def _load(data: memoryview, name: str) -> dict[str, Any]:
    try:
        text = str(data, "utf-8")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # an int of more than 4300 digits is JSON too, and not worth its message
            value = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise MessageError("bad_json", f"{name}: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise MessageError("bad_json", f"{name} must be an object")
    return value
