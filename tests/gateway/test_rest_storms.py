"""Many requests at once: each gets one answer that makes sense, and nothing is left over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from tests.support.gateway import Gateway, gateway
from tests.support.server import until


@pytest.fixture(autouse=True)
def many_connections(monkeypatch):
    """As many as there are requests; tornado's client opens ten at a time otherwise."""
    from tornado.httpclient import AsyncHTTPClient

    AsyncHTTPClient.configure(None, max_clients=500)
    yield
    AsyncHTTPClient.configure(None)


async def all_gone(here: Gateway) -> None:
    await asyncio.gather(*(here.ask("DELETE", f"/api/kernels/{live.id}") for live in here.manager.sessions("owner")))
    await until(lambda: not here.manager._sessions)
    assert not await (await here.manager._get_driver()).sandboxes()


async def test_of_a_storm_as_many_are_let_in_as_there_is_room_for(tmp_path):
    async with gateway(tmp_path, sessions_total="30") as here:
        replies = await asyncio.gather(*(here.ask("POST", "/api/kernels") for _ in range(200)))
        assert Counter(reply.status for reply in replies) == {201: 30, 503: 170}
        assert all(reply.headers["Retry-After"] == "10" for reply in replies if reply.status == 503)
        assert len({reply.json()["id"] for reply in replies if reply.status == 201}) == 30
        await all_gone(here)


async def test_a_session_that_is_made_and_ended_over_and_over_leaves_nothing(tmp_path):
    async with gateway(tmp_path) as here:

        async def in_and_out() -> None:
            for _ in range(25):
                path = (await here.ask("POST", "/api/kernels")).headers["Location"]
                assert (await here.ask("DELETE", path)).status == 204

        await asyncio.gather(*(in_and_out() for _ in range(4)))
        await all_gone(here)
        assert list((tmp_path / "sessions").iterdir()) == []


@pytest.mark.parametrize("seed", range(3))
async def test_what_races_has_each_one_outcome_and_leaves_one_kernel_or_none(tmp_path, seed):
    """Interrupts, restarts and a deletion of one kernel, in any order and all at once."""
    rng = random.Random(seed)
    async with gateway(tmp_path) as here:
        path = (await here.ask("POST", "/api/kernels")).headers["Location"]
        good = {("POST", f"{path}/interrupt"): 204, ("POST", f"{path}/restart"): 200, ("GET", path): 200}
        asked = [*good] * 20 + [("DELETE", path)] * 2
        rng.shuffle(asked)
        replies = await asyncio.gather(
            *(here.ask(method, where, b"" if method == "POST" else None) for method, where in asked)
        )
        for (method, where), reply in zip(asked, replies):
            assert reply.status in (good.get((method, where), 204), 404), (method, where, reply.body)
            assert reply.status != 200 or reply.json()["execution_state"] != "dead"
        deleted = [reply.status for (method, _), reply in zip(asked, replies) if method == "DELETE"]
        assert deleted.count(204) == 1
        assert (await here.ask("GET", "/api/kernels")).json() == []
        await all_gone(here)
