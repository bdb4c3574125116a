"""/v1/run, /v1/batch and /v1/scripts/<name>/run: code whose result is wanted, and no session.

Reads what is to be run, and writes what became of it: in one answer, or as it goes. The running is that of one-shots
and followers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from cellgate.errors import CellgateError, UsageError
from cellgate.gateway.base import plain_facts
from cellgate.gateway.bodies import check_names, code_of, flag_of, list_of, number_of, table_of, text_of, whole_of
from cellgate.gateway.v1.executes import (
    MAX_CODE_BODY_BYTES,
    MAX_RESULT_BYTES,
    CellHandler,
    read_cell,
    shown,
    with_output_of,
)
from cellgate.gateway.v1.scripts import MAX_VERSION
from cellgate.gateway.v1.streams import EventStream, EventsVoice, as_sse
from cellgate.gateway.v1.wishes import read_wish
from cellgate.live.follower import Follower
from cellgate.live.kernelspecs import Kernelspec
from cellgate.live.oneshots import FileOut, OneShot, Outcome
from cellgate.live.session import LiveSession
from cellgate.live.wish import Wish
from cellgate.sessions.agents import Event
from cellgate.wire.agent import Execute, Form, write
from cellgate.wire.result import Result

__all__ = ["BatchHandler", "RunHandler", "RunScriptHandler", "read_run"]

DEFAULT_SECONDS = 60.0  # for each cell of a one-shot: whoever computes for longer says so
MIN_SECONDS, MAX_SECONDS = 0.001, 86400.0
MAX_FILES = 64  # each way; more are sent as one archive
MAX_REQUIREMENTS = 100
MAX_BATCH = 1000  # cells or one-shots; each has a part of the answer
MIN_ITEM_BYTES = 16 << 10  # of that part
LONGER = "run it with a larger max_chars"  # how to get what a text leaves out: there is no session to ask
AT_ONCE = 16  # one-shots of one batch that want a turn: all of them would fill their principal's queue
_OF_SESSION = (
    "kernel",
    "language",
    "template",
    "profile",
    "limits",
    "env",
    "policy",
)  # names of a wish that a one-shot may have
_OF_RUN = ("inputs", "files", "fetch", "requirements", "timeout", "cache")
RUN_NAMES = ("code", *_OF_RUN, *_OF_SESSION)
SCRIPT_RUN_NAMES = ("version", *_OF_RUN, "profile", "limits", "env", "policy")
BATCH_NAMES = ("runs", "cells", "session", "on_error", *_OF_SESSION)

Tell = Callable[[Event], object]
Item = dict[str, Any]


# -- what is asked -------------------------------------------------------------------------------------


def read_run(fields: Mapping[str, object], specs: Mapping[str, Kernelspec]) -> OneShot:
    """Raises UsageError, UnknownKernel."""
    check_names(fields, RUN_NAMES)
    return OneShot(
        code=code_of(fields, "code", max_bytes=MAX_CODE_BODY_BYTES),
        wish=_wish_of(fields, specs),
        inputs=json.dumps(fields["inputs"]) if "inputs" in fields else None,
        timeout=number_of(fields, "timeout", least=MIN_SECONDS, most=MAX_SECONDS) or DEFAULT_SECONDS,
        output_bytes=MAX_RESULT_BYTES,
        files={path: _bytes_of(path, said) for path, said in _files_of(fields).items()},
        wanted=_words_of(fields, "fetch", most=MAX_FILES),
        requirements=_words_of(fields, "requirements", most=MAX_REQUIREMENTS),
        may_be_cached=flag_of(fields, "cache"),
    )


def _wish_of(fields: Mapping[str, object], specs: Mapping[str, Kernelspec]) -> Wish:
    return read_wish({name: value for name, value in fields.items() if name in _OF_SESSION}, specs)


def _files_of(fields: Mapping[str, object]) -> dict[str, object]:
    files = table_of(fields, "files")
    if len(files) > MAX_FILES:
        raise UsageError(f"files has {len(files)} of them; up to {MAX_FILES} would pass, or an archive in a session")
    return files


def _bytes_of(path: str, said: object) -> bytes:
    if isinstance(said, dict) and len(said) == 1:
        text, encoded = said.get("text"), said.get("base64")
        try:
            if isinstance(text, str):
                return text.encode()
            if isinstance(encoded, str):
                return base64.b64decode(encoded, validate=True)
        except (UnicodeEncodeError, binascii.Error, ValueError):
            pass
    raise UsageError(f'the file {path[:80]!r} has no content; {{"text": "…"}} or {{"base64": "…"}} would pass')


def _words_of(fields: Mapping[str, object], name: str, *, most: int) -> tuple[str, ...]:
    words = list_of(fields, name, most=most)
    return tuple(text_of({name: word}, name, max_chars=4096, may_be_null=False) for word in words)


# -- what is answered ----------------------------------------------------------------------------------


def run_model(outcome: Outcome) -> Item:
    return {**outcome.result.to_json(), **_beside(outcome)}


def _beside(outcome: Outcome) -> Item:
    """What a one-shot has that is no output."""
    files = {path: _file_model(file) for path, file in outcome.files.items()}
    return {"value": outcome.value, "files": files, "is_cached": outcome.is_cached}


def _file_model(file: FileOut) -> Item:
    if file.error is not None:
        return {"error": {"code": file.error.code, "message": file.error.text(), "facts": plain_facts(file.error)}}
    try:
        return {"text": file.data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(file.data).decode()}


class WorkHandler(CellHandler):
    """Answers with what a piece of work comes to; or streams what it tells, and that in the end as `answer`. Whoever
    hangs up ends it."""

    _work: asyncio.Task[Item] | None = None

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._work is not None:
            self._work.cancel()

    async def answer_with(self, work: Callable[[Tell], Awaitable[Item]]) -> None:
        with self.manager.oneshots.holding(self.principal, self.read_bytes):
            await self._answer_with(work)

    async def _answer_with(self, work: Callable[[Tell], Awaitable[Item]]) -> None:
        stream = EventStream(self, EventsVoice(b"")) if self.wants_events else None
        tell: Tell = (lambda event: stream.write(as_sse(event).data)) if stream else (lambda event: None)
        self._work = asyncio.ensure_future(work(tell))
        if stream is None:
            await asyncio.wait([self._work])
            if not self._work.cancelled():
                self.finish(bytes(write(self._work.result(), Form.JSON).data))
            return
        self.stream = stream
        self._work.add_done_callback(lambda work: self._end_stream(stream, work))
        await stream.serve()

    def _end_stream(self, stream: EventStream, work: asyncio.Task[Item]) -> None:
        if not work.cancelled():
            if isinstance(error := work.exception(), Exception):
                last: Item = {"event": "problem", **self.problem_of(error).to_json()}
            else:
                last = {"event": "answer", "answer": work.result()}
            stream.write(as_sse(last).data)
        stream.end()


def _unnumbered(tell: Tell) -> Tell:
    """Numbers of a session that will be gone are nobody's to come back with."""
    return lambda event: tell({name: value for name, value in event.items() if name != "seq"})


