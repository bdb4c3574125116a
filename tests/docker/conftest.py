"""What only the docker driver promises, tried over a real engine; what every driver owes is in `conformance/`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.docker.driver import DockerDriver
from tests.support.docker import open_docker

OpenDriver = Callable[..., Awaitable[DockerDriver]]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a driver that keeps its sandboxes."""
    return tmp_path / "docker"


@pytest_asyncio.fixture
async def open_driver(directory: Path) -> AsyncIterator[OpenDriver]:
    """Opens drivers, one after the other, on one directory; what they leave is ended."""
    async with AsyncExitStack() as stack:

        async def open_driver(**options: Any) -> DockerDriver:
            try:
                driver = await open_docker(directory=directory, **options)
            except DriverUnavailable as error:
                pytest.skip(str(error))
            stack.push_async_callback(driver.close)
            return driver

        yield open_driver
        await stack.aclose()
        last = await open_driver()
        for sandbox in [*await last.sandboxes(), *await last.ended()]:
            await sandbox.destroy()
