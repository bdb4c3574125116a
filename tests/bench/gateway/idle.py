"""Many sessions that do nothing, each with a websocket open: what they cost the gateway's process; then twice as many,
each of which answers, and what Prometheus asks for."""

from __future__ import annotations

import asyncio
import gc
import resource
from contextlib import AsyncExitStack
from time import perf_counter

from tests.bench.gateway.client import request
from tests.bench.gateway.servers import OURS, PEERS, Samples, Server, Stage, answer, beside
from tests.bench.gateway.throughput import open_sessions
from tests.bench.harness import Counts, Row, cpu_seconds, resident_megabytes

COUNTS = Counts(full=500, quick=50, tiny=2)
PEERS_ONE_IN = 25  # of a few the growth is as true, and 500 would take 18 GB
IDLE_SECONDS = 2.0
METRICS_TIMES = 20


async def measure(stage: Stage, count: int) -> list[Row]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a descriptor for each websocket, at this end too
    each: Samples = {}
    idle: Samples = {}
    for server in await stage.servers((OURS, *PEERS)):
        async with AsyncExitStack() as stack:
            sessions = max(1, count if server.name == OURS else count // PEERS_ONE_IN)
            alone = megabytes(server)
            websockets = await open_sessions(server, sessions, stack)
            grown = megabytes(server)
            each[server.name] = [(grown - alone) / sessions * 1e3]
            before = cpu_seconds(server.pids)
            await asyncio.sleep(IDLE_SECONDS)
            idle[server.name] = [(cpu_seconds(server.pids) - before) / IDLE_SECONDS / sessions * 1e6]
            if server.name == OURS:
                ours, ours_alone = grown, alone
                websockets += await open_sessions(server, count, stack)
                twice = megabytes(server)
                begin = perf_counter()
                for websocket in websockets:
                    await answer(websocket)
                answers = (perf_counter() - begin) / len(websockets) * 1e3
                metrics = [await milliseconds_of_metrics(server) for _ in range(METRICS_TIMES)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [
        Row(f"gateway with {count} idle sessions", "MB", [ours], target={"p50": 150}, note="resident"),
        Row("- with none", "MB", [ours_alone]),
        Row(f"- with {2 * count}", "MB", [twice], note=f"each answered, in {answers:.2f} ms on average"),
        Row(f"/metrics with {2 * count}", "ms", metrics, target={"p95": 50}, note="as Prometheus asks for them"),
        *beside("- grows by each", "KB", each, note=f"peers: of {max(1, count // PEERS_ONE_IN)}"),
        *beside("- CPU of each, idle", "us/s", idle),
    ]


async def milliseconds_of_metrics(server: Server) -> float:
    begin = perf_counter()
    response = await request(server.address, "GET", "/metrics")
    assert response.status == 200, response
    return (perf_counter() - begin) * 1e3


def megabytes(server: Server) -> float:
    gc.collect()
    return resident_megabytes(server.pids)
