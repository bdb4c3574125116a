"""What is written to file descriptors 1 and 2, by C code or by children, becomes stream output of the running cell.

The reader thread reads the pipes as text comes; the kernel calls `drain` before it replies, so that all a cell wrote
is before its reply and in its name. Knows nothing of messages but `Text`.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import select
import threading
from contextlib import suppress

from .compose import Parent
from .outbox import Outbox, Text

__all__ = ["Capture"]

READ_BYTES = 64 << 10
PIPE_BYTES = 1 << 20  # C code may write this much while it keeps the interpreter lock; more would block for ever
F_SETPIPE_SZ = 1031  # fcntl names it from Python 3.10 on, some builds do not


class Capture:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = threading.RLock()  # held while bytes are between a pipe and the outbox; see Outbox for the kind
        self._parent: Parent | None = None
        self._names: dict[int, str] = {}
        self._full = select.poll()  # one call tells of both pipes that there is nothing, as is the rule
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._log = -1

    def start(self) -> None:
        """Descriptor 0 reads nothing from now on; 1 and 2 are pipes."""
        self._log = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
        with suppress(OSError):
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(null, 0)
            os.close(null)
        for target, name in ((1, "stdout"), (2, "stderr")):
            source, sink = os.pipe2(os.O_CLOEXEC)
            os.dup2(sink, target)
            os.close(sink)
            os.set_blocking(source, False)
            with suppress(OSError):
                fcntl.fcntl(source, F_SETPIPE_SZ, PIPE_BYTES)
            self._full.register(source, select.POLLIN)
            self._names[source] = name
            self._decoders[source] = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pipes(self) -> tuple[int, ...]:
        return tuple(self._names)

    def log(self, text: str) -> None:
        """To what was descriptor 2 at the start: the operator's, not the user's."""
        with suppress(OSError):
            os.write(self._log, text.encode("utf-8", "replace"))

    def begin(self, parent: Parent | None) -> None:
        """What is written from now on belongs to this request."""
        with self._lock:
            self._parent = parent

    def read(self, pipe: int) -> None:
        """Pass on what one pipe holds now, READ_BYTES at most."""
        with self._lock:
            self._read(pipe)

    def drain(self, *, final: bool = False) -> None:
        """Pass on all that was written before this call; `final` also what is only half a character."""
        with self._lock:
            if self._names and self._full.poll(0):
                for pipe in self._names:
                    left = PIPE_BYTES + READ_BYTES  # a child that never stops writing must not hold the reply
                    while left > 0 and (size := self._read(pipe)):
                        left -= size
            if not final:
                return
            for pipe, decoder in self._decoders.items():
                if text := decoder.decode(b"", final=True):
                    self._outbox.write(Text(self._parent, self._names[pipe], text), wait=False)

    def _read(self, pipe: int) -> int:
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return 0
        if text := self._decoders[pipe].decode(data):
            self._outbox.write(Text(self._parent, self._names[pipe], text), wait=False)
        return len(data)

    def forget(self) -> None:
        """In a forked child: the reading ends are the kernel's."""
        for pipe in (*self._names, self._log):
            with suppress(OSError):
                os.close(pipe)
        self._names.clear()
        self._decoders.clear()
