"""A gateway that runs out of descriptors, and one whose wall clock somebody sets."""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.stage import check_idle, check_rest, create, end_of, kernels, reply_of, roaming, text_of
from tests.native.seen import names_of_groups
from tests.support.server import BOUND, Server, served, until

pytestmark = pytest.mark.native

DESCRIPTORS = 100
DEAD = 1  # in place of a status: its kernel could not be started
HOUR = 3600
# Where distributions put the library that the command `faketime` preloads.
FAKETIME = next(iter(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1")), None)


class Operator(http.client.HTTPConnection):
    """Asks over one connection."""

    def __init__(self, server: Server) -> None:
        super().__init__("127.0.0.1", server.port, timeout=BOUND)
        self._headers = {"Authorization": f"token {server.token}"}

    def ask(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        self.request(method, path, headers=self._headers)
        response = self.getresponse()
        return response.status, json.loads(response.read() or b"{}")


async def test_when_descriptors_are_used_up_no_session_begins_and_the_others_live():
    async with served(start=False) as server:
        server.allow_descriptors(DESCRIPTORS)
        await server.start()
        place = await create(server)
        async with roaming(place) as client:
            await end_of(client.ask("kept = 7"))
            made = {place.kernel_id}
            refusals: list[int] = []
            operator = Operator(server)  # whose connection is there already
            while len(refusals) < 5:
                status, model = await asyncio.to_thread(operator.ask, "POST", "/api/kernels")
                if status != 201:
                    refusals.append(status)
                    continue
                path = f"/api/kernels/{model['id']}"
                while model["execution_state"] == "starting":
                    _, model = await asyncio.to_thread(operator.ask, "GET", path)
                if model["execution_state"] != "dead":
                    made.add(model["id"])
                    assert len(made) < DESCRIPTORS
                    continue
                refusals.append(DEAD)
                assert (await asyncio.to_thread(operator.ask, "DELETE", path))[0] == 204
            assert set(refusals) <= {DEAD, 503, 507}, refusals
            ended = (made - {place.kernel_id}).pop()  # so that others can connect
            assert (await asyncio.to_thread(operator.ask, "DELETE", f"/api/kernels/{ended}"))[0] == 204
            made.remove(ended)
            operator.close()
            await check_idle(server)
            cell = client.ask("print(kept)")
            await end_of(cell)
            assert text_of(client, cell) == "7\n"
            await until(lambda: len(names_of_groups(server.warden_pid())) == len(made))

            await server.kill_gateway()
            await server.wait_ready()
            await check_rest(server, made)  # an empty directory takes a descriptor to remove
            cell = client.ask("print(kept)")
            await end_of(cell)
            assert text_of(client, cell) == "7\n"
            for kernel_id in made - {place.kernel_id}:
                assert (await server.fetch("DELETE", f"/api/kernels/{kernel_id}")).status == 204
            await check_rest(server, {place.kernel_id})
            other = await create(server)
            await check_rest(server, {place.kernel_id, other.kernel_id})
        assert "Traceback" not in server.log()


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed here")
async def test_nobodys_time_is_over_when_the_wall_clock_is_set(tmp_path: Path):
    """Forward, backward, by years, and many times."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    tmp_path.chmod(0o755)
    preload = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    flags = ("--cell-seconds", "30", "--idle-seconds", "60", "--notice-seconds", "1", "--lifetime-seconds", "120")
    async with served(*flags, env=preload) as server:
        idle, busy = await create(server), await create(server)
        async with roaming(idle) as beside, roaming(busy) as client:
            cell = client.ask("import time\nfor i in range(12): print(i, flush=True); time.sleep(0.25)")
            for hours in (1, -1, 24 * 3650, -24 * 3650, *(1, -1) * 5, 0):
                clock.write_text(f"{hours * HOUR:+d}")
                await end_of(beside.ask("1"))
                await asyncio.sleep(0.1)
            await end_of(cell)
            assert text_of(client, cell) == "".join(f"{i}\n" for i in range(12))
            assert reply_of(client, cell).content["status"] == "ok"
            assert await kernels(server) == {idle.kernel_id, busy.kernel_id}
            clock.write_text(f"{24 * 3650 * HOUR:+d}")
            await server.kill_gateway()
            await server.wait_ready()
            asked = client.ask("print(i)")
            await end_of(asked)
            assert text_of(client, asked) == "11\n"
            assert not any(m.facts.get("note") == "session_expiring" for _, m in client.seen)
