"""Floods of output through the websocket: whether all of it comes, and how fast.

From ours everything must come, in order, else the bench fails. The peers have their rate limits off, and what their
kernels' ZMQ drops is not counted against their rate but told in a note; then once each as they come.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from tests.bench.gateway.servers import OURS, PEERS, Samples, Server, Stage, beside, turns
from tests.bench.harness import Counts, Row, interleave
from tests.bench.output import Flood, floods

COUNTS = Counts(full=20_000, quick=5_000, tiny=100)  # flushed lines, to which the writes are in proportion
ROUNDS = 5
AS_THEY_COME = tuple(f"{name}, as it comes" for name in PEERS)


async def measure(stage: Stage, count: int) -> list[Row]:
    lines, _, _, _, writes = floods(count)
    return [*await measure_flood(stage, lines), *await measure_flood(stage, writes)]


async def measure_flood(stage: Stage, flood: Flood) -> list[Row]:
    rates: Samples = {name: [] for name in (OURS, *PEERS)}
    lost: Samples = {name: [] for name in (*PEERS, *AS_THEY_COME)}
    idles_lost = dict.fromkeys(lost, 0)
    async with AsyncExitStack() as stack:
        servers = await stage.servers((OURS, *PEERS, *AS_THEY_COME))
        websockets = {server.name: await stack.enter_async_context(server.websocket()) for server in servers}

        async def run(server: Server) -> None:
            heard = await websockets[server.name].execute(flood.code)
            came = flood.came(heard)
            if server.name in rates:
                rates[server.name].append(came / heard.seconds)
            if server.name in lost:
                lost[server.name].append(100 * (1 - came / flood.size))
                idles_lost[server.name] += heard.lost_idle
            elif not flood.came_whole(heard):
                raise RuntimeError(f"{flood.what}: of {flood.size:g} {came:g} came")

        await interleave(ROUNDS, *turns(servers[: -len(AS_THEY_COME)], run), warm_up=1)
        await interleave(1, *turns(servers[-len(AS_THEY_COME) :], run))
    rows = beside(
        flood.what,
        flood.unit,
        {name: kept[1:] for name, kept in rates.items()},
        more_is_better=True,
        target=flood.target,
    )
    nothing = [0.0] * len(rates[OURS])
    for name, kept in lost.items():
        note = f"idle lost in {idles_lost[name]} of {len(kept)}" if idles_lost[name] else ""
        rows.append(Row(f"- lost by {name}", "%", nothing, kept, note=note))
    return rows
