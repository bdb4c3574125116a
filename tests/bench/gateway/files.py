"""A large file goes to a server and comes back: how fast, how far the server's memory grows meanwhile, and how long a
cell of somebody else then takes. Ours lies in a session's sandbox; Jupyter Server's in its own directory."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Coroutine
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from tests.bench.gateway.client import Address, Websocket, request
from tests.bench.gateway.servers import OURS, PEERS, Samples, Server, Stage, answer, beside
from tests.bench.harness import Counts, Row, resident_megabytes

COUNTS = Counts(full=500, quick=100, tiny=2)  # MB
BLOCK = bytes(1 << 16)
CHUNK = b64encode(bytes(1 << 20)).decode()  # as JupyterLab sends a large file
PAUSE_SECONDS = 0.02  # between the neighbour's cells
ROOMY = ("--workspace-bytes=1GiB", "--memory-bytes=2GiB", "--file-bytes=1GiB")
PEER = PEERS[0]  # Kernel Gateway has no files


@dataclass(frozen=True)
class Transfer:
    megabytes_per_second: float
    grown_megabytes: float
    cells: list[float]  # the neighbour's, in ms


async def measure(stage: Stage, count: int) -> list[Row]:
    ours, peer = await stage.server(OURS, *ROOMY), await stage.server(PEER)
    rows: list[Row] = []
    alone: Samples = {}
    done: dict[str, list[Transfer]] = {}
    async with ours.kernel() as kernel:
        path = f"/v1/sessions/{kernel}/files/large"
        ways = {
            ours: (_send(ours.address, path, count << 20), _fetch(ours.address, path, count << 20)),
            peer: (_send_in_chunks(peer.address, count), _fetch(peer.address, "/files/large", count << 20)),
        }
        for server, transfers in ways.items():
            async with server.websocket() as neighbour:
                alone[server.name] = [1000 * await answer(neighbour) for _ in range(20)]
                done[server.name] = [await _watch(transfer, count, server, neighbour) for transfer in transfers]
    for at, way in enumerate(("in", "out")):
        named = {name: transfers[at] for name, transfers in done.items()}
        speeds = {name: [transfer.megabytes_per_second] for name, transfer in named.items()}
        grown = {name: [transfer.grown_megabytes] for name, transfer in named.items()}
        cells = {name: transfer.cells for name, transfer in named.items()}
        rows += beside(f"{count} MiB {way}", "MiB/s", speeds, more_is_better=True)
        rows += beside("- growth of the server", "MB", grown, target={"p50": 16})
        rows += beside("- a cell beside it", "ms", cells, target={"p95": 250})
    return [*rows, *beside("a cell with nothing beside it", "ms", alone)]


async def _watch(transfer: Coroutine[Any, Any, None], count: int, server: Server, neighbour: Websocket) -> Transfer:
    before = highest = resident_megabytes(server.pids)
    begin, cells = perf_counter(), []
    running = asyncio.ensure_future(transfer)
    while not running.done():
        cells.append(1000 * await answer(neighbour))
        highest = max(highest, resident_megabytes(server.pids))
        await asyncio.sleep(PAUSE_SECONDS)
    await running
    return Transfer(count / (perf_counter() - begin), max(highest - before, 0.01), cells)


async def _send(address: Address, path: str, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
    writer.write(address.head("PUT", path, {"Content-Length": size, "Connection": "close"}))
    for _ in range(size // len(BLOCK)):
        writer.write(BLOCK)
        await writer.drain()
    assert b" 200 " in await reader.readline(), "the file was not taken"
    writer.close()


async def _send_in_chunks(address: Address, count: int) -> None:
    for number in range(1, count + 1):
        chunk = number if number < count else -1  # the last
        model = {"type": "file", "format": "base64", "content": CHUNK, "chunk": chunk}
        response = await request(address, "PUT", "/api/contents/large", model)
        assert response.status in (200, 201), response


async def _fetch(address: Address, path: str, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port, limit=1 << 18)
    writer.write(address.head("GET", path, {"Connection": "close"}))
    await reader.readuntil(b"\r\n\r\n")
    got = 0
    while chunk := await reader.read(1 << 18):
        got += len(chunk)
    assert got == size, f"{got} of {size} bytes came"
    writer.close()
