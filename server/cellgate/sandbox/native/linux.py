"""The Linux calls that Python's standard library lacks, as thin typed functions that raise OSError.

Each error carries the errno and the name of the call. Nothing here decides anything: what is called, in
which order and with which flags, is for the callers to say. Only ctypes and the standard library are used,
because this runs as root, in the warden, in the zygotes and in their children just before a guest's code.

The calls are short, so they hold the interpreter lock (`PyDLL`): giving it up and taking it back would cost
more than most of them do, and none waits for anybody. A call costs about half a microsecond beside the
kernel's own share.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from ctypes import c_char_p, c_int, c_long, c_ulong
from typing import Final, NoReturn

__all__ = [
    "Path",
    "capability_sets",
    "capset",
    "clear_ambient",
    "close_range",
    "drop_bounding_set",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pidfd_open",
    "pidfd_send_signal",
    "pivot_root",
    "prctl",
    "set_dumpable",
    "set_name",
    "set_no_new_privs",
    "set_pdeathsig",
    "set_securebits",
    "setns",
    "syscall",
    "umount",
    "unshare",
]

Path = str | bytes

# Namespaces (clone(2), unshare(2), setns(2)).
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

# mount(2) and umount2(2).
MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 0x2

# mount_setattr(2), open_tree(2), move_mount(2).
MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
AT_FDCWD: Final = -100
AT_RECURSIVE: Final = 0x8000
OPEN_TREE_CLONE: Final = 0x1
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

# Secure bits, each set and locked: root's uid means nothing, and no capability outlives a setuid.
SECBIT_NOROOT: Final = 0x1
SECBIT_NOROOT_LOCKED: Final = 0x2
SECBIT_NO_SETUID_FIXUP: Final = 0x4
SECBIT_NO_SETUID_FIXUP_LOCKED: Final = 0x8
SECBIT_KEEP_CAPS_LOCKED: Final = 0x20
SECBIT_NO_CAP_AMBIENT_RAISE: Final = 0x40
SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED: Final = 0x80

# System call numbers. From 424 on every architecture shares one table.
X86_64: Final = platform.machine() == "x86_64"
NR_PIVOT_ROOT: Final = 155 if X86_64 else 41
NR_SECCOMP: Final = 317 if X86_64 else 277
NR_PIDFD_SEND_SIGNAL: Final = 424
NR_OPEN_TREE: Final = 428
NR_MOVE_MOUNT: Final = 429
NR_PIDFD_OPEN: Final = 434
NR_CLOSE_RANGE: Final = 436
NR_PROCESS_MADVISE: Final = 440
NR_MOUNT_SETATTR: Final = 442
NR_LANDLOCK_CREATE_RULESET: Final = 444
NR_LANDLOCK_ADD_RULE: Final = 445
NR_LANDLOCK_RESTRICT_SELF: Final = 446

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_libc = ctypes.PyDLL(None, use_errno=True)


def _declare(name: str, restype: type, *argtypes: type) -> ctypes._NamedFuncPointer:
    function = getattr(_libc, name)
    function.restype, function.argtypes = restype, argtypes
    return function  # type: ignore[no-any-return]  # getattr of a library is Any


_unshare = _declare("unshare", c_int, c_int)
_setns = _declare("setns", c_int, c_int, c_int)
_mount = _declare("mount", c_int, c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = _declare("umount2", c_int, c_char_p, c_int)
_prctl = _declare("prctl", c_int, c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_capset = _declare("capset", c_int, c_char_p, c_char_p)
# Declared once per shape of arguments that is used, so that a call converts nothing it need not.
_syscall = _declare("syscall", c_long, c_long, *[c_ulong] * 6)


def _fail(call: str, path: Path | None = None) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}", path)


def syscall(number: int, *arguments: int) -> int:
    """Any system call, by number, with whole-number arguments (an address for a pointer)."""
    result: int = _syscall(number, *arguments, *(0,) * (6 - len(arguments)))
    if result == -1:
        _fail(f"syscall {number}")
    return result


def _buffer(path: Path) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(os.fsencode(path))


# Namespaces.


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* `flags` for new ones."""
    if _unshare(flags):
        _fail("unshare")


def setns(fd: int, flags: int = 0) -> None:
    """Enter the namespace that `fd` stands for."""
    if _setns(fd, flags):
        _fail("setns")


# The loopback device of a new network namespace: what SIOCSIFFLAGS takes to give it its 127.0.0.1 and ::1.
SIOCSIFFLAGS: Final = 0x8914
LOOPBACK_UP: Final = struct.pack("16sH22x", b"lo", 0x1 | 0x40)  # struct ifreq: IFF_UP, IFF_RUNNING


# Mounts.


def mount(source: Path, target: Path, fstype: Path | None = None, flags: int = 0, data: Path | None = None) -> None:
    if _mount(
        os.fsencode(source),
        os.fsencode(target),
        None if fstype is None else os.fsencode(fstype),
        flags,
        None if data is None else os.fsencode(data),
    ):
        _fail("mount", target)


def umount(target: Path, flags: int = 0) -> None:
    if _umount2(os.fsencode(target), flags):
        _fail("umount2", target)


