"""What agents run code with: AutoGen, AG2 and smolagents, each as PyPI has it, in a Python of their own."""

from __future__ import annotations

import pytest

from tests.clients.conftest import HERE


@pytest.mark.parametrize("name", ["ag2", "autogen", "smolagents"])
def test_an_agent(name, agents, server, tmp_path):
    agents.play(server, tmp_path, HERE / "agents" / f"play_{name}.py")
    assert server.ask("/api/kernels") == []
