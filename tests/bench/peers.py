"""The two that are measured: a kernel in a native sandbox, and a stock ipykernel started by jupyter_client.

Each is heard by the barest client there can be, `LinkKernel` over a link and `StockKernel` over raw ZMQ: neither
parses JSON nor checks signatures before the clock stops, and both keep all that came, to be verified afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from time import perf_counter
from types import TracebackType

import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_client.session import Session

from cellgate.sandbox.base import Sandbox, SandboxSpec
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.connection import KernelConnection, each
from cellgate.sandbox.native import cgroups
from cellgate.sandbox.native.driver import NativeDriver
from cellgate.sandbox.native.warden import TEMPLATES
from cellgate.wire.jupyter import execute_content, make_message
from cellgate_kernel.link import Link
from cellgate_kernel.message import Channel, Status, Tag, split_v1

__all__ = [
    "NO_POOL",
    "Bench",
    "Heard",
    "LinkKernel",
    "StockKernel",
    "first_answer",
    "first_stock_answer",
    "group_directories",
    "sandbox_pids",
    "start_stock",
    "stock_client",
    "stock_manager",
    "stock_pid",
]

Buffer = bytes | memoryview
NO_POOL = SandboxSpec(use_pool=False)
MAX_COMM = 15  # what Linux keeps of a process's name
OUTPUT = ("stream", "display_data", "execute_result", "error")
LOST_SECONDS = 5.0  # of silence after the reply, until a stock kernel's idle is taken for lost


@dataclass
class Heard:
    """What came of a cell."""

    seconds: float  # from the request to reply and idle, or to the last message when idle was lost
    read: Callable[[], list[tuple[str, Buffer]]]  # what was kept, as type and content of each output
    lost_idle: bool = False

    @cached_property
    def contents(self) -> list[tuple[str, Buffer]]:
        """Read only when asked for, so that no one's clock runs meanwhile, nor their CPU time."""
        return self.read()

    @property
    def text(self) -> str:
        return "".join(json.loads(bytes(content))["text"] for kind, content in self.contents if kind == "stream")

    def count(self, kind: str) -> int:
        return sum(kind == one for one, _ in self.contents)

    @property
    def error(self) -> str:
        """The name of the exception, if there was one."""
        return next((json.loads(bytes(content))["ename"] for kind, content in self.contents if kind == "error"), "")


class Bench:
    """A warden of its own, and a stock kernel when one is asked for."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._stock: StockKernel | None = None
        self.driver: NativeDriver

    async def __aenter__(self) -> Bench:
        self.driver = await NativeDriver.start()
        self._stack.push_async_callback(self.driver.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def stock(self) -> StockKernel:
        """The same one each time, warm."""
        if self._stock is None:
            manager = await self._stack.enter_async_context(stock_manager())
            await start_stock(manager)
            self._stock = StockKernel(manager)
            self._stack.callback(self._stock.close)
            await self._stock.wait_until_ready()
        return self._stock

    @asynccontextmanager
    async def sandbox(self, spec: SandboxSpec = NO_POOL) -> AsyncIterator[Sandbox]:
        sandbox = await self.driver.create(spec)
        try:
            yield sandbox
        finally:
            await sandbox.destroy()

    @asynccontextmanager
    async def link_kernel(self) -> AsyncIterator[LinkKernel]:
        async with self.sandbox() as sandbox:
            kernel = await LinkKernel.open(sandbox)
            try:
                yield kernel
            finally:
                await kernel.close()

    # What only root of this host can see.

    @property
    def warden_pid(self) -> int:
        assert self.driver._warden is not None  # one of its own
        return self.driver._warden.pid

    @property
    def zygote_pids(self) -> dict[int, str]:
        """The template of each zygote."""
        names = {f"zygote-{template}"[:MAX_COMM]: template for template in TEMPLATES}
        comms = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in children(self.warden_pid)}
        return {pid: names[comm] for pid, comm in comms.items() if comm in names}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def group_directories() -> list[Path]:
    """Where the control groups of all sandboxes on this host lie."""
    return [Path(parent) for parent in sorted(set(cgroups.detect().parents.values()))]


def sandbox_pids(sandbox: Sandbox) -> list[int]:
    """The kernel, its process 1 and whatever else runs in there."""
    return [int(pid) for pid in (group_directories()[0] / sandbox.id / "cgroup.procs").read_text().split()]


async def first_answer(driver: NativeDriver, spec: SandboxSpec) -> Sandbox:
    """A fresh sandbox that has answered `1+1`, by the ordinary client."""
    sandbox = await driver.create(spec)
    async with KernelClient(sandbox) as kernel:
        result = await kernel.execute("1+1")
    assert result.value == "2", result
    return sandbox


class LinkKernel:
    """A sandbox's kernel as a gateway has it: by a connection, looking at tags alone."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.pids = sandbox_pids(sandbox)
        self._connection: KernelConnection
        self._numbers = count(1)
        self._asked = b""
        self._has_replied = self._is_idle = False
        self._outputs: list[tuple[str, memoryview]] = []
        self._done: asyncio.Future[float]

    @staticmethod
    async def open(sandbox: Sandbox) -> LinkKernel:
        kernel = LinkKernel(sandbox)
        kernel._connection = await KernelConnection.open(sandbox, on_messages=each(kernel._take), link=Link())
        return kernel

    async def close(self) -> None:
        await self._connection.aclose()

    async def execute(self, code: str) -> Heard:
        name = f"bench_{next(self._numbers)}"
        begin = perf_counter()
        tag, parts = make_message(
            "execute_request",
            execute_content(code),
            channel=Channel.SHELL,
            msg_id=name,
            session="bench",
            date="2026-01-01T00:00:00Z",
        )
        self._asked, self._outputs = tag.parent_id, []
        self._has_replied = self._is_idle = False
        self._done = asyncio.get_running_loop().create_future()
        self._connection.post(tag, parts)
        seconds, outputs = await self._done - begin, self._outputs
        return Heard(seconds, lambda: [(kind, split_v1(v1)[1][3]) for kind, v1 in outputs])

    def _take(self, _number: int, tag: Tag, v1: memoryview) -> None:
        if tag.parent_id != self._asked:
            return
        if tag.message_type in OUTPUT:
            self._outputs.append((tag.message_type, v1))
        elif tag.channel is Channel.SHELL:
            self._has_replied = True
        elif tag.status is Status.IDLE:
            self._is_idle = True
        if self._has_replied and self._is_idle and not self._done.done():
            self._done.set_result(perf_counter())


