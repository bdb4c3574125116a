"""An agent's long session in small: `python -m tests.faults.agent` runs it whole."""

from __future__ import annotations

import pytest

from cellgate.wire.agent import Execute
from tests.faults.agent import Plan, run_agent
from tests.faults.stage import create
from tests.support.agent import attached, text_of
from tests.support.server import served

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", [1, 2])
async def test_an_agent_sees_every_event_once_whatever_is_cut_and_killed(seed: int):
    report = await run_agent(Plan(seed, cells=200, drops=8, kills=2))
    assert not report.faults, str(report)
    assert (report.drops, report.kills) == (8, 2)


async def test_a_cell_that_had_finished_is_known_to_the_next_gateway_and_does_not_run_again():
    code = "n = globals().get('n', 0) + 1\nprint(n)"
    async with served(env={"CELLGATE_DRIVER": "native"}) as server:
        place = await create(server)
        async with attached(*place) as agent:
            first = await agent.run(code, id="once")
        await server.kill_gateway()
        await server.wait_ready()
        async with attached(*place, since=0) as agent:
            assert await agent.end_of("once") == first, "its events are as they were"
            await agent.send(Execute("once", code))
            reply = await agent.named("reply")
            assert (reply["was"], reply["accepted"]) == ("finished", first[0]["seq"])
            assert text_of(await agent.run(code, id="twice")) == "2\n"
