"""The program that process 1 of a sandbox is, and the list of system calls that it makes."""

import os
import platform
import signal
import time

import pytest

from cellgate.sandbox.native.program import Calls, Later, Program, failure

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a pid namespace, which takes root"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="not written for this machine"),
]
SECONDS = 10.0


@pytest.fixture(scope="module")
def program():
    return Program()


@pytest.fixture
def spawn(program):
    """Spawns it with a list made by a function; the process id, and where what it writes can be read."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    left = [own]
    pids = []

    def spawn(make):
        reading, writing = os.pipe()
        calls = Calls(Later("said"))
        make(calls)
        pids.append(program.spawn_as_init(calls.pack({"said": writing, "number": 7}), [writing], own))
        os.close(writing)
        left.append(reading)
        return pids[-1], reading

    yield spawn
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # the test saw its end
    for fd in left:
        os.close(fd)


def own_kilobytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def test_it_makes_the_calls_and_then_sleeps_in_a_few_pages(spawn):
    def make(calls):
        calls.call("write", Later("said"), "one ", 4)
        calls.call("write", Later("said"), *calls.place_text("two %4d", Later("number", 1)))
        calls.call("prctl", 4, 0)  # not dumpable
        calls.call("close", Later("said"))

    pid, reading = spawn(make)
    assert os.read(reading, 99) + os.read(reading, 99) == b"one two    8"
    deadline = time.monotonic() + SECONDS
    while own_kilobytes(pid) > 16 and time.monotonic() < deadline:
        os.sched_yield()
    assert own_kilobytes(pid) <= 16, "it gives its list back"
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        assert file.read() == b"cellgate-init\0"
    with open(f"/proc/{pid}/status") as file:
        assert next(line.split()[1:] for line in file if line.startswith("NSpid:"))[1:] == ["1"]
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)


def test_each_is_process_1_of_its_own_namespace_and_the_caller_stays_where_it_is(spawn):
    before = os.stat("/proc/self/ns/pid_for_children").st_ino
    pids = [spawn(lambda calls: calls.call("getpid", passes=1, only=True))[0] for _ in range(3)]
    assert len({os.stat(f"/proc/{pid}/ns/pid").st_ino for pid in pids} - {before}) == 3
    assert os.stat("/proc/self/ns/pid_for_children").st_ino == before


@pytest.mark.parametrize(
    ("arguments", "passes", "only", "said"),
    [
        (("close", 9999), 0, False, "close: Bad file descriptor (call 1)"),
        (("close", 9999), -9, False, ""),
        (("getpid",), 0, False, ""),
        (("getpid",), 1, True, ""),
        (("getpid",), 2, True, "getpid: 1 (call 1)"),
        (("mkdirat", -100, "/no/such/place", 0o700), -17, False, "mkdirat: No such file or directory (call 1)"),
    ],
)
def test_it_ends_at_a_call_that_fails_and_says_which(spawn, arguments, passes, only, said):
    def make(calls):
        calls.call("getppid")
        calls.call(*arguments, passes=passes, only=only)
        calls.call("write", Later("said"), "on", 2)

    pid, reading = spawn(make)
    heard = os.read(reading, 99)
    assert (failure(heard) if said else heard) == (said or b"on")
    if said:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        assert os.read(reading, 99) == b"", "what came after it was not done"


def test_a_list_that_is_too_long_is_refused():
    calls = Calls(Later("said"))
    for _ in range(1100):
        calls.call("getpid")
    with pytest.raises(ValueError, match="65536 would pass"):
        calls.pack({"said": 1})


def test_no_word_at_all_is_told_from_a_failure():
    assert failure(b"") == "it ended without a word"
