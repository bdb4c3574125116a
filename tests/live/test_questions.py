"""What the gateway asks a session's kernel itself: over every driver."""

from __future__ import annotations

import asyncio

import pytest

from cellgate.errors import NotAnswered
from cellgate.live.session import LiveSession
from cellgate_kernel.message import Channel
from tests.live.conftest import OpenManager
from tests.support.live import BOUND, Client, create


async def ask(live: LiveSession, kind: str = "is_complete_request", content: dict | None = None, **options):
    content = {"code": "1+1"} if content is None else content
    return await asyncio.wait_for(live.ask(kind, content, **options), BOUND)


async def test_an_answer_is_the_kernels_own_and_clients_hear_nothing_of_it(live: LiveSession, client: Client):
    await client.run("x = 1")
    before = len(client.messages)
    answer = await ask(live)
    assert answer.content["status"] in ("ok", "complete")
    assert client.messages[before:] == []
    assert (await client.run("x + 1")).value == "2"


async def test_many_at_once_each_get_their_own_answer(live: LiveSession):
    answers = await asyncio.gather(*(ask(live, "complete_request", {"code": "x", "cursor_pos": 1}) for _ in range(50)))
    assert all(answer.content["status"] == "ok" for answer in answers)


async def test_whoever_waits_no_longer_leaves_nothing_behind(live: LiveSession, client: Client):
    cell = client.ask("import time; time.sleep(0.5)")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(live.ask("is_complete_request", {"code": "1"}), 0.05)
    await client.outcome(cell)
    assert (await ask(live)).content["status"] in ("ok", "complete")
    assert not live._questions._waiting


async def test_a_kernel_that_ends_says_why_there_is_no_answer(live: LiveSession, client: Client):
    cell = client.ask("import time; time.sleep(30)")
    await client.until(lambda: ("status", "busy") in client.shown())
    waiting = asyncio.ensure_future(live.ask("comm_info_request", {}, channel=Channel.CONTROL))
    await live.restart()
    with pytest.raises(NotAnswered) as refused:
        answer = await asyncio.wait_for(waiting, BOUND)
        raise NotAnswered("answered", str(answer))  # a kernel whose control channel was quicker than its end
    assert refused.value.reason in ("cancelled", "answered")
    await client.outcome(cell)
    waiting = asyncio.ensure_future(live.ask("is_complete_request", {"code": "1"}))
    await asyncio.sleep(0)
    await live.delete()
    with pytest.raises(NotAnswered):
        await asyncio.wait_for(waiting, BOUND)


async def test_nobody_is_left_waiting_when_the_gateway_lets_go(open_one: OpenManager):
    manager = await open_one()
    live = await create(manager)
    client = Client(live)
    client.ask("import time; time.sleep(30)")
    await client.until(lambda: ("status", "busy") in client.shown())
    waiting = asyncio.ensure_future(live.ask("is_complete_request", {"code": "1"}))
    await asyncio.sleep(0)
    await manager.close(end_sessions=False)
    with pytest.raises(NotAnswered):
        await asyncio.wait_for(waiting, BOUND)
    await open_one()  # which ends what is left