def pivot_root(new: Path, old: Path) -> None:
    """After a chdir to the new root, `pivot_root(".", ".")` and `umount(".", MNT_DETACH)` need no place for the old."""
    new_buffer, old_buffer = _buffer(new), _buffer(old)
    if _syscall(NR_PIVOT_ROOT, ctypes.addressof(new_buffer), ctypes.addressof(old_buffer), 0, 0, 0, 0):
        _fail("pivot_root", new)


def mount_setattr(dirfd: int, path: Path, flags: int, attr_set: int, attr_clr: int = 0, propagation: int = 0) -> None:
    """Set MOUNT_ATTR_* on the mount at `path`, and on all beneath it with AT_RECURSIVE. Linux 5.12."""
    attributes = ctypes.create_string_buffer(struct.pack("=4Q", attr_set, attr_clr, propagation, 0), 32)
    where = _buffer(path)
    if _syscall(NR_MOUNT_SETATTR, dirfd % 2**64, ctypes.addressof(where), flags, ctypes.addressof(attributes), 32, 0):
        _fail("mount_setattr", path)


def open_tree(dirfd: int, path: Path, flags: int) -> int:
    """A descriptor of the mount at `path`; with OPEN_TREE_CLONE of a detached copy, which `move_mount` attaches."""
    where = _buffer(path)
    fd: int = _syscall(NR_OPEN_TREE, dirfd % 2**64, ctypes.addressof(where), flags, 0, 0, 0)
    if fd < 0:
        _fail("open_tree", path)
    return fd


def move_mount(fd: int, dirfd: int, path: Path) -> None:
    """Attach the detached mount `fd` at `path`, relative to `dirfd`; at `dirfd` itself when the path is empty."""
    source, target = _buffer(b""), _buffer(path)
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    if _syscall(NR_MOVE_MOUNT, fd, ctypes.addressof(source), dirfd % 2**64, ctypes.addressof(target), flags, 0):
        _fail("move_mount", path)


# What a process may still become.


def prctl(option: int, *arguments: int) -> int:
    result: int = _prctl(option, *arguments, *(0,) * (4 - len(arguments)))
    if result < 0:
        _fail(f"prctl {option}")
    return result


def set_no_new_privs() -> None:
    """From here on no execve grants anything: set-user-id bits and file capabilities are ignored."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def set_pdeathsig(signal: int) -> None:
    """Be sent `signal` when the parent *thread* ends. A change of uid clears it, so set it after; the parent may
    have died before: compare `os.getppid()` afterwards."""
    prctl(PR_SET_PDEATHSIG, signal)


def set_dumpable(dumpable: bool) -> None:
    """Not dumpable: no core file, and /proc/self belongs to root."""
    prctl(PR_SET_DUMPABLE, int(dumpable))


def set_securebits(bits: int) -> None:
    prctl(PR_SET_SECUREBITS, bits)


def set_name(name: str) -> None:
    """The name of this thread in `ps` and /proc: 15 bytes, more are cut."""
    raw = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(raw))


def drop_bounding_set() -> None:
    """No execve of this process or its children can gain a capability again. Needs CAP_SETPCAP."""
    for capability in range(LAST_CAPABILITY + 1):
        if _prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):  # 41 times: not by way of `prctl`
            _fail("prctl PR_CAPBSET_DROP")


def clear_ambient() -> None:
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def capset(effective: int = 0, permitted: int = 0, inheritable: int = 0) -> None:
    """Set this thread's capability sets, each a mask of 1 << CAP_*; all empty unless said."""
    if _capset(CAPABILITY_HEADER, capability_sets(effective, permitted, inheritable)):
        _fail("capset")


def capability_sets(effective: int = 0, permitted: int = 0, inheritable: int = 0) -> bytes:
    """As capset(2) takes them, after CAPABILITY_HEADER."""
    halves = ((each >> shift & 0xFFFFFFFF) for shift in (0, 32) for each in (effective, permitted, inheritable))
    return struct.pack("=6I", *halves)


CAPABILITY_HEADER: Final = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread


def _read_last_capability() -> int:
    try:
        with open("/proc/sys/kernel/cap_last_cap") as file:
            return int(file.read())
    except OSError:  # no /proc: CAP_CHECKPOINT_RESTORE, the last one since Linux 5.9
        return 40


LAST_CAPABILITY = _read_last_capability()  # once, beforehand: the child has no /proc of its own yet


# Descriptors. `os` and `signal` have the next two too, but not in interpreters built against old kernel headers.


def pidfd_open(pid: int) -> int:
    """A descriptor of the process, readable when it has ended; closed on execve."""
    return syscall(NR_PIDFD_OPEN, pid, 0)


def pidfd_send_signal(fd: int, signal: int) -> None:
    syscall(NR_PIDFD_SEND_SIGNAL, fd, signal, 0, 0)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close all descriptors from `first` to `last`, both included, in one call. Linux 5.9."""
    if first <= last and _syscall(NR_CLOSE_RANGE, first, last, flags, 0, 0, 0):
        _fail("close_range")
