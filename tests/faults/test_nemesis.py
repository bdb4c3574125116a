"""A round of the nemesis in small, and that its verdicts find what they look for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.nemesis import FAULTS, Plan, Report, as_text, check_saved, draw, run_round
from tests.faults.verdicts import EXPLAINS, LOSES_VARIABLES, History, Strike, Told, check_history, recoveries

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

LINES = 3


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_nothing_is_lost_doubled_left_or_unexplained_whatever_strikes():
    report = await run_round(Plan(seed=1, seconds=12.0, sessions=3))  # other seeds: `python -m tests.faults smoke`
    print(as_text(report.figures))
    assert not report.tally.faults, as_text(report.figures)
    assert report.tally.cells > 0


# -- the draw ----------------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_faults_and_another_seed_others():
    assert draw(Plan(7)) == draw(Plan(7)) != draw(Plan(8))


def test_a_round_draws_every_fault():
    assert {drawn.what for drawn in draw(Plan(1))} == set(FAULTS) == set(EXPLAINS) >= LOSES_VARIABLES


# -- the verdicts ------------------------------------------------------------------------------------------


def told(number: int, counter: int, *, status: str = "ok", reason: str = "ok") -> Told:
    text = "".join(f"s0 {number} {i} {counter}\n" for i in range(LINES))
    return Told(f"s0-cell-{number}", number, LINES, number + 0.0, number + 0.5, 1, 1, 1, status, reason, text)


def history(cells: list[Told]) -> History:
    once = dict.fromkeys((cell.id for cell in cells), 1)
    return History("s0", cells, [cell.number for cell in cells if cell.began], (), once, once)


def good() -> History:
    """Cell 1 was interrupted after a line and a half, cell 2 waited behind it; before cell 4 the kernel was killed."""
    return history([
        told(0, 1),
        replace(told(1, 2, status="error", reason="interrupted"), text="s0 1 0 2\ns0 1"),
        replace(told(2, 0, status="aborted", reason="cancelled"), text="", began=0),
        told(3, 3),
        told(4, 1),
    ])  # fmt: skip


STRIKES = [Strike("interrupt", "s0", 1.1, 1.2), Strike("kernel_kill", "s0", 3.6, 3.7), Strike("drop", "s1", 2.0, 2.0)]


def test_what_the_faults_explain_is_no_fault():
    tally = check_history(good(), STRIKES)
    assert (tally.faults, tally.cells, tally.lines, tally.lost, tally.doubled) == ([], 5, 11, 0, 0)


def cell_is(number: int, **otherwise: Any) -> Callable[[History], History]:
    """The same history, in which this cell is otherwise."""

    def change(before: History) -> History:
        cells = [replace(cell, **otherwise) if cell.number == number else cell for cell in before.cells]
        return replace(before, cells=cells)

    return change


WRONG = {
    "a lost line": (cell_is(0, text="s0 0 0 1\ns0 0 2 1\n"), "1 lines are lost"),
    "a doubled line": (cell_is(0, text="s0 0 0 1\n" * 2 + "s0 0 1 1\ns0 0 2 1\n"), "1 doubled"),
    "a lost line of a cell that failed": (cell_is(1, text="s0 1 1 2\n"), "1 lines are lost"),
    "no end": (cell_is(3, ended_at=None, replied=0, idled=0), "0 replies"),
    "two replies": (cell_is(3, replied=2), "2 replies"),
    "a cell that ran twice": (cell_is(3, began=2), "began 2 times"),
    "a cell that never began": (cell_is(3, began=0), "began 0 times"),
    "a failure of no cause": (cell_is(3, status="error", reason="kernel_exit"), "do not explain"),
    "a cause of another kind": (cell_is(1, reason="oom"), "do not explain"),
    "a lost variable": (cell_is(3, text="s0 3 0 1\ns0 3 1 1\ns0 3 2 1\n"), "the counter is 1 in cell 3"),
    "a message that came twice": (lambda h: replace(h, came_twice=["m7"]), "m7 came twice"),
    "a cell that was accepted twice": (lambda h: replace(h, accepted={**h.accepted, "s0-cell-0": 2}), "accepted 2"),
    "a cell without an end in the journal": (lambda h: replace(h, ended={**h.ended, "s0-cell-0": 0}), "ended 0 times"),
    "cells out of order": (lambda h: replace(h, ran=[1, 0, 3, 4]), "began as"),
    "a watcher that missed something": (lambda h: replace(h, watchers=["missed 3"]), "missed 3"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_found(what: str):
    change, sentence = WRONG[what]
    assert any(sentence in fault for fault in check_history(change(good()), STRIKES).faults)


def test_without_the_strikes_their_traces_are_faults():
    found = check_history(good(), []).faults
    assert [sentence.partition(",")[0] for sentence in found] == [
        "s0: cell 1 ended as interrupted",
        "s0: the counter is 1 in cell 4",
    ]


def test_a_strike_is_over_when_each_session_it_met_ends_a_later_cell_well():
    other = replace(history([told(5, 1)]), nonce="s1")
    strikes = [Strike("drop", "s0", 0.0, 0.1), Strike("gateway_kill", "", 0.0, 1.0), Strike("drop", "s0", 9.0, 9.0)]
    assert recoveries([good(), other], strikes) == {"drop": [pytest.approx(3.4)], "gateway_kill": [4.5]}


def test_a_round_that_was_kept_is_judged_as_it_was(tmp_path):
    report = Report(Plan(7), STRIKES, [cell_is(3, replied=2)(good())], ["a process"], [], 9.0)
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(report.as_json()))
    again = check_saved(path)
    assert again.figures == report.figures
    assert len(again.figures["faults"]) == 2
    assert "2 replies" in as_text(again.figures)
