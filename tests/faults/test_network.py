"""Clients behind a network that is slow, cuts, or loses everything: they see all, once, and the gateway stays small."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.history import Expected, check_owner, print_lines, public_ids
from tests.faults.proxy import Toxic, proxied
from tests.faults.roamer import Roamer
from tests.faults.stage import create, end_of, roaming, rss_bytes, text_of
from tests.support.server import served, until

pytestmark = pytest.mark.native

MiB = 1 << 20
TOXICS = {
    "latency": Toxic(latency=0.2),
    "one byte at a time": Toxic(chunk_bytes=1),
    "10 KB/s": Toxic(bytes_per_second=10_000, chunk_bytes=1000),
    "reset anywhere": Toxic(reset_after=(200, 8000)),
    "reset soon, and slow": Toxic(reset_after=(3000, 9000), chunk_bytes=50, latency=0.0005),
}
# From the first byte of the handshake on: 600 of it, then what the first messages have.
LAST_BYTE_TO_TRY = 3000


def check(name: str, roamer: Roamer, cells: list[Expected]) -> None:
    tally = check_owner(name, cells, roamer.seen)
    assert not tally.faults, tally.faults
    assert tally.lines == sum(cell.lines for cell in cells)


async def run_cells(roamer: Roamer, name: str, count: int, lines: int) -> list[Expected]:
    asked = [roamer.ask(print_lines(name, n, lines), f"{name}-cell-{n}") for n in range(count)]
    for cell in asked:
        await end_of(cell, 60)
    return [Expected(cell.id, n, lines) for n, cell in enumerate(asked)]


@pytest.mark.parametrize("toxic", TOXICS)
async def test_a_client_behind_a_bad_network_sees_everything_once(toxic: str):
    async with served() as server, proxied(server.port, seed=1) as proxy:
        place = await create(server)
        proxy.toxic = TOXICS[toxic]
        async with roaming(place._replace(port=proxy.port), "n") as roamer:
            cells = await run_cells(roamer, "n", 5, 20)
            check("n", roamer, cells)
        assert not proxy.toxic.reset_after or proxy.resets


@pytest.mark.slow
async def test_a_connection_may_end_at_any_byte():
    async with served() as server, proxied(server.port) as proxy:
        place = await create(server)
        async with roaming(place) as other:
            await end_of(other.ask("pass"))
            roamer = Roamer(place._replace(port=proxy.port), "n")
            task = asyncio.create_task(roamer.run())
            cells: list[Expected] = []
            try:
                for end in range(1, LAST_BYTE_TO_TRY, 41):
                    proxy.toxic = Toxic(reset_after=(end, end))
                    resets = proxy.resets
                    if roamer.websocket is not None:
                        roamer.websocket.abort()
                    number = len(cells)
                    asked = roamer.ask(print_lines("n", number, 3), f"n-cell-{number}")
                    await until(lambda before=resets: proxy.resets > before)
                    proxy.toxic = Toxic()
                    await end_of(asked)
                    cells.append(Expected(asked.id, number, 3))
            finally:
                roamer.leave()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            check("n", roamer, cells)


async def test_a_client_that_hears_nothing_any_more_costs_little_and_reads_on():
    """A half-open connection: nobody is told that the cable was pulled, and 64 MiB are said."""
    async with served() as server, proxied(server.port) as proxy:
        place = await create(server)
        async with roaming(place) as beside, roaming(place._replace(port=proxy.port), "far") as far:
            await end_of(beside.ask("pass"))
            await until(lambda: public_ids(beside.seen)[-1:] == public_ids(far.seen)[-1:])
            proxy.hold()
            before = rss_bytes(server.gateway_pid())
            cell = beside.ask("for i in range(1024): print(f'{i:07}' + 65528 * 'x')")
            await end_of(cell, 60)
            grown = rss_bytes(server.gateway_pid()) - before
            assert grown < 24 * MiB, f"{grown / MiB:.0f} MiB"
            proxy.let_go()
            await until(lambda: (far.seen[-1].message.parent, far.seen[-1].message.state) == (cell.id, "idle"), 60)
            lines = text_of(far, cell).splitlines()
            assert [line[:7] for line in lines] == [f"{i:07}" for i in range(1024)]


async def test_a_client_that_is_slow_beside_others_slows_nobody():
    async with served() as server, proxied(server.port) as proxy:
        proxy.toxic = Toxic(bytes_per_second=20_000, chunk_bytes=2000)
        place = await create(server)
        async with roaming(place._replace(port=proxy.port), "slow"), roaming(place, "fast") as fast:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await end_of(fast.ask("for i in range(200): print(1000 * 'x', flush=True)"))  # 10 s for the other
            assert loop.time() - began < 5
