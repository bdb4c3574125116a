"""Cells that are run for somebody in this process, and what became of each."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from cellgate.errors import Draining, TooManyClients, UnknownSession, UsageError
from cellgate.live.follower import Follower
from cellgate.live.wish import Wish
from cellgate.wire.agent import Execute
from tests.support.live import OWNER

BOUND = 30.0


async def run(live, code, cell=None, **options):
    with Follower(live, "me") as follower:
        return await asyncio.wait_for(follower.run(Execute(cell or uuid4().hex, code, **options)), BOUND)


async def running(live):
    async def wait():
        while live.session.running is None:
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), BOUND)


async def test_the_result_of_a_cell_has_all_that_it_said(live):
    result = await run(live, cell="c", code="import sys\nprint('out')\nprint('err', file=sys.stderr)\n1 + 1")
    assert (result.status, result.reason, result.stdout, result.cell) == ("ok", "ok", "out\n", "c")
    assert result.stderr == "err\n"
    assert result.result == {"text/plain": "2"}
    assert result.seq > 0


async def test_who_comes_when_the_session_has_just_ended_is_told_so(live):
    """Whoever had found it before was let in, and waited for good: nobody was there any more who says that."""
    await live.delete()

    async def is_forgotten():
        while live in live._host.all_sessions():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(is_forgotten(), BOUND)
    with pytest.raises(UnknownSession):
        await asyncio.wait_for(run(live, "1"), BOUND)


async def test_an_error_is_a_result(live):
    result = await run(live, "1 / 0")
    assert (result.status, result.reason) == ("error", "error")
    assert result.error["name"] == "ZeroDivisionError"
    assert result.error["traceback"]


async def test_cells_in_a_row_share_a_kernel_and_are_told_apart(live):
    told = []
    with Follower(live, "me", told.append) as follower:
        results = [
            await asyncio.wait_for(follower.run(Execute(f"c{n}", f"x = {n}\nprint(x)")), BOUND) for n in range(3)
        ]
        together = await asyncio.wait_for(
            asyncio.gather(*(follower.run(Execute(f"d{n}", "print(x)")) for n in range(3))), BOUND
        )
    assert [result.stdout for result in results] == ["0\n", "1\n", "2\n"]
    assert [(result.cell, result.stdout) for result in together] == [("d0", "2\n"), ("d1", "2\n"), ("d2", "2\n")]
    assert [event["cell"] for event in told if event["event"] == "finished"] == ["c0", "c1", "c2", "d0", "d1", "d2"]


async def test_a_cell_that_is_not_accepted_has_a_result_too(live):
    result = await run(live, "x" * (live.session.limits.code_bytes + 1))
    assert (result.status, result.reason) == ("error", "policy_denied")
    assert "would pass" in result.sentence


async def test_cells_of_others_are_not_told(live):
    told = []
    with Follower(live, "me", told.append) as follower, Follower(live, "you") as other:
        await asyncio.wait_for(other.run(Execute("theirs", "print(1)")), BOUND)
        await asyncio.wait_for(follower.run(Execute("mine", "print(2)")), BOUND)
    assert {event["cell"] for event in told} == {"mine"}


async def test_whoever_is_cancelled_leaves_the_session_and_the_cell_goes_on(live):
    with Follower(live, "me") as follower:
        task = asyncio.ensure_future(
            follower.run(Execute("long", "import time\nfor _ in range(50): time.sleep(0.01)\nx = 7"))
        )
        await running(live)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert live.connections == 0
    assert (await run(live, "x")).result == {"text/plain": "7"}


async def test_the_end_of_a_session_ends_the_wait_with_a_result(manager):
    live = await manager.create(OWNER, Wish())
    await live.started()
    with Follower(live, "me") as follower:
        task = asyncio.ensure_future(follower.run(Execute("c", "import time\ntime.sleep(60)")))
        await running(live)
        await live.delete()
        result = await asyncio.wait_for(task, BOUND)
    assert result.reason == "session_deleted"


async def test_what_is_asked_of_a_session_that_is_over_is_told_so(manager):
    live = await manager.create(OWNER, Wish())
    await live.started()
    with Follower(live, "me") as follower:
        await live.delete()
        with pytest.raises(UnknownSession):
            await asyncio.wait_for(follower.run(Execute("c", "1")), BOUND)


async def test_the_end_of_the_server_ends_the_wait_with_an_error(open_one):
    manager = await open_one()
    live = await manager.create(OWNER, Wish())
    await live.started()
    with Follower(live, "me") as follower:
        task = asyncio.ensure_future(follower.run(Execute("c", "import time\ntime.sleep(60)")))
        await running(live)
        await manager.close(end_sessions=False)
        with pytest.raises(Draining):
            await asyncio.wait_for(task, BOUND)
    await open_one()  # takes over what was left, and ends it


async def test_there_are_no_more_than_the_session_may_have(manager):
    live = await manager.create(OWNER, Wish(limits={"clients_per_session": 1}))
    with Follower(live, "me"), pytest.raises(TooManyClients):
        Follower(live, "you").__enter__()


async def test_a_cell_that_is_asked_for_again_is_the_same_also_when_it_has_finished(live):
    first = await run(live, "import uuid\nprint(uuid.uuid4())", "again")
    assert await run(live, "import uuid\nprint(uuid.uuid4())", "again") == first
    with Follower(live, "me") as follower:
        await asyncio.wait_for(follower.run(Execute("other", "print(2)")), BOUND)
        assert (
            await asyncio.wait_for(follower.run(Execute("again", "import uuid\nprint(uuid.uuid4())")), BOUND) == first
        )


async def test_another_cell_of_a_known_id_is_refused(live):
    await run(live, "1", "again")
    with pytest.raises(UsageError, match="would pass"):
        await run(live, "2", "again")


async def test_a_cell_whose_outcome_is_no_longer_kept_is_told_so(manager):
    limits = {"journal_bytes_per_session": 1 << 20, "output_bytes_per_cell": 1 << 20}
    live = await manager.create(OWNER, Wish(limits=limits))
    await run(live, "1", "first")
    for number in range(6):
        await run(live, "for _ in range(10): print('x' * 50_000)", f"c{number}")
    assert live.journal.first_seq > live.session.accepted_at("first")
    with pytest.raises(UsageError, match="no longer kept"):
        await run(live, "1", "first")
