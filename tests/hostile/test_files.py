"""Cells that fill, break or leave files."""

from __future__ import annotations

import signal

from cellgate.sandbox.certificate import Reason
from tests.hostile.arena import LIMITS, SPEC, Session


async def test_descriptors_end_at_their_limit_and_print_still_works(session: Session):
    code = """
        import os
        kept = []
        try:
            while True: kept.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error: print(error.errno)
        """
    assert await session.text(code) == "24\n"
    assert await session.text("print(len(kept) < 1024)") == "True\n"
    assert (await session.run("raise ValueError('seen')")).reply["evalue"] == "seen"


async def test_a_file_larger_than_the_workspace_is_an_error(session: Session):
    result = await session.run("with open('big', 'wb') as file:\n  while True: file.write(bytes(2**20))")
    assert (result.reply["ename"], result.reply["evalue"]) == ("OSError", "[Errno 28] No space left on device")
    size = int(await session.value("import os; os.path.getsize('big')") or 0)
    assert size <= LIMITS.workspace_bytes


async def test_home_work_and_tmp_are_full_together(session: Session):
    code = """
        import os
        for place in ("/work", "/home/user", "/tmp"):
            try:
                with open(place + "/big", "wb") as file:
                    for _ in range(30): file.write(bytes(2**20)); file.flush()
            except OSError as error: print(place, error.errno)
        """
    assert await session.text(code) == "/tmp 28\n"


async def test_a_million_empty_files_end_at_the_cap_on_inodes(session: Session):
    code = """
        made = 0
        try:
            while made < 10**6:
                open(f"file{made}", "w").close()
                made += 1
        except OSError as error: print(error.errno)
        """
    assert await session.text(code) == "28\n"
    assert int(await session.value("made") or 0) <= LIMITS.workspace_inodes


async def test_attributes_and_links_count_too(session: Session):
    code = """
        import os
        open("a", "w").close()
        links = attributes = 0
        try:
            while links < 10**5: os.symlink("x" * 4000, f"link{links}"); links += 1
        except OSError: pass
        try:
            while attributes < 10**5: os.setxattr("a", f"user.{attributes}", bytes(60000)); attributes += 1
        except OSError: pass
        """
    result = await session.run(code)
    if result.certificate is not None:
        session.died(result, Reason.OOM)
    else:
        memory = (await session.sandbox.usage()).memory_bytes
        assert memory is not None
        assert memory < LIMITS.memory_bytes


async def test_a_sparse_file_beyond_the_limit_on_files_is_refused(session: Session):
    outcomes = await session.attempts({"huge": "os.truncate('a', 1 << 50)"}, setup="open('a', 'w').close()")
    assert outcomes == {"huge": "EFBIG"}


async def test_a_kernel_without_its_directory_lives(session: Session):
    code = """
        import os, shutil
        os.makedirs("deep"); os.chdir("deep"); os.rmdir("/work/deep")
        os.chmod("/work", 0)
        try: os.rename("/work", "/gone")
        except OSError: print("stays")
        try: os.rmdir("/home/user")
        except OSError: print("stays")
        """
    assert await session.text(code) == "stays\nstays\n"
    assert (await session.run("import subprocess; open('x', 'w')")).status == "error"
    assert (await session.run("import os; os.chmod('/work', 0o700); os.chdir('/work'); open('x', 'w').close()")).reply[
        "status"
    ] == "ok"


