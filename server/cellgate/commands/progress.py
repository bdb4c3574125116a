"""A line on a terminal that says how far something has come. Elsewhere it says nothing."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

__all__ = ["Progress", "bar"]

SECONDS = 0.1  # between two looks of it: more is a flicker
BAR_WIDTH = 24
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Progress:
    """For a block of code; `add` may be called from any thread. `total`: None where nobody knows it."""

    def __init__(self, label: str, total: int | None, *, is_bytes: bool = True, stream: TextIO | None = None) -> None:
        self._label = label
        self._total = total
        self._is_bytes = is_bytes
        self._stream = stream or sys.stderr
        self._shows = self._stream.isatty()
        self._done = 0
        self._began = self._shown_at = time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if self._shows and now - self._shown_at >= SECONDS:
                self._shown_at = now
                self._show(now)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shows and self._shown_at != self._began:
            self._show(time.monotonic())
            self._stream.write("\n")
            self._stream.flush()

    def _show(self, now: float) -> None:
        width = shutil.get_terminal_size().columns
        line = bar(self._label, self._done, self._total, now - self._began, is_bytes=self._is_bytes)
        self._stream.write(f"\r{line[: width - 1]}\x1b[K")
        self._stream.flush()


def bar(label: str, done: int, total: int | None, seconds: float, *, is_bytes: bool = True) -> str:
    """One line: how much of how much, and how fast."""
    amount = _size(done) if is_bytes else str(done)
    rate = f"  {_size(done / seconds)}/s" if is_bytes and seconds > 0 else ""
    if not total:
        return f"{label}  {amount}{rate}"
    part = min(done / total, 1.0)
    filled = int(part * BAR_WIDTH)
    of = _size(total) if is_bytes else str(total)
    return f"{label}  [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {part:4.0%}  {amount} of {of}{rate}"


def _size(count: float) -> str:
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 else f"{count:.1f} {UNITS[unit]}"
