"""The drivers by name as tests open them, and what each promises."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterable

import pytest
from _pytest.mark import ParameterSet

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.base import Driver, Sandbox
from cellgate.sandbox.fake import FakeDriver
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.process import ContainsNothingWarning, ProcessDriver
from tests.support.docker import open_docker

Create = Callable[[], Awaitable[Sandbox]]

DRIVERS = ("fake", "process", "native")
CONTAINERS = ("docker", "docker-runsc")  # by their runtimes; each sandbox costs half a second and more

# What not every driver does, and which do.
PROMISES = {
    "processes": {"process", "native", "docker", "docker-runsc"},  # cells may start children
    "processes of the host": {"process", "native", "docker"},  # and the host sees them
    "counts CPU time": {"process", "native", "docker", "docker-runsc"},
    "kills for memory": {"fake", "native", "docker", "docker-runsc"},
    "limits pids": {"native", "docker"},  # and goes on; gVisor's kernel ends when the host refuses it a thread
}

MiB = 1 << 20
SMALL = Limits(memory_bytes=256 * MiB, pids=64, workspace_bytes=64 * MiB, workspace_inodes=4096, shm_bytes=32 * MiB)


def driver_params(names: Iterable[str]) -> list[ParameterSet]:
    """For a fixture that is each driver in turn."""
    marks = {"native": pytest.mark.native, "docker": pytest.mark.docker}
    kinds = [(name, name.partition("-")[0]) for name in names]
    return [pytest.param(name, marks=[marks[kind]] if kind in marks else []) for name, kind in kinds]


async def open_driver(name: str) -> Driver:
    """Whoever asked owes it a `close`. Skips the test, with the reason, where this host cannot run it."""
    if name == "fake":
        return FakeDriver()
    if name == "process":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ContainsNothingWarning)
            return ProcessDriver()
    try:
        if name.startswith("docker"):
            return await open_docker(runtime=name.partition("-")[2])
        from cellgate.sandbox.native.driver import NativeDriver

        return await NativeDriver.start()
    except DriverUnavailable as error:
        pytest.skip(str(error))
