"""What a terminal, or a file in its place, gets to see of a kernel's outputs.

`as_text` decides; `Printer` writes. Neither knows of sandboxes, or of where the messages come from.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, TextIO

from cellgate.commands.exits import is_clean_exit
from cellgate.terminal import TerminalFilter, one_line
from cellgate.wire.jupyter import JupyterMessage

__all__ = ["Printer", "as_text", "event_as_text"]

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def as_text(message: JupyterMessage) -> tuple[str, str] | None:
    """What a terminal shows of an output: the stream it belongs to, and the text. None for what has no text."""
    content = message["content"]
    kind = message["msg_type"]
    if kind == "stream":
        return ("stderr" if content.get("name") == "stderr" else "stdout"), str(content.get("text", ""))
    if kind in ("execute_result", "display_data", "update_display_data"):
        return "stdout", _shown(content.get("data"))
    if kind == "error":
        return "stderr", error_as_text(content)
    return None


def event_as_text(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """The same of an event of the agents' protocol."""
    kind = event.get("event")
    if kind in ("stdout", "stderr"):
        return kind, str(event.get("text", ""))
    if kind in ("result", "display", "update_display"):
        return "stdout", _shown(event.get("data"))
    if kind == "error" and "seq" in event:
        return "stderr", error_as_text({**event, "ename": event.get("name"), "evalue": event.get("value")})
    if kind == "notice":
        return "stderr", f"cellgate: {one_line(str(event.get('text', '')))}\n"
    if kind == "gap":
        return "stderr", f"cellgate: {event.get('count')} events are not kept any more\n"
    return None


def _shown(data: object) -> str:
    """A MIME bundle's plain text, or what it has instead."""
    data = data if isinstance(data, dict) else {}
    plain = data.get("text/plain")
    return (str(plain) if plain is not None else f"[{', '.join(map(str, data))}]") + "\n"


def error_as_text(content: Mapping[str, Any]) -> str:
    """A traceback; of `sys.exit` only what Python itself would print: nothing for a number, else the words."""
    if content.get("ename") == "SystemExit":
        words = str(content.get("evalue", ""))
        return "" if is_clean_exit(content) or words.lstrip("-").isdecimal() else words + "\n"
    traceback = content.get("traceback")
    lines = [str(line) for line in traceback] if isinstance(traceback, list) else []
    return "\n".join(lines or [f"{content.get('ename')}: {content.get('evalue')}"]) + "\n"


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

    def show(self, message: JupyterMessage) -> None:
        self._show(as_text(message), is_error=message["msg_type"] == "error")

    def show_event(self, event: Mapping[str, Any]) -> None:
        self._show(event_as_text(event), is_error=event.get("event") == "error")

    def write(self, name: str, text: str) -> None:
        if name in self._filters:
            text = self._filters[name].feed(text)
        self._write(name, text)

    def close(self) -> None:
        for name, filter_ in self._filters.items():
            self._write(name, filter_.close())
        self._flush()

    def _show(self, shown: tuple[str, str] | None, *, is_error: bool) -> None:
        if shown:
            name, text = shown
            if is_error and name not in self._filters:
                text = _ESCAPES.sub("", text)  # a file is no place for the colours of a traceback
            self.write(name, text)

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
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        try:
            self._streams[self._last].flush()
        except OSError as error:
            self._break(error)

    def _break(self, error: OSError) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)
