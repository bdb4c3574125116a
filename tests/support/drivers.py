"""The drivers by name as tests open them, and what each promises."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable

import pytest

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.base import Driver, Sandbox
from cellgate.sandbox.fake import FakeDriver
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.process import ContainsNothingWarning, ProcessDriver

Create = Callable[[], Awaitable[Sandbox]]

DRIVERS = ("fake", "process", "native")

# What not every driver does, and which do.
PROMISES = {
    "processes": {"process", "native"},  # cells may start children, and the host sees them
    "counts CPU time": {"process", "native"},
    "kills for memory": {"fake", "native"},
    "limits pids": {"native"},
}

MiB = 1 << 20
SMALL = Limits(memory_bytes=256 * MiB, pids=64, workspace_bytes=64 * MiB, workspace_inodes=4096, shm_bytes=32 * MiB)


async def open_driver(name: str) -> Driver:
    """Whoever asked owes it a `close`. Skips the test, with the reason, where this host cannot run it."""
    if name == "fake":
        return FakeDriver()
    if name == "process":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ContainsNothingWarning)
            return ProcessDriver()
    from cellgate.sandbox.native.driver import NativeDriver

    try:
        return await NativeDriver.start()
    except DriverUnavailable as error:
        pytest.skip(str(error))
