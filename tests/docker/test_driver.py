"""What only the docker driver promises: it keeps its sandboxes, or clears them away whatever became of it; it has some
ready; and it outlives its engine's absence."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest

from cellgate.errors import DriverUnavailable, SandboxStartFailed
from cellgate.sandbox.base import Sandbox, SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.docker.driver import DockerDriver, _Pool
from cellgate.sandbox.docker.engine import Engine, Facts
from cellgate.sandbox.docker.sandbox import DockerSandbox
from cellgate_kernel.link import Link
from tests.docker.conftest import OpenDriver
from tests.support.drivers import SMALL
from tests.support.server import until

pytestmark = [pytest.mark.docker, pytest.mark.asyncio]

BOUND = 30.0
SPEC = SandboxSpec(limits=SMALL, use_pool=False)
POOLED = SandboxSpec(limits=SMALL)


def state_of(sandbox: Sandbox) -> str:
    """As the engine has it; "" for a container that is not there."""
    return engine_says(f"cellgate-{sandbox.id}")


def engine_says(name: str) -> str:
    engine = Engine.open()
    try:
        state = engine.state(name)
    finally:
        engine.close()
    return "" if state is None else "running" if state.is_running else "exited"


# -- from one driver to the next -------------------------------------------------------------------------


async def test_a_kept_sandbox_outlives_its_driver_and_the_next_one_goes_on_with_it(open_driver: OpenDriver):
    first = await open_driver()
    sandbox = await first.create(SPEC)
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("x = 41; x", timeout=BOUND)).value == "41"
        numbers = kernel.link.sent, kernel.link.received
    await first.close()
    with pytest.raises(DriverUnavailable):
        await sandbox.wait()
    second = await open_driver()
    (found,) = await second.sandboxes()
    assert (found.id, found.template, found.limits) == (sandbox.id, sandbox.template, sandbox.limits)
    async with KernelClient(found, link=Link(sent=numbers[0], received=numbers[1])) as kernel:
        assert (await kernel.execute("x + 1", timeout=BOUND)).value == "42"
    assert (await found.destroy()).reason is Reason.SESSION_DELETED
    assert state_of(found) == ""


async def test_how_a_sandbox_ended_is_known_to_the_driver_after(open_driver: OpenDriver):
    first = await open_driver()
    killed, left = await asyncio.gather(first.create(SPEC), first.create(SPEC))
    await killed.kill(Reason.TIMEOUT_WALL, "because")
    await killed.wait()
    async with KernelClient(left) as kernel:
        await kernel.execute("import os, threading, time", timeout=BOUND)
        await kernel.execute("threading.Timer(0.5, os._exit, [7]).start()", timeout=BOUND)
        await first.close()  # before it happens, or after
    await until(lambda: state_of(left) == "exited")
    second = await open_driver()
    assert await second.sandboxes() == []
    ended = {sandbox.id: await sandbox.wait() for sandbox in await second.ended()}
    assert (ended[killed.id].reason, ended[killed.id].detail) == (Reason.TIMEOUT_WALL, "because")
    assert (ended[left.id].reason, ended[left.id].exit_code) == (Reason.KERNEL_EXIT, 7)
    await asyncio.gather(*(sandbox.destroy() for sandbox in await second.ended()))
    assert await second.ended() == []


async def test_one_directory_is_one_drivers_at_a_time(open_driver: OpenDriver, directory: Path):
    await open_driver()
    with pytest.raises(DriverUnavailable, match="another driver's"):
        await DockerDriver.start(directory=directory)


async def test_what_a_killed_program_left_is_cleared_away_by_whoever_comes_next(open_driver: OpenDriver):
    await open_driver()  # there is an engine
    script = Path(__file__).with_name("driver_to_kill.py")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        name = program.stdout.readline().strip()
        assert engine_says(name) == "running"
        other = await DockerDriver.start()  # beside it: it lives, and so does what is its own
        await other.close()
        assert engine_says(name) == "running"
        program.kill()
    other = await DockerDriver.start()
    try:
        assert engine_says(name) == ""
        assert await other.sandboxes() == []
    finally:
        await other.close()


# -- the pool --------------------------------------------------------------------------------------------


async def test_ready_sandboxes_are_handed_out_once_and_made_again(open_driver: OpenDriver):
    driver = await open_driver()
    await driver.keep_pool(POOLED, 2)
    pool = driver._pools[POOLED.template, POOLED.limits]
    await until(lambda: len(pool.ready) == 2)
    assert await driver.sandboxes() == []  # they are nobody's
    ready = [sandbox.id for sandbox in pool.ready]
    taken = [await driver.create(POOLED) for _ in range(2)]
    assert [sandbox.id for sandbox in taken] == ready
    async with KernelClient(taken[0]) as kernel:
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
    await until(lambda: len(pool.ready) == 2)
    assert not {sandbox.id for sandbox in pool.ready} & set(ready)
    await asyncio.gather(*(sandbox.destroy() for sandbox in taken))


async def test_a_ready_sandbox_that_ended_is_replaced_and_an_empty_pool_is_no_error(open_driver: OpenDriver):
    driver = await open_driver()
    await driver.keep_pool(POOLED, 1)
    pool = driver._pools[POOLED.template, POOLED.limits]
    await until(lambda: pool.ready)
    lost = pool.ready[0]
    await asyncio.get_running_loop().run_in_executor(None, lost._owner.engine.signal, lost.container, "SIGKILL")
    await until(lambda: pool.ready and pool.ready[0] is not lost)
    await driver.keep_pool(POOLED, 0)
    assert pool.ready == []
    sandbox = await driver.create(POOLED)
    await sandbox.destroy()


async def test_a_ready_sandbox_that_does_not_stand_is_removed_and_the_next_one_handed_out(tmp_path: Path):
    """It left its pool and was kept for good, by a driver that nobody could ask for it. No engine is asked here."""
    facts = Facts("", ("runc",), "runc", maps_uids=False, memory_bytes=1 << 40, cpus=1024)
    driver = DockerDriver(Mock(), facts, tmp_path, runtime="", is_kept=True)
    driver._images = {POOLED.template: Mock()}
    fallen, standing = (Mock(is_ready=is_ready, destroy=AsyncMock()) for is_ready in (False, True))
    driver._pools[POOLED.template, POOLED.limits] = _Pool(POOLED, 0, [fallen, standing])
    assert await driver.create(POOLED) is standing
    await until(lambda: fallen.destroy.await_count == 1)
    assert not standing.destroy.called


async def test_what_was_ready_is_not_the_next_drivers(open_driver: OpenDriver):
    first = await open_driver()
    await first.keep_pool(POOLED, 1)
    pool = first._pools[POOLED.template, POOLED.limits]
    await until(lambda: pool.ready)
    ready = pool.ready[0]
    await first.close()
    assert state_of(ready) == ""
    second = await open_driver()
    assert await second.sandboxes() == []


# -- the link --------------------------------------------------------------------------------------------


async def test_the_directory_of_its_socket_is_closed_to_the_guest(open_driver: OpenDriver):
    driver = await open_driver()
    sandbox = await driver.create(SPEC)
    async with KernelClient(sandbox) as kernel:
        for attempt in (
            "open('/run/cellgate/x', 'w')",
            "import os; os.unlink('/run/cellgate/link')",
            "import os; os.symlink('/etc', '/run/cellgate/x')",
            "import os; os.chmod('/run/cellgate', 0o777)",
            "import os; os.listdir('/run/cellgate')",
        ):
            result = await kernel.execute(attempt, timeout=BOUND)
            assert result.reply["ename"] == "PermissionError", attempt
    await sandbox.destroy()


# -- an engine that is not there -------------------------------------------------------------------------


@asynccontextmanager
async def way_to_the_engine(path: Path) -> AsyncIterator[None]:
    """A socket that leads to the engine's, while this lasts."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    lines: set[asyncio.Task[None]] = set()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection("/var/run/docker.sock")
        task = asyncio.current_task()
        assert task is not None
        lines.add(task)
        try:
            await asyncio.gather(carry(reader, back), carry(there, writer))
        except asyncio.CancelledError:
            writer.transport.abort()
            back.transport.abort()
        finally:
            lines.discard(task)

    server = await asyncio.start_unix_server(lead, str(path))
    try:
        yield
    finally:
        server.close()
        for line in list(lines):
            line.cancel()
        path.unlink(missing_ok=True)


