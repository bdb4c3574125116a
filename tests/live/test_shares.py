"""Places are given out by turns: whoever wants little has it soon, however much others want."""

from __future__ import annotations

import asyncio

import pytest

from cellgate.errors import TooManyWaiting
from cellgate.live import shares as module
from cellgate.live.shares import Shares


class Stage:
    """Who has a turn, and for how long, is the test's to say."""

    def __init__(self, places):
        self.now = 0.0
        self.turns = Shares(places, lambda: self.now)
        self.order = []
        self.ends = {}
        self.tasks = []

    def want(self, principal, count=1):
        async def one(number):
            async with self.turns.turn(principal):
                self.order.append(f"{principal}{number}")
                end = self.ends[f"{principal}{number}"] = asyncio.Event()
                await end.wait()

        begun = sum(name.startswith(principal) for name in (task.get_name() for task in self.tasks))
        for number in range(begun, begun + count):
            self.tasks.append(asyncio.ensure_future(one(number)))
            self.tasks[-1].set_name(f"{principal}{number}")

    async def settle(self):
        for _ in range(10):
            await asyncio.sleep(0)

    async def end(self, name, seconds=0.0):
        self.now += seconds
        self.ends.pop(name).set()
        await self.settle()

    async def end_all(self):
        while self.ends:
            await self.end(next(iter(self.ends)), 0.1)
        await asyncio.gather(*self.tasks)


async def test_who_asks_first_is_first_and_all_have_theirs():
    stage = Stage(2)
    stage.want("a", 5)
    await stage.settle()
    assert stage.order == ["a0"]  # the second is kept for others
    await stage.end_all()
    assert stage.order == [f"a{number}" for number in range(5)]
    assert stage.turns.waiting == {}


async def test_who_comes_late_with_little_goes_before_much():
    stage = Stage(4)
    stage.want("a", 40)
    await stage.settle()
    for number in range(10):
        await stage.end(f"a{number}", 0.2)
    stage.want("b", 4)
    await stage.settle()
    before = len(stage.order)
    while not all(f"b{number}" in stage.order for number in range(4)):
        await stage.end(next(name for name in stage.ends), 0.2)
    assert [name[0] for name in stage.order[before - 1 :]].count("a") <= 2
    await stage.end_all()
    assert len(stage.order) == 44


async def test_two_who_want_much_have_alike():
    stage = Stage(4)
    stage.want("a", 40)
    stage.want("b", 40)
    await stage.settle()
    for _ in range(40):
        await stage.end(next(iter(stage.ends)), 0.2)
    assert abs(sum(name[0] == "a" for name in stage.order) - 22) <= 3
    await stage.end_all()


async def test_long_turns_count_for_more():
    stage = Stage(4)
    stage.want("a", 40)
    stage.want("b", 40)
    await stage.settle()
    for _ in range(40):
        name = next((name for name in stage.ends if name[0] == "b"), None) or next(iter(stage.ends))
        await stage.end(name, 0.05 if name[0] == "b" else 1.0)
    assert sum(name[0] == "b" for name in stage.order) > sum(name[0] == "a" for name in stage.order)
    await stage.end_all()


async def test_nobody_saves_up_more_than_a_moment():
    stage = Stage(1)
    stage.want("a", 200)
    await stage.settle()
    for number in range(50):
        await stage.end(f"a{number}", 1.0)
    stage.want("b", 200)
    await stage.settle()
    for _ in range(40):
        await stage.end(next(iter(stage.ends)), 1.0)
    late = [name[0] for name in stage.order[51:]]
    assert abs(late.count("a") - late.count("b")) <= 4
    for task in stage.tasks:
        task.cancel()
    await asyncio.gather(*stage.tasks, return_exceptions=True)
    assert stage.turns.waiting == {}


async def test_whoever_gives_up_waiting_takes_nobodys_place():
    stage = Stage(1)
    stage.want("a", 3)
    await stage.settle()
    stage.tasks[1].cancel()
    await stage.settle()
    stage.ends["a0"].set()
    stage.tasks[2].cancel()  # in the same turn of the loop in which it is given its place, or before
    await stage.settle()
    stage.want("b")
    await stage.settle()
    assert stage.order == ["a0", "b0"]
    await stage.end("b0")
    await asyncio.gather(*stage.tasks, return_exceptions=True)


async def test_a_turn_that_fails_gives_its_place_back():
    stage = Stage(1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with stage.turns.turn("a"):
                raise RuntimeError


async def test_the_queue_of_each_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING_EACH", 2)
    stage = Stage(1)
    stage.want("a", 3)
    await stage.settle()
    with pytest.raises(TooManyWaiting):
        await stage.turns._wait("a")
    stage.want("b", 2)
    await stage.settle()
    await stage.end_all()
    assert len(stage.order) == 5
