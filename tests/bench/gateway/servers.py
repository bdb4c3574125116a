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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from tests.bench.gateway.client import Address, Websocket, request
from tests.bench.harness import Row
from tests.support.server import served

__all__ = ["FLOOR", "OURS", "PEERS", "Samples", "Server", "Stage", "answer", "beside", "started_peer", "turns"]

READY_SECONDS = 60.0
END_SECONDS = 30.0

MANY_SESSIONS = ("--sessions-per-principal=2000", "--sessions-total=2000")  # all are the bench's

OURS, FLOOR = "cellgate", "floor"
PEERS = ("jupyter_server", "kernel_gateway")


@dataclass(frozen=True)
class Way:
    """How a peer is started: the command, with {port}, {token} and {directory} to be filled in."""

    module: str
    flags: tuple[str, ...] = ()


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
WAYS = {
    "jupyter_server": Way(JUPYTER_SERVER.module, (*JUPYTER_SERVER.flags, UNLIMITED)),
    "kernel_gateway": Way(KERNEL_GATEWAY.module, (*KERNEL_GATEWAY.flags, UNLIMITED)),
    FLOOR: Way("tests.bench.gateway.floor", ("{port}",)),
    "jupyter_server, as it comes": JUPYTER_SERVER,
    "kernel_gateway, as it comes": KERNEL_GATEWAY,
}


class Server:
    """A server that answers."""

    def __init__(self, address: Address, pid: int) -> None:
        """`pid` is that of the process that relays."""
        self.name = address.name
        self.address = address
        self.pids = [pid]

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
        self._servers: dict[tuple[str, ...], Server] = {}

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def server(self, name: str, *flags: str) -> Server:
        """The one of this name; of ours, with these further flags."""
        key = (name, *flags)
        if key not in self._servers:
            started = _started_ours(flags) if name == OURS else started_peer(name)
            self._servers[key] = await self._stack.enter_async_context(started)
        return self._servers[key]

    async def servers(self, names: Sequence[str] = (OURS, *PEERS, FLOOR)) -> list[Server]:
        return [await self.server(name) for name in names]


@asynccontextmanager
async def _started_ours(flags: Sequence[str]) -> AsyncIterator[Server]:
    async with served("--end-sessions", *MANY_SESSIONS, *flags) as server:
        yield Server(Address(OURS, server.port, server.token), server.gateway_pid())


@asynccontextmanager
async def started_peer(name: str) -> AsyncIterator[Server]:
    way = WAYS[name]
    with tempfile.TemporaryDirectory(prefix="bench-gateway-", ignore_cleanup_errors=True) as directory:
        address = Address(name, _free_port(), secrets.token_urlsafe(24))
        filled = {"port": address.port, "token": address.token, "directory": directory}
        places = ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
        log = Path(directory, "log")
        process = subprocess.Popen(
            [sys.executable, "-m", way.module, *(flag.format(**filled) for flag in way.flags)],
            env={**os.environ, **dict.fromkeys(places, directory)},
            stdout=subprocess.DEVNULL,
            stderr=log.open("wb"),
            start_new_session=True,
        )
        try:
            server = Server(address, process.pid)
            await _wait_until_ready(server, process, log)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(process.wait, END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(int(READY_SECONDS / 0.05)):
        try:
            if (await request(server.address, "GET", "/api")).status == 200:
                return
        except OSError:
            pass
        if process.poll() is not None:
            break
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{server.name} does not answer: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


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
        Row(f"{what}, {name}", unit, ours, theirs, more_is_better, target or {}, note)
        for name, theirs in samples.items()
        if name not in (OURS, FLOOR)
    ]
    if floor := samples.get(FLOOR):
        rows.append(Row("- the client alone", unit, floor, more_is_better=more_is_better))
    return rows
