"""Who wants more at a time than is done waits, and nobody waits for another's storm."""

from __future__ import annotations

import asyncio

import pytest

from cellgate.live.turns import Turns

pytestmark = pytest.mark.asyncio


class Stage:
    def __init__(self, at_once: int = 1) -> None:
        self.turns = Turns(at_once)
        self.order: list[str] = []
        self.may_end = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, *names: str) -> None:
        """Each asks for its principal, the letters of its name."""
        for name in names:
            self.tasks.append(asyncio.ensure_future(self._take(name)))
        await asyncio.sleep(0)

    async def _take(self, name: str) -> None:
        async with self.turns.of(name.rstrip("0123456789")):
            self.order.append(name)
            await self.may_end.wait()

    async def end(self) -> list[str]:
        self.may_end.set()
        await asyncio.wait_for(asyncio.gather(*self.tasks, return_exceptions=True), 10)
        return self.order


async def test_principals_take_turns_each_in_its_own_order():
    stage = Stage()
    await stage.ask("eve1", "eve2", "eve3", "eve4", "ada1", "ada2", "bob1")
    assert await stage.end() == ["eve1", "eve2", "ada1", "bob1", "eve3", "ada2", "eve4"]


async def test_as_many_run_at_a_time_as_may():
    stage = Stage(at_once=3)
    await stage.ask(*(f"eve{n}" for n in range(10)))
    assert (len(stage.order), stage.turns.waiting) == (3, 7)
    assert len(await stage.end()) == 10
    assert stage.turns.waiting == 0
    stage.may_end.clear()
    await stage.ask(*(f"ada{n}" for n in range(4)))
    assert len(stage.order) == 13  # and all are free again
    await stage.end()


async def test_who_is_cancelled_while_waiting_takes_no_turn():
    stage = Stage()
    await stage.ask("eve1", "eve2", "ada1")
    stage.tasks[1].cancel()
    await asyncio.sleep(0)
    assert await stage.end() == ["eve1", "ada1"]


async def test_a_turn_that_was_given_to_one_who_is_cancelled_goes_on():
    stage = Stage()
    await stage.ask("eve1", "eve2", "ada1")
    stage.may_end.set()
    await asyncio.sleep(0)  # eve1 ends, and passes her turn on
    stage.tasks[1].cancel()
    assert "ada1" in await stage.end()
    await stage.ask("bob1")
    assert "bob1" in await stage.end()
