"""The filter does what its tables say, on paper for both machines and for real on this one."""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import platform
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys

import pytest

from cellgate.sandbox.native import landlock, linux, seccomp
from cellgate.sandbox.native.seccomp import ALLOWED, CHECKED, REFUSED_WITH, Rule, Verdict
from cellgate.sandbox.native.syscalls import MACHINES, numbers
from tests.support.child import Died, in_child

MACHINE = platform.machine()
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, ARM = 0x40000003, 0x40000028

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
AF_NOT, OPT_NOT, INVALID = 0x50000 | errno.EAFNOSUPPORT, 0x50000 | errno.ENOPROTOOPT, 0x50000 | errno.EINVAL


# On paper.


def run_filter(program, arch, number, arguments=()):
    """A classic BPF machine, as much of it as a filter uses: what the kernel would be told."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *(tuple(arguments) + (0,) * 6)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        if operation == 0x20:  # ld
            assert operand % 4 == 0
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x54:  # and
            accumulator &= operand
        elif operation == 0x15:  # jeq
            at += if_true if accumulator == operand else if_false
        elif operation == 0x35:  # jge
            at += if_true if accumulator >= operand else if_false
        else:
            assert operation == 0x06, f"no such instruction: {operation:#x}"
            return operand


def expected(action, arguments):
    if isinstance(action, Verdict):
        return action.value
    for case in action.cases:
        if all(arguments[c.argument] & 0xFFFFFFFF & c.mask in c.values for c in case):
            return action.verdict.value
    return expected(action.otherwise, arguments)


@pytest.fixture(scope="module", params=MACHINES)
def machine(request):
    return request.param


@pytest.fixture(scope="module")
def program(machine):
    return seccomp.compile_filter(machine)


def verdict(machine, program, name, *arguments):
    return run_filter(program, ARCH[machine], numbers(machine)[name], arguments)


def test_every_name_in_the_tables_is_a_call_and_stands_once():
    names = [*" ".join(ALLOWED.values()).split(), *CHECKED, *REFUSED_WITH]
    assert sorted(set(names)) == sorted(names)
    assert not set(names) - set(numbers("x86_64"))


def test_every_number_gets_the_action_of_its_row(machine, program):
    policy = seccomp.policy(machine)
    chance = random.Random(1)
    for number in range(max(policy) + 40):
        action = policy.get(number, Verdict(ENOSYS))
        interesting = [chance.getrandbits(64), 0, 2**64 - 1]
        if isinstance(action, Rule):
            conditions = [c for case in action.cases for c in case]
            interesting += [v + high for c in conditions for v in c.values for high in (0, 1 << 32)]
            width = max(3, 1 + max(c.argument for c in conditions))
        else:
            width = 1
        for arguments in itertools.product(interesting, repeat=width):
            arguments += (0,) * (6 - width)
            assert run_filter(program, ARCH[machine], number, arguments) == expected(action, arguments), number


def test_the_usual_calls_pass_and_the_dangerous_ones_do_not(machine, program):
    known = numbers(machine)
    for name in USUAL.split():
        assert verdict(machine, program, name) == ALLOW, name
    for name in DANGEROUS.split():
        if name in known:
            assert verdict(machine, program, name) in (EPERM, ENOSYS), name


USUAL = "read write openat mmap futex execve newfstatat rseq getrandom epoll_pwait2 fchmodat2"
DANGEROUS = """
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp bpf perf_event_open
    userfaultfd memfd_secret io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl
    mount umount2 pivot_root chroot setns mount_setattr open_tree move_mount fsopen fsconfig fsmount fspick
    open_tree_attr open_by_handle_at name_to_handle_at fanotify_init fanotify_mark quotactl quotactl_fd acct syslog
    settimeofday clock_settime adjtimex clock_adjtime modify_ldt iopl ioperm init_module finit_module delete_module
    kexec_load kexec_file_load reboot swapon swapoff sethostname setdomainname vhangup lookup_dcookie nfsservctl
    move_pages migrate_pages mbind set_mempolicy set_mempolicy_home_node vmsplice remap_file_pages uselib ustat sysfs
    clone3 io_setup io_submit
