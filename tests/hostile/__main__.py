"""`python -m tests.hostile [--driver native,docker,docker-runsc] [--report FILE] [PYTEST'S OWN ...]`

Runs every test that `rows.py` names, wherever it lies, and writes what it saw as a table: see REPORT.md. Whatever else
is given goes to pytest, `-n auto` for one.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import sys
import time
from collections.abc import Sequence
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
    text = render(ROWS, drivers, recorder.cases, conditions)
    given.report.write_text(text) if given.report else print(text)
    return int(status)


class Recorder:
    """The plugin: keeps how each case ended, of the drivers that were asked for."""

    def __init__(self, drivers: Sequence[str]) -> None:
        self.cases: list[Case] = []
        self._drivers = drivers

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before, bracket, inside = report.nodeid.partition("[")  # there may be colons in it
        test = before.rpartition("::")[2] + bracket + inside
        is_told = report.when == "call" or report.outcome != "passed"  # what is found afterwards is a failure too
        driver = "docker" if before.startswith("tests/docker/") else driver_of(test)
        if is_told and driver in self._drivers:
            reason = str(report.longrepr[2]) if report.skipped and isinstance(report.longrepr, tuple) else ""
            self.cases.append(Case(test, driver, report.outcome, reason))


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
