"""The two processes of a sandbox, from their beginning to the point where they can do no harm any more.

Process 1 is spawned by the warden and makes the sandbox: it enters the template's root, takes namespaces of its
own, mounts what is private, becomes the session's uid in a user namespace of its own, and then only sleeps. It is
no Python, but a small program (`program.py`) that makes the system calls of a list, which is written here.

The kernel is forked by a zygote at the same time, waits for process 1, joins its namespaces, gives everything up,
and only then sees anything of its session. Doing both at once is what makes a sandbox cost one fork, not two.

The order of the steps is the isolation; each says why it stands where it stands. Nothing here is imported or
opened after the guest's root is entered, because by then the host's files are out of reach.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn

from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import landlock, linux, seccomp
from cellgate.sandbox.native.pages import Pages
from cellgate.sandbox.native.program import Calls, Later, failure
from cellgate.sandbox.native.rootfs import HOME, WORK, Root, mount_private

__all__ = ["INSIDE_ID", "OK", "InitJob", "KernelJob", "become_kernel", "make_sandbox"]

INSIDE_ID: Final = 1000  # the uid and gid that the session's own look like from inside
OK: Final = b"1"  # what a process writes when it is ready; anything else is the reason why it is not

# Held while the user namespace is made: CAP_SYS_ADMIN for hosts that forbid it to users, CAP_SETFCAP for a warden
# that is root of a user namespace alone, whose 0 a map may name only so (user_namespaces(7)).
_CAPS_FOR_NAMESPACE: Final = 1 << 21 | 1 << 31
_SECUREBITS: Final = (
    linux.SECBIT_NOROOT
    | linux.SECBIT_NOROOT_LOCKED
    | linux.SECBIT_NO_SETUID_FIXUP
    | linux.SECBIT_NO_SETUID_FIXUP_LOCKED
    | linux.SECBIT_KEEP_CAPS_LOCKED
    | linux.SECBIT_NO_CAP_AMBIENT_RAISE
    | linux.SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
)
_OWN_NAMESPACES: Final = (
    linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP
)
_READ_ONLY_AGAIN: Final = (  # 7 microseconds; mount_setattr, cold, takes 200
    linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
)
# 1, not 0: a core pattern that pipes into a handler runs it at 0, and is refused at 1 (core(5)).
_CORE_BYTES: Final = 1


@dataclass(frozen=True)
class InitJob:
    """What process 1 needs to know of one sandbox. The descriptors are the warden's own, under their numbers there."""

    uid: int
    root: int  # the template's mount namespace
    entrances: Sequence[int]
    ready: int  # written once: OK, or what `program.failure` understands
    warden: int  # a pidfd of the warden

    @property
    def descriptors(self) -> Sequence[int]:
        return self.root, *self.entrances, self.ready, self.warden

    @property
    def numbers(self) -> Mapping[str, int]:
        entrances = {f"entrance {place}": fd for place, fd in enumerate(self.entrances)}
        return {"uid": self.uid, "root": self.root, "ready": self.ready, "warden": self.warden, **entrances}


@dataclass(frozen=True)
class KernelJob:
    """What the kernel process needs."""

    open_files: int  # limits
    file_bytes: int
    entrances: Sequence[int]
    pages: Pages  # that it will write to
    init: int  # a pidfd of process 1
    init_ready: int  # read once: see InitJob.ready
    started: int  # written once: OK, or why not
    birth: int  # the kernel host's birth socket
    is_host_root: bool
    filter: bytes  # of seccomp


