"""Cells that want to be somebody else, or more than they are."""

from __future__ import annotations

import json
import platform
import signal

import pytest

from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.native.syscalls import numbers
from tests.hostile.arena import Session

REFUSED = {"EPERM", "ENOSYS", "EACCES"}
NUMBERS = numbers(platform.machine())


async def test_a_set_user_id_program_changes_nothing(session: Session):
    code = """
        import glob, json, os, shutil, stat, subprocess
        shutil.copy(shutil.which("id"), "/work/own"); os.chmod("/work/own", 0o6755)
        found = [p for d in ("/usr/bin", "/usr/sbin", "/usr/lib/*") for p in glob.glob(d + "/*")
                 if os.path.isfile(p) and os.stat(p).st_mode & (stat.S_ISUID | stat.S_ISGID)]
        ids = subprocess.run(["/work/own", "-u"], capture_output=True, text=True).stdout.strip()
        su = subprocess.run(["su", "-c", "id -u"], capture_output=True, text=True, stdin=-3).stdout.strip()
        print(json.dumps([ids, su, os.getresuid(), len(found)]))
        """
    own, su, ids, _found = json.loads(await session.text(code))
    assert (own, su, ids) == ("1000", "", [1000, 1000, 1000])
    assert "nosuid" in (await session.text("print(open('/proc/self/mountinfo').read())")).split(" /work ")[1]


async def test_no_mount_admits_set_user_id_or_devices(session: Session):
    text = await session.text("print(open('/proc/self/mountinfo').read())")
    for line in filter(None, text.splitlines()):
        options = line.split()[5].split(",")
        assert "nosuid" in options, line
        is_device = line.split()[4] in (
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/pts",
        )
        assert is_device or "nodev" in options or line.split()[3] == "/null", line
        assert " shared:" not in line, "what is mounted here would be seen outside, or the other way round"


# CLONE_NEW*: TIME, NS, CGROUP, UTS, IPC, USER, PID, NET.
NAMESPACES = (0x80, 0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)


async def test_no_namespace_of_ones_own(session: Session):
    outcomes = await session.attempts(
        {f"unshare {flag:#x}": f"call({NUMBERS['unshare']}, {flag})" for flag in NAMESPACES}
        | {f"clone {flag:#x}": f"call({NUMBERS['clone']}, {flag | signal.SIGCHLD}, 0, 0, 0, 0)" for flag in NAMESPACES}
        | {"clone3": f"call({NUMBERS['clone3']}, bytes(88), 88)"}
        | {"setns": f"call({NUMBERS['setns']}, os.open('/proc/self/ns/user', os.O_RDONLY), 0)"}
        | {"high bits": f"call({NUMBERS['unshare']}, 0x10000000 | 1 << 40)"}
    )
    assert set(outcomes.values()) <= {"EPERM", "ENOSYS"}, outcomes
    program = await session.run("import subprocess; subprocess.run(['unshare', '-Ur', 'id'], check=True)")
    assert program.status == "error"


async def test_no_mount_and_no_other_root(session: Session):
    n = NUMBERS
    outcomes = await session.attempts(
        {
            "tmpfs": f"call({n['mount']}, b'none', b'/tmp', b'tmpfs', 0, 0)",
            "bind": f"call({n['mount']}, b'/', b'/tmp', 0, 4096, 0)",
            "remount": f"call({n['mount']}, b'none', b'/', 0, 32 | 4096, 0)",
            "umount": f"call({n['umount2']}, b'/proc/keys', 2)",
            "pivot_root": f"call({n['pivot_root']}, b'.', b'.')",
            "chroot": "os.chroot('/work')",
            **{name: f"call({n[name]}, 0, 0, 0, 0, 0)" for name in ("fsopen", "fspick", "fsmount", "fsconfig")},
            **{name: f"call({n[name]}, -100, b'/', 1, 0, 0)" for name in ("open_tree", "move_mount", "mount_setattr")},
            "fuse": "os.open('/dev/fuse', os.O_RDWR)",
        }
    )
    assert set(outcomes.values()) <= {*REFUSED, "ENOENT"}, outcomes


