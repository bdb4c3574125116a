"""A state directory that is full for a while, or that somebody damaged between two lives of a server."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.history import Expected, check_owner, print_lines
from tests.faults.roamer import Asked, Roamer
from tests.faults.stage import (
    check_idle,
    check_rest,
    create,
    end_of,
    fill,
    journals,
    kernels,
    reply_of,
    roaming,
    served_on,
    text_of,
)
from tests.support.server import served, until

pytestmark = pytest.mark.native
may_mount = pytest.mark.skipif(os.geteuid() != 0, reason="root alone mounts a file system")

TOKEN = {"CELLGATE_TOKEN": "the-same-in-each-life-of-the-server"}


# -- no room -----------------------------------------------------------------------------------------------


async def ask_until_refused(client: Roamer, cells: list[Expected]) -> Asked:
    """The first cell that is answered with a fault of ours. Those before it may have been taken."""
    for _ in range(100):
        number = len(cells)
        asked = client.ask(print_lines("n", number, 20), f"n-cell-{number}")
        with suppress(asyncio.TimeoutError):
            await end_of(asked, 0.5)
            if reply_of(client, asked).content["status"] == "error":
                return asked
        cells.append(Expected(asked.id, number, 20))
    raise AssertionError("none was refused")


async def ask_until_taken(client: Roamer, code: str, refusals: set[str]) -> Asked:
    """The room that there is again is found within a heartbeat or two."""
    for _ in range(100):
        asked = client.ask(code)
        await end_of(asked)
        if reply_of(client, asked).content["status"] == "ok":
            return asked
        refusals.add(asked.id)
        await asyncio.sleep(0.1)
    raise AssertionError("cells are refused for ever")


@may_mount
async def test_without_room_no_session_begins_and_cells_are_refused_until_there_is_room_again():
    async with served_on("3M") as server:
        place = await create(server)
        async with roaming(place, "n") as client:
            cells = [Expected("n-cell-0", 0, 20)]
            await end_of(client.ask(print_lines("n", 0, 20), "n-cell-0"))
            filling = fill(server.state_dir)
            refused = await server.fetch("POST", "/api/kernels")
            assert (refused.status, refused.json()["code"]) == (507, "storage_full")
            refused_cell = await ask_until_refused(client, cells)
            answer = reply_of(client, refused_cell)
            assert (answer.content["ename"], answer.facts["reason"]) == ("BackendError", "backend_error")
            assert "journal cannot be written" in answer.content["evalue"]
            assert (await server.fetch("POST", "/api/kernels")).status == 507
            await check_rest(server, {place.kernel_id})

            filling.unlink()
            for asked in (client.asked[cell.id] for cell in cells):
                await end_of(asked)
            number = len(cells)
            refusals = {refused_cell.id}
            again = await ask_until_taken(client, print_lines("n", number, 20), refusals)
            cells.append(Expected(again.id, number, 20))
            tally = check_owner("n", cells, [seen for seen in client.seen if seen.message.parent not in refusals])
            assert not tally.faults, tally.faults
            other = await create(server)

            await server.kill_gateway()
            await server.wait_ready()
            more = client.ask("print(counter)")
            await end_of(more)
            assert text_of(client, more) == f"{number + 1}\n"
            await check_rest(server, {place.kernel_id, other.kernel_id})
        assert "Traceback" not in server.log()


@may_mount
async def test_a_gateway_that_is_killed_while_there_is_no_room_has_a_successor_with_the_same_sessions():
    async with served_on("3M") as server:
        place = await create(server)
        async with roaming(place, "n") as client:
            await end_of(client.ask("kept = 7"))
            filling = fill(server.state_dir)
            await server.kill_gateway()
            await server.wait_ready()
            assert await kernels(server) == {place.kernel_id}
            filling.unlink()

            asked = await ask_until_taken(client, "print(kept)", set())
            assert text_of(client, asked) == "7\n"
            await check_rest(server, {place.kernel_id})


# -- damage ------------------------------------------------------------------------------------------------


def flip(path: Path, dice: random.Random, times: int) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(times):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def cut(path: Path, dice: random.Random, times: int) -> None:
    os.truncate(path, dice.randrange(path.stat().st_size))


def files_of(directory: Path) -> Iterator[Path]:
    yield from sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


async def test_a_damaged_journal_is_its_sessions_own_trouble():
    dice = random.Random(1)
    async with served(env=TOKEN) as server:
        whole, damaged = await create(server), await create(server)
        async with roaming(whole, "n") as client, roaming(damaged, "d") as other:
            cells: list[Expected] = []
            for number, (damage, times) in enumerate([(flip, 1), (flip, 50), (cut, 1), (cut, 1), (flip, 2000)]):
                ours = client.ask(print_lines("n", number, 50), f"n-cell-{number}")
                cells.append(Expected(ours.id, number, 50))
                await end_of(ours)
                await end_of(other.ask(print_lines("d", number, 50)))
                running = other.ask("import time; time.sleep(0.5)")
                await until(lambda asked=running: asked.is_taken)
                await server.end()
                for path in files_of(journals(server) / damaged.kernel_id):
                    damage(path, dice, times)
                await server.start()
                again = other.ask("print(1 + 1)")
                await end_of(again)
                assert text_of(other, again) == "2\n"
            tally = check_owner("n", cells, client.seen)
            assert not tally.faults, tally.faults
            await check_idle(server)
        await check_rest(server, {whole.kernel_id, damaged.kernel_id})
        assert "Traceback" not in server.log()


async def test_a_journal_that_cannot_be_opened_costs_one_session_and_no_other():
    async with served(env=TOKEN) as server:
        whole, damaged = await create(server), await create(server)
        async with roaming(whole, "n") as client:
            await end_of(client.ask("kept = 7"))
            await server.end()
            directory = journals(server) / damaged.kernel_id
            directory.chmod(0)
            await server.start()
            asked = client.ask("print(kept)")
            await end_of(asked)
            assert text_of(client, asked) == "7\n"
            assert await kernels(server) == {whole.kernel_id}
            assert f"session {damaged.kernel_id}" in server.log()
            directory.chmod(0o700)


@pytest.mark.parametrize("damage", [flip, cut])
async def test_a_damaged_registry_is_read_or_put_aside_and_the_server_starts(damage):
    dice = random.Random(1)
    async with served(env=TOKEN) as server:
        for times in (1, 20, 500):
            before = {(await create(server)).kernel_id for _ in range(3)}
            await server.end()
            for path in files_of(journals(server).parent):
                if path.name.startswith("sessions.sqlite"):
                    damage(path, dice, times)
            await server.start()
            there = await kernels(server)
            assert there <= before
            await check_rest(server, there)
            for kernel_id in there:
                await server.fetch("DELETE", f"/api/kernels/{kernel_id}")
            await check_rest(server, ())
        assert "Traceback" not in server.log()
