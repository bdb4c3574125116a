"""Every promise names a test or a bench that there is, and what tests behaviour is named by a promise."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.bench.__main__ import FIGURES
from tests.docs.specification import BEGIN, DOCUMENT, END, NOT_YET, promises, targets, targets_as_markdown
from tests.hostile.rows import ROWS

TESTS = Path(__file__).parents[1]
PROMISES = list(promises(DOCUMENT.read_text()))
SHOWN = [word for promise in PROMISES for word in promise.shown_by]

# These test no promise to those who use the service, but the parts it is made of, the documents, and the tests.
NO_PROMISES = {"bench", "docs", "fuzz", "hostile", "server", "support"}


def names_in(path: Path) -> set[str]:
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_promise_is_shown_or_says_that_it_is_not():
    assert len(PROMISES) > 60
    assert not [promise.sentence for promise in PROMISES if not promise.shown_by]
    assert not [p.sentence for p in PROMISES if NOT_YET in p.shown_by and len(p.shown_by) > 1]
    assert len({promise.sentence for promise in PROMISES}) == len(PROMISES)


@pytest.mark.parametrize("word", sorted({*SHOWN} - {NOT_YET}))
def test_what_shows_a_promise_is_there(word: str):
    kind, _, name = word.partition(" ")
    if kind == "rows":
        assert any(row.id.startswith(name) and row.shown_by for row in ROWS), "no row has this letter"
    elif kind == "bench":
        assert name in FIGURES, f"the benches are {', '.join(FIGURES)}"
    else:
        path, _, name = word.partition("::")
        assert (TESTS / path).is_file(), "no such file of tests"
        assert not name or name in names_in(TESTS / path), "no test of this name is in that file"


def test_every_file_of_conformance_and_of_faults_is_named_by_a_promise():
    files = {
        path.relative_to(TESTS).as_posix()
        for name in ("conformance", "faults")
        for path in TESTS.glob(f"{name}/test_*")
    }
    assert not files - {word.partition("::")[0] for word in SHOWN}


def test_every_directory_of_tests_is_named_by_a_promise():
    there = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("*/test_*.py")}
    assert there - NO_PROMISES == {word.partition("/")[0] for word in SHOWN if "/" in word} - NO_PROMISES


def test_every_row_of_the_hostile_suite_and_every_bench_with_a_target_is_named_by_a_promise():
    assert {row.id[0] for row in ROWS} == {word.removeprefix("rows ") for word in SHOWN if word.startswith("rows ")}
    assert not {f"bench {target.figure}" for target in targets()} - {*SHOWN}


def test_the_targets_are_those_of_the_benches():
    rendered = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    assert rendered == targets_as_markdown(), "python -m tests.docs.specification writes them"
