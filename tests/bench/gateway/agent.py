"""A warm `1+1` over an agent's websocket, from `execute` to `finished`, in either form; the peer is the v1 websocket of
the same server. What an agent's client pays for composing and reading is in the figure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count as numbers
from time import perf_counter
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from cellgate.wire.agent import Execute, Form, read_event, request_of, write
from tests.bench.gateway.client import Address
from tests.bench.gateway.servers import OURS, Stage, answer
from tests.bench.harness import Counts, Row, interleave

COUNTS = Counts(full=40, quick=10, tiny=1)  # laps
LAP = 50  # cells: as in a session that is at work
WARM_UP = 2  # laps
CELL_SECONDS = 60.0


@asynccontextmanager
async def attached(address: Address, session_id: str, form: Form) -> AsyncIterator[ClientConnection]:
    url = f"ws://{address.host}:{address.port}/v1/sessions/{session_id}/ws?token={address.token}"
    async with connect(url, subprotocols=[Subprotocol(form.value)], compression=None) as websocket:
        yield websocket


async def run(websocket: ClientConnection, form: Form, cell: str) -> dict[str, Any]:
    """The event that ends it."""
    frame = write(request_of(Execute(cell, "1+1")), form)
    await websocket.send(frame.data if frame.is_binary else bytes(frame.data).decode())
    while True:
        event = read_event(await asyncio.wait_for(websocket.recv(), CELL_SECONDS), form)
        if event["event"] == "finished" and event["cell"] == cell:
            return event


async def measure(stage: Stage, count: int) -> list[Row]:
    server = await stage.server(OURS)
    ids = numbers(1)
    times: dict[str, list[float]] = {name: [] for name in (*Form.__members__, "v1")}
    walls: list[float] = []

    async def as_agent(websocket: ClientConnection, form: Form) -> None:
        for _ in range(LAP):
            begin = perf_counter()
            event = await run(websocket, form, f"{form.name}-{next(ids)}")
            times[form.name].append((perf_counter() - begin) * 1e3)
            assert event["status"] == "ok", event
            walls.append(event["metrics"]["wall"] * 1e3)

    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(server.websocket())

        async def as_notebook() -> None:
            times["v1"] += [await answer(plain) * 1e3 for _ in range(LAP)]

        turns = [as_notebook]
        for form in Form:
            session = await stack.enter_async_context(server.kernel())
            websocket = await stack.enter_async_context(attached(server.address, session, form))
            turns.append(partial(as_agent, websocket, form))
        await interleave(WARM_UP, *turns)
        for kept in (*times.values(), walls):
            kept.clear()
        await interleave(count, *turns)
    rows = [Row(f"1+1 as {form.value}", "ms", times[form.name], times["v1"], target={"p50": 2.0}) for form in Form]
    return [*rows, Row("of that, by `metrics.wall`", "ms", walls)]
