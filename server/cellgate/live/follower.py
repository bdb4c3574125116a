"""Runs cells for somebody in this process, who wants to know what becomes of each: REST, one-shots.

    Execute ── run ──▶ LiveSession.heard ··· the journal ──▶ events ── fold ──▶ Result

A client of a session like any other, as its reader's voice and its connection at once. It takes everything at once, so
that what it holds is bounded by the output that its cells may have, which is theirs to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from cellgate.errors import CellgateError, Draining, UnknownSession, UsageError
from cellgate.live.reader import Parting
from cellgate.live.session import LiveSession, date_now
from cellgate.sessions.agents import Event, event_of, message_of
from cellgate.sessions.journal import Gap
from cellgate.sessions.records import Record
from cellgate.wire.agent import Execute
from cellgate.wire.jupyter import Frame
from cellgate.wire.result import Folding, Result

__all__ = ["Follower", "place_of"]


def place_of(live: LiveSession, cell: str) -> int:
    """Behind which record all is said that this cell says: one that is asked for again has said some of it."""
    known = live.session.accepted_at(cell)
    return live.journal.next_seq - 1 if known is None else known - 1


FORGOTTEN = (
    "the cell {!r} has finished, and what became of it is no longer kept; another id would run it again and pass"
)
_NOTHING = Frame(b"", False)


class Follower:
    """To be entered; whoever leaves the block leaves the session. Raises TooManyClients and UnknownSession there."""

    name = "rest"  # of what it speaks
    has_marks = False
    buffered_bytes = 0  # it keeps up
    sent_bytes = 0

    def __init__(
        self,
        live: LiveSession,
        client: str,
        tell: Callable[[Event], object] = lambda event: None,
        *,
        since: int | None = None,
    ) -> None:
        """`client` is who says what it asks. `tell` is called with each event of its cells. It hears what comes behind
        the record `since`, by default what is new."""
        self._live = live
        self._since = live.journal.next_seq - 1 if since is None else since
        self._client = client.encode()
        self._tell = tell
        self._cells: dict[str, tuple[Folding, asyncio.Future[None]]] = {}
        self._over: CellgateError | None = None  # why nothing will be heard any more

    def __enter__(self) -> Follower:
        self._reader = self._live.attach(self._client, self, self, since=self._since)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.leave(self._reader, in_order=True)

    async def run(self, cell: Execute) -> Result:
        """What becomes of it; one that was not accepted has a result, too. One that is asked for again is the same.
        Whoever is cancelled meanwhile leaves it to the kernel. Raises Refused; UsageError when there was another of its
        id, or its outcome is no longer kept; UnknownSession or Draining when session or server end before it."""
        if self._over is not None:
            raise self._over
        if self._is_behind(cell.id):
            name = f"{self._client.decode()[:40]}-{uuid4().hex}"
            with Follower(self._live, name, self._tell, since=place_of(self._live, cell.id)) as follower:
                return await follower.run(cell)
        message = message_of(cell, date=date_now(), max_bytes=self._live.session.limits.message_bytes)
        folding, done = Folding(), asyncio.get_running_loop().create_future()
        self._cells[cell.id] = folding, done
        try:
            self._live.heard(self._reader, message)
            self._reader.catch_up()  # the first time; then it is there already
            await done
        finally:
            del self._cells[cell.id]
        return folding.result()

    def _is_behind(self, cell: str) -> bool:
        """Whether some of what it said was read already, and not as its own."""
        accepted = self._live.session.accepted_at(cell)
        return accepted is not None and accepted < self._reader.position

    # -- Voice ---------------------------------------------------------------------------------------

    def frames(self, records: Sequence[Record], first: int) -> list[Frame]:
        for seq, record in enumerate(records, first):
            event = event_of(record, seq, self._client)
            if event is not None:
                self._take(event)
        return []

    def gap(self, gap: Gap) -> Frame:
        """Of the journal, in which a cell may have said more than it keeps."""
        facts = {"first": gap.first, "last": gap.last, "count": gap.records}
        text = f"{gap.records} events are no longer kept, and left out here"
        for cell in self._cells:
            self._take({"event": "notice", "cell": cell, "note": "gap", "text": text, "facts": facts, "seq": gap.last})
        return _NOTHING

    def caught_up(self, seq: int) -> None:
        """A cell of which no end was found, and that has ended, will have none."""
        for cell in self._cells:
            if self._live.session.stage_of(cell) == "finished":
                self._fail(cell, UsageError(FORGOTTEN.format(cell[:80])))

    def tell(self, event: Mapping[str, Any]) -> None:
        """An answer to whoever asks for a cell of which there was one already."""
        if event["event"] == "error":
            self._fail(str(event["re"]), UsageError(str(event["message"])))

    def _fail(self, cell: str, error: CellgateError) -> None:
        folding, done = self._cells.get(cell, (None, None))
        if folding is not None and not folding.is_over and done is not None and not done.done():
            done.set_exception(error)

    def _take(self, event: Event) -> None:
        cell = event.get("cell") or event.get("re")
        if cell not in self._cells:
            return
        folding, done = self._cells[cell]
        folding.take(event)
        self._tell(event)
        if folding.is_over and not done.done():
            done.set_result(None)

    # -- Sink ----------------------------------------------------------------------------------------

    def send(self, frames: Sequence[Frame], mark: bytes | None = None) -> None:
        """All was taken already."""

    def part(self, why: Parting) -> None:
        self._over = Draining() if why is Parting.GOING_AWAY else UnknownSession(self._live.id)
        for cell in self._cells:
            self._fail(cell, self._over)
