"""What a sandbox's container is made of, in the words of the engine's API; and what its labels and its end say. Pure:
asks no engine.

The isolation is that of the native driver as far as an engine can say it; `images/README.md` compares them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cellgate.errors import LimitError
from cellgate.sandbox.docker.seccomp import profile
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native.rootfs import ETC_WRITTEN

__all__ = [
    "ETC_FILES",
    "LABEL",
    "LINK",
    "MAPPED_UIDS",
    "OWNER",
    "SHARED_KERNEL",
    "UIDS",
    "Container",
    "Labels",
    "is_orphan",
    "wait_status",
]

LABEL: Final = "io.cellgate."
OWNER: Final = f"{LABEL}owner"  # what all containers of one driver have in common: its directory
NAME_PREFIX: Final = "cellgate-"
LINK: Final = "link"  # the socket, in a directory that holds nothing else
_LINK_INSIDE: Final = "/run/cellgate"
_WORKSPACE: Final = "/workspace"  # `cellgate_kernel.contained` says what lies in it
CPU_PERIOD_US: Final = 100_000
SHM_INODES: Final = 4096
KERNEL_THREADS: Final = 256  # of a kernel of the sandbox's own, which count as the sandbox's; gVisor's has some 60
# Of sandboxes, each its own: above those of the native driver, and below 2**31, where the engine's numbers end.
UIDS: Final = range(2_100_000_000, 2_140_000_000)
MAPPED_UIDS: Final = range(10_000, 60_000)  # of an engine that maps 65,536 of them
SHARED_KERNEL: Final = ("runc", "io.containerd.runc.v2", "crun", "youki")  # runtimes whose processes are the host's own
KILLED: Final = 128  # an exit status above it is a signal's, as shells say it

# What a sandbox's processes start with, beside what the image says.
_ENVIRONMENT: Final = {
    "HOME": "/home/user",
    "TMPDIR": "/tmp",
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
    "TINI_KILL_PROCESS_GROUP": "1",  # the engine's init hands interrupts on to the kernel's whole process group
}
# Of /etc in place of the image's and the engine's own: who there is, and that there is no network.
ETC_FILES: Final = ETC_WRITTEN | {
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nuser:x:{uid}:{uid}:user:/home/user:/bin/sh\n",
    "group": "root:x:0:\nuser:x:{uid}:\n",
}
# Buffers of TCP sockets, whose memory an engine does not count under cgroup version 1: a thousand of them grew to 2 GiB
# on a loopback of their own. Smallest, first, and largest size of each.
_SYSCTLS: Final = {"net.ipv4.tcp_rmem": "4096 65536 65536", "net.ipv4.tcp_wmem": "4096 16384 65536"}


@dataclass(frozen=True)
class Labels:
    """What a container says of itself to whoever finds it. `is_kept`: it outlives the process that made it."""

    id: str
    owner: str
    template: str
    limits: Limits
    uid: int
    is_kept: bool
    seen_from: str  # where the owner's directory and lock mean something: a boot and a namespace of processes

    def to_engine(self) -> dict[str, str]:
        return {
            f"{LABEL}id": self.id,
            OWNER: self.owner,
            f"{LABEL}template": self.template,
            f"{LABEL}limits": json.dumps(self.limits.to_mapping()),
            f"{LABEL}uid": str(self.uid),
            f"{LABEL}kept": str(int(self.is_kept)),
            f"{LABEL}seen-from": self.seen_from,
        }

    @staticmethod
    def from_engine(labels: Mapping[str, str]) -> Labels | None:
        """None for labels that we did not write: whoever may write to the engine may write any."""
        try:
            return Labels(
                labels[f"{LABEL}id"],
                labels[OWNER],
                labels[f"{LABEL}template"],
                Limits.from_mapping(json.loads(labels[f"{LABEL}limits"])),
                int(labels[f"{LABEL}uid"]),
                labels[f"{LABEL}kept"] == "1",
                labels[f"{LABEL}seen-from"],
            )
        except (KeyError, ValueError, TypeError, AttributeError, LimitError):
            return None


def is_orphan(labels: Labels, *, here: str, owner_lives: bool) -> bool:
    """Whether nobody will ever ask for it: its owner, which we can see from here, is gone and has no successor."""
    return not labels.is_kept and labels.seen_from == here and not owner_lives


@dataclass(frozen=True)
class Container:
    """All that is decided before the engine is asked for one."""

    labels: Labels
    image: str  # an id, which names the same bytes for ever
    kernel: str  # what its kernel host is to import before there is a session
    directory: str  # of this sandbox, as the engine's host knows it
    runtime: str  # as the engine knows it
    shares_kernel: bool  # its processes are the host's, and not those of a kernel of its own
    hidden: Collection[str]  # paths of /proc that tell of the host

    @property
    def name(self) -> str:
        return NAME_PREFIX + self.labels.id

    def to_engine(self) -> dict[str, Any]:
        """The body of `POST /containers/create`."""
        labels = self.labels
        return {
            "Image": self.image,
            "Cmd": ["--listen", f"{_LINK_INSIDE}/{LINK}", "--template", self.kernel],
            "User": f"{labels.uid}:{labels.uid}",
            "Hostname": "sandbox",
            "WorkingDir": "/",
            "Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
            "Labels": labels.to_engine(),
            "HostConfig": self._host_config(),
        }

    def _host_config(self) -> dict[str, Any]:
        limits, uid = self.labels.limits, self.labels.uid
        etc = [f"{self.directory}/{name}:/etc/{name}:ro" for name in ETC_FILES]
        return {
            "Runtime": self.runtime,
            "Init": True,  # reaps, and passes signals on; without it the kernel would be process 1, which ignores them
            "NetworkMode": "none",
            "IpcMode": "none",  # a private one whose /dev/shm is ours, with a cap on its inodes too
            "CgroupnsMode": "private",
            "ReadonlyRootfs": True,
            "Binds": [f"{self.directory}/{LINK}:{_LINK_INSIDE}:rw", *etc],
            "Tmpfs": {
                _WORKSPACE: f"exec,mode=0700,uid={uid},gid={uid},"
                f"size={limits.workspace_bytes},nr_inodes={limits.workspace_inodes}",
                "/dev/shm": f"size={limits.shm_bytes},nr_inodes={SHM_INODES},mode=1777",
            },
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true", f"seccomp={json.dumps(profile())}"],
            "MaskedPaths": ["/sys", "/dev/mqueue", *self.hidden],
            "ReadonlyPaths": ["/proc/sys", "/proc/sysvipc", "/proc/irq", "/proc/bus", "/proc/fs"],
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,  # both together, so none is left for swap
            "Sysctls": _SYSCTLS if self.shares_kernel else {},
            "PidsLimit": limits.pids + (0 if self.shares_kernel else KERNEL_THREADS),
            "CpuPeriod": CPU_PERIOD_US,
            "CpuQuota": max(1000, round(limits.cpu_cores * CPU_PERIOD_US)),
            "OomScoreAdj": 300,
            "Ulimits": [
                {"Name": name, "Soft": value, "Hard": value}
                for name, value in (
                    ("nofile", limits.open_files),
                    ("fsize", limits.file_bytes),
                    ("core", 1),  # not 0, at which a core pattern's handler is run; see core(5)
                    ("memlock", 0),
                    ("msgqueue", 819_200),  # what Linux starts with: an engine cannot give more
                    ("rtprio", 0),
                    ("nice", 0),
                )
            ],
            "LogConfig": {"Type": "none"},  # all that it says comes over its link
            "RestartPolicy": {"Name": "no"},
        }


def wait_status(exit_code: int) -> int:
    """An exit code as the engine tells it, as `os.waitpid` would have. A kernel that exits with 129 to 192 of its own
    accord is taken for one that a signal ended: the engine's init tells them no more apart than a shell does."""
    return exit_code - KILLED if KILLED < exit_code <= KILLED + 64 else (exit_code & 0xFF) << 8
