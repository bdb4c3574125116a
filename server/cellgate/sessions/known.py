"""Which cells the ids stand for that agents gave: what is asked again under the same id is the same cell, also when
it has finished, and does not run twice. Pure; where entries are kept is for others to say.

An entry is kept before the cell is journalled. One whose cell a crash took is known by its number, which the journal
had not come to.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from hashlib import blake2b
from typing import NamedTuple

__all__ = ["ENTRY_BYTES", "MAX_KNOWN", "Known", "KnownCells"]

MAX_KNOWN = 20_000  # the newest of one session; each takes some 250 bytes of memory, and ENTRY_BYTES on disk
_ENTRY = struct.Struct("<16s8sQ")  # digests of id and code, number of the REQUEST
ENTRY_BYTES = _ENTRY.size


class Known(NamedTuple):
    seq: int
    code: bytes  # its digest

    def is_of(self, code: str) -> bool:
        return self.code == _digest(code.encode("utf-8", "replace"), 8)


class KnownCells:
    def __init__(self, entries: bytes = b"", end: int = 1 << 63) -> None:
        """`entries`: what `add` returned, one after the other. `end`: the number that the journal had come to."""
        self._cells: OrderedDict[bytes, Known] = OrderedDict()
        whole = len(entries) // ENTRY_BYTES * ENTRY_BYTES  # the last may have been cut off
        for name, code, seq in _ENTRY.iter_unpack(entries[:whole]):
            if seq < end:
                self._keep(name, Known(seq, code))

    def find(self, cell_id: bytes) -> Known | None:
        return self._cells.get(_digest(cell_id, 16))

    def add(self, cell_id: bytes, code: str, seq: int) -> bytes:
        """The entry that is to be kept."""
        name, known = _digest(cell_id, 16), Known(seq, _digest(code.encode("utf-8", "replace"), 8))
        self._keep(name, known)
        return _ENTRY.pack(name, known.code, seq)

    def _keep(self, name: bytes, known: Known) -> None:
        self._cells[name] = known
        if len(self._cells) > MAX_KNOWN:
            self._cells.popitem(last=False)


def _digest(data: bytes, size: int) -> bytes:
    return blake2b(data, digest_size=size).digest()