async def test_only_the_workspace_can_be_written(session: Session):
    outcomes = await session.attempts(
        {
            **{
                place: f"write({place!r} + '/x')" for place in ("/", "/etc", "/usr", "/usr/bin", "/lib", "/run", "/dev")
            },
            "/var/empty": "write('/var/empty/x')",
            "mkdir": "os.mkdir('/new')",
            "site-packages": "write(os.path.dirname(IPython.__file__) + '/x')",
            "the kernel's own package": "write(os.path.dirname(cellgate_kernel.__file__) + '/link.py')",
            "the interpreter": "write(os.path.realpath(sys.executable))",
            "passwd": "write('/etc/passwd')",
            "remove": "os.remove('/etc/hostname')",
            "chmod": "os.chmod('/usr/bin/env', 0o777)",
            "chmod a device": "os.chmod('/dev/null', 0o777)",
            "chown": "os.chown('/usr/bin/env', 1000, 1000)",
            "times": "os.utime('/usr/bin/env')",
            "link out": "os.link('/usr/bin/env', '/work/env')",
            "/var/tmp": "write('/var/tmp/x')",
            "/work": "write('/work/x')",
            "/home/user": "write('/home/user/x')",
            "/dev/shm": "write('/dev/shm/x')",
        },
        setup="import IPython, cellgate_kernel",
    )
    for place in ("/work", "/home/user", "/dev/shm", "/var/tmp"):
        assert outcomes.pop(place) == "did: 1"
    if outcomes.get("/var/empty") == "ENOENT":  # a place that not every sandbox has
        del outcomes["/var/empty"]
    assert set(outcomes.values()) <= {"EROFS", "EACCES", "EPERM", "EXDEV"}, outcomes


PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", "/work", "/home/user", "/dev/mqueue")


async def test_nothing_a_session_leaves_is_seen_by_the_next(session: Session):
    """Files in every place, System V and POSIX ipc, abstract sockets, the history of cells."""
    leave = f"""
        import ctypes, os, socket
        secret = "of the last session"
        for place in {PLACES!r}:
            try: open(place + "/left", "w").close()
            except OSError: pass
        libc = ctypes.CDLL(None)
        libc.shmget(4711, 4096, 0o1666), libc.mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o666, None)
        kept = socket.socket(socket.AF_UNIX); kept.bind("\\0left"); kept.listen()
        """
    assert (await session.run(leave)).status == "ok"
    other = await session.arena.driver.create(SPEC)
    try:
        second = Session(session.arena, other)
        async with second.kernel:
            seen = await second.attempts(
                {
                    **{place: f"os.listdir({place!r})" for place in PLACES},
                    "shm": "libc.shmget(4711, 4096, 0)",
                    "mq": "libc.mq_open(b'/left', 0)",
                    "abstract": "socket.socket(socket.AF_UNIX).connect('\\0left')",
                    "history": "list(get_ipython().history_manager.get_tail(100))",
                    "names": "[name for name in globals() if name in ('secret', 'kept')]",
                },
                setup="libc = ctypes.CDLL(None)",
            )
    finally:
        await other.destroy()
    for name, outcome in seen.items():
        assert "left" not in outcome, (name, outcome)
        assert "last session" not in outcome, (name, outcome)
    assert (seen["shm"], seen["mq"], seen["abstract"]) == ("did: -1", "did: -1", "ECONNREFUSED")
    assert seen["names"] == "did: []"


async def test_an_abort_leaves_no_core_file_and_runs_no_handler(session: Session):
    code = """
        import os, subprocess, sys
        crash = "import os; heap = bytearray(b'x' * (20 << 20)); os.abort()"
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", crash], os.environ)
        status = os.waitpid(pid, 0)[1]
        print(os.WTERMSIG(status), os.WCOREDUMP(status), [n for n in os.listdir() if "core" in n])
        """
    assert await session.text(code) == "6 False []\n"
    end = session.died(
        await session.run("import os; heap = bytearray(b'x' * (20 << 20)); os.abort()"), Reason.KERNEL_SIGNAL
    )
    assert end.signal == signal.SIGABRT


async def test_limits_of_the_process_cannot_be_raised(session: Session):
    outcomes = await session.attempts(
        {
            name: f"resource.setrlimit(resource.RLIMIT_{name}, (1 << 22, 1 << 22))"
            for name in ("NOFILE", "MEMLOCK", "CORE", "MSGQUEUE")
        }
        | {"FSIZE": "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))", "nice": "os.nice(-5)"},
        setup="import resource",
    )
    assert set(outcomes.values()) <= {"ValueError", "EPERM", "EACCES"}, outcomes
