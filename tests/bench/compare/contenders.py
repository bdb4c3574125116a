"""Who is compared: servers that a client reaches by HTTP and websocket, and a stock kernel that it reaches by raw ZMQ.

A contender seats a client: a session of its own, that has answered. What a seat offers is the same for all, so that a
measure says once what it does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Protocol

import psutil
import pytest

from tests.bench.compare.figures import OURS
from tests.bench.gateway.client import Address, Websocket
from tests.bench.gateway.servers import MANY_SESSIONS, Server, answer, started_peer
from tests.bench.peers import Heard, StockKernel, start_stock, stock_client, stock_manager
from tests.support import server as support
from tests.support.docker import open_docker

__all__ = ["WORDS", "Contender", "Living", "OfServer", "Seat", "ServerSeat", "assembled", "own_bytes", "peer"]

RAW_ZMQ = "raw ZMQ"
LOOP = "print('runs', flush=True)\nwhile True: pass"
INTO_THE_LOOP_SECONDS = 0.05  # after its word has come the cell is soon where it stays

WORDS = {
    OURS: "cellgate serve, driver native: a forked sandbox for each session",
    f"{OURS}, docker": "cellgate serve, driver docker: a container of runc for each session",
    f"{OURS}, gVisor": "cellgate serve, driver docker: a container of runsc for each session",
    "Jupyter Server": "jupyter_server: kernels are processes of its user, in no sandbox",
    "Kernel Gateway": "jupyter_kernel_gateway: the same",
    RAW_ZMQ: "jupyter_client and a stock ipykernel beside it: no server, no sandbox",
}
DRIVERS = {
    OURS: (),
    f"{OURS}, docker": ("--driver", "docker", "--runtime", "runc"),
    f"{OURS}, gVisor": ("--driver", "docker", "--runtime", "runsc"),
}
PEERS = {"Jupyter Server": "jupyter_server", "Kernel Gateway": "kernel_gateway"}
POOLED = "--pool-size=2"


class Seat(Protocol):
    """A client in a session. A seat is left with `close`, and its session ends."""

    async def execute(self, code: str) -> Heard: ...

    async def interrupt(self) -> float:
        """Milliseconds from the interrupt of a busy loop until its reply and idle have come."""
        ...

    async def leave(self) -> None:
        """The session stays; `close` is still owed."""
        ...

    async def close(self) -> None: ...


class Contender(Protocol):
    @property
    def relays(self) -> list[int]:
        """The process between client and kernel, if there is one."""
        ...

    async def seat(self, *, quick_acks: bool = True) -> Seat: ...

    def processes(self) -> set[int]:
        """All that it has running for its sessions, itself included."""
        ...


class ServerSeat:
    def __init__(self, server: Server, kernel: str, websocket: Websocket) -> None:
        self.server = server
        self.kernel = kernel
        self.websocket = websocket

    async def execute(self, code: str) -> Heard:
        return await self.websocket.execute(code)

    async def interrupt(self) -> float:
        self.websocket.ask(LOOP)
        await self.websocket.wait_for_output()
        await asyncio.sleep(INTO_THE_LOOP_SECONDS)
        begin = perf_counter()
        heard, _ = await asyncio.gather(self.websocket.collect(), self.server.interrupt(self.kernel))
        assert heard.error == "KeyboardInterrupt", heard
        return (self.websocket.heard_at - begin) * 1e3

    async def leave(self) -> None:
        await self.websocket.close()

    async def close(self) -> None:
        await self.leave()
        await self.server.delete(self.kernel)


class OfServer:
    """`more` finds what is no descendant of the server's process: the warden's, or the engine's."""

    def __init__(self, server: Server, more: Callable[[], set[int]]) -> None:
        self.server = server
        self._more = more

    @property
    def relays(self) -> list[int]:
        return self.server.pids

    async def seat(self, *, quick_acks: bool = True) -> ServerSeat:
        kernel = await self.server.create()
        seat = ServerSeat(self.server, kernel, await self.server.open(kernel, quick_acks=quick_acks))
        await answer(seat.websocket)
        return seat

    def processes(self) -> set[int]:
        return family(self.server.pids[0]) | self._more()


