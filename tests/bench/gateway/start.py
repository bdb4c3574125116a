"""From POST /api/kernels to the first `1+1` answered over a fresh websocket, as a client does it that has nothing yet.

Each request has a connection of its own. Ours without a pool, and by a second server with one.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter

from tests.bench.gateway.servers import FLOOR, OURS, PEERS, Samples, Server, Stage, answer, beside
from tests.bench.harness import Counts, Row, interleave

COUNTS = Counts(full=100, quick=20, tiny=1)
PEERS_EVERY = 4  # they take twenty times as long and vary less
WARM_UP = 2
POOL = "--pool-size=4"
SETTLE_SECONDS = 0.3  # what was deleted is gone, a kernel that was started has come to rest, the pool is full again


async def measure(stage: Stage, count: int) -> list[Row]:
    servers = await stage.servers((*PEERS, FLOOR))
    whole: Samples = {name: [] for name in (OURS, *PEERS, FLOOR)}
    created: Samples = {name: [] for name in whole}
    pooled: list[float] = []
    pool_created: list[float] = []

    async def start(server: Server, whole: list[float], created: list[float]) -> None:
        begin = perf_counter()
        kernel = await server.create()
        created.append((perf_counter() - begin) * 1e3)
        websocket = await server.open(kernel)
        await answer(websocket)
        whole.append((perf_counter() - begin) * 1e3)
        await websocket.close()
        await server.delete(kernel)
        await asyncio.sleep(SETTLE_SECONDS)

    async def start_peer(server: Server) -> None:
        if server.name == FLOOR or (len(whole[server.name]) - 1) * PEERS_EVERY <= len(whole[OURS]) - WARM_UP:
            await start(server, whole[server.name], created[server.name])

    await interleave(
        WARM_UP + count,
        partial(start, await stage.server(OURS), whole[OURS], created[OURS]),
        partial(start, await stage.server(OURS, POOL), pooled, pool_created),
        *(partial(start_peer, server) for server in servers),
    )
    warm = _warm(whole)
    beside_pool = {OURS: pooled[WARM_UP:], **{name: warm[name] for name in PEERS}}
    return [
        *beside("POST to 1+1", "ms", warm, target={"p50": 12, "p95": 25, "ratio": 20}),
        *beside("- of it POST", "ms", _warm(created)),
        *beside("POST to 1+1, pool", "ms", beside_pool, target={"p50": 5}),
        Row("- of it POST", "ms", pool_created[WARM_UP:]),
    ]


def _warm(samples: Samples) -> Samples:
    return {name: kept[WARM_UP if name in (OURS, FLOOR) else 1 :] for name, kept in samples.items()}
