"""What lies in images/deploy is true: the dashboard knows our metrics, the units start what there is."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cellgate.cli import COMMANDS, make_parser
from cellgate.metrics.prometheus import GAUGES
from cellgate.metrics.tally import COUNTERS, HISTOGRAMS
from tests.support.server import BOUND, served, until

DEPLOY = Path(__file__).parents[2] / "images" / "deploy"
METRICS = (
    {f"cellgate_{name}_total": labels for name, (_, labels) in COUNTERS.items()}
    | {f"cellgate_{name}": labels for name, (_, labels) in GAUGES.items()}
    | {f"cellgate_{name}_bucket": ("le",) for name in HISTOGRAMS}
)
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def unit(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # as its documentation has it
    parser.read(DEPLOY / name)
    return parser["Service"]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_asks_for_what_there_is(expression):
    names = re.findall(r"cellgate_\w+", expression)
    assert names
    for name in names:
        labels = re.findall(r"by \((\w+)\)", expression)
        assert set(labels) <= set(METRICS[name])


def test_the_dashboard_shows_every_kind_of_trouble():
    text = " ".join(EXPRESSIONS)
    for name in ("kernels_ended", "cells_refused", "denials", "limits_hit", "tokens_refused", "loop_lag_seconds"):
        assert f"cellgate_{name}" in text


def test_what_the_page_tells_to_do_can_be_done():
    page = (DEPLOY / "README.md").read_text()
    for words in re.findall(r"`cellgate ([^`]+)`", page):
        assert words.split()[0] in COMMANDS
    for name in ("cellgate.service", "cellgate-warden.service", "grafana.json"):
        assert name in page


def test_the_gateways_unit_says_what_the_command_takes():
    service = unit("cellgate.service")
    words = shlex.split(service["ExecStart"])
    assert words[0].endswith("/cellgate")
    make_parser().parse_args(words[1:])
    assert service["KillMode"] == "process"
    assert "-HUP" in service["ExecReload"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_units(tmp_path):
    paths = []
    for name in ("cellgate.service", "cellgate-warden.service"):
        path = tmp_path / name
        path.write_text((DEPLOY / name).read_text().replace("/opt/cellgate/.venv/bin/cellgate", "/bin/true"))
        paths.append(str(path))
    found = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, timeout=BOUND)
    ours = [line for line in found.stderr.splitlines() if "cellgate" in line and "Failed" not in line]
    assert not [line for line in ours if "Unknown" in line or "not executable" in line or "nvalid" in line]


@pytest.mark.native
@pytest.mark.skipif(os.geteuid() != 0, reason="the unit's command is root's")
async def test_a_gateway_takes_the_warden_that_its_unit_has_started():
    async with served("--profile", "testing", start=False) as server:
        (server.state_dir / "warden").mkdir(parents=True)
        for path in (server.state_dir, server.state_dir / "warden"):
            path.chmod(0o711)
        command = unit("cellgate-warden.service")["ExecStart"]
        command = command.replace("/opt/cellgate/.venv/bin/python", sys.executable)
        command = command.replace("/var/lib/cellgate/warden/socket", server.warden_path)
        command = command.replace('"$(id -u cellgate)"', "1899999999")
        warden = await asyncio.create_subprocess_exec(*shlex.split(command))
        try:
            await until(lambda: server.warden_pid() != 0)
            await server.start()
            assert server.warden_pid() == warden.pid
            assert (await server.fetch("POST", "/api/kernels")).status == 201
            assert (await server.fetch("GET", "/readyz")).status == 200
        finally:
            await server.end()
            await server.end_warden()
            await asyncio.wait_for(warden.wait(), BOUND)
