"""What an idle session that has answered a cell holds of its own, alone and among many: PSS of all its processes.

Pages that processes share are split among those that are alive, so ours and stock's are not alive together. The
zygote is counted apart, once per template.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path

from cellgate.sandbox.base import Sandbox, SandboxSpec
from cellgate.sandbox.client import KernelClient
from tests.bench.harness import Counts, Row
from tests.bench.peers import Bench, sandbox_pids, start_stock, stock_client, stock_manager, stock_pid

COUNTS = Counts(full=100, quick=20, tiny=2)
STOCK_PART = 10  # of a tenth the mean is as true, and a hundred would take 9 GB

# What a cell of a stock kernel imports, to have what the template has.
TEMPLATES = {"python": "1+1", "python-data": "import numpy, pandas, matplotlib.pyplot\n1+1"}
TARGETS = {"python": 8, "python-data": 9}


async def measure(bench: Bench, count: int) -> list[Row]:
    rows = []
    for template, imports in TEMPLATES.items():
        if template == "python-data" and (count <= COUNTS.tiny or not all(map(find_spec, ("numpy", "pandas")))):
            continue
        alone, many, zygote = await measure_ours(bench, template, count)
        stock_alone, stock_many = await measure_stock(imports, max(1, count // STOCK_PART))
        rows += [
            Row(f"{template}, one alive", "MB", alone, stock_alone),
            Row(
                f"{template}, each of {count}",
                "MB",
                many,
                stock_many,
                target={"p50": TARGETS[template]},
                note=f"stock: each of {len(stock_many)}",
            ),
            Row(f"{template}, its zygote beside {count}", "MB", [zygote]),
        ]
    return rows


async def measure_ours(bench: Bench, template: str, count: int) -> tuple[list[float], list[float], float]:
    spec = SandboxSpec(template, use_pool=False)
    alone: list[float] = []
    async with AsyncExitStack() as stack:
        sandboxes: list[Sandbox] = []
        while len(sandboxes) < count:
            sandbox = await stack.enter_async_context(bench.sandbox(spec))
            kernel = await stack.enter_async_context(KernelClient(sandbox))
            assert (await kernel.execute("1+1")).value == "2"
            sandboxes.append(sandbox)
            if len(sandboxes) == 1:
                alone.append(own_megabytes(sandbox_pids(sandbox)))
        many = [own_megabytes(sandbox_pids(sandbox)) for sandbox in sandboxes]
        zygote = own_megabytes([pid for pid, name in bench.zygote_pids.items() if name == template])
    return alone, many, zygote


async def measure_stock(code: str, count: int) -> tuple[list[float], list[float]]:
    alone: list[float] = []
    async with AsyncExitStack() as stack:
        pids: list[int] = []
        while len(pids) < count:
            manager = await stack.enter_async_context(stock_manager())
            await start_stock(manager)
            client = await stack.enter_async_context(stock_client(manager))
            await client.execute(code, reply=True, timeout=60)
            pids.append(stock_pid(manager))
            if len(pids) == 1:
                alone.append(own_megabytes(pids))
        return alone, [own_megabytes([pid]) for pid in pids]


def own_megabytes(pids: list[int]) -> float:
    """PSS: a page that n processes share counts a n-th for each. In millions of bytes."""
    assert pids
    kib = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kib += int(rollup.partition("\nPss:")[2].split()[0])
    return kib * 1024 / 1e6
