"""A Jupyter client's websocket, `/api/kernels/<id>/channels`: between the frames of a client and a live session.

A client's identity is its `session_id`: whoever comes back with the same one reads on where it stopped. `after`, the
id of the last message it saw, makes that exact when the connection broke in between (PROTOCOL.md). Decides nothing
else: frames are read in `wire.jupyter`, requests are judged in `sessions`.
"""

from __future__ import annotations

from uuid import uuid4

from tornado.web import HTTPError

from cellgate.gateway.sockets import MAX_CLIENT_BYTES, SessionSocket
from cellgate.gateway.websocket import WebSocket
from cellgate.live.reader import Reader
from cellgate.live.session import date_now
from cellgate.wire.jupyter import Dialect, MessageError, choose_dialect, close_code, read_frame

__all__ = ["ChannelsHandler"]


class ChannelsHandler(SessionSocket):
    _client: bytes
    _after: str
    _dialect = Dialect.LEGACY

    async def get(self, session_id: str) -> None:
        self._live = self.manager.find(self.principal, session_id)
        if not self.asked().is_websocket:
            raise HTTPError(400)
        # Before the handshake: what is no text here can still be answered.
        self._client = _client_of(self.get_query_argument("session_id", ""))
        self._after = self.get_query_argument("after", "")
        await WebSocket.get(self, session_id)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        self._dialect = choose_dialect(subprotocols)
        name: str | None = self._dialect.value
        return name

    def join(self) -> Reader:
        return self._live.join(self._client, self, self._dialect, after=self._after)

    def hear(self, reader: Reader, data: bytes | str) -> None:
        try:
            message = read_frame(data, self._dialect, date=date_now(), max_bytes=self.max_message_size)
        except MessageError as error:
            self.shut(close_code(error), f"{error.code}: {error}")
            return
        self._live.heard(reader, message)


def _client_of(session_id: str) -> bytes:
    """Somebody new, for one that is nobody's."""
    given = session_id.encode()
    is_name = 0 < len(given) <= MAX_CLIENT_BYTES and session_id.isprintable()
    return given if is_name else uuid4().hex.encode()
