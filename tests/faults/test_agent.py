"""An agent's long session in small: `python -m tests.faults.agent` runs it whole."""

from __future__ import annotations

import pytest

from tests.faults.agent import Plan, run_agent

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_agent_sees_every_event_once_whatever_is_cut_and_killed(seed: int):
    report = await run_agent(Plan(seed, cells=200, drops=8, kills=2))
    assert not report.faults, str(report)
    assert (report.drops, report.kills) == (8, 2)
