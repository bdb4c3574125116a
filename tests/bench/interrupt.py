"""From an interrupt to the reply of `while True: pass`: ours by `sandbox.interrupt()`, stock by its KernelManager."""

from __future__ import annotations

import asyncio
import time

from cellgate.sandbox.client import KernelClient
from tests.bench.harness import Counts, Row, interleave
from tests.bench.peers import Bench

COUNTS = Counts(full=100, quick=20, tiny=1)
CODE = "print('runs', flush=True)\nwhile True: pass"
INTO_THE_LOOP_SECONDS = 0.02  # after its word has come the cell is soon where it stays


async def measure(bench: Bench, count: int) -> list[Row]:
    stock_kernel = await bench.stock()
    ours: list[float] = []
    stock: list[float] = []
    async with bench.sandbox() as sandbox, KernelClient(sandbox) as kernel:

        async def interrupt_ours() -> None:
            runs = asyncio.Event()
            cell = asyncio.ensure_future(kernel.execute(CODE, on_output=lambda _: runs.set()))
            await runs.wait()
            await asyncio.sleep(INTO_THE_LOOP_SECONDS)
            begin = time.perf_counter()
            await sandbox.interrupt()
            reply = (await cell).reply
            ours.append((time.perf_counter() - begin) * 1e3)
            assert reply["ename"] == "KeyboardInterrupt", reply

        async def interrupt_stock() -> None:
            stock_kernel.ask(CODE)
            stock_kernel.wait_for_output()
            await asyncio.sleep(INTO_THE_LOOP_SECONDS)
            begin = time.perf_counter()
            await stock_kernel.manager.interrupt_kernel()
            heard = stock_kernel.collect()
            stock.append((time.perf_counter() - begin) * 1e3)
            assert heard.error == "KeyboardInterrupt", heard

        await interleave(count, interrupt_ours, interrupt_stock, warm_up=1)
    return [Row("interrupt to reply and idle", "ms", ours[1:], stock[1:])]
