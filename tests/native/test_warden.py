"""What the warden promises of itself: it obeys, it survives, and it leaves nothing."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cellgate.errors import CellgateError, DriverUnavailable, LimitError, SandboxGone, UnknownTemplate
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native.driver import NativeDriver
from cellgate_kernel.link import Link
from tests.native.seen import (
    BOUND,
    GONE_SECONDS,
    SPEC,
    MiB,
    children,
    descendants,
    holdings,
    is_gone,
    kernel_in,
    names_of_groups,
    pid_inside,
    pids_in,
    state_of,
    zygote_of,
)
from tests.support.server import until

pytestmark = [pytest.mark.native, pytest.mark.asyncio(loop_scope="module")]

ANSWER_SECONDS = 5.0


def pid_of(driver: NativeDriver) -> int:
    assert driver._warden is not None
    return driver._warden.pid


async def started() -> NativeDriver:
    try:
        return await NativeDriver.start()
    except DriverUnavailable as error:
        pytest.skip(str(error))


@pytest_asyncio.fixture(loop_scope="module")
async def own_driver() -> AsyncIterator[NativeDriver]:
    """A warden that the test may kill."""
    driver = await started()
    yield driver
    await driver.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver() -> AsyncIterator[NativeDriver]:
    """One that the tests share."""
    driver = await started()
    await (await driver.create(SPEC)).destroy()
    yield driver
    await driver.close()


async def answers(driver: NativeDriver, spec: SandboxSpec = SPEC) -> None:
    sandbox = await asyncio.wait_for(driver.create(spec), BOUND)
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
    await sandbox.destroy()


# -- deaths --------------------------------------------------------------------------------------------


async def test_when_the_warden_is_killed_nothing_of_it_lives_on(own_driver: NativeDriver):
    """Not a busy kernel, not a daemon of it, not a pooled one, not the zygote."""
    warden = pid_of(own_driver)
    await own_driver.keep_pool(SandboxSpec(limits=SPEC.limits), 1)
    sandbox = await own_driver.create(SPEC)
    async with KernelClient(sandbox) as kernel:
        await kernel.execute("import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)")
        running = asyncio.create_task(kernel.execute("while True: pass"))
        await until(lambda: len(names_of_groups(warden)) >= 2)
        everybody = descendants(warden)
        for name in names_of_groups(warden):
            everybody |= pids_in(name)
        assert len(everybody) >= 5
        os.kill(warden, signal.SIGKILL)
        result = await asyncio.wait_for(running, GONE_SECONDS)
        assert result.certificate is not None
        assert result.certificate.reason is Reason.SUPERVISOR_LOST
    await until(lambda: all(map(is_gone, everybody)), GONE_SECONDS)
    with pytest.raises(SandboxGone):
        await sandbox.attach()
    with pytest.raises(DriverUnavailable):
        await own_driver.create(SPEC)
    assert await own_driver.sandboxes() == []


async def test_the_next_warden_removes_what_a_killed_one_left():
    first = await started()
    warden = pid_of(first)
    await first.create(SPEC)
    os.kill(warden, signal.SIGKILL)
    await first.close()
    await until(lambda: not any(pids_in(name) for name in names_of_groups(warden)), GONE_SECONDS)
    second = await NativeDriver.start()
    assert names_of_groups(warden) == set()
    await second.close()


async def test_a_killed_warden_that_nobody_waited_for_is_dead_all_the_same():
    """Found by the fault tests: another takes its place so soon that it is still a zombie, in a container whose first
    process reaps nobody for ever; its groups stayed."""
    first = await started()
    warden = pid_of(first)
    await first.create(SPEC)
    os.kill(warden, signal.SIGKILL)
    await until(lambda: state_of(warden) == "Z", GONE_SECONDS)
    second = await NativeDriver.start()
    assert names_of_groups(warden) == set()
    await second.close()
    await first.close()


async def test_when_a_zygote_is_killed_its_sandboxes_end_and_the_next_create_works(own_driver: NativeDriver):
    sandbox = await own_driver.create(SPEC)
    os.kill(zygote_of(pid_of(own_driver)), signal.SIGKILL)
    end = await asyncio.wait_for(sandbox.wait(), ANSWER_SECONDS)
    assert end.reason is Reason.BACKEND_ERROR
    await answers(own_driver)
    await sandbox.destroy()
    await until(lambda: not names_of_groups(pid_of(own_driver)))


async def test_creates_that_meet_a_dying_zygote_are_each_answered_once(own_driver: NativeDriver):
    await answers(own_driver)
    creates = [asyncio.create_task(own_driver.create(SPEC)) for _ in range(10)]
    await asyncio.sleep(0)  # all ten are asked for
    os.kill(zygote_of(pid_of(own_driver)), signal.SIGKILL)
    outcomes = await asyncio.wait_for(asyncio.gather(*creates, return_exceptions=True), 2 * BOUND)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, CellgateError), outcome
        else:
            await outcome.destroy()
    await answers(own_driver)
    await until(lambda: not names_of_groups(pid_of(own_driver)))


async def test_an_interrupt_at_its_birth_ends_no_kernel(own_driver: NativeDriver):
    """What the zygote rehearses leaves the signal ignored, and so it is from the first moment of every kernel on."""
    await answers(own_driver)
    status = Path(f"/proc/{zygote_of(pid_of(own_driver))}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    assert ignored >> (signal.SIGINT - 1) & 1


async def test_when_process_1_is_killed_the_sandbox_ends(driver: NativeDriver):
    sandbox = await driver.create(SPEC)
    (init,) = (pid for pid in pids_in(sandbox.id) if pid_inside(pid) == 1)
    os.kill(init, signal.SIGKILL)
    end = await asyncio.wait_for(sandbox.wait(), ANSWER_SECONDS)
    assert (end.reason, end.signal) == (Reason.KERNEL_SIGNAL, signal.SIGKILL)
    await sandbox.destroy()


# -- beginnings ----------------------------------------------------------------------------------------


async def test_creates_that_are_cancelled_at_any_moment_leave_nothing(driver: NativeDriver):
    before = {*driver._sandboxes}
    for delay in (0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.05):
        task = asyncio.create_task(driver.create(SPEC))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            await task.result().destroy()
    await until(lambda: not names_of_groups(pid_of(driver)))
    await until(lambda: driver._sandboxes.keys() <= before)  # nor is their end kept, which nobody would ask for
    assert await driver.sandboxes() == []


async def test_twenty_creates_at_once_are_all_answered(driver: NativeDriver):
    sandboxes = await asyncio.wait_for(asyncio.gather(*(driver.create(SPEC) for _ in range(20))), BOUND)
    assert len({sandbox.id for sandbox in sandboxes}) == 20
    uids = {Path(f"/proc/{kernel_in(sandbox.id)}/status").read_text().partition("Uid:\t")[2].split()[0]
            for sandbox in sandboxes}  # fmt: skip
    assert len(uids) == 20 or os.geteuid(), "each has a uid of its own"
    await asyncio.gather(*(sandbox.destroy() for sandbox in sandboxes))
    assert names_of_groups(pid_of(driver)) == set()


async def test_two_hundred_made_and_destroyed_leave_nothing(driver: NativeDriver):
    warden = pid_of(driver)

    async def some() -> None:
        for _ in range(40):
            sandbox = await driver.create(SPEC)
            await sandbox.destroy()

    await answers(driver)
    before = holdings(warden)
    own = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(some() for _ in range(5)))
    assert holdings(warden) == before
    assert len(os.listdir("/proc/self/fd")) == own
    assert not [
        entry for entry in os.listdir("/tmp") if entry.startswith("cellgate-root-") and os.listdir(f"/tmp/{entry}")
    ]


@pytest.mark.parametrize(
    "limits",
    [
        {"memory_bytes": 1 << 50},
        {"memory_bytes": (os.sysconf("SC_PHYS_PAGES") + 1) * os.sysconf("SC_PAGE_SIZE")},
        {"cpu_cores": (os.cpu_count() or 1) + 1},
        {"cpu_cores": math.nan},
        {"pids": 0},
        {"memory_bytes": -1},
        {"unknown": 1},
    ],
)
async def test_impossible_limits_are_refused_and_nothing_is_made(driver: NativeDriver, limits: dict[str, float]):
    with pytest.raises(LimitError):
        await driver.create(SandboxSpec(limits=Limits.from_mapping(limits)))
    assert names_of_groups(pid_of(driver)) == set()


@pytest.mark.parametrize("template", ["", "Python", "../python", "python\0", "x" * 10_000, "/bin/sh", "python-data2"])
async def test_an_unknown_template_is_refused_and_nothing_is_made(driver: NativeDriver, template: str):
    with pytest.raises(UnknownTemplate):
        await driver.create(SandboxSpec(template=template))
    assert len(children(pid_of(driver))) == 1  # the one zygote


# -- links ---------------------------------------------------------------------------------------------


async def test_a_link_replaced_again_and_again_while_a_cell_prints_loses_no_line(driver: NativeDriver):
    sandbox = await driver.create(SPEC)
    count, text, link = 3000, [], Link()
    code = f"import time\nfor i in range({count}):\n  print(i, flush=True)\n  if i % 100 == 0: time.sleep(0.01)"

    def take(message) -> None:
        if message["msg_type"] == "stream":
            text.append(message["content"]["text"])

    async with KernelClient(sandbox, link=link, on_other=take) as kernel:
        task = asyncio.create_task(kernel.execute(code, on_output=take))
        await until(lambda: bool(text))
        task.cancel()
        await asyncio.wait({task})
    for number in range(1, 6):
        async with KernelClient(sandbox, link=link, on_other=take):
            await until(lambda: "".join(text).count("\n") > count * number // 6)  # noqa: B023  # called at once
    async with KernelClient(sandbox, link=link, on_other=take) as kernel:
        assert (await kernel.execute("'after'", timeout=BOUND)).value == "'after'"
    assert "".join(text) == "".join(f"{i}\n" for i in range(count))
    await sandbox.destroy()


# -- the pool ------------------------------------------------------------------------------------------


def is_locked_in(pid: int) -> bool:
    """The last step of a start, right before the warden is told."""
    try:
        return "\nSeccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_the_pool_hands_out_each_sandbox_once_and_only_those_that_stand(own_driver: NativeDriver):
    warden = pid_of(own_driver)
    spec = SandboxSpec(limits=SPEC.limits)
    await own_driver.keep_pool(spec, 3)

    async def pooled() -> set[str]:
        await until(
            lambda: (
                len(names_of_groups(warden) - out) == 3
                and all(
                    len(pids_in(n)) == 2 and all(map(is_locked_in, pids_in(n))) for n in names_of_groups(warden) - out
                )
            )
        )
        return names_of_groups(warden) - out

    out: set[str] = set()
    first = await pooled()
    assert await own_driver.sandboxes() == []  # they are nobody's yet
    one = await own_driver.create(spec)
    out = {one.id}
    assert one.id in first
    refilled = await pooled()
    assert len(refilled - first) == 1
    # of another kind, or not from the pool at all
    for other in (SPEC, SandboxSpec(limits=Limits(memory_bytes=128 * MiB))):
        fresh = await own_driver.create(other)
        assert fresh.id not in refilled
        await fresh.destroy()
    # one is killed, one stands still: neither is handed out, and both go
    killed, stopped, _ = sorted(await pooled(), key=lambda name: int(name.rpartition("-")[2]))
    dying, standing = kernel_in(killed), kernel_in(stopped)
    os.kill(dying, signal.SIGKILL)
    os.kill(standing, signal.SIGSTOP)
    await until(lambda: is_gone(dying) and state_of(standing) == "T")
    two = await own_driver.create(spec)
    assert two.id not in (killed, stopped, one.id)
    async with KernelClient(two) as kernel:
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
    await until(lambda: not names_of_groups(warden) & {killed, stopped})
    out |= {two.id}
    assert not await pooled() & {one.id, two.id}
    # one that was used does not come back
    await one.destroy()
    assert one.id not in await pooled()
    await own_driver.keep_pool(spec, 0)
    await own_driver.close()
    assert names_of_groups(warden) == set()


async def test_pooled_sessions_draw_different_random_numbers(own_driver: NativeDriver):
    spec = SandboxSpec(template="python-data", limits=SPEC.limits)
    await own_driver.keep_pool(spec, 2)
    code = (
        "import os, random, uuid, numpy\n"
        "print(os.urandom(8).hex(), random.random(), uuid.uuid1(), uuid.uuid4(), numpy.random.random())"
    )
    drawn = []
    await until(lambda: len(names_of_groups(pid_of(own_driver))) == 2, 2 * BOUND)
    for _ in range(3):
        sandbox = await asyncio.wait_for(own_driver.create(spec), BOUND)
        async with KernelClient(sandbox) as kernel:
            result = await kernel.execute(code, timeout=BOUND)
            assert result.status == "ok", result
            drawn.append(result.text().split())
    for values in zip(*drawn, strict=True):
        assert len(set(values)) == 3, values


async def test_a_pool_is_filled_again_when_its_zygote_was_killed(own_driver: NativeDriver):
    await answers(own_driver)
    warden = pid_of(own_driver)
    await own_driver.keep_pool(SandboxSpec(limits=SPEC.limits), 2)
    await until(lambda: len(names_of_groups(warden)) == 2)
    zygote = zygote_of(warden)
    os.kill(zygote, signal.SIGKILL)
    await until(lambda: zygote not in children(warden))
    await answers(own_driver)
    await until(lambda: len(names_of_groups(warden)) == 2)
