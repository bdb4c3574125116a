"""An agent on a websocket, for tests: asks, and keeps every event in the order in which it came.

async with attached(port, session_id, token, since=0) as agent:
    events = await agent.run("1+1")
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from cellgate.wire.agent import Execute, Form, Request, read_event, request_of, write
from tests.support.server import BOUND

__all__ = ["Agent", "agent_url", "attached", "closed", "text_of"]

Event = dict[str, Any]
_numbers = itertools.count(1)


def agent_url(port: int, session_id: str, token: str, **query: object) -> str:
    return f"ws://127.0.0.1:{port}/v1/sessions/{session_id}/ws?{urlencode({'token': token, **query})}"


@asynccontextmanager
async def attached(
    port: int, session_id: str, token: str, *, form: Form = Form.MSGPACK, max_queue: int | None = None, **query: object
) -> AsyncIterator[Agent]:
    url = agent_url(port, session_id, token, **query)
    options: dict[str, Any] = {} if max_queue is None else {"max_queue": max_queue}
    async with connect(
        url, subprotocols=[Subprotocol(form.value)], compression=None, max_size=None, **options
    ) as websocket:
        yield Agent(websocket, form)


async def closed(websocket: ClientConnection) -> tuple[int, str]:
    """The code, and the name that the reason begins with."""
    try:
        while True:
            await asyncio.wait_for(websocket.recv(), BOUND)
    except ConnectionClosed as error:
        assert error.rcvd is not None, "no close frame"
        return error.rcvd.code, error.rcvd.reason.partition(":")[0]


def text_of(events: list[Event], name: str = "stdout") -> str:
    return "".join(event["text"] for event in events if event["event"] == name)


class Agent:
    def __init__(self, websocket: ClientConnection, form: Form) -> None:
        self.websocket = websocket
        self.form = form
        self.events: list[Event] = []

    async def send(self, request: Request | Event) -> None:
        message = request if isinstance(request, dict) else request_of(request)
        frame = write(message, self.form)
        await self.websocket.send(frame.data if frame.is_binary else bytes(frame.data).decode())

    async def next(self) -> Event:
        event = read_event(await asyncio.wait_for(self.websocket.recv(), BOUND), self.form)
        self.events.append(event)
        return event

    async def until(self, is_it: Callable[[Event], object]) -> Event:
        """The next of this kind."""
        while not is_it(event := await self.next()):
            pass
        return event

    async def named(self, name: str) -> Event:
        return await self.until(lambda event: event["event"] == name)

    async def ask(self, request: Request) -> Event:
        """The answer: a reply, or an error."""
        await self.send(request)
        return await self.until(lambda event: "re" in event and event["re"] == request.id)

    async def execute(self, code: str, **options: Any) -> str:
        cell = options.pop("id", None) or f"cell-{next(_numbers)}"
        await self.send(Execute(cell, code, **options))
        return cell

    async def run(self, code: str, **options: Any) -> list[Event]:
        """All events of a cell, to its end."""
        return await self.end_of(await self.execute(code, **options))

    async def end_of(self, cell: str) -> list[Event]:
        def mine() -> list[Event]:
            return [event for event in self.events if event.get("cell") == cell]

        while not any(event["event"] == "finished" for event in mine()):
            await self.next()
        return mine()
