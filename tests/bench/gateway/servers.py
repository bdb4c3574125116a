"""The servers that are measured, each a process of its own: ours, the peers from PyPI, and `floor.py`.

All have the same REST paths and the same websocket, so that a bench says what it does once.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

from tests.bench.gateway.client import Address, Websocket, request
from tests.bench.harness import Row

__all__ = ["FLOOR", "OURS", "PEERS", "Samples", "Server", "Stage", "answer", "beside", "turns"]

READY_SECONDS = 60.0
END_SECONDS = 30.0

OURS, FLOOR = "cellgate", "floor"
PEERS = ("jupyter_server", "kernel_gateway")


@dataclass(frozen=True)
class Way:
    """How a server is started: the command, with {port}, {token} and {directory} to be filled in."""

    module: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


# The peers drop messages beyond 1,000 a second, and bytes beyond a million, unless told not to.
UNLIMITED = "--ZMQChannelsWebsocketConnection.limit_rate=False"

JUPYTER_SERVER = Way(
    "jupyter_server",
    (
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token={token}",
        "--ServerApp.root_dir={directory}",
        "--ServerApp.log_level=ERROR",
    ),
)
KERNEL_GATEWAY = Way(
    "kernel_gateway",
    (
        "--KernelGatewayApp.ip=127.0.0.1",
        "--KernelGatewayApp.port={port}",
        "--KernelGatewayApp.port_retries=0",
        "--KernelGatewayApp.auth_token={token}",
        "--KernelGatewayApp.log_level=ERROR",
    ),
)
CELLGATE = Way(
    "cellgate",
    ("serve", "--driver=native", "--host=127.0.0.1", "--port={port}", "--token={token}", "--state-dir={directory}"),
    {"CELLGATE_SESSIONS_PER_PRINCIPAL": "2000", "CELLGATE_SESSIONS_TOTAL": "2000"},  # all are the bench's
)
WAYS = {
    OURS: CELLGATE,
    "jupyter_server": Way(JUPYTER_SERVER.module, (*JUPYTER_SERVER.flags, UNLIMITED)),
    "kernel_gateway": Way(KERNEL_GATEWAY.module, (*KERNEL_GATEWAY.flags, UNLIMITED)),
    FLOOR: Way("tests.bench.gateway.floor", ("{port}",)),
    "jupyter_server, as it comes": JUPYTER_SERVER,
    "kernel_gateway, as it comes": KERNEL_GATEWAY,
}


class Server:
    """A server that answers."""

    def __init__(self, name: str, address: Address, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.address = address
        self.process = process

    @property
    def pids(self) -> list[int]:
        """The process that relays: whoever holds the port, and is the youngest of those."""
        return [max(_who_listens(self.address.port), key=_started)]

    async def create(self) -> str:
        response = await request(self.address, "POST", "/api/kernels", {})
        assert response.status == 201, response
        return response.json["id"]

    async def delete(self, kernel_id: str) -> None:
        response = await request(self.address, "DELETE", f"/api/kernels/{kernel_id}")
        assert response.status == 204, response

    async def interrupt(self, kernel_id: str) -> None:
        response = await request(self.address, "POST", f"/api/kernels/{kernel_id}/interrupt", {})
        assert response.status == 204, response

    async def state(self, kernel_id: str) -> str:
        """Jupyter's `execution_state`."""
        return (await request(self.address, "GET", f"/api/kernels/{kernel_id}")).json["execution_state"]

    async def open(self, kernel_id: str, *, quick_acks: bool = False) -> Websocket:
        return await Websocket.open(self.address, kernel_id, quick_acks=quick_acks)

    @asynccontextmanager
    async def kernel(self) -> AsyncIterator[str]:
        name = await self.create()
        try:
            yield name
        finally:
            await self.delete(name)

    @asynccontextmanager
    async def websocket(self, *, quick_acks: bool = False) -> AsyncIterator[Websocket]:
        """Of a kernel of its own, warm."""
        async with self.kernel() as name:
            websocket = await self.open(name, quick_acks=quick_acks)
            try:
                await answer(websocket)
                yield websocket
            finally:
                await websocket.close()


