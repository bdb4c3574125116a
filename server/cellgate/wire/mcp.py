"""The Model Context Protocol as a server of tools speaks it: what a client's message asks, and what is said to it.

JSON-RPC 2.0 in the revisions that begin with `initialize`: these know sessions, and a client's variables belong to one.
A client of a later revision, which has none, is told which are spoken here, and begins with `initialize` then. Pure;
what tools there are is for others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "INVALID_PARAMS",
    "METHOD_NOT_FOUND",
    "VERSIONS",
    "Call",
    "McpError",
    "Note",
    "as_event",
    "image_block",
    "progress_of",
    "read_message",
    "reply_to",
    "text_block",
    "unsupported",
    "version_for",
]

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")  # oldest first
MAX_ID_CHARS = 200  # of a request's id, which is sent back
MAX_ID_BITS = 64
INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32600, -32601, -32602  # JSON-RPC's own
UNSUPPORTED_VERSION = -32022  # MCP's

Json = dict[str, Any]


class McpError(Exception):
    """Something that is no request here. `request_id` is the request's, where it is known."""

    def __init__(self, code: int, message: str, request_id: str | int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id

    def to_json(self) -> Json:
        return {"jsonrpc": "2.0", "id": self.request_id, "error": {"code": self.code, "message": str(self)}}


@dataclass(frozen=True)
class Call:
    """A request, which is owed an answer."""

    id: str | int
    method: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def progress_token(self) -> str | int | None:
        """What progress is told under, if it is wanted."""
        meta = self.params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        return token if isinstance(token, (str, int)) else None


@dataclass(frozen=True)
class Note:
    """A notification, or an answer to something that was never asked: nothing is answered."""

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)


def read_message(said: Mapping[str, Any]) -> Call | Note:
    """Raises McpError."""
    name = said.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, (str, int)) or _is_long(name)):
        raise McpError(INVALID_REQUEST, f"id is no text or whole number of up to {MAX_ID_CHARS} characters")
    if said.get("jsonrpc") != "2.0":
        raise McpError(INVALID_REQUEST, 'jsonrpc is not "2.0"; an object of JSON-RPC 2.0 would pass', name)
    if "method" not in said and ("result" in said or "error" in said):
        return Note("")
    method, params = said.get("method"), said.get("params", {})
    if not isinstance(method, str):
        raise McpError(INVALID_REQUEST, "method is no text; the name of one would pass", name)
    if not isinstance(params, dict):
        raise McpError(INVALID_PARAMS, "params is no object; one by names would pass", name)
    return Note(method, params) if name is None else Call(name, method, params)


def version_for(asked: object) -> str:
    """The revision that is spoken with a client that asks for this one."""
    return asked if isinstance(asked, str) and asked in VERSIONS else VERSIONS[-1]


def reply_to(call: Call, result: Mapping[str, Any]) -> Json:
    return {"jsonrpc": "2.0", "id": call.id, "result": dict(result)}


def _is_long(name: str | int) -> bool:
    return len(name) > MAX_ID_CHARS if isinstance(name, str) else name.bit_length() > MAX_ID_BITS


def unsupported(message: Call | Note, version: str) -> Json:
    """A message in a revision that is not spoken here; what is, is among the data, for the client to choose from."""
    request_id = message.id if isinstance(message, Call) else None
    data = {"supported": list(VERSIONS), "requested": version[:MAX_ID_CHARS]}
    error = {"code": UNSUPPORTED_VERSION, "message": f"{', '.join(VERSIONS)} would pass", "data": data}
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def progress_of(token: str | int, progress: float, message: str) -> Json:
    params = {"progressToken": token, "progress": progress, "message": message}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


def text_block(text: str) -> Json:
    return {"type": "text", "text": text}


def image_block(base64: str, mime: str) -> Json:
    return {"type": "image", "data": base64, "mimeType": mime}


def as_event(message: Mapping[str, Any]) -> bytes:
    """As a server-sent event."""
    data = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
    return b"event: message\ndata: %b\n\n" % data
