"""docker-compose.yml, as the README has it used: a service that is not root and cannot write its root, whose sessions
are containers beside it and outlive it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from cellgate.sandbox.docker.build import BuildFailed, build, build_service, recipe_of
from cellgate.sandbox.docker.container import OWNER
from cellgate.sandbox.docker.engine import Engine, EngineFailed

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123456789abcdef"
UID = 1899999999  # as the file has it
BOUND = 60.0
COMMANDS = (["docker", "compose"], ["docker-compose"])


class Composed:
    """The service, which listens on a port of this host."""

    def __init__(self, command: list[str], state: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.state = state
        self._words = [
            *command,
            "--project-name",
            f"cellgate-test-{self.port}",
            "--file",
            str(ROOT / "docker-compose.yml"),
        ]
        self._env = {
            **os.environ,
            "CELLGATE_TOKEN": TOKEN,
            "CELLGATE_STATE_DIR": str(state),
            "CELLGATE_PORT": str(self.port),
            "DOCKER_GID": str(os.stat("/var/run/docker.sock").st_gid),
        }

    def __call__(self, *words: str) -> str:
        run = subprocess.run([*self._words, *words], env=self._env, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def request(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        try:
            connection.request(method, path, json.dumps(body or {}), {"Authorization": f"token {TOKEN}"})
            response = connection.getresponse()
            said = response.read()
            return response.status, json.loads(said) if said else None
        finally:
            connection.close()

    def wait_ready(self) -> None:
        until = time.monotonic() + BOUND
        while True:
            try:
                if self.request("GET", "/api")[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < until, self("logs")
                time.sleep(0.1)

    async def run(self, kernel: str, code: str) -> str:
        """The text of its result."""
        header = {"msg_id": code, "msg_type": "execute_request", "session": "s", "version": "5.3"}
        url = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel}/channels?token={TOKEN}"
        result = ""
        async with websockets.connect(url, max_size=None) as websocket:
            await websocket.send(json.dumps({"header": header, "content": {"code": code}}))
            while True:
                message = json.loads(await asyncio.wait_for(websocket.recv(), BOUND))
                if message["parent_header"].get("msg_id") != code:
                    continue
                if message["msg_type"] == "execute_result":
                    result = message["content"]["data"]["text/plain"]
                elif message["content"].get("execution_state") == "idle":
                    return result


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    command = next(
        (words for words in COMMANDS if subprocess.run([*words, "version"], capture_output=True).returncode == 0), None
    )
    if command is None or os.geteuid() != 0:
        pytest.skip("needs docker compose, and root for a state directory of somebody else's")
    try:
        engine = Engine.open()
        build(engine, recipe_of("python"), print)
        build_service(engine, print)
    except (EngineFailed, BuildFailed) as error:
        pytest.skip(str(error))
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, UID, UID)
    composed = Composed(command, state)
    try:
        composed("up", "--detach")
        composed.wait_ready()
        yield composed
    finally:
        try:
            composed("down", "--volumes")
        finally:
            for found in engine.containers(f"{OWNER}={state}/gateway/docker"):
                engine.remove(found.container)
            engine.close()
            shutil.rmtree(state)


async def test_what_compose_starts_serves_sessions_that_outlive_it(composed: Composed):
    status, kernel = await asyncio.to_thread(composed.request, "POST", "/api/kernels")
    assert status == 201 and isinstance(kernel, dict), kernel
    assert await composed.run(kernel["id"], "x = 41; x") == "41"
    await asyncio.to_thread(composed, "kill")
    await asyncio.to_thread(composed, "up", "--detach")
    await asyncio.to_thread(composed.wait_ready)
    assert await composed.run(kernel["id"], "x + 1") == "42"
    assert "healthy" in await asyncio.to_thread(until_healthy, composed)


async def test_the_service_cannot_ask_the_engine_but_through_the_proxy(composed: Composed):
    tried = (
        "import os, docker; client = docker.APIClient(base_url=os.environ['DOCKER_HOST'], version='auto')\n"
        "try: client.create_container('cellgate/python:latest', ['id'])\n"
        "except docker.errors.APIError as error: print(os.getgroups(), os.listdir('/var/run'), error.status_code)"
    )
    said = await asyncio.to_thread(composed, "exec", "-T", "cellgate", "python3", "-c", tried)
    assert said.endswith(" 403\n") and "docker.sock" not in said, said
    assert str(os.stat("/var/run/docker.sock").st_gid) not in said.partition("]")[0].strip("[").split(", "), said


def until_healthy(composed: Composed) -> str:
    until = time.monotonic() + BOUND
    while "(healthy)" not in (said := composed("ps")) and " healthy" not in said:
        assert time.monotonic() < until, said
        time.sleep(0.2)
    return said
