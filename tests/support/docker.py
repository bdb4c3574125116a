"""Sandboxes of a Docker engine, for tests: of images that hold the kernel host as it is in this checkout."""

from __future__ import annotations

import asyncio
import fcntl
import tempfile
from pathlib import Path
from typing import Any

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.docker.driver import DockerDriver

__all__ = ["open_docker"]

_made: set[str] = set()


async def open_docker(*, template: str = "python", **options: Any) -> DockerDriver:
    """Whoever asked owes it a `close`. Raises DriverUnavailable."""
    if template not in _made:
        await asyncio.get_running_loop().run_in_executor(None, make_image, template)
        _made.add(template)
    return await DockerDriver.start(**options)


def make_image(template: str) -> None:
    """Unless it is there already. One worker makes it, and the others wait. Raises DriverUnavailable."""
    from cellgate.sandbox.docker.build import BuildFailed, build, recipe_of
    from cellgate.sandbox.docker.engine import Engine, EngineFailed

    with Path(tempfile.gettempdir(), "building-cellgate-images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            engine = Engine.open()
            try:
                build(engine, recipe_of(template), print)
            finally:
                engine.close()
        except (EngineFailed, BuildFailed) as error:
            raise DriverUnavailable("docker", str(error), "tests/README.md says how to start an engine") from error
