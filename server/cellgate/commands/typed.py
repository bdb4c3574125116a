"""Answers `input()` in a sandbox from this command's own standard input.

The kernel's question comes to a running event loop, while standard input may block for ever; so a thread reads, one
line at a time and no byte more, and is left behind if nobody types.
"""

from __future__ import annotations

import asyncio
import os
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

__all__ = ["Answers", "LineReader"]

MAX_LINE_BYTES = 1 << 20  # an answer is typed, or a line of a file; a longer one is cut into several


class LineReader:
    """Lines of one descriptor. A question that is asked while an earlier one was abandoned gets its answer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reading: asyncio.Future[bytes] | None = None

    async def read_line(self) -> str:
        """The next line without its end. Raises EOFError."""
        if self._reading is None:
            self._reading = _in_thread(self._descriptor)
        line = await asyncio.shield(self._reading)
        self._reading = None
        if not line:
            raise EOFError
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """What is typed is not shown; for a password, to be entered before it is asked for."""
        if not os.isatty(self._descriptor):
            yield
            return
        before = termios.tcgetattr(self._descriptor)
        silent = list(before)
        silent[3] = (before[3] & ~termios.ECHO) | termios.ECHONL
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, silent)
        try:
            yield
        finally:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)


class Answers:
    """Asks the question on standard output, as Python does, and reads the answer from standard input."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        """`write` is given the name of a stream, and text."""
        self._write = write
        self._lines = LineReader(0)

    async def answer(self, prompt: str, is_password: bool) -> str:
        with self._lines.hidden() if is_password else nullcontext():
            self._write("stdout", prompt)
            return await self._lines.read_line()


def _in_thread(descriptor: int) -> asyncio.Future[bytes]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def finish(line: bytes) -> None:
        if not future.done():
            future.set_result(line)

    def read() -> None:
        line = _read_line(descriptor)
        try:
            loop.call_soon_threadsafe(finish, line)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    # A daemon that holds no lock: an executor's thread, or one inside sys.stdin, would keep the process from ending.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    return future


def _read_line(descriptor: int) -> bytes:
    """Byte by byte, so that what follows the line is still there for whoever reads next."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
        try:
            byte = os.read(descriptor, 1)
        except OSError:
            byte = b""
        if not byte:
            break
        line += byte
    return bytes(line)
