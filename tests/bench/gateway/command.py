"""What a person and a program wait for: `cellgate run` against a running server, as a whole process; the SDK's import,
and its warm `1+1`. Beside them what none can do without: an interpreter, and an event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from time import perf_counter

from cellgate.client import AsyncClient
from tests.bench.gateway.servers import OURS, Stage
from tests.bench.harness import Counts, Row, interleave

COUNTS = Counts(full=40, quick=10, tiny=1)
LAP = 20  # cells: as in a session that is at work
IMPORT = "from time import perf_counter as t; a = t(); {}; print(t() - a)"


async def process(*words: str, env: dict[str, str] | None = None) -> tuple[float, str]:
    """How long one took, in milliseconds, and what it printed."""
    begin = perf_counter()
    child = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE, env={**os.environ, **(env or {})}
    )
    out, _ = await child.communicate()
    assert child.returncode == 0, words
    return (perf_counter() - begin) * 1e3, out.decode()


async def measure(stage: Stage, count: int) -> list[Row]:
    server = await stage.server(OURS)
    url, token = f"http://{server.address.host}:{server.address.port}", server.address.token
    env = {"CELLGATE_URL": url, "CELLGATE_TOKEN": token}
    times: dict[str, list[float]] = {name: [] for name in ("run", "python", "sdk", "asyncio", "cell")}

    async def run() -> None:
        milliseconds, out = await process("-m", "cellgate", "run", "-c", "print(1)", env=env)
        assert out == "1\n", out
        times["run"].append(milliseconds)

    async def python() -> None:
        times["python"].append((await process("-c", "pass"))[0])

    async def imports() -> None:
        for name, code in (("sdk", "from cellgate.client import Client"), ("asyncio", "import asyncio")):
            times[name].append(float((await process("-c", IMPORT.format(code)))[1]) * 1e3)

    async with AsyncClient(url, token) as client, client.session() as session:

        async def cells() -> None:
            for _ in range(LAP):
                begin = perf_counter()
                await session.run("1+1")
                times["cell"].append((perf_counter() - begin) * 1e3)

        await interleave(count, run, python, imports, cells, warm_up=1)
    return [
        Row("`cellgate run -c 'print(1)'`, the process", "ms", times["run"], times["python"], target={"p50": 150.0}),
        Row("`from cellgate.client import Client`", "ms", times["sdk"], times["asyncio"], target={"p50": 60.0}),
        Row("`session.run('1+1')`", "ms", times["cell"]),
    ]
