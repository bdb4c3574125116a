"""How far each client of a session has surely read, kept where a killed gateway leaves it for the next.

A small file mapped into memory: to remember a position is one store, no system call, and what is stored survives
`kill -9`. A host that loses power may lose it, and then clients may see some messages twice. When the file cannot be
had, positions live in memory alone.
"""

from __future__ import annotations

import mmap
import os
import struct
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

__all__ = ["Cursors", "Place"]

SLOTS = 128  # clients remembered per session; a browser makes a new one for each visit
NEVER = 1 << 63  # nobody has said, or come, so often
_SLOT = struct.Struct("<16sQQQ")  # digest of the client's id, when it was used (a counter), and its place
_USED_AT, _POSITION_AT, _SURE_AT = 16, 24, 32


class Place(NamedTuple):
    """Of a client in a journal: the number of the record it wants next."""

    position: int  # as we believe
    sure: int  # as it has confirmed; not more


class Cursors:
    """Places by client. Whoever opened it owes a `close`."""

    def __init__(self, path: Path, end: int = NEVER) -> None:
        """`end` is where the journal ends. Whoever saw more before a power failure goes on from there, and misses
        nothing of what is given the same numbers again."""
        self._map = _open(path)
        self._slots: dict[bytes, int] = {}
        self._used = 0
        for at in range(0, SLOTS * _SLOT.size, _SLOT.size):
            digest, used, position, sure = _SLOT.unpack_from(self._map, at)
            if 0 < sure <= position < NEVER and used < NEVER:  # else an empty slot, or rubbish
                self._slots[digest] = at
                self._used = max(self._used, used)
                if position > end:
                    self._set(at + _POSITION_AT, end)
                    self._set(at + _SURE_AT, min(sure, end))

    def find(self, client: bytes) -> Place | None:
        """Where this client reads on."""
        at = self._slots.get(_digest(client))
        return None if at is None else Place(self._get(at + _POSITION_AT), self._get(at + _SURE_AT))

    def remember(self, client: bytes, position: int, *, is_sure: bool = True) -> None:
        """Does nothing after `close`: a connection may be told of a mark while it is being closed."""
        if self._map.closed:
            return
        digest = _digest(client)
        at = self._slots.get(digest)
        self._used += 1
        if at is None:
            at = self._slots[digest] = self._free()
            _SLOT.pack_into(self._map, at, digest, self._used, position, position)
            return
        self._set(at + _USED_AT, self._used)  # each an aligned store; whoever dies between two of them harms nobody
        self._set(at + _POSITION_AT, position)
        if is_sure:
            self._set(at + _SURE_AT, position)

    def close(self) -> None:
        self._map.close()

    def _get(self, at: int) -> int:
        return int.from_bytes(self._map[at : at + 8], "little")

    def _set(self, at: int, value: int) -> None:
        self._map[at : at + 8] = value.to_bytes(8, "little")

    def _free(self) -> int:
        """An empty slot, or that of whoever has read nothing for longest."""
        if len(self._slots) < SLOTS:
            taken = set(self._slots.values())
            return next(at for at in range(0, SLOTS * _SLOT.size, _SLOT.size) if at not in taken)
        oldest = min(self._slots, key=lambda digest: _SLOT.unpack_from(self._map, self._slots[digest])[1])
        return self._slots.pop(oldest)


def _digest(client: bytes) -> bytes:
    return blake2b(client, digest_size=16).digest()


def _open(path: Path) -> mmap.mmap:
    size = SLOTS * _SLOT.size
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # All of it on the disk now: a page that finds no room when it is written to would end this process.
            os.posix_fallocate(descriptor, 0, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError:
        return mmap.mmap(-1, size)