async def test_no_look_into_another_process(session: Session):
    """Not into process 1, which is a fork of the warden, nor with ptrace into ones own children."""
    n = NUMBERS
    outcomes = await session.attempts(
        {
            "attach": f"call({n['ptrace']}, 16, 1, 0, 0)",
            "seize": f"call({n['ptrace']}, 0x4206, 1, 0, 0)",
            "traceme": f"call({n['ptrace']}, 0, 0, 0, 0)",
            "read": f"call({n['process_vm_readv']}, 1, 0, 0, 0, 0, 0)",
            "write": f"call({n['process_vm_writev']}, 1, 0, 0, 0, 0, 0)",
            "pidfd_getfd": f"call({n['pidfd_getfd']}, call({n['pidfd_open']}, 1, 0), 0, 0)",
            "kcmp": f"call({n['kcmp']}, 1, os.getpid(), 0, 0, 0)",
            "madvise": f"call({n['process_madvise']}, call({n['pidfd_open']}, 1, 0), 0, 0, 4, 0)",
            "mem": "os.open('/proc/1/mem', os.O_RDWR)",
            "limits": f"call({n['prlimit64']}, 1, 7, bytes(16), 0)",
            "affinity": "os.sched_setaffinity(1, {0})",
            "priority": "os.setpriority(os.PRIO_PROCESS, 1, 19)",
        }
    )
    affected = {name for name, outcome in outcomes.items() if outcome.startswith("did")}
    # Process 1 does nothing that a processor or a priority could hurt; it has the session's own uid.
    assert affected <= {"affinity", "priority", "limits"}, outcomes
    assert {outcome for name, outcome in outcomes.items() if name not in affected} <= {*REFUSED, "ESRCH"}, outcomes


async def test_process_1_hears_no_signal_from_inside(session: Session):
    outcomes = await session.attempts({str(number): f"os.kill(1, {number})" for number in range(1, 65)})
    assert set(outcomes.values()) <= {"EPERM", "did: None"}, outcomes
    queued = await session.attempts(
        {"queue": f"call({NUMBERS['rt_sigqueueinfo']}, 1, 9, bytes(128))"}
        | {"pidfd": f"call({NUMBERS['pidfd_send_signal']}, call({NUMBERS['pidfd_open']}, 1, 0), 9, 0, 0)"}
    )
    assert set(queued.values()) <= {"EPERM", "EINVAL", "did: 0"}, queued
    assert await session.value("import subprocess; subprocess.run(['sh', '-c', '(sleep 0.01 &)']).returncode") == "0"


DANGEROUS = """
    bpf perf_event_open userfaultfd kexec_load kexec_file_load init_module finit_module delete_module reboot swapon
    swapoff settimeofday clock_settime clock_adjtime adjtimex syslog quotactl quotactl_fd acct lookup_dcookie
    open_by_handle_at name_to_handle_at fanotify_init fanotify_mark memfd_secret modify_ldt iopl ioperm
    io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl sethostname setdomainname vhangup
    move_pages migrate_pages mbind set_mempolicy vmsplice remap_file_pages uselib ustat sysfs nfsservctl io_setup
    process_mrelease statmount listmount lsm_set_self_attr cachestat
"""


async def test_no_call_that_reaches_deep_into_the_kernel(session: Session):
    outcomes = await session.attempts(
        {name: f"call({NUMBERS[name]}, 0, 0, 0, 0, 0)" for name in DANGEROUS.split() if name in NUMBERS}
        | {"personality": f"call({NUMBERS['personality']}, 0x0400000)"}  # READ_IMPLIES_EXEC
        | {"beyond the table": "call(1023)", "far beyond": "call(0x3fffffff)"}
    )
    assert set(outcomes.values()) <= {"EPERM", "ENOSYS"}, outcomes


@pytest.mark.parametrize("convention", ["x32", "i386"])
async def test_a_call_in_a_foreign_convention_ends_its_process(session: Session, convention: str):
    if platform.machine() != "x86_64":
        pytest.skip("x32 and int 0x80 are of x86-64")
    code = f"""
        import ctypes, mmap, os
        pid = os.fork()
        if pid == 0:
            if {convention!r} == "x32": ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 39))
            else:
                page = mmap.mmap(-1, 4096, prot=7)
                page.write(b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3")  # mov eax, 20; int 0x80; ret
                ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
            os._exit(0)
        os.WTERMSIG(os.waitpid(pid, 0)[1])
        """
    assert await session.value(code) == str(int(signal.SIGSYS))


