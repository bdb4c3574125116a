"""PROTOCOL.md's chapter on REST for agents says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from cellgate.gateway import bodies
from cellgate.gateway.v1 import executes, runs, streams, wishes
from cellgate.live import oneshots, scripts, shares
from cellgate.wire import rendering
from cellgate.wire.result import Result

PAGE = (Path(__file__).parents[2] / "server" / "PROTOCOL.md").read_text()
CHAPTER = PAGE.partition("\n## REST for agents\n")[2].partition("\n## ")[0]
WORDS = " ".join(CHAPTER.split())


def rows(head: str) -> dict[str, list[str]]:
    """Of the table that begins so, by the name in the first column."""
    lines = CHAPTER.partition(f"| {head} |")[2].splitlines()[2:]
    table: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("| `"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table[name.strip("`")] = cells
    return table


def test_the_fields_of_a_result():
    assert list(rows("result")) == list(Result().to_json())


def test_limits():
    known = {
        name: value
        for module in (executes, runs, wishes, oneshots, shares, scripts, bodies)  # what is imported comes first
        for name, value in vars(module).items()
        if name.isupper()
    }
    table = rows("limit of REST for agents")
    assert {name: int(cells[0]) for name, cells in table.items()} == {name: known[name] for name in table}
    assert len(table) > 10


def test_numbers_in_the_text():
    assert f"an answer holds {executes.MAX_RESULT_BYTES >> 20} MiB" in WORDS
    assert f"of `max_chars` ({rendering.DEFAULT_CHARS}) characters" in WORDS
    assert f"A comment each {streams.KEEP_ALIVE_SECONDS:g} s" in WORDS
    assert f"may run for `timeout` ({runs.DEFAULT_SECONDS:g}) seconds" in WORDS
    assert f"A principal may have {shares.MAX_WAITING_EACH} waiting" in WORDS
    assert f"up to {runs.MAX_BATCH} `runs`" in WORDS
    assert f"each of {runs.MIN_ITEM_BYTES >> 10} KiB at least" in WORDS
    assert f"up to {scripts.MAX_VERSIONS} former versions" in WORDS
    assert oneshots.ROOM_SECONDS == 60 and "waits for a minute" in WORDS


def test_every_way_is_in_the_text_that_bodies_know():
    for name in ("kernel", "language", "template", "profile", "limits", "env", "name", "metadata", "idempotency_key"):
        assert f"`{name}`" in CHAPTER and name in wishes.WISH_NAMES
    for name in runs.RUN_NAMES[1:7]:
        assert re.search(f"`{name}`", CHAPTER), name