"""


@pytest.mark.parametrize(
    ("call", "arguments", "wanted"),
    [
        pytest.param("clone", (0x11,), ALLOW, id="fork"),
        pytest.param("clone", (0x3D0F00,), ALLOW, id="thread"),
        *(
            pytest.param("clone", (0x11 | flag,), EPERM, id=f"clone-{flag:#x}")
            for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
        ),
        pytest.param("unshare", (0x400,), ALLOW, id="unshare-files"),
        pytest.param("unshare", (0x80,), EPERM, id="unshare-time"),
        pytest.param("unshare", (0x10000000,), EPERM, id="unshare-user"),
        pytest.param("unshare", (0x10000000 | 5 << 32,), EPERM, id="unshare-user-with-high-bits"),
        pytest.param("socket", (1, 1, 0), ALLOW, id="unix"),
        pytest.param("socket", (1, 5 | 0o2004000, 0), ALLOW, id="unix-seqpacket-cloexec-nonblock"),
        pytest.param("socket", (2, 1 | 0o2000000, 6), ALLOW, id="tcp"),
        pytest.param("socket", (10, 2, 17), ALLOW, id="udp6"),
        pytest.param("socket", (2, 3, 0), AF_NOT, id="raw"),
        pytest.param("socket", (10, 3 | 0o4000, 58), AF_NOT, id="raw6-nonblock"),
        pytest.param("socket", (2, 10, 0), AF_NOT, id="inet-packet"),
        pytest.param("socket", (2, 2, 1), AF_NOT, id="ping"),
        pytest.param("socket", (2, 1, 132), AF_NOT, id="sctp"),
        pytest.param("socket", (2, 5, 132), AF_NOT, id="sctp-seqpacket"),
        pytest.param("socket", (2, 1, 262), AF_NOT, id="mptcp"),
        *(
            pytest.param("socket", (family, 2, 0), AF_NOT, id=f"family-{family}")
            for family in (0, 3, 9, 15, 17, 21, 29, 30, 31, 38, 40, 42, 43, 44, 45, 2**32 - 1)
        ),
        pytest.param("socket", (16, 3 | 0o2000000, 0), 0x50000 | errno.EOPNOTSUPP, id="netlink"),
        pytest.param("socketpair", (1, 1, 0), ALLOW, id="socketpair"),
        pytest.param("socketpair", (30, 1, 0), AF_NOT, id="socketpair-tipc"),
        pytest.param("setsockopt", (3, 6, 1), ALLOW, id="nodelay"),
        pytest.param("setsockopt", (3, 1, 26), OPT_NOT, id="attach-filter"),
        pytest.param("setsockopt", (3, 1, 52), OPT_NOT, id="attach-reuseport-ebpf"),
        pytest.param("setsockopt", (3, 6, 26), ALLOW, id="tcp-option-26"),
        pytest.param("setsockopt", (3, 6, 31), OPT_NOT, id="tcp-ulp"),
        pytest.param("setsockopt", (3, 17, 100), OPT_NOT, id="udp-encap"),
        pytest.param("ioctl", (0, 0x5401), ALLOW, id="tcgets"),
        pytest.param("ioctl", (0, 0x5412), EPERM, id="tiocsti"),
        pytest.param("ioctl", (0, 0x5412 | 1 << 32), EPERM, id="tiocsti-with-high-bits"),
        pytest.param("ioctl", (0, 0x541C), EPERM, id="tioclinux"),
        pytest.param("ioctl", (0, 0x5423), EPERM, id="tiocsetd"),
        pytest.param("prctl", (15,), ALLOW, id="set-name"),
        pytest.param("prctl", (38,), ALLOW, id="no-new-privs"),
        pytest.param("prctl", (35,), EPERM, id="set-mm"),
        pytest.param("prctl", (59,), EPERM, id="syscall-user-dispatch"),
        pytest.param("prctl", (67,), EPERM, id="memory-merge"),
        pytest.param("prctl", (24,), EPERM, id="capbset-drop"),
        pytest.param("personality", (0xFFFFFFFF,), ALLOW, id="personality-asked"),
        pytest.param("personality", (0x0040000,), EPERM, id="personality-without-aslr"),
        pytest.param("personality", (8,), EPERM, id="personality-linux32"),
        pytest.param("madvise", (0, 0, 4), ALLOW, id="dontneed"),
        pytest.param("madvise", (0, 0, 12), INVALID, id="mergeable"),
        pytest.param("mknodat", (0, 0, 0o010644), ALLOW, id="fifo"),
        pytest.param("mknodat", (0, 0, 0o020644), EPERM, id="character-device"),
        pytest.param("mknodat", (0, 0, 0o060644), EPERM, id="block-device"),
    ],
)
def test_arguments_decide(machine, program, call, arguments, wanted):
    assert verdict(machine, program, call, *arguments) == wanted


def test_foreign_conventions_end_the_process(machine, program):
    for arch in (I386, ARM, *(a for m, a in ARCH.items() if m != machine), 0):
        assert run_filter(program, arch, 0) == KILL
    if machine == "x86_64":
        assert run_filter(program, ARCH[machine], 0x40000000 | numbers(machine)["getpid"]) == KILL


def test_a_number_that_is_no_call_or_a_newer_one_is_unknown(machine, program):
    for number in (max(numbers(machine).values()) + 1, 600, 0x3FFFFFFF, 0xFFFFFFFF):
        assert run_filter(program, ARCH[machine], number) == ENOSYS


def test_another_machine_has_no_filter():
    with pytest.raises(KeyError):
        seccomp.compile_filter("sparc")


# For real.


def confine():
    linux.capset()
    linux.set_no_new_privs()
    seccomp.install(seccomp.compile_filter())


def raw(number, *arguments):
    """0 or more, or the negative errno."""
    try:
        return linux.syscall(number, *arguments)
    except OSError as error:
        return -error.errno


def test_every_refused_call_fails_by_its_number():
    """With arguments that the kernel itself would answer with EFAULT, EINVAL or EBADF, and as root."""
    refused = {n: a for n, a in seccomp.policy(MACHINE).items() if isinstance(a, Verdict) and a.value not in (ALLOW,)}

    def call_each():
        linux.set_no_new_privs()
        seccomp.install(seccomp.compile_filter())
        return {number: raw(number, *[2**64 - 1] * 6) for number in refused}

    answers = in_child(call_each)
    assert len(answers) > 80
    assert {n: -(action.value & 0xFFFF) for n, action in refused.items()} == answers


def test_new_namespaces_raw_sockets_and_typing_into_a_terminal_fail():
    def attempts():
        confine()
        families = {}
        for family in (socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG):
            try:
                socket.socket(family, socket.SOCK_DGRAM)
            except OSError as error:
                families[family.name] = error.errno
        known = numbers(MACHINE)
        return (
            families,
            [raw(known["unshare"], 1 << 28), raw(known["clone"], 1 << 28 | 17), raw(known["clone3"], 0, 0)],
            raw(known["ioctl"], 0, 0x5412, 0),
        )

    families, namespaces, typing = in_child(attempts)
    assert families.pop("AF_NETLINK") == errno.EOPNOTSUPP  # or libzmq aborts
    assert families == dict.fromkeys(("AF_PACKET", "AF_VSOCK", "AF_ALG"), errno.EAFNOSUPPORT)
    assert namespaces == [-errno.EPERM, -errno.EPERM, -errno.ENOSYS]
    assert typing == -errno.EPERM


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 and int 0x80 are of x86-64")
def test_an_x32_call_ends_the_process():
    def call():
        confine()
        return raw(0x40000000 | numbers(MACHINE)["getpid"])

    with pytest.raises(Died) as died:
        in_child(call)
    assert died.value.signal == signal.SIGSYS


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 and int 0x80 are of x86-64")
def test_a_32_bit_call_ends_the_process():
    def call():
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid there); int 0x80; ret
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        confine()
        return function()

    with pytest.raises(Died) as died:
        in_child(call)
    assert died.value.signal in (signal.SIGSYS, signal.SIGSEGV)  # the latter from a kernel without 32-bit calls


def test_a_guest_may_narrow_its_own_sandbox():
    def narrow():
        confine()
        landlock.ruleset(read=("/",), write=()).restrict_self()
        no_socket = [
            (0x20, 0, 0, 0),
            (0x15, 0, 1, numbers(MACHINE)["socket"]),
            (6, 0, 0, 0x50000 | 1),
            (6, 0, 0, ALLOW),
        ]
        seccomp.install(b"".join(struct.pack("=HBBI", *i) for i in no_socket))
        try:
            socket.socket()
        except OSError as error:
            return error.errno
        return 0

    assert in_child(narrow) == errno.EPERM


def test_sync_pretends_and_touches_no_disk():
    assert in_child(lambda: (confine(), raw(numbers(MACHINE)["sync"]))[1]) == 0


WORK = {
    "numpy": """
