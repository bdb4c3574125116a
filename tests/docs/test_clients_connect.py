"""The table of clients in CLIENTS.md, against what the suite installs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "clients"


def pinned() -> list[tuple[str, str]]:
    npm = json.loads((CLIENTS / "node/package.json").read_text())["dependencies"]
    python = re.findall(r"^([\w-]+).*==(\S+)$", (CLIENTS / "agents/requirements.txt").read_text(), re.MULTILINE)
    return [("@jupyterlab/services", npm["@jupyterlab/services"]), *python]


@pytest.mark.parametrize(("client", "version"), pinned())
def test_the_manual_names_the_version_of_each_client_that_is_tried(client, version):
    table = (ROOT / "server/CLIENTS.md").read_text().split("<!-- clients")[1].split("<!-- end of clients")[0]
    (row,) = [
        line for line in table.splitlines() if re.search(rf"[ `]{re.escape(client)}[ `]", line.split(" | ")[0] + " ")
    ]
    assert row.split(" | ")[1] == version
