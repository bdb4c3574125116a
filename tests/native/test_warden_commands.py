"""The warden's control socket, packet by packet: what a driver may say, and what comes of the rest."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.native.seen import (
    BOUND,
    GONE_SECONDS,
    SPEC,
    children,
    descendants,
    is_gone,
    kernel_in,
    name_of,
    names_of_groups,
    pids_in,
    state_of,
    zygote_of,
)
from tests.support.native import skip_without_native

pytestmark = pytest.mark.native


class RawWarden:
    """A warden whose driver is this test, packet by packet."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-m", "cellgate.sandbox.native", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.control.settimeout(BOUND)
        assert "hello" in self.hear()

    def hear(self) -> dict[str, object]:
        packet, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 1)
        for fd in fds:
            os.close(fd)
        assert packet, "it hung up"
        said: dict[str, object] = json.loads(packet)
        return said

    def say(self, **command: object) -> None:
        self.control.send(json.dumps(command).encode())

    def ask(self, **command: object) -> dict[str, object]:
        self.say(**command)
        return self.hear()

    def create(self, ref: int = 1) -> str:
        said = self.ask(ref=ref, do="create", template="python", limits=SPEC.limits.to_mapping())
        return str(said["id"])

    def close(self) -> None:
        self.control.close()
        assert self.process.wait(BOUND) == 0


@pytest.fixture
def raw() -> Iterator[RawWarden]:
    skip_without_native()
    warden = RawWarden()
    yield warden
    warden.close()


CODES = {"usage", "bad_limit", "unknown_template", "sandbox_gone"}
BAD_PACKETS = (
    *(b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"\0", b"[" * 60_000, b"9" * 5000, b"x" * (1 << 17), b"{}"),
    *(b'{"do":"list"}', b'{"ref":true,"do":"list"}', b'{"ref":"1","do":"list"}', b'{"ref":1}', b'{"ref":1,"do":7}'),
    *(b'{"ref":1,"do":"exec"}', b'{"ref":1,"do":"__class__"}', b'{"ref":1,"do":["list"]}', b'{"ref":1,"do":"create"}'),
    b'{"ref":1,"do":"create","template":["python"],"limits":{}}',
    b'{"ref":1,"do":"create","template":"../../etc","limits":{}}',
    b'{"ref":1,"do":"create","template":"python\\u0000","limits":{}}',
    b'{"ref":1,"do":"create","template":"\\ud800","limits":{}}',
    b'{"ref":1,"do":"create","template":"python","limits":7}',
    *(b'{"ref":1,"do":"create","template":"python","limits":{"pids":%b}}' % value
      for value in (b"0", b"-1", b"NaN", b"Infinity", b"1e400", b'"64"', b"true", b"null", b"1.5", b"[1]", b"{}")),
    b'{"ref":1,"do":"create","template":"python","limits":{"memory_bytes":%d}}' % (1 << 60),
    b'{"ref":1,"do":"create","template":"python","limits":{"uid":0}}',
    *(b'{"ref":1,"do":"keep_pool","template":"python","limits":{},"size":%b}' % value
      for value in (b"-1", b"1001", b"true", b'"3"', b"1e3", b"NaN")),
    *(b'{"ref":1,"do":"%b","id":"w1-1"}' % verb for verb in (b"attach", b"usage")),
    *(b'{"ref":1,"do":"%b","id":%b}' % (verb, value) for verb in (b"attach", b"usage", b"kill", b"interrupt")
      for value in (b"7", b"null", b"[]", b'{"a":1}')),
    b'{"ref":1,"do":"kill","id":"../../w","reason":"boredom","detail":""}',
    b'{"ref":1,"do":"kill","id":"w","reason":"oom","detail":7}',
    b'{"ref":1,"do":"kill","id":"w","reason":["oom"],"detail":""}',
)  # fmt: skip


def test_bad_commands_get_a_coded_error_each_and_change_nothing(raw: RawWarden):
    for packet in BAD_PACKETS:
        raw.control.send(packet)
        said = raw.hear()
        assert set(said) == {"failed", "code", "facts"}, packet[:100]
        assert said["failed"] in (0, 1), packet[:100]
        assert said["code"] in CODES, said
    raw.say(ref=5, do="kill", id="nobody", reason="oom", detail="")  # is not answered
    assert raw.ask(ref=6, do="interrupt", id="nobody") == {"interrupted": 6}
    assert raw.ask(ref=7, do="destroyed", id="nobody") == {"gone": 7}
    assert raw.ask(ref=8, do="list") == {"listed": 8}
    assert children(raw.process.pid) == []
    assert names_of_groups(raw.process.pid) == set()


def test_interrupts_and_kills_during_the_start_end_that_sandbox_alone(raw: RawWarden):
    """A signal that came before the kernel had a process group of its own once ended its zygote, and all with it."""
    kept = raw.create()
    prefix = kept.removesuffix("1")
    limits = SPEC.limits.to_mapping()
    warden = raw.process.pid
    zygote = zygote_of(warden)
    for number in range(2, 32):
        raw.say(ref=number, do="create", template="python", limits=limits)
        for _ in range(5):
            raw.say(ref=0, do="interrupt", id=f"{prefix}{number}")
        if number % 2:
            raw.say(ref=0, do="kill", id=f"{prefix}{number}", reason="session_deleted", detail="during its start")
    answered: dict[int, str] = {}
    while len(answered) < 30:
        said = raw.hear()
        if "created" in said or "failed" in said:
            reference = int(str(said.get("created", said.get("failed"))))
            assert reference not in answered, "answered twice"
            answered[reference] = str(said.get("id", said.get("code")))
    assert zygote_of(warden) == zygote
    assert not is_gone(kernel_in(kept))
    for number in range(2, 32):
        raw.say(ref=0, do="kill", id=f"{prefix}{number}", reason="session_deleted", detail="")
    deadline = time.monotonic() + BOUND
    while names_of_groups(warden) != {kept}:
        assert time.monotonic() < deadline, names_of_groups(warden)
        time.sleep(0.01)


