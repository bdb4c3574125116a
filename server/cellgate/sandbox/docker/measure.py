"""What a container uses, as the host counts it: its cgroup and its processes, where both can be seen from here.

A gateway that is itself in a container, or whose engine is on another machine, sees neither, and is told by the engine:
later, and not how often a limit was met.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Final

from cellgate.sandbox.base import Usage
from cellgate.sandbox.native.cgroups import V1, V2, Reading, Version, parse_memberships

__all__ = ["Meter"]

CGROUPS: Final = "/sys/fs/cgroup"
IDLE_SHARE: Final = 0.01  # of one core: what stands still uses less
IDLE_SECONDS: Final = 0.5  # two looks nearer than this tell nothing


@dataclass
class Meter:
    """Of one container. `sees_kernel`: its processes are the host's, and not those of a kernel of its own."""

    container: str
    pid: int  # of its process 1, as the engine says it
    sees_kernel: bool
    last: Reading | None = None
    _looked_at: float = field(default=0.0)  # with `usage`, or for the first time

    def look(self) -> None:
        """Keep what can be read now. Does nothing once it is gone."""
        if (reading := self.read()) is not None:
            self._looked_at = self._looked_at or time.monotonic()
            self.last = reading

    def usage(self, reading: Reading | None) -> Usage:
        """By what was read or told now; None once it is gone, and then as it was last seen."""
        before, looked_at = self.last, self._looked_at
        is_there = reading is not None
        self.last = reading or before
        self._looked_at = time.monotonic()
        now = self.last
        if now is None:
            return Usage(None, None, 0.0, 0, 0, 0, stopped=False)
        if self.sees_kernel and self._child():
            stopped = self._is_stopped()
        else:  # what it calls a stopped process nobody else can see, but not that it does nothing at all
            passed = self._looked_at - looked_at
            used = now.cpu_seconds - (before.cpu_seconds if before else 0.0)
            stopped = is_there and before is not None and passed >= IDLE_SECONDS and used < IDLE_SHARE * passed
        return Usage(
            memory_bytes=now.memory_bytes,
            memory_peak_bytes=now.memory_peak_bytes,
            cpu_seconds=now.cpu_seconds,
            pids=now.pids,
            oom_kills=now.oom_kills,
            pids_limit_hits=now.pids_limit_hits,
            stopped=stopped,
        )

    def read(self) -> Reading | None:
        """None when its cgroup is gone, or cannot be seen from here."""
        memberships = parse_memberships(_text(f"/proc/{self.pid}/cgroup")) if self.pid else {}
        version, paths = _where(memberships, self.container)
        if version is None:
            return None
        return version.reading(lambda controller, file: _text(f"{paths.get(controller, paths.get('', ''))}/{file}"))

    def _is_stopped(self) -> bool:
        """Whether the kernel stands still: stopped, or held by a tracer."""
        return _text(f"/proc/{self._child()}/stat").rpartition(")")[2].split()[:1] in (["T"], ["t"])

    def _child(self) -> str:
        """The first of process 1, which is the kernel; "" when it cannot be seen from here."""
        if self.container not in _text(f"/proc/{self.pid}/cgroup"):
            return ""
        return next(iter(_text(f"/proc/{self.pid}/task/{self.pid}/children").split()), "")


def _where(memberships: dict[str, str], container: str) -> tuple[Version | None, dict[str, str]]:
    """The directory of each controller; none unless they are those of this container, whose process number may by now
    be another's, or have been another machine's all along."""
    ours = {name: path for name, path in memberships.items() if container in path}
    if os.path.exists(f"{CGROUPS}/cgroup.controllers"):
        return (V2, {"": CGROUPS + ours[""]}) if "" in ours else (None, {})
    paths = {name: f"{CGROUPS}/{name}{path}" for name, path in ours.items()}
    return (V1, paths) if "memory" in paths else (None, {})


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:  # gone, or not to be seen from here
        return ""
