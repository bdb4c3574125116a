"""`cellgate top`: what it shows of a server's statistics, and what it asks of whom."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from rich.console import Console

from cellgate.commands.top import LINES, rows_of, sparkline, view
from cellgate.metrics.history import History, Sample
from cellgate.metrics.tally import COUNTERS
from tests.support.server import BOUND, served

STATS = {
    "at": 1_800_000_000.0,
    "now": {"sessions": [{"state": "busy", "kernel": "python3", "count": 7}]},
    "counts": {"cells_finished": [{"reason": "ok", "count": 41}, {"reason": "oom", "count": 1}], "denials": []},
    "history": {
        **{name: [0.0] * 3 for name in vars(Sample(*[0] * 13))},
        "cells_per_second": [0.0, 4.0, 8.0],
        "memory_bytes": [0, 0, 512 << 20],
        "loop_lag_seconds": [0.0, 0.0, 0.0031],
    },
}


def test_a_sparkline_rises_with_its_values_and_fits_its_width():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    for count in range(1, 200):
        assert len(sparkline(list(range(count)), 48)) <= 48
    assert sparkline([0] * 100 + [9], 10)[-1] == "█"


def test_each_line_says_what_is_now_in_words_of_its_unit():
    rows = {name: (now, hour) for name, now, hour in rows_of(STATS)}
    assert rows["cells"] == ("8.0/s", "▁▅█")
    assert rows["memory"][0] == "512 MiB"
    assert rows["loop lag"][0] == "3.1 ms"


def test_a_server_without_a_history_is_shown():
    assert rows_of({"history": History().to_json()})[0] == ("sessions", "", "")


def test_what_it_shows_is_what_the_server_tells():
    columns = set(History().to_json())
    assert {column for _, column, _ in LINES} <= columns
    from cellgate.commands.top import TABLES

    assert all(label in COUNTERS[counter][1] for _, counter, label in TABLES)


def test_a_view_has_all_of_it():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(view("http://127.0.0.1:8890", STATS))
    text = console.export_text()
    for words in ("http://127.0.0.1:8890", "busy", "python3", "oom", "8.0/s", "512 MiB"):
        assert words in text
    assert "denials" not in text


@pytest.mark.native
async def test_a_real_server_is_shown_to_whoever_has_its_token():
    async with served("--profile", "testing") as server:

        async def top(*words: str, token: str = server.token) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cellgate", "top", *words, "--server", server.url,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                env={**server._env, "CELLGATE_TOKEN": token},
            )  # fmt: skip
            said, _ = await asyncio.wait_for(process.communicate(), BOUND)
            return process.returncode, said.decode()

        status, said = await top("--json")
        assert status == 0
        assert set(json.loads(said)) == {"at", "now", "counts", "history"}
        status, said = await top("--once")
        assert (status, "loop lag" in said) == (0, True)
        assert (await top("--once", token="wrong" * 8))[0] == 2
