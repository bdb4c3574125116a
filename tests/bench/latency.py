"""A warm `1+1`, from the request to reply and idle: over the link, by `KernelClient`, and by raw ZMQ from stock."""

from __future__ import annotations

import time

from cellgate.sandbox.client import KernelClient
from tests.bench.harness import Counts, Row, cpu_seconds, interleave
from tests.bench.peers import Bench

COUNTS = Counts(full=40, quick=10, tiny=1)  # laps
LAP = 50  # requests: as in a session that is at work, and not one that has just lost the processor's caches
WARM_UP = 2  # laps


async def measure(bench: Bench, count: int) -> list[Row]:
    stock_kernel = await bench.stock()
    times: dict[str, list[float]] = {"link": [], "client": [], "stock": []}
    kernel_cpu: dict[str, list[float]] = {"link": [], "stock": []}
    our_cpu: dict[str, list[float]] = {"link": [], "stock": []}
    async with bench.link_kernel() as link, bench.sandbox() as sandbox, KernelClient(sandbox) as client:

        async def over_the_link() -> None:
            kernel, own = cpu_seconds(link.pids), time.process_time()
            times["link"] += [(await link.execute("1+1")).seconds * 1e3 for _ in range(LAP)]
            our_cpu["link"].append((time.process_time() - own) / LAP * 1e3)
            kernel_cpu["link"].append((cpu_seconds(link.pids) - kernel) / LAP * 1e3)

        async def by_the_client() -> None:
            for _ in range(LAP):
                begin = time.perf_counter()
                await client.execute("1+1")
                times["client"].append((time.perf_counter() - begin) * 1e3)

        async def raw_zmq() -> None:
            kernel, own = cpu_seconds(stock_kernel.pids), time.process_time()
            times["stock"] += [stock_kernel.execute("1+1").seconds * 1e3 for _ in range(LAP)]
            our_cpu["stock"].append((time.process_time() - own) / LAP * 1e3)
            kernel_cpu["stock"].append((cpu_seconds(stock_kernel.pids) - kernel) / LAP * 1e3)

        await interleave(WARM_UP, over_the_link, by_the_client, raw_zmq)
        for samples in (times, kernel_cpu, our_cpu):
            for kept in samples.values():
                kept.clear()
        await interleave(count, over_the_link, by_the_client, raw_zmq)
    return [
        Row("1+1 over the link", "ms", times["link"], times["stock"], target={"p50": 1.0}),
        Row("1+1 by KernelClient", "ms", times["client"], times["stock"]),
        Row("CPU of the kernel", "ms", kernel_cpu["link"], kernel_cpu["stock"]),
        Row("CPU of the client", "ms", our_cpu["link"], our_cpu["stock"]),
    ]
