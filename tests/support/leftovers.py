"""Finds what a run of the suite left on the host: processes, cgroups, mounts, files.

Processes are known by a mark in their environment, which forks keep, or as orphans by their name; the rest by the
prefix `cellgate`, beside what stood there before. All but marked processes might be of another run on the same host,
so while processes of another run live, those are told and not counted as a failure.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MARK = "CELLGATE_TEST_RUN"
SETTLE_SECONDS = 10.0  # after the last test: init reaps and cgroups empty in their own time
PLACES = ("/tmp", "/run", "/var/tmp", "/dev/shm", "/var/run")


@dataclass(frozen=True)
class Traces:
    """What bears our name on this host."""

    cgroups: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]
    orphans: frozenset[str]

    def __sub__(self, before: Traces) -> list[str]:
        return sorted(
            (self.cgroups - before.cgroups)
            | (self.mounts - before.mounts)
            | (self.files - before.files)
            | (self.orphans - before.orphans)
        )

    @staticmethod
    def now() -> Traces:
        walk = os.walk("/sys/fs/cgroup")  # which takes it that groups go while it walks
        cgroups = {f"{top}/{name}" for top, names, _ in walk for name in names if name.startswith("cellgate")}
        mounts = {
            f"mount {line.split()[4]}" for line in read("/proc/self/mountinfo").splitlines() if "cellgate" in line
        }
        files = {str(p) for place in PLACES for p in Path(place).glob("cellgate*")}
        orphans = {f"process {pid}: {command_line(pid)}" for pid in pids() if is_orphan_of_ours(pid)}
        return Traces(frozenset(cgroups), frozenset(mounts), frozenset(files), frozenset(orphans))


def processes_of(mark: str) -> Iterator[str]:
    """The living processes that bear the mark of a run, but for the one that asks."""
    for pid in pids():
        if pid == os.getpid() or is_zombie(pid):
            continue
        if f"{MARK}={mark}".encode() in read_bytes(f"/proc/{pid}/environ"):
            yield f"process {pid}: {command_line(pid)}"


def is_orphan_of_ours(pid: int) -> bool:
    """Whether a warden or a driver left it: such processes bear no mark, and belong to nobody any more."""
    name, _, rest = read(f"/proc/{pid}/stat").rpartition(")")
    ours = (
        "(cellgate" in name
        or any(module in command_line(pid) for module in ("cellgate.sandbox", "cellgate_kernel"))
        or b"CELLGATE_SANDBOX=" in read_bytes(f"/proc/{pid}/environ")  # the process driver's mark
    )
    return ours and rest.split()[:2][1:] == ["1"]


def others_are_running(mark: str) -> bool:
    """Whether another run of this suite, or another Cellgate, works on this host."""
    for pid in pids():
        environment = read_bytes(f"/proc/{pid}/environ")
        if f"{MARK}=".encode() in environment and f"{MARK}={mark}".encode() not in environment:
            return True
        if "cellgate" in command_line(pid) and f"{MARK}={mark}".encode() not in environment:
            return True
    return False


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def is_zombie(pid: int) -> bool:
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] in (["Z"], ["X"], [])


def command_line(pid: int) -> str:
    return read(f"/proc/{pid}/cmdline").replace("\0", " ")[:200].strip()


def read_bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # gone, or not ours to read
        return b""


def read(path: str) -> str:
    return read_bytes(path).decode(errors="replace")


class Watch:
    """The plugin: looks before the first test and after the last, and fails the run for what is new."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        os.environ[MARK] = self.mark  # xdist's workers inherit it, and whatever the tests start
        self.before = Traces.now()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while (processes := list(processes_of(self.mark))) or Traces.now() - self.before:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        traces = Traces.now() - self.before
        if traces and others_are_running(self.mark):
            tell(session, f"beside us another run works here; these may be its own: {', '.join(traces)}")
            traces = []
        if processes or traces:
            report(session, "\n".join(["left behind by this run:", *processes, *traces]))


def tell(session: pytest.Session, text: str) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\nleftovers: {text}")


def report(session: pytest.Session, text: str) -> None:
    """As an error of the run, so that the closing line and the exit status say it."""
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
    session.config.hook.pytest_runtest_logreport(
        report=pytest.TestReport(
            nodeid="the whole run leaves nothing behind",
            location=("tests/support/leftovers.py", 0, "leftovers"),
            keywords={},
            outcome="failed",
            longrepr=text,
            when="teardown",
        )
    )
