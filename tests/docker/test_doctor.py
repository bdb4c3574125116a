"""The README's table of what holds is what the command prints: its rows are the probes', and what it calls held is held
over a real engine too."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cellgate.doctor.probes import PROBES
from tests.docker.conftest import OpenDriver

README = (Path(__file__).parents[2] / "README.md").read_text()
TABLE = re.search(r"<!-- table of the doctor -->\n```\n(.*?)\n```\n<!-- end of table -->", README, re.DOTALL)
COLUMNS = {"native": "native", "runc": "docker", "runsc": "gvisor", "process": "process"}  # and what promises there
WORDS = {
    True: {"ok": ("holds",), "weaker": ("weaker",)},
    False: {"(ok)": ("holds",), "(weaker)": ("weaker",), "-": ("missing",), "?": ("unknown",)},
}
BOUND = 300.0  # seconds for all columns; some 25 on an idle host
# What a host has, whatever the driver: on another than the one of the table it is another.
OF_HOSTS = ("host", "versions", "landlock")


def rows() -> dict[str, list[str]]:
    """The words of each row, by its title."""
    assert TABLE is not None
    lines = [line for line in TABLE[1].splitlines()[2:] if line.startswith("  ")]
    return {line[:44].strip(): line[44:].split() for line in lines}


def test_the_readmes_table_has_the_commands_columns_and_rows():
    assert TABLE is not None
    assert TABLE[1].splitlines()[1].split() == list(COLUMNS)
    assert list(rows()) == [probe.title for probe in PROBES]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.id)
def test_the_readmes_table_keeps_every_promise(probe):
    for word, kind in zip(rows()[probe.title], COLUMNS.values(), strict=True):
        assert word in WORDS[kind in probe.promised_by.split()]


@pytest.mark.docker
@pytest.mark.native
@pytest.mark.asyncio
async def test_the_readmes_table_is_what_the_command_finds_here(open_driver: OpenDriver):
    """Of a layer that the table calls held, the command says so on this host, or calls it weaker."""
    await open_driver(runtime="runsc")  # there is an engine, and it knows gVisor
    run = subprocess.run(
        [sys.executable, "-m", "cellgate", "doctor", "--driver", "all", "--json"],
        capture_output=True, text=True, timeout=BOUND, check=False,
    )  # fmt: skip
    reports = json.loads(run.stdout)["reports"]
    assert [report["runtime"] or report["driver"] for report in reports] == list(COLUMNS)
    assert [report["driver"] for report in reports] == list(COLUMNS.values())
    for at, report in enumerate(reports):
        for finding in report["findings"]:
            said = rows()[finding["title"]][at]
            if said == "ok" and finding["layer"] not in OF_HOSTS:
                assert finding["mark"] in ("holds", "weaker"), (report["driver"], finding)
    assert run.returncode == 0, run.stdout
