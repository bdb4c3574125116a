"""What the audit log costs: the same server with it beside one without, in the same turns. Warm cells in some sessions
at once, each asked for as soon as the last was answered, so that the gateway is busy all the time; and the CPU time of
its process for each, which other work on the machine hardly touches."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter

from tests.bench.gateway.client import Websocket
from tests.bench.gateway.servers import OURS, Server, Stage, answer
from tests.bench.gateway.throughput import open_sessions
from tests.bench.harness import Counts, Row, cpu_seconds, interleave

COUNTS = Counts(full=60, quick=20, tiny=1)  # laps
SESSIONS = 8
REQUESTS = 40  # of each session in a lap
WARM_UP = 2  # laps


async def measure(stage: Stage, count: int) -> list[Row]:
    rates: dict[str, list[float]] = {"on": [], "off": []}
    cpu: dict[str, list[float]] = {"on": [], "off": []}

    async def lap(server: Server, websockets: list[Websocket], audit: str) -> None:
        before, begin = cpu_seconds(server.pids), perf_counter()
        await asyncio.gather(*(answer_again_and_again(websocket) for websocket in websockets))
        answers = len(websockets) * REQUESTS
        rates[audit].append(answers / (perf_counter() - begin))
        cpu[audit].append((cpu_seconds(server.pids) - before) / answers * 1e6)

    async with AsyncExitStack() as stack:
        turns = []
        for audit in rates:
            server = await stage.server(OURS, "--audit", audit)
            turns.append(partial(lap, server, await open_sessions(server, SESSIONS, stack), audit))
        await interleave(WARM_UP, *turns)
        for samples in (*rates.values(), *cpu.values()):
            samples.clear()
        await interleave(count, *turns)
    return [
        Row("1+1 with an audit log", "/s", rates["on"], rates["off"], more_is_better=True, target={"ratio": 0.97}),
        Row("gateway's CPU of each", "us", cpu["on"], cpu["off"]),
    ]


async def answer_again_and_again(websocket: Websocket) -> None:
    for _ in range(REQUESTS):
        await answer(websocket)
