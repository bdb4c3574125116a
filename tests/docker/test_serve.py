"""A whole server whose sessions are containers: its gateway has no right but to ask the engine, and may be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import websockets

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.docker.container import OWNER
from cellgate.sandbox.docker.engine import Engine, Found
from tests.support.docker import make_image
from tests.support.server import BOUND, Server, served, until

pytestmark = [pytest.mark.docker, pytest.mark.asyncio]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    try:
        await asyncio.to_thread(make_image, "python")
    except DriverUnavailable as error:
        pytest.skip(str(error))
    async with served("--driver", "docker", "--profile", "testing") as server:
        yield server
        await server.end()
        engine = Engine.open()
        for found in containers_of(server):
            engine.remove(found.container)
        engine.close()


def containers_of(server: Server) -> list[Found]:
    engine = Engine.open()
    try:
        return engine.containers(f"{OWNER}={server.state_dir}/gateway/docker")
    finally:
        engine.close()


async def run(server: Server, kernel_id: str, code: str) -> str:
    """The text of its result, or the name of its error, over a fresh connection."""
    message_id, result = uuid.uuid4().hex, ""
    header = {"msg_id": message_id, "msg_type": "execute_request", "session": message_id, "version": "5.3"}
    async with websockets.connect(server.channels_url(kernel_id), max_size=None) as websocket:
        await websocket.send(json.dumps({"header": header, "content": {"code": code}}))
        while True:
            message = json.loads(await asyncio.wait_for(websocket.recv(), BOUND))
            content = message["content"]
            if message["parent_header"].get("msg_id") != message_id:
                continue
            if message["msg_type"] == "execute_result":
                result = content["data"]["text/plain"]
            elif message["msg_type"] == "error":
                result = content["ename"]
            elif content.get("execution_state") == "idle":
                return str(result)


async def start_kernel(server: Server) -> str:
    reply = await server.fetch("POST", "/api/kernels", {"name": "python3"})
    assert reply.status == 201, reply.body
    return str(json.loads(reply.body)["id"])


async def test_sessions_outlive_a_killed_gateway_and_the_server_itself(server: Server):
    kernel = await start_kernel(server)
    assert await run(server, kernel, "x = 41; x") == "41"
    await server.kill_gateway()
    await server.wait_ready()
    assert await run(server, kernel, "x + 1") == "42"
    await server.end()
    assert [found.is_running for found in containers_of(server)] == [True]
    await server.start()
    assert await run(server, kernel, "x + 2") == "43"
    assert (await server.fetch("DELETE", f"/api/kernels/{kernel}")).status == 204
    await until(lambda: not containers_of(server))


async def test_a_kernel_that_ends_in_a_cell_is_told_and_replaced(server: Server):
    kernel = await start_kernel(server)
    assert await run(server, kernel, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)") != ""
    assert await run(server, kernel, "1 + 1") == "2"


async def test_the_kernels_offered_are_those_of_the_images(server: Server):
    specs = json.loads((await server.fetch("GET", "/api/kernelspecs")).body)["kernelspecs"]
    assert "python3" in specs
    assert set(specs) <= {"python3", "python-data"}  # and none that is installed beside the server


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up: run as root")
async def test_a_gateway_of_root_keeps_one_group_and_nothing_else(server: Server):
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{server.gateway_pid()}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert "0" not in status["Uid"].split()
    assert status["Groups"].split() == [str(os.stat("/var/run/docker.sock").st_gid)]
    assert status["CapEff"] == status["CapPrm"] == "0" * 16


async def test_a_server_that_is_to_end_its_sessions_leaves_no_container(server: Server):
    await server.end()
    await server.start("--end-sessions")
    await start_kernel(server)
    assert await server.end(signal.SIGTERM) == 0
    assert containers_of(server) == []
