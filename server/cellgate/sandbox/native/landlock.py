"""What of the file system a guest may use, said once more: Landlock, beside mounts and file modes.

A `Ruleset` names directories and what is allowed beneath them; all else is refused, whatever the mounts say,
for this process and all it starts. It also keeps signals and abstract unix sockets within the sandbox. The
network is left alone: a sandbox has a network namespace with nothing in it but its own loopback.

Which directories those are is for the callers to say. `abi` tells what this kernel knows; rights that are newer
are left out, and a kernel without Landlock is told to whoever asks, and no reason to fail: this wall stands
behind others.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cellgate.sandbox.native import linux

__all__ = ["WANTED_ABI", "Ruleset", "abi", "handled", "ruleset", "unavailable_because"]

WANTED_ABI: Final = 6  # Linux 6.12: the first to keep signals and abstract sockets within


# LANDLOCK_ACCESS_FS_*. Plain numbers: enum's arithmetic costs more than the system calls do.
EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_CHAR: Final = 1 << 6
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
MAKE_BLOCK: Final = 1 << 11
MAKE_SYM: Final = 1 << 12
REFER: Final = 1 << 13  # rename and link from one directory to another; refused by every ruleset that does not allow it
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15

_ALL: Final = (1 << 16) - 1
_NEWER: Final = {REFER: 2, TRUNCATE: 3, IOCTL_DEV: 5}  # right -> the first ABI that has it

READ: Final = EXECUTE | READ_FILE | READ_DIR
WRITE: Final = _ALL & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)
DEVICES: Final = READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV

_RULE: Final = struct.Struct("=Qi")  # struct landlock_path_beneath_attr, packed: what is allowed, beneath what
_PATH_BENEATH: Final = 1
_SCOPE_ABSTRACT_UNIX_SOCKET: Final = 1
_SCOPE_SIGNAL: Final = 2


def abi() -> int:
    """What this kernel knows; 0 without Landlock."""
    try:
        return linux.syscall(linux.NR_LANDLOCK_CREATE_RULESET, 0, 0, 1)  # LANDLOCK_CREATE_RULESET_VERSION
    except OSError:  # ENOSYS: not built in, or our own filter is older; EOPNOTSUPP: built in and not switched on
        return 0


def unavailable_because() -> str | None:
    """Why this wall does not stand here, or stands lower than wanted: a sentence, or None when all is well."""
    found = abi()
    if found == 0:
        return "this kernel has no Landlock, or does not switch it on (boot with lsm=landlock,... on Linux 5.13)"
    if found < WANTED_ABI:
        return f"this kernel's Landlock has ABI {found}; {WANTED_ABI} (Linux 6.12) also keeps signals within"
    return None


def handled(found: int) -> tuple[int, int]:
    """The rights that a kernel with this ABI can refuse, and what it can keep within."""
    rights = _ALL
    for right, since in _NEWER.items():
        if found < since:
            rights &= ~right
    return rights, _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if found >= 6 else 0


@dataclass(frozen=True)
class Ruleset:
    """Made by `ruleset`, beforehand; good for any number of processes, each of which has its own root."""

    attributes: bytes | None  # struct landlock_ruleset_attr, as long as this kernel's ABI has it; None: no Landlock
    rules: tuple[tuple[str, int], ...]  # path -> what is allowed beneath it

    def restrict_self(self) -> None:
        """Put this thread, and all it starts from now on, under the rules. Paths are this process's; one that does
        not exist is left out, since nothing can be there that needs allowing. Needs no_new_privs. Raises OSError,
        also for a path that is no directory; the process should then end."""
        if self.attributes is None:
            return
        buffer = ctypes.create_string_buffer(self.attributes, len(self.attributes))
        address = ctypes.addressof(buffer)
        ruleset_fd = linux.syscall(linux.NR_LANDLOCK_CREATE_RULESET, address, len(self.attributes), 0)
        try:
            rule = ctypes.create_string_buffer(_RULE.size)
            for path, access in self.rules:
                try:
                    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                _RULE.pack_into(rule, 0, access, fd)
                linux.syscall(linux.NR_LANDLOCK_ADD_RULE, ruleset_fd, _PATH_BENEATH, ctypes.addressof(rule), 0)
                os.close(fd)
            linux.syscall(linux.NR_LANDLOCK_RESTRICT_SELF, ruleset_fd, 0)
        finally:
            os.close(ruleset_fd)


def ruleset(read: Iterable[str], write: Iterable[str], devices: Iterable[str] = ("/dev",)) -> Ruleset:
    """What may be read and run beneath `read`, and also made, changed and removed beneath `write`; the device nodes
    beneath `devices` may be read, written and asked. Where directories lie in each other, rights add up."""
    found = abi()
    rights, scopes = handled(found)
    # handled_access_fs, handled_access_net (since ABI 4), scoped (since 6)
    attributes = struct.pack("=QQQ", rights, 0, scopes)[: 24 if found >= 6 else 16 if found >= 4 else 8]
    rules = tuple(
        (path, access & rights)
        for paths, access in ((read, READ), (write, WRITE), (devices, DEVICES))
        for path in paths
    )
    return Ruleset(attributes if found else None, rules)
