"""Who reads a session: of each client the connection that counts, and where it goes on reading.

A client that comes again takes the place of its former connection. Of a Jupyter client nobody can say which of two
connections is its own until one of them speaks; both are served until then, as twins, and the one that was there first
is no longer believed. Knows nothing of what is said, or of the loop's tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from cellgate.errors import TooManyClients
from cellgate.live.cursors import Cursors, Place
from cellgate.live.reader import Parting, Reader, Sink
from cellgate.live.voices import Voice
from cellgate.sessions.journal import Journal
from cellgate.sessions.session import Session

__all__ = ["WATCHER", "Audience"]

# How the name begins of a client who may only watch. No other can have such a one: who watches takes nobody's place.
WATCHER = b"\x00watcher "


class Audience:
    """Of one session. Whoever made it owes a `close`."""

    def __init__(
        self,
        session: Session,
        journal: Journal,
        cursors: Cursors,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`cursors` are closed with it. `later` is the loop's."""
        self._session = session
        self._journal = journal
        self._cursors = cursors
        self._later = later
        self._readers: dict[bytes, Reader] = {}
        self._twins: dict[bytes, Reader] = {}  # a second connection of a client's, until one of both speaks
        self._left = asyncio.Event()  # some client has

    def __len__(self) -> int:
        """How many clients are there."""
        return len(self._readers)

    def readers(self) -> list[Reader]:
        """Of all connections."""
        return [*self._readers.values(), *self._twins.values()]

    def find(self, client: bytes) -> Reader | None:
        return self._readers.get(client)

    def join(self, client: bytes, sink: Sink, voice: Voice, *, after: str) -> Reader:
        """Another connection beside any that the client has. See `LiveSession.join`. Raises TooManyClients."""
        if former := self._come(client):
            self._twins[client] = former
        place = self._place_of(client)
        return self._read(client, sink, voice, place.sure if after else place.position, after)

    def attach(self, client: bytes, sink: Sink, voice: Voice, *, since: int | None) -> Reader:
        """A connection in the place of any that the client has. See `LiveSession.attach`. Raises TooManyClients."""
        if former := self._come(client):
            former.part(Parting.REPLACED)
        start = self._place_of(client).sure if since is None else since + 1
        return self._read(client, sink, voice, start)

    def speaks(self, reader: Reader) -> None:
        """Of two connections of the same client the one that speaks is the client's: a notebook server may give up a
        connection without closing it, and that one's handshake may be read last."""
        if other := self._twins.pop(reader.client, None):
            if other is reader:
                other, self._readers[reader.client] = self._readers[reader.client], reader
            other.counts, reader.counts = False, True
            other.part(Parting.REPLACED)

    def leave(self, reader: Reader, *, in_order: bool) -> None:
        """Its connection has ended; `in_order` if the client closed it itself. One that does so while a cell runs, as
        frontends reconnect, may have turned away from what is on its way."""
        is_current = self._readers.get(reader.client) is reader
        reader.gone(in_order=in_order and is_current and self._session.running is None)
        if self._twins.get(reader.client) is reader:
            del self._twins[reader.client]
        elif is_current:
            del self._readers[reader.client]
            if twin := self._twins.pop(reader.client, None):
                twin.counts = True
                self._readers[reader.client] = twin
            else:
                self._session.left(reader.client)
            self._left.set()

    async def all_left(self) -> None:
        while self._readers:
            self._left.clear()
            await self._left.wait()

    def close(self) -> None:
        self._cursors.close()

    def _come(self, client: bytes) -> Reader | None:
        """Let a client in; its connection until now, which counts no longer. Raises TooManyClients."""
        former = self._readers.get(client)
        alike = sum(name.startswith(WATCHER) is client.startswith(WATCHER) for name in self._readers)
        if former is None and alike >= self._session.limits.clients_per_session:  # who watches keeps no other away
            raise TooManyClients(alike)
        self._session.joined(client)
        if former is not None:
            former.counts = False
            if twin := self._twins.pop(client, None):
                twin.part(Parting.REPLACED)
        return former

    def _place_of(self, client: bytes) -> Place:
        place = self._cursors.find(client)
        if place is None:
            place = Place(self._session.news_from, self._session.news_from)
            self._remember(client, place.position)
        return place

    def _remember(self, client: bytes, position: int, *, is_sure: bool = True) -> None:
        """There is room for some places: who watches, under however many names, has none of them."""
        if not client.startswith(WATCHER):
            self._cursors.remember(client, position, is_sure=is_sure)

    def _read(self, client: bytes, sink: Sink, voice: Voice, start: int, after: str = "") -> Reader:
        reader = self._readers[client] = Reader(
            client,
            sink,
            self._journal,
            voice=voice,
            start=start,
            limit_bytes=self._session.limits.client_outbox_bytes,
            remember=partial(self._remember, client),
            later=self._later,
            after=after,
        )
        return reader
