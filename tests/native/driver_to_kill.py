"""Run by `test_warden_service.py`, to be killed: starts a warden at a path, makes a sandbox, and journals what a cell
says, a line per message: its number, and its text as JSON. Says the sandbox's id."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.connection import KernelConnection, each
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native.driver import NativeDriver
from cellgate.wire.jupyter import execute_content, make_message, parse_message
from cellgate_kernel.message import Channel, Tag


async def main(path: str, journal: str, code: str) -> None:
    driver = await NativeDriver.start(path)
    sandbox = await driver.create(SandboxSpec(limits=Limits(memory_bytes=256 << 20, pids=64), use_pool=False))
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def take(number: int, tag: Tag, v1: memoryview) -> None:
        text = parse_message(v1)["content"]["text"] if tag.message_type == "stream" else ""
        os.write(file, f"{number} {json.dumps(text)}\n".encode())  # whole or not at all; the acknowledgement is later

    connection = await KernelConnection.open(sandbox, on_messages=each(take))
    await connection.send(
        *make_message(
            "execute_request", execute_content(code), channel=Channel.SHELL, msg_id="cell", session="s", date=""
        )
    )
    sys.stdout.write(f"{sandbox.id}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
