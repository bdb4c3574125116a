"""Create, `1+1`, destroy, one after the other: how many a second, and what is left on the host afterwards."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.bench.harness import Counts, Row, seconds_of
from tests.bench.peers import NO_POOL, Bench, first_answer, first_stock_answer, group_directories, stock_manager

COUNTS = Counts(full=2000, quick=200, tiny=3)
STOCK_EVERY = 200
LAP = 50  # sandboxes per sample of the rate


async def measure(bench: Bench, count: int) -> list[Row]:
    driver = bench.driver
    rates: list[float] = []
    stock: list[float] = []
    for _ in range(2):
        await (await first_answer(driver, NO_POOL)).destroy()
    before = look_around(bench)
    for first in range(0, count, LAP):
        if first % STOCK_EVERY == 0:
            async with stock_manager() as manager:
                begin = time.perf_counter()
                await first_stock_answer(manager)
                await manager.shutdown_kernel(now=True)
                stock.append(1 / (time.perf_counter() - begin))
        lap = range(first, min(first + LAP, count))
        rates.append(len(lap) / await seconds_of(make_and_destroy(bench, len(lap))))
    after = look_around(bench)
    left = [
        Row(f"left after {count}: {what}", unit, [after[what] - before[what]], target=target)
        for what, unit, target in (
            ("processes", "more", {"p50": 0}),
            ("control groups", "more", {"p50": 0}),
            ("mounts", "more", {"p50": 0}),
            ("descriptors", "more", {"p50": 0}),
            ("supervisors' own memory", "KiB", {}),
        )
    ]
    return [Row("create, 1+1, destroy", "/s", rates, stock, more_is_better=True, target={"p50": 30}), *left]


async def make_and_destroy(bench: Bench, count: int) -> None:
    for _ in range(count):
        await (await first_answer(bench.driver, NO_POOL)).destroy()


def look_around(bench: Bench) -> dict[str, float]:
    """What there is of this warden's on the host, this instant: `destroy` promises to return when all is gone."""
    prefix = f"w{bench.warden_pid}-"  # of its sandboxes' ids
    supervisors = [bench.warden_pid, *bench.zygote_pids]
    everybody = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return {
        "processes": sum(_is_below(pid, bench.warden_pid) or f"/{prefix}" in _read(pid, "cgroup") for pid in everybody),
        "control groups": sum(path.name.startswith(prefix) for top in group_directories() for path in top.iterdir()),
        "mounts": sum(len(_read(pid, "mountinfo").splitlines()) for pid in (os.getpid(), *supervisors)),
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), *supervisors)),
        "supervisors' own memory": sum(_anonymous_kib(pid) for pid in supervisors),
    }


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        pid = int((_read(pid, "stat").rpartition(")")[2].split() or ["", "0"])[1])
    return pid == ancestor


def _anonymous_kib(pid: int) -> int:
    return int(_read(pid, "status").partition("RssAnon:")[2].split()[0])


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it has gone meanwhile
        return ""
