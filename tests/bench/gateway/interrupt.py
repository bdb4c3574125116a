"""From an interrupt of `while True: pass` to reply and idle over the websocket: asked by REST, and on the control
channel."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import perf_counter

from tests.bench.gateway.client import Websocket
from tests.bench.gateway.servers import FLOOR, OURS, PEERS, Samples, Server, Stage, answer, beside, turns
from tests.bench.harness import Counts, Row, interleave

COUNTS = Counts(full=100, quick=20, tiny=1)
CODE = "print('runs', flush=True)\nwhile True: pass"
INTO_THE_LOOP_SECONDS = 0.05  # after its word has come the cell is soon where it stays, and Nagle's delay is over


async def measure(stage: Stage, count: int) -> list[Row]:
    by_rest: Samples = {name: [] for name in (OURS, *PEERS, FLOOR)}
    by_message: Samples = {name: [] for name in (OURS, *PEERS, FLOOR)}
    kernels: dict[str, tuple[str, Websocket]] = {}
    async with AsyncExitStack() as stack:
        servers = await stage.servers()
        for server in servers:
            kernel = await stack.enter_async_context(server.kernel())
            websocket = await server.open(kernel, quick_acks=True)
            stack.push_async_callback(websocket.close)
            await answer(websocket)
            kernels[server.name] = kernel, websocket

        async def interrupt(server: Server) -> None:
            kernel, websocket = kernels[server.name]
            for samples, is_message in ((by_rest, False), (by_message, True)):
                websocket.ask(CODE)
                await websocket.wait_for_output()
                await asyncio.sleep(INTO_THE_LOOP_SECONDS)
                begin = perf_counter()
                if is_message:
                    websocket.interrupt()
                    heard = await websocket.collect()
                else:
                    heard, _ = await asyncio.gather(websocket.collect(), server.interrupt(kernel))
                samples[server.name].append((websocket.heard_at - begin) * 1e3)
                assert server.name == FLOOR or heard.error == "KeyboardInterrupt", heard

        await interleave(count, *turns(servers, interrupt), warm_up=1)
    return [
        *beside("interrupt by POST", "ms", {name: kept[1:] for name, kept in by_rest.items()}, target={"p50": 5}),
        *beside("interrupt by message", "ms", {name: kept[1:] for name, kept in by_message.items()}, target={"p50": 5}),
    ]