def test_a_kernel_that_begins_when_its_zygote_has_ended_is_refused(raw: RawWarden):
    """The warden hears of the zygote's end, and then that the kernel is ready: that kernel was handed out once, dead,
    and its death never told."""
    prefix = raw.create().removesuffix("1")
    warden = raw.process.pid
    for number in range(2, 100):
        raw.say(ref=number, do="create", template="python", limits=SPEC.limits.to_mapping())
        kernel = 0
        while not kernel:
            kernel = next((pid for pid in pids_in(f"{prefix}{number}") if name_of(pid) == "zygote-python"), 0)
        os.kill(kernel, signal.SIGSTOP)
        if not select.select([raw.control], [], [], 0.1)[0]:
            break  # before it was ready
        os.kill(kernel, signal.SIGCONT)
        assert "created" in raw.hear()
    zygote = zygote_of(warden)
    os.kill(warden, signal.SIGSTOP)
    try:
        os.kill(zygote, signal.SIGKILL)
        wait_until(lambda: is_gone(zygote))
        os.kill(kernel, signal.SIGCONT)
        wait_until(lambda: state_of(kernel) in "SZX")
    finally:
        os.kill(warden, signal.SIGCONT)
    said = raw.hear()
    while "died" in said:  # the others
        said = raw.hear()
    assert (said.get("failed"), said.get("code")) == (number, "sandbox_start_failed")
    assert raw.create(100)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_a_zygote_killed_at_any_moment_of_its_start_costs_the_creates_that_wait_for_it(raw: RawWarden, delay: float):
    limits = SPEC.limits.to_mapping()
    raw.say(ref=1, do="create", template="python", limits=limits)
    raw.say(ref=2, do="create", template="python", limits=limits)
    deadline = time.monotonic() + BOUND
    while not children(raw.process.pid):
        assert time.monotonic() < deadline
    time.sleep(delay)
    os.kill(children(raw.process.pid)[0], signal.SIGKILL)
    for reference in (1, 2):
        said = raw.hear()
        if reference == 2 and said.get("created") == 2:
            break  # it was read after the zygote's end, and so another was begun for it
        assert (said.get("failed"), said.get("code")) == (reference, "sandbox_start_failed"), said
    assert raw.create(3)


def test_commands_for_sandboxes_whose_zygote_was_just_killed_harm_nobody(raw: RawWarden):
    """The warden hears of them before it hears of the zygote's end."""
    names = [raw.create(number) for number in range(1, 4)]
    zygote = zygote_of(raw.process.pid)
    os.kill(raw.process.pid, signal.SIGSTOP)
    for name in names * 10:
        raw.say(ref=0, do="interrupt", id=name)
        raw.say(ref=0, do="attach", id=name)
    raw.say(ref=7, do="create", template="python", limits=SPEC.limits.to_mapping())
    os.kill(zygote, signal.SIGKILL)
    deadline = time.monotonic() + BOUND
    while not is_gone(zygote):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(raw.process.pid, signal.SIGCONT)
    ended: set[object] = set()
    while len(ended) < len(names):
        said = raw.hear()
        if "died" in said:
            ended.add(said["died"])
    raw.say(ref=9, do="create", template="python", limits=SPEC.limits.to_mapping())
    while "created" not in raw.hear():
        pass


def test_commands_for_which_no_descriptor_is_left_are_refused_and_end_nobody(raw: RawWarden):
    """The warden once ended over the first of them, and every sandbox with it."""
    name, pid = raw.create(), raw.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    for reference, verb in enumerate(("usage", "attach"), 2):
        said = raw.ask(ref=reference, do=verb, id=name)
        assert (said["failed"], said["code"]) == (reference, "driver_unavailable"), said
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert "attached" in raw.ask(ref=9, do="attach", id=name)


def test_a_driver_that_reads_nothing_for_a_while_holds_nobody_up(raw: RawWarden):
    """As one that is stopped: sandboxes are still watched and cleared away, and every answer waits for it."""
    name = raw.create()
    kernel = kernel_in(name)
    for number in range(3000):
        raw.say(ref=number, do="usage", id=name)
    os.kill(kernel, signal.SIGKILL)
    deadline = time.monotonic() + BOUND
    while names_of_groups(raw.process.pid):
        assert time.monotonic() < deadline, "the warden waits for its driver"
        time.sleep(0.01)
    raw.say(ref=3000, do="list")
    references, died = [], 0
    while True:
        said = raw.hear()
        died += "died" in said
        if "listed" in said:
            break
        if "usage" in said:
            references.append(said["usage"])
        elif "failed" in said:
            references.append(said["failed"])
    assert references == list(range(3000))
    assert died == 1


def test_a_driver_that_hangs_up_ends_everything(raw: RawWarden):
    names = {raw.create(number) for number in range(1, 4)}
    everybody = descendants(raw.process.pid).union(*map(pids_in, names))
    raw.control.close()
    assert raw.process.wait(GONE_SECONDS) == 0
    assert all(map(is_gone, everybody))
    assert names_of_groups(raw.process.pid) == set()
