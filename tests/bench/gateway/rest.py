"""Code run over REST: in a session, the peer being the v1 websocket of the same server; as a one-shot, the peer being
a kernel of Jupyter Server that is started, asked and deleted. And what ten one-shots of one principal feel of forty of
another's that were there before, the peer being the same ten alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from time import perf_counter

from tests.bench.gateway.client import Address, request
from tests.bench.gateway.servers import OURS, PEERS, Server, Stage, answer
from tests.bench.harness import Counts, Row, interleave
from tests.support.server import served

COUNTS = Counts(full=60, quick=10, tiny=1)  # one-shots, ten times as many cells, and storms for each twenty
CELLS = 10
LIGHT, HEAVY = 10, 40
WARM_UP = 2


async def measure(stage: Stage, count: int) -> list[Row]:
    ours, peer = await stage.server(OURS), await stage.server(PEERS[0])
    cells: list[float] = []
    framed: list[float] = []
    shots: list[float] = []
    started: list[float] = []
    async with ours.kernel() as kernel, ours.websocket() as websocket:

        async def execute() -> None:
            path = f"/v1/sessions/{kernel}/execute"
            cells.extend([await _asked(ours.address, path, {"code": "1+1"}) for _ in range(CELLS)])

        async def by_websocket() -> None:
            framed.extend([1000 * await answer(websocket) for _ in range(CELLS)])

        async def run() -> None:
            shots.append(await _asked(ours.address, "/v1/run", {"code": "1+1"}))

        async def start() -> None:
            started.append(await _started(peer))

        await interleave(WARM_UP, execute, by_websocket, run)
        for kept in (cells, framed, shots):
            kept.clear()
        await interleave(count, execute, by_websocket, run)
    await interleave(max(count // 6, 1), start)
    beside, alone = await _storms(max(count // 20, 1))
    return [
        Row("1+1 by POST execute", "ms", cells, framed),
        Row("1+1 by POST /v1/run", "ms", shots, started),
        Row(f"{LIGHT} one-shots beside {HEAVY} of another's", "ms", beside, alone, target={"ratio": 0.5}),
    ]


async def _asked(address: Address, path: str, body: object) -> float:
    begin = perf_counter()
    response = await request(address, "POST", path, body)
    assert response.status == 200 and response.json["status"] == "ok", response
    return (perf_counter() - begin) * 1e3


async def _started(peer: Server) -> float:
    begin = perf_counter()
    async with peer.websocket():
        pass
    return (perf_counter() - begin) * 1e3


async def _storms(count: int) -> tuple[list[float], list[float]]:
    """How long each of a principal's one-shots takes from when all are asked for, beside the storm and alone."""
    beside: list[float] = []
    alone: list[float] = []
    async with served("--end-sessions") as server:
        address = Address(OURS, server.port, server.token)
        light = replace(address, token=await _token(str(server.state_dir), "light"))
        heavy = replace(address, token=await _token(str(server.state_dir), "heavy"))
        for somebody in (light, heavy):  # a new token is heeded within two seconds
            while (await request(somebody, "GET", "/api/me")).status != 200:
                await asyncio.sleep(0.05)
        for _ in range(count):
            alone += await _storm(light, LIGHT)
            storm = asyncio.ensure_future(_storm(heavy, HEAVY))
            await asyncio.sleep(0)
            beside += await _storm(light, LIGHT)
            assert len(await storm) == HEAVY
    return beside, alone


async def _storm(address: Address, count: int) -> list[float]:
    shots = (_asked(address, "/v1/run", {"code": f"print({number})"}) for number in range(count))
    return list(await asyncio.gather(*shots))


async def _token(state_dir: str, principal: str) -> str:
    words = ("token", "create", principal, "--json", "--state-dir", state_dir)
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "cellgate", *words], capture_output=True, check=True
    )
    return str(json.loads(run.stdout)["text"])
