"""Run as somebody who is not root, by `test_rootless.py`: says as JSON what a warden that outlives its drivers did."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from typing import Any

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native.driver import NativeDriver

SPEC = SandboxSpec(limits=Limits(memory_bytes=256 << 20, pids=64))


async def main(directory: str) -> dict[str, Any]:
    path = f"{directory}/warden"
    try:
        first = await NativeDriver.start(path)
    except DriverUnavailable as error:
        return {"unavailable": str(error)}
    sandbox = await first.create(SPEC)
    await first.close()
    second = await NativeDriver.connect(path)
    report: dict[str, Any] = {"kept": [known.id for known in await second.sandboxes()] == [sandbox.id]}
    for what, words in (("twice", (path, None)), ("for root", (f"{directory}/other", 0))):
        try:
            await NativeDriver.start(words[0], uid=words[1])
        except DriverUnavailable as error:
            report[what] = error.missing.partition(": ")[2]
    await second.shut_down()
    report["left"] = sorted(name for name in os.listdir(directory) if not name.endswith(".log"))
    return report


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        json.dump(asyncio.run(main(directory)), sys.stdout)