import numpy as np
a = np.random.default_rng(1).random((600, 600)); assert np.allclose(a @ np.linalg.inv(a), np.eye(600), atol=1e-6)
np.save('a.npy', a); assert np.load('a.npy', mmap_mode='r').shape == a.shape
""",
    "pandas": """
import pandas as pd
f = pd.DataFrame({'a': [1, 2, 3], 'b': list('xyx')}); f.to_csv('f.csv'); assert pd.read_csv('f.csv').a.sum() == 6
assert f.groupby('b').a.sum()['x'] == 4
""",
    "matplotlib": """
import matplotlib; matplotlib.use('Agg')
import matplotlib.pyplot as plt
plt.plot([1, 2]); plt.savefig('p.png'); import os; assert os.path.getsize('p.png') > 1000
""",
    "threads": """
import threading, concurrent.futures as cf
with cf.ThreadPoolExecutor(8) as pool: assert sum(pool.map(lambda x: x * x, range(100))) == 328350
t = threading.Timer(0.01, lambda: None); t.start(); t.join()
""",
    "subprocess": """
import os, subprocess
assert subprocess.run(['echo', 'hi'], capture_output=True, text=True, start_new_session=True).stdout == 'hi\\n'
assert subprocess.getoutput('for i in 3 1 2; do echo $i; done | sort | head -1') == '1'
assert os.system('true') == 0
assert os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)[1] == 0
""",
    "asyncio": """
