"""`cellgate serve` as it is started by people, in every way that it and its parts can end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
import uuid
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from cellgate.sandbox.native import commands
from cellgate.sandbox.native.driver import NativeDriver
from cellgate.serve.places import gateway_account, prepare
from tests.faults.stage import cpu_seconds
from tests.support.server import BOUND, Server, served, until

pytestmark = [pytest.mark.native]

SERVES_AGAIN_SECONDS = 3.0  # after the gateway was killed
SERVICE_RESTART = 1012  # RFC 6455's registry of close codes
DESCRIPTORS = 128
ENDS_SECONDS = 10.0  # after SIGTERM
IDLE_MACHINE = 2.0  # how much slower the machine may be that this is tried on, with other tests beside


class Kernel:
    """One kernel over one websocket, as a Jupyter client drives it."""

    def __init__(self, server: Server, kernel_id: str) -> None:
        self.id = kernel_id
        self._server = server

    async def run(self, code: str) -> str:
        """The text of its result, or the name of its error, over a fresh connection."""
        async with websockets.connect(self._server.channels_url(self.id), max_size=None) as websocket:
            return await asyncio.wait_for(self.ask(websocket, code), BOUND)

    async def ask(self, websocket, code: str) -> str:
        message_id = await self.send(websocket, code)
        result = ""
        while True:
            message = json.loads(await websocket.recv())
            if message["parent_header"].get("msg_id") == message_id:
                content = message["content"]
                if message["msg_type"] == "execute_result":
                    result = content["data"]["text/plain"]
                elif message["msg_type"] == "error":
                    result = content["ename"]
                elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                    return result

    async def send(self, websocket, code: str) -> str:
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "s", "username": "u"}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        await websocket.send(json.dumps({"header": header, "channel": "shell", "content": content}))
        return header["msg_id"]


async def new_kernel(server: Server) -> Kernel:
    reply = await server.fetch("POST", "/api/kernels", {})
    assert reply.status == 201, reply
    return Kernel(server, reply.json()["id"])


async def kernels_of(server: Server) -> list[str]:
    return [kernel["id"] for kernel in (await server.fetch("GET", "/api/kernels")).json()]


async def test_the_first_cell_runs_and_the_gateway_has_no_rights():
    async with served() as server:
        assert f"?token={server.token}" in server.greeting
        assert len(server.token) == 43
        kernel = await new_kernel(server)
        assert await kernel.run("1+1") == "2"
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{server.gateway_pid()}/status").read_text().splitlines()
        )
        if os.geteuid() == 0:
            account = gateway_account()
            assert status["Uid"].split() == [str(account.uid)] * 4
            assert status["Gid"].split() == [str(account.gid)] * 4
            assert status["Groups"].split() == []
            assert status["NoNewPrivs"] == "1"
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapAmb")} == {0}
        began = time.monotonic()
        assert await server.end() == 0
        assert time.monotonic() - began < ENDS_SECONDS
        assert "error" not in server.log() and "Traceback" not in server.log()


async def test_a_token_that_was_given_counts_and_is_not_shown_again():
    token = "chosen-by-the-operator"
    async with served(env={"CELLGATE_TOKEN": token}) as server:
        assert token not in server.greeting + server.log()
        assert (await server.fetch("GET", "/api/kernels", Authorization=f"token {token}")).status == 200
        assert (await server.fetch("GET", "/api/kernels", Authorization="token another")).status == 401


async def test_a_server_that_is_started_again_has_its_sessions_with_their_variables():
    async with served() as server:
        kernel = await new_kernel(server)
        await kernel.run("x = 6 * 7")
        warden = server.warden_pid()
        assert await server.end() == 0
        await server.start()
        assert await kernels_of(server) == [kernel.id]
        assert await kernel.run("x") == "42"
        assert server.warden_pid() == warden


async def test_a_server_that_ends_its_sessions_leaves_no_sandbox_and_no_warden():
    async with served("--end-sessions") as server:
        await (await new_kernel(server)).run("x = 1")
        assert await server.end() == 0
        await until(lambda: server.warden_pid() == 0)
        await server.start()
        assert await kernels_of(server) == []


async def test_a_killed_gateway_is_replaced_and_nothing_is_lost():
    async with served() as server:
        kernel = await new_kernel(server)
        await kernel.run("x = 'kept'")
        for _ in range(3):
            began = time.monotonic()
            await server.kill_gateway()
            await server.wait_ready()
            assert time.monotonic() - began < SERVES_AGAIN_SECONDS * IDLE_MACHINE
            assert await kernel.run("x") == "'kept'"
        assert server.log().count("was ended by SIGKILL; another takes its place") == 3


async def test_when_the_keeper_is_killed_the_gateway_ends_and_a_new_server_takes_over():
    async with served() as server:
        kernel = await new_kernel(server)
        await kernel.run("x = 'kept'")
        gateway = server.gateway_pid()
        os.kill(server.keeper_pid, signal.SIGKILL)
        await server.end()
        await until(lambda: not Path(f"/proc/{gateway}").exists())
        await server.start()
        assert await kernel.run("x") == "'kept'"


async def test_a_killed_warden_is_replaced_and_sessions_get_new_kernels():
    async with served() as server:
        kernel = await new_kernel(server)
        async with websockets.connect(server.channels_url(kernel.id)) as websocket:
            assert await kernel.ask(websocket, "x = 1; x") == "1"
            waiting = asyncio.create_task(kernel.ask(websocket, "import time; time.sleep(1000)"))
            await kernel_is(server, kernel.id, "busy")
            warden = server.warden_pid()
            os.kill(warden, signal.SIGKILL)
            assert await asyncio.wait_for(waiting, BOUND) == "SupervisorLost"
        await server.fetch("POST", f"/api/kernels/{kernel.id}/restart")
        await kernel_is(server, kernel.id, "idle")
        assert await kernel.run("x") == "NameError"
        assert server.warden_pid() not in (0, warden)


async def kernel_is(server: Server, kernel_id: str, state: str) -> None:
    deadline = time.monotonic() + BOUND
    while (seen := (await server.fetch("GET", f"/api/kernels/{kernel_id}")).json()["execution_state"]) != state:
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.02)


async def test_a_gateway_whose_driver_was_let_go_makes_room_for_one_that_has_a_driver():
    """It went on serving, and no kernel's end, no interrupt and no time limit was seen by anybody any more."""
    async with served() as server:
        kernel = await new_kernel(server)
        await kernel.run("x = 'kept'")
        former = server.gateway_pid()
        intruder = await NativeDriver.connect(str(server.state_dir / "warden" / "socket"))
        await until(lambda: "another takes its place" in server.log())
        await server.wait_ready()
        await asyncio.wait_for(intruder.lost, BOUND)
        await intruder.close()
        assert server.gateway_pid() != former
        assert await kernel.run("x") == "'kept'"