async def answer(websocket: Websocket) -> float:
    """Seconds until the answer to `1+1` is whole."""
    heard = await websocket.execute("1+1")
    assert not heard.lost_idle and heard.count("execute_result") == 1, heard
    return heard.seconds


class Stage:
    """Starts each server when it is first asked for, and ends them all."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._servers: dict[str, Server] = {}

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def server(self, name: str, environment: Mapping[str, str] | None = None) -> Server:
        """The one of this name, and with these further settings."""
        key = f"{name} {sorted((environment or {}).items())}"
        if key not in self._servers:
            self._servers[key] = await self._stack.enter_async_context(_started_server(name, environment or {}))
        return self._servers[key]

    async def servers(self, names: Sequence[str] = (OURS, *PEERS, FLOOR)) -> list[Server]:
        return [await self.server(name) for name in names]


@asynccontextmanager
async def _started_server(name: str, environment: Mapping[str, str]) -> AsyncIterator[Server]:
    way = WAYS[name]
    with tempfile.TemporaryDirectory(prefix="bench-gateway-", ignore_cleanup_errors=True) as directory:
        os.chmod(directory, 0o755)  # ours gives up its rights, and its own directory lies in this one
        address = Address(_free_port(), secrets.token_urlsafe(24))
        filled = {"port": address.port, "token": address.token, "directory": directory}
        log = Path(directory, "log")
        process = subprocess.Popen(
            [sys.executable, "-m", way.module, *(flag.format(**filled) for flag in way.flags)],
            env={
                **os.environ,
                "HOME": directory,
                "IPYTHONDIR": directory,
                "JUPYTER_RUNTIME_DIR": directory,
                "JUPYTER_CONFIG_DIR": directory,
                "JUPYTER_DATA_DIR": directory,
                "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                **way.environment,
                **environment,
            },
            stdout=subprocess.DEVNULL,
            stderr=log.open("wb"),
            start_new_session=True,
        )
        server = Server(name, address, process)
        try:
            await _wait_until_ready(server, log)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(process.wait, END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _wait_until_ready(server: Server, log: Path) -> None:
    for _ in range(int(READY_SECONDS / 0.05)):
        try:
            if (await request(server.address, "GET", "/api")).status == 200:
                return
        except OSError:
            pass
        if server.process.poll() is not None:
            break
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{server.name} does not answer: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _who_listens(port: int) -> list[int]:
    """The processes that hold this port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = "0A"
    inodes = {line[9] for line in lines if line[3] == listening and int(line[1].rpartition(":")[2], 16) == port}
    targets = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:  # it has gone
            continue
        for descriptor in descriptors:
            try:
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in targets:
                    found.append(int(pid))
                    break
            except OSError:
                continue
    return found


def _started(pid: int) -> tuple[int, int]:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid


# -- turns and rows ------------------------------------------------------------------------------------

Samples = dict[str, list[float]]  # by the server's name


def turns(servers: Sequence[Server], turn: Callable[[Server], Awaitable[None]]) -> list[Callable[[], Awaitable[None]]]:
    return [partial(turn, server) for server in servers]


def beside(
    what: str,
    unit: str,
    samples: Mapping[str, Sequence[float]],
    *,
    more_is_better: bool = False,
    target: Mapping[str, float] | None = None,
    note: str = "",
) -> list[Row]:
    """A row for each peer, and one for what the client takes alone, where that was measured."""
    ours = samples[OURS]
    rows = [
        Row(f"{what}, {name}", unit, ours, theirs, more_is_better, target or {})
        for name, theirs in samples.items()
        if name not in (OURS, FLOOR)
    ]
    if floor := samples.get(FLOOR):
        rows.append(Row("- the client alone", unit, floor, more_is_better=more_is_better))
    return rows
