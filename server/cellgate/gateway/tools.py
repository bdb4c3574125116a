"""What a language model can do here, as tools: each with its name, what it is for, what it takes, and its doing.

A tool's answer is text that fits a conversation, and images. Without a session's name a tool means the one that belongs
to the client, which is made when it is first needed; by its idempotency key it is the same again after a gateway's
death. Knows nothing of JSON-RPC or HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from cellgate.errors import UnknownSession, UsageError
from cellgate.gateway.bodies import check_names, code_of, flag_of, number_of, text_of, whole_of
from cellgate.gateway.schemas import Schema, object_of
from cellgate.gateway.v1.executes import ask_soon
from cellgate.gateway.v1.wishes import read_wish
from cellgate.live.files import SessionFiles
from cellgate.live.follower import Follower
from cellgate.live.manager import Manager
from cellgate.live.oneshots import OneShot
from cellgate.live.session import LiveSession
from cellgate.live.wish import Wish
from cellgate.policy.facts import LANGUAGES
from cellgate.sessions.agents import Event, event_of
from cellgate.sessions.journal import Cursor
from cellgate.wire.agent import Execute, Refused
from cellgate.wire.mcp import image_block, text_block
from cellgate.wire.rendering import DEFAULT_CHARS, MIN_CHARS, PARTS, clean, images_of, part_of, render, shorten
from cellgate.wire.result import Folding, Result

__all__ = ["INSTRUCTIONS", "TOOLS", "Said", "Tool", "Toolbox", "tools_as_markdown"]

Fields = Mapping[str, object]
Block = dict[str, Any]
Progress = Callable[[float, str], object]  # is told seconds, and what was last heard

DEFAULT_SECONDS = 120.0  # for code: whoever computes for longer says so
MAX_SECONDS = 86_400.0
MAX_CHARS = 100_000  # of one answer: more than most conversations hold, and with images within the MiB of an event
MAX_CODE_BYTES = 1 << 20
MAX_OUTPUT_BYTES = 1 << 20  # of a cell; the middle is cut where there is more, and told
MAX_IMAGE_CHARS = 600_000  # of base64, of all images in one answer: clients take an event of a MiB
MAX_FILE_BYTES = 4 << 20  # that is written at once
READ_BYTES = 50_000  # of a file, unless it is said otherwise
RECALL_BYTES = 256 << 10  # of the journal at a time
MAX_RECALLED = 64  # times
PULSE_SECONDS = 2.0  # between words of progress: clients give up on what is silent, some after ten
SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))

INSTRUCTIONS = (
    "Runs code in sandboxes without a network. run_code keeps its variables from one call to the next, in a session of "
    "your own; name a session, made by create_session, to have several. Files of a session lie in its work directory."
)


@dataclass(frozen=True)
class Said:
    """A tool's answer."""

    blocks: list[Block]
    is_error: bool = False


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    takes: Schema
    run: Callable[[Toolbox, Fields], Awaitable[Said]]
    only_reads: bool = False

    def to_json(self) -> dict[str, Any]:
        """As MCP lists it."""
        hints = {"readOnlyHint": self.only_reads, "openWorldHint": False}
        return {
            "name": self.name,
            "description": self.description,
            "inputSchema": dict(self.takes),
            "annotations": hints,
        }


