"""What a terminal, or a file in its place, gets to see of what code says.

`as_text` decides; `Printer` writes; `as_event` reads the messages of a kernel that no server stands before. None of
them knows of sandboxes, or of where events come from.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from cellgate.commands.exits import is_clean_exit
from cellgate.terminal import TerminalFilter, one_line

if TYPE_CHECKING:
    from cellgate.wire.jupyter import JupyterMessage

__all__ = ["Event", "Printer", "as_error", "as_event", "as_text", "printing", "render_event"]

Event = Mapping[str, Any]  # of the agents' protocol

_SHOWN = {"execute_result": "result", "display_data": "display", "update_display_data": "update_display"}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def as_event(message: JupyterMessage) -> Event | None:
    """A kernel's output in the words that agents are told. None for what is no output."""
    content = message["content"]
    kind = message["msg_type"]
    if kind == "stream":
        return {
            "event": "stderr" if content.get("name") == "stderr" else "stdout",
            "text": str(content.get("text", "")),
        }
    if kind in _SHOWN:
        data, transient = content.get("data"), content.get("transient")
        return {
            "event": _SHOWN[kind],
            "data": data if isinstance(data, dict) else {},
            "metadata": content.get("metadata"),
            "display_id": transient.get("display_id") if isinstance(transient, dict) else None,
            "count": content.get("execution_count"),
        }
    if kind == "clear_output":
        return {"event": kind, "wait": content.get("wait") is True}
    if kind == "error":
        return as_error(content)
    return None


def as_error(content: Mapping[str, Any]) -> Event:
    """Of an `error`, or the reply of a cell that raised."""
    traceback = content.get("traceback")
    return {
        "event": "error",
        "name": str(content.get("ename")),
        "value": str(content.get("evalue")),
        "traceback": [str(line) for line in traceback] if isinstance(traceback, list) else [],
    }


def as_text(event: Event) -> tuple[str, str] | None:
    """What a terminal shows of an event: the stream it belongs to, and the text. None for what has no text."""
    kind = event.get("event")
    if kind in ("stdout", "stderr"):
        return kind, event["text"]
    if kind in _SHOWN.values():
        plain = event["data"].get("text/plain")
        return "stdout", (str(plain) if plain is not None else f"[{', '.join(map(str, event['data']))}]") + "\n"
    if kind == "error":
        return "stderr", _error_as_text(event)
    if kind == "notice":
        return "stderr", f"cellgate: {one_line(event['text'])}\n"
    if kind == "gap":
        return "stderr", f"cellgate: {event['count']} events are not kept any more\n"
    return None


def _error_as_text(event: Event) -> str:
    """A traceback; of `sys.exit` only what Python itself would print: nothing for a number, else the words."""
    if event["name"] == "SystemExit":
        words = event["value"]
        return "" if is_clean_exit(event) or words.lstrip("-").isdecimal() else words + "\n"
    return "\n".join(event["traceback"] or [f"{event['name']}: {event['value']}"]) + "\n"


@contextmanager
def printing() -> Iterator[Printer]:
    """To this command's own streams, until the end of the block."""
    printer = Printer(sys.stdout, sys.stderr)
    try:
        yield printer
    finally:
        printer.close()


def render_event(raw: Mapping[str, Any]) -> str:
    """What an event is beside its output: who ran what, and how it ended."""
    kind = raw.get("event")
    if kind == "accepted":
        lines = str(raw.get("code", "")).splitlines() or [""]
        return "".join(f"{raw.get('client', '')}> {one_line(line)}\n" for line in lines)
    if kind == "state":
        return f"[{one_line(str(raw.get('state')))}]\n"
    if kind == "finished" and raw.get("reason") not in ("ok", "error"):
        return f"[{one_line(str(raw.get('reason')))}: {one_line(str(raw.get('sentence', '')))}]\n"
    return ""


class Printer:
    """Writes what comes out of a sandbox to this command's own two streams: filtered where a terminal
    listens, flushed once per turn of the loop. A stream that nobody reads any more resolves `broken`."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._streams = {"stdout": out, "stderr": err}
        self._filters = {name: TerminalFilter() for name, stream in self._streams.items() if stream.isatty()}
        self._loop = asyncio.get_running_loop()
        self._last = "stdout"
        self._flush_is_due = False
        self.broken: asyncio.Future[None] = self._loop.create_future()

    def show(self, event: Event) -> None:
        if shown := as_text(event):
            name, text = shown
            if event["event"] == "error" and name not in self._filters:
                text = _ESCAPES.sub("", text)  # a file is no place for the colours of a traceback
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        if name in self._filters:
            text = self._filters[name].feed(text)
        self._write(name, text)

    def close(self) -> None:
        for name, filter_ in self._filters.items():
            self._write(name, filter_.close())
        self.flush()

    def _write(self, name: str, text: str) -> None:
        if not text or self.broken.done():
            return
        try:
            if name != self._last:
                self._streams[self._last].flush()  # both may be one terminal: keep the order
                self._last = name
            self._streams[name].buffer.write(text.encode("utf-8", "replace"))
        except OSError as error:
            self._break(error)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Show what was written, which else happens with the next turn of the loop."""
        self._flush_is_due = False
        try:
            self._streams[self._last].flush()
        except OSError as error:
            self._break(error)

    def _break(self, error: OSError) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)
