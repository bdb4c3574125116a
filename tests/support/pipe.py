"""A client's connection played: takes as much as a test lets it, and gives marks back when it is told to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cellgate.live.reader import Parting
from cellgate.wire.jupyter import Frame


class Pipe:
    """A `Sink`. What `send` gives waits until `take`; what was taken has arrived, and can be answered."""

    def __init__(self, *, takes_all: bool = False) -> None:
        self.takes_all = takes_all  # at once, as a socket with room does
        self.arrived: list[Frame] = []
        self.marks: deque[bytes] = deque()  # that arrived, and were not given back
        self.parted: list[Parting] = []
        self.sends = 0
        self.most_buffered = 0
        self.sent_bytes = 0
        self.buffered_bytes = 0
        self._waiting: deque[Frame | bytes] = deque()

    def send(self, frames: Sequence[Frame], mark: bytes | None = None) -> None:
        assert not self.parted, "nothing is sent after the end"
        assert frames or mark is not None, "there is something to send"
        self.sends += 1
        self._waiting += frames
        if mark is not None:
            self._waiting.append(mark)
        self.buffered_bytes += sum(map(_size, frames))
        if self.takes_all:
            self.take()
        self.most_buffered = max(self.most_buffered, self.buffered_bytes)

    def part(self, why: Parting) -> None:
        self.parted.append(why)

    # -- the client's side

    def take(self, count: int | None = None) -> None:
        """So many frames and marks, or all."""
        for _ in range(len(self._waiting) if count is None else min(count, len(self._waiting))):
            item = self._waiting.popleft()
            if isinstance(item, bytes):
                self.marks.append(item)
                continue
            self.arrived.append(Frame(bytes(item.data) if item.is_binary else item.data, item.is_binary))
            self.buffered_bytes -= _size(item)
            self.sent_bytes += _size(item)

    @property
    def is_empty(self) -> bool:
        return not self._waiting


def _size(frame: Frame) -> int:
    return len(frame.data)
