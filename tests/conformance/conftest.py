"""Every driver, for one suite of sentences. What a driver does not promise is a row here, not an `if` in a test."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import AsyncIterator

import pytest

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.base import Driver, Sandbox, SandboxSpec
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.fake import FakeDriver
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.process import ContainsNothingWarning, ProcessDriver

MiB = 1 << 20
LIMITS = Limits(
    memory_bytes=256 * MiB,
    pids=64,
    workspace_bytes=64 * MiB,
    workspace_inodes=4096,
    shm_bytes=32 * MiB,
)

# What not every driver does, and which do.
PROMISES = {
    "processes": {"process", "native"},  # cells may start children, and the host sees them
    "counts CPU time": {"process", "native"},
    "kills for memory": {"fake", "native"},
    "limits pids": {"native"},
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(what): only for the drivers that promise it, see PROMISES")


@pytest.fixture(params=["fake", "process", pytest.param("native", marks=pytest.mark.native)])
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    """A driver that is closed afterwards. A test marked `promise("...")` skips those that do not make it."""
    for mark in request.node.iter_markers("promise"):
        if request.param not in PROMISES[mark.args[0]]:
            pytest.skip(f"the {request.param} driver does not promise this: {mark.args[0]}")
    driver = await open_driver(request.param)
    try:
        yield driver
    finally:
        await driver.close()


async def open_driver(name: str) -> Driver:
    if name == "fake":
        return FakeDriver()
    if name == "process":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ContainsNothingWarning)
            return ProcessDriver()
    if importlib.util.find_spec("cellgate.sandbox.native.driver") is None:
        pytest.skip("the native driver is not written yet")
    from cellgate.sandbox.native.driver import NativeDriver

    try:
        return await NativeDriver.start()
    except DriverUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def spec() -> SandboxSpec:
    return SandboxSpec(limits=LIMITS)


@pytest.fixture
async def sandbox(driver: Driver, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
    sandbox = await driver.create(spec)
    try:
        yield sandbox
    finally:
        await sandbox.destroy()


@pytest.fixture
async def kernel(sandbox: Sandbox) -> AsyncIterator[KernelClient]:
    async with KernelClient(sandbox) as kernel:
        yield kernel
