"""Cells that multiply, hide, or will not die."""

from __future__ import annotations

import asyncio
import signal

from cellgate.sandbox.certificate import Reason
from tests.hostile.arena import LIMITS, Session


async def test_a_fork_bomb_in_python_ends_at_the_limit(session: Session):
    result = await session.run("import os\nwhile True: os.fork()", wall=2)
    assert (await session.sandbox.usage()).pids <= LIMITS.pids
    if result.certificate is not None:
        end = session.died(result, Reason.TIMEOUT_WALL, Reason.OOM)  # each copies pages as it runs
    else:
        end = session.certificate = await session.sandbox.destroy()  # sixty copies of the shell want the core too
    assert "pids_limit" in end.notes


async def test_a_fork_bomb_in_the_shell_ends_at_the_limit(session: Session):
    await session.run("import subprocess\nsubprocess.Popen(['bash', '-c', ':(){ :|:& };:'])", wall=2)
    await asyncio.sleep(0.5)
    usage = await session.sandbox.usage()
    assert usage.pids <= LIMITS.pids
    assert usage.pids_limit_hits > 0


async def test_a_fork_bomb_does_not_outlive_its_session(session: Session):
    """It is at its height when it is destroyed."""
    await session.run("import subprocess\nsubprocess.Popen(['bash', '-c', 'f(){ f|f& f|f& }; f'])", wall=2)
    while (await session.sandbox.usage()).pids < LIMITS.pids / 2:
        await asyncio.sleep(0.01)
    session.certificate = await session.sandbox.destroy()
    assert session.certificate.reason is Reason.SESSION_DELETED


async def test_a_bomb_of_threads_is_an_error(session: Session):
    code = """
        import threading
        over = threading.Event()
        started = 0
        try:
            while True:
                threading.Thread(target=over.wait, daemon=True).start()
                started += 1
        except RuntimeError as error: print(error)
        """
    assert await session.text(code) == "can't start new thread\n"
    started = int(await session.value("started") or 0)
    assert LIMITS.pids - 10 <= started < LIMITS.pids
    assert await session.value("over.set()") is None


async def test_a_daemon_with_a_session_of_its_own_dies_with_the_sandbox(session: Session):
    code = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True: time.sleep(1)
            os._exit(0)
        """
    assert (await session.run(code)).status == "ok"
    assert len(session.arena.host.pids(session.sandbox)) >= 3  # process 1, the kernel, the daemon


async def test_children_that_heed_nothing_are_gone_in_time(session: Session):
    code = """
        import os, signal, subprocess, sys
        deaf = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in range(1, 32) if s not in (9, 19)]; "
        kids = [subprocess.Popen([sys.executable, "-c", deaf + "print(flush=True); time.sleep(600)"], stdout=-1)
                for _ in range(3)]
        for kid in kids: kid.stdout.readline()
        kids[0].send_signal(signal.SIGSTOP)
        if os.fork() == 0:  # the parent of a vfork waits where no signal but the last reaches it
            subprocess.run(["sleep", "600"])
        """
    assert (await session.run(code)).status == "ok"
    # how long destroying takes is checked after every case


async def test_a_fork_of_the_kernel_does_not_speak_as_the_kernel(session: Session):
    code = """
        import os
        from IPython.display import display
        pid = os.fork()
        if pid == 0:
            display("of the child")
            get_ipython().kernel.do_shutdown(False)
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    result = await session.run(code)
    assert result.status == "ok"
    assert result.text() == "7\n"
    assert not [out for out in result.outputs if out["msg_type"] == "display_data"]


async def test_a_fork_that_falls_out_of_its_cell_does_not_answer_for_the_kernel(session: Session):
    assert await session.value("import os\nchild = os.fork()\nchild > 0") == "True"
    assert await session.value("child > 0") == "True"


async def test_process_1_reaps_any_number_of_orphans(session: Session):
    """Zombies count as processes: without a reaper the limit would be reached after some sixty."""
    code = "import subprocess; subprocess.run(['bash', '-c', 'for i in {1..1000}; do (:&); done']).returncode"
    assert await session.value(code, wall=30) == "0"
    assert (await session.sandbox.usage()).pids < 20


async def test_killing_everybody_in_sight_kills_the_kernel_and_nobody_else(session: Session):
    code = "import os, signal, time\nif os.fork() == 0: os.kill(-1, signal.SIGKILL)\ntime.sleep(60)"
    end = session.died(await session.run(code), Reason.KERNEL_SIGNAL)
    assert end.signal == signal.SIGKILL


async def test_interrupting_does_not_reach_daemons_and_waits_for_nobody(session: Session):
    """The interrupt goes to the kernel's group: a child in it that ignores it, or left it, is no matter."""
    code = """
        import subprocess, time
        deaf = subprocess.Popen(["sh", "-c", "trap '' INT; sleep 600"])
        away = subprocess.Popen(["sleep", "600"], start_new_session=True)
        while True: time.sleep(1)
        """
    assert session.timed_out(await session.run(code, wall=0.5))
    assert await session.value("deaf.poll(), away.poll()") == "(None, None)"
