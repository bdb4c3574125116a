"""Cells that want more memory than is theirs, or memory that is nobody's."""

from __future__ import annotations

import asyncio
import signal

import pytest

from cellgate.sandbox.certificate import Reason
from tests.hostile.arena import ANSWER_SECONDS, LIMITS, MiB, Session


@pytest.mark.parametrize("code", ["' ' * (512 * 2**20)", "hog = []\nwhile True: hog.append(bytearray(b'x' * 2**20))"])
async def test_too_much_memory_ends_the_session_with_limit_and_peak(session: Session, code: str):
    end = session.died(await session.run(code), Reason.OOM)
    assert (end.signal, end.memory_limit_bytes) == (signal.SIGKILL, LIMITS.memory_bytes)
    assert end.memory_peak_bytes is not None
    assert end.memory_peak_bytes >= 0.9 * LIMITS.memory_bytes


async def test_a_child_that_takes_too_much_is_killed_alone_and_noted(session: Session):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = b\"x\" * (1 << 29)']).returncode"
    assert await session.value(code) == str(-signal.SIGKILL)
    end = await session.sandbox.destroy()
    assert "oom_child" in end.notes
    session.certificate = end


async def test_two_processes_that_take_more_only_together_do_not_both_live(session: Session):
    """The limit is the group's, not each process's."""
    code = f"""
        import subprocess, sys
        hog = "x = bytearray(b'x' * {int(0.6 * LIMITS.memory_bytes)}); print('full', flush=True); input()"
        hogs = [subprocess.Popen([sys.executable, "-c", hog], stdin=-1, stdout=-1, text=True) for _ in range(2)]
        said = [hog.stdout.readline().strip() for hog in hogs]
        for hog in hogs: hog.kill(); hog.wait()
        said.count("full")
        """
    assert await session.value(code) in ("0", "1")
    assert (await session.sandbox.usage()).oom_kills >= 1


async def test_full_shared_memory_is_an_error_and_a_hole_in_it_a_signal(session: Session):
    fill = "f = open('/dev/shm/a', 'wb')\nwhile True: f.write(bytes(2**20)); f.flush()"
    result = await session.run(fill)
    assert (result.reply.get("ename"), "No space left" in result.reply.get("evalue", "")) == ("OSError", True)
    hole = f"""
        import mmap, os
        fd = os.open("/dev/shm/b", os.O_CREAT | os.O_RDWR)
        os.ftruncate(fd, {2 * LIMITS.shm_bytes})
        hole = mmap.mmap(fd, 0)
        for at in range(0, len(hole), 4096): hole[at] = 1
        """
    assert session.died(await session.run(hole), Reason.KERNEL_SIGNAL).signal == signal.SIGBUS


async def test_memory_that_is_only_promised_harms_nobody(session: Session):
    outcomes = await session.attempts(
        {
            "shared": "SharedMemory(create=True, size=1 << 40)",
            "nothing": "mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=0)[0:0]",
            "sparse": "os.ftruncate(os.memfd_create('x'), 1 << 50)",
            "numpy-like": "mmap.mmap(-1, 1 << 44)",
        },
        setup="import mmap; from multiprocessing.shared_memory import SharedMemory",
    )
    assert outcomes["shared"] in ("EFBIG", "ENOMEM", "ENOSPC")
    assert outcomes["sparse"] in ("EFBIG", "EINVAL")
    assert outcomes["nothing"] in ("ENOMEM", "did: b''")


async def test_memory_that_cannot_be_reclaimed_is_refused(session: Session):
    outcomes = await session.attempts(
        {
            "mlock": "locked(_libc.mlock(page, 4096))",
            "mlockall": "locked(_libc.mlockall(3))",
            "huge pages": "mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)",
            "huge memfd": "os.memfd_create('x', 4)",
            "secret memory": "call(447, 0)",
        },
        setup="""
        import mmap
        page = ctypes.create_string_buffer(8192)
        def locked(done):
            if done: raise OSError(ctypes.get_errno(), "")
        """,
    )
    assert set(outcomes.values()) <= {"EPERM", "ENOMEM", "ENOSYS"}, outcomes


async def test_files_read_and_written_all_the_time_slow_no_neighbour(session: Session):
    code = """
        import os, time
        end = time.monotonic() + 2
        files = [e.path for e in os.scandir("/usr/bin") if e.is_file()]
        while time.monotonic() < end:
            for path in files[:50]:
                with open(path, "rb") as file: file.read()
            with open("big", "wb") as file: file.write(os.urandom(8 << 20))
            os.remove("big")
        """
    assert (await session.run(code)).status == "ok"