async def test_a_second_server_in_the_same_directory_is_refused():
    async with served() as server, served(start=False) as second:
        second.state_dir, its_own = server.state_dir, second.state_dir
        await second.spawn()
        assert await asyncio.wait_for(second.process.wait(), BOUND) == 2
        assert "error[state_dir_in_use]" in second.log()
        assert "another takes its place" not in second.log()
        second.process, second.state_dir = None, its_own
        assert (await server.fetch("GET", "/api")).status == 200


async def test_clients_are_told_that_the_server_restarts():
    async with served() as server:
        kernel = await new_kernel(server)
        async with websockets.connect(server.channels_url(kernel.id)) as websocket:
            assert await kernel.ask(websocket, "1+1") == "2"
            ending = asyncio.create_task(server.end())
            with pytest.raises(websockets.ConnectionClosed) as closed:
                while True:
                    await asyncio.wait_for(websocket.recv(), BOUND)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == SERVICE_RESTART
            assert await ending == 0


async def test_a_server_ends_in_time_while_cells_run_and_clients_wait():
    async with served() as server:
        kernel = await new_kernel(server)
        async with websockets.connect(server.channels_url(kernel.id)) as websocket:
            await kernel.send(websocket, "import time; time.sleep(1000)")
            await kernel_is(server, kernel.id, "busy")
            with socket.create_connection(("127.0.0.1", server.port)) as slow:
                slow.sendall(b"POST /api/kernels HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
                began = time.monotonic()
                assert await server.end() == 0
                assert time.monotonic() - began < ENDS_SECONDS


async def test_a_warden_of_another_version_is_refused_with_a_sentence():
    async with served(start=False) as server:
        Path(server.warden_path).parent.mkdir(mode=0o711, parents=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.bind(server.warden_path)
            os.chmod(server.warden_path, 0o777)
            other.listen()
            other.settimeout(BOUND)

            def greet() -> None:
                """Whoever looks whether somebody answers, and the driver."""
                for _ in range(2):
                    line, _ = other.accept()
                    lines.append(line)
                    line.send(json.dumps({"hello": commands.VERSION + 1, "templates": []}).encode())

            lines: list[socket.socket] = []
            greeting = asyncio.create_task(asyncio.to_thread(greet))
            await server.spawn()
            assert await asyncio.wait_for(server.process.wait(), BOUND) == 4
            await greeting
            for line in lines:
                line.close()
        speaks = f"the warden speaks version {commands.VERSION + 1} and this driver {commands.VERSION}"
        assert f"error[driver_unavailable]: the native driver cannot run here: {speaks}" in server.log()
        assert "another takes its place" not in server.log()


async def test_a_registry_that_makes_no_sense_is_put_aside_and_its_sandboxes_ended():
    async with served() as server:
        await (await new_kernel(server)).run("x = 1")
        assert await server.end() == 0
        registry = server.state_dir / "gateway" / "sessions.sqlite"
        for part in registry.parent.glob("sessions.sqlite*"):
            part.write_bytes(b"rubbish" * 1000)
        await server.start()
        assert "could not be read" in server.log()
        assert await kernels_of(server) == []
        assert await (await new_kernel(server)).run("x") == "NameError"


async def test_a_state_directory_that_cannot_be_written_is_said_in_one_line():
    async with served(start=False) as server:
        account = gateway_account() if os.geteuid() == 0 else None
        made = prepare(server.state_dir, account)
        made.gateway.chmod(0o500)
        await server.spawn()
        assert await asyncio.wait_for(server.process.wait(), BOUND) == 4
        assert server.log().startswith("cellgate: error[storage_full]: the state directory cannot be written")
        assert len(server.log().splitlines()) == 1


async def test_clients_beyond_what_the_descriptors_allow_are_turned_away_and_the_others_served():
    async with served(start=False) as server:
        server.allow_descriptors(DESCRIPTORS)
        await server.start()
        kernel = await new_kernel(server)
        async with websockets.connect(server.channels_url(kernel.id)) as websocket:
            many = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * DESCRIPTORS)]
            try:
                before = cpu_seconds(server.gateway_pid())
                assert await kernel.ask(websocket, "1+1") == "2"
                await asyncio.sleep(0.5)  # long enough to see a loop that finds no rest
                assert cpu_seconds(server.gateway_pid()) - before < 0.25
            finally:
                for sock in many:
                    sock.close()
            await server.wait_ready()
            assert await kernel.ask(websocket, "1+1") == "2"
        assert "Traceback" not in server.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's gateway becomes somebody else: root shows it")
