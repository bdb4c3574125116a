"""A Jupyter client's websocket, `/api/kernels/<id>/channels`: between the frames of a client and a live session.

A client's identity is its `session_id`: whoever comes back with the same one reads on where it stopped. `after`, the
id of the last message it saw, makes that exact when the connection broke in between (PROTOCOL.md). Decides nothing
else: frames are read in `wire.jupyter`, requests are judged in `sessions`.
"""

from __future__ import annotations

from uuid import uuid4

from tornado.web import HTTPError

from cellgate.errors import TooManyClients
from cellgate.gateway.base import Handler
from cellgate.gateway.websocket import WebSocket
from cellgate.live.reader import Parting, Reader
from cellgate.live.session import LiveSession, date_now
from cellgate.wire.jupyter import Dialect, MessageError, choose_dialect, close_code, read_frame

__all__ = ["PARTINGS", "ChannelsHandler"]

MAX_CLIENT_BYTES = 255  # of a session_id: it stands in the records that are for one client alone; real ones have 36
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


class ChannelsHandler(Handler, WebSocket):
    """Authenticated by `Handler.prepare`, before the handshake."""

    _live: LiveSession
    _client: bytes
    _after: str
    _reader: Reader | None = None
    _dialect = Dialect.LEGACY

    async def get(self, session_id: str) -> None:
        self._live = self.manager.find(self.principal, session_id)
        if not self.asked().is_websocket:
            raise HTTPError(400)
        # Before the handshake: what is no text here can still be answered.
        self._client = _client_of(self.get_query_argument("session_id", ""))
        self._after = self.get_query_argument("after", "")
        await WebSocket.get(self, session_id)

    @property
    def max_message_size(self) -> int:
        return self._live.session.limits.message_bytes

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        self._dialect = choose_dialect(subprotocols)
        name: str | None = self._dialect.value
        return name

    def open(self, *_: str) -> None:
        try:
            self._reader = self._live.join(self._client, self, self._dialect, after=self._after)
        except TooManyClients as error:
            self.shut(TRY_AGAIN_LATER, f"{error.code}: {error}")
            return
        self._reader.catch_up()

    # -- from the client -----------------------------------------------------------------------------

    def heard(self, data: bytes | str) -> None:
        if self._reader is None or self._reader.is_over:
            return
        try:
            message = read_frame(data, self._dialect, date=date_now(), max_bytes=self.max_message_size)
        except MessageError as error:
            self.shut(close_code(error), f"{error.code}: {error}")
            return
        self._live.heard(self._reader, message)
        if self._live.is_congested:
            self.pause()
            self._live.when_clear(self.resume)

    def marked(self, mark: bytes) -> None:
        if self._reader:
            self._reader.marked(mark)

    def drained(self) -> None:
        if self._reader:
            self._reader.drained()

    def ended(self, code: int | None, reason: str) -> None:
        if self._reader:
            self._live.leave(self._reader, in_order=code in CLOSED_BY_CLIENT)

    def show_out(self) -> None:
        self.part(Parting.UNWELCOME)

    # -- to the client (Sink) ------------------------------------------------------------------------

    def part(self, why: Parting) -> None:
        self.shut(*PARTINGS[why])


def _client_of(session_id: str) -> bytes:
    """Somebody new, for one that is nobody's."""
    given = session_id.encode()
    return given if 0 < len(given) <= MAX_CLIENT_BYTES else uuid4().hex.encode()
