"""What a relayed message costs the gateway's process in CPU, under a flood of one session: small ones and large ones.

Of the peers a message counts that came; they have their rate limits off.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.bench.gateway.servers import FLOOR, OURS, PEERS, Samples, Server, Stage, beside, turns
from tests.bench.harness import Counts, Row, cpu_seconds, interleave

COUNTS = Counts(full=20_000, quick=5_000, tiny=50)  # small messages
ROUNDS = 5
SETTLE_SECONDS = 0.1  # what follows an answer, of whoever is counted: acknowledgements, activity


@dataclass(frozen=True)
class Size:
    what: str
    bytes: int
    one_in: int  # of the small ones, so many
    target_microseconds: float


SIZES = (Size("message of 100 bytes", 100, 1, 15), Size("message of 64 KB", 65_536, 10, 60))


async def measure(stage: Stage, count: int) -> list[Row]:
    rows = []
    for size in SIZES:
        rows += await measure_size(stage, size, max(1, count // size.one_in))
    return rows


async def measure_size(stage: Stage, size: Size, count: int) -> list[Row]:
    code = f"for _ in range({count}): print('x' * {size.bytes - 1}, flush=True)"
    cpu: Samples = {name: [] for name in (OURS, *PEERS)}
    rates: Samples = {name: [] for name in (OURS, *PEERS, FLOOR)}
    async with AsyncExitStack() as stack:
        servers = await stage.servers()
        websockets = {server.name: await stack.enter_async_context(server.websocket()) for server in servers}

        async def flood(server: Server) -> None:
            pids = server.pids
            before = cpu_seconds(pids)
            heard = await websockets[server.name].execute(code)
            await asyncio.sleep(SETTLE_SECONDS)
            spent = cpu_seconds(pids) - before
            came = len(heard.text) // size.bytes
            if server.name == OURS and came != count:
                raise RuntimeError(f"of {count} messages {came} came")
            rates[server.name].append(came / heard.seconds)
            if server.name != FLOOR:
                cpu[server.name].append(spent / came * 1e6)

        await interleave(ROUNDS, *turns(servers, flood), warm_up=1)
    return [
        *beside(
            f"CPU, {size.what}",
            "us",
            _warm(cpu),
            target={"p50": size.target_microseconds},
        ),
        *beside(f"- relayed, {size.what}", "/s", _warm(rates), more_is_better=True),
    ]


def _warm(samples: Samples) -> Samples:
    return {name: kept[1:] for name, kept in samples.items()}