async def test_a_program_that_only_root_can_read_serves_all_the_same(closed_installation: str):
    async with served(start=False) as server:
        server.python = closed_installation
        await server.start()
        kernel = await new_kernel(server)
        assert await kernel.run("import decimal; decimal.Decimal(6) * 7") == "Decimal('42')"
        paths = ["/", "/login", "/api", "/api/status", "/api/kernelspecs", "/api/sessions", "/v1/openapi.json", "/x%ff"]
        seen = {path: (await server.fetch("GET", path)).status for path in paths}
        assert seen == dict.fromkeys(paths, 200) | {"/x%ff": seen["/x%ff"]}
        assert seen["/x%ff"] in (400, 404)
        kernelspecs = (await server.fetch("GET", "/api/kernelspecs")).json()["kernelspecs"]
        logos = [logo for spec in kernelspecs.values() for logo in spec["resources"].values()]
        assert {(await server.fetch("GET", logo)).status for logo in logos} == {200}
        assert (await server.fetch("GET", "/api/kernels", Authorization="token wrong")).status == 401
        await server.kill_gateway()
        await server.wait_ready()
        assert await kernel.run("1/0") == "ZeroDivisionError"
        assert (await server.fetch("POST", f"/api/kernels/{kernel.id}/restart")).status == 200
        assert (await server.fetch("DELETE", f"/api/kernels/{kernel.id}")).status == 204
        assert await server.end() == 0
        assert "Traceback" not in server.log()
        assert "No module" not in server.log()


@pytest.fixture
def closed_installation() -> Iterator[str]:
    """An interpreter whose every module is found by way of a directory that root alone may enter."""
    # Not in /tmp, over which a sandbox has its own, and links from there are lost.
    with tempfile.TemporaryDirectory(prefix="cellgate-test-", dir="/var/tmp") as name:
        closed = Path(name)  # its mode is 0700
        venv.create(closed / "venv", symlinks=True)
        places = [place for place in dict.fromkeys(sys.path) if "site-packages" in place]
        places += [str(Path(__file__).parents[2] / source) for source in ("server", "kernels")]
        for number, place in enumerate(places):
            (closed / str(number)).symlink_to(place)
        (site,) = (closed / "venv" / "lib").glob("python*/site-packages")
        (site / "ours.pth").write_text("".join(f"{closed}/{number}\n" for number in range(len(places))))
        yield str(closed / "venv" / "bin" / "python")
