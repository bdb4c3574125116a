"""JupyterLab's own client library, `@jupyterlab/services`, in Node."""

from __future__ import annotations

import re

import pytest

from tests.clients.conftest import HERE

FILE = HERE / "node" / "services.js"
SCENARIOS = re.findall(r'^scenario\("(.+?)"', FILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_jupyterlab(scenario, node, server, tmp_path):
    node.play(server, tmp_path, FILE, scenario)
