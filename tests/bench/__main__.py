"""`python -m tests.bench [FIGURE ...] [--quick] [--json] [--count N]`: see README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from tests.bench import interrupt, latency, memory, output, start, sustained
from tests.bench.gateway import agent as gateway_agent
from tests.bench.gateway import audit, idle, policy, relay, rest, stall, throughput
from tests.bench.gateway import command as gateway_command
from tests.bench.gateway import files as gateway_files
from tests.bench.gateway import interrupt as gateway_interrupt
from tests.bench.gateway import latency as gateway_latency
from tests.bench.gateway import output as gateway_output
from tests.bench.gateway import start as gateway_start
from tests.bench.gateway import sustained as gateway_sustained
from tests.bench.gateway.servers import Stage
from tests.bench.harness import Counts, Row, as_json, as_table, conditions
from tests.bench.peers import Bench


@dataclass(frozen=True)
class Figure:
    title: str
    counts: Counts
    measure: Callable[[Any, int], Awaitable[list[Row]]]
    stage: Callable[[], AbstractAsyncContextManager[Any]] = Bench  # what it is measured on, for this figure alone


FIGURES = {
    "start": Figure("From nothing to the first answer", start.COUNTS, start.measure),
    "sustained": Figure("One sandbox after the other", sustained.COUNTS, sustained.measure),
    "memory": Figure("Own memory of an idle session", memory.COUNTS, memory.measure),
    "latency": Figure("A warm cell", latency.COUNTS, latency.measure),
    "output": Figure("Floods of output", output.COUNTS, output.measure),
    "interrupt": Figure("An interrupt", interrupt.COUNTS, interrupt.measure),
    **{
        f"gateway_{name}": Figure(title, module.COUNTS, module.measure, Stage)
        for name, title, module in (
            ("start", "From POST to the first answer", gateway_start),
            ("latency", "A warm cell through the websocket", gateway_latency),
            ("agent", "A warm cell over an agent's websocket; the peer is the v1 websocket", gateway_agent),
            ("rest", "Code run over REST; the peers are named in `rest.py`", rest),
            ("policy", "What judging costs a cell; the peer judges nothing", policy),
            ("audit", "What the audit log costs; the peer is a server without one", audit),
            ("throughput", "Warm cells in many sessions at once", throughput),
            ("relay", "What a relayed message costs", relay),
            ("output", "Floods of output through the websocket", gateway_output),
            ("interrupt", "An interrupt through the gateway", gateway_interrupt),
            ("sustained", "Sessions come and go", gateway_sustained),
            ("files", "A large file in and out", gateway_files),
            ("command", "The command line and the SDK; the peer is an interpreter, and an event loop", gateway_command),
            ("idle", "Sessions that do nothing", idle),
            ("stall", "A client that stops reading", stall),
        )
    },
}


async def run(names: list[str], *, quick: bool, count: int | None, tables: bool) -> dict[str, Any]:
    """Measure, each figure on a stage of its own, and tell each as it comes."""
    figures: dict[str, Any] = {}
    for name in names:
        figure = FIGURES[name]
        times = count or (figure.counts.quick if quick else figure.counts.full)
        before = conditions()
        async with figure.stage() as stage:
            rows = await figure.measure(stage, times)
        figures[name] = {"count": times, "before": before, "load_after": conditions()["load"], "rows": as_json(rows)}
        if tables:
            told = ", ".join(f"{key} {value}" for key, value in before.items())
            print(as_table(f"\n{name}: {figure.title} ({told}, then {conditions()['load']})", rows), flush=True)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Cellgate beside stock ipykernel, and its gateway beside Jupyter's."
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer samples, for a first look")
    parser.add_argument("--json", action="store_true", help="an object instead of tables")
    parser.add_argument("--count", type=int, metavar="N", help="how often, instead of the figure's own count")
    given = parser.parse_args()
    if unknown := set(given.figures) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    if given.count is not None and given.count < 1:
        parser.error("--count must be at least 1")
    names = given.figures or list(FIGURES)
    figures = asyncio.run(run(names, quick=given.quick, count=given.count, tables=not given.json))
    if given.json:
        json.dump(figures, sys.stdout, indent=1)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
