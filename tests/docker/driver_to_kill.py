"""A program with a driver and a sandbox, which says its container's name and waits to be killed."""

import asyncio
import os

from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.docker.driver import DockerDriver


async def main() -> None:
    driver = await DockerDriver.start()
    sandbox = await driver.create(SandboxSpec())
    os.write(1, f"cellgate-{sandbox.id}\n".encode())
    await asyncio.sleep(600)


asyncio.run(main())
