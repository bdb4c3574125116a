"""A gateway that is killed or stopped in the middle of something, and a warden that is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress

import pytest

from tests.faults.roamer import Place
from tests.faults.stage import check_rest, create, end_of, kernels, reply_of, roaming, text_of
from tests.faults.websocket import Websocket
from tests.native.seen import is_gone, names_of_groups
from tests.support.server import BOUND, Server, served, until

pytestmark = pytest.mark.native

# When the kill strikes, from the request on: a start takes some 10 ms, a restart and a deletion too.
INSTANTS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)


async def strike(server: Server, method: str, path: str, seconds: float) -> int:
    """Kill the gateway so long after it was asked for something; the status of its answer, 0 without one."""
    asked = asyncio.create_task(server.fetch(method, path))
    await asyncio.sleep(seconds)
    await server.kill_gateway()
    with suppress(OSError):
        return (await asked).status
    return 0


async def test_a_kill_in_the_middle_of_a_start_leaves_a_whole_session_or_none():
    async with served() as server:
        promised: set[str] = set()
        for seconds in INSTANTS:
            asked = asyncio.create_task(server.fetch("POST", "/api/kernels"))
            await asyncio.sleep(seconds)
            await server.kill_gateway()
            with suppress(OSError):
                reply = await asked
                assert reply.status == 201
                promised.add(reply.json()["id"])
            await server.wait_ready()
            there = await kernels(server)
            assert promised <= there, "what was answered is there"
            await check_rest(server, there)
        for kernel_id in await kernels(server):
            async with roaming(Place(server.port, kernel_id, server.token)) as client:
                cell = client.ask("print(1 + 1)")
                await end_of(cell)
                assert text_of(client, cell) == "2\n"


async def test_a_kill_in_the_middle_of_a_restart_leaves_one_kernel_and_tells_what_was_lost():
    async with served() as server:
        place = await create(server)
        async with roaming(place) as client:
            for number, seconds in enumerate(INSTANTS):
                await end_of(client.ask(f"kept = {number}"))
                await strike(server, "POST", f"/api/kernels/{place.kernel_id}/restart", seconds)
                await server.wait_ready()
                cell = client.ask(f"print(globals().get('kept') in (None, {number}))")
                await end_of(cell)
                assert text_of(client, cell) == "True\n", reply_of(client, cell)
                await check_rest(server, {place.kernel_id})


async def test_a_kill_in_the_middle_of_a_deletion_leaves_nothing_or_a_session_that_works():
    async with served() as server:
        for seconds in INSTANTS:
            place = await create(server)
            status = await strike(server, "DELETE", f"/api/kernels/{place.kernel_id}", seconds)
            await server.wait_ready()
            there = await kernels(server)
            assert not (status == 204 and there), "what was answered is done"
            await check_rest(server, there)
            for kernel_id in there:
                assert (await server.fetch("DELETE", f"/api/kernels/{kernel_id}")).status == 204
        await check_rest(server, ())


async def test_a_deletion_that_waits_for_its_clients_is_finished_by_the_next_gateway():
    """Clients have some seconds to read to the end; this one never closes."""
    async with served() as server:
        place = await create(server)
        websocket = await Websocket.open(*place, lambda message: None, query={"session_id": "slow"})
        websocket.transport.pause_reading()
        assert (await server.fetch("DELETE", f"/api/kernels/{place.kernel_id}")).status == 204
        await server.kill_gateway()
        await server.wait_ready()
        await check_rest(server, ())
        websocket.abort()


async def test_a_successor_that_is_killed_over_its_work_has_a_successor():
    """At once: the keeper lets a gateway be that died before it served, and starts the next a little later."""
    dice = random.Random(1)
    async with served() as server:
        places = [await create(server) for _ in range(4)]
        async with roaming(places[0]) as client:
            await end_of(client.ask("kept = 7"))
            for _ in range(3):
                await server.kill_gateway()
                await asyncio.sleep(dice.uniform(0, 0.05))
            await server.wait_ready()
            cell = client.ask("print(kept)")
            await end_of(cell)
            assert text_of(client, cell) == "7\n"
        await check_rest(server, {place.kernel_id for place in places})


@pytest.mark.slow
async def test_a_gateway_that_stood_still_ends_no_cell_and_no_session():
    """As on a host that was suspended: ten seconds pass that count for nobody's limit."""
    async with served("--cell-seconds", "5", "--idle-seconds", "6", "--notice-seconds", "2") as server:
        idle, busy = await create(server), await create(server)
        async with roaming(idle), roaming(busy) as client:
            cell = client.ask("import time\nfor i in range(11): print(i, flush=True); time.sleep(1)")
            await until(lambda: text_of(client, cell) != "")
            pid = server.gateway_pid()
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(10)
            os.kill(pid, signal.SIGCONT)
            await end_of(cell)
            assert text_of(client, cell) == "".join(f"{i}\n" for i in range(11))
            assert reply_of(client, cell).content["status"] == "ok"
            assert await kernels(server) == {idle.kernel_id, busy.kernel_id}
            assert server.gateway_pid() == pid


async def test_a_killed_warden_costs_the_running_cells_and_nothing_else():
    async with served() as server:
        places = [await create(server) for _ in range(3)]
        async with roaming(places[0]) as client:
            cell = client.ask("import time; print('here', flush=True); time.sleep(600)")
            waiting = client.ask("1")
            await until(lambda: text_of(client, cell) != "")
            warden = server.warden_pid()
            groups = names_of_groups(warden)
            loop = asyncio.get_running_loop()
            killed_at = loop.time()
            os.kill(warden, signal.SIGKILL)
            await end_of(cell)
            assert loop.time() - killed_at < 5
            await end_of(waiting)
            reply = reply_of(client, cell)
            assert (reply.content["ename"], reply.facts["reason"]) == ("SupervisorLost", "supervisor_lost")
            assert reply_of(client, waiting).content["status"] == "aborted"
            again = client.ask("print(2)")
            await end_of(again, BOUND)
            assert text_of(client, again) == "2\n"
        await until(lambda: is_gone(warden) and not names_of_groups(warden) & groups)
        await check_rest(server, {place.kernel_id for place in places})
        assert server.warden_pid() != warden
