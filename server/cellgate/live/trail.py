"""Which request of a client something is done for: an id that its answer bears, and what is told of it in the logs.

Whoever asks may choose the id, so that what a proxy or an agent logs is found again here; else one is made. It lives in
a context variable, which tasks that are begun for a request inherit. Some outlive it: it is known to be over then, and
nothing is told to be done for it any more. A websocket is one request as long as it is open.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["REQUEST_ID", "Request", "begin", "current", "request_id"]

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # fits a UUID, a trace's id, and a line of a log


@dataclass
class Request:
    id: str
    is_over: bool = False
    span: Any = None  # of OpenTelemetry's, where traces are told


_current: ContextVar[Request | None] = ContextVar("request", default=None)


def begin(chosen: str | None) -> Request:
    """What this task does from now on is done for a request of this id; for one that is made, if none was chosen, or
    what was chosen cannot stand in a log. Whoever calls says when it is over."""
    request = Request(chosen if chosen is not None and REQUEST_ID.fullmatch(chosen) else secrets.token_hex(8))
    _current.set(request)
    return request


def current() -> Request | None:
    """What this is done for."""
    request = _current.get()
    return None if request is None or request.is_over else request


def request_id() -> str:
    """Of the request that this is done for; "" when it is done for none."""
    request = current()
    return "" if request is None else request.id
