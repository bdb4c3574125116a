"""The benches still run. What they measure is nobody's business here."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.bench.__main__ import FIGURES
from tests.bench.compare.contenders import assembled
from tests.bench.compare.figures import OURS, as_text
from tests.bench.compare.measures import MEASURES, TINY, Field
from tests.bench.gateway.servers import Stage
from tests.bench.harness import as_json, as_table
from tests.bench.peers import Bench
from tests.support.native import skip_without_native


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.timeout(600)  # kernels of the peers take seconds each on a busy machine
@pytest.mark.parametrize("stage", [Bench, Stage])
def test_every_bench_runs_and_tells_a_figure_of_each_peer(stage):
    skip_without_native()
    asyncio.run(run_every_bench(stage))


async def run_every_bench(stage: type[Any]) -> None:
    """On one stage for all, to start what is measured but once."""
    async with stage() as shared:
        for name, figure in FIGURES.items():
            if figure.stage is not stage:
                continue
            rows = await figure.measure(shared, figure.counts.tiny)
            assert rows and all(row.ours for row in rows), name
            assert any(row.peer for row in rows), name
            assert as_table(name, rows).count("\n") > len(rows)
            assert len(as_json(rows)) == len(rows)


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_measure_of_the_comparison_runs_and_tells_a_figure_of_each_peer():
    skip_without_native()
    asyncio.run(run_the_comparison())


async def run_the_comparison() -> None:
    async with AsyncExitStack() as stack:
        contenders, pooled, absent = await assembled(stack, [OURS])
        assert not absent
        for name, measure in MEASURES.items():
            figures = await measure(Field(contenders, pooled), TINY)
            assert figures, name
            for figure in figures:
                assert figure.samples[OURS], (name, figure.notes)
                assert as_text(figure).count("\n") > len(figure.samples)
            assert any(set(figure.samples) > {OURS} for figure in figures), name
