"""`python -m tests.hostile [--driver native,docker,docker-runsc] [--report FILE] [--cases FILE] [PYTEST'S OWN ...]`

Runs every test that `rows.py` names, wherever it lies, and writes what it saw as a table: see REPORT.md. Whatever else
is given goes to pytest, `-n auto` or `-k` for some. With `--cases` runs are added up: each driver at its own time.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.hostile.report import COLUMNS, Case, driver_of, render
from tests.hostile.rows import ROWS

HERE = Path(__file__).parent
TESTS = HERE.parent


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description="Attack, and tell what was withstood.")
    parser.add_argument("--driver", default="native", metavar="NAMES", help=f"of {', '.join(COLUMNS)}")
    parser.add_argument("--report", type=Path, help="where the table goes; without it, to standard output")
    parser.add_argument("--cases", type=Path, help="what earlier runs saw, and this one adds to: the latest counts")
    given, rest = parser.parse_known_args(words)
    drivers = given.driver.split(",")
    if unknown := set(drivers) - set(COLUMNS):
        parser.error(f"no driver is called {', '.join(sorted(unknown))}; known are {', '.join(COLUMNS)}")
    chosen = ["-m", "docker"] if "native" not in drivers else ["-m", "not docker"] if drivers == ["native"] else []
    os.environ["CELLGATE_HOSTILE_GVISOR"] = str(int("docker-runsc" in drivers))
    recorder = Recorder(drivers)
    names = {name for row in ROWS for name in row.shown_by}
    status = pytest.main(["-p", "no:cacheprovider", "-q", *chosen, *rest, *nodes(names)], plugins=[recorder])
    conditions = {
        "made": time.strftime("%Y-%m-%d"),
        "host": f"Linux {platform.release()}, {platform.machine()}, Python {platform.python_version()}",
    }
    cases = {(case.test, case.driver): case for case in [*read_cases(given.cases), *recorder.latest()]}
    if given.cases:
        given.cases.write_text(json.dumps([asdict(case) for case in cases.values()]))
    columns = [name for name in COLUMNS if name in drivers or any(case.driver == name for case in cases.values())]
    text = render(ROWS, columns, list(cases.values()), conditions)
    given.report.write_text(text) if given.report else print(text)
    return int(status)


def read_cases(path: Path | None) -> list[Case]:
    return [Case(**case) for case in json.loads(path.read_text())] if path and path.exists() else []


class Recorder:
    """The plugin: keeps how each case ended, of the drivers that were asked for."""

    def __init__(self, drivers: Sequence[str]) -> None:
        self._cases: list[Case] = []
        self._drivers = drivers

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before, bracket, inside = report.nodeid.partition("[")  # there may be colons in it
        test = before.rpartition("::")[2] + bracket + inside
        is_told = report.when == "call" or report.outcome != "passed"  # what is found afterwards is a failure too
        driver = "docker" if before.startswith("tests/docker/") else driver_of(test)
        if is_told and driver in self._drivers:
            said = str(report.longrepr[2]) if report.skipped and isinstance(report.longrepr, tuple) else ""
            self._cases.append(Case(test, driver, report.outcome, said.removeprefix("Skipped: ")))

    def latest(self) -> list[Case]:
        """Each once. A case that passed and left something is told twice, and has failed."""
        return sorted(self._cases, key=lambda case: case.outcome == "failed")


def nodes(names: set[str]) -> list[str]:
    """Where these tests lie, as pytest calls them."""
    return [
        f"{path}::{node.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in names
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
