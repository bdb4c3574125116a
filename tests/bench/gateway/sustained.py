"""Several clients that start a session, ask `1+1`, and delete it, again and again: how many a second, and how soon a
DELETE is answered."""

from __future__ import annotations

import asyncio
from time import perf_counter

from tests.bench.gateway.servers import FLOOR, OURS, PEERS, Samples, Server, Stage, answer, beside
from tests.bench.harness import Counts, Row

COUNTS = Counts(full=1000, quick=200, tiny=4)  # sessions
CLIENTS = 4
LAP = 100  # sessions per sample of the rate
LAP_OF_PEERS = 12  # sessions, beside every lap of ours


async def measure(stage: Stage, count: int) -> list[Row]:
    servers = await stage.servers()
    rates: Samples = {name: [] for name in (OURS, *PEERS, FLOOR)}
    deletes: Samples = {name: [] for name in (OURS, *PEERS, FLOOR)}

    async def come_and_go(server: Server, times: int) -> None:
        for _ in range(times):
            kernel = await server.create()
            websocket = await server.open(kernel)
            await answer(websocket)
            await websocket.close()
            begin = perf_counter()
            await server.delete(kernel)
            deletes[server.name].append((perf_counter() - begin) * 1e3)

    for server in servers:
        await come_and_go(server, 1)
        deletes[server.name].clear()
    for first in range(0, count, LAP):
        for server in servers:
            lap = min(LAP_OF_PEERS if server.name in PEERS else LAP, count - first)
            each = max(1, lap // CLIENTS)
            begin = perf_counter()
            await asyncio.gather(*(come_and_go(server, each) for _ in range(CLIENTS)))
            rates[server.name].append(each * CLIENTS / (perf_counter() - begin))
    return [
        *beside(f"sessions by {CLIENTS} clients", "/s", rates, more_is_better=True, target={"p50": 40}),
        *beside("DELETE answered", "ms", deletes, target={"p50": 10}),
    ]
