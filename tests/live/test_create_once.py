"""A session that is asked for twice with one key is one session, also for the next gateway. What its owner calls it
and how long it lives, can be changed."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from cellgate.errors import LimitError, StorageFull, UnknownKernel
from cellgate.live.wish import Wish
from tests.support.live import OWNER

WISH = Wish(idempotency_key="key")


async def test_two_requests_at_once_with_one_key_make_one_session(manager):
    made = await asyncio.gather(*(manager.create_once(OWNER, WISH) for _ in range(5)))
    assert len({live.id for live, _ in made}) == 1
    assert sorted(is_new for _, is_new in made) == [False] * 4 + [True]
    assert len(manager.sessions(OWNER)) == 1


async def test_keys_of_others_and_no_key_mean_other_sessions(manager):
    made = [await manager.create_once(who, wish) for who in (OWNER, "another") for wish in (WISH, Wish(), Wish())]
    assert all(is_new for _, is_new in made)
    assert len({live.id for live, _ in made}) == 6


async def test_a_key_is_free_when_its_session_is_gone_or_was_never_made(manager):
    with pytest.raises(UnknownKernel):
        await manager.create_once(OWNER, replace(WISH, kernel="none"))
    first, _ = await manager.create_once(OWNER, WISH)
    await first.delete()
    second, is_new = await manager.create_once(OWNER, WISH)
    assert is_new and second.id != first.id


async def test_the_next_gateway_knows_the_key_and_what_was_changed(open_one):
    manager = await open_one()
    live, _ = await manager.create_once(OWNER, WISH)
    await live.started()
    manager.change(live, replace(live.wish, name="mine", metadata={"a": [1]}, limits={"idle_seconds": 30}))
    assert live.session.limits.idle_seconds == 30
    await manager.close(end_sessions=False)
    heir = await open_one()
    if not heir.sessions(OWNER):
        pytest.skip("this driver's sandboxes end with its gateway")
    again, is_new = await heir.create_once(OWNER, WISH)
    assert (again.id, is_new) == (live.id, False)
    assert (again.wish.name, again.wish.metadata, again.session.limits.idle_seconds) == ("mine", {"a": [1]}, 30)
    assert abs((again.created - live.created).total_seconds()) < 0.001


async def test_a_change_that_cannot_be_is_refused_and_changes_nothing(manager, monkeypatch):
    live, _ = await manager.create_once(OWNER, WISH)
    before = live.wish, live.session.limits
    with pytest.raises(LimitError):
        manager.change(live, replace(live.wish, limits={"idle_seconds": 1e9}))

    def refuse(*_):
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(manager.registry, "rewrite", refuse)
    with pytest.raises(StorageFull):
        manager.change(live, replace(live.wish, name="mine"))
    assert (live.wish, live.session.limits) == before


async def test_a_shorter_idle_time_counts_at_once(manager):
    live, _ = await manager.create_once(OWNER, WISH)
    await live.started()
    manager.change(live, replace(live.wish, limits={"idle_seconds": 1.0, "notice_seconds": 0.1}))
    assert live.expires[1] == "idle"

    async def wait():
        while not live.is_gone:
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), 30)
