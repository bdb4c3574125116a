"""A session's journal in the words of agents, and what agents ask in those of a session.

    a record ── event_of ──▶ an event, or None      what a notebook's frontend is shown, by name and without parents
    Execute, Input, Comm ── message_of ──▶ ClientMessage

Pure. One record is one event at most, and whatever a kernel said, an event has the fields of its kind and each of its
type. Events are made when they are read, so that they are the same for whoever reads them when.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any
from uuid import uuid4

from cellgate.sessions.records import Kind, Record
from cellgate.sessions.states import CellReason, State
from cellgate.wire.agent import Comm, Complete, Execute, Input, Inspect, IsComplete, Refused, Variables
from cellgate.wire.jupyter import ClientMessage, execute_content, make_request, usual_count
from cellgate.wire.strict import load_plainly
from cellgate_kernel.message import Channel, MessageError, split_v1

__all__ = ["EVENTS", "Event", "answer_of", "event_of", "message_of", "question_of", "summary_of"]

Event = dict[str, Any]

# Every event that a journal may hold, and its fields beside `event`, `seq`, `time` and `cell`; "?" may be missing.
EVENTS: dict[str, tuple[str, ...]] = {
    "accepted": ("client", "code"),
    "started": ("count", "code"),
    "stdout": ("text",),
    "stderr": ("text",),
    "display": ("data", "metadata", "display_id?"),
    "update_display": ("data", "metadata", "display_id?"),
    "clear_output": ("wait",),
    "result": ("data", "metadata", "count"),
    "error": ("name", "value", "traceback"),
    "input_request": ("prompt", "password"),
    "finished": (
        *("status", "reason", "sentence?", "facts?", "count?", "metrics", "truncated?"),
        *("expressions?", "diff?", "payload?", "left_out_bytes?"),
    ),
    "notice": ("note", "text", "facts"),
    "gap": ("first", "last", "count"),
    "state": ("state", "incarnation", "reason?", "sentence?"),
    "comm": ("msg_type", "content", "buffers"),
}

MAX_SUMMARY_BYTES = 64 << 10  # of a reply: it stands in the journal twice, and is parsed while all sessions wait

_DATE = re.compile(rb'"date": ?"([^"\\]{10,40})"')
_ENDS = (State.DEAD.value, State.GONE.value)
_STATUSES = {CellReason.OK.value: "ok", CellReason.CANCELLED.value: "aborted"}


def event_of(record: Record, seq: int, reader: bytes | None = None) -> Event | None:
    """What a record with this number tells an agent; None for one that tells it nothing. `reader`: who reads, and is
    told what is for that client alone."""
    try:
        said = _said(record, reader)
    except MessageError as error:
        facts = {"type": record.tag.message_type, "bytes": len(record.body), "problem": str(error)}
        text = "a message that no program could read is left out here"
        said = {"event": "notice", "note": "unreadable", "text": text, "facts": facts}
    if said is None:
        return None
    if "re" not in said:  # an answer, as those that stand in no journal
        said["seq"] = seq
    if record.cell and record.tag.parent_id:
        said["cell"] = record.tag.parent_id.decode("utf-8", "replace")
    return said


def _said(record: Record, reader: bytes | None) -> Event | None:
    kind = record.kind
    if kind is Kind.OUTPUT:
        channel, name = record.tag.channel, record.tag.message_type
        if (channel is Channel.IOPUB and not record.client) or channel is Channel.STDIN:
            make = _OF_OUTPUT.get(name)
            return _timed(record, make) if make else None
        if name == "execute_reply" and not record.cell and record.client == reader:
            return _timed(record, _refusal)
        return None
    if kind is Kind.NOTE:
        return _timed(record, _end_of_kernel if record.tag.message_type == "status" else _notice)
    if kind is Kind.REQUEST:
        return _timed(record, partial(_accepted, record.client))
    if kind is Kind.TERMINAL:
        return _finished(load_plainly(memoryview(record.body))) if record.tag.parent_id else None
    if kind is Kind.INCARNATION:
        return _state(load_plainly(memoryview(record.body)))
    return None


Parts = list[memoryview]  # header, parent header, metadata, content, and any buffers


def _accepted(client: bytes, parts: Parts) -> Event:
    code = _word(load_plainly(parts[3]).get("code"))
    return {"event": "accepted", "client": client.decode("utf-8", "replace"), "code": code}


def _timed(record: Record, make: Callable[[Parts], Event | None]) -> Event | None:
    parts = split_v1(memoryview(record.body))[1]
    event = make(parts)
    if event is None:
        return None
    if not record.cell and record.tag.parent_id and "re" not in event:
        event["parent"] = record.tag.parent_id.decode("utf-8", "replace")
    if (found := _DATE.search(parts[0])) and (time := _seconds(found[1].decode("ascii", "replace"))) is not None:
        event["time"] = time
    return event


def _seconds(date: str) -> float | None:
    try:
        moment = datetime.fromisoformat(date.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


# -- what kernels say ----------------------------------------------------------------------------------


def _stream(parts: Parts) -> Event:
    content = load_plainly(parts[3])
    return {"event": "stderr" if content.get("name") == "stderr" else "stdout", "text": _word(content.get("text"))}


def _started(parts: Parts) -> Event:
    content = load_plainly(parts[3])
    return {"event": "started", "count": _count(content), "code": _word(content.get("code"))}


def _display(parts: Parts) -> Event:
    return {"event": "display", **_shown(load_plainly(parts[3]))}


def _update_display(parts: Parts) -> Event:
    return {"event": "update_display", **_shown(load_plainly(parts[3]))}


def _result(parts: Parts) -> Event:
    content = load_plainly(parts[3])
    return {"event": "result", **_shown(content), "count": _count(content)}


def _shown(content: Mapping[str, Any]) -> Event:
    display_id = _table(content.get("transient")).get("display_id")
    named = {"display_id": display_id} if isinstance(display_id, str) else {}
    return {"data": _table(content.get("data")), "metadata": _table(content.get("metadata")), **named}


def _clear_output(parts: Parts) -> Event:
    return {"event": "clear_output", "wait": load_plainly(parts[3]).get("wait") is True}


def _error(parts: Parts) -> Event:
    content = load_plainly(parts[3])
    traceback = content.get("traceback")
    lines = [line for line in traceback if isinstance(line, str)] if isinstance(traceback, list) else []
    return {
        "event": "error",
        "name": _word(content.get("ename")),
        "value": _word(content.get("evalue")),
        "traceback": lines,
    }


def _input_request(parts: Parts) -> Event:
    content = load_plainly(parts[3])
    password = content.get("password") is True
    return {"event": "input_request", "prompt": _word(content.get("prompt")), "password": password}


def _comm(name: str) -> Callable[[Parts], Event]:
    def make(parts: Parts) -> Event:
        buffers = [bytes(part) for part in parts[4:]]
        return {"event": "comm", "msg_type": name, "content": load_plainly(parts[3]), "buffers": buffers}

    return make


_OF_OUTPUT: dict[str, Callable[[Parts], Event]] = {
    "execute_input": _started,
    "stream": _stream,
    "display_data": _display,
    "update_display_data": _update_display,
    "clear_output": _clear_output,
    "execute_result": _result,
    "error": _error,
    "input_request": _input_request,
    **{name: _comm(name) for name in ("comm_open", "comm_msg", "comm_close")},
}


# -- what the gateway says -----------------------------------------------------------------------------


def _refusal(parts: Parts) -> Event:
    """Of a cell that was not accepted, to whoever asked for it."""
    facts = _table(load_plainly(parts[2]).get("cellgate"))
    message = _word(load_plainly(parts[3]).get("evalue"))
    re = _word(load_plainly(parts[1]).get("msg_id"))
    code = _word(facts.pop("reason", ""))
    fault = "ours" if code == CellReason.BACKEND_ERROR.value else "yours"
    return {"event": "error", "re": re, "code": code, "message": message, "fault": fault, "facts": facts}


def _notice(parts: Parts) -> Event:
    facts = _table(load_plainly(parts[2]).get("cellgate"))
    text = _word(load_plainly(parts[3]).get("text")).removeprefix("[cellgate: ").removesuffix("]\n")
    return {"event": "notice", "note": _word(facts.pop("note", "")), "text": text, "facts": facts}


def _end_of_kernel(parts: Parts) -> Event | None:
    """What another kernel follows is told by its beginning."""
    facts = _table(load_plainly(parts[2]).get("cellgate"))
    return _state(facts) if facts.get("state") in _ENDS else None


def _state(facts: Mapping[str, Any]) -> Event:
    named = {name: facts[name] for name in ("reason", "sentence") if facts.get(name)}
    event: Event = {"event": "state", "state": _word(facts.get("state")), "incarnation": facts.get("incarnation")}
    return {**event, **named, **_time_of(facts)}


def _finished(body: Mapping[str, Any]) -> Event:
    reason = _word(body.get("reason"))
    event: Event = {"event": "finished", "status": _STATUSES.get(reason, "error"), "reason": reason}
    event["metrics"] = _table(body.get("metrics"))
    for name in ("sentence", "facts", "count", "truncated", "expressions", "diff", "payload", "left_out_bytes"):
        if body.get(name):
            event[name] = body[name]
    return {**event, **_time_of(body)}


def _time_of(body: Mapping[str, Any]) -> Event:
    time = _seconds(_word(body.get("date")))
    return {} if time is None else {"time": time}


def summary_of(reply: Record) -> dict[str, Any]:
    """What of a cell's reply its end says again: readers may come who begin behind the reply."""
    try:
        _, _, metadata, content, *_ = split_v1(memoryview(reply.body))[1]
        size = len(metadata) + len(content)
        if size > MAX_SUMMARY_BYTES:
            return {"left_out_bytes": size}
        ours = _table(load_plainly(metadata).get("cellgate"))
        found: dict[str, Any] = {"count": usual_count(content)}
        if found["count"] is None:
            said = load_plainly(content)
            found["count"] = _count(said)
            found["expressions"], found["payload"] = _table(said.get("user_expressions")), _list(said.get("payload"))
    except MessageError:
        return {}
    found["diff"] = _table(ours.get("diff"))
    found["metrics"] = {name: ours[name] for name in ("cpu", "peak_memory") if _is_amount(ours.get(name))}
    return {name: value for name, value in found.items() if value}


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(content: Mapping[str, Any]) -> int | None:
    count = content.get("execution_count")
    return count if type(count) is int else None


