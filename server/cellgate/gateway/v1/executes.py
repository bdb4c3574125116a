"""Code run in a session over REST, what is said there, and what names it has: /v1/sessions/<id>/execute, /events and
/variables.

A cell is the same whoever asks for it; here its events are folded into one answer, or streamed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

from cellgate.errors import NotAnswered, UsageError
from cellgate.gateway.bodies import check_names
from cellgate.gateway.v1.sessions import V1Handler
from cellgate.gateway.v1.streams import EVENT_STREAM, EventStream, EventsVoice, gap_event
from cellgate.live.audience import WATCHER
from cellgate.live.follower import Follower, place_of
from cellgate.live.questions import Answer
from cellgate.live.session import LiveSession, date_now
from cellgate.sessions.agents import answer_of, event_of, message_of, question_of
from cellgate.sessions.journal import Cursor
from cellgate.wire.agent import Execute, Form, Refused, Variables, make_request, write
from cellgate.wire.rendering import DEFAULT_CHARS, MIN_CHARS, render
from cellgate.wire.result import Result

__all__ = [
    "CELL_NAMES",
    "MAX_CODE_BODY_BYTES",
    "MAX_RESULT_BYTES",
    "EventsHandler",
    "ExecuteHandler",
    "VariablesHandler",
    "ask_soon",
    "read_cell",
]

MAX_CODE_BODY_BYTES = 8 << 20  # of a request with code: as much as a message of a websocket may have by default
MAX_RESULT_BYTES = 4 << 20  # of output in one answer, which is held whole and composed while all sessions wait
PAGE_BYTES = 256 << 10  # of the journal, read for one page of events
MAX_READS = 16  # for a page, when what is read holds no event
MAX_CHARS = 1_000_000  # of a text that stands for outputs; whoever reads more takes the outputs
VARIABLES_SECONDS = 30.0  # until a kernel that runs a cell is not waited for any longer
CELL_NAMES = ("id", "code", "timeout", "store_history", "silent", "stop_on_error", "limits", "expressions", "diff")
_NUMBER = re.compile("[0-9]{1,18}")


def read_cell(fields: Mapping[str, object]) -> Execute:
    """What a body asks to run. Raises UsageError."""
    check_names(fields, CELL_NAMES)
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        cell = make_request({"id": uuid4().hex, **given, "op": "execute"})
    except Refused as refused:
        raise UsageError(refused.message) from refused
    assert isinstance(cell, Execute)
    return cell


def with_output_of(cell: Execute, most_bytes: int) -> Execute:
    """So that its output fits an answer; the middle is cut where there is more, and told."""
    asked = cell.limits.get("output_bytes_per_cell", most_bytes)
    return replace(cell, limits={**cell.limits, "output_bytes_per_cell": min(asked, most_bytes)})


async def shown(result: Result, chars: int | None, rest: str) -> dict[str, Any]:
    """All of it; or a text for a language model, and beside it how the cell ended. `rest`: how to get what the text
    leaves out."""
    if chars is None:
        return result.to_json()
    text = await asyncio.to_thread(render, result, max_chars=chars, rest=rest)  # of megabytes, perhaps
    return {**{name: getattr(result, name) for name in ("cell", "status", "reason", "seq")}, "text": text}


class CellHandler(V1Handler):
    """What handlers that run code have in common."""

    max_body_bytes = MAX_CODE_BODY_BYTES
    read_bytes = 0  # of its body
    stream: EventStream | None = None

    def fields(self) -> dict[str, object]:
        """The body itself is not kept while the code runs."""
        fields = super().fields()
        self.read_bytes = len(self._body)
        self._body.clear()
        return fields

    @property
    def wants_events(self) -> bool:
        return EVENT_STREAM in self.request.headers.get("Accept", "")

    def seen(self) -> int | None:
        """The number of the last event that the client has, if it comes again. Raises UsageError."""
        text = self.request.headers.get("Last-Event-ID")
        if text is None:
            return None
        if not _NUMBER.fullmatch(text):
            raise UsageError(f"Last-Event-ID is {text[:40]!r}; the id of an event would pass")
        return int(text)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self.stream is not None:
            self.stream.end()

    def wanted_chars(self) -> int | None:
        """How long a text is to be that stands for the outputs, if one was asked for. Raises UsageError."""
        words = self.words("render", "max_chars")
        text = words.get("max_chars", str(DEFAULT_CHARS))
        if words.get("render", "text") != "text":
            raise UsageError(f"render is {words['render'][:40]!r}; text would pass")
        if not _NUMBER.fullmatch(text) or not MIN_CHARS <= int(text) <= MAX_CHARS:
            raise UsageError(f"max_chars is {text[:40]!r}; a number from {MIN_CHARS} to {MAX_CHARS} would pass")
        return int(text) if "render" in words else None

    async def stream_events(self, live: LiveSession, voice: EventsVoice, since: int, cell: Execute | None) -> None:
        """From behind `since` on, until the voice has said all."""
        if since >= live.journal.next_seq:
            raise UsageError(f"there is no event {since} yet; up to {live.journal.next_seq - 1} would pass")
        self.stream = EventStream(self, voice)
        reader = live.attach(voice.client, self.stream, voice, since=since)
        try:
            if cell is not None:
                limit = live.session.limits.message_bytes
                live.heard(reader, message_of(cell, date=date_now(), max_bytes=limit))
            reader.catch_up()
            await self.stream.serve(reader.drained)
        finally:
            live.leave(reader, in_order=True)


class ExecuteHandler(CellHandler):
    async def post(self, session_id: str) -> None:
        """The result when it is there; or the events as they come. Whoever hangs up leaves the cell running."""
        live = self.find(session_id)
        chars = self.wanted_chars()
        cell = read_cell(self.fields())
        client = f"rest-{uuid4().hex}"
        if self.wants_events:
            seen = self.seen()
            since = place_of(live, cell.id) if seen is None else seen
            voice = EventsVoice(client.encode(), cell.id, lambda: live.session.stage_of(cell.id) == "finished")
            await self.stream_events(live, voice, since, cell)
            return
        place = place_of(live, cell.id)
        with Follower(live, client, since=place) as follower:
            result = await follower.run(with_output_of(cell, MAX_RESULT_BYTES))
        said = await shown(result, chars, f"GET /v1/sessions/{live.id}/events?since={place}")
        self.finish(bytes(write(said, Form.JSON).data))


class EventsHandler(CellHandler):
    async def get(self, session_id: str) -> None:
        """A page of events, or all from a number on as they come."""
        live = self.find(session_id)
        since = self._since()
        if self.wants_events and self.request.method == "GET":  # to a HEAD they would never end
            voice = EventsVoice(WATCHER + uuid4().hex.encode())
            seen = self.seen()
            await self.stream_events(live, voice, since if seen is None else seen, None)
        else:
            self._answer_page(live, since)

    def _since(self) -> int:
        text = self.words("since").get("since", "0")
        if not _NUMBER.fullmatch(text):
            raise UsageError(f"since is {text[:40]!r}; the number of an event, or 0 for all that is kept, would pass")
        return int(text)

    def _answer_page(self, live: LiveSession, since: int) -> None:
        end = live.journal.next_seq - 1
        if since > end:
            raise UsageError(f"there is no event {since} yet; up to {end} would pass")
        cursor = Cursor(live.journal, since + 1)
        events: list[bytes] = []
        for _ in range(MAX_READS):
            reading = cursor.read(PAGE_BYTES)
            if reading.gap:
                events.append(bytes(write(gap_event(reading.gap), Form.JSON).data))
            first = reading.next_seq - len(reading.records)
            told = (event_of(record, seq) for seq, record in enumerate(reading.records, first))
            events += [bytes(write(event, Form.JSON).data) for event in told if event is not None]
            if events or cursor.is_at_end:
                break
        self.finish(b'{"events":[%s],"since":%d,"end":%d}' % (b",".join(events), cursor.seq - 1, end))


class VariablesHandler(V1Handler):
    async def get(self, session_id: str) -> None:
        """What names the kernel has; it tells when no cell runs."""
        live = self.find(session_id)
        words = self.words("name", "max")
        given = {**words, **({"max": _whole(words["max"])} if "max" in words else {})}
        try:
            wanted = make_request({"id": "variables", **given, "op": "variables"})
            assert isinstance(wanted, Variables)
            kind, content = question_of(wanted)
            said = await ask_soon(live, kind, content)
        except Refused as refused:
            raise UsageError(refused.message) from refused
        try:
            self.finish(bytes(write(answer_of(wanted, said.content), Form.JSON).data))
        except Refused as refused:
            raise NotAnswered(refused.code, refused.message) from refused


async def ask_soon(live: LiveSession, msg_type: str, content: Mapping[str, Any]) -> Answer:
    """What the kernel replies, if no cell keeps it from that for long. Raises NotAnswered."""
    try:
        return await asyncio.wait_for(live.ask(msg_type, content), VARIABLES_SECONDS)
    except asyncio.TimeoutError:
        raise NotAnswered("busy", f"it has run a cell for {VARIABLES_SECONDS:g} s") from None


def _whole(text: str) -> object:
    return int(text) if _NUMBER.fullmatch(text) else text
