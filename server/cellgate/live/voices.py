"""How a session speaks to one client: records of its journal as the frames that this client is sent.

A Jupyter client is sent messages as they were said; an agent is told events. Knows nothing of connections, or of what
was sent before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from cellgate.sessions.agents import event_of
from cellgate.sessions.journal import Gap
from cellgate.sessions.records import Kind, Record
from cellgate.wire.agent import Form, write
from cellgate.wire.jupyter import Dialect, Frame, MessageError, write_frame

__all__ = ["AgentVoice", "JupyterVoice", "Voice"]

_OUTPUT, _NOTE = Kind.OUTPUT, Kind.NOTE


class Voice(Protocol):
    name: str  # of what it speaks
    has_marks: bool  # whether what its client has received is found out by marks; else the client says so itself

    def frames(self, records: Sequence[Record], first: int) -> list[Frame]:
        """Those that are for this client, of records that are numbered from `first`."""
        ...

    def gap(self, gap: Gap) -> Frame:
        """Where records are missing."""
        ...

    def caught_up(self, seq: int) -> Frame | None:
        """All up to this record has been sent, for the first time on this connection."""
        ...

    def tell(self, event: Mapping[str, Any]) -> Frame | None:
        """What stands in no journal, if that can be said."""
        ...


class JupyterVoice:
    has_marks = True

    def __init__(self, client: bytes, dialect: Dialect, say_gap: Callable[[Gap], bytes]) -> None:
        self.name = dialect.value or "legacy"
        self._client = client
        self._dialect = dialect
        self._say_gap = say_gap

    def frames(self, records: Sequence[Record], first: int) -> list[Frame]:
        client, dialect = self._client, self._dialect
        frames = []
        for record in records:
            if (record.kind is _OUTPUT or record.kind is _NOTE) and (not record.client or record.client == client):
                if dialect is Dialect.V1:
                    frames.append(Frame(record.body, True))
                    continue
                try:
                    frames.append(write_frame(record.body, dialect))
                except MessageError:  # a kernel's header that is none cannot be said in the legacy dialect
                    continue
        return frames

    def gap(self, gap: Gap) -> Frame:
        return write_frame(self._say_gap(gap), self._dialect)

    def caught_up(self, seq: int) -> None:
        """Its clients know no such thing."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """The same."""


class AgentVoice:
    has_marks = False

    def __init__(self, client: bytes, form: Form) -> None:
        self.name = form.value
        self._client = client
        self._form = form

    def frames(self, records: Sequence[Record], first: int) -> list[Frame]:
        events = (event_of(record, seq, self._client) for seq, record in enumerate(records, first))
        return [write(event, self._form) for event in events if event is not None]

    def gap(self, gap: Gap) -> Frame:
        return self.tell({"event": "gap", "seq": gap.last, "first": gap.first, "last": gap.last, "count": gap.records})

    def caught_up(self, seq: int) -> Frame:
        return self.tell({"event": "caught_up", "seq": seq})

    def tell(self, event: Mapping[str, Any]) -> Frame:
        return write(event, self._form)