# -- what agents ask -----------------------------------------------------------------------------------


def message_of(request: Execute | Input | Comm, *, date: str, max_bytes: int) -> ClientMessage:
    """As a Jupyter client would have sent it. Raises Refused."""
    channel = Channel.SHELL
    metadata: dict[str, Any] = {}
    buffers: tuple[bytes, ...] = ()
    if isinstance(request, Execute):
        kind, msg_id = "execute_request", request.id
        content = execute_content(
            request.code,
            silent=request.silent,
            store_history=request.store_history,
            user_expressions=request.expressions,
            allow_stdin=request.stdin,
            stop_on_error=request.stop_on_error,
        )
        options = {"once": True, "timeout": request.timeout, "limits": dict(request.limits), "diff": request.diff}
        metadata = {"cellgate": {name: value for name, value in options.items() if value}}
    elif isinstance(request, Input):
        kind, msg_id, channel = "input_reply", uuid4().hex, Channel.STDIN
        content = {"status": "ok", "value": request.value}
    else:
        kind, msg_id, buffers = request.msg_type, uuid4().hex, request.buffers
        content = dict(request.content)
    try:
        return make_request(
            kind,
            content,
            channel=channel,
            msg_id=msg_id,
            session="agent",
            date=date,
            metadata=metadata,
            buffers=buffers,
            max_bytes=max_bytes,
        )
    except (TypeError, ValueError) as error:  # what msgpack can say and JSON cannot, and MessageError
        raise Refused("bad_field", f"{error}; what JSON can say would pass", request.id) from error


