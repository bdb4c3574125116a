"""What only the docker driver promises, tried over a real engine; what every driver owes is in `conformance/`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.docker.driver import DockerDriver
from tests.support.docker import open_docker

OpenDriver = Callable[..., Awaitable[DockerDriver]]


@contextmanager
def directory_in_memory(prefix: str) -> Iterator[Path]:
    """For an image's files, which are many: written and removed at once. Skips the test where this is not root. Its
    path is short, as a socket's must be."""
    if os.geteuid():
        pytest.skip("only root can mount what these files lie in")
    with tempfile.TemporaryDirectory(prefix=prefix) as directory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g,mode=0755", "cellgate", directory], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", "--recursive", "--lazy", directory], check=True)


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
