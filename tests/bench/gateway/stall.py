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
LONGEST_SECONDS = 20.0  # of a kernel that waits for the client, or an idle that was lost
NOTE = "[cellgate: "

# With room for all of it; with a lower limit for a cell; and with a journal that keeps the last of many cells.
ROOMY = ("--output-bytes-per-cell=1GiB", "--journal-bytes-per-session=1GiB")
CAPPED = ("--output-bytes-per-cell=1MiB",)
NARROW = ("--output-bytes-per-cell=1MiB", "--journal-bytes-per-session=1MiB")


@dataclass(frozen=True)
class Stall:
    """What came of one."""

    grown_megabytes: float  # at the highest, until the cell ended or the time was up
    written_seconds: float
    read_megabytes: float
    notes: list[str]

    @property
    def told(self) -> str:
        more = f" (the first of {len(self.notes)} notes)" if len(self.notes) > 1 else ""
        return f"{self.read_megabytes:.4g} MB came; {self.notes[0] + more if self.notes else 'no word of any missing'}"


async def measure(stage: Stage, count: int) -> list[Row]:
    stalls = {OURS: await stall(await stage.server(OURS, *ROOMY), count)}
    if stalls[OURS].read_megabytes != count:
        raise RuntimeError(f"of {count} MB: {stalls[OURS].told}")
    for name in PEERS:
        stalls[name] = await stall(await stage.server(name), count)
    capped = await stall(await stage.server(OURS, *CAPPED), count)
    narrow = await stall(await stage.server(OURS, *NARROW), count, cells=count)
    for less in (capped, narrow):
        if less.read_megabytes != count and not less.notes:
            raise RuntimeError(f"in silence: {less.told}")
    grown: Samples = {name: [stall.grown_megabytes] for name, stall in stalls.items()}
    return [
        *beside(f"growth under {count} MB unread", "MB", grown, target={"p50": 16}),
        Row("- with 1 MiB for a cell", "MB", [capped.grown_megabytes], target={"p50": 16}, note=capped.told),
        Row("- with 1 MiB of journal", "MB", [narrow.grown_megabytes], target={"p50": 16}, note=narrow.told),
        *(Row(f"- written, {name}", "s", [stall.written_seconds], note=stall.told) for name, stall in stalls.items()),
    ]


async def stall(server: Server, megabytes: int, cells: int = 1) -> Stall:
    writes = megabytes * 1_000_000 // WRITE_BYTES // cells
    code = f"for _ in range({writes}): print('x' * {WRITE_BYTES - 1}, flush=True)"
    async with server.kernel() as kernel:
        websocket = await server.open(kernel)
        await websocket.execute("1+1")
        highest = before = resident_megabytes(server.pids)
        pids, begin = server.pids, perf_counter()
        websocket.stop_reading()
        for _ in range(cells):
            websocket.ask(code)
        while perf_counter() - begin < LONGEST_SECONDS:
            for _ in range(LOOKS):
                await asyncio.sleep(WATCH_SECONDS)
                highest = max(highest, resident_megabytes(pids))
            if await server.state(kernel) == "idle":
                break
        written = perf_counter() - begin
        websocket.go_on_reading()
        heard = await websocket.collect()
        highest = max(highest, resident_megabytes(pids))
        await websocket.close()
    texts = [json.loads(bytes(content))["text"] for kind, content in heard.contents if kind == "stream"]
    output = "".join(text for text in texts if not text.startswith(NOTE))
    notes = [text.strip() for text in (*websocket.notes, *texts) if text.startswith(NOTE)]
    return Stall(highest - before, written, len(output) / 1e6, notes)
