"""The table of attacks and the tests that show them say the same."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from tests.hostile.differences import ALWAYS_OVER_GVISOR, DIFFERENCES, GVISOR
from tests.hostile.rows import ROWS

HERE = Path(__file__)


def names_of_tests(paths: Iterable[Path] = tuple(HERE.parent.glob("test_*.py"))) -> list[str]:
    return [
        node.name
        for path in paths
        if path != HERE
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    ]


def test_every_row_names_tests_that_exist_or_says_why_none_does():
    known = set(names_of_tests(HERE.parents[1].rglob("test_*.py")))
    for row in ROWS:
        assert row.shown_by or row.left_out, row.id
        assert not set(row.shown_by) - known, row.id
        assert row.stands_for


def test_every_test_shows_a_row():
    shown = {name for row in ROWS for name in row.shown_by}
    assert not set(names_of_tests()) - shown


def test_every_difference_between_drivers_names_a_test_that_exists():
    known = set(names_of_tests())
    for driver, found in DIFFERENCES.items():
        assert not {name.partition("[")[0] for name in found} - known, driver
        assert all(found.values())


def test_what_runs_always_over_gvisor_is_there_and_holds():
    assert not set(ALWAYS_OVER_GVISOR) - set(names_of_tests())
    assert not ALWAYS_OVER_GVISOR & set(GVISOR)


def test_no_row_and_no_test_stands_twice():
    for names in ([row.id for row in ROWS], names_of_tests()):
        assert sorted(names) == sorted(set(names))