async def test_without_an_engine_there_is_no_driver(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(DriverUnavailable, match="does not answer"):
        await DockerDriver.start()


async def test_while_the_engine_is_away_sandboxes_run_on_and_what_happened_is_learned_later(
    open_driver: OpenDriver, monkeypatch, tmp_path: Path
):
    await (await open_driver()).close()  # there is an engine, and an image
    way = tmp_path / "way.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{way}")
    async with way_to_the_engine(way):
        driver = await open_driver()
        running, ending = await asyncio.gather(driver.create(SPEC), driver.create(SPEC))
    async with KernelClient(running) as kernel:
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"  # its link is no business of the engine's
        with pytest.raises(SandboxStartFailed, match="does not answer"):
            await driver.create(SPEC)
        with pytest.raises(DriverUnavailable):
            await ending.kill(Reason.SESSION_EXPIRED)
        async with KernelClient(ending) as last:
            await last.execute("import os, threading; threading.Timer(0.2, os._exit, [5]).start()", timeout=BOUND)
            async with way_to_the_engine(way):
                end = await asyncio.wait_for(ending.wait(), BOUND)
                assert (end.reason, end.exit_code) == (Reason.SESSION_EXPIRED, 5)
                await asyncio.gather(running.destroy(), ending.destroy())
                await driver.close()


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
async def test_a_container_that_somebody_else_has_the_engine_end_is_no_fault_of_its_session(open_driver, signal):
    """As `docker stop` and `docker kill` do, and an engine that stops."""
    driver = await open_driver()
    sandbox = await driver.create(SPEC)
    await driver.engine.do(driver.engine.signal, sandbox.container, signal)
    certificate = await asyncio.wait_for(sandbox.wait(), BOUND)
    assert (certificate.reason, certificate.detail) == (
        Reason.BACKEND_ERROR,
        "the Docker engine stopped, or was told to end it",
    )
    await sandbox.destroy()