import asyncio, socket
async def echo(r, w): w.write(await r.readline()); await w.drain(); w.close()
async def main():
    for start, connect in (
        (asyncio.start_server(echo, '127.0.0.1', 0), asyncio.open_connection),
        (asyncio.start_unix_server(echo, 'sock'), None),
    ):
        server = await start
        if connect: r, w = await connect(*server.sockets[0].getsockname())
        else: r, w = await asyncio.open_unix_connection('sock')
        w.write(b'x\\n'); assert await r.readline() == b'x\\n'; w.close(); server.close()
    p = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1)
    assert (await p.communicate(b'y'))[0] == b'y'
    assert await asyncio.to_thread(lambda: 1) == 1
asyncio.run(main())
""",
    "sqlite3": """
import sqlite3
c = sqlite3.connect('d.db'); c.execute('pragma journal_mode=wal'); c.execute('create table t(x)')
c.execute('insert into t values (1)'); c.commit()
assert c.execute('select sum(x) from t').fetchone() == (1,); c.close()
""",
    "multiprocessing": """
import multiprocessing as mp
from multiprocessing import shared_memory
def square(x): return x * x
if __name__ == '__main__':
    for method in ('fork', 'spawn', 'forkserver'):
        with mp.get_context(method).Pool(2) as pool: assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    m = shared_memory.SharedMemory(create=True, size=4096); m.buf[0] = 7
    o = shared_memory.SharedMemory(m.name); assert o.buf[0] == 7; o.close(); m.close(); m.unlink()
    q = mp.Queue(); p = mp.Process(target=q.put, args=(1,)); p.start(); assert q.get(timeout=20) == 1; p.join()
""",
    "files": """
import os, mmap, fcntl, tempfile, shutil
with tempfile.TemporaryDirectory(dir='.') as d:
    p = os.path.join(d, 'a'); f = open(p, 'w+b'); f.truncate(8192); m = mmap.mmap(f.fileno(), 0); m[0] = 1; m.flush()
    fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX); os.fsync(f.fileno())
    os.posix_fallocate(f.fileno(), 0, 9000)
    os.link(p, p + '1'); os.symlink('a', p + '2'); os.rename(p + '1', p + '3'); os.chmod(p, 0o600); os.utime(p)
    os.mkfifo(p + 'f'); shutil.copyfile(p, p + '4'); os.statvfs(d); list(os.walk(d)); os.truncate(p, 1)
    os.sched_setaffinity(0, os.sched_getaffinity(0)); os.sync()
