"""One-shots: what becomes of code in a session of its own, of which nothing is left."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from cellgate.errors import (
    Draining,
    NoSuchFile,
    QuotaUsedUp,
    SandboxStartFailed,
    ServerFull,
    TooManyWaiting,
    UsageError,
)
from cellgate.live import oneshots as module
from cellgate.live.oneshots import Cache, OneShot, OneShots, Outcome
from cellgate.live.wish import Wish
from cellgate.wire.result import Result
from tests.support.live import OWNER
from tests.support.server import until

BOUND = 60.0
PYTHON = Wish("python3")
ADD = "def calculate(inputs):\n    print('adding')\n    return {'sum': inputs['a'] + inputs['b']}"


async def run(manager, code, *, principal=OWNER, wish=PYTHON, **options):
    return await asyncio.wait_for(manager.oneshots.run(principal, OneShot(code, wish, **options)), BOUND)


async def test_code_runs_in_a_session_of_its_own_of_which_nothing_is_left(manager):
    first = await run(manager, "x = 1\nprint(x)")
    second = await run(manager, "x")
    assert (first.result.status, first.result.stdout, first.value, first.is_cached) == ("ok", "1\n", None, False)
    assert second.result.error["name"] == "NameError"
    assert manager.sessions(OWNER) == []


async def test_what_calculate_returns_is_the_value(manager):
    outcome = await run(manager, ADD, inputs='{"a": 1, "b": 2}')
    assert outcome.value == {"sum": 3}
    assert (outcome.result.stdout, outcome.result.result, outcome.result.outputs) == ("adding\n", None, ())


@pytest.mark.parametrize(
    "value", [None, True, 7, 1.5, "a'\"\\\n\u2028\U0001f600", [1, [2]], {"a": {"b": None}}, "", []]
)
async def test_inputs_and_value_are_any_json(manager, value):
    outcome = await run(manager, "inputs = 'its own'\ndef calculate(inputs): return inputs", inputs=json.dumps(value))
    assert outcome.is_ok
    assert (outcome.value, type(outcome.value)) == (value, type(value))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("def calculate(inputs): 1 / 0", "ZeroDivisionError"),
        ("def calculate(inputs): return {1}", "TypeError"),
        ("def calculate(inputs): return float('nan')", "ValueError"),
        ("def calculate(): return 1", "TypeError"),
        ("x = 1", "NameError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def calculate(", "SyntaxError"),
    ],
)
async def test_what_has_no_value_is_an_error(manager, code, name):
    outcome = await run(manager, code, inputs="1")
    assert (outcome.is_ok, outcome.value) == (False, None)
    assert outcome.result.error["name"] == name


@pytest.mark.parametrize(
    "shown", ["'no json'", "'[' * 100_000", "'[],' * 300_000", "'1}'", "'NaN'", "''", "'-' * 10**6 + '1'", "'1' * 5000"]
)
async def test_a_kernel_that_shows_something_else_harms_only_its_own_value(manager, shown):
    code = f"shown = {shown}\nprint = lambda *_: __import__('sys').stdout.write(shown)\ndef calculate(inputs): return 1"
    outcome = await run(manager, code, inputs="1")
    assert outcome.is_ok
    if shown not in ("'NaN'", "'1' * 5000"):  # which are no numbers, and a value all the same
        assert outcome.value is None
        assert outcome.result.notices[-1]["note"] == "no_value"


async def test_time_really_ends_it(manager):
    began = time.monotonic()
    outcome = await run(manager, "while True: pass", timeout=0.3)
    assert outcome.result.reason == "timeout_wall"
    assert time.monotonic() - began < 20
    assert manager.sessions(OWNER) == []


async def test_whoever_is_cancelled_ends_it(manager):
    task = asyncio.ensure_future(run(manager, "import time\ntime.sleep(60)"))
    await until(lambda: any(live.session.running for live in manager.sessions(OWNER)))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert manager.sessions(OWNER) == []


async def test_requirements_are_held_against_what_is_installed(manager):
    assert (await run(manager, "1", requirements=("ipykernel>=7", "msgpack"))).is_ok
    with pytest.raises(UsageError, match=r"no-such-thing is not installed.*would pass"):
        await run(manager, "1", requirements=("no-such-thing",))
    assert manager.sessions(OWNER) == []


async def test_inputs_are_for_python(manager):
    bash = replace(manager.kernelspecs["python3"], name="bash", language="bash", bridged="bash", packages=None)
    manager.kernelspecs["bash"] = bash
    for options in ({"inputs": "1"}, {"requirements": ("numpy",)}):
        with pytest.raises(UsageError, match=r"would pass|pass$"):
            await run(manager, "1", wish=Wish("bash"), **options)


async def test_a_result_is_kept_only_when_that_was_asked_for(manager):
    code = "import uuid\nprint(uuid.uuid4())"
    fresh = {(await run(manager, code)).result.stdout for _ in range(2)}
    assert len(fresh) == 2
    kept = [await run(manager, code, may_be_cached=True) for _ in range(3)]
    assert len({outcome.result.stdout for outcome in kept}) == 1
    assert [outcome.is_cached for outcome in kept] == [False, True, True]
    others = [
        await run(manager, code, may_be_cached=True, principal="another"),
        await run(manager, code + " ", may_be_cached=True),
        await run(manager, code, may_be_cached=True, inputs="1"),
        await run(manager, code, may_be_cached=True, wish=replace(PYTHON, limits={"pids": 32})),
    ]
    assert not any(outcome.is_cached for outcome in others)


async def test_a_failure_is_never_kept(manager):
    for _ in range(2):
        assert not (await run(manager, "1 / 0", may_be_cached=True)).is_cached


async def test_a_full_server_makes_them_wait_and_loses_none(open_one):
    manager = await open_one(sessions_per_principal=2)
    others = [await manager.create(OWNER, Wish()) for _ in range(2)]
    task = asyncio.ensure_future(run(manager, "print(1)"))
    await asyncio.sleep(3 * module.LOOK_SECONDS)
    assert not task.done()
    await others[0].delete()
    assert (await task).result.stdout == "1\n"


async def test_a_kernel_that_cannot_be_started_is_no_result(manager, driver):
    driver.failing = SandboxStartFailed("test", "step", "detail")
    with pytest.raises(SandboxStartFailed):
        await run(manager, "1")
    assert manager.sessions(OWNER) == []
    driver.failing = None
    assert (await run(manager, "1")).is_ok


async def test_a_quota_that_sessions_give_back_is_waited_for_and_one_of_the_day_is_told(manager, monkeypatch):
    create, left = manager.create, [QuotaUsedUp("memory_bytes_per_principal", 2, 1, "") for _ in range(2)]

    async def refuse_at_first(*asked):
        if left:
            raise left.pop()
        return await create(*asked)

    monkeypatch.setattr(manager, "create", refuse_at_first)
    assert (await run(manager, "1")).is_ok
    left = [QuotaUsedUp("cpu_seconds_per_day", 1, 0, "")]
    with pytest.raises(QuotaUsedUp):
        await run(manager, "1")


async def test_a_server_that_stays_full_is_told_in_the_end(open_one, monkeypatch):
    monkeypatch.setattr(module, "ROOM_SECONDS", 0.1)
    manager = await open_one(sessions_total=1, sessions_per_principal=1)
    await manager.create("another", Wish())
    with pytest.raises(ServerFull):
        await run(manager, "1")


async def test_files_are_there_before_and_fetched_after(manager, driver):
    if driver.name == "fake":
        pytest.skip("this driver does not promise this: files")
    code = "data = open('in/a.txt').read()\nopen('out.bin', 'wb').write(data.encode() * 2)"
    outcome = await run(manager, code, files={"in/a.txt": b"ab"}, wanted=("out.bin", "none"))
    assert outcome.result.status == "ok", outcome.result
    assert outcome.files["out.bin"].data == b"abab"
    assert isinstance(outcome.files["none"].error, NoSuchFile)


async def test_fifty_at_once_from_two_principals_are_all_run_and_the_lighter_does_not_wait_for_the_heavier(manager):
    """p95 of ten one-shots beside forty of somebody else's is no worse than twice that of ten alone. Measured beside
    each other, three times, as the host may have other work."""

    async def timed(principal, count):
        began = time.monotonic()

        async def one(number):
            outcome = await run(manager, f"print({number})", principal=principal)
            assert outcome.result.stdout == f"{number}\n"
            return time.monotonic() - began

        return sorted(await asyncio.gather(*(one(number) for number in range(count))))

    ratios = []
    for _ in range(3):
        alone = await timed("light", 10)
        heavy = asyncio.ensure_future(timed("heavy", 40))
        await asyncio.sleep(0)
        beside = await timed("light", 10)
        assert len(await heavy) == 40
        ratios.append(beside[-1] / alone[-1])
        if ratios[-1] <= 2:
            break
    assert min(ratios) <= 2, ratios


def test_the_cache_keeps_what_is_used_and_stays_within_its_size(monkeypatch):
    cache = Cache(5000)
    for number in range(20):
        cache.put(str(number), Outcome(Result(stdout="x" * 1000)))
        cache.get("0")
    assert cache.get("0") is not None and cache.get("19") is not None and cache.get("1") is None
    assert cache._bytes == sum(size for _, size in cache._entries.values()) <= 5000
    monkeypatch.setattr(module, "CACHE_ENTRY_BYTES", 100)
    cache.put("large", Outcome(Result(stdout="x" * 1000)))
    assert cache.get("large") is None


async def test_the_key_of_a_one_shot_has_all_that_matters(manager):
    shot = OneShot("1", PYTHON)
    others = [
        replace(shot, code="2"),
        replace(shot, inputs="1"),
        replace(shot, inputs="2"),
        replace(shot, files={"a": b"1"}),
        replace(shot, files={"a": b"2"}),
        replace(shot, wanted=("a",)),
        replace(shot, timeout=1.0),
        replace(shot, wish=replace(PYTHON, env={"A": "b"})),
    ]
    assert len({one.key(who) for one in (shot, *others) for who in ("a", "b")}) == 2 * (1 + len(others))
    assert isinstance(manager.oneshots, OneShots)


async def test_nothing_is_left_of_one_whose_gateway_ended(open_one, driver):
    manager = await open_one()
    task = asyncio.ensure_future(run(manager, "import time\ntime.sleep(60)"))
    await until(lambda: any(live.session.running for live in manager.sessions(OWNER)))
    await manager.close(end_sessions=False)
    with pytest.raises(Draining):
        await asyncio.wait_for(task, BOUND)
    heir = await open_one()
    assert heir.sessions(OWNER) == []
    assert await driver.sandboxes() == []


async def test_what_is_held_of_each_principal_is_bounded(manager):
    with manager.oneshots.holding("a", module.MAX_HELD_BYTES):
        with pytest.raises(TooManyWaiting), manager.oneshots.holding("a", 1):
            pass
        with manager.oneshots.holding("b", 1):
            pass
    with manager.oneshots.holding("a", 1):
        assert manager.oneshots._held == {"a": 1}
    assert not manager.oneshots._held