class ZmqSeat:
    """The kernel's calls block: an event loop would only make it slower."""

    def __init__(self, stack: AsyncExitStack, kernel: StockKernel) -> None:
        self._stack = stack
        self.kernel = kernel

    async def execute(self, code: str) -> Heard:
        return self.kernel.execute(code)

    async def interrupt(self) -> float:
        self.kernel.ask(LOOP)
        self.kernel.wait_for_output()
        await asyncio.sleep(INTO_THE_LOOP_SECONDS)
        begin = perf_counter()
        await self.kernel.manager.interrupt_kernel()
        heard = self.kernel.collect()
        assert heard.error == "KeyboardInterrupt", heard
        return (perf_counter() - begin) * 1e3

    async def leave(self) -> None:
        pass  # its sockets cost nothing that counts

    async def close(self) -> None:
        await self._stack.aclose()


class OfZmq:
    relays: list[int] = []

    def __init__(self) -> None:
        self._pids: set[int] = set()

    async def seat(self, *, quick_acks: bool = True) -> ZmqSeat:
        """As jupyter_client's documentation does it: start_kernel, wait_for_ready, execute."""
        stack = AsyncExitStack()
        manager = await stack.enter_async_context(stock_manager())
        await start_stock(manager)
        kernel = StockKernel(manager)
        stack.callback(kernel.close)
        async with stock_client(manager) as client:
            await client.execute("1+1", reply=True, timeout=60)
        self._pids.update(kernel.pids)
        stack.callback(self._pids.difference_update, kernel.pids)
        return ZmqSeat(stack, kernel)

    def processes(self) -> set[int]:
        return set(self._pids)


# -- starting them ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def ours(name: str, *flags: str) -> AsyncIterator[OfServer]:
    """Raises what the driver's absence raises."""
    if driver := DRIVERS[name]:
        await (await open_docker(runtime=driver[-1])).close()  # the image is there, and the runtime
    async with support.served("--end-sessions", *MANY_SESSIONS, *driver, *flags) as started:
        address = Address(name, started.port, started.token)

        def more() -> set[int]:
            return shims() if driver else family(started.warden_pid()) | family(started.keeper_pid)

        yield OfServer(Living(address, started), more)


class Living(Server):
    """One whose gateway may be killed, and has another pid then."""

    def __init__(self, address: Address, started: support.Server) -> None:
        super().__init__(address, started.gateway_pid())
        self.started = started

    async def kill(self) -> None:
        await self.started.kill_gateway()
        self.pids = []

    async def find_gateway(self) -> None:
        """Once there is another."""
        await support.until(lambda: self.started.gateway_pid() != 0)
        self.pids = [self.started.gateway_pid()]


@asynccontextmanager
async def peer(name: str) -> AsyncIterator[OfServer]:
    async with started_peer(PEERS[name]) as server:
        yield OfServer(server, set)


async def assembled(
    stack: AsyncExitStack, names: Iterable[str] = tuple(DRIVERS)
) -> tuple[dict[str, Contender], dict[str, OfServer], dict[str, str]]:
    """All that can run here, of ours by these names, and each a second time with a pool; and why others cannot."""
    found: dict[str, Contender] = {}
    pooled: dict[str, OfServer] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            found[name] = await stack.enter_async_context(ours(name))
            pooled[name] = await stack.enter_async_context(ours(name, POOLED))
        except (Exception, pytest.skip.Exception) as error:  # whatever it is, the others are worth measuring
            absent[name] = re.sub(r"\s+", " ", str(error))[:300]
    for name in PEERS:
        found[name] = await stack.enter_async_context(peer(name))
    return {**found, RAW_ZMQ: OfZmq()}, pooled, absent


# -- what they hold ------------------------------------------------------------------------------------------------


def family(pid: int) -> set[int]:
    root = psutil.Process(pid)
    return {pid, *(one.pid for one in root.children(recursive=True))}


def shims() -> set[int]:
    """What the engine has running for containers, with their processes."""
    found: set[int] = set()
    for process in psutil.process_iter(["name"]):
        if process.info["name"].startswith("containerd-shim"):
            with suppress(psutil.NoSuchProcess):
                found |= family(process.pid)
    return found


def own_bytes(pids: set[int]) -> int:
    """Of all of them together: PSS, by which a page that several share counts once."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            if found := re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE):
                total += int(found[1]) << 10
    return total
