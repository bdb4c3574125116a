"""JupyterLab's own client library, `@jupyterlab/services`, in Node."""

from __future__ import annotations

import pytest

from tests.clients.conftest import HERE, scenarios

FILE = HERE / "node" / "services.js"


@pytest.mark.parametrize("scenario", scenarios(FILE))
def test_jupyterlab(scenario, node, server, tmp_path):
    node.play(FILE, scenario, server, tmp_path)
