"""The program that process 1 of a sandbox becomes."""

import os
import platform
import signal
import subprocess
import sys

import pytest

from cellgate.sandbox.native.idle import idle_program

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="not written for this machine")

RUN = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.setresuid(65534, 65534, 65534)
os.write(1, b"x")
os.execve(int(sys.argv[1]), ["idle"], {})
"""


@pytest.fixture
def idle():
    program = idle_program()
    assert program is not None
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(program)], pass_fds=[program], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        yield process
        process.kill()
    os.close(program)


def is_running_it(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read() == b"idle\0"


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its uid, which takes root")
def test_it_stays_in_a_few_pages_and_may_not_be_looked_into(idle):
    for _ in range(1000):
        if is_running_it(idle.pid):
            break
        os.sched_yield()
    with pytest.raises(subprocess.TimeoutExpired):
        idle.wait(0.3)
    assert is_running_it(idle.pid)
    with open(f"/proc/{idle.pid}/smaps_rollup") as file:
        pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    assert pss < 64, "kilobytes"
    assert os.stat(f"/proc/{idle.pid}/environ").st_uid == 0, "not its own user's to read"
    idle.send_signal(signal.SIGTERM)
    assert idle.wait(5) == -signal.SIGTERM
