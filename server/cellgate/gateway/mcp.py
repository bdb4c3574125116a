"""/mcp: the Model Context Protocol over streamable HTTP, on the server's own port.

A POST is one message; a call of a tool is answered by a stream of events, in which progress is told while it runs.
Nothing is kept here but the calls that run: the client's session is found again by the id that it sends, so that a
gateway which takes another's place knows it as well. What the tools do is in `tools`, what is said in `wire.mcp`.

The protocol's own SDK is not used for this: it takes a second to import and 55 MB in every gateway, where all that may
be imported must be before the rights go. The tests hold this against its client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from tornado.web import HTTPError

from cellgate.errors import UsageError
from cellgate.gateway.tools import INSTRUCTIONS, TOOLS, Said, Toolbox
from cellgate.gateway.v1.executes import MAX_CODE_BODY_BYTES, CellHandler
from cellgate.gateway.v1.streams import EventStream, EventsVoice
from cellgate.wire.mcp import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    VERSIONS,
    Call,
    McpError,
    Note,
    as_event,
    progress_of,
    read_message,
    reply_to,
    text_block,
    unsupported,
    version_for,
)

__all__ = ["SESSION_HEADER", "Calls", "McpHandler"]

SESSION_HEADER = "Mcp-Session-Id"
VERSION_HEADER = "MCP-Protocol-Version"
MAX_CALLS = 64  # at once, of one principal: a conversation has a handful
_SESSION = re.compile(r"[0-9a-f]{32}")

Key = tuple[str, str, str | int]  # principal, client, id of the request


class Calls:
    """Those that run, so that they can be cancelled."""

    def __init__(self) -> None:
        self._tasks: dict[Key, asyncio.Task[dict[str, Any]]] = {}

    def add(self, key: Key, task: asyncio.Task[dict[str, Any]]) -> None:
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def has(self, key: Key) -> bool:
        return key in self._tasks

    def count(self, principal: str) -> int:
        return sum(key[0] == principal for key in self._tasks)

    def cancel(self, key: Key) -> None:
        if task := self._tasks.get(key):
            task.cancel()


class McpHandler(CellHandler):
    max_body_bytes = MAX_CODE_BODY_BYTES

    client = ""  # whose session is meant where none is named

    def prepare(self) -> None:
        super().prepare()
        self.client = self.request.headers.get(SESSION_HEADER, "")
        if self.client and not _SESSION.fullmatch(self.client):  # given out by somebody else
            raise HTTPError(404)

    async def post(self) -> None:
        self.words()
        version = self.request.headers.get(VERSION_HEADER, VERSIONS[-1])
        try:
            message = read_message(self.fields())
            if version not in VERSIONS:
                self.answer(unsupported(message, version), 400)
            elif isinstance(message, Note):
                self._hear(message)
            else:
                await self._answer(message)
        except McpError as error:
            if error.request_id is None:  # nobody's: it is answered as HTTP answers
                raise UsageError(str(error)) from error
            self.answer(error.to_json())

    async def delete(self) -> None:
        """The client is done: its own session ends."""
        for live in self.manager.sessions(self.principal):
            if self.client and live.wish.idempotency_key == _key_of(self.client):
                await live.delete()
        self.answer_nothing()

    def _hear(self, note: Note) -> None:
        request_id = note.params.get("requestId")
        if note.method == "notifications/cancelled" and isinstance(request_id, (str, int)):
            self.services.calls.cancel((self.principal, self.client, request_id))
        self.set_status(202)
        self.clear_header("Content-Type")
        self.finish()

    async def _answer(self, call: Call) -> None:
        """Raises McpError."""
        if call.method == "initialize":
            self.set_header(SESSION_HEADER, self.client or uuid4().hex)
            self.answer(reply_to(call, _about(call.params.get("protocolVersion"))))
        elif call.method == "ping":
            self.answer(reply_to(call, {}))
        elif call.method == "tools/list":
            self.answer(reply_to(call, {"tools": [tool.to_json() for tool in TOOLS.values()]}))
        elif call.method == "tools/call":
            await self._call(call)
        else:
            raise McpError(METHOD_NOT_FOUND, f"{call.method[:80]!r} is not known here; tools are", call.id)

    async def _call(self, call: Call) -> None:
        """Whoever hangs up leaves it running: the protocol says so; who wants it to end cancels it. Raises McpError."""
        name, fields = call.params.get("name"), call.params.get("arguments") or {}
        if not isinstance(name, str) or name not in TOOLS or not isinstance(fields, dict):
            would_pass = f"one of {', '.join(TOOLS)}, with an object of arguments, would pass"
            raise McpError(INVALID_PARAMS, f"{str(name)[:80]!r} is no tool; {would_pass}", call.id)
        calls, key = self.services.calls, (self.principal, self.client, call.id)
        if calls.has(key) or calls.count(self.principal) >= MAX_CALLS:
            raise McpError(INVALID_PARAMS, f"this id runs already, or {MAX_CALLS} calls do; try again later", call.id)
        stream = EventStream(self, EventsVoice(b"")) if self.wants_events else None
        work = asyncio.ensure_future(self._run(name, fields, call, stream))
        calls.add(key, work)
        if stream is None:
            await asyncio.wait([work])
            self.answer(work.result() if not work.cancelled() else {})
            return
        self.stream = stream
        work.add_done_callback(partial(_end, stream))
        await stream.serve()

    async def _run(
        self, name: str, fields: Mapping[str, object], call: Call, stream: EventStream | None
    ) -> dict[str, Any]:
        token = call.progress_token
        toolbox = Toolbox(self.manager, self.principal, _key_of(self.client))
        if stream is not None and token is not None:
            toolbox.progress = lambda done, line: stream.write(as_event(progress_of(token, done, line)))
        try:
            said = await toolbox.call(TOOLS[name], fields)
        except Exception as error:
            problem = self.problem_of(error)
            said = Said([text_block(f"{problem.message} [{problem.code}]")], is_error=True)
        return reply_to(call, {"content": said.blocks, "isError": said.is_error})


def _key_of(client: str) -> str:
    """The idempotency key of a client's own session; of those that have no id, one for all of a principal's."""
    return f"mcp-{client}"


def _about(version: object) -> dict[str, Any]:
    return {
        "protocolVersion": version_for(version),
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "cellgate", "title": "Cellgate", "version": "1"},
        "instructions": INSTRUCTIONS,
    }


def _end(stream: EventStream, work: asyncio.Task[dict[str, Any]]) -> None:
    """A call that was cancelled is owed no answer."""
    if not work.cancelled():
        stream.write(as_event(work.result()))
    stream.end()
