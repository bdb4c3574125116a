"""The session core with real kernels and a real journal: what it believes of both is so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cellgate.sandbox.base import Driver, Sandbox, SandboxSpec
from cellgate.sandbox.connection import KernelConnection, each
from cellgate.sessions.effects import Append, Close, Destroy, Effect, Interrupt, Kill, Save, Send, StartKernel
from cellgate.sessions.journal import Cursor, Journal
from cellgate.sessions.records import Kind
from cellgate.sessions.session import Session
from cellgate.sessions.states import State
from cellgate.wire.jupyter import Composer
from cellgate_kernel.link import Link
from cellgate_kernel.message import Tag
from tests.support.drivers import open_driver
from tests.support.stage import DATE, LIMITS, Stage, cell, client_message, with_limits

pytestmark = pytest.mark.parametrize("driver_name", ["fake", "process"])
LONG = 30.0  # seconds that nothing here comes near


class Edge:
    """The least that can drive a session: carries out its effects, one after another."""

    lives = itertools.count(1)

    def __init__(self, driver: Driver, directory: Path, limits=LIMITS) -> None:
        self.driver = driver
        self.loop = asyncio.get_running_loop()
        self.journal = Journal.open(directory, limit_bytes=16 << 20)
        composer = Composer(f"gateway{next(self.lives)}")
        now, seq = self.loop.time(), self.journal.next_seq
        self.session = Session(limits, composer=composer, date=lambda: DATE, next_seq=seq, now=now)
        self.sandboxes: dict[int, Sandbox] = {}
        self.connection: KernelConnection | None = None
        self.saved: Save | None = None
        self.changed = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self._batch: list[tuple[int, Tag, memoryview]] = []

    # -- effects ----------------------------------------------------------------------------------------

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Append):
                self.journal.append(effect.records)
            elif isinstance(effect, Send):
                assert self.connection is not None
                self.connection.post(effect.message.tag, effect.message.parts)
                assert self.connection.link.sent == effect.number
            elif isinstance(effect, StartKernel):
                self.start(self.start_kernel(effect.incarnation))
            elif isinstance(effect, Interrupt):
                self.start(self.interrupt(effect.incarnation))
            elif isinstance(effect, Kill):
                self.start(self.sandboxes[effect.incarnation].kill(effect.reason, effect.detail))
            elif isinstance(effect, Destroy):
                if sandbox := self.sandboxes.get(effect.incarnation):
                    self.start(self.destroy(sandbox))
            elif isinstance(effect, Save):
                self.saved = effect
            else:
                assert isinstance(effect, Close)
        self.changed.set()

    def start(self, work) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def start_kernel(self, incarnation: int) -> None:
        sandbox = self.sandboxes[incarnation] = await self.driver.create(SandboxSpec())
        await self.attach(incarnation, sandbox, Link())
        self.do(self.session.kernel_started(incarnation, sandbox.id, self.loop.time()))

    async def attach(self, incarnation: int, sandbox: Sandbox, link: Link) -> None:
        def take(number: int, tag: Tag, v1: memoryview) -> None:
            if not self._batch:
                self.loop.call_soon(self.hear, incarnation)
            self._batch.append((number, tag, v1))

        self.connection = await KernelConnection.open(sandbox, on_messages=each(take), link=link, auto_ack=False)
        self.start(self.tell_the_end(incarnation, sandbox, self.connection))

    def hear(self, incarnation: int) -> None:
        batch, self._batch = self._batch, []
        self.do(self.session.kernel_messages(incarnation, batch, self.loop.time()))
        if self.connection is not None and not self.connection.closed.done():
            self.connection.acknowledge()

    async def tell_the_end(self, incarnation: int, sandbox: Sandbox, connection: KernelConnection) -> None:
        certificate = await sandbox.wait()
        await connection.closed
        await asyncio.sleep(0)  # what was read last
        self.do(self.session.kernel_died(incarnation, certificate, self.loop.time()))

    async def interrupt(self, incarnation: int) -> None:
        await self.sandboxes[incarnation].interrupt()
        self.do(self.session.interrupt_sent(incarnation, self.loop.time()))

    async def destroy(self, sandbox: Sandbox) -> None:
        await sandbox.destroy()

    # -- a test's side ----------------------------------------------------------------------------------

    def ask(self, *messages) -> None:
        for message in messages:
            self.do(self.session.request(b"a", message, self.loop.time()))

    def stage(self) -> Stage:
        """All that was said, read from the journal."""
        stage, cursor = Stage(), Cursor(self.journal, self.journal.first_seq)
        while not cursor.is_at_end:
            stage.do([Append(cursor.read(1 << 20).records)])
        return stage

    async def until(self, what) -> Stage:
        """What was said, once `what(stage)` is true."""

        async def wait() -> Stage:
            while not what(stage := self.stage()):
                self.changed.clear()
                await self.changed.wait()
            return stage

        return await asyncio.wait_for(wait(), LONG)

    async def until_ended(self, *ids: str) -> Stage:
        stage = await self.until(lambda stage: set(ids) <= set(stage.ends()))
        stage.check_contract(is_over=True)
        return stage

    async def vanish(self) -> None:
        """As a gateway that is killed."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.connection is not None:
            self.connection.close()
        self.journal.close()


