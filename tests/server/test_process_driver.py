"""The process driver beyond the conformance suite: what it warns of, limits, and clears away."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from cellgate.errors import SandboxGone, SandboxStartFailed
from cellgate.sandbox import process
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.process import ContainsNothingWarning, ProcessDriver

BOUND = 20.0


@pytest.fixture
async def driver():
    with pytest.warns(ContainsNothingWarning):
        driver = ProcessDriver()
    yield driver
    await driver.close()


async def test_it_warns_that_it_contains_nothing(driver):
    """By the fixture; and the text says for whom it is."""
    with pytest.warns(ContainsNothingWarning, match="trusted"):
        ProcessDriver()


async def test_the_limits_it_promises_hold_in_the_kernel(driver):
    limits = Limits(memory_bytes=300 << 20, open_files=100, file_bytes=1 << 20)
    sandbox = await driver.create(SandboxSpec(limits=limits))
    async with KernelClient(sandbox) as kernel:
        result = await kernel.execute(
            "import resource as r\n"
            "[r.getrlimit(k) for k in (r.RLIMIT_DATA, r.RLIMIT_NOFILE, r.RLIMIT_FSIZE, r.RLIMIT_CORE)]",
            timeout=BOUND,
        )
        assert result.value == str([(300 << 20,) * 2, (100, 100), (1 << 20,) * 2, (0, 0)])
        result = await kernel.execute("x = b'x' * (400 << 20)", timeout=BOUND)
        assert result.reply["ename"] == "MemoryError"
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"


async def test_a_limit_above_our_own_hard_one_is_ours(driver):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard in (resource.RLIM_INFINITY, 1 << 20):
        pytest.skip("there is no lower hard limit here to test against")
    sandbox = await driver.create(SandboxSpec(limits=Limits(open_files=1 << 20)))
    async with KernelClient(sandbox) as kernel:
        code = "import resource; resource.getrlimit(resource.RLIMIT_NOFILE)[1]"
        assert (await kernel.execute(code, timeout=BOUND)).value == str(hard)


async def test_our_environment_does_not_reach_the_kernel(driver, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "secret")
    sandbox = await driver.create(SandboxSpec())
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("import os; 'API_TOKEN' in os.environ", timeout=BOUND)).value == "False"


async def test_the_workspace_goes_with_the_sandbox(driver):
    sandbox = await driver.create(SandboxSpec())
    async with KernelClient(sandbox) as kernel:
        result = await kernel.execute("open('here', 'w').close()\nimport os\nprint(os.getcwd(), end='')", timeout=BOUND)
    workspace = Path(result.text())
    assert (workspace / "here").exists()
    await sandbox.destroy()
    assert not workspace.exists()


async def test_a_kernel_that_does_not_start_is_told_with_its_last_words_and_leaves_nothing(driver, monkeypatch):
    monkeypatch.setattr(process, "_PRELUDE", "raise SystemExit('no kernel today')")
    with pytest.raises(SandboxStartFailed) as failed:
        await driver.create(SandboxSpec())
    assert "no kernel today" in failed.value.log_tail
    assert "status 1" in failed.value.detail
    assert await driver.sandboxes() == []


async def test_a_kernel_that_ends_before_its_first_link_is_told_the_same(driver, monkeypatch):
    def broken(sandbox):
        raise SandboxGone(sandbox.id)

    monkeypatch.setattr(process, "_PRELUDE", "raise SystemExit('no kernel today')")
    monkeypatch.setattr(process.ProcessSandbox, "_new_link", broken)
    with pytest.raises(SandboxStartFailed) as failed:
        await driver.create(SandboxSpec())
    assert "no kernel today" in failed.value.log_tail
    assert await driver.sandboxes() == []


async def test_an_interpreter_that_is_not_there_is_told(driver, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SandboxStartFailed) as failed:
        await driver.create(SandboxSpec())
    assert failed.value.step == "starting the interpreter"


def test_kernels_die_with_the_program_that_made_them():
    """Killed, so that nothing of it could clear away."""
    program = textwrap.dedent(
        """
        import asyncio, signal, os, warnings
        warnings.simplefilter("ignore")
        from cellgate.sandbox.base import SandboxSpec
        from cellgate.sandbox.client import KernelClient
        from cellgate.sandbox.process import ProcessDriver

        async def main():
            sandbox = await ProcessDriver().create(SandboxSpec())
            async with KernelClient(sandbox) as kernel:
                told = await kernel.execute("import os; print(os.getpid(), os.getcwd())")
                print(told.text(), end="", flush=True)
                await kernel.execute("10 ** 10 ** 8", timeout=60)  # holds the interpreter: the kernel itself is deaf
        asyncio.run(main())
        """
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        pid, workspace = owner.stdout.readline().split()
        pidfd = os.pidfd_open(int(pid))
        try:
            owner.send_signal(signal.SIGKILL)
            owner.wait(BOUND)
            asyncio.run(wait_readable(pidfd))
        finally:
            os.close(pidfd)
            Path(workspace).rmdir()  # empty; nobody was left to do it


async def wait_readable(descriptor: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await asyncio.wait_for(ended.wait(), BOUND)


async def test_a_daemon_that_outlived_the_kernel_is_found_by_its_mark(driver):
    sandbox = await driver.create(SandboxSpec())
    async with KernelClient(sandbox) as kernel:
        code = (
            "import subprocess, os\n"
            "kid = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
            "print(kid.pid, end='', flush=True)\n"
        )
        pid = int((await kernel.execute(code, timeout=BOUND)).text())
        pidfd = os.pidfd_open(pid)
        await kernel.execute("os._exit(0)")
    try:
        await wait_readable(pidfd)
    finally:
        os.close(pidfd)


async def test_closing_the_driver_clears_away_what_had_ended_by_itself(driver):
    sandbox = await driver.create(SandboxSpec())
    async with KernelClient(sandbox) as kernel:
        workspace = Path((await kernel.execute("import os\nprint(os.getcwd(), end='')", timeout=BOUND)).text())
        await kernel.execute("os._exit(0)")
    assert await driver.sandboxes() == []
    await driver.close()
    assert not workspace.exists()


async def test_no_warning_is_left_when_a_driver_is_closed_with_kernels_alive(driver):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await driver.create(SandboxSpec())
        await driver.close()
        assert await driver.sandboxes() == []
