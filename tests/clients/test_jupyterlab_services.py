"""JupyterLab's own client library, `@jupyterlab/services`, in Node."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest

from tests.clients.conftest import AGAINST, HERE, Server
from tests.support.server import served

FILE = HERE / "node" / "services.js"
SCENARIOS = re.findall(r'^scenario\("(.+?)"', FILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_jupyterlab(scenario, node, server, tmp_path):
    node.play(server, tmp_path, FILE, scenario)


@pytest.mark.skipif(AGAINST != "cellgate", reason="its kernels end with it")
async def test_jupyterlab_goes_on_over_the_death_of_a_gateway(node, tmp_path):
    async with served() as cellgate:
        victim = replace(node, environment=node.environment | {"GATEWAY_PID": str(cellgate.gateway_pid())})
        server = Server(cellgate.url, cellgate.token, cellgate.log)
        scenario = "a page goes on over the death of a gateway"
        await asyncio.to_thread(victim.play, server, tmp_path, FILE, scenario)
