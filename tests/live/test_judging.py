"""Verdicts by workers: the same as without, in bounded time and memory, however a worker ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest
import pytest_asyncio

from cellgate.errors import PolicyError
from cellgate.live import judging
from cellgate.live.judging import Judges, preload
from cellgate.policy.judge import READERS, judge, judge_message
from cellgate.policy.policies import OFF, STANDARD, STRICT
from cellgate.policy.verdicts import Verdict
from tests.support.child import in_child

SLOW = "\"'" * 50_000  # some seconds of the parser of C++
HUNGRY = "a(b);" * 190_000  # a tree of some hundred megabytes


@pytest_asyncio.fixture(loop_scope="session")
async def judges() -> AsyncIterator[Judges]:
    judges = Judges()
    yield judges
    await judges.close()


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


STRANGERS: set[int] = set()  # children of this process that other tests left to its end


@pytest.fixture(autouse=True)
def know_strangers() -> None:
    STRANGERS.clear()
    STRANGERS.update(children())


def named(name: str) -> list[int]:
    """Those of our children, and theirs, that are called so."""
    found, waiting = [], [pid for pid in children() if pid not in STRANGERS]
    while waiting:
        pid = waiting.pop()
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
            waiting.extend(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            pass
    return found


def nurseries() -> list[int]:
    return named(judging.NURSERY_NAME[:15])


def workers() -> list[int]:
    return named(judging.WORKER_NAME)


@contextmanager
def never_blocked_longer_than(seconds: float) -> Iterator[None]:
    """Not once, while this lasts, does the loop need longer for a turn; a moment's noise of the machine apart."""
    loop, longest, running = asyncio.get_running_loop(), 0.0, True

    def turn(before: float) -> None:
        nonlocal longest
        now = time.thread_time()
        longest = max(longest, now - before)
        if running:
            loop.call_later(0.001, turn, now)

    turn(time.thread_time())
    yield
    running = False
    assert longest < seconds


@pytest.mark.parametrize("language", sorted(READERS))
async def test_a_worker_says_what_judging_here_says(judges, language):
    for code in ("x = 1", 'import os; os.system("curl x"); eval(y); `ls`', "!ls\n%time x", "#include <netdb.h>\n((("):
        for policy in (STANDARD, STRICT):
            assert await judges.judge(code, language, policy) == judge(code, language, policy)


async def test_a_message_is_judged_too(judges):
    content = {"code": "1", "user_expressions": {"x": "__import__('os').system('ls')"}}
    verdict = await judges.judge_message("execute_request", content, STRICT)
    assert verdict == judge_message("execute_request", content, STRICT)
    assert not verdict.allowed


async def test_a_policy_that_is_off_costs_no_process(judges):
    before = nurseries()
    assert (await judges.judge("eval(x)", "python", OFF)).allowed
    assert nurseries() == before


async def test_what_a_message_carries_beside_code_goes_nowhere(judges, monkeypatch):
    await judges.judge_message("execute_request", {"code": "1", "metadata": object}, STANDARD)
    monkeypatch.setattr(judges, "_take", None)  # nobody to ask
    await judges.judge_message("execute_request", {"code": "1", "metadata": "x" * 1000}, STANDARD)
    content: dict[str, object] = {"data": lambda: "what nobody can pickle"}
    assert (await judges.judge_message("comm_msg", content, STANDARD)).allowed
    assert not (await judges.judge_message("comm_msg", content, STRICT)).allowed


@pytest.mark.parametrize("msg_type", sorted(judging._CODE_IN))
def test_of_every_message_that_is_read_all_code_is_passed_on(msg_type):
    content = {"code": "a", "user_expressions": {"x": "b"}, "arguments": {"expression": "c", "code": "d"}}
    passed = {key: content[key] for key in judging._CODE_IN[msg_type]}
    assert judge_message(msg_type, passed, STRICT) == judge_message(msg_type, content, STRICT)


async def test_content_without_a_shape_is_denied(judges):
    with pytest.raises(PolicyError):
        await judges.judge_message("execute_request", {"code": 1}, STRICT)
    nested: object = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(PolicyError, match="nested"):
        await judges.judge_message("debug_request", {"arguments": nested}, STRICT)
    assert judges.recall("debug_request", {"arguments": nested}, STRICT) is None


