"""The native driver without root: started by a plain user, inside a user namespace of its own.

The user is made here: a fork that gives up root in a mount namespace where the interpreter can be reached, with
cgroups that were handed to it, as a service manager would. A few rows of the hostile suite run there, in
`rootless_rows.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cellgate.sandbox.native import cgroups, linux
from tests.native.seen import GONE_SECONDS, is_gone, name_of

pytestmark = [pytest.mark.native]

NOBODY = 65534
ROWS = Path(__file__).with_name("rootless_rows.py")
SERVICE = Path(__file__).with_name("rootless_service.py")
NAME = "cellgate-rootless-test"


def needed() -> list[str]:
    """The directories that the program runs from."""
    paths = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), str(ROWS.parent)]
    return sorted({os.path.realpath(path) for path in (*paths, *sys.path) if path and os.path.isdir(path)})


def closed_to_others(path: str) -> str | None:
    """The first directory on the way that others may not enter."""
    for part in [*reversed(Path(path).parents), Path(path)]:
        if not part.stat().st_mode & 0o001:
            return str(part)
    return None


def open_the_way() -> None:
    """In a mount namespace of our own: what is needed behind a closed directory, and nothing else of that."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    closed: dict[str, list[str]] = {}
    for path in needed():
        if (at := closed_to_others(path)) is not None:
            closed.setdefault(at, []).append(path)
    for at, paths in closed.items():
        kept = [(path, linux.open_tree(linux.AT_FDCWD, path, linux.OPEN_TREE_CLONE)) for path in paths]
        linux.mount("tmpfs", at, "tmpfs", 0, "mode=0755")
        for path, tree in sorted(kept):
            with suppress(FileExistsError):
                os.makedirs(path)
            linux.move_mount(tree, linux.AT_FDCWD, path)


@pytest.fixture
def delegated() -> Iterator[list[str]]:
    """A group in each controller's tree that belongs to the user, of whom there is one: one test at a time has it."""
    if os.geteuid():
        pytest.skip("this is no root: whatever else runs here has shown the same")
    hierarchy = cgroups.detect()
    if hierarchy.version.number != 1:
        pytest.skip("rootless mode is tried here with cgroup version 1 alone")
    directories = sorted({os.path.join(os.path.dirname(parent), NAME) for parent in hierarchy.parents.values()})
    lock = os.open(os.path.dirname(directories[0]), os.O_RDONLY)  # which stays: no file of ours is left behind
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for directory in directories:
            os.makedirs(directory, exist_ok=True)
            for path in (directory, *(entry.path for entry in os.scandir(directory))):
                os.chown(path, NOBODY, NOBODY)
        yield directories
    finally:
        for directory in directories:
            for top, _, _ in os.walk(directory, topdown=False):
                os.rmdir(top)
        os.close(lock)


def as_nobody(directories: list[str], script: Path) -> dict[str, Any]:
    """What the script reported."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writing, 1)
            for directory in directories:
                Path(directory, "cgroup.procs").write_text(str(os.getpid()))
            open_the_way()
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.environ["HOME"] = "/nonexistent"
            os.chdir("/")
            os.execv(sys.executable, [sys.executable, "-B", str(script)])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, text
    report: dict[str, Any] = json.loads(text)
    return report


def test_a_user_who_is_not_root_gets_sandboxes_that_hold(delegated: list[str]):
    report = as_nobody(delegated, ROWS)
    if reason := report.get("unavailable"):
        pytest.skip(f"user namespaces are not allowed here: {reason}")
    assert report["uid"] == NOBODY
    assert report["probes"] == {
        "sum": "2",
        "ids": "(1000, 1000, 1000)",
        "map": "['1000', '1']",
        "capabilities": "0",
        "confined": "['1', '2']",
        "processes": "2",
        "interfaces": "['lo']",
        "groups": "True",
    }
    assert set(report["refused"].values()) <= {"PermissionError", "OSError", "FileNotFoundError"}, report["refused"]
    assert report["bomb"] == [True, True]
    assert report["destroyed"] == "session_deleted"
    assert report["ends"] == {
        "oom": "oom", "exit": "kernel_exit", "signal": "kernel_signal", "deaf": "timeout_wall"
    }  # fmt: skip
    assert report["groups left"] == []
    assert report["alive"] >= 2
    assert report["lost"] == "supervisor_lost"
    assert report["outlived"] == []
    nothing_lives_on()


def test_a_warden_that_is_not_root_outlives_its_drivers_too(delegated: list[str]):
    report = as_nobody(delegated, SERVICE)
    if reason := report.get("unavailable"):
        pytest.skip(f"user namespaces are not allowed here: {reason}")
    assert report == {
        "kept": True,
        "twice": "a warden is there already",
        "for root": "only root can open it for uid 0",
        "left": [],
    }
    nothing_lives_on()


def nothing_lives_on() -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while alive := [pid for pid in processes_of(NOBODY) if "cellgate" in name_of(pid) and not is_gone(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


def processes_of(uid: int) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and owner(name) == uid]


def owner(pid: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