class _Runs(WorkHandler):
    async def run(self, shot: OneShot, chars: int | None) -> None:
        async def work(tell: Tell) -> Item:
            outcome = await self.manager.oneshots.run(self.principal, shot, _unnumbered(tell))
            return {**await shown(outcome.result, chars, LONGER), **_beside(outcome)}

        await self.answer_with(work)


class RunHandler(_Runs):
    async def post(self) -> None:
        chars = self.wanted_chars()
        await self.run(read_run(self.fields(), self.manager.kernelspecs), chars)


class RunScriptHandler(_Runs):
    async def post(self, name: str) -> None:
        chars = self.wanted_chars()
        fields = self.fields()
        check_names(fields, SCRIPT_RUN_NAMES)
        version = whole_of(fields, "version", least=1, most=MAX_VERSION)
        script = self.manager.scripts.get(self.principal, name, version)
        asked = {name: value for name, value in fields.items() if name != "version"}
        asked |= {"code": script.code, "kernel": script.kernel}
        await self.run(read_run(asked, self.manager.kernelspecs), chars)


# -- many at once --------------------------------------------------------------------------------------


@dataclass
class _Batch:
    """What has come of each item so far; None for one that was not run."""

    items: list[Item | None]
    stops_on_error: bool
    tell: Tell
    failed: int = 0

    @property
    def is_stopped(self) -> bool:
        return self.stops_on_error and self.failed > 0

    def put(self, index: int, item: Item, *, is_ok: bool) -> None:
        self.items[index] = item
        self.failed += not is_ok
        self.tell({"event": "item", "index": index, "item": item})
        done = sum(one is not None for one in self.items)
        self.tell({"event": "progress", "done": done, "failed": self.failed, "of": len(self.items)})

    def to_json(self) -> Item:
        done = sum(one is not None for one in self.items)
        return {"items": self.items, "done": done, "failed": self.failed, "is_complete": done == len(self.items)}


