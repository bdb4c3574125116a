"""A warm `1+1` by one client, from the request to reply and idle; beside it raw ZMQ to a stock kernel.

The peers leave Nagle's algorithm on and wait for the client's delayed acknowledgements; so they are measured a second
time by a client that acknowledges at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from tests.bench.gateway.client import Websocket
from tests.bench.gateway.servers import FLOOR, OURS, PEERS, Samples, Server, Stage, answer, beside
from tests.bench.harness import Counts, Row, cpu_seconds, interleave
from tests.bench.peers import StockKernel, start_stock, stock_manager

COUNTS = Counts(full=40, quick=10, tiny=1)  # laps
LAP = 50  # requests: as in a session that is at work
LAP_OF_PEERS = 10  # of those that take 44 ms
WARM_UP = 2  # laps
RAW_ZMQ = "raw ZMQ"


async def measure(stage: Stage, count: int) -> list[Row]:
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(stock_manager())
        await start_stock(manager)
        stock = StockKernel(manager)
        stack.callback(stock.close)
        await stock.wait_until_ready()
        names = [OURS, RAW_ZMQ, *PEERS, FLOOR]
        seconds: Samples = {name: [] for name in names}
        quick: Samples = {name: [] for name in names}
        gateway_cpu: Samples = {name: [] for name in (OURS, *PEERS)}

        async def as_it_is(server: Server, websocket: Websocket) -> None:
            lap = LAP_OF_PEERS if server.name in PEERS else LAP
            seconds[server.name] += [await answer(websocket) * 1e3 for _ in range(lap)]

        async def hastily(server: Server, websocket: Websocket) -> None:
            before = cpu_seconds(server.pids)
            quick[server.name] += [await answer(websocket) * 1e3 for _ in range(LAP)]
            if server.name != FLOOR:
                gateway_cpu[server.name].append((cpu_seconds(server.pids) - before) / LAP * 1e3)

        turns: list[Callable[[], Awaitable[None]]] = []
        for server in await stage.servers():
            plain = await stack.enter_async_context(server.websocket())
            hasty = await stack.enter_async_context(server.websocket(quick_acks=True))

            turns += [partial(as_it_is, server, plain), partial(hastily, server, hasty)]

        async def raw_zmq() -> None:
            taken = [stock.execute("1+1").seconds * 1e3 for _ in range(LAP)]
            seconds[RAW_ZMQ] += taken
            quick[RAW_ZMQ] += taken

        turns.append(raw_zmq)
        await interleave(WARM_UP, *turns)
        for samples in (seconds, quick, gateway_cpu):
            for kept in samples.values():
                kept.clear()
        await interleave(count, *turns)
    return [
        *beside("1+1", "ms", seconds, target={"p50": 1.2, "ratio": 2}),
        *beside("1+1 acknowledged at once", "ms", quick, target={"ratio": 2}),
        *beside("gateway's CPU", "ms", gateway_cpu),
    ]