@dataclass
class Toolbox:
    """For one call of one client."""

    manager: Manager
    principal: str
    client: str  # whose session is meant where none is named
    progress: Progress | None = None
    _notes: list[str] = field(default_factory=list)  # to be told before the answer

    async def call(self, tool: Tool, fields: Fields) -> Said:
        """Raises UsageError and every other CellgateError."""
        check_names(fields, list(tool.takes["properties"]))
        said = await tool.run(self, fields)
        return Said([*map(text_block, self._notes), *said.blocks], said.is_error)

    # -- sessions --------------------------------------------------------------------------------------

    async def session(self, fields: Fields) -> LiveSession:
        """The one that is named, by its id or name; else the client's own, which is made if it is not there."""
        named = text_of(fields, "session", max_chars=100)
        if named:
            return self._find(named)
        live, is_new = await self.manager.create_once(self.principal, Wish(idempotency_key=self.client))
        if is_new:
            self._notes.append(f"[a new session, {live.id}, without variables]")
        return live

    def _find(self, named: str) -> LiveSession:
        found = [live for live in self.manager.sessions(self.principal) if named in (live.id, live.wish.name)]
        if len(found) > 1:
            raise UsageError(f"{len(found)} sessions have this name; an id that list_sessions tells would pass")
        if not found:
            raise UnknownSession(named)
        return found[0]

    async def create_session(self, fields: Fields) -> Said:
        wish = read_wish(fields, self.manager.kernelspecs)
        live = await self.manager.create(self.principal, wish)
        return _text(f"session {live.id}{f' ({wish.name})' if wish.name else ''}, kernel {live.kernel_name}")

    async def list_sessions(self, fields: Fields) -> Said:
        lines = [
            f"{live.id}  {live.wish.name or '-'}  {live.kernel_name}  {live.session.state.value}"
            f"{'  (yours by default)' if live.wish.idempotency_key == self.client else ''}"
            for live in self.manager.sessions(self.principal)
        ]
        return _text(shorten("\n".join(lines), DEFAULT_CHARS) or "(no sessions)")

    async def close_session(self, fields: Fields) -> Said:
        live = self._find(text_of(fields, "session", max_chars=100, may_be_null=False) or self._own_id())
        await live.delete()
        return _text(f"session {live.id} has ended")

    def _own_id(self) -> str:
        own = (live.id for live in self.manager.sessions(self.principal) if live.wish.idempotency_key == self.client)
        if (found := next(own, None)) is None:
            raise UsageError("you have no session of your own; one that list_sessions tells would pass")
        return found

    async def interrupt(self, fields: Fields) -> Said:
        live = self._find(text_of(fields, "session", max_chars=100) or self._own_id())
        await live.interrupt()
        return _text("interrupted")

    # -- code ------------------------------------------------------------------------------------------

    async def run_code(self, fields: Fields) -> Said:
        cell = Execute(
            uuid4().hex,
            code_of(fields, "code", max_bytes=MAX_CODE_BYTES),
            timeout=_seconds_of(fields),
            limits={"output_bytes_per_cell": MAX_OUTPUT_BYTES},
            stop_on_error=False,  # calls that were made at once do not depend on each other
            diff=True,
        )
        most = _chars_of(fields)
        live = await self.session(fields)
        heard = _Heard(self.progress)
        with Follower(live, f"mcp-{uuid4().hex}", heard.take) as follower:
            try:
                async with heard:
                    result = await follower.run(cell)
            except asyncio.CancelledError:
                live.cancel(cell.id)
                raise
            except Refused as refused:
                raise UsageError(refused.message) from refused
        return _of_result(result, most, cell.id)

    async def run_script(self, fields: Fields) -> Said:
        version = whole_of(fields, "version", least=1, most=10**9)
        name = text_of(fields, "name", max_chars=100, may_be_null=False)
        script = self.manager.scripts.get(self.principal, name, version)
        shot = OneShot(
            script.code,
            Wish(kernel=script.kernel),
            inputs=None if fields.get("inputs") is None else json.dumps(fields["inputs"]),
            timeout=_seconds_of(fields),
            output_bytes=MAX_OUTPUT_BYTES,
        )
        heard = _Heard(self.progress)
        async with heard:
            outcome = await self.manager.oneshots.run(self.principal, shot, heard.take)
        said = _of_result(outcome.result, _chars_of(fields), "")
        if shot.inputs is not None and outcome.is_ok:
            said.blocks.append(text_block(shorten(f"value: {json.dumps(outcome.value)}", MAX_CHARS)))
        return said

    async def read_output(self, fields: Fields) -> Said:
        live = await self.session(fields)
        cell = text_of(fields, "cell", max_chars=128, may_be_null=False)
        part = text_of(fields, "part", max_chars=20, default=PARTS[1])
        if part not in PARTS:
            raise UsageError(f"part is {part!r}; {', '.join(PARTS)} would pass")
        offset = whole_of(fields, "offset", least=0, most=10**9) or 0
        text = part_of(await _recall(live, cell), part)
        piece = text[offset : offset + _chars_of(fields)]
        end = offset + len(piece)
        more = f"; offset={end} reads on" if end < len(text) else ""
        return _text(f"{piece}\n[characters {offset} to {end} of {len(text)}{more}]")

    async def validate(self, fields: Fields) -> Said:
        language = text_of(fields, "language", max_chars=100) or "python"
        if language not in LANGUAGES:
            raise UsageError(f"language is {language!r}; of {', '.join(LANGUAGES)} any would pass")
        code = code_of(fields, "code", max_bytes=MAX_CODE_BYTES)
        verdict = await self.manager.validate(self.principal, code, language, {})
        lines = [
            f"{finding.severity.value}[{finding.rule}] {finding.line}:{finding.column} {finding.message}"
            f"{f'; {finding.hint}' if finding.hint else ''}"
            for finding in verdict.findings
        ]
        head = f"{'allowed' if verdict.allowed else 'denied'} by the policy {verdict.policy!r}"
        return _text(shorten("\n".join([head, *lines]), DEFAULT_CHARS))

    async def variables(self, fields: Fields) -> Said:
        name = text_of(fields, "name", max_chars=200)
        rows = whole_of(fields, "rows", least=1, most=1000) or 20
        asked: dict[str, Any] = {"name": name, "max": rows} if name else {}
        answer = await ask_soon(await self.session(fields), "variables_request", asked)
        found = answer.content.get("variables")
        told = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        if answer.content.get("status") != "ok":
            why = clean(str(answer.content.get("evalue")))[:200]
            raise UsageError(f"this kernel does not tell its variables ({why}); one of Python would")
        if name:
            if not told:
                raise UsageError(f"there is no variable {name!r}; variables without a name lists those that would pass")
            return _text(shorten(json.dumps(told[0], ensure_ascii=False, indent=1), _chars_of(fields)))
        lines = [_variable(row) for row in told]
        if more := answer.content.get("more"):
            lines.append(f"[{more} more]")
        return _text(shorten("\n".join(lines), _chars_of(fields)) or "(no variables)")

    # -- files -----------------------------------------------------------------------------------------

    async def list_files(self, fields: Fields) -> Said:
        path = text_of(fields, "path", max_chars=4096)
        entries, more = await SessionFiles(await self.session(fields)).list(path)
        lines = [f"{entry.name}/" if entry.type == "directory" else _file_line(entry) for entry in entries]
        lines += ["[there are more]"] if more else []
        return _text(shorten(clean("\n".join(lines)), DEFAULT_CHARS) or "(empty)")

    async def read_file(self, fields: Fields) -> Said:
        path = text_of(fields, "path", max_chars=4096, may_be_null=False)
        offset = whole_of(fields, "offset", least=0, most=10**15) or 0
        count = whole_of(fields, "max_bytes", least=1, most=MAX_CHARS) or READ_BYTES
        files = SessionFiles(await self.session(fields))
        entry, data = await files.read(path, offset, count)
        mime = next((mime for begin, mime in SIGNATURES if data.startswith(begin)), "")
        if mime and not offset and entry.size <= MAX_IMAGE_CHARS * 3 // 4:
            whole = await files.read_whole(path, MAX_FILE_BYTES)
            return Said([image_block(base64.b64encode(whole).decode(), mime)])
        end = offset + len(data)
        more = f"; offset={end} reads on" if end < entry.size else ""
        place = f"[bytes {offset} to {end} of {entry.size}{more}]"
        if b"\0" in data:
            return _text(f"[binary] {base64.b64encode(data).decode()}\n{place}")
        text = data.decode("utf-8", "replace")
        return _text(text if end == entry.size and not offset else f"{text}\n{place}")

    async def write_file(self, fields: Fields) -> Said:
        path = text_of(fields, "path", max_chars=4096, may_be_null=False)
        content = code_of(fields, "content", max_bytes=MAX_FILE_BYTES)
        data = content.encode()
        if flag_of(fields, "is_base64"):
            try:
                data = base64.b64decode(content, validate=True)
            except (binascii.Error, ValueError) as error:
                raise UsageError("content is no base64; bytes in base64 would pass") from error
        entry = await SessionFiles(await self.session(fields)).write_whole(path, data)
        return _text(f"{path}: {entry.size} bytes")

    async def delete_file(self, fields: Fields) -> Said:
        path = text_of(fields, "path", max_chars=4096, may_be_null=False)
        files = SessionFiles(await self.session(fields))
        await files.delete(path, recursive=flag_of(fields, "recursive"))
        return _text(f"{path} is gone")


