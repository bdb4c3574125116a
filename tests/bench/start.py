"""From nothing to the first `1+1` answered: a sandbox made on the spot, one out of a pool, and stock ipykernel.

Ours until reply and idle, by `KernelClient`. Stock by jupyter_client, until the reply alone: start_kernel,
wait_for_ready, execute.
"""

from __future__ import annotations

import asyncio
import time

from cellgate.sandbox.base import SandboxSpec
from tests.bench.harness import Counts, Row, cpu_seconds, interleave, seconds_of
from tests.bench.peers import NO_POOL, Bench, first_answer, first_stock_answer, stock_manager, stock_pid

COUNTS = Counts(full=100, quick=20, tiny=1)
STOCK_EVERY = 4  # it takes fifty times as long and varies less
POOL_SIZE = 2
SETTLE_SECONDS = 0.3  # the pool is full again, and what was destroyed or started has come to rest


async def measure(bench: Bench, count: int) -> list[Row]:
    driver = bench.driver
    cold: list[float] = []
    pooled: list[float] = []
    stock: list[float] = []
    cpu: list[float] = []
    stock_cpu: list[float] = []

    async def make_cold() -> None:
        supervisors = [bench.warden_pid, *bench.zygote_pids]
        before = time.process_time() + cpu_seconds(supervisors)
        begin = time.perf_counter()
        sandbox = await first_answer(driver, NO_POOL)
        cold.append((time.perf_counter() - begin) * 1e3)
        spent = time.process_time() + cpu_seconds(supervisors) - before
        cpu.append((spent + (await sandbox.usage()).cpu_seconds) * 1e3)
        await sandbox.destroy()
        await asyncio.sleep(SETTLE_SECONDS)

    async def take_from_pool() -> None:
        begin = time.perf_counter()
        sandbox = await first_answer(driver, SandboxSpec())
        pooled.append((time.perf_counter() - begin) * 1e3)
        await sandbox.destroy()
        await asyncio.sleep(SETTLE_SECONDS)

    async def start_stock() -> None:
        if len(stock) * STOCK_EVERY > len(cold):
            return
        before = time.process_time()
        async with stock_manager() as manager:
            stock.append(await seconds_of(first_stock_answer(manager)) * 1e3)
            stock_cpu.append((time.process_time() - before + cpu_seconds([stock_pid(manager)])) * 1e3)
        await asyncio.sleep(SETTLE_SECONDS)

    for _ in range(2):  # the zygote is there from now on, and the ways are warm
        await (await first_answer(driver, NO_POOL)).destroy()
    await driver.keep_pool(SandboxSpec(), POOL_SIZE)
    await asyncio.sleep(SETTLE_SECONDS)
    await interleave(count, make_cold, take_from_pool, start_stock)
    await driver.keep_pool(SandboxSpec(), 0)
    return [
        Row("create to 1+1, no pool", "ms", cold, stock, target={"p50": 10, "p95": 18}),
        Row("create to 1+1, from a pool", "ms", pooled, stock, target={"p50": 2}),
        Row("CPU of it, no pool, all processes", "ms", cpu, stock_cpu),
    ]