async def test_what_could_not_be_removed_is_removed_when_the_engine_is_back(
    open_driver: OpenDriver, monkeypatch, tmp_path: Path
):
    await (await open_driver()).close()
    way = tmp_path / "way.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{way}")
    async with way_to_the_engine(way):
        driver = await open_driver()
        sandbox = await driver.create(SPEC)
    assert (await sandbox.destroy()).reason is Reason.SESSION_DELETED
    monkeypatch.delenv("DOCKER_HOST")
    assert state_of(sandbox) == "running"
    async with way_to_the_engine(way):
        await driver._tidy()
        await driver.close()
    assert state_of(sandbox) == ""


# -- what it refuses -------------------------------------------------------------------------------------


async def test_a_runtime_that_the_engine_does_not_know_is_refused_and_the_known_are_named(open_driver: OpenDriver):
    await open_driver()
    with pytest.raises(DriverUnavailable, match=r"no runtime 'kato', only .*runc"):
        await DockerDriver.start(runtime="kato")


async def test_only_the_images_that_are_allowed_are_templates(open_driver: OpenDriver, tmp_path: Path):
    driver = await open_driver()
    image = driver._images["python"].image
    only = await DockerDriver.start(images=[f"python@{image}"])
    assert only.templates == ("python",)
    await only.close()
    with pytest.raises(DriverUnavailable, match="is sha256:"):
        await DockerDriver.start(images=[f"python@sha256:{'0' * 64}"])
    with pytest.raises(DriverUnavailable, match="cellgate images build"):
        await DockerDriver.start(images=["no-such"])


async def test_a_container_that_cannot_start_leaves_nothing(open_driver: OpenDriver, directory: Path, monkeypatch):
    driver = await open_driver()
    monkeypatch.setattr(driver, "runtime", "no-such-runtime")
    with pytest.raises(SandboxStartFailed):
        await driver.create(SPEC)
    assert await driver.sandboxes() == []
    assert os.listdir(directory) == ["lock"]
    assert isinstance(driver, DockerDriver) and DockerSandbox.driver == driver.name


# -- what is measured ------------------------------------------------------------------------------------


async def test_without_a_sight_of_its_control_group_the_engine_tells_what_it_uses(open_driver: OpenDriver, monkeypatch):
    """As for a gateway that is in a container itself."""
    driver = await open_driver()
    sandbox = await driver.create(SPEC)
    assert isinstance(sandbox, DockerSandbox)
    seen = await sandbox.usage()
    monkeypatch.setattr(sandbox._meter, "pid", 0)
    told = await sandbox.usage()
    assert seen.memory_bytes is not None and told.memory_bytes is not None
    assert abs(told.memory_bytes - seen.memory_bytes) < 8 << 20
    assert told.cpu_seconds >= seen.cpu_seconds > 0
    assert told.pids == seen.pids
    await sandbox.destroy()
    assert (await sandbox.usage()).cpu_seconds == told.cpu_seconds
