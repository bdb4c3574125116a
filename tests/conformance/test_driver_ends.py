"""How sandboxes of any driver begin and end, and what is told of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from cellgate.errors import SandboxGone, UnknownTemplate
from cellgate.sandbox.base import Driver, Sandbox, SandboxSpec
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.client import ExecuteResult, KernelClient
from cellgate.sandbox.watchdog import Patience
from cellgate_kernel.message import Channel
from tests.support.drivers import Create, open_driver

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUND = 20.0
PROMISED_SECONDS = 2.0  # between an end and its certificate


async def run_to_the_end(kernel: KernelClient, code: str, *, seconds: float = PROMISED_SECONDS) -> DeathCertificate:
    """Run a cell that ends its sandbox; the certificate must come in time."""
    await kernel.execute("1", timeout=BOUND)  # it has started
    begin = time.monotonic()
    result = await asyncio.wait_for(kernel.execute(code), BOUND)
    assert time.monotonic() - begin < seconds
    return dead(result)


def dead(result: ExecuteResult) -> DeathCertificate:
    assert result.status == "dead"
    assert result.certificate is not None
    return result.certificate


# -- ends that a cell brings about -------------------------------------------------------------------


async def test_an_exit_is_told_with_its_code(kernel: KernelClient):
    end = await run_to_the_end(kernel, "import os; os._exit(3)")
    assert (end.reason, end.exit_code, end.signal) == (Reason.KERNEL_EXIT, 3, None)
    assert end.wall_seconds > 0


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM"])
async def test_a_signal_is_told_with_its_number(kernel: KernelClient, name: str):
    code = f"import os, signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.{name})"
    end = await run_to_the_end(kernel, code)
    assert (end.reason, end.signal, end.exit_code) == (Reason.KERNEL_SIGNAL, signal.Signals[name], None)


@pytest.mark.promise("kills for memory")
async def test_too_much_memory_is_told_with_limit_and_peak(kernel: KernelClient):
    limit = kernel.sandbox.limits.memory_bytes
    code = f"hog = bytearray({2 * limit})\nfor at in range(0, len(hog), 4096): hog[at] = 1"
    end = await run_to_the_end(kernel, code, seconds=BOUND)  # to fill the memory takes its time
    assert (end.reason, end.signal, end.memory_limit_bytes) == (Reason.OOM, signal.SIGKILL, limit)
    assert end.oom_kills >= 1
    assert end.memory_peak_bytes is not None
    assert end.memory_peak_bytes >= 0.9 * limit


@pytest.mark.promise("processes")
async def test_too_much_memory_in_a_child_is_no_end_or_one_that_is_told(kernel: KernelClient):
    result = await kernel.execute(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = b\"x\" * (1 << 29)']).returncode != 0",
        timeout=BOUND,
    )
    assert (result.value == "True") if result.certificate is None else (result.certificate.reason is Reason.OOM)


async def test_a_stopped_kernel_is_unresponsive_and_told_so_in_ten_seconds(kernel: KernelClient):
    end = await run_to_the_end(kernel, "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", seconds=10.0)
    assert (end.reason, end.signal) == (Reason.KERNEL_UNRESPONSIVE, signal.SIGKILL)


@pytest.mark.promise("processes")
async def test_c_code_that_holds_the_interpreter_is_busy_and_not_unresponsive(sandbox: Sandbox):
    patience = Patience(look_every=0.05, silent=0.05, stopped=0.02)
    async with KernelClient(sandbox, patience=patience) as kernel:
        result = await kernel.execute("sum(range(10**8))", timeout=60)
    assert (result.value, result.certificate) == ("4999999950000000", None)


async def test_a_kernel_without_its_descriptors_ends_and_is_told(kernel: KernelClient):
    end = await run_to_the_end(kernel, "import os; os.closerange(3, 1024)\nwhile True: pass")
    assert end.reason in (Reason.KERNEL_EXIT, Reason.KERNEL_UNRESPONSIVE)


async def test_rubbish_on_the_link_ends_the_sandbox_as_a_protocol_violation(kernel: KernelClient):
    end = await run_to_the_end(
        kernel,
        "import os, stat\n"
        "for fd in range(3, 64):\n"
        "    try:\n"
        "        if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, b'\\xff' * 64)\n"
        "    except OSError: pass\n"
        "while True: pass",
    )
    assert end.reason is Reason.PROTOCOL_VIOLATION
    assert end.detail


async def test_a_shutdown_request_is_answered_and_ends_the_kernel(kernel: KernelClient):
    reply = await kernel.request("shutdown_request", {"restart": False}, channel=Channel.CONTROL, timeout=BOUND)
    assert reply["content"]["status"] == "ok"
    end = await asyncio.wait_for(kernel.sandbox.wait(), BOUND)
    assert (end.reason, end.exit_code) == (Reason.KERNEL_EXIT, 0)


async def test_what_was_printed_a_moment_before_the_end_still_arrives(kernel: KernelClient):
    code = "import os, time\nprint('last words', flush=True)\ntime.sleep(0.2)\nos._exit(1)"
    result = await kernel.execute(code, timeout=BOUND)
    assert result.text() == "last words\n"
    assert dead(result).exit_code == 1


async def test_lines_that_were_flushed_arrive_though_the_process_ends_itself_on_the_spot(kernel: KernelClient):
    code = "import os\nfor i in range(20):\n  print(i, flush=True)\nos._exit(1)"
    result = await kernel.execute(code, timeout=BOUND)
    assert result.text() == "".join(f"{i}\n" for i in range(20))


# -- ends that somebody asks for ---------------------------------------------------------------------


@pytest.mark.parametrize("reason", [Reason.TIMEOUT_WALL, Reason.SESSION_EXPIRED, Reason.PROTOCOL_VIOLATION])
async def test_a_kill_is_told_with_its_reason(sandbox: Sandbox, reason: Reason):
    await sandbox.kill(reason, "because")
    end = await asyncio.wait_for(sandbox.wait(), PROMISED_SECONDS)
    assert (end.reason, end.detail, end.signal) == (reason, "because", signal.SIGKILL)


async def test_of_two_kills_the_first_reason_counts(sandbox: Sandbox):
    await asyncio.gather(sandbox.kill(Reason.TIMEOUT_CPU), sandbox.kill(Reason.SESSION_DELETED))
    assert (await asyncio.wait_for(sandbox.wait(), PROMISED_SECONDS)).reason is Reason.TIMEOUT_CPU


async def test_a_kill_after_the_end_changes_nothing(kernel: KernelClient):
    end = await run_to_the_end(kernel, "import os; os._exit(3)")
    await kernel.sandbox.kill(Reason.SESSION_DELETED)
    assert await kernel.sandbox.wait() == end
    assert await kernel.sandbox.destroy() == end


async def test_a_cell_that_ignores_its_interrupt_is_killed_for_its_time(kernel: KernelClient):
    await kernel.execute("1", timeout=BOUND)  # it has started
    result = await kernel.execute(
        "import time\nwhile True:\n    try: time.sleep(600)\n    except KeyboardInterrupt: pass", timeout=0.3
    )
    assert result.timed_out
    assert dead(result).reason is Reason.TIMEOUT_WALL


async def test_destroying_a_living_sandbox_says_that_it_was_deleted(sandbox: Sandbox):
    assert (await sandbox.destroy()).reason is Reason.SESSION_DELETED


async def test_destroying_twice_at_once_and_again_gives_the_same_certificate(sandbox: Sandbox):
    first, second = await asyncio.gather(sandbox.destroy(), sandbox.destroy())
    assert first == second == await sandbox.destroy()


async def test_a_destroy_whose_caller_is_cancelled_is_finished_all_the_same(driver: Driver, spec: SandboxSpec):
    sandbox = await driver.create(spec)
    task = asyncio.create_task(sandbox.destroy())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.wait_for(sandbox.wait(), PROMISED_SECONDS)
    assert await driver.sandboxes() == []


# -- who waits ---------------------------------------------------------------------------------------


async def test_any_number_may_wait_and_one_that_gives_up_disturbs_no_other(sandbox: Sandbox):
    waiters = [asyncio.create_task(sandbox.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await sandbox.kill(Reason.SESSION_EXPIRED)
    ends = await asyncio.wait_for(asyncio.gather(*waiters[1:]), PROMISED_SECONDS)
    assert set(ends) == {await sandbox.wait()}


# -- after the end -----------------------------------------------------------------------------------


async def test_an_ended_sandbox_can_still_be_asked_and_does_nothing(sandbox: Sandbox):
    end = await sandbox.destroy()
    await sandbox.interrupt()
    usage = await sandbox.usage()
    assert not usage.stopped
    with pytest.raises(SandboxGone) as gone:
        await sandbox.attach()
    assert gone.value.certificate == end


async def test_a_cell_sent_after_the_end_is_refused_with_the_certificate(kernel: KernelClient):
    end = await run_to_the_end(kernel, "import os; os._exit(3)")
    with pytest.raises(SandboxGone) as gone:
        await kernel.execute("1+1")
    assert gone.value.certificate == end


async def test_the_certificate_says_what_the_protocol_names(sandbox: Sandbox):
    end = await sandbox.destroy()
    assert DeathCertificate.from_json(end.to_json()) == end


# -- the driver --------------------------------------------------------------------------------------


async def test_the_driver_lists_the_living(driver: Driver, create: Create):
    one, other = await create(), await create()
    assert {sandbox.id for sandbox in await driver.sandboxes()} == {one.id, other.id}
    await one.destroy()
    assert [sandbox.id for sandbox in await driver.sandboxes()] == [other.id]


async def test_a_sandbox_says_what_it_is(driver: Driver, sandbox: Sandbox, spec: SandboxSpec):
    assert (sandbox.driver, sandbox.template, sandbox.limits) == (driver.name, spec.template, spec.limits)
    assert isinstance(sandbox, Sandbox)
    assert isinstance(driver, Driver)


async def test_an_unknown_template_is_refused_and_leaves_nothing(driver: Driver):
    with pytest.raises(UnknownTemplate) as refused:
        await driver.create(SandboxSpec(template="../../etc"))
    assert "python" in refused.value.known
    assert await driver.sandboxes() == []


async def test_a_create_that_is_cancelled_leaves_nothing(driver: Driver, spec: SandboxSpec):
    await (await driver.create(spec)).destroy()  # what a driver keeps for itself is there now
    before = open_descriptors()
    task = asyncio.create_task(driver.create(spec))
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        await task.result().destroy()

    async def nothing_is_left() -> None:
        while await driver.sandboxes() or open_descriptors() > before:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(nothing_is_left(), BOUND)


async def test_many_sandboxes_made_and_destroyed_leave_no_descriptor(driver: Driver, spec: SandboxSpec):
    async def one() -> None:
        sandbox = await driver.create(spec)
        async with KernelClient(sandbox) as kernel:
            assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
        await sandbox.destroy()

    await one()
    before = open_descriptors()
    await asyncio.gather(*(one() for _ in range(4)))
    assert open_descriptors() <= before
    assert await driver.sandboxes() == []


async def test_closing_the_driver_ends_what_does_not_outlive_it(driver_name: str, spec: SandboxSpec):
    own = await open_driver(driver_name)
    sandbox = await own.create(spec)
    await own.close()
    assert (await asyncio.wait_for(sandbox.wait(), PROMISED_SECONDS)).reason in (
        Reason.SESSION_DELETED,
        Reason.SUPERVISOR_LOST,
    )


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- children ----------------------------------------------------------------------------------------


@pytest.mark.promise("processes of the host")
async def test_no_child_outlives_its_sandbox(kernel: KernelClient):
    """Not a plain one, and not a daemon with a session of its own."""
    mark = f"{os.getpid()}{time.monotonic_ns()}"
    code = (
        "import subprocess\n"
        f"plain = subprocess.Popen(['sleep', '{mark}.1'])\n"
        f"daemon = subprocess.Popen(['sh', '-c', 'sleep {mark}.2 & sleep {mark}.3'], start_new_session=True)\n"
    )
    assert (await kernel.execute(code, timeout=BOUND)).status == "ok"
    await asyncio.wait_for(exactly(3, mark), BOUND)
    await kernel.sandbox.destroy()
    await asyncio.wait_for(exactly(0, mark), PROMISED_SECONDS)


async def exactly(count: int, mark: str) -> None:
    """Until the host sees so many processes whose last argument begins with the mark."""
    while count != sum(1 for line in command_lines() if line[:1] == ["sleep"] and line[-1].startswith(mark)):
        await asyncio.sleep(0.01)


def command_lines() -> list[list[str]]:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                lines.append((entry / "cmdline").read_text(errors="replace").rstrip("\0").split("\0"))
            except OSError:
                continue
    return lines


@pytest.mark.promise("counts CPU time")
async def test_cpu_time_is_counted_for_the_usage_and_the_certificate(kernel: KernelClient):
    await kernel.execute("import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass")
    assert (await kernel.sandbox.usage()).cpu_seconds >= 0.25
    assert (await kernel.sandbox.destroy()).cpu_seconds >= 0.25


@pytest.mark.promise("limits pids")
async def test_hits_on_the_limit_of_processes_are_a_note_and_no_end(kernel: KernelClient):
    result = await kernel.execute(
        "import subprocess\nkids = []\n"
        "try:\n"
        "    while True: kids.append(subprocess.Popen(['sleep', '60']))\n"
        "except BlockingIOError: print('full')\n"
        "for kid in kids: kid.kill()",
        timeout=BOUND,
    )
    assert result.text() == "full\n"
    assert "pids_limit" in (await kernel.sandbox.destroy()).notes