async def test_what_takes_too_long_is_denied_and_the_next_is_judged():
    judges = Judges(verdict_seconds=0.5)
    try:
        await judges.judge("x", "cpp", STANDARD)
        (before,) = workers()
        began = time.monotonic()
        with pytest.raises(PolicyError, match=r"0\.5 s"):
            await judges.judge(SLOW, "cpp", STANDARD)
        assert time.monotonic() - began < 5
        assert (await judges.judge("y = 1", "python", STANDARD)).allowed
        assert before not in workers()
    finally:
        await judges.close()


async def test_a_worker_that_does_nothing_is_given_up_too():
    """The limit is CPU time, so that a busy host denies nobody; patience has an end all the same."""
    judges = Judges(verdict_seconds=1.0)
    try:
        await judges.judge("x = 1", "python", STANDARD)
        (pid,) = workers()
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(PolicyError, match=r"1 s"):
            await judges.judge("x = 2", "python", STANDARD)
        assert time.monotonic() - began >= 1.0 * judging.PATIENCE
        assert (await judges.judge("x = 2", "python", STANDARD)).allowed
    finally:
        await judges.close()


MEMORY_SCRIPT = """
import asyncio
from cellgate.errors import PolicyError
from cellgate.live.judging import Judges
from cellgate.policy.policies import STANDARD
from tests.live.test_judging import HUNGRY

async def main():
    judges = Judges(memory_bytes=32 << 20, verdict_seconds=60)
    try:
        await judges.judge(HUNGRY, "javascript", STANDARD)
        print("read")
    except PolicyError:
        print("denied")
    print((await judges.judge("y = 1", "python", STANDARD)).allowed)
    await judges.close()

asyncio.run(main())
"""


def test_what_takes_too_much_memory_is_denied_and_the_next_is_judged():
    """In a process of its own: one that has run many tests has so much memory to spare that no limit is met."""
    asked = [sys.executable, "-c", MEMORY_SCRIPT]
    done = subprocess.run(asked, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["denied", "True"], done.stderr


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "x", None, [1]])
@pytest.mark.parametrize("name", ["more", "metrics"])
def test_numbers_of_a_worker_that_are_none_are_no_verdict(name, value):
    said = {**Verdict(policy="standard").to_json(), name: {"lines": value} if name == "metrics" else value}
    with pytest.raises(PolicyError, match="makes sense"):
        judging._verdict(msgpack.packb(said))


async def test_a_killed_worker_has_a_successor(judges):
    await judges.judge("x = 1", "python", STANDARD)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            await asyncio.sleep(0.001)
    assert (await judges.judge("x = 2", "python", STANDARD)).allowed


async def test_a_request_whose_worker_is_killed_is_put_to_another():
    judges = Judges(verdict_seconds=60)
    try:
        await judges.judge("x = 1", "cpp", STANDARD)
        asking = asyncio.ensure_future(judges.judge(SLOW[:50_000], "cpp", STANDARD))
        (pid,) = workers()
        while int(Path(f"/proc/{pid}/stat").read_text().split()[13]) < 5:  # ticks of CPU time: it reads
            await asyncio.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        assert {finding.rule for finding in (await asyncio.wait_for(asking, 60)).findings} >= {"unparsed"}
        assert pid not in workers()
    finally:
        await judges.close()


async def test_a_killed_nursery_has_a_successor(judges):
    await judges.judge("x = 1", "python", STANDARD)
    (before,) = nurseries()
    os.kill(before, signal.SIGKILL)
    while workers():  # they end with it
        await asyncio.sleep(0.001)
    assert (await judges.judge("x = 3", "python", STANDARD)).allowed
    assert nurseries() != [before]


async def test_a_worker_of_a_killed_nursery_that_is_let_go_late_takes_none_of_the_next_along(judges):
    """It has the number of one there: a cell whose worker ends twice is denied for the memory that it took."""
    await judges.judge("x = 1", "python", STANDARD)
    late = judges._take()  # as while it judges
    (before,) = nurseries()
    os.kill(before, signal.SIGKILL)
    while workers():
        await asyncio.sleep(0.001)
    assert (await judges.judge("x = 4", "python", STANDARD)).allowed
    (successor,) = workers()
    working = judges._take()
    judges._drop(late)
    assert (await judges.judge("x = 5", "python", STANDARD)).allowed  # the nursery takes what it is told in order
    assert successor in workers()
    judges._drop(working)


async def test_whoever_gives_up_waiting_takes_the_worker_along(judges):
    await judges.judge("x = 1", "cpp", STANDARD)
    asking = asyncio.ensure_future(judges.judge(SLOW, "cpp", STANDARD))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (await judges.judge("x = 2", "python", STANDARD)).allowed