async def test_guests_may_tighten_their_own_sandbox_and_never_loosen_it(session: Session):
    prctl = NUMBERS["prctl"]
    outcomes = await session.attempts(
        {
            "no_new_privs off": f"call({prctl}, 38, 0, 0, 0, 0)",
            "no_new_privs on": f"call({prctl}, 38, 1, 0, 0, 0)",
            "seccomp off": f"call({prctl}, 22, 0, 0, 0, 0)",
            "keepcaps": f"call({prctl}, 8, 1, 0, 0, 0)",
            "securebits": f"call({prctl}, 28, 0, 0, 0, 0)",
            "ambient": f"call({prctl}, 47, 2, 21, 0, 0)",
            "set_mm": f"call({prctl}, 35, 1, 0, 0, 0)",
            "not dumpable": f"call({prctl}, 4, 0, 0, 0, 0)",
            "dumpable by root": f"call({prctl}, 4, 2, 0, 0, 0)",
            "stricter": "strict()",
            "landlock": f"call({NUMBERS['landlock_create_ruleset']}, bytes([1] + 7 * [0]), 8, 0) > 0",
        },
        setup=STRICTER,
    )
    allowed = {name for name, outcome in outcomes.items() if outcome.startswith("did")}
    assert allowed == {"no_new_privs on", "not dumpable", "stricter", "landlock"}, outcomes


STRICTER = """
import struct
def strict():  # a filter that allows all: it changes nothing for what stands before it
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7fff0000))
    return call(317, 1, 0, ctypes.c_char_p(struct.pack("@HP", 1, ctypes.addressof(program))))
""".replace("317", str(NUMBERS["seccomp"]))


async def test_there_is_no_capability_to_be_had(session: Session):
    n = NUMBERS
    status = await session.text("print(open('/proc/self/status').read())")
    sets = {line.split()[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")}
    assert set(sets) == {"CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"}
    assert not any(sets.values()), sets
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    outcomes = await session.attempts(
        {
            "setuid": "os.setuid(0)",
            "setresuid": "os.setresuid(0, 0, 0)",
            "setgid": "os.setgid(0)",
            "setgroups": "os.setgroups([0])",
            "another user": "os.setuid(1001)",
            "overflow": "os.setuid(65534)",
            "capset": f"call({n['capset']}, ctypes.c_char_p(bytes([0x22, 5, 8, 0x20, 0, 0, 0, 0])), b'\\xff' * 24)",
            "setxattr": "os.setxattr('own', 'security.capability', bytes.fromhex('0100000200200000') + bytes(12))",
            "chown": "os.chown('own', 0, 0)",
        },
        setup="open('own', 'w').close()",
    )
    assert set(outcomes.values()) <= {"EPERM", "EINVAL"}, outcomes


async def test_root_is_nobody_in_here_and_the_session_is_nobody_outside(session: Session):
    """One id is mapped, and it is not root's on either side: a file that root's id alone may write, such as the core
    pattern, stays closed whatever is gained inside."""
    maps = await session.text("print(open('/proc/self/uid_map').read(), open('/proc/self/gid_map').read())")
    for line in filter(str.strip, maps.splitlines()):
        inside, outside, count = line.split()
        assert (inside, count) == ("1000", "1"), maps
        assert outside != "0"
    assert await session.value("open('/proc/self/setgroups').read()") == "'deny\\n'"
    assert session.uid is None or session.uid >= 100_000, session.uid
    assert await session.value("import os; os.stat('/usr').st_uid, os.getgroups()") in (
        "(65534, [])",
        "(65534, [65534])",
    )


async def test_a_terminal_of_ones_own_is_harmless(session: Session):
    """It cannot be typed into from the other side (TIOCSTI), and there are not many of them."""
    outcomes = await session.attempts(
        {
            "tiocsti": "fcntl.ioctl(slave, 0x5412, b'x')",
            "tiocsti, high bits": f"call({NUMBERS['ioctl']}, slave, 0x5412 | 1 << 32, b'x')",
            "tioclinux": "fcntl.ioctl(slave, 0x541C, b'\\x03')",
            "line discipline": "fcntl.ioctl(slave, 0x5423, bytes(4))",
            "console": "fcntl.ioctl(slave, 0x541D, 0)",  # TIOCCONS: the host's console output comes here
            "many": "len(masters())",
        },
        setup="""
        import fcntl, pty
        master, slave = pty.openpty()
        def masters():
            kept = []
            try:
                while True: kept.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
            except OSError: return kept
        """,
    )
    assert int(outcomes.pop("many").removeprefix("did: ")) < 100
    assert set(outcomes.values()) <= {"EPERM", "EIO", "ENOTTY", "EACCES"}, outcomes


async def test_a_crash_in_c_code_ends_the_session_with_its_signal(session: Session):
    result = await session.run("import ctypes; ctypes.string_at(0)")
    assert session.died(result, Reason.KERNEL_SIGNAL).signal == signal.SIGSEGV
