"""The wrapped calls do what they say, and fail with the errno and the name of the call."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket

import pytest

from cellgate.sandbox.native import linux
from tests.support.child import Died, in_child

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def status(*names):
    with open("/proc/self/status") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return [fields[name] for name in names]


@pytest.mark.parametrize(
    ("call", "arguments", "number"),
    [
        ("unshare", (1,), errno.EINVAL),
        ("setns", (-1, 0), errno.EBADF),
        ("mount", ("/no/such", "/no/such", "tmpfs"), errno.ENOENT),
        ("umount", ("/no/such",), errno.ENOENT),
        ("pivot_root", ("/no/such", "/no/such"), errno.ENOENT),
        ("mount_setattr", (linux.AT_FDCWD, "/no/such", 0, 1), errno.ENOENT),
        ("open_tree", (linux.AT_FDCWD, "/no/such", 0), errno.ENOENT),
        ("move_mount", (-1, linux.AT_FDCWD, "/"), errno.EBADF),
        ("prctl", (9999,), errno.EINVAL),
        ("capset", (1, 0, 0), errno.EPERM),
        ("pidfd_open", (0,), errno.EINVAL),
        ("syscall", (9999,), errno.ENOSYS),
    ],
)
def test_a_failed_call_says_which(call, arguments, number):
    with pytest.raises(OSError, match=r"umount2|syscall|" + call) as failure:
        in_child_raise(getattr(linux, call), arguments)
    assert failure.value.errno == number


def in_child_raise(function, arguments):
    """In a child, lest one succeeds."""

    def attempt():
        try:
            function(*arguments)
        except OSError as error:
            return error.errno, error.strerror, error.filename
        return None

    failure = in_child(attempt)
    assert failure is not None, "it succeeded"
    raise OSError(*failure)


def test_a_whole_root_can_be_made(tmp_path):
    """Namespaces, a tmpfs root with a read-only bind, pivot_root, loopback."""

    def make():
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        linux.mount("tmpfs", str(tmp_path), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,nr_inodes=99")
        os.mkdir(tmp_path / "usr")
        os.mkdir(tmp_path / "moved")
        linux.mount("/usr", str(tmp_path / "usr"), None, linux.MS_BIND | linux.MS_REC)
        linux.mount_setattr(linux.AT_FDCWD, str(tmp_path / "usr"), linux.AT_RECURSIVE, linux.MOUNT_ATTR_RDONLY)
        tree = linux.open_tree(linux.AT_FDCWD, str(tmp_path / "usr"), linux.OPEN_TREE_CLONE)
        linux.move_mount(tree, linux.AT_FDCWD, str(tmp_path / "moved"))
        os.chdir(tmp_path)
        linux.pivot_root(".", ".")
        linux.umount(".", linux.MNT_DETACH)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            fcntl.ioctl(probe.fileno(), linux.SIOCSIFFLAGS, linux.LOOPBACK_UP)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
        try:
            os.mkdir("/moved/x")
        except OSError as error:
            written = error.errno
        return sorted(os.listdir("/")), written

    assert in_child(make) == (["moved", "usr"], errno.EROFS)


def test_privileges_are_given_up_for_good():
    def give_up():
        linux.drop_bounding_set()
        linux.set_securebits(linux.SECBIT_NOROOT | linux.SECBIT_NOROOT_LOCKED)
        linux.clear_ambient()
        linux.capset()
        linux.set_no_new_privs()
        linux.set_name("a name that is too long")
        return status("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Name")

    assert in_child(give_up) == ["0" * 16] * 5 + ["1", "a name that is "]


def test_capabilities_above_32_bits_are_set():
    everything = (1 << 41) - 1

    def keep_two():
        linux.capset(1 << 40, 1 << 40 | 1, 1)
        return [int(mask, 16) for mask in status("CapEff", "CapPrm", "CapInh")]

    if int(status("CapPrm")[0], 16) & everything & (1 << 40 | 1) != 1 << 40 | 1:
        pytest.skip("this root lacks the capabilities")
    assert in_child(keep_two) == [1 << 40, 1 << 40 | 1, 1]


def test_a_child_dies_with_its_parent():
    reading, writing = os.pipe()

    def parent():
        pid = os.fork()
        if pid == 0:
            linux.set_pdeathsig(signal.SIGKILL)
            os.write(writing, b"1")
            signal.pause()
        os.read(reading, 1)

    in_child(parent)
    os.close(writing)
    assert os.read(reading, 1) == b""  # its end closed: nobody holds it any more
    os.close(reading)


def test_descriptors_are_closed_by_the_range():
    def close():
        linux.close_range(100, 90)  # nothing
        fds = [os.dup2(0, fd) for fd in (200, 201, 202)]
        linux.close_range(200, 201)
        return [os.path.exists(f"/proc/self/fd/{fd}") for fd in fds]

    assert in_child(close) == [False, False, True]


def test_signals_through_descriptors():
    def receive():
        linux.pidfd_send_signal(linux.pidfd_open(os.getpid()), signal.SIGTERM)

    with pytest.raises(Died) as died:
        in_child(receive)
    assert died.value.signal == signal.SIGTERM
