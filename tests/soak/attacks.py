"""What a soak does to a server: each a session of its own, made, used or misused, and deleted, by name in `ACTS`.

An attack is told by the ways its cell may end; any other end is a fault. Who sends what it has no answer to, and how
that is survived, is tested in `tests/hostile`; here it only happens again and again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cellgate.wire.jupyter import execute_content, make_message
from cellgate_kernel.message import CHANNELS, Channel, join_v1
from tests.hostile.house import V1
from tests.support.server import BOUND, Reply, Server

__all__ = ["ACTS", "CELLS", "Act"]

Act = Callable[[Server], Awaitable[str]]  # how it ended, in a word; AssertionError when it should not have

WHILE = 60  # seconds, for what ends by itself, also on a machine that does much else
COMINGS = 20  # so that there are many, beside attacks that take their time
DEAF_CELLS = 12  # of a megabyte each, which is more than kernels keep for a socket

# Cells: the code, seconds that it may take, and how it may end. After each the session is deleted as it is.
CELLS: dict[str, tuple[str, float, set[str]]] = {
    "loop": ("while True: pass", 0.5, {"timeout_wall"}),
    "stubborn loop": (
        "def spin():\n  while True: pass\ndef f():\n  try: spin()\n  except KeyboardInterrupt: f()\nf()",
        0.5,
        {"timeout_wall"},
    ),
    "memory bomb": ("rows = []\nwhile True: rows.append(b'x' * (1 << 20))", WHILE, {"oom", "error", "timeout_wall"}),
    "fork bomb": (
        "import os\n[fork] = [call for name, call in vars(os).items() if name == 'fork']\nwhile True: fork()",
        2,
        {"timeout_wall", "error", "kernel_unresponsive", "kernel_exit", "kernel_signal"},
    ),
    "fork bomb of a shell": (
        "import subprocess\nsubprocess.Popen(['bash', '-c', 'g=f; f(){ $g|$g& $g|$g& }; $g'])",
        2,
        {"ok", "error", "timeout_wall"},
    ),
    "orphans": (
        "import subprocess\nfor _ in range(8): subprocess.Popen(['setsid', 'sleep', '600'])",
        WHILE,
        {"ok"},
    ),
    "flood": ("while True: print('x' * 1000, flush=True)", 1, {"timeout_wall"}),
    "full disk": (
        "with open('fill', 'wb') as file:\n  while True: file.write(bytes(1 << 20))",
        WHILE,
        {"error", "oom"},
    ),
    "many files": (
        "import os\nn = 0\nwhile True:\n  open(str(n), 'w').close()\n  n += 1",
        WHILE,
        {"error", "timeout_wall"},
    ),
    "many descriptors": ("keep = []\nwhile True: keep.append(open('/dev/null'))", WHILE, {"error"}),
    "shared memory": (
        "from multiprocessing.shared_memory import SharedMemory\n"
        "kept = [SharedMemory(create=True, size=1 << 20) for _ in range(8)]\n"
        "for memory in kept: memory.buf[:] = bytes(1 << 20)",
        WHILE,
        {"ok", "error"},
    ),
    "exit": ("import os; os._exit(3)", WHILE, {"kernel_exit"}),
    "suicide": ("import os; os.kill(os.getpid(), 9)", WHILE, {"kernel_signal"}),
    "denied": ("import os\nwhile True: os.fork()", WHILE, {"policy_denied"}),
}


async def use(server: Server) -> str:
    """As somebody who means well: cells, a variable that lasts, a file there and back."""
    async with session(server) as session_id:
        for number in range(5):
            result = await run(server, session_id, f"x = {number} if {number} == 0 else x + 1\nprint('line')\nx")
            assert (result["reason"], result["result"]["text/plain"]) == ("ok", str(number)), result
        path = f"/v1/sessions/{session_id}/files/data.txt"
        answered(await server.fetch("PUT", path, ["of", "mine"]), 200)
        assert answered(await server.fetch("GET", path), 200).json() == ["of", "mine"]
    return "ok"


async def come_and_go(server: Server) -> str:
    for _ in range(COMINGS):
        async with session(server) as session_id:
            assert (await run(server, session_id, "1 + 1"))["reason"] == "ok"
    return "ok"


async def run_once(server: Server) -> str:
    reply = await server.fetch(
        "POST", "/v1/run", {"code": "def calculate(inputs): return sum(inputs)", "inputs": [1, 2]}
    )
    assert answered(reply, 200).json()["value"] == 3
    return "ok"


async def restart(server: Server) -> str:
    async with session(server) as session_id:
        await run(server, session_id, "x = 1")
        answered(await server.fetch("POST", f"/v1/sessions/{session_id}/restart"), 200)
        assert (await run(server, session_id, "'x' in globals()"))["result"]["text/plain"] == "False"
    return "ok"


async def attack(name: str, server: Server) -> str:
    code, seconds, ends = CELLS[name]
    async with session(server) as session_id:
        result = await run(server, session_id, code, timeout=seconds)
        assert result["reason"] in ends, f"{name}: {result['reason']} ({result['error']})"
    return str(result["reason"])


async def leave_in_a_cell(server: Server) -> str:
    """Its websocket is reset while its cell prints; then somebody deletes the session under it."""
    async with session(server) as session_id, websocket(server, session_id) as connection:
        await connection.send(request("while True: print('x', flush=True)"))
        await connection.recv()
        connection.transport.abort()
    return "reset"


async def stay_deaf(server: Server) -> str:
    """It has a flood sent to it and reads nothing, until the server closes; then the next deletes the session."""
    deaf = socket.create_connection(("127.0.0.1", server.port))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    async with session(server) as session_id, websocket(server, session_id, sock=deaf) as connection:
        connection.transport.pause_reading()
        for number in range(DEAF_CELLS):
            await connection.send(request("for _ in range(200): print('x' * 5000, flush=True)", f"cell-{number}"))
        path = f"/api/kernels/{session_id}"

        async def is_closed() -> None:
            while answered(await server.fetch("GET", path), 200).json()["connections"]:
                await asyncio.sleep(0.1)

        await asyncio.wait_for(is_closed(), BOUND)
        connection.transport.abort()
    return "closed"


async def send_nonsense(server: Server) -> str:
    async with session(server) as session_id, websocket(server, session_id) as connection:
        await connection.send(b"\1\2\3")
        try:
            while True:
                await asyncio.wait_for(connection.recv(), BOUND)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None and closed.rcvd.code == 1007, closed
    return "closed"


async def knock(server: Server) -> str:
    """Without a token, with half a request, and for what is not there."""
    assert (await server.fetch("GET", "/v1/sessions/nobody")).status == 404
    assert (await server.fetch("POST", "/v1/sessions", {"limits": {"pids": -1}})).status == 422
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\nAuth")
        await writer.drain()
        writer.transport.abort()
    return "refused"


ACTS: dict[str, Act] = {
    "use": use,
    "use again": use,
    "come and go": come_and_go,
    "one-shot": run_once,
    "restart": restart,
    **{name: partial(attack, name) for name in CELLS},
    "reset": leave_in_a_cell,
    "deaf client": stay_deaf,
    "nonsense": send_nonsense,
    "knock": knock,
}


# -- what acts are made of ---------------------------------------------------------------------------------


@asynccontextmanager
async def session(server: Server) -> AsyncIterator[str]:
    session_id = answered(await server.fetch("POST", "/v1/sessions", {}), 201).json()["id"]
    try:
        yield session_id
    finally:
        answered(await server.fetch("DELETE", f"/v1/sessions/{session_id}"), 204)


async def run(server: Server, session_id: str, code: str, **wish: object) -> dict[str, Any]:
    path = f"/v1/sessions/{session_id}/execute"
    result: dict[str, Any] = answered(await server.fetch("POST", path, {"code": code, **wish}), 200).json()
    return result


def answered(reply: Reply, status: int) -> Reply:
    assert reply.status == status, f"{reply.status}: {reply.body[:300]!r}"
    return reply


@asynccontextmanager
async def websocket(server: Server, session_id: str, **options: Any) -> AsyncIterator[ClientConnection]:
    url = server.channels_url(session_id)
    connection = await connect(url, subprotocols=[V1], compression=None, max_size=None, **options)
    try:
        yield connection
    finally:
        connection.transport.abort()


def request(code: str, msg_id: str = "cell") -> bytes:
    content = execute_content(code)
    _, parts = make_message("execute_request", content, channel=Channel.SHELL, msg_id=msg_id, session="s", date="")
    return b"".join(join_v1(CHANNELS[Channel.SHELL], parts))
