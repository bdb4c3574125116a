"""What the host is, measured from outside any sandbox; and a look at a sandbox's process from there.

Reads only files that everybody may read. Judges nothing.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from cellgate.sandbox.native import landlock

__all__ = ["HostFacts", "Outside", "look_at_host", "look_at_process"]

_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_CONTROLLERS = ("memory", "pids", "cpu")


@dataclass(frozen=True)
class HostFacts:
    kernel: str
    machine: str
    is_root: bool
    landlock_abi: int
    cgroup_version: int | None
    cgroup_controllers: tuple[str, ...]
    max_user_namespaces: int
    seccomp_actions: tuple[str, ...]
    unmitigated: tuple[str, ...]  # flaws of the processor that the kernel calls "Vulnerable"
    namespaces: dict[str, str]  # this process's own
    environment: dict[str, str]  # likewise
    pid: int

    @property
    def kernel_version(self) -> tuple[int, ...]:
        """As numbers, up to the first part that is none: "6.1.0-13-amd64" is (6, 1, 0)."""
        return numbers_of(self.kernel)


@dataclass(frozen=True)
class Outside:
    """A sandbox's kernel process as /proc of the host has it."""

    pid: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]


def numbers_of(version: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in version.replace("-", ".").split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def look_at_host() -> HostFacts:
    version, controllers = _cgroups()
    flaws = sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*"))
    return HostFacts(
        kernel=platform.release(),
        machine=platform.machine(),
        is_root=os.geteuid() == 0,
        landlock_abi=landlock.abi(),
        cgroup_version=version,
        cgroup_controllers=controllers,
        max_user_namespaces=_number(_read("/proc/sys/user/max_user_namespaces")),
        seccomp_actions=tuple(_read("/proc/sys/kernel/seccomp/actions_avail").split()),
        unmitigated=tuple(flaw.name for flaw in flaws if _read(flaw).startswith("Vulnerable")),
        namespaces={kind: os.readlink(f"/proc/self/ns/{kind}") for kind in _NAMESPACES},
        environment=dict(os.environ),
        pid=os.getpid(),
    )


def look_at_process(name: str) -> Outside | None:
    """The process whose main thread bears this name; None when it cannot be seen from here."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and _read(f"/proc/{entry}/comm").strip() == name:
            status = dict(line.split(":\t", 1) for line in _read(f"/proc/{entry}/status").splitlines() if ":\t" in line)
            uids, gids, groups = (tuple(map(int, status.get(key, "").split())) for key in ("Uid", "Gid", "Groups"))
            return Outside(int(entry), uids, gids, groups) if uids and gids else None
    return None


def _cgroups(root: str = "/sys/fs/cgroup") -> tuple[int | None, tuple[str, ...]]:
    if os.path.exists(f"{root}/cgroup.controllers"):
        version, found = 2, _read(f"{root}/cgroup.controllers").split()
    else:
        version, found = 1, [name for name in _CONTROLLERS if os.path.isdir(f"{root}/{name}")]
    return version if found else None, tuple(name for name in _CONTROLLERS if name in found)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0
