"""What the websockets of a session have in common, whatever is spoken on them: a connection between a client and a
reader of the session's journal, from the handshake until either is gone."""

from __future__ import annotations

from http import HTTPStatus

from cellgate.errors import TooManyClients, UnknownSession
from cellgate.gateway.base import Handler
from cellgate.gateway.websocket import WebSocket
from cellgate.live.reader import Parting, Reader
from cellgate.live.session import LiveSession

__all__ = ["CLOSED_BY_CLIENT", "MAX_CLIENT_BYTES", "PARTINGS", "TRY_AGAIN_LATER", "SessionSocket"]

MAX_CLIENT_BYTES = 255  # of a client's id: it stands in the records that are for one client alone; real ones have 36
TRY_AGAIN_LATER = 1013
CLOSED_BY_CLIENT = frozenset({1000, 1001, 1005})  # normal, a page that is left, without a code; never ours

# What a client is told when we close its connection. It may come again, and reads on, after all but the first.
PARTINGS: dict[Parting, tuple[int, str]] = {
    Parting.SESSION_OVER: (4001, "session_over: the session has ended, and everything was delivered"),
    Parting.REPLACED: (4002, "replaced: the same session_id speaks on another connection"),
    Parting.TOO_SLOW: (4008, "too_slow: nothing was taken for too long; connect again to read on"),
    Parting.UNWELCOME: (4003, "unwelcome: the token that opened this was revoked, or has expired"),
    Parting.GOING_AWAY: (1012, "going_away: the server restarts; connect again to read on"),
}


class SessionSocket(Handler, WebSocket):
    """Authenticated by `Handler.prepare`, before the handshake. A subclass finds `_live` before it, and joins, which
    gives it `_reader`, after it. Also the reader's Sink."""

    _live: LiveSession
    _reader: Reader | None = None
    _holds: frozenset[str] = frozenset()  # why nothing is heard

    @property
    def max_message_size(self) -> int:
        return self._live.session.limits.message_bytes

    def open(self, *_: str) -> None:
        try:
            self._reader = self.join()
        except TooManyClients as error:
            self.shut(TRY_AGAIN_LATER, f"{error.code}: {error}")
            return
        except UnknownSession:  # it has ended during the handshake
            self.part(Parting.SESSION_OVER)
            return
        self.joined(self._reader)
        self._reader.catch_up()

    def join(self) -> Reader:
        """To be overridden. Raises TooManyClients, UnknownSession."""
        raise NotImplementedError

    def joined(self, reader: Reader) -> None:
        """To be overridden: what is said first of all."""

    # -- from the client -----------------------------------------------------------------------------

    def hear(self, reader: Reader, data: bytes | str) -> None:
        """To be overridden."""
        raise NotImplementedError

    def heard(self, data: bytes | str) -> None:
        if self._reader is None or self._reader.is_over:
            return
        self.hear(self._reader, data)
        if self._live.is_congested:
            self.hold("congested")
            self._live.when_clear(self._cleared)
        if self.buffered_bytes > self._live.session.limits.client_outbox_bytes:
            self.hold("full")  # of answers, which it does not take

    def hold(self, why: str) -> None:
        """Hear nothing until whatever held it has been released."""
        self._holds |= {why}
        self.pause()

    def release(self, why: str) -> None:
        if why in self._holds:
            self._holds -= {why}
            if not self._holds:
                self.resume()

    def _cleared(self) -> None:
        self.release("congested")

    def marked(self, mark: bytes) -> None:
        if self._reader:
            self._reader.marked(mark)

    def drained(self) -> None:
        self.release("full")
        if self._reader:
            self._reader.drained()

    def on_finish(self) -> None:
        """Of the handshake."""
        if self.get_status() != HTTPStatus.SWITCHING_PROTOCOLS:
            super().on_finish()

    def ended(self, code: int | None, reason: str) -> None:
        if self._reader:
            self._live.leave(self._reader, in_order=code in CLOSED_BY_CLIENT)
        self.asked_as.is_over = True

    def show_out(self) -> None:
        self.part(Parting.UNWELCOME)

    # -- to the client (Sink) ------------------------------------------------------------------------

    def part(self, why: Parting) -> None:
        self.shut(*PARTINGS[why])