Question = Complete | Inspect | IsComplete | Variables


def question_of(request: Question) -> tuple[str, dict[str, Any]]:
    """What the kernel is asked: a message's type and content."""
    if isinstance(request, Complete):
        return "complete_request", {"code": request.code, "cursor_pos": request.cursor}
    if isinstance(request, Inspect):
        content = {"code": request.code, "cursor_pos": request.cursor, "detail_level": request.detail}
        return "inspect_request", content
    if isinstance(request, IsComplete):
        return "is_complete_request", {"code": request.code}
    wanted = {"name": request.name, "max": request.max}
    return "variables_request", {name: value for name, value in wanted.items() if value is not None}


def answer_of(request: Question, content: Mapping[str, Any]) -> dict[str, Any]:
    """What of the kernel's reply the agent is told. Raises Refused for one that says no."""
    if content.get("status") == "error":
        name, value = _word(content.get("ename")), _word(content.get("evalue"))
        raise Refused(
            "kernel_error", f"the kernel could not answer: {name}: {value}", request.id, name=name, value=value
        )
    if isinstance(request, Complete):
        return {
            "matches": [match for match in _list(content.get("matches")) if isinstance(match, str)],
            "start": content.get("cursor_start"),
            "end": content.get("cursor_end"),
            "types": _list(_table(content.get("metadata")).get("_jupyter_types_experimental")),
        }
    if isinstance(request, Inspect):
        return {"found": content.get("found") is True, "data": _table(content.get("data"))}
    if isinstance(request, IsComplete):
        return {"status": _word(content.get("status")) or "unknown", "indent": _word(content.get("indent"))}
    more = content.get("more")
    return {"variables": _list(content.get("variables")), "more": more if type(more) is int else 0}
