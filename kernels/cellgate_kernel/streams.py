"""sys.stdout and sys.stderr of a kernel whose output leaves through the host."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from .compose import Parent
from .host import Host
from .outbox import Text

__all__ = ["Stream"]


class Stream(io.TextIOBase):
    """Text written here belongs to the request that `parent` gives, and is never held back: what is not flushed
    leaves within some milliseconds, joined with its neighbours."""

    def __init__(self, host: Host, name: str, descriptor: int, parent: Callable[[], Parent | None]) -> None:
        self._host = host
        self._outbox = host.outbox
        self._name = name
        self._descriptor = descriptor
        self._parent = parent
        self._line = ""  # in a forked child: what waits for its end

    @property
    def name(self) -> str:
        return self._name

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed says attribute
        return "UTF-8"

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if text:
            if self._host.is_child:  # whole lines, so that those of several children do not mix
                self._line += text
                if "\n" in text:
                    self.flush()
            else:
                self._outbox.write(Text(self._parent(), self._name, text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]  # typeshed says list
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._host.is_child:
            self._outbox.flush()
        elif self._line:
            line, self._line = self._line, ""
            self._host.write(Text(None, self._name, line))

    def close(self) -> None:
        """Nothing: libraries that close what they were given must not end the output of the session."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """A real descriptor, whose output is shown as this stream's: children and C code may write to it."""
        return self._descriptor

    def isatty(self) -> bool:
        return False

    @property
    def buffer(self) -> Any:
        """For those who write bytes: unbuffered, to the descriptor."""
        return io.FileIO(self._descriptor, "w", closefd=False)
