"""A client that comes back after every break, and keeps all it ever saw.

What it does about a break is what PROTOCOL.md offers to any client: it names the last message it saw, reads on from
there, and asks again, under the same id, for each cell that nobody took. Whether anybody did it knows when the answer
to something it asked on the new connection has come: all that was said before has come by then.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.websocket import Message, Websocket, execute_frame, request_frame

__all__ = ["Asked", "Place", "Roamer", "Seen"]

RETRY_SECONDS = 0.02  # between two attempts to connect while nobody listens


class Place(NamedTuple):
    """Where a session is served."""

    port: int
    kernel_id: str
    token: str


class Seen(NamedTuple):
    connection: int  # counted from 1
    message: Message


@dataclass
class Asked:
    """A cell as its client knows it."""

    id: str
    frame: bytes
    times_sent: int = 0
    is_taken: bool = False  # busy was seen: it will be answered, whatever becomes of it
    has_reply: bool = False
    is_idle: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Roamer:
    """`run` is a task of its maker's. With `names_last` off it only keeps its identity, as unmodified clients do."""

    def __init__(self, place: Place, session_id: str, *, names_last: bool = True) -> None:
        self.place = place
        self.session_id = session_id
        self.seen: list[Seen] = []
        self.asked: dict[str, Asked] = {}
        self.absences: list[float] = []  # seconds, from each break to the next open websocket
        self.closings: list[tuple[int, str]] = []
        self.breaks = 0
        self.websocket: Websocket | None = None  # None while there is none
        self.on_message: Callable[[Message], None] = lambda message: None
        self._names_last = names_last
        self._connections = 0
        self._is_caught_up = False
        self._greeting = ""  # id of the first request on this connection
        self._ids = itertools.count(1)
        self._is_over = False

    # -- its life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `leave`."""
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        while not self._is_over:
            query = {"session_id": self.session_id}
            if self._names_last and self.seen:
                query["after"] = self.seen[-1].message.id
            self._connections += 1
            try:
                websocket = await Websocket.open(*self.place, self._hear, query=query)
            except (OSError, asyncio.TimeoutError):
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._connections > 1:
                self.absences.append(loop.time() - lost_at)
            self._greeting = f"{self.session_id}-hello-{next(self._ids)}"
            websocket.send(request_frame("kernel_info_request", {}, self._greeting))
            self.websocket = websocket
            self.closings.append(await websocket.closed)
            self.websocket, self._is_caught_up = None, False
            lost_at = loop.time()
            self.breaks += 1

    def leave(self) -> None:
        """Come back no more."""
        self._is_over = True
        if self.websocket is not None:
            self.websocket.abort()

    def drop(self, dice: random.Random) -> str:
        """Break the connection in one of the ways there are, and say which. Whoever turns away without naming what it
        saw last is taken at its word, if no cell runs: it has lost interest."""
        assert self.websocket is not None
        way = dice.choice(("abort", "half_close", "close", *(["turn_away"] if self._names_last else [])))
        getattr(self.websocket, way)()
        return way

    # -- cells ---------------------------------------------------------------------------------------

    def ask(self, code: str, cell_id: str = "") -> Asked:
        cell_id = cell_id or f"{self.session_id}-{next(self._ids)}"
        asked = self.asked[cell_id] = Asked(cell_id, execute_frame(code, cell_id))
        if self._is_caught_up:
            self._send(asked)
        return asked

    async def execute(self, code: str) -> Asked:
        asked = self.ask(code)
        await asked.done.wait()
        return asked

    def _send(self, asked: Asked) -> None:
        if self.websocket is not None:
            asked.times_sent += 1
            self.websocket.send(asked.frame)

    # -- what it sees --------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        self.seen.append(Seen(self._connections, message))
        if message.parent == self._greeting and message.type == "kernel_info_reply":
            self._is_caught_up = True
            for waiting in self.asked.values():
                if not waiting.is_taken:
                    self._send(waiting)
        if asked := self.asked.get(message.parent):
            asked.is_taken |= message.state == "busy" or message.type == "execute_reply"
            asked.has_reply |= message.type == "execute_reply"
            asked.is_idle |= message.state == "idle"
            if asked.has_reply and asked.is_idle:
                asked.done.set()
        self.on_message(message)
