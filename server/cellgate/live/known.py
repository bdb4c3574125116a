"""Keeps what `sessions.known` knows where the gateway after this one finds it: a file that grows by an entry a cell."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

from cellgate.sessions.known import ENTRY_BYTES, MAX_KNOWN

__all__ = ["KnownFile"]

log = logging.getLogger("cellgate.live")

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class KnownFile:
    """Opened for each entry: most sessions have none, and a session has few descriptors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0

    def read(self) -> bytes:
        """All that count, whole."""
        try:
            entries = self._path.read_bytes()
        except OSError:
            return b""
        whole = entries[: len(entries) // ENTRY_BYTES * ENTRY_BYTES][-MAX_KNOWN * ENTRY_BYTES :]
        if whole != entries:
            self._replace(whole)
        self._count = len(whole) // ENTRY_BYTES
        return whole

    def append(self, entry: bytes) -> None:
        """Without a disk that takes it, the next gateway does not know this cell by its id."""
        try:
            descriptor = os.open(self._path, _FLAGS, 0o600)
            try:
                if (written := os.write(descriptor, entry)) < len(entry):  # a part would put all behind it out of step
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("%s: an entry could not be kept: %s", self._path, error)
        self._count += 1
        if self._count >= 2 * MAX_KNOWN:
            self.read()

    def _replace(self, entries: bytes) -> None:
        unfinished = self._path.with_suffix(".tmp")
        with suppress(OSError):
            unfinished.write_bytes(entries)
            os.chmod(unfinished, 0o600)
            unfinished.replace(self._path)
