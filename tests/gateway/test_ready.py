"""`/readyz` tells what is true, a server that drains takes no sessions, and SIGHUP changes what can be changed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import namedtuple

import pytest
import websockets

from cellgate.access.scopes import Scope
from cellgate.errors import DriverUnavailable
from cellgate.live import manager as module
from tests.support.gateway import gateway
from tests.support.server import BOUND, served, until

Disk = namedtuple("Disk", "f_bavail f_frsize")


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def ready(here) -> tuple[int, str]:
    here.services.readiness._tried_at = -1.0  # nobody has asked for a second
    reply = await here.ask("GET", "/readyz", token=None)
    return reply.status, reply.json().get("code") or reply.json()["status"]


async def test_a_server_that_would_give_a_session_is_ready(here):
    assert await ready(here) == (200, "ready")


async def test_a_full_disk_is_not_ready(here, monkeypatch):
    monkeypatch.setattr(module.os, "statvfs", lambda _: Disk(0, 4096))
    assert await ready(here) == (507, "storage_full")
    monkeypatch.undo()
    assert await ready(here) == (200, "ready")


async def test_a_directory_that_cannot_be_written_is_not_ready(here, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.Path, "write_bytes", refuse)
    assert await ready(here) == (507, "storage_full")


async def test_a_driver_that_is_gone_or_silent_is_not_ready(here, monkeypatch):
    async def gone():
        raise DriverUnavailable("native", "the warden is gone", "wait")

    async def silent():
        await asyncio.sleep(BOUND)

    monkeypatch.setattr(module, "DRIVER_SECONDS", 0.05)
    for answer in (gone, silent):
        monkeypatch.setattr(here.manager._driver, "sandboxes", answer)
        assert await ready(here) == (503, "driver_unavailable")
    monkeypatch.undo()
    assert await ready(here) == (200, "ready")


async def test_however_many_ask_it_is_tried_once_a_second(here, monkeypatch):
    tried = []
    check = here.manager.check_ready

    async def counted():
        tried.append(1)
        await check()

    monkeypatch.setattr(here.manager, "check_ready", counted)
    replies = await asyncio.gather(*(here.ask("GET", "/readyz", token=None) for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    assert len(tried) <= 2


async def test_a_server_that_drains_takes_no_sessions_until_it_is_told_to(here):
    admin = here.token("operator", Scope.ADMIN)
    kernel_id = (await here.ask("POST", "/api/kernels")).json()["id"]
    assert (await here.ask("PUT", "/v1/drain", b"", token=admin)).json() == {"draining": True, "sessions": 1}
    assert (await here.ask("POST", "/api/kernels")).code == "draining"
    assert (await here.ask("GET", f"/api/kernels/{kernel_id}")).status == 200
    assert await ready(here) == (503, "draining")
    assert (await here.ask("DELETE", "/v1/drain", token=admin)).status == 204
    assert (await here.ask("POST", "/api/kernels")).status == 201
    assert (await here.ask("PUT", "/v1/drain", b"", token=here.token("ada", Scope.EXECUTE))).code == "missing_scope"


@pytest.mark.native
async def test_the_settings_are_read_again_and_sessions_live_on(tmp_path):
    config = tmp_path / "cellgate.toml"
    config.write_text("cell_seconds = 7.0\n")
    async with served("--profile", "testing", "--config", str(config)) as server:
        if _has_terminal():
            pytest.skip("SIGHUP is the end of this terminal")
        kernel_id = (await server.fetch("POST", "/api/kernels")).json()["id"]
        url = server.channels_url(kernel_id, "me")
        async with websockets.connect(url) as websocket:
            config.write_text("cell_seconds = 5.0\npolicy = 'strict'\n")
            former = server.gateway_pid()
            os.kill(server.keeper_pid, signal.SIGHUP)
            await asyncio.wait_for(websocket.wait_closed(), BOUND)
            assert websocket.close_code == 1012
        await until(lambda: server.gateway_pid() not in (0, former))
        await server.wait_ready()
        assert (await server.fetch("GET", f"/api/kernels/{kernel_id}")).status == 200
        limits = (await server.fetch("GET", "/v1/limits")).json()
        assert "5.0" in str(limits)

        for text, said in (("cell_seconds = -1\n", "bad_limit"), ("host = '127.0.0.2'\n", "host cannot be changed")):
            config.write_text(text)
            now = server.gateway_pid()
            os.kill(server.keeper_pid, signal.SIGHUP)
            await until(lambda said=said: said in server.log())
            assert server.gateway_pid() == now
        assert (await server.fetch("GET", f"/api/kernels/{kernel_id}")).status == 200


@pytest.mark.native
async def test_a_command_drains_a_server_and_waits_for_its_last_session():
    async with served("--profile", "testing") as server:
        kernel_id = (await server.fetch("POST", "/api/kernels")).json()["id"]
        draining = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cellgate", "drain", "--wait", "--server", server.url,
            stdout=asyncio.subprocess.PIPE, env={**server._env, "CELLGATE_TOKEN": server.token},
        )  # fmt: skip
        said = await asyncio.wait_for(draining.stdout.readline(), BOUND)
        assert b"1 go on" in said
        assert (await server.fetch("POST", "/api/kernels")).status == 503
        await server.fetch("DELETE", f"/api/kernels/{kernel_id}")
        assert await asyncio.wait_for(draining.wait(), BOUND) == 0


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return True
    except OSError:
        return False
