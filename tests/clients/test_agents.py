"""What agents run code with: AutoGen, AG2 and smolagents, each as PyPI has it, in a Python of their own."""

from __future__ import annotations

import pytest

from tests.clients.conftest import HERE, scenarios

PLAYS = [(file, name) for file in sorted((HERE / "agents").glob("*.py")) for name in scenarios(file)]


@pytest.mark.parametrize(("file", "scenario"), PLAYS, ids=[f"{file.stem}: {name}" for file, name in PLAYS])
def test_agents(file, scenario, agents, server, tmp_path):
    agents.play(file, scenario, server, tmp_path)
    assert server.ask("/api/kernels") == []
