"""The benches still run. What they measure is nobody's business here."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench.__main__ import FIGURES
from tests.bench.harness import as_json, as_table
from tests.bench.peers import Bench
from tests.support.native import skip_without_native


@pytest.mark.native
def test_every_bench_runs_and_tells_a_figure_of_each_peer():
    skip_without_native()
    asyncio.run(run_every_bench())


async def run_every_bench() -> None:
    async with Bench() as bench:
        for name, figure in FIGURES.items():
            rows = await figure.measure(bench, figure.counts.tiny)
            assert rows and all(row.ours for row in rows), name
            assert rows[0].peer, name
            assert as_table(name, rows).count("\n") > len(rows)
            assert len(as_json(rows)) == len(rows)