@asynccontextmanager
async def edge_of(driver_name: str, directory: Path, limits=LIMITS) -> AsyncIterator[Edge]:
    driver = await open_driver(driver_name)
    edge = Edge(driver, directory / "journal", limits)
    try:
        edge.do(edge.session.begin())
        yield edge
    finally:
        await edge.vanish()
        for sandbox in await driver.sandboxes():
            await sandbox.destroy()
        await driver.close()


async def test_cells_run_one_after_another_and_errors_stop_the_rest(driver_name, tmp_path):
    async with edge_of(driver_name, tmp_path) as edge:
        edge.ask(client_message("kernel_info_request", {}, "k"), cell("c1", "x = 1"), cell("c2", "print(x)"))
        edge.ask(cell("c3", "1/0"), cell("c4", "print(2)"))
        stage = await edge.until_ended("c1", "c2", "c3", "c4")
        assert stage.ends() == {"c1": "ok", "c2": "ok", "c3": "error", "c4": "cancelled"}
        assert stage.told("c1") == ["busy", "execute_input", "reply:ok", "idle"]
        assert stage.told("c2") == ["busy", "execute_input", "stream", "reply:ok", "idle"]
        assert stage.told("k") == ["busy", "reply:ok", "idle"]
        assert edge.session.ignored == {}, "an honest kernel says nothing in vain"


async def test_a_cell_is_interrupted_and_the_next_is_not(driver_name, tmp_path):
    async with edge_of(driver_name, tmp_path) as edge:
        edge.ask(cell("c1", "print('on')\nwhile True: pass", stop_on_error=False), cell("c2", "1"))
        await edge.until(lambda stage: "stream" in stage.told("c1"))
        edge.do(edge.session.interrupt(edge.loop.time()))
        assert (await edge.until_ended("c1", "c2")).ends() == {"c1": "interrupted", "c2": "ok"}


async def test_a_kernel_that_exits_ends_its_cell_and_another_takes_over(driver_name, tmp_path):
    async with edge_of(driver_name, tmp_path) as edge:
        edge.ask(cell("c1", "import os; os._exit(3)"), cell("c2", "1"))
        stage = await edge.until_ended("c1", "c2")
        assert stage.ends() == {"c1": "kernel_exit", "c2": "cancelled"}
        edge.ask(cell("c3", "print('again')"))
        assert (await edge.until_ended("c3")).ends()["c3"] == "ok"
        assert edge.session.incarnation == 2


async def test_a_deaf_cell_is_killed_for_its_time(driver_name, tmp_path):
    limits = with_limits(cell_seconds=0.5, interrupt_grace_seconds=0.5)
    deaf = "while True:\n  try:\n    while True: pass\n  except KeyboardInterrupt: pass"
    async with edge_of(driver_name, tmp_path, limits) as edge:
        edge.ask(cell("c1", deaf))

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.05)
                edge.do(edge.session.tick(edge.loop.time()))

        edge.start(tick())
        assert (await edge.until_ended("c1")).ends() == {"c1": "timeout_wall"}


async def test_a_new_gateway_goes_on_where_the_old_one_was_killed(driver_name, tmp_path):
    """In the middle of a cell, with another waiting: no line is lost or doubled, and each cell ends once."""
    async with edge_of(driver_name, tmp_path) as edge:
        lines = "import time\nfor n in range(50):\n  print(n, flush=True)\n  time.sleep(0.01)"
        edge.ask(cell("c1", lines), cell("c2", "print('then')"))
        await edge.until(lambda stage: stage.told("c1").count("stream") > 5)
        await edge.vanish()

        heir = Edge(edge.driver, tmp_path / "journal")
        assert edge.saved is not None
        (sandbox,) = await heir.driver.sandboxes()
        found = heir.journal.recovery
        state, number = edge.saved.state, edge.saved.incarnation
        read = heir.journal.read
        assert heir.session.recover(found, state=state, incarnation=number, sandbox_id=sandbox.id, read=read) == []
        heir.sandboxes[number] = sandbox
        await heir.attach(number, sandbox, Link(sent=None, received=heir.session.received))
        assert heir.connection is not None
        while not heir.connection.link.is_open:
            await asyncio.sleep(0.01)
        heir.do(heir.session.adopted(heir.connection.link.sent, heir.loop.time()))
        try:
            stage = await heir.until_ended("c1", "c2")
            text = "".join(m["content"]["text"] for m in stage.shown("c1") if m["msg_type"] == "stream")
            assert text.split() == [str(n) for n in range(50)]
            assert stage.ends() == {"c1": "ok", "c2": "ok"}
            assert heir.session.ignored == {}
        finally:
            await heir.vanish()


async def test_a_deletion_leaves_nothing(driver_name, tmp_path):
    async with edge_of(driver_name, tmp_path) as edge:
        edge.ask(cell("c1", "import time; print(1); time.sleep(60)"))
        await edge.until(lambda stage: "stream" in stage.told("c1"))
        edge.do(edge.session.delete(edge.loop.time()))
        stage = await edge.until_ended("c1")
        assert stage.ends() == {"c1": "session_deleted"}
        assert edge.session.state is State.GONE
        by = edge.loop.time() + LONG
        while await edge.driver.sandboxes():
            assert edge.loop.time() < by
            await asyncio.sleep(0.01)
        assert [r.kind for r in stage.records].count(Kind.TERMINAL) == 1
