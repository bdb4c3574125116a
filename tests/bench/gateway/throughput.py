"""Many sessions at once, each asking `1+1` as soon as it was answered: executes a second in all."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import perf_counter

from tests.bench.gateway.client import Websocket
from tests.bench.gateway.servers import FLOOR, OURS, PEERS, Samples, Server, Stage, answer, beside, turns
from tests.bench.harness import Counts, Row, cpu_seconds, interleave

COUNTS = Counts(full=50, quick=10, tiny=2)  # sessions
LAPS = 5
REQUESTS = 20  # of each session in a lap
CREATED_AT_ONCE = 4


async def measure(stage: Stage, count: int) -> list[Row]:
    rates: Samples = {name: [] for name in (OURS, *PEERS, FLOOR)}
    cpu: Samples = {name: [] for name in (OURS, *PEERS)}
    async with AsyncExitStack() as stack:
        servers = await stage.servers()
        sessions = {server.name: await open_sessions(server, count, stack) for server in servers}

        async def lap(server: Server) -> None:
            pids = server.pids
            before, begin = cpu_seconds(pids), perf_counter()
            await asyncio.gather(*(answer_again_and_again(websocket) for websocket in sessions[server.name]))
            answers = count * REQUESTS
            rates[server.name].append(answers / (perf_counter() - begin))
            if server.name != FLOOR:
                cpu[server.name].append((cpu_seconds(pids) - before) / answers * 1e3)

        await interleave(LAPS, *turns(servers, lap), warm_up=1)
    return [
        *beside(f"1+1 in {count} sessions", "/s", _warm(rates), more_is_better=True, target={"ratio": 3}),
        *beside("gateway's CPU of each", "ms", _warm(cpu)),
    ]


async def open_sessions(server: Server, count: int, stack: AsyncExitStack) -> list[Websocket]:
    """Warm, and their acknowledgements come at once: see latency.py."""
    found: list[Websocket] = []
    for first in range(0, count, CREATED_AT_ONCE):
        opened = [server.websocket(quick_acks=True) for _ in range(min(CREATED_AT_ONCE, count - first))]
        found += await asyncio.gather(*map(stack.enter_async_context, opened))
    return found


async def answer_again_and_again(websocket: Websocket) -> None:
    for _ in range(REQUESTS):
        await answer(websocket)


def _warm(samples: Samples) -> Samples:
    return {name: kept[1:] for name, kept in samples.items()}
