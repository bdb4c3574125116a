"""Death certificates: how a sandbox ended, decided in one place from what its driver saw.

`decide` takes plain facts (the wait status, who asked for a kill, what the cgroup counted) and returns the
certificate. Knows nothing of processes, sockets or cgroup files; reading those is the drivers' business.
Needs nothing but the standard library, because the warden imports it.
"""

from __future__ import annotations

import os
import signal as signals
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum

from cellgate.errors import BadCertificate

__all__ = ["MAX_DETAIL_CHARS", "DeathCertificate", "Reason", "ResourceEvents", "decide"]

MAX_DETAIL_CHARS = 500  # one sentence or two; it may hold words of hostile code, and is kept for the session's life


class Reason(str, Enum):
    """Why a sandbox ended: a closed list. The first three it brought about itself, the rest were asked for."""

    KERNEL_EXIT = "kernel_exit"
    KERNEL_SIGNAL = "kernel_signal"
    OOM = "oom"
    KERNEL_UNRESPONSIVE = "kernel_unresponsive"
    PROTOCOL_VIOLATION = "protocol_violation"
    SUPERVISOR_LOST = "supervisor_lost"
    TIMEOUT_WALL = "timeout_wall"
    TIMEOUT_CPU = "timeout_cpu"
    SESSION_DELETED = "session_deleted"
    SESSION_EXPIRED = "session_expired"
    BACKEND_ERROR = "backend_error"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class ResourceEvents:
    """What was counted over a sandbox's life, its children included. None: this driver does not limit or
    measure it."""

    memory_limit_bytes: int | None = None
    memory_peak_bytes: int | None = None
    oom_kills: int = 0
    pids_limit_hits: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True)
class DeathCertificate:
    """How a sandbox ended. `exit_code` and `signal` are the kernel's own, as it was found: one of them, or
    neither when nobody saw it end. `detail` is a sentence for people, never to be compared."""

    reason: Reason
    exit_code: int | None = None
    signal: int | None = None
    memory_limit_bytes: int | None = None
    memory_peak_bytes: int | None = None
    oom_kills: int = 0
    pids_limit_hits: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    detail: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What also happened and did not end it: `pids_limit`, `oom_child` (a child was killed for memory)."""
        child = self.oom_kills > 0 and self.reason is not Reason.OOM
        return (("pids_limit",) if self.pids_limit_hits else ()) + (("oom_child",) if child else ())

    def sentence(self) -> str:
        """The certificate in one line for people."""
        text = _SENTENCES[self.reason](self)
        return f"{text} ({self.detail})" if self.detail else text

    def to_json(self) -> dict[str, object]:
        """A plain dictionary that json and msgpack take."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"reason": self.reason.value}

    @staticmethod
    def from_json(value: object) -> DeathCertificate:
        """The inverse of `to_json`: exactly these names, each of its type and range. Raises BadCertificate."""
        if not isinstance(value, dict):
            raise BadCertificate("certificate", "must be an object")
        if unknown := value.keys() - _CHECKS.keys():
            raise BadCertificate(repr(sorted(map(str, unknown))[0])[:80], "is not a field of it")
        for name, (check, wanted) in _CHECKS.items():
            if name not in value:
                raise BadCertificate(name, "is missing")
            if not check(value[name]):
                raise BadCertificate(name, f"must be {wanted}")
        return DeathCertificate(**(value | {"reason": Reason(value["reason"])}))


