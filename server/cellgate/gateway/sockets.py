"""What the websockets of a session have in common, whatever is spoken on them: a connection between a client and a
reader of the session's journal, from the handshake until either is gone."""

from __future__ import annotations

from cellgate.gateway.base import Handler
from cellgate.gateway.channels import CLOSED_BY_CLIENT, PARTINGS
from cellgate.gateway.websocket import WebSocket
from cellgate.live.reader import Parting, Reader
from cellgate.live.session import LiveSession

__all__ = ["SessionSocket"]


class SessionSocket(Handler, WebSocket):
    """Authenticated by `Handler.prepare`, before the handshake. A subclass finds `_live` before it, and joins, which
    gives it `_reader`, after it. Also the reader's Sink."""

    _live: LiveSession
    _reader: Reader | None = None

    @property
    def max_message_size(self) -> int:
        return self._live.session.limits.message_bytes

    def marked(self, mark: bytes) -> None:
        if self._reader:
            self._reader.marked(mark)

    def drained(self) -> None:
        if self._reader:
            self._reader.drained()

    def ended(self, code: int | None, reason: str) -> None:
        if self._reader:
            self._live.leave(self._reader, in_order=code in CLOSED_BY_CLIENT)

    def part(self, why: Parting) -> None:
        self.shut(*PARTINGS[why])

    def give_way(self) -> None:
        """Hear nothing more until the kernel takes what it was sent."""
        if self._live.is_congested:
            self.pause()
            self._live.when_clear(self.resume)