class BatchHandler(WorkHandler):
    async def post(self) -> None:
        self.words()
        fields = self.fields()
        check_names(fields, BATCH_NAMES)
        runs, cells = (list_of(fields, name, most=MAX_BATCH) for name in ("runs", "cells"))
        if bool(runs) == bool(cells):
            raise UsageError("there is nothing to run, or two kinds of it; either cells or runs would pass")
        on_error = text_of(fields, "on_error", max_chars=10, default="stop")
        if on_error not in ("stop", "continue"):
            raise UsageError(f"on_error is {on_error!r}; stop or continue would pass")
        stops = on_error == "stop"
        if cells:
            await self._run_cells(fields, _read_each(cells, "cells", read_cell), stops)
        else:
            specs = self.manager.kernelspecs
            if named := [name for name in ("session", *_OF_SESSION) if name in fields]:
                raise UsageError(f"{named[0]} is for cells; in each of the runs it would pass")
            await self._run_many(_read_each(runs, "runs", lambda run: read_run(run, specs)), stops)

    async def _run_cells(self, fields: Mapping[str, object], cells: Sequence[Execute], stops: bool) -> None:
        """One after the other in one session: that which is named, or a fresh one."""
        session_id = text_of(fields, "session", max_chars=64)
        wish = _wish_of(fields, self.manager.kernelspecs)
        if session_id and any(name in fields for name in _OF_SESSION):
            raise UsageError("a session that is there has its kernel and its limits; without those it would pass")
        live = self.manager.find(self.principal, session_id) if session_id else None
        if len({cell.id for cell in cells}) < len(cells):
            raise UsageError(
                "two of the cells have the same id, which makes them one; ids of their own, or none, would pass"
            )
        most = max(MAX_RESULT_BYTES // len(cells), MIN_ITEM_BYTES)

        async def work(tell: Tell) -> Item:
            batch = _Batch([None] * len(cells), stops, tell)
            async with self._session(live, wish) as session:
                with Follower(session, f"rest-{uuid4().hex}", tell if live else _unnumbered(tell)) as follower:
                    for index, cell in enumerate(cells):
                        result: Result = await follower.run(with_output_of(cell, most))
                        batch.put(index, result.to_json(), is_ok=result.is_ok)
                        if batch.is_stopped:
                            break
            return batch.to_json()

        await self.answer_with(work)

    @asynccontextmanager
    async def _session(self, live: LiveSession | None, wish: Wish) -> AsyncIterator[LiveSession]:
        if live is not None:
            yield live
            return
        async with self.manager.oneshots.session(self.principal, wish) as fresh:
            yield fresh

    async def _run_many(self, shots: Sequence[OneShot], stops: bool) -> None:
        """Beside each other, as far as turns and places allow."""
        most = max(MAX_RESULT_BYTES // len(shots), MIN_ITEM_BYTES)

        async def work(tell: Tell) -> Item:
            batch = _Batch([None] * len(shots), stops, tell)
            rest = iter(enumerate(shots))

            async def take() -> None:
                for index, shot in rest:
                    await self._run_one(batch, index, shot, most)
                    if batch.is_stopped:
                        return

            takers = [asyncio.ensure_future(take()) for _ in range(min(AT_ONCE, len(shots)))]
            try:
                await asyncio.gather(*takers)
            finally:
                for taker in takers:
                    taker.cancel()
                await asyncio.gather(*takers, return_exceptions=True)
            return batch.to_json()

        await self.answer_with(work)

    async def _run_one(self, batch: _Batch, index: int, shot: OneShot, most: int) -> None:
        def tell(event: Event) -> None:
            batch.tell({name: value for name, value in event.items() if name != "seq"} | {"index": index})

        try:
            outcome = await self.manager.oneshots.run(self.principal, replace(shot, output_bytes=most), tell)
        except CellgateError as error:
            batch.put(index, {"problem": self.problem_of(error).to_json()}, is_ok=False)
        else:
            batch.put(index, run_model(outcome), is_ok=outcome.is_ok)


def _read_each(items: Sequence[object], name: str, read: Callable[[Mapping[str, object]], Any]) -> list[Any]:
    """Raises UsageError that says which of them."""
    made = []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise UsageError(f"{name}[{index}] is no object; one with code would pass")
        try:
            made.append(read(item))
        except UsageError as error:
            raise UsageError(f"{name}[{index}]: {error.problem}") from error
    return made