@asynccontextmanager
async def stock_manager() -> AsyncIterator[AsyncKernelManager]:
    """A manager whose kernel, this interpreter's own ipykernel, is to be started, and is ended here. Its history
    and connection file lie in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="bench-stock-") as directory:
        manager = AsyncKernelManager(
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # else an installed spec may name another Python
            connection_file=os.path.join(directory, "connection.json"),
        )
        assert manager.kernel_spec is not None
        manager.kernel_spec.env = {"IPYTHONDIR": directory}
        try:
            yield manager
        finally:
            if manager.has_kernel:
                await manager.shutdown_kernel(now=True)
            manager.context.destroy(linger=0)


async def start_stock(manager: AsyncKernelManager) -> None:
    await manager.start_kernel(stderr=subprocess.DEVNULL)  # it warns that it is on TCP


def stock_pid(manager: AsyncKernelManager) -> int:
    assert isinstance(manager.provisioner, LocalProvisioner) and manager.provisioner.pid
    return manager.provisioner.pid


@asynccontextmanager
async def stock_client(manager: AsyncKernelManager) -> AsyncIterator[AsyncKernelClient]:
    """jupyter_client's own, ready."""
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()


async def first_stock_answer(manager: AsyncKernelManager) -> None:
    """A fresh kernel answers `1+1`, as jupyter_client's documentation does it."""
    await start_stock(manager)
    async with stock_client(manager) as client:
        reply = await client.execute("1+1", reply=True, timeout=60)
    assert reply["content"]["status"] == "ok", reply


class StockKernel:
    """A DEALER and a SUB. A call blocks the thread, for an event loop would only make the peer slower."""

    def __init__(self, manager: AsyncKernelManager) -> None:
        """The kernel has been started."""
        self.manager = manager
        self.pids = [stock_pid(manager)]
        self._session = Session(key=manager.session.key)
        self._context = zmq.Context()
        self._shell = self._connect(zmq.DEALER, manager.shell_port)
        self._iopub = self._connect(zmq.SUB, manager.iopub_port)
        self._poller = zmq.Poller()
        self._poller.register(self._shell, zmq.POLLIN)
        self._poller.register(self._iopub, zmq.POLLIN)
        self._asked = b""
        self._begin = 0.0
        self._outputs: list[Sequence[bytes]] = []
        self._has_replied = self._is_idle = False

    def _connect(self, kind: int, port: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.set_hwm(0)  # no bound: at this end nothing is lost
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(f"tcp://{self.manager.ip}:{port}")
        return socket

    def close(self) -> None:
        self._context.destroy(linger=0)

    async def wait_until_ready(self) -> None:
        """Until an answer comes whole: what was published before the subscription is lost."""
        async with stock_client(self.manager):
            pass
        while self.execute("1+1", patience=0.5).lost_idle:
            pass

    def execute(self, code: str, *, patience: float = LOST_SECONDS) -> Heard:
        self.ask(code)
        return self.collect(patience=patience)

    def ask(self, code: str) -> None:
        self._outputs, self._has_replied, self._is_idle = [], False, False
        self._begin = perf_counter()
        message = self._session.msg("execute_request", execute_content(code))
        self._asked = message["header"]["msg_id"].encode()
        self._session.send(self._shell, message)

    def wait_for_output(self) -> None:
        while not self._outputs:
            self._hear(None)

    def collect(self, *, patience: float = LOST_SECONDS) -> Heard:
        """Until reply and idle have come."""
        last = self._begin
        while not (self._has_replied and self._is_idle):
            if not self._hear(patience if self._has_replied else None):
                break
            last = perf_counter()
        kept = self._outputs

        def read() -> list[tuple[str, Buffer]]:
            # topic, delimiter, signature, header, parent header, metadata, content
            typed = [(json.loads(frames[3])["msg_type"], frames[6]) for frames in kept]
            return [(kind, content) for kind, content in typed if kind in OUTPUT]

        return Heard(last - self._begin, read, lost_idle=not self._is_idle)

    def _hear(self, patience: float | None) -> bool:
        """Take what has come; False when nothing did for `patience` seconds."""
        ready = self._poller.poll(None if patience is None else int(patience * 1000))
        for socket, _ in ready:
            try:
                while True:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                    if socket is self._shell:
                        self._has_replied |= self._asked in frames[3]  # identity is not sent: delimiter comes first
                    elif self._asked in frames[4]:
                        if b'"status"' not in frames[3]:
                            if b'"execute_input"' not in frames[3]:
                                self._outputs.append(frames)
                        elif b'"idle"' in frames[6]:
                            self._is_idle = True
            except zmq.Again:
                pass
        return bool(ready)
