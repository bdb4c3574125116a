"""What happens is told to each listener, whatever the others do with it."""

from __future__ import annotations

import asyncio

import pytest

from cellgate.live.happenings import (
    CellAccepted,
    CellFinished,
    ClientJoined,
    ClientLeft,
    Happenings,
    KernelEnded,
    KernelStarted,
    SessionCreated,
    SessionEnded,
    UsageSampled,
    VerdictGiven,
    Who,
)
from cellgate.live.wish import Wish
from cellgate.sandbox.base import Usage
from tests.support.live import BOUND, OWNER, Client, create
from tests.support.server import until

ENDED = SessionEnded(Who("ada", "s1"), "session_deleted")


def test_each_listener_hears_everything_in_order():
    happenings, heard = Happenings(), []
    happenings.listen(lambda happening: heard.append(("first", happening)))
    happenings.listen(lambda happening: heard.append(("second", happening)))
    happenings.tell(ENDED)
    assert heard == [("first", ENDED), ("second", ENDED)]


def test_a_listener_that_fails_harms_nobody(caplog):
    happenings, heard = Happenings(), []

    def fail(happening):
        raise OSError("the disk is full")

    happenings.listen(fail)
    happenings.listen(heard.append)
    happenings.tell(ENDED)
    assert heard == [ENDED]
    assert "SessionEnded was told to a listener that failed" in caplog.text


def test_who_listens_no_more_is_told_no_more():
    happenings, heard = Happenings(), []
    end = happenings.listen(heard.append)
    end()
    end()
    happenings.tell(ENDED)
    assert heard == []


@pytest.mark.asyncio
async def test_a_sessions_life_is_told_from_its_creation_to_its_end(manager):
    told, begun, over = [], asyncio.Event(), asyncio.Event()
    events = {KernelStarted: begun, KernelEnded: over}

    def hear(happening):
        told.append(happening)
        if event := events.get(type(happening)):
            event.set()

    manager.happenings.listen(hear)
    live = await manager.create(OWNER, Wish())
    client = Client(live)
    await asyncio.wait_for(begun.wait(), BOUND)
    await client.run("6 * 7")
    client.leave()
    await live.delete()
    await asyncio.wait_for(over.wait(), BOUND)
    wanted = [SessionCreated, KernelStarted, CellAccepted, VerdictGiven, CellFinished, SessionEnded, KernelEnded]
    when_it_likes = ClientJoined | ClientLeft | UsageSampled
    assert [type(h) for h in told if not isinstance(h, when_it_likes)] == wanted
    accepted, finished = (next(h for h in told if isinstance(h, kind)) for kind in (CellAccepted, CellFinished))
    assert {h.who for h in told} == {Who(OWNER, live.id)}
    assert (accepted.code, accepted.cell) == ("6 * 7", finished.cell)
    assert finished.reason == "ok"
    assert finished.output_messages == 1  # its result
    assert finished.output_bytes > 0
    assert 0 < finished.wall_seconds < BOUND
    assert [h.reason for h in told if isinstance(h, KernelEnded)] == ["session_deleted"]


@pytest.mark.asyncio
async def test_a_cell_that_ends_with_its_session_is_told_before_that(manager):
    """Who keeps something of each cell until it ends, as traces do, lets go of it with the session."""
    told = []
    live = await create(manager)
    client = Client(live)
    client.ask("while True: pass")
    await client.until(lambda: live.is_running)
    manager.happenings.listen(told.append)
    await live.delete()
    ends = [(type(h), h.reason) for h in told if isinstance(h, CellFinished | SessionEnded)]
    assert ends == [(CellFinished, "session_deleted"), (SessionEnded, "session_deleted")]


@pytest.mark.asyncio
async def test_what_a_kernel_uses_is_told_no_more_when_its_end_was(manager, monkeypatch):
    """That tells all: an engine that takes long to answer would have the same CPU time counted once more, and memory
    as long as the server runs."""
    told, may_answer = [], asyncio.Event()
    live = await create(manager)

    async def usage():
        await may_answer.wait()
        return Usage(1 << 20, 1 << 20, 9.0, 1, 0, 0, stopped=False)

    monkeypatch.setattr(live._kernels[1].sandbox, "usage", usage)
    manager.happenings.listen(told.append)
    live.look_after(manager.now() + 3600)
    await live.restart()
    await until(lambda: any(isinstance(h, KernelEnded) for h in told))
    may_answer.set()
    await until(lambda: not live._tasks)
    assert not [h for h in told if isinstance(h, UsageSampled) and h.cpu_seconds == 9.0]
