"""`/metrics` and `/v1/stats` over sessions that run, for those who may see them, and quickly."""

from __future__ import annotations

import asyncio
import time

import pytest

from cellgate.access.scopes import Scope
from cellgate.metrics.gauges import LoopLag
from tests.support.gateway import gateway
from tests.support.live import Client

MANY = 1000


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def test_what_runs_is_told_to_prometheus_and_to_pages(here):
    kernel_id = (await here.ask("POST", "/api/kernels")).json()["id"]
    client = Client(here.manager.find("owner", kernel_id))
    await client.run("1 + 1")
    admin = here.token("prometheus", Scope.ADMIN)
    reply = await here.ask("GET", "/metrics", token=admin)
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = reply.body.decode().splitlines()
    assert 'cellgate_cells_finished_total{reason="ok"} 1.0' in lines
    assert 'cellgate_sessions{kernel="python3",state="ready"} 1.0' in lines
    assert "cellgate_clients 1.0" in lines
    stats = (await here.ask("GET", "/v1/stats", token=admin)).json()
    assert stats["counts"]["cells_finished"] == [{"reason": "ok", "count": 1}]
    assert stats["now"]["sessions"] == [{"state": "ready", "kernel": "python3", "count": 1}]
    assert kernel_id not in reply.body.decode()


async def test_they_are_for_admins_alone(here):
    ada = here.token("ada", Scope.EXECUTE, Scope.FILES)
    for path in ("/metrics", "/v1/stats"):
        assert (await here.ask("GET", path, token=ada)).code == "missing_scope"


async def test_a_thousand_sessions_are_told_of_at_once(here):
    """Within 50 ms; the bound is for a machine that does much else."""
    kernel_id = (await here.ask("POST", "/api/kernels")).json()["id"]
    live = here.manager.find("owner", kernel_id)
    sessions = here.manager._sessions
    try:
        sessions |= {str(n): live for n in range(MANY - 1)}
        meters = here.services.meters
        meters.exposition()
        began = time.perf_counter()
        told = meters.exposition().decode()
        assert time.perf_counter() - began < 0.5
        assert f'cellgate_sessions{{kernel="python3",state="ready"}} {MANY}.0' in told
    finally:
        for n in range(MANY - 1):
            del sessions[str(n)]


async def test_a_loop_that_is_held_up_is_told_of():
    lag = LoopLag()
    watching = asyncio.ensure_future(lag.watch())
    try:
        await asyncio.sleep(0.01)
        time.sleep(0.4)
        while not lag.worst_seconds:
            await asyncio.sleep(0.01)
        assert lag.worst_seconds > 0.2
    finally:
        watching.cancel()
