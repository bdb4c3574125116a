"""Which system calls a guest may make: our own allowlist, as a classic BPF program for seccomp(2).

What is not allowed here fails with EPERM, so that a program can say so and go on; what a library asks for only
to fall back from, and every call that is newer than our table, fails with ENOSYS, as on an older kernel. Calls
in a foreign convention (32-bit, x32) end the process, because no table here describes them.

The tables say what and why; `policy` joins them into one action per number; `compile_filter` turns that into a
program, a balanced tree of comparisons. All of it is pure. `install` gives the program to the kernel, once per
process: there is no way back, and children inherit it. A guest may add stricter filters of its own.

The filter is one wall of several. It exists to keep the kernel's rarely used code out of reach, not to contain
a guest that has no capabilities, no devices and no network; and it cannot see behind pointers, so what an
address holds (a path, a socket address) is for the other walls.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cellgate.sandbox.native import linux
from cellgate.sandbox.native.syscalls import numbers

__all__ = [
    "ALLOWED",
    "CHECKED",
    "REFUSED_WITH",
    "Action",
    "Condition",
    "Errno",
    "Rule",
    "Verdict",
    "compile_filter",
    "install",
    "policy",
]


@dataclass(frozen=True)
class Verdict:
    """What seccomp(2) is told to do with a call: the value a filter returns."""

    value: int


ALLOW: Final = Verdict(0x7FFF0000)
KILL: Final = Verdict(0x80000000)  # the whole process, with SIGSYS


def Errno(number: int) -> Verdict:  # noqa: N802  # reads as the verdict it makes
    """The call is not made and fails so; with 0 it is not made and succeeds."""
    return Verdict(0x00050000 | number)


REFUSE: Final = Errno(errno.EPERM)
UNKNOWN: Final = Errno(errno.ENOSYS)


@dataclass(frozen=True)
class Condition:
    """That one argument, or the part of it under `mask`, is one of `values`. Only the low 32 bits are looked
    at: all arguments checked here are 32 bits wide in the kernel too, which ignores the rest."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True)
class Rule:
    """`verdict` for a call that meets every condition of any of the `cases`, else `otherwise`."""

    cases: tuple[tuple[Condition, ...], ...]
    verdict: Verdict
    otherwise: Verdict | Rule


Action = Verdict | Rule


def _allow_if(*cases: tuple[Condition, ...], otherwise: Verdict | Rule = REFUSE) -> Rule:
    return Rule(cases, ALLOW, otherwise)


def _refuse_if(*cases: tuple[Condition, ...], verdict: Verdict = REFUSE) -> Rule:
    return Rule(cases, verdict, ALLOW)


# What an ordinary program does: allowed whatever its arguments.
ALLOWED: Final[Mapping[str, str]] = {
    "memory": """
        brk munmap mremap mprotect msync mincore mlock mlock2 munlock mlockall munlockall mseal
        membarrier pkey_alloc pkey_free pkey_mprotect map_shadow_stack get_mempolicy
    """,
    "files": """
        open openat openat2 creat close close_range read write readv writev pread64 pwrite64 preadv pwritev preadv2
        pwritev2 lseek dup dup2 dup3 flock fsync fdatasync sync_file_range truncate ftruncate fallocate fadvise64
        readahead sendfile copy_file_range splice tee umask
        stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 getdents getdents64
        getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat
        readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat
        utimensat setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr
        lremovexattr fremovexattr setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr
        inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
    """,
    "waiting": """
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 pipe pipe2
        eventfd eventfd2 signalfd signalfd4 pause nanosleep clock_nanosleep
    """,
    "sockets, of the families that `socket` below admits": """
        bind listen accept accept4 connect shutdown getsockname getpeername getsockopt
        sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg
    """,
    # Safe because the ipc namespace is the sandbox's own, and its memory is charged to the sandbox.
    "System V and POSIX ipc": """
        shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
        mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    """,
    "processes and threads": """
        fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill pidfd_open pidfd_send_signal
        getpid getppid gettid getpgid setpgid getpgrp getsid setsid set_tid_address set_robust_list get_robust_list rseq
        arch_prctl futex futex_waitv futex_wake futex_wait futex_requeue restart_syscall
        rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigqueueinfo
        rt_tgsigqueueinfo sigaltstack
    """,
    "scheduling, within what the cgroup and the limits leave": """
        sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler
        sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min
        sched_rr_get_interval getpriority setpriority ioprio_get ioprio_set getcpu
    """,
    "time": """
        time gettimeofday clock_gettime clock_getres times getitimer setitimer alarm
        timer_create timer_settime timer_gettime timer_getoverrun timer_delete
        timerfd_create timerfd_settime timerfd_gettime
    """,
    "facts about the system": "uname sysinfo getrandom getrusage",
    "identity and limits, which without capabilities only narrow": """
        getuid geteuid getgid getegid getgroups getresuid getresgid
        setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups
        capget capset getrlimit setrlimit prlimit64
    """,
    "sandboxes within the sandbox, which only narrow": """
        seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    """,
}

