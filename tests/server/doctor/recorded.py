"""Facts as they were found on one host (Linux 6.18, cgroup version 1, Python 3.11, the warden root), shortened."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from cellgate.doctor.host import HostFacts, Outside
from cellgate.doctor.probes import CALLS, HOST_FILES, HOST_PROC, READ_ONLY, SOCKETS, STEERING, SYS, Facts, Said

__all__ = ["HOST", "INSIDE", "NEIGHBOUR", "SMALL_ONE", "native_facts", "said"]

KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")

HOST = HostFacts(
    kernel="6.18.44-1-amd64",
    machine="x86_64",
    is_root=True,
    landlock_abi=7,
    cgroup_version=1,
    cgroup_controllers=("memory", "pids", "cpu"),
    max_user_namespaces=96365,
    seccomp_actions=("kill_process", "kill_thread", "trap", "errno", "user_notif", "trace", "log", "allow"),
    unmitigated=("spec_store_bypass",),
    namespaces={kind: f"{kind}:[{4026531832 + number}]" for number, kind in enumerate(KINDS)},
    environment={"PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": "/root", "API_KEY": "secret of the host"},
    pid=13624,
)


def _killed(number: int) -> dict[str, Any]:
    return {"exit": None, "said": [], "signal": number}


def _returned(value: object) -> dict[str, Any]:
    return {"exit": 0, "said": [value], "signal": None}


INSIDE: dict[str, Any] = {
    "identity": {
        "uids": [1000, 1000, 1000],
        "gids": [1000, 1000, 1000],
        "groups": [],
        "uid_map": ["1000", "1972640000", "1"],
        "becomes_root": _returned(22),
    },
    "namespaces": {kind: f"{kind}:[{4026532260 + number}]" for number, kind in enumerate(KINDS)},
    "status": {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0000000000000000"),
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Seccomp_filters": "1",
    },
    "securebits": 239,
    "entropy": {"os.urandom": "84e927bef75c9fef", "random": 0.19268337803500735, "uuid4": "4eb4a02a6e8f4df4"},
    "versions": {"python": "3.11.7", "ipykernel": "7.4.0", "ipython": "9.18.1"},
    "calls": {**dict.fromkeys(CALLS, 1), "clone3": 38},
    "sockets": {**dict.fromkeys(SOCKETS, 97), "netlink": 95},
    "foreign_calls": {"x32": _killed(31), "i386": _killed(31)},
    "landlock_layers": _returned({"layers": 1}),
    "mounts": [
        ["/", "tmpfs", False, ["ro", "nosuid", "nodev", "relatime"]],
        ["/usr", "ext4", False, ["ro", "nosuid", "nodev", "relatime"]],
        ["/dev/null", "devtmpfs", False, ["ro", "nosuid", "noexec", "relatime"]],
        ["/work", "tmpfs", True, ["rw", "nosuid", "nodev", "relatime"]],
        ["/home/user", "tmpfs", True, ["rw", "nosuid", "nodev", "relatime"]],
        ["/tmp", "tmpfs", True, ["rw", "nosuid", "nodev", "relatime"]],
        ["/dev/shm", "tmpfs", True, ["rw", "nosuid", "nodev", "relatime"]],
        ["/dev/pts", "devpts", True, ["rw", "nosuid", "noexec", "relatime"]],
        ["/proc", "proc", False, ["ro", "nosuid", "nodev", "noexec", "relatime"]],
    ],
    "writing": {**dict.fromkeys(READ_ONLY, 30), "/usr/lib/python3.11": 30},
    "opening": {
        **dict.fromkeys((*HOST_FILES, *SYS), "absent"),
        **dict.fromkeys(HOST_PROC, "empty"),
        "/tmp/cellgate-doctor-q5gnfp56/canary": "absent",
    },
    "steering": {**dict.fromkeys(STEERING, 13), "/proc/self/uid_map": 30, "/proc/sysrq-trigger": 2},
    "places": {"/tmp": 53, "/dev/shm": 54, "/work": 53},
    "devices": ["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"],
    "making_devices": 1,
    "descriptors": {"0": "/dev/null", "1": "pipe:[254014]", "3": "anon_inode:[eventfd]", "6": "socket:[252881]"},
    "environment": {"HOME": "/home/user", "LANG": "C.UTF-8", "PATH": "/usr/bin", "TMPDIR": "/tmp"},
    "interfaces": ["lo"],
    "routes": {"192.0.2.1": 101, "2001:db8::1": 101, "169.254.169.254": 101, "fd00:ec2::254": 101},
    "host_sockets": {"TCP": 111, "unix": 2, "abstract unix": 111},
    "name_lookup": {"result": -3, "seconds": 0.00047},
    "rlimits": {"CORE": 1, "FSIZE": 1073741824, "MEMLOCK": 0, "NICE": 0, "NOFILE": 1024, "RTPRIO": 0},
    "process_1": {
        "entries": dict.fromkeys(("environ", "mem", "root", "cwd", "exe", "fd"), 13),
        "signal": 1,
        "orphan": "reaped",
        "name": "cellgate-init",
    },
}

NEIGHBOUR: dict[str, Any] = {
    "identity": {**INSIDE["identity"], "uid_map": ["1000", "1972640001", "1"]},
    "namespaces": {kind: f"{kind}:[{4026532335 + number}]" for number, kind in enumerate(KINDS)},
    "entropy": {"os.urandom": "8db6e487e1e15070", "random": 0.41536947551217895, "uuid4": "b9033119b94944af"},
    "places": {"/tmp": 58, "/dev/shm": 59, "/work": 58},
}

SMALL_ONE: dict[str, Any] = {
    "hit_cpu": 0.51,
    "hit_pids": {"made": 17, "errno": 11},
    "hit_open_files": {"made": 116, "errno": 24},
    "hit_file_size": {"made": 1 << 20, "errno": 27},
    "hit_workspace": {"made": 4 << 20, "errno": 28},
    "hit_inodes": {"made": 503, "errno": 28},
    "hit_shm": {"made": 1 << 20, "errno": 28},
    "hit_memory": _killed(9),
}


def said(found: dict[str, Any]) -> Said:
    return Said({name: {"found": deepcopy(fact)} for name, fact in found.items()})


def native_facts(**changed: Any) -> Facts:
    """Of two sandboxes of the native driver and a small one, with some of it changed."""
    facts: dict[str, Any] = {
        "host": HOST,
        "inside": said(INSIDE),
        "neighbour": said(NEIGHBOUR),
        "small": said(SMALL_ONE),
        "outside": Outside(13754, (1972640000,) * 4, (1972640000,) * 4, ()),
        "neighbour_outside": Outside(13758, (1972640001,) * 4, (1972640001,) * 4, ()),
        "listeners": ("TCP", "unix", "abstract unix"),
    }
    return Facts(**{**facts, **changed})
