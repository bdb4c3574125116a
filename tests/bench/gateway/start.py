"""From POST /api/kernels to the first `1+1` answered over a fresh websocket, as a client does it that has nothing yet.

Each request has a connection of its own. Ours is measured without a pool and, by a second server, with one.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from tests.bench.gateway.servers import FLOOR, OURS, PEERS, Samples, Server, Stage, answer, beside, turns
from tests.bench.harness import Counts, Row, interleave

COUNTS = Counts(full=100, quick=20, tiny=1)
PEERS_EVERY = 4  # they take twenty times as long and vary less
SETTLE_SECONDS = 0.3  # what was deleted is gone, and a kernel that was started has come to rest


async def measure(stage: Stage, count: int) -> list[Row]:
    servers = await stage.servers()
    names = [OURS, *PEERS, FLOOR]
    whole: Samples = {name: [] for name in names}
    created: Samples = {name: [] for name in names}

    async def start(server: Server) -> None:
        if server.name in PEERS and len(whole[server.name]) * PEERS_EVERY > len(whole[OURS]):
            return
        begin = perf_counter()
        kernel = await server.create()
        created[server.name].append((perf_counter() - begin) * 1e3)
        websocket = await server.open(kernel)
        await answer(websocket)
        whole[server.name].append((perf_counter() - begin) * 1e3)
        await websocket.close()
        await server.delete(kernel)
        await asyncio.sleep(SETTLE_SECONDS)

    await interleave(1, *turns(servers, start))
    for samples in (whole, created):
        for kept in samples.values():
            kept.clear()
    await interleave(count, *turns(servers, start))
    return [
        *beside("POST to 1+1", "ms", whole, target={"p50": 12, "p95": 25, "ratio": 20}),
        *beside("- of it POST", "ms", created),
    ]