# Refused otherwise than with EPERM.
REFUSED_WITH: Final[Mapping[str, Verdict]] = {
    "clone3": UNKNOWN,  # its flags lie behind a pointer; glibc falls back to clone
    "sync": Errno(0),  # would flush every disk of the host, and nothing of a sandbox is on one
    "syncfs": Errno(0),
    **dict.fromkeys(
        # A host-wide count of requests limits asynchronous i/o (aio-max-nr): one guest could use up all of it.
        ("io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents"),
        UNKNOWN,
    ),
    "cachestat": UNKNOWN,  # tells what others have read of a shared file
    "statmount": UNKNOWN,
    "listmount": UNKNOWN,
    "lsm_list_modules": UNKNOWN,
    "lsm_get_self_attr": UNKNOWN,
}

# CLONE_NEW*: NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME lies within the exit
# signal of clone(2), in a bit that no signal has.
_NEW_NAMESPACE: Final = 0x7E020080
_NO_NAMESPACES: Final = _allow_if((Condition(0, (0,), _NEW_NAMESPACE),))

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
# libzmq asks for the interfaces before it binds to tcp, as every ipykernel does at its start, and aborts the process
# if that fails otherwise than it does under WSL.
_NO_FAMILY: Final = Rule(
    ((Condition(0, (_AF_NETLINK,)),),), Errno(errno.EOPNOTSUPP), otherwise=Errno(errno.EAFNOSUPPORT)
)
_SOCK_STREAM, _SOCK_DGRAM = 1, 2
_SOCK_TYPE: Final = 0xF  # the rest of the type argument is SOCK_NONBLOCK and SOCK_CLOEXEC
_IPPROTO_TCP, _IPPROTO_UDP = 6, 17  # not SCTP, MPTCP, UDP-Lite, ICMP: kernel code that no notebook needs
_S_IFMT, _S_IFREG, _S_IFIFO, _S_IFSOCK = 0o170000, 0o100000, 0o010000, 0o140000

_PRCTL_OPTIONS: Final[Mapping[str, int]] = {
    "SET_PDEATHSIG": 1, "GET_PDEATHSIG": 2, "GET_DUMPABLE": 3, "SET_DUMPABLE": 4, "GET_KEEPCAPS": 7, "GET_TIMING": 13,
    "SET_NAME": 15, "GET_NAME": 16, "GET_SECCOMP": 21, "SET_SECCOMP": 22, "CAPBSET_READ": 23, "GET_TSC": 25,
    "GET_SECUREBITS": 27, "SET_TIMERSLACK": 29, "GET_TIMERSLACK": 30, "MCE_KILL_GET": 34, "SET_CHILD_SUBREAPER": 36,
    "GET_CHILD_SUBREAPER": 37, "SET_NO_NEW_PRIVS": 38, "GET_NO_NEW_PRIVS": 39, "GET_TID_ADDRESS": 40,
    "SET_THP_DISABLE": 41, "GET_THP_DISABLE": 42, "CAP_AMBIENT": 47, "SVE_SET_VL": 50, "SVE_GET_VL": 51,
    "GET_SPECULATION_CTRL": 52, "PAC_RESET_KEYS": 54, "SET_TAGGED_ADDR_CTRL": 55, "GET_TAGGED_ADDR_CTRL": 56,
    "SET_MDWE": 65, "GET_MDWE": 66, "SET_VMA": 0x53564D41, "GET_AUXV": 0x41555856,
}  # fmt: skip

