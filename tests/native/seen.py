"""What the host sees of a warden and its sandboxes, by its own means: processes, cgroups, descriptors, mounts."""

from __future__ import annotations

import os
from pathlib import Path

from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import cgroups

MiB = 1 << 20
SPEC = SandboxSpec(limits=Limits(memory_bytes=256 * MiB, pids=64), use_pool=False)
BOUND = 20.0  # seconds, for what must happen; a zygote may have to be made
GONE_SECONDS = 5.0  # after a warden's death nothing of it lives


def names_of_groups(warden: int) -> set[str]:
    """The sandboxes that have a cgroup."""
    found: set[str] = set()
    for parent in set(cgroups.detect().parents.values()):
        if os.path.isdir(parent):
            found.update(name for name in os.listdir(parent) if name.startswith(f"w{warden}-"))
    return found


def pids_in(name: str) -> set[int]:
    pids: set[int] = set()
    for parent in set(cgroups.detect().parents.values()):
        try:
            pids.update(map(int, Path(parent, name, "cgroup.procs").read_text().split()))
        except OSError:
            continue
    return pids


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def kernel_in(name: str) -> int:
    """The pid of a sandbox's kernel, which has run nothing yet."""
    (kernel,) = (pid for pid in pids_in(name) if pid_inside(pid) > 1)
    return kernel


def pid_inside(pid: int) -> int:
    """Its number in its own pid namespace, where process 1 is 1; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("NSpid:")[2].split("\n")[0].split()[-1])


def descendants(pid: int) -> set[int]:
    found = set()
    for child in children(pid):
        found |= {child} | descendants(child)
    return found


def children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in os.listdir(f"/proc/{pid}/task")
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        ]
    except OSError:
        return []


def zygote_of(warden: int) -> int:
    (zygote,) = (pid for pid in children(warden) if name_of(pid) == "zygote-python")
    return zygote


def state_of(pid: int) -> str:
    """The letter in /proc/pid/stat; X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_gone(pid: int) -> bool:
    return state_of(pid) in "ZX"


def holdings(warden: int) -> dict[str, int]:
    """What grows when something is not given back."""
    processes = [warden, *descendants(warden)]
    return {
        "processes": len(processes),
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes),
        "cgroups": len(names_of_groups(warden)),
        "mounts": len(Path(f"/proc/{warden}/mountinfo").read_text().splitlines()),
        "mounts of the zygote": len(Path(f"/proc/{zygote_of(warden)}/mountinfo").read_text().splitlines()),
    }