@dataclass
class _Heard:
    """Tells of what runs, from time to time, as long as it runs."""

    progress: Progress | None
    _line: str = ""
    _pulse: asyncio.Task[None] | None = None

    def take(self, event: Event) -> None:
        text = event.get("text") if event["event"] in ("stdout", "stderr") else None
        if isinstance(text, str) and (lines := clean(text[-2000:]).split()):
            self._line = " ".join(lines)[-200:]

    async def __aenter__(self) -> None:
        if self.progress is not None:
            self._pulse = asyncio.ensure_future(self._tell(self.progress))

    async def __aexit__(self, *_: object) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            with suppress(asyncio.CancelledError):
                await self._pulse

    async def _tell(self, progress: Progress) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            progress(round(loop.time() - begin, 1), self._line)


def _text(text: str) -> Said:
    return Said([text_block(text)])


def _of_result(result: Result, most: int, cell: str) -> Said:
    rest = f"read_output with cell={cell!r} and part='{{part}}'" if cell else ""
    blocks = [text_block(render(result, max_chars=most, rest=rest))]
    room = MAX_IMAGE_CHARS
    for image in images_of(result):
        if len(image.base64) <= room:
            room -= len(image.base64)
            blocks.append(image_block(image.base64, image.mime))
    return Said(blocks, is_error=not result.is_ok)


