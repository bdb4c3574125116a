"""A client that stops reading while a cell writes: how far the gateway's memory grows. Then it reads on, and must get
everything, or be told what is missing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from time import perf_counter

from tests.bench.gateway.servers import OURS, PEERS, Samples, Server, Stage, beside
from tests.bench.harness import Counts, Row, resident_megabytes

COUNTS = Counts(full=300, quick=100, tiny=2)  # MB
WRITE_BYTES = 62_500  # a sixteenth of a MB
WATCH_SECONDS = 0.02
LOOKS = 10  # at its memory, before the server is asked whether the cell has ended
LONGEST_SECONDS = 60.0  # of a kernel that waits for the client it cannot end
NOTE = "[cellgate: "

# With room for all of it, and with less than is written.
ROOMY = {"CELLGATE_OUTPUT_BYTES_PER_CELL": "1GiB", "CELLGATE_JOURNAL_BYTES_PER_SESSION": "1GiB"}
NARROW = {"CELLGATE_OUTPUT_BYTES_PER_CELL": "1GiB", "CELLGATE_JOURNAL_BYTES_PER_SESSION": "1MiB"}


@dataclass(frozen=True)
class Stall:
    """What came of one."""

    grown_megabytes: float  # at the highest, until the cell ended or the time was up
    written_seconds: float
    read_megabytes: float
    notes: list[str]

    @property
    def told(self) -> str:
        return f"{self.read_megabytes:.4g} MB came; " + ("; ".join(self.notes) or "no word of any missing")


async def measure(stage: Stage, count: int) -> list[Row]:
    grown: Samples = {}
    stalls: dict[str, Stall] = {}
    for name in (OURS, *PEERS):
        stalls[name] = await stall(await stage.server(name, ROOMY if name == OURS else None), count)
        grown[name] = [stalls[name].grown_megabytes]
    narrow = await stall(await stage.server(OURS, NARROW), count)
    if stalls[OURS].read_megabytes != count:
        raise RuntimeError(f"of {count} MB: {stalls[OURS].told}")
    if narrow.read_megabytes != count and not narrow.notes:
        raise RuntimeError(f"less journal than output, of {count} MB: {narrow.told}")
    return [
        *beside(f"growth under {count} MB unread", "MB", grown, target={"p50": 16}),
        Row("- with a journal of 1 MiB", "MB", [narrow.grown_megabytes], target={"p50": 16}, note=narrow.told),
        *(Row(f"- written, {name}", "s", [stall.written_seconds], note=stall.told) for name, stall in stalls.items()),
    ]


async def stall(server: Server, megabytes: int) -> Stall:
    writes = megabytes * 1_000_000 // WRITE_BYTES
    code = f"for _ in range({writes}): print('x' * {WRITE_BYTES - 1}, flush=True)"
    async with server.kernel() as kernel:
        websocket = await server.open(kernel)
        await websocket.execute("1+1")
        before = resident_megabytes(server.pids)
        begin = perf_counter()
        websocket.ask(code)
        websocket.stop_reading()
        highest, pids = before, server.pids
        while perf_counter() - begin < LONGEST_SECONDS:
            for _ in range(LOOKS):
                await asyncio.sleep(WATCH_SECONDS)
                highest = max(highest, resident_megabytes(pids))
            if await server.state(kernel) == "idle":
                break
        written = perf_counter() - begin
        websocket.go_on_reading()
        heard = await websocket.collect()
        highest = max(highest, resident_megabytes(server.pids))
        texts = [json.loads(bytes(content))["text"] for kind, content in heard.contents if kind == "stream"]
        await websocket.close()
    notes = [text.strip() for text in texts if text.startswith(NOTE)] + [
        f"{len(websocket.notes)} under no cell"
    ] * bool(websocket.notes)
    read = sum(len(text) for text in texts if not text.startswith(NOTE)) / 1e6
    return Stall(highest - before, written, read, notes)
