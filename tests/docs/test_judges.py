"""The table of judges has the versions that are asked for and the cases that there are, where that is cheap to know."""

from __future__ import annotations

import json
import re
import unittest
from pathlib import Path

import pytest

from tests.clients.test_jupyter_server import BEHIND
from tests.clients.test_jupyterlab_services import SCENARIOS
from tests.conformance.test_jupyter_kernel_test import StockIpykernel
from tests.gateway import test_autobahn_cases, test_schemathesis

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests/clients"
NODE = json.loads((CLIENTS / "node/package.json").read_text())["dependencies"]
TABLE = (CLIENTS / "README.md").read_text().partition("<!-- judges")[2].partition("<!-- end of judges")[0]
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")] for line in TABLE.splitlines() if line.startswith("| ")
]
JUDGES = {row[0].replace("`", ""): row for row in ROWS}


def test_every_row_names_tests_that_there_are():
    for row in ROWS[1:]:
        assert len(row) == 6, row
        for path in re.findall(r"`(\w+/\w+\.py)`", row[2]):
            assert (ROOT / "tests" / path).is_file(), path


@pytest.mark.parametrize(
    ("judge", "version"),
    [
        *re.findall(r"^(smolagents|autogen|ag2)\S*?==(\S+)$", (CLIENTS / "agents/requirements.txt").read_text(), re.M),
        ("@jupyterlab/services", NODE["@jupyterlab/services"]),
        ("Autobahn's test suite, its cases", re.findall(r"suite \((\S+)\)", test_autobahn_cases.__doc__ or "")[0]),
    ],
)  # fmt: skip
def test_a_version_is_the_one_that_is_tried(judge: str, version: str):
    (row,) = (row for name, row in JUDGES.items() if name.lower() == judge.lower())
    assert row[1] == version


@pytest.mark.parametrize("package", ["jupyter_kernel_test", "schemathesis", "jupyter-kernel-client", "mcp"])
def test_a_version_that_may_be_newer_is_the_one_that_is_asked_for(package: str):
    (wanted,) = re.findall(rf'"{package}>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    (row,) = (row for name, row in JUDGES.items() if package in name or (package == "mcp" and "MCP" in name))
    assert row[1] == f"{wanted} or newer"


def test_cases_are_counted_as_there_are():
    loaded = unittest.defaultTestLoader.loadTestsFromTestCase(StockIpykernel)
    for judge, count in {
        "jupyter_kernel_test": loaded.countTestCases(),
        "Autobahn's test suite, its cases": len(test_autobahn_cases.CASES),
        "@jupyterlab/services": len(SCENARIOS) + 1,  # and over the death of a gateway
        "the same, before a stock Jupyter Server whose kernels are ours": len(BEHIND) + 1,  # and listed no more
    }.items():
        assert JUDGES[judge][3] == str(count), judge
    agents = {path.stem.removeprefix("play_") for path in (CLIENTS / "agents").glob("play_*.py")}
    assert agents <= {judge.lower() for judge in JUDGES}


def test_what_schemathesis_is_not_asked_is_named():
    row = JUDGES["schemathesis"]
    assert set(re.findall(r"`(.+?)`", row[5])) == set(test_schemathesis.EXCLUDED.split("|"))