async def test_nobody_in_a_sandbox_escapes_being_killed_for_memory(session: Session):
    """Its score is above the warden's and the host's, and cannot be lowered; process 1's is not its to set."""
    outcomes = await session.attempts(
        {
            "own": "int(read('/proc/self/oom_score_adj'))",
            "lower": "write('/proc/self/oom_score_adj', b'-1000')",
            "old": "write('/proc/self/oom_adj', b'-17')",
            "process 1": "write('/proc/1/oom_score_adj', b'1000')",
        }
    )
    assert int(outcomes["own"].removeprefix("did: ")) > 0
    assert {outcomes[name] for name in ("lower", "old", "process 1")} <= {"EACCES", "EROFS", "EPERM"}, outcomes


async def test_memory_is_limited_with_swap_and_all(session: Session):
    end = session.died(await session.run("x = bytearray(b'x' * (300 << 20))"), Reason.OOM)
    assert end.memory_peak_bytes is not None
    assert end.memory_peak_bytes <= LIMITS.memory_bytes


async def test_memory_of_no_process_ends_the_session_and_not_process_1(session: Session):
    """Files fill what the caps allow; then segments that no process has attached take the rest: whom the host kills
    for it, the session ends and says why."""
    result = await session.run(
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        for path, size in (("/work/a", 60), ("/dev/shm/a", 30)):
            with open(path, "wb") as file: file.write(bytes(size << 20))
        for _ in range(40):
            segment = libc.shmget(0, 16 << 20, 0o1600)
            if segment < 0: break
            at = libc.shmat(segment, None, 0)
            ctypes.memset(at, 1, 16 << 20)
            libc.shmdt(ctypes.c_void_p(at))
        """
    )
    session.died(result, Reason.OOM)


@pytest.mark.parametrize("family", ["unix", "tcp", "udp", "pipe"])
async def test_what_waits_in_sockets_and_pipes_is_bounded_too(session: Session, family: str):
    """With version 1 of cgroups what waits in TCP sockets is counted only under a limit of its own; without it a
    sandbox of 256 MiB held 1.5 GB there and brought the host's TCP to its own limit."""
    before = kernel_memory_bytes()
    result = await session.run(
        f"""
        import os, socket
        kept, family = [], {family!r}
        def pair():
            if family == "unix": return socket.socketpair()
            if family == "pipe": return tuple(open(fd, "r+b", buffering=0) for fd in reversed(os.pipe()))
            if family == "udp":
                b = socket.socket(type=socket.SOCK_DGRAM); b.bind(("127.0.0.1", 0))
                a = socket.socket(type=socket.SOCK_DGRAM); a.connect(b.getsockname())
                return a, b
            with socket.create_server(("127.0.0.1", 0)) as server:
                a = socket.create_connection(server.getsockname())
                return a, server.accept()[0]
        try:
            while True:
                a, b = pair()
                kept.append((a, b))
                os.set_blocking(a.fileno(), False)
                if family != "pipe": a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
                for _ in range(100):
                    try:
                        if not os.write(a.fileno(), bytes(60000)): break
                    except BlockingIOError: break
        except OSError: pass
        """,
        wall=20,
    )
    held = kernel_memory_bytes() - before
    assert held < 2 * LIMITS.memory_bytes, f"{held >> 20} MiB wait in sockets"
    if result.certificate is not None:
        session.died(result, Reason.OOM)
    else:
        await session.run("kept.clear()")


def kernel_memory_bytes() -> int:
    """What all TCP and UDP sockets of the host hold; the others are counted in the sandbox's own memory."""
    with open("/proc/net/sockstat") as file:
        pages = sum(int(line.split(" mem ")[1].split()[0]) for line in file if " mem " in line)
    return pages * 4096


async def test_messages_and_semaphores_are_bounded(session: Session):
    result = await session.run(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        queues = 0
        while (queue := libc.msgget(0, 0o1600)) >= 0 and queues < 40000:
            queues += 1
            message = ctypes.create_string_buffer(8 + 8000)
            message[0] = 1
            while libc.msgsnd(queue, message, 8000, 0o4000) == 0: pass
        sets = 0
        while libc.semget(0, 1000, 0o1600) >= 0: sets += 1
        print(queues, sets)
        """
    )
    if result.certificate is not None:
        session.died(result, Reason.OOM)
    else:
        memory = (await session.sandbox.usage()).memory_bytes
        assert memory is not None
        assert memory <= LIMITS.memory_bytes


async def test_the_peak_of_a_fast_death_is_told_within_its_time(session: Session):
    await session.run("import threading\nhog = lambda: bytearray(b'x' * (400 << 20))")
    task = asyncio.create_task(session.run("threading.Thread(target=hog).start(); import time; time.sleep(60)"))
    end = await session.expect_death(Reason.OOM, seconds=ANSWER_SECONDS + 3)  # it takes its time to fill
    assert (await task).certificate == end
    assert end.memory_peak_bytes is not None
    assert end.memory_peak_bytes >= LIMITS.memory_bytes - 16 * MiB
