"""The two processes of a sandbox, from their fork to the point where they can do no harm any more.

Process 1 is forked by the warden and makes the sandbox: it enters the template's root, takes namespaces of its
own, mounts what is private, becomes the session's uid in a user namespace of its own, and then only reaps. The
kernel is forked by a zygote at the same time, waits for process 1, joins its namespaces, gives everything up,
and only then sees anything of its session. Doing both at once is what makes a sandbox cost one fork, not two.

The order of the steps is the isolation; each says why it stands where it stands. Nothing here is imported or
opened after the guest's root is entered, because by then the host's files are out of reach.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import landlock, linux, seccomp
from cellgate.sandbox.native.pages import Pages
from cellgate.sandbox.native.rootfs import HOME, WORK, Root, mount_private

__all__ = ["INSIDE_ID", "OK", "InitJob", "KernelJob", "become_init", "become_kernel"]

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
    """What process 1 needs. The descriptors are the warden's own, seen through the fork."""

    root: Root
    limits: Limits
    uid: int
    root_namespace: int
    entrances: Sequence[int]
    ready: int  # written once: OK, or why not
    warden: int  # a pidfd of the warden
    idle: int | None  # the program to become, see idle.py
    program: bytes  # the seccomp filter


@dataclass(frozen=True)
class KernelJob:
    """What the kernel process needs."""

    limits: Limits
    entrances: Sequence[int]
    pages: Pages  # that it will write to
    init: int  # a pidfd of process 1
    init_ready: int  # read once: see InitJob.ready
    started: int  # written once: OK, or why not
    birth: int  # the kernel host's birth socket
    is_host_root: bool
    program: bytes  # the seccomp filter


def become_init(job: InitJob) -> NoReturn:
    """In the warden's child, which is process 1 of a new pid namespace: make the sandbox, then be there."""
    try:
        _make_sandbox(job)
        os.write(job.ready, OK)  # the kernel may go on: the rest takes only from this process, which hears nobody
        os.close(job.ready)
        _give_up_everything(job.program, None)
    except BaseException as error:
        os.write(job.ready, _reason(error))
        os._exit(1)
    # From inside the namespace nothing but a handled signal reaches process 1, and none is handled. That its
    # children's ends are ignored is enough for the kernel to reap them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if job.idle is not None:
        with suppress(OSError):
            os.execve(job.idle, ["cellgate-init"], {})
    linux.close_range(0)
    while True:
        signal.pause()


def _make_sandbox(job: InitJob) -> None:
    linux.set_name("cellgate-init")
    for fd in job.entrances:  # before anything that costs memory, and before the cgroup namespace takes its root
        os.write(fd, b"0")
    linux.setns(job.root_namespace, linux.CLONE_NEWNS)
    linux.unshare(_OWN_NAMESPACES)
    mount_private(job.root, job.limits, job.uid)
    linux.sethostname("sandbox")
    linux.bring_loopback_up()
    # A second, detached view of /proc: the one that stays becomes read-only, and the maps must be written below.
    proc = linux.open_tree(linux.AT_FDCWD, "/proc", linux.OPEN_TREE_CLONE)
    linux.mount("none", "/proc", None, _READ_ONLY_AGAIN)
    # The user namespace comes last, so that all others belong to the one outside: whatever capability is ever
    # gained in here says nothing about these mounts, this network or these processes.
    linux.set_keepcaps(True)
    if job.uid:  # 0 when the warden is root of a user namespace alone, where groups are for ever denied
        os.setgroups([])
    os.setresgid(job.uid, job.uid, job.uid)
    os.setresuid(job.uid, job.uid, job.uid)
    linux.capset(_CAPS_FOR_NAMESPACE, _CAPS_FOR_NAMESPACE)
    linux.unshare(linux.CLONE_NEWUSER)
    linux.set_dumpable(True)  # or /proc/1 belongs to root and the maps cannot be written
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {job.uid} 1"),
        ("gid_map", f"{INSIDE_ID} {job.uid} 1"),
    ):
        fd = os.open(f"1/{name}", os.O_WRONLY, dir_fd=proc)
        os.write(fd, text.encode())
        os.close(fd)
    linux.set_dumpable(False)  # the session's own code may not look into process 1
    linux.set_pdeathsig(signal.SIGKILL)  # after the change of uid, which clears it
    if select.select([job.warden], [], [], 0)[0]:
        raise RuntimeError("the warden is gone")
    _close_all_but({job.ready} | ({job.idle} if job.idle is not None else set()))


def _close_all_but(kept: set[int]) -> None:
    """The warden's own descriptors, other sandboxes' links among them."""
    at = 0
    for fd in sorted(kept):
        linux.close_range(at, fd - 1)
        at = fd + 1
    linux.close_range(at)


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
    _set_resource_limits(job.limits)
    said = os.read(job.init_ready, 512)
    if said != OK:
        raise RuntimeError(f"process 1: {said.decode(errors='replace') or 'ended without a word'}")
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
    _give_up_everything(job.program, landlock.ruleset(read=("/",), write=(HOME, WORK, "/tmp", "/dev/shm", "/dev/pts")))


def _reason(error: BaseException) -> bytes:
    """What failed, and at which line of this file: enough to tell a host that lacks something from a bug."""
    at, trace = 0, error.__traceback__
    while trace is not None:
        at = trace.tb_lineno if trace.tb_frame.f_code.co_filename == __file__ else at
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} (birth.py, line {at})".encode()[:400]


def _set_resource_limits(limits: Limits) -> None:
    for what, value in (
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
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