async def _recall(live: LiveSession, cell: str) -> Result:
    """What became of a cell, as far as the journal has it."""
    accepted = live.session.accepted_at(cell)
    if accepted is None:
        raise UsageError("no cell of this id is kept; the id that run_code told would pass")
    folding, cursor = Folding(), Cursor(live.journal, accepted)
    for _ in range(MAX_RECALLED):
        reading = cursor.read(RECALL_BYTES)
        for seq, record in enumerate(reading.records, reading.next_seq - len(reading.records)):
            if (event := event_of(record, seq)) is not None and event.get("cell") == cell:
                folding.take(event)
        if folding.is_over or cursor.is_at_end:
            break
        await asyncio.sleep(0)  # others have their turn
    return folding.result()


def _variable(row: Mapping[str, Any]) -> str:
    shape, size = row.get("shape"), row.get("size")
    extent = f"{shape}" if shape is not None else f"[{size}]" if size is not None else ""
    return clean(f"{row.get('name')}: {row.get('type')}{extent} = {row.get('repr')}")


def _file_line(entry: Any) -> str:
    kind = "" if entry.type == "file" else f"  ({entry.type})"
    return f"{entry.name}  {entry.size}{kind}"


def _chars_of(fields: Fields) -> int:
    return whole_of(fields, "max_chars", least=MIN_CHARS, most=MAX_CHARS) or DEFAULT_CHARS


def _seconds_of(fields: Fields) -> float:
    return number_of(fields, "timeout", least=0.1, most=MAX_SECONDS) or DEFAULT_SECONDS


# -- the table ---------------------------------------------------------------------------------------------


def _of(kind: str, description: str) -> Schema:
    return {"type": kind, "description": description}


