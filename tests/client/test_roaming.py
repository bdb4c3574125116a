"""A program that runs cell after cell over a network that breaks and a gateway that dies: every cell runs once, every
event is seen once, in order. The same with any numbers:

    python -m tests.client.test_roaming --cells 10000 --drops 20 --kills 5 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterable

import pytest

from cellgate.client import AsyncClient, AsyncSession
from cellgate.client.events import Event, Finished, Stdout
from tests.faults.proxy import Proxy, Toxic, proxied
from tests.support.server import Server, served

CODE = "n = globals().get('n', -1) + 1\nfor part in 'abc': print(n, part, flush=True)\nn"
LINES = "{0} a\n{0} b\n{0} c\n"


async def roam(server: Server, proxy: Proxy, *, cells: int, drops: int, kills: int, seed: int) -> int:
    """How many events were seen. Fails when any was lost, doubled, or out of order."""
    dice = random.Random(seed)
    faults = dict.fromkeys(dice.sample(range(cells), drops + kills), "drop")
    faults |= dict.fromkeys(dice.sample(sorted(faults), kills), "kill")
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", server.token) as client, client.session() as session:
        watching = asyncio.create_task(watch(client, session.id, cells))
        own: list[Event] = []
        for number in range(cells):
            if number in faults:
                striking = asyncio.create_task(strike(faults[number], server, session, dice.uniform(0, 0.01)))
            result = await session.run(CODE, on_event=own.append, id=f"cell-{number}")
            assert (result.stdout, result.result) == (LINES.format(number), {"text/plain": str(number)})
            if number in faults:
                await striking
        seen = await watching
        check(own, cells)
        check(seen, cells)
        return len(own) + len(seen)


async def watch(client: AsyncClient, session_id: str, cells: int) -> list[Event]:
    """Somebody else, who sees all of it over a connection that breaks as well."""
    seen: list[Event] = []
    async with await client.attach(session_id, role="observer", since=0) as session:
        async for event in session.events():
            seen.append(event)
            if isinstance(event, Finished) and event.cell == f"cell-{cells - 1}":
                break
    return seen


async def strike(fault: str, server: Server, session: AsyncSession, seconds: float) -> None:
    await asyncio.sleep(seconds)  # somewhere in the cell
    if fault == "kill":
        await server.kill_gateway()
        await server.wait_ready()
    else:
        assert session._connection is not None
        await session._connection.drop()


def check(events: Iterable[Event], cells: int) -> None:
    kept = [event for event in events if event.cell]
    numbers = [event.seq for event in kept]
    assert numbers == sorted(set(numbers))
    assert "".join(event.text for event in kept if isinstance(event, Stdout)) == "".join(
        map(LINES.format, range(cells))
    )
    assert [event.cell for event in kept if isinstance(event, Finished)] == [f"cell-{n}" for n in range(cells)]


@pytest.mark.native
@pytest.mark.parametrize("seed", [7])
async def test_nothing_is_lost_and_nothing_doubled_whatever_breaks(seed: int):
    async with served() as server, proxied(server.port, seed) as proxy:
        assert await roam(server, proxy, cells=60, drops=6, kills=2, seed=seed) > 60 * 5 * 2


@pytest.mark.native
async def test_a_network_that_breaks_at_any_byte_is_noticed_by_nobody():
    async with served() as server, proxied(server.port, seed=3) as proxy:
        proxy.toxic = Toxic(chunk_bytes=97, reset_after=(3000, 9000))
        await roam(server, proxy, cells=40, drops=0, kills=0, seed=3)
        assert proxy.resets > 3


async def _main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("cells", 1000), ("drops", 20), ("kills", 5), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    numbers = vars(parser.parse_args())
    async with served() as server, proxied(server.port, numbers["seed"]) as proxy:
        began = time.monotonic()
        events = await roam(server, proxy, **numbers)
    print(f"{numbers}: {events} events, each once and in order, in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    asyncio.run(_main())