fd = os.memfd_create('x'); os.write(fd, b'1')
""",
    "signals and timers": """
import signal, os, select, time
hit = []
signal.signal(signal.SIGALRM, lambda *_: hit.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}); os.kill(os.getpid(), signal.SIGUSR1)
assert signal.sigtimedwait({signal.SIGUSR1}, 1).si_signo == signal.SIGUSR1
e = select.epoll(); r, w = os.pipe(); e.register(r); os.write(w, b'1'); assert e.poll(1); assert hit
os.nice(1); time.sleep(0.001)
""",
    "inotify and pidfd": """
import ctypes, os, select
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(0); assert fd >= 0 and libc.inotify_add_watch(fd, b'.', 0x100) > 0
open('new', 'w').close(); assert os.read(fd, 4096)
pid = os.fork() or os._exit(0)
p = os.pidfd_open(pid); select.select([p], [], []); os.waitpid(pid, 0)
""",
    "system v ipc": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
i = libc.shmget(0, 4096, 0o1600); assert i >= 0; libc.shmctl(i, 0, None)
i = libc.semget(0, 1, 0o1600); assert i >= 0; libc.semctl(i, 0, 0)
i = libc.msgget(0, 0o1600); assert i >= 0; libc.msgctl(i, 0, None)
""",
    "a terminal": """
import os, pty
pid, fd = pty.fork()
if pid == 0: os.execlp('sh', 'sh', '-c', 'tty >/dev/null && stty -a >/dev/null && echo yes')
out = b''
try:
    while part := os.read(fd, 999): out += part
except OSError: pass
assert b'yes' in out, out
""",
    "zmq": """
import zmq
c = zmq.Context(); a = c.socket(zmq.PAIR); a.bind('ipc://z'); b = c.socket(zmq.PAIR); b.connect('ipc://z')
b.send(b'1'); assert a.recv() == b'1'; c.destroy(0)
""",
    "psutil and platform": """
import psutil, platform, uuid, getpass, locale, tracemalloc, faulthandler
p = psutil.Process(); p.memory_info(); p.num_threads(); p.cpu_times(); psutil.cpu_count()
platform.platform(); uuid.uuid4()
""",
    "pip": "import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', '--help'], check=True, stdout=-3)",
    "an IPython kernel": """
import subprocess, sys
assert '42' in subprocess.run([sys.executable, '-m', 'IPython', '--colors=NoColor', '-c', 'print(6*7)\\n!echo sh'],
                              capture_output=True, text=True, check=True).stdout
""",
}
TOOLS = {
    "git": """
git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git log --oneline && git gc -q
""",
    "bash": """
set -o pipefail; x=(1 2 3); diff <(printf '%s\\n' ${x[@]} | sort -r) <(echo 3; echo 2; echo 1); cat <<< hi
ls -la / | wc -l; (sleep 0.01 & wait); ulimit -n 100; tar cf a.tar /bin/true 2>/dev/null; gzip -9 a.tar
""",
    "gcc": """
cat > a.c <<.
#include <pthread.h>
#include <stdio.h>
void *f(void *x) { return x; }
int main() { pthread_t t; pthread_create(&t, 0, f, 0); pthread_join(t, 0); puts("ran"); }
.
gcc -O2 -pthread a.c -o a && ./a | grep ran
""",
    "find": """
find / -maxdepth 1 >/dev/null 2>&1; df . >/dev/null; stat / >/dev/null; date >/dev/null; nproc; timeout 5 true
""",
}


@pytest.mark.parametrize("work", WORK)
def test_ordinary_python_works(work, tmp_path):
    (tmp_path / "work.py").write_text(WORK[work])
    do_confined([sys.executable, "work.py"], tmp_path)


@pytest.mark.parametrize("tool", TOOLS)
def test_ordinary_tools_work(tool, tmp_path):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    do_confined(["bash", "-ec", TOOLS[tool]], tmp_path)


def do_confined(command, directory):
    environment = os.environ | {"HOME": str(directory), "IPYTHONDIR": str(directory), "MPLCONFIGDIR": str(directory)}
    run = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        preexec_fn=confine,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