_SESSION = {"session": _of("string", "its id or name; by default your own")}
_CHARS = {"max_chars": {**_of("integer", "of the answer"), "minimum": MIN_CHARS, "default": DEFAULT_CHARS}}
_TIMEOUT = {"timeout": {**_of("number", "seconds that it may run"), "default": DEFAULT_SECONDS}}
_PATH = {"path": _of("string", "in the session's work directory")}
_CODE = {"code": _of("string", "to be run as a cell of a notebook")}

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("run_code", "Run code as a notebook cell, in Python with IPython unless the session has another kernel. "
             "Variables stay. Tells what was printed, displayed and returned, errors, and which names it bound.",
             object_of(_CODE, {**_SESSION, **_TIMEOUT, **_CHARS}), Toolbox.run_code),
        Tool("read_output", "Read all of what an earlier cell printed or displayed, where run_code had to cut it.",
             object_of(
                 {"cell": _of("string", "the id that run_code told")},
                 {"part": {"type": "string", "enum": list(PARTS)}, "offset": _of("integer", "in characters"),
                  **_SESSION, **_CHARS},
             ), Toolbox.read_output, only_reads=True),
        Tool("variables", "List the variables of a session; or tell one in detail, of a table its first rows as data.",
             object_of({}, {"name": _of("string", "of one variable"), "rows": _of("integer", "of a table"),
                            **_SESSION, **_CHARS}), Toolbox.variables, only_reads=True),
        Tool("interrupt", "Interrupt what runs in a session.", object_of({}, _SESSION), Toolbox.interrupt),
        Tool("create_session", "Make a session of its own, beside the one that you have anyway.",
             object_of({}, {"name": _of("string", "to call it by"), "kernel": _of("string", "a kernelspec's name"),
                            "language": _of("string", "python by default"),
                            "template": _of("string", "python-data has numpy, pandas and matplotlib loaded")}),
             Toolbox.create_session),
        Tool("list_sessions", "List your sessions.", object_of({}), Toolbox.list_sessions, only_reads=True),
        Tool("close_session", "End a session; its variables and files are lost.",
             object_of({}, _SESSION), Toolbox.close_session),
        Tool("list_files", "List a directory of a session.",
             object_of({}, {**_PATH, **_SESSION}), Toolbox.list_files, only_reads=True),
        Tool("read_file", "Read a file of a session: text as it is, a picture as an image, other bytes in base64.",
             object_of(_PATH, {"offset": _of("integer", "in bytes"), "max_bytes": _of("integer", "to read"),
                               **_SESSION}), Toolbox.read_file, only_reads=True),
        Tool("write_file", "Write a file of a session, in place of one that is there.",
             object_of({**_PATH, "content": _of("string", "of the file")},
                       {"is_base64": _of("boolean", "the content is bytes in base64"), **_SESSION}),
             Toolbox.write_file),
        Tool("delete_file", "Remove a file or directory of a session.",
             object_of(_PATH, {"recursive": _of("boolean", "with all that is in it"), **_SESSION}),
             Toolbox.delete_file),
        Tool("validate", "Judge code without running it: what the policy would deny, and what would fail in a sandbox.",
             object_of(_CODE, {"language": {"type": "string", "enum": list(LANGUAGES)}}),
             Toolbox.validate, only_reads=True),
        Tool("run_script", "Run a saved script by its name in a fresh session; with inputs its function "
             "calculate(inputs) is called, and what that returns is told.",
             object_of({"name": _of("string", "of the script")},
                       {"version": _of("integer", "the newest by default"), "inputs": {"description": "any JSON"},
                        **_TIMEOUT, **_CHARS}), Toolbox.run_script),
    )
}  # fmt: skip


def tools_as_markdown() -> str:
    """A line for each tool."""
    lines = ["| tool | takes | does |", "|---|---|---|"]
    for tool in TOOLS.values():
        takes = ", ".join(f"`{name}`" for name in tool.takes["properties"])
        lines.append(f"| `{tool.name}` | {takes} | {tool.description} |")
    return "\n".join(lines) + "\n"