# Allowed or refused by their arguments.
CHECKED: Final[Mapping[str, Rule]] = {
    # MAP_HUGETLB, MFD_HUGETLB: no cgroup limit is on huge pages, and a host that has some has them for a purpose.
    "mmap": _refuse_if((Condition(3, (0x40000,), 0x40000),), verdict=Errno(errno.ENOMEM)),
    "memfd_create": _refuse_if((Condition(1, (4,), 4),), verdict=Errno(errno.ENOMEM)),
    # F_SETLEASE and F_NOTIFY: to delay, and to hear of, what others do with files that all sandboxes share.
    "fcntl": _refuse_if((Condition(1, (1024, 1026)),), verdict=Errno(errno.EINVAL)),
    "clone": _NO_NAMESPACES,
    "unshare": _NO_NAMESPACES,
    "socket": _allow_if(
        (Condition(0, (_AF_UNIX,)),),
        (
            Condition(0, (_AF_INET, _AF_INET6)),
            Condition(1, (_SOCK_STREAM, _SOCK_DGRAM), _SOCK_TYPE),
            Condition(2, (0, _IPPROTO_TCP, _IPPROTO_UDP)),
        ),
        otherwise=_NO_FAMILY,
    ),
    "socketpair": _allow_if((Condition(0, (_AF_UNIX,)),), otherwise=Errno(errno.EAFNOSUPPORT)),
    # (level, option) that bring a program or a protocol module into the kernel.
    "setsockopt": _refuse_if(
        # SOL_SOCKET: ATTACH_FILTER, ATTACH_BPF, ATTACH_REUSEPORT_CBPF, ATTACH_REUSEPORT_EBPF
        (Condition(1, (1,)), Condition(2, (26, 50, 51, 52))),
        (Condition(1, (_IPPROTO_TCP,)), Condition(2, (31,))),  # TCP_ULP: TLS, MPTCP and SMC in the kernel
        (Condition(1, (_IPPROTO_UDP,)), Condition(2, (100,))),  # UDP_ENCAP: IPsec and L2TP
        verdict=Errno(errno.ENOPROTOOPT),
    ),
    # TIOCSTI and TIOCLINUX type into a terminal; TIOCSETD loads a line discipline.
    "ioctl": _refuse_if((Condition(1, (0x5412, 0x541C, 0x5423)),)),
    "prctl": _allow_if((Condition(0, tuple(_PRCTL_OPTIONS.values())),)),
    "personality": _allow_if((Condition(0, (0, 0xFFFFFFFF)),)),  # what is set already, and the question what it is
    # MADV_MERGEABLE: merging pages with other sandboxes' tells what is in them. As on a kernel built without.
    "madvise": _refuse_if((Condition(2, (12,)),), verdict=Errno(errno.EINVAL)),
    "mknod": _allow_if((Condition(1, (0, _S_IFREG, _S_IFIFO, _S_IFSOCK), _S_IFMT),)),
    "mknodat": _allow_if((Condition(2, (0, _S_IFREG, _S_IFIFO, _S_IFSOCK), _S_IFMT),)),
}

# Everything else is refused with EPERM. Among it, with more reason than that nobody needs it: ptrace,
# process_vm_*, process_madvise, pidfd_getfd, kcmp (other processes' memory); vmsplice (its references outlived
# copy-on-write once, and sandboxes share pages with their zygote); io_uring, bpf, perf_event_open, userfaultfd,
# keyctl, modify_ldt, move_pages, mbind, set_mempolicy (kernel code with a history); memfd_secret (memory that the
# kernel cannot reclaim); the mount family, setns, chroot, pivot_root; *_by_handle_at, fanotify, quotactl, acct.


