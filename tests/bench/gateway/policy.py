"""What judging costs a cell on its way: the same server with `standard` beside one that is `off`, over the websocket.

`again` is a warm `1+1`, whose verdict is known; `fresh` are other expressions each time, and `50 lines` other cells of
that length: they go by way of a worker. The peer is the server that judges nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import count as numbers

from tests.bench.gateway.client import Websocket
from tests.bench.gateway.servers import OURS, Stage
from tests.bench.harness import Counts, Row, interleave

COUNTS = Counts(full=40, quick=10, tiny=1)  # laps
LAP = 25  # cells of each kind
WARM_UP = 2  # laps
LONG = "total = 0\n" + "for i in range(3):\n    total += i * 2\n    if total > 10**9: print(f'{total:.2f}')\n" * 16


async def measure(stage: Stage, count: int) -> list[Row]:
    number = numbers(1)
    kinds: dict[str, Callable[[], str]] = {
        "again": lambda: "1+1",
        "fresh": lambda: f"1+{next(number)}",
        "50 lines": lambda: f"# {next(number)}\n{LONG}1",
    }
    async with AsyncExitStack() as stack:
        seconds: dict[tuple[str, str], list[float]] = {
            (kind, policy): [] for kind in kinds for policy in ("standard", "off")
        }

        async def ask(websocket: Websocket, kind: str, policy: str) -> None:
            for _ in range(LAP):
                heard = await websocket.execute(kinds[kind]())
                assert heard.count("execute_result") == 1, heard
                seconds[kind, policy].append(heard.seconds * 1e3)

        turns: list[Callable[[], Awaitable[None]]] = []
        for policy in ("standard", "off"):
            server = await stage.server(OURS, "--policy", policy)
            websocket = await stack.enter_async_context(server.websocket())
            turns += [partial(ask, websocket, kind, policy) for kind in kinds]
        await interleave(WARM_UP, *turns)
        for samples in seconds.values():
            samples.clear()
        await interleave(count, *turns)
    return [Row(kind, "ms", seconds[kind, "standard"], seconds[kind, "off"]) for kind in kinds]