def decide(
    wait_status: int | None,
    killed_for: Reason | None,
    events: ResourceEvents,
    *,
    oom_kills_outlived: int = 0,
    detail: str = "",
) -> DeathCertificate:
    """The certificate of a sandbox that has ended.

    `wait_status` is the kernel process's own, as `os.waitpid` gives it, or None when nobody could see it.
    `killed_for` is what the first `kill` asked for, if one was asked before the end was seen.
    `oom_kills_outlived` is how many kills for memory the kernel was seen alive after: those hit children.
    """
    code = os.waitstatus_to_exitcode(wait_status) if wait_status is not None else None
    exit_code = code if code is not None and code >= 0 else None
    signal = -code if code is not None and code < 0 else None
    if killed_for is not None:  # first, because everything after it is a consequence or a coincidence
        reason = killed_for
    elif wait_status is None:
        reason = Reason.SUPERVISOR_LOST
    elif signal == signals.SIGKILL and events.oom_kills > oom_kills_outlived:
        reason = Reason.OOM
    elif signal is not None:
        reason = Reason.KERNEL_SIGNAL
    else:
        reason = Reason.KERNEL_EXIT
    return DeathCertificate(
        reason=reason,
        exit_code=exit_code,
        signal=signal,
        memory_limit_bytes=events.memory_limit_bytes,
        memory_peak_bytes=events.memory_peak_bytes,
        oom_kills=events.oom_kills,
        pids_limit_hits=events.pids_limit_hits,
        cpu_seconds=events.cpu_seconds,
        wall_seconds=events.wall_seconds,
        detail=detail[:MAX_DETAIL_CHARS],
    )


def _mebibytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / (1 << 20):.1f} MiB"


def _signal_name(number: int | None) -> str:
    try:
        return signals.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


_SENTENCES: dict[Reason, Callable[[DeathCertificate], str]] = {
    Reason.KERNEL_EXIT: lambda c: f"the kernel exited with status {c.exit_code}",
    Reason.KERNEL_SIGNAL: lambda c: f"the kernel was ended by {_signal_name(c.signal)}",
    Reason.OOM: lambda c: (
        f"the kernel was killed for memory: limit {_mebibytes(c.memory_limit_bytes)}, "
        f"peak {_mebibytes(c.memory_peak_bytes)}"
    ),
    Reason.KERNEL_UNRESPONSIVE: lambda _: "the kernel stopped answering and was killed",
    Reason.PROTOCOL_VIOLATION: lambda _: "the sandbox broke the protocol of its link and was killed",
    Reason.SUPERVISOR_LOST: lambda _: "the process that supervised the sandbox was lost, and the sandbox with it",
    Reason.TIMEOUT_WALL: lambda c: f"the time for the cell was over; the sandbox had lived {c.wall_seconds:.1f} s",
    Reason.TIMEOUT_CPU: lambda c: f"the CPU time was used up: {c.cpu_seconds:.1f} s",
    Reason.SESSION_DELETED: lambda _: "the session was deleted",
    Reason.SESSION_EXPIRED: lambda _: "the session expired",
    Reason.BACKEND_ERROR: lambda _: "the sandbox failed through no fault of the code in it",
}


_MAX_SECONDS = 1e10  # 300 years, of one core or of many


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_count_or_none(value: object) -> bool:
    return value is None or _is_count(value)


def _is_seconds(value: object) -> bool:
    return (type(value) is int or type(value) is float) and 0 <= value <= _MAX_SECONDS  # false for NaN


_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "reason": (lambda v: isinstance(v, str) and v in {r.value for r in Reason}, "one of the reasons"),
    "exit_code": (lambda v: v is None or (type(v) is int and 0 <= v <= 255), "0 to 255 or null"),
    "signal": (lambda v: v is None or (type(v) is int and 1 <= v <= 64), "1 to 64 or null"),
    "memory_limit_bytes": (_is_count_or_none, "a size or null"),
    "memory_peak_bytes": (_is_count_or_none, "a size or null"),
    "oom_kills": (_is_count, "a count"),
    "pids_limit_hits": (_is_count, "a count"),
    "cpu_seconds": (_is_seconds, "seconds"),
    "wall_seconds": (_is_seconds, "seconds"),
    "detail": (lambda v: isinstance(v, str) and len(v) <= MAX_DETAIL_CHARS, f"text of up to {MAX_DETAIL_CHARS}"),
}
