"""An engine that stops and starts again: its own, so that no other test loses one.

It holds one image, copied from the host's engine, and is stopped as an operator stops it, or killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from cellgate.errors import SandboxStartFailed
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.docker.driver import DockerDriver
from cellgate.sandbox.docker.engine import Engine, EngineFailed
from tests.docker.conftest import OpenDriver, directory_in_memory
from tests.support.drivers import SMALL

pytestmark = [pytest.mark.docker, pytest.mark.asyncio]

BOUND = 60.0
THE_ENGINE = "the Docker engine stopped, or was told to end it"
SPEC = SandboxSpec(limits=SMALL, use_pool=False)


class OwnEngine:
    """A second engine on this host, with a socket and a directory of its own. Without a network, as the first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.keeps_containers = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = self.directory / "daemon.json"
        config.write_text(json.dumps({"live-restore": self.keeps_containers}))
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("dockerd", "--host", f"unix://{self.socket}", "--config-file", str(config)),
                    *("--data-root", f"{self.directory}/data", "--exec-root", f"{self.directory}/run"),
                    *("--pidfile", f"{self.directory}/pid", "--bridge=none", "--iptables=false", "--ip6tables=false"),
                ],
                stdout=log,
                stderr=log,
            )

    def end(self, number: signal.Signals) -> None:
        """By this signal; returns when it has ended."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(BOUND)
            self._process = None
        if number == signal.SIGKILL:  # its containerd has ended with it, and may wait for ever to be reaped
            (self.directory / "run/containerd/containerd.pid").unlink(missing_ok=True)

    def answers(self) -> bool:
        try:
            Engine.open().close()
        except EngineFailed:
            return False
        return True


async def until(holds: Callable[[], object]) -> None:
    async def look() -> None:
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)

    await asyncio.wait_for(look(), BOUND)


@pytest.fixture(scope="module")
def directory_of_engine() -> Iterator[Path]:
    """With the image in it, once it was copied."""
    with directory_in_memory("cellgate-engine-") as directory:
        yield directory


@pytest.fixture
async def engine(directory_of_engine: Path, open_driver: OpenDriver, monkeypatch) -> AsyncIterator[OwnEngine]:
    """It runs, has an image, and is the one that is asked from now on."""
    await (await open_driver()).close()  # the host has one too, and the image
    engine = OwnEngine(directory_of_engine)
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{engine.socket}")
        engine.start()
        try:
            await until(engine.answers)
            await copy_image(engine)
            yield engine
        finally:
            engine.end(signal.SIGTERM)


async def copy_image(engine: OwnEngine) -> None:
    """From the host's engine, unless it is there."""
    script = (
        'docker --host "$1" image inspect cellgate/python:latest || '
        'docker --host unix:///var/run/docker.sock save cellgate/python:latest | docker --host "$1" load'
    )
    words = ("bash", "-o", "pipefail", "-c", script, "copy", f"unix://{engine.socket}")
    copying = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    assert await asyncio.wait_for(copying.wait(), 5 * BOUND) == 0


@pytest.fixture
async def driver(engine: OwnEngine, tmp_path: Path) -> AsyncIterator[DockerDriver]:
    driver = await DockerDriver.start(directory=tmp_path / "own")
    yield driver
    for sandbox in [*await driver.sandboxes(), *await driver.ended()]:
        await sandbox.destroy()
    await driver.close()


async def again(driver: DockerDriver, engine: OwnEngine) -> None:
    """The engine comes back, and the driver makes sandboxes as before."""
    engine.start()
    await until(engine.answers)
    sandbox = await driver.create(SPEC)
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
    assert (await sandbox.destroy()).reason is Reason.SESSION_DELETED


async def test_an_engine_that_stops_ends_its_sessions_and_that_is_told_as_ours(driver, engine):
    sandbox = await driver.create(SPEC)
    await asyncio.to_thread(engine.end, signal.SIGTERM)
    with pytest.raises(SandboxStartFailed, match="does not answer"):
        await driver.create(SPEC)
    engine_is_back = asyncio.create_task(again(driver, engine))
    certificate = await asyncio.wait_for(sandbox.wait(), BOUND)
    assert (certificate.reason, certificate.detail) == (Reason.BACKEND_ERROR, THE_ENGINE)
    await engine_is_back


async def test_sessions_outlive_an_engine_that_is_killed_until_the_next_one_ends_them(driver, engine):
    sandbox = await driver.create(SPEC)
    await asyncio.to_thread(engine.end, signal.SIGKILL)
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
        await again(driver, engine)
        certificate = await asyncio.wait_for(sandbox.wait(), BOUND)
    assert (certificate.reason, certificate.detail) == (Reason.BACKEND_ERROR, THE_ENGINE)


async def test_an_engine_that_keeps_containers_keeps_sessions_while_it_is_away_and_after(driver, engine):
    engine.end(signal.SIGTERM)
    engine.keeps_containers = True
    engine.start()
    await until(engine.answers)
    sandbox = await driver.create(SPEC)
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("x = 41; x", timeout=BOUND)).value == "41"
        await asyncio.to_thread(engine.end, signal.SIGTERM)
        assert (await kernel.execute("x + 1", timeout=BOUND)).value == "42"
        await again(driver, engine)
        assert (await kernel.execute("x + 2", timeout=BOUND)).value == "43"
        assert [one.id for one in await driver.sandboxes()] == [sandbox.id]
    assert (await sandbox.destroy()).reason is Reason.SESSION_DELETED
