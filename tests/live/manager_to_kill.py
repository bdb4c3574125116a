"""Run by `test_manager.py`, to be killed: serves one session from a state directory, over the warden at a path, to a
client that writes down what it sees, a line per message: its id, its type, and its text as JSON. Says the session's id
when its cell has begun."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from cellgate.live.wish import Wish
from cellgate.sandbox.native.driver import NativeDriver
from tests.support.live import OWNER, Client, open_manager


async def main(path: str, directory: str, notes: str, code: str) -> None:
    manager = await open_manager(Path(directory), lambda: NativeDriver.start(path))
    live = await manager.create(OWNER, Wish())
    client = Client(live, b"a")
    cell = client.ask(code)
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sys.stdout.write(f"{live.id} {cell}\n")
    sys.stdout.flush()
    while True:
        await client.until(lambda: client.messages)
        message = client.messages.pop(0)
        said = [message["header"]["msg_id"], message["msg_type"], message["content"].get("text", "")]
        os.write(file, f"{json.dumps(said)}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
