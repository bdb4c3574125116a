"""Floods of output: whether all of it comes, and how fast, beside a raw ZMQ client of a stock ipykernel.

From ours everything must come, in order, else the bench fails. A stock kernel may lose messages, for it queues at
most 1,000 for a slow reader: its rate is of what came, and a note says how much did not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench.harness import Counts, Row, cpu_seconds, interleave
from tests.bench.peers import Bench, Heard

COUNTS = Counts(full=20_000, quick=5_000, tiny=100)  # flushed lines, to which the other floods are in proportion
ROUNDS = 5
WRITE_BYTES = 65_536


@dataclass(frozen=True)
class Flood:
    what: str
    unit: str
    size: float  # in the unit
    code: str
    text: str = ""  # what must come
    displays: int = 0
    target: Mapping[str, float] = field(default_factory=dict)

    def came(self, heard: Heard) -> float:
        """How much of it, in the unit."""
        if self.displays:
            return heard.count("display_data")
        return len(heard.text) / len(self.text) * self.size

    def came_whole(self, heard: Heard) -> bool:
        return heard.text == self.text and heard.count("display_data") == self.displays


def floods(count: int) -> list[Flood]:
    lines, writes = count * 10, count * 8 // 100
    return [
        Flood(
            f"{count:,} flushed lines",
            "/s",
            count,
            f"for i in range({count}): print(i, flush=True)",
            text=numbered_lines(count),
            target={"ratio": 5},
        ),
        Flood(
            f"{count:,} raw displays",
            "/s",
            count,
            f"for i in range({count}): display({{'text/plain': 'x'}}, raw=True)",
            displays=count,
            target={"ratio": 5},
        ),
        Flood(
            f"{count:,} displays of a number",
            "/s",
            count,
            f"for i in range({count}): display(i)",
            displays=count,
        ),
        Flood(
            f"{lines:,} printed lines",
            "/s",
            lines,
            f"for i in range({lines}): print(i)",
            text=numbered_lines(lines),
        ),
        Flood(
            f"{writes:,} writes of 64 KB",
            "MB/s",
            writes * WRITE_BYTES / 1e6,
            f"import sys; x = 'x' * {WRITE_BYTES}\nfor i in range({writes}): sys.stdout.write(x); sys.stdout.flush()",
            text="x" * writes * WRITE_BYTES,
            target={"ratio": 2.5},
        ),
    ]


def numbered_lines(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


async def measure(bench: Bench, count: int) -> list[Row]:
    rows = []
    for flood in floods(count):
        rows += await measure_flood(bench, flood)
    return rows


async def measure_flood(bench: Bench, flood: Flood) -> list[Row]:
    stock_kernel = await bench.stock()
    rates: list[float] = []
    stock_rates: list[float] = []
    kernel_cpu: list[float] = []
    stock_cpu: list[float] = []
    own_cpu: list[float] = []
    zmq_cpu: list[float] = []
    lost: list[float] = []
    idles_lost = 0
    async with bench.link_kernel() as kernel:

        async def ours() -> None:
            before, own = cpu_seconds(kernel.pids), time.process_time()
            heard = await kernel.execute(flood.code)
            own_cpu.append((time.process_time() - own) * 1e3)
            kernel_cpu.append((cpu_seconds(kernel.pids) - before) * 1e3)
            if not flood.came_whole(heard):
                raise RuntimeError(f"{flood.what}: of {flood.size:g} {flood.came(heard):g} came")
            rates.append(flood.size / heard.seconds)

        async def stock() -> None:
            nonlocal idles_lost
            before, own = cpu_seconds(stock_kernel.pids), time.process_time()
            heard = stock_kernel.execute(flood.code)
            zmq_cpu.append((time.process_time() - own) * 1e3)
            stock_cpu.append((cpu_seconds(stock_kernel.pids) - before) * 1e3)
            came = flood.came(heard)
            stock_rates.append(came / heard.seconds)
            if not flood.came_whole(heard):
                lost.append(flood.size - came)
            idles_lost += heard.lost_idle

        await interleave(ROUNDS, ours, stock, warm_up=1)
    note = f"of {flood.size:,.0f} stock lost up to {max(lost):,.0f} in {len(lost)} of {ROUNDS + 1} runs" if lost else ""
    note += f"; and idle in {idles_lost}" if idles_lost else ""
    return [
        Row(flood.what, flood.unit, rates[1:], stock_rates[1:], more_is_better=True, target=flood.target, note=note),
        Row("- CPU of the kernel", "ms", kernel_cpu[1:], stock_cpu[1:]),
        Row("- CPU of the client", "ms", own_cpu[1:], zmq_cpu[1:]),
    ]