def policy(machine: str) -> dict[int, Action]:
    """What becomes of every system call that `machine` has, by number."""
    allowed = {name for names in ALLOWED.values() for name in names.split()}
    actions: dict[int, Action] = {}
    for name, number in numbers(machine).items():
        if name in allowed:
            actions[number] = ALLOW
        else:
            actions[number] = CHECKED.get(name) or REFUSED_WITH.get(name, REFUSE)
    return actions


# Classic BPF (bpf(4), and Documentation/userspace-api/seccomp_filter.rst): 8 bytes an instruction, one
# accumulator, jumps only forward. Code is a list of them, complete in itself: it may be put anywhere.

Instruction = tuple[int, int, int, int]  # code, how far to jump if true, if false, operand
Code = list[Instruction]

_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
_MAX_SKIP: Final = 255  # a conditional jump's distance is one byte
_MAX_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32: Final = 0x40000000  # marks a number of the x32 convention, which has the same arch
_MINUS_ONE: Final = 0xFFFFFFFF  # no call at all, and no reason to end anybody


def compile_filter(machine: str | None = None) -> bytes:
    """The program for `machine`, or for this one. Raises KeyError for a machine without a table."""
    machine = machine or platform.machine()
    known = policy(machine)
    code = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, KILL.value),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [
            (_IF_AT_LEAST, 0, 3, _X32),
            (_IF_EQUAL, 0, 1, _MINUS_ONE),
            (_RETURN, 0, 0, UNKNOWN.value),
            (_RETURN, 0, 0, KILL.value),
        ]
    code += _tree(_segments(known))
    assert len(code) <= _MAX_INSTRUCTIONS
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _segments(known: Mapping[int, Action]) -> list[tuple[int, Action]]:
    """(first number, action) of each run of numbers with the same action, from 0 to the largest there can be."""
    segments: list[tuple[int, Action]] = []
    for number in range(max(known) + 2):
        action = known.get(number, UNKNOWN)
        if not segments or segments[-1][1] != action:
            segments.append((number, action))
    return segments


def _tree(segments: Sequence[tuple[int, Action]]) -> Code:
    """Finds the segment of the number in the accumulator by halving."""
    if len(segments) == 1:
        return _act(segments[0][1])
    middle = len(segments) // 2
    below, rest = _tree(segments[:middle]), _tree(segments[middle:])
    assert len(below) <= _MAX_SKIP  # some 150 today
    return [(_IF_AT_LEAST, len(below), 0, segments[middle][0]), *below, *rest]


def _act(action: Action) -> Code:
    if isinstance(action, Verdict):
        return [(_RETURN, 0, 0, action.value)]
    code: Code = []
    for conditions in action.cases:
        code += _when(conditions, _act(action.verdict))
    return code + _act(action.otherwise)


def _when(conditions: Iterable[Condition], then: Code) -> Code:
    """`then` if all conditions hold, else whatever follows this code."""
    for condition in reversed(tuple(conditions)):
        assert len(condition.values) + len(then) <= _MAX_SKIP
        code: Code = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * condition.argument)]  # the low half: both are little-endian
        if condition.mask != 0xFFFFFFFF:
            code.append((_AND, 0, 0, condition.mask))
        for left, value in zip(range(len(condition.values) - 1, -1, -1), condition.values, strict=True):
            code.append((_IF_EQUAL, left, 0 if left else len(then), value))
        then = code + then
    return then


SET_MODE_FILTER: Final = 1


def install(program: bytes) -> None:
    """Put this thread, and all it starts from now on, under the filter. Needs no_new_privs. Raises OSError."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many, and where.
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions)))
    linux.syscall(linux.NR_SECCOMP, SET_MODE_FILTER, 0, ctypes.addressof(header))
