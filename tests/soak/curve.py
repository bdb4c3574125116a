"""What is seen of a server while it is used, and whether that stays as it was.

The rule. *Counts* (processes, descriptors, cgroups, mounts, stored sessions) are looked at when nobody uses the server:
after it has warmed up, and at the end; none may be more then. *Memory* goes up and down with what happens, so that a
trend is looked for: the median of the last third of a run may lie no more than a tenth, or 8 MiB, above that of the
third before it. The first third does not count: pools fill, and pages that are shared at first are copied. In a run
of 30 minutes that finds what grows by some 800 KiB a minute; `Sample` has the figures for a finer eye.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.native.seen import children, descendants, names_of_groups
from tests.support.server import Server

__all__ = ["COUNTS", "HEADER", "MEMORIES", "Sample", "look", "not_flat", "not_given_back"]

MiB = 1 << 20
GROWS_BYTES = 8 * MiB  # what an allocator keeps or gives back by chance
GROWS_PART = 0.10

MEMORIES = ("keeper", "gateway", "judges", "warden", "zygotes")  # bytes that are resident, of each
COUNTS = ("processes", "descriptors", "cgroups", "mounts", "stored")


@dataclass(frozen=True)
class Sample:
    seconds: float  # since the beginning
    sessions: int  # that have been, since then
    keeper: int
    gateway: int
    judges: int
    warden: int
    zygotes: int
    processes: int  # all of the server, those in sandboxes included
    descriptors: int  # of the keeper, the gateway, the judges, the warden and the zygotes
    cgroups: int
    mounts: int  # that zygotes see, and of the host's those in the state directory
    stored: int  # directories of sessions on disk

    def line(self, before: Sample | None) -> str:
        a_second = 0.0 if before is None else (self.sessions - before.sessions) / (self.seconds - before.seconds)
        memory = "".join(f"{getattr(self, name) / MiB:9.1f}" for name in MEMORIES)
        counts = "".join(f"{getattr(self, name):12}" for name in COUNTS)
        return f"{self.seconds:6.0f} {self.sessions:9} {a_second:6.1f}{memory}{counts}"


HEADER = "".join(
    (f"{'s':>6} {'sessions':>9} {'each s':>6}", *(f"{n:>9}" for n in MEMORIES), *(f"{n:>12}" for n in COUNTS))
)  # memory in MiB


def look(server: Server, seconds: float, sessions: int) -> Sample:
    keeper, gateway, warden = server.keeper_pid, server.gateway_pid(), server.warden_pid()
    judges = descendants(gateway)
    zygotes = {pid for pid in children(warden) if _name(pid).startswith("zygote")}
    ours = {keeper, gateway, warden} | judges | zygotes
    return Sample(
        seconds,
        sessions,
        _resident([keeper]),
        _resident([gateway]),
        _resident(judges),
        _resident([warden]),
        _resident(zygotes),
        processes=len({keeper, warden} | descendants(keeper) | descendants(warden)),
        descriptors=sum(_entries(f"/proc/{pid}/fd") for pid in ours),
        cgroups=len(names_of_groups(warden)),
        mounts=sum(_read(f"/proc/{pid}/mountinfo").count("\n") for pid in zygotes)
        + _read(f"/proc/{warden}/mountinfo").count(str(server.state_dir)),
        stored=_entries(server.state_dir / "gateway" / "sessions"),
    )


def not_given_back(before: Sample, after: Sample) -> list[str]:
    """Which counts are more than they were, of two samples at rest."""
    seen = [(name, getattr(before, name), getattr(after, name)) for name in COUNTS]
    return [f"{name}: {was} before, {now} after" for name, was, now in seen if now > was]


def not_flat(samples: Sequence[Sample]) -> list[str]:
    """Whose memory grows. Of fewer than nine samples nothing can be told."""
    third = len(samples) // 3
    if third < 3:
        return []
    found = []
    for name in MEMORIES:
        middle, last = (
            statistics.median(getattr(sample, name) for sample in part)
            for part in (samples[third:-third], samples[-third:])
        )
        if last - middle > max(GROWS_BYTES, GROWS_PART * middle):
            found.append(f"memory of {name}: {middle / MiB:.1f} MiB, then {last / MiB:.1f} MiB")
    return found


def ends_as_text(ends: Mapping[str, Mapping[str, int]]) -> str:
    """How often each act ended in which way."""
    return "\n".join(
        f"  {name:22} " + ", ".join(f"{count} {end}" for end, count in sorted(found.items()))
        for name, found in sorted(ends.items())
    )


def _resident(pids: Iterable[int]) -> int:
    pages = sum(int((_read(f"/proc/{pid}/statm").split() or ["0", "0"])[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE")


def _name(pid: int) -> str:
    return _read(f"/proc/{pid}/comm")


def _entries(path: str | Path) -> int:
    with suppress(OSError):  # it has just gone
        return len(os.listdir(path))
    return 0


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text()
    return ""
