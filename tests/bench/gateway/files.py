"""A large file goes into a session and comes back: how fast, how far the gateway's memory grows meanwhile, and how long
a cell of another session then takes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import perf_counter
from typing import Any

from tests.bench.gateway.client import Address
from tests.bench.gateway.servers import OURS, Server, Stage, answer
from tests.bench.harness import Counts, Row, resident_megabytes

COUNTS = Counts(full=500, quick=100, tiny=2)  # MB
BLOCK = bytes(1 << 16)
PAUSE_SECONDS = 0.02  # between the neighbour's cells
ROOMY = ("--workspace-bytes=1GiB", "--memory-bytes=2GiB", "--file-bytes=1GiB")


async def measure(stage: Stage, count: int) -> list[Row]:
    server = await stage.server(OURS, *ROOMY)
    size = count * 1_000_000
    async with server.kernel() as kernel, server.websocket() as neighbour:
        path = f"/v1/sessions/{kernel}/files/large"
        alone = [await answer(neighbour) for _ in range(50)]
        rows = []
        for name, transfer in (("in", _send(server.address, path, size)), ("out", _fetch(server.address, path, size))):
            before = resident_megabytes(server.pids)
            seconds, cells, highest = await _beside(transfer, server, neighbour)
            rows += [
                Row(f"{count} MB {name}", "MB/s", [count / seconds], more_is_better=True),
                Row("- growth of the gateway", "MB", [highest - before], target={"p50": 16}),
                Row("- a neighbour's cell meanwhile", "ms", [1000 * cell for cell in cells], target={"p95": 250}),
            ]
    return [*rows, Row("- a neighbour's cell alone", "ms", [1000 * cell for cell in alone])]


async def _beside(
    transfer: Coroutine[Any, Any, None], server: Server, neighbour: Any
) -> tuple[float, list[float], float]:
    """Its seconds, those of cells beside it, and the highest that the server's memory was."""
    begin = perf_counter()
    running = asyncio.ensure_future(transfer)
    cells, highest = [], 0.0
    while not running.done():
        cells.append(await answer(neighbour))
        highest = max(highest, resident_megabytes(server.pids))
        await asyncio.sleep(PAUSE_SECONDS)
    await running
    return perf_counter() - begin, cells, highest


async def _send(address: Address, path: str, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
    writer.write(address.head("PUT", path, {"Content-Length": size, "Connection": "close"}))
    for at in range(0, size, len(BLOCK)):
        writer.write(BLOCK[: size - at])
        await writer.drain()
    assert b" 200 " in await reader.readline(), "the file was not taken"
    writer.close()


async def _fetch(address: Address, path: str, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port, limit=1 << 18)
    writer.write(address.head("GET", path, {"Connection": "close"}))
    await reader.readuntil(b"\r\n\r\n")
    got = 0
    while chunk := await reader.read(1 << 18):
        got += len(chunk)
    assert got == size, f"{got} of {size} bytes came"
    writer.close()
