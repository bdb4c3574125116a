"""Landlock allows what it was told and nothing else, whoever asks; older kernels get as much of it as they know."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import uuid

import pytest

from cellgate.sandbox.native import landlock, linux
from tests.support.child import in_child

NOBODY = 65534


@pytest.fixture(params=["root", "another user"])
def place(request, tmp_path_factory):
    """(directory that may be written, directory that may only be read, how to become who asks)"""
    if landlock.abi() == 0:
        pytest.skip("no Landlock here")
    is_root = request.param == "root"
    if not is_root and os.getuid() != 0:
        pytest.skip("becoming another user needs root")
    base = f"/var/tmp/landlock-test-{uuid.uuid4().hex[:12]}"  # pytest's own directory is closed to others
    for directory in (base, f"{base}/rw", f"{base}/rw/sub", f"{base}/ro"):
        os.mkdir(directory)
        os.chmod(directory, 0o777)
    with open(f"{base}/ro/file", "w") as file:
        file.write("x")
    os.chmod(f"{base}/ro/file", 0o666)

    def become():
        if not is_root:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        linux.set_no_new_privs()

    yield f"{base}/rw", f"{base}/ro", become
    subprocess.run(["rm", "-r", base], check=True)


def result_of(function, *arguments):
    """The errno with which it fails, or 0."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


def confined(place, attempts):
    """What `attempts` returns in a child that may read all, write to one directory, and use devices."""
    writable, _, become = place
    rules = landlock.ruleset(read=("/", "/no/such/place"), write=(writable,))

    def run():
        become()
        rules.restrict_self()
        return attempts()

    return in_child(run)


def write(path):
    with open(path, "w") as file:
        file.write("y")


def test_what_is_readable_can_be_read_and_run_but_not_changed(place):
    _, readable, _ = place

    def attempts():
        with open(f"{readable}/file") as file:
            assert file.read() == "x"
        assert subprocess.run(["true"], check=False).returncode == 0
        return {
            "write": result_of(write, f"{readable}/file"),
            "truncate": result_of(os.truncate, f"{readable}/file", 0),
            "create": result_of(write, f"{readable}/new"),
            "mkdir": result_of(os.mkdir, f"{readable}/dir"),
            "remove": result_of(os.unlink, f"{readable}/file"),
            "symlink": result_of(os.symlink, "x", f"{readable}/link"),
            "fifo": result_of(os.mkfifo, f"{readable}/fifo"),
            "elsewhere": result_of(write, f"/tmp/{uuid.uuid4().hex}"),
        }

    assert set(confined(place, attempts).values()) == {errno.EACCES}


def test_what_is_writable_can_be_used_like_any_directory(place):
    writable, _, _ = place

    def attempts():
        os.chdir(writable)
        write("a")
        os.truncate("a", 100)
        os.mkdir("d")
        os.rename("a", "d/a")  # from one directory to another: REFER
        os.link("d/a", "sub/b")
        os.symlink("d/a", "l")
        os.mkfifo("f")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("s")
        with open("script", "w") as file:
            file.write("#!/bin/sh\nexit 3\n")
        os.chmod("script", 0o700)
        assert subprocess.run(["./script"], check=False).returncode == 3
        for name in ("d/a", "sub/b", "l", "f", "s", "script"):
            os.unlink(name)
        os.rmdir("d")
        return os.listdir()

    assert confined(place, attempts) == ["sub"]


def test_a_file_cannot_be_carried_out_of_where_it_may_be_written(place):
    writable, readable, _ = place

    def attempts():
        write(f"{writable}/a")
        return result_of(os.link, f"{writable}/a", f"{readable}/a"), result_of(
            os.rename, f"{readable}/file", f"{writable}/file"
        )

    assert not {0} & set(confined(place, attempts))


def test_devices_can_be_used_and_none_made(place):
    writable, _, _ = place

    def attempts():
        write("/dev/null")
        with open("/dev/urandom", "rb") as file:
            assert len(file.read(4)) == 4
        return result_of(os.mknod, f"{writable}/null", 0o020666, os.makedev(1, 3))

    assert confined(place, attempts) in (errno.EACCES, errno.EPERM)


@pytest.mark.skipif(landlock.abi() < 6, reason="this kernel's Landlock keeps no signals within")
def test_signals_and_abstract_sockets_stay_within(place):
    outside = os.getpid()
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"\0landlock-test-{uuid.uuid4().hex}"
        listener.bind(name)
        listener.listen()

        def attempts():
            child = os.fork()
            if child == 0:
                signal.pause()
            os.kill(child, signal.SIGKILL)  # its own are its own
            os.waitpid(child, 0)
            with socket.socket(socket.AF_UNIX) as client:
                return result_of(os.kill, outside, 0), result_of(client.connect, name)

        assert confined(place, attempts) == (errno.EPERM, errno.EPERM)


def test_the_rules_hold_for_children_and_after_exec(place):
    _, readable, _ = place

    def attempts():
        return subprocess.run(["sh", "-c", f"echo z > {readable}/file"], check=False, stderr=-3).returncode

    assert confined(place, attempts) != 0


@pytest.mark.parametrize(
    ("abi", "without", "scopes"),
    [
        (1, landlock.REFER | landlock.TRUNCATE | landlock.IOCTL_DEV, 0),
        (2, landlock.TRUNCATE | landlock.IOCTL_DEV, 0),
        (3, landlock.IOCTL_DEV, 0),
        (4, landlock.IOCTL_DEV, 0),
        (5, 0, 0),
        (6, 0, 3),
        (7, 0, 3),
        (99, 0, 3),
    ],
)
def test_an_older_kernel_is_asked_only_for_what_it_knows(abi, without, scopes):
    assert landlock.handled(abi) == (0xFFFF & ~without, scopes)


@pytest.mark.parametrize(("abi", "size"), [(1, 8), (3, 8), (4, 16), (5, 16), (6, 24), (7, 24)])
def test_an_older_kernel_gets_the_structure_it_knows(abi, size, monkeypatch):
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    rules = landlock.ruleset(read=("/",), write=())
    assert len(rules.attributes) == size
    assert all(access & ~landlock.handled(abi)[0] == 0 for _, access in rules.rules)


def test_a_kernel_without_landlock_is_told_and_no_failure(monkeypatch):
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    assert "no Landlock" in landlock.unavailable_because()
    landlock.ruleset(read=("/",), write=()).restrict_self()
    with open("/dev/null", "w") as file:
        file.write("x")


def test_an_old_landlock_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(landlock, "abi", lambda: 3)
    assert "ABI 3" in landlock.unavailable_because()
    monkeypatch.setattr(landlock, "abi", lambda: landlock.WANTED_ABI)
    assert landlock.unavailable_because() is None