@lru_cache(maxsize=64)
def make_sandbox(root: Root, limits: Limits, entrances: int, program: bytes, *, is_host_root: bool) -> Calls:
    """What process 1 of a new pid namespace does, but for the numbers of an InitJob: make the sandbox, then give
    everything up. `program` is the seccomp filter."""
    uid, ready = Later("uid"), Later("ready")
    calls = Calls(ready)
    call = calls.call
    call("prctl", linux.PR_SET_NAME, "cellgate-init")
    for place in range(entrances):  # before what costs memory, and before the cgroup namespace takes its root
        call("write", Later(f"entrance {place}"), "0", 1)
    call("close_range", 0, 2, 0)  # from here on what is opened gets the numbers from 0
    call("setns", Later("root"), linux.CLONE_NEWNS)
    call("unshare", _OWN_NAMESPACES)
    mount_private(_Mounts(calls), root, limits, uid)
    call("sethostname", "sandbox", len("sandbox"))
    call("socket", socket.AF_INET, socket.SOCK_DGRAM, 0, only=True)
    call("ioctl", 0, linux.SIOCSIFFLAGS, linux.LOOPBACK_UP)
    call("close", 0)
    # A second, detached view of /proc: the one that stays becomes read-only, and the maps must be written below.
    call("open_tree", linux.AT_FDCWD, "/proc", linux.OPEN_TREE_CLONE, only=True)
    call("mount", "none", "/proc", 0, _READ_ONLY_AGAIN, 0)
    # The user namespace comes last, so that all others belong to the one outside: whatever capability is ever
    # gained in here says nothing about these mounts, this network or these processes.
    call("prctl", linux.PR_SET_KEEPCAPS, 1)
    if is_host_root:  # to root of a user namespace alone groups are for ever denied
        call("setgroups", 0, 0)
    call("setresgid", uid, uid, uid)
    call("setresuid", uid, uid, uid)
    call("capset", linux.CAPABILITY_HEADER, linux.capability_sets(_CAPS_FOR_NAMESPACE, _CAPS_FOR_NAMESPACE))
    call("unshare", linux.CLONE_NEWUSER)
    call("prctl", linux.PR_SET_DUMPABLE, 1)  # or /proc/1 belongs to root and the maps cannot be written
    to_uid = calls.place_text(f"{INSIDE_ID} %10d 1", uid)
    for name, text in (("setgroups", (calls.place("deny"), 4)), ("uid_map", to_uid), ("gid_map", to_uid)):
        call("openat", 0, f"1/{name}", os.O_WRONLY, passes=1, only=True)
        call("write", 1, *text)
        call("close", 1)
    call("prctl", linux.PR_SET_DUMPABLE, 0)  # the session's own code may not look into process 1
    call("prctl", linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of uid, which clears it
    ended = calls.place(struct.pack("=ihh", 2, select.POLLIN, 0))
    call("dup3", Later("warden"), 2, 0)
    call("ppoll", ended, 1, bytes(16), 0, only=True)  # none: the warden lives
    call("close_range", 0, Later("ready", -1), 0)
    call("close_range", Later("ready", 1), 0xFFFFFFFF, 0)
    call("write", ready, OK, 1)  # the kernel may go on: the rest takes only from this process, which hears nobody
    call("close", ready)
    _give_up_all(calls, program)
    # From inside the namespace nothing but a handled signal reaches process 1, and none is handled. That its
    # children's ends are ignored is enough for the kernel to reap them.
    call("rt_sigaction", signal.SIGCHLD, struct.pack("=4Q", signal.SIG_IGN, 0, 0, 0), 0, 8)
    return calls


def _give_up_all(calls: Calls, program: bytes) -> None:
    """As `_give_up_everything` does it."""
    call = calls.call
    for capability in range(linux.LAST_CAPABILITY + 1):
        call("prctl", linux.PR_CAPBSET_DROP, capability)
    call("prctl", linux.PR_SET_SECUREBITS, _SECUREBITS)
    call("prctl", linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL)
    call("capset", linux.CAPABILITY_HEADER, linux.capability_sets())
    call("prctl", linux.PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("@HP", len(program) // 8, calls.place(program))
    call("seccomp", seccomp.SET_MODE_FILTER, 0, header)


class _Mounts:
    """See `rootfs.Mounts`: here as calls of process 1."""

    def __init__(self, calls: Calls) -> None:
        self._call = calls.call

    def mount(
        self, source: str, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None
    ) -> None:
        self._call("mount", source, target, fstype or 0, flags, data or 0)

    def cover(self, source: str, target: str) -> None:
        self._call("mount", source, target, 0, linux.MS_BIND, 0, passes=-errno.ENOENT)

    def mkdir(self, path: str, mode: int, *, exist_ok: bool = False) -> None:
        self._call("mkdirat", linux.AT_FDCWD, path, mode, passes=-errno.EEXIST if exist_ok else 0)

    def chown(self, path: str, uid: int | Later) -> None:
        self._call("fchownat", linux.AT_FDCWD, path, uid, uid, 0)

    def chmod(self, path: str, mode: int) -> None:
        self._call("fchmodat", linux.AT_FDCWD, path, mode)


def become_kernel(job: KernelJob, run: Callable[[int], NoReturn]) -> NoReturn:
    """In the zygote's child: join the sandbox, give everything up, and hand over to the kernel host."""
    try:
        _join_sandbox(job)
        os.write(job.started, OK)
        os.close(job.started)
    except BaseException as error:
        os.write(job.started, _reason(error))
        os._exit(1)
    run(job.birth)


def _join_sandbox(job: KernelJob) -> None:
    os.setsid()
    for fd in job.entrances:
        os.write(fd, b"0")
        os.close(fd)
    job.pages.take()  # once they count as the sandbox's, and while process 1 is still at work
    _set_resource_limits(job.open_files, job.file_bytes)
    said = os.read(job.init_ready, 512)
    if said != OK:
        raise RuntimeError(f"process 1: {failure(said)}")
    os.close(job.init_ready)
    if job.is_host_root:
        os.setgroups([])
    linux.setns(job.init, linux.CLONE_NEWUSER | _OWN_NAMESPACES)
    os.close(job.init)
    os.chdir(WORK)
    os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    linux.set_dumpable(True)  # or its own /proc/self would be closed to it
    linux.set_pdeathsig(signal.SIGKILL)
    os.umask(0o022)
    _give_up_everything(job.filter, landlock.ruleset(read=("/",), write=(HOME, WORK, "/tmp", "/dev/shm", "/dev/pts")))


def _reason(error: BaseException) -> bytes:
    """What failed, and at which line of this file: enough to tell a host that lacks something from a bug."""
    at, trace = 0, error.__traceback__
    while trace is not None:
        at = trace.tb_lineno if trace.tb_frame.f_code.co_filename == __file__ else at
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} (birth.py, line {at})".encode()[:400]


def _set_resource_limits(open_files: int, file_bytes: int) -> None:
    for what, value in (
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, _CORE_BYTES),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 1 << 20),
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_NICE, 0),
    ):
        ceiling = resource.getrlimit(what)[1]  # what the warden itself may not exceed, nor may its sandboxes
        value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(what, (value, value))


def _give_up_everything(program: bytes, ruleset: landlock.Ruleset | None) -> None:
    linux.drop_bounding_set()
    linux.set_securebits(_SECUREBITS)
    linux.clear_ambient()
    linux.capset()
    linux.set_no_new_privs()
    if ruleset is not None:
        ruleset.restrict_self()
    seccomp.install(program)