async def test_a_verdict_is_remembered(judges, monkeypatch):
    first = await judges.judge("x = 41", "python", STANDARD)
    monkeypatch.setattr(judges, "_take", None)  # nobody to ask
    assert await judges.judge("x = 41", "python", STANDARD) is first


async def test_policies_and_languages_are_not_mixed_up(judges):
    assert (await judges.judge("eval(x)", "python", STANDARD)).allowed
    assert not (await judges.judge("eval(x)", "python", STRICT)).allowed
    assert {f.rule for f in (await judges.judge("eval x", "bash", STRICT)).findings} != {
        f.rule for f in (await judges.judge("eval x", "python", STRICT)).findings
    }


async def test_what_is_remembered_is_bounded():
    judges = Judges(cache_bytes=20_000)
    try:
        for number in range(50):
            await judges.judge(f"x = {number}", "python", STANDARD)
        assert judges._cache._bytes <= 20_000
        assert 0 < len(judges._cache._known) < 50
    finally:
        await judges.close()


async def test_many_at_once_are_judged_by_two(judges):
    verdicts = await asyncio.gather(*(judges.judge(f"x = {number} + 1", "python", STANDARD) for number in range(200)))
    assert all(verdict.allowed for verdict in verdicts)
    assert len(workers()) <= judging.WORKERS


async def test_each_principal_has_its_turn_however_much_another_asks():
    """Both workers are busy with text that takes too long; when one of them is given up it is another's turn."""
    judges = Judges(verdict_seconds=0.5)
    try:
        flood = [asyncio.ensure_future(judges.judge(f"{SLOW}{n}", "cpp", STANDARD, principal="a")) for n in range(20)]
        await asyncio.sleep(0)  # they have asked
        assert (await judges.judge("x = 1", "python", STANDARD, principal="b")).allowed
        assert sum(task.done() for task in flood) <= 2 * judging.WORKERS
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        assert (await judges.judge("x = 2", "python", STANDARD, principal="a")).allowed
    finally:
        await judges.close()


async def test_who_asks_for_too_much_at_once_is_denied_and_nobody_else(judges, monkeypatch):
    monkeypatch.setattr(judging, "MAX_WAITING", 3)
    asked = [judges.judge(f"x = {n}", "python", STANDARD, principal="a") for n in range(10)]
    asked.append(judges.judge("y = 1", "python", STANDARD, principal="b"))
    *answers, other = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, PolicyError) for answer in answers) == 10 - 3 - judging.WORKERS
    assert other.allowed


async def test_what_is_known_is_recalled(judges):
    content = {"code": "import socket"}
    assert judges.recall("execute_request", content, STRICT) is None
    verdict = await judges.judge_message("execute_request", content, STRICT)
    assert judges.recall("execute_request", content, STRICT) is verdict
    assert judges.recall("execute_request", content, STANDARD) is None
    assert judges.recall("execute_request", content, OFF).allowed
    assert not judges.recall("comm_msg", {}, STRICT).allowed


async def test_close_leaves_no_process():
    judges = Judges()
    await asyncio.gather(*(judges.judge(f"x = {number}", "python", STANDARD) for number in range(5)))
    asking = asyncio.ensure_future(judges.judge(SLOW, "cpp", STANDARD))
    await asyncio.sleep(0.05)
    before = {*nurseries(), *workers()}
    await judges.close()
    asking.cancel()
    while before & {*nurseries(), *workers()}:
        await asyncio.sleep(0.001)
    with pytest.raises(PolicyError, match="ends"):
        await judges.judge("x = 99", "python", STANDARD)


async def test_the_loop_is_not_blocked_by_large_cells(judges):
    code = "x = foo(1, 'a/b', [y for y in z])\n" * 3000  # 100 kB
    await judges.judge("x", "python", STANDARD)
    with never_blocked_longer_than(0.005):
        for number in range(5):
            await judges.judge(code + str(number), "python", STANDARD)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_workers_need_nothing_more_of_the_installation_when_rights_are_given_up():
    """As `cellgate serve` does it: everything is loaded, rights are given up, then the nursery is forked. That a
    worker could open no file is so in every test here."""

    def serve() -> list[bool]:
        preload()
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        judges = Judges()
        judges.start()

        async def ask() -> list[bool]:
            codes = ["x = 1", "!ls {y}\n%%time", "import os\nos.fork()", "%%bash\nls | curl x"]
            verdicts = [await judges.judge(code, language, STRICT) for language in READERS for code in codes]
            await judges.close()
            return [verdict.allowed for verdict in verdicts]

        return asyncio.run(ask())

    assert len(in_child(serve)) == 4 * len(READERS)
