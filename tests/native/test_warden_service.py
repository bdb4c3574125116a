"""A warden that outlives its drivers: nothing is lost when one is killed, and only one at a time is obeyed."""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from cellgate.errors import CellgateError, DriverUnavailable
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.connection import KernelConnection, each
from cellgate.sandbox.native import commands, door, line, warden
from cellgate.sandbox.native.driver import NativeDriver
from cellgate.wire.jupyter import execute_content, make_message, parse_message
from cellgate_kernel.link import Link
from cellgate_kernel.message import Channel, Status, Tag
from tests.native.seen import BOUND, GONE_SECONDS, SPEC, is_gone, kernel_in, names_of_groups, pids_in
from tests.support.native import skip_without_native
from tests.support.server import until

pytestmark = [pytest.mark.native]

NOBODY = 65534
DRIVER_TO_KILL = Path(__file__).with_name("driver_to_kill.py")


def knock(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(BOUND)
    sock.connect(path)
    return sock


def hear(sock: socket.socket) -> dict[str, object]:
    said: dict[str, object] = json.loads(sock.recv(1 << 16))
    return said


def ask(sock: socket.socket, **command: object) -> dict[str, object]:
    sock.send(json.dumps(command).encode())
    return hear(sock)


def pid_at(path: str) -> int:
    """Of the warden."""
    with knock(path) as sock:
        return door._CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, door._CREDENTIALS.size))[
            0
        ]


@pytest.fixture
def path() -> Iterator[str]:
    """Where a warden may listen; one that does at the end is ended."""
    skip_without_native()
    with tempfile.TemporaryDirectory(prefix="cellgate-test-") as directory:  # short, and others may enter it
        os.chmod(directory, 0o755)
        path = f"{directory}/warden"
        yield path
        if os.path.exists(path):
            with suppress(ConnectionRefusedError):
                pid = pid_at(path)
                os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + BOUND
                while not is_gone(pid):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)


@pytest_asyncio.fixture
async def driver(path: str) -> AsyncIterator[NativeDriver]:
    """The first driver of a persistent warden."""
    driver = await NativeDriver.start(path)
    yield driver
    await driver.close()


def kill_with_its_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass
class Killed:
    """What a driver that was killed has left."""

    sandbox_id: str
    journal: Path

    def numbers(self) -> list[int]:
        return [int(entry.split()[0]) for entry in self.journal.read_text().splitlines()]

    def text(self) -> str:
        return "".join(json.loads(entry.partition(" ")[2]) for entry in self.journal.read_text().splitlines())


async def kill_a_driver(path: str, code: str, messages: int) -> Killed:
    """Have a driver start a warden and run a cell, and kill it, and its process group, when so many have come."""
    journal = Path(f"{path}.journal")
    words = [sys.executable, str(DRIVER_TO_KILL), path, str(journal), code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        killed = Killed(process.stdout.readline().strip(), journal)
        assert killed.sandbox_id
        await until(lambda: len(killed.numbers()) >= messages)
        kill_with_its_group(process)
    return killed


def cell(code: str, msg_id: str):
    return make_message(
        "execute_request", execute_content(code), channel=Channel.SHELL, msg_id=msg_id, session="s", date=""
    )


class Heir:
    """Goes on with a journal."""

    def __init__(self, killed: Killed) -> None:
        self.numbers, self.text = killed.numbers(), killed.text()
        self.idle = asyncio.Event()
        self.msg_id = b"cell"

    def take(self, number: int, tag: Tag, v1: memoryview) -> None:
        self.numbers.append(number)
        if tag.message_type == "stream":
            self.text += parse_message(v1)["content"]["text"]
        if tag.status is Status.IDLE and tag.parent_id == self.msg_id:
            self.idle.set()


# -- a driver is killed ----------------------------------------------------------------------------------


async def test_a_killed_drivers_sandbox_lives_on_and_no_line_is_lost_or_doubled(path: str):
    code = "import time\nkept = 41\nfor i in range(400):\n    print(i, flush=True)\n    time.sleep(0.003)"
    killed = await kill_a_driver(path, code, messages=60)
    driver = await NativeDriver.connect(path)
    (sandbox,) = await driver.sandboxes()
    assert (sandbox.id, sandbox.template, sandbox.limits) == (killed.sandbox_id, SPEC.template, SPEC.limits)
    heir = Heir(killed)
    journalled = heir.numbers[-1]
    assert journalled < 400, "the cell was to be running still"
    link = Link(sent=None, received=journalled)
    with closing(await KernelConnection.open(sandbox, on_messages=each(heir.take), link=link)) as connection:
        await asyncio.wait_for(heir.idle.wait(), BOUND)
        heir.idle.clear()
        heir.msg_id = b"next"
        await connection.send(*cell("print(kept + 1)", "next"))
        await asyncio.wait_for(heir.idle.wait(), BOUND)
    assert heir.text == "".join(f"{i}\n" for i in range(400)) + "42\n"
    assert heir.numbers == list(range(1, len(heir.numbers) + 1))
    assert (await sandbox.destroy()).reason is Reason.SESSION_DELETED
    assert await driver.ended() == []
    await driver.close()


async def test_a_death_while_no_driver_was_there_is_told_until_it_is_acknowledged(path: str):
    code = "import os, time\nprint('soon', flush=True)\ntime.sleep(1)\nos._exit(3)"
    killed = await kill_a_driver(path, code, messages=2)
    pid = pid_at(path)
    await until(lambda: not names_of_groups(pid))
    for _ in range(2):  # the first to hear of it is gone before it could write it down
        driver = await NativeDriver.connect(path)
        assert await driver.sandboxes() == []
        (sandbox,) = await driver.ended()
        certificate = await sandbox.wait()
        assert (sandbox.id, certificate.reason, certificate.exit_code) == (killed.sandbox_id, Reason.KERNEL_EXIT, 3)
        assert certificate.wall_seconds > 1
        await driver.close()
    driver = await NativeDriver.connect(path)
    (sandbox,) = await driver.ended()
    assert await sandbox.destroy() == certificate
    await driver.close()
    driver = await NativeDriver.connect(path)
    assert await driver.ended() == []
    await driver.close()


async def test_what_a_driver_had_killed_and_did_not_hear_of_ends_for_that_reason(path: str, driver: NativeDriver):
    sandbox = await driver.create(SPEC)
    os.kill(pid_at(path), signal.SIGSTOP)
    await sandbox.kill(Reason.TIMEOUT_WALL, "10 s")
    await driver.close()
    os.kill(pid := pid_at(path), signal.SIGCONT)
    await until(lambda: not names_of_groups(pid))
    heir = await NativeDriver.connect(path)
    (ended,) = await heir.ended()
    assert ((await ended.wait()).reason, (await ended.wait()).detail) == (Reason.TIMEOUT_WALL, "10 s")
    await heir.close()


async def test_a_sandbox_that_nobody_waits_for_any_more_is_not_kept(path: str, driver: NativeDriver):
    """Its creator hung up before it was ready: nobody knows its name."""
    pid = pid_at(path)
    with knock(path) as sock:
        hear(sock)
        assert ask(sock, ref=1, do="drive", version=commands.VERSION) == {"driving": 1}
        sock.send(json.dumps({"ref": 2, "do": "create", "template": "python", "limits": {}}).encode())
    heir = await NativeDriver.connect(path)
    assert (
        await (await heir.create(SPEC)).destroy()
    ).reason is Reason.SESSION_DELETED  # begun after it, with its zygote
    await until(lambda: not names_of_groups(pid))
    assert await heir.ended() == await heir.sandboxes() == []
    await heir.close()


# -- one driver at a time --------------------------------------------------------------------------------


async def test_a_newer_driver_takes_the_place_of_the_older_which_can_do_nothing_any_more(
    path: str, driver: NativeDriver
):
    sandbox = await driver.create(SPEC)
    waiting = asyncio.create_task(sandbox.wait())
    newer = await NativeDriver.connect(path)
    assert "another driver has taken its place" in str(await asyncio.wait_for(driver.lost, BOUND))
    for asked in (driver.create(SPEC), sandbox.kill(Reason.OOM), sandbox.attach(), sandbox.interrupt(), waiting):
        with pytest.raises(DriverUnavailable, match="another driver"):
            await asyncio.wait_for(asked, BOUND)
    with pytest.raises(DriverUnavailable):
        await sandbox.destroy()
    (same,) = await newer.sandboxes()
    async with KernelClient(same) as kernel:
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
    await same.destroy()
    await newer.close()


async def test_more_commands_than_a_socket_holds_are_all_obeyed(path: str, driver: NativeDriver):
    """A gateway that took over 300 sessions asked for all their links in one turn of its loop, and lost its driver."""
    sandbox = await driver.create(SPEC)
    usages = await asyncio.gather(*(sandbox.usage() for _ in range(1000)))
    assert all(usage.pids for usage in usages)
    assert not driver.lost.done()
    await sandbox.destroy()


async def test_what_a_fenced_driver_had_sent_is_not_done(path: str, driver: NativeDriver):
    sandbox = await driver.create(SPEC)
    pid = pid_at(path)
    with knock(path) as newer:
        os.kill(pid, signal.SIGSTOP)
        try:
            newer.send(json.dumps({"ref": 1, "do": "drive", "version": commands.VERSION}).encode())
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "hello" in hear(newer)
        assert hear(newer) == {"driving": 1}
        with suppress(DriverUnavailable):
            await sandbox.kill(Reason.OOM)
        assert ask(newer, ref=2, do="usage", id=sandbox.id)["usage"] == 2
    await driver.close()


async def test_a_pool_ends_with_the_driver_that_wanted_it(path: str, driver: NativeDriver):
    pid = pid_at(path)
    await driver.keep_pool(SPEC, 3)
    await until(lambda: len(names_of_groups(pid)) == 3)
    newer = await NativeDriver.connect(path)
    await until(lambda: not names_of_groups(pid))
    await newer.keep_pool(SPEC, 1)
    await until(lambda: len(names_of_groups(pid)) == 1)
    await newer.close()


async def test_a_driver_of_another_version_gets_a_clear_error_and_disturbs_nobody(
    path: str, driver: NativeDriver, monkeypatch
):
    sandbox = await driver.create(SPEC)
    with knock(path) as sock:
        assert hear(sock)["hello"] == commands.VERSION
        refusal = ask(sock, ref=1, do="drive", version=99)
        assert (refusal["failed"], refusal["code"]) == (1, "driver_unavailable")
        assert "this driver 99" in str(refusal["facts"])
        for command in ({"do": "kill", "id": sandbox.id, "reason": "oom", "detail": ""}, {"do": "shutdown"}):
            assert ask(sock, ref=2, **command)["code"] == "usage"
    monkeypatch.setattr("cellgate.sandbox.native.driver.VERSION", 99)
    with pytest.raises(DriverUnavailable, match="speaks version 1 and this driver 99"):
        await NativeDriver.connect(path)
    assert not driver.lost.done()
    assert (await sandbox.usage()).pids >= 1
    await sandbox.destroy()


async def test_those_that_connect_and_say_nothing_keep_nobody_out(path: str, driver: NativeDriver):
    sandbox = await driver.create(SPEC)
    silent = []
    for _ in range(40):
        silent.append(knock(path))
        assert "hello" in hear(silent[-1])
    newer = await NativeDriver.connect(path)
    assert [known.id for known in await newer.sandboxes()] == [sandbox.id]
    for sock in silent:
        sock.close()
    await newer.close()


# -- who may come in, and where --------------------------------------------------------------------------


def as_uid(uid: int, do: Callable[[], str]) -> str:
    """What another user gets."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writing, do().encode())
        except BaseException as error:
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def first_words(path: str) -> str:
    with knock(path) as sock:
        return json.dumps(hear(sock))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else: root shows it")
async def test_another_user_is_refused_by_the_file_and_by_the_kernels_word(path: str, driver: NativeDriver):
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert as_uid(NOBODY, lambda: first_words(path)) == "PermissionError"
    os.chmod(path, 0o666)
    refusal = json.loads(as_uid(NOBODY, lambda: first_words(path)))
    assert refusal["unavailable"] == "driver_unavailable"
    assert f"not for uid {NOBODY}" in str(refusal["facts"])
    assert not driver.lost.done()
    assert "hello" in first_words(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else: root shows it")
async def test_the_user_that_a_warden_was_started_for_may_drive_it(path: str):
    driver = await NativeDriver.start(path, uid=NOBODY)
    assert (os.stat(path).st_uid, os.stat(path).st_mode & 0o777) == (NOBODY, 0o600)
    assert "hello" in as_uid(NOBODY, lambda: first_words(path))
    assert as_uid(NOBODY - 1, lambda: first_words(path)) == "PermissionError"
    await driver.close()


async def test_a_second_warden_at_the_same_path_is_refused(path: str, driver: NativeDriver):
    with pytest.raises(DriverUnavailable, match="a warden is there already"):
        await NativeDriver.start(path)
    assert not driver.lost.done()
    assert await driver.create(SPEC)


async def test_a_socket_that_a_killed_warden_left_is_taken_over(path: str, driver: NativeDriver):
    sandbox = await driver.create(SPEC)
    pid = pid_at(path)
    os.kill(pid, signal.SIGKILL)
    assert (await asyncio.wait_for(sandbox.wait(), GONE_SECONDS)).reason is Reason.SUPERVISOR_LOST
    await until(lambda: is_gone(pid))
    assert os.path.exists(path)
    with pytest.raises(DriverUnavailable, match="no warden answers"):
        await NativeDriver.connect(path)
    second = await NativeDriver.start(path)
    assert await second.sandboxes() == await second.ended() == []
    await (await second.create(SPEC)).destroy()
    await second.close()


async def test_what_is_no_socket_is_not_removed(path: str):
    Path(path).write_text("precious")
    with pytest.raises(DriverUnavailable, match="no socket"):
        await NativeDriver.start(path)
    assert Path(path).read_text() == "precious"
    os.unlink(path)


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("relative/path", "no absolute path"),
        (f"/run/{'x' * 200}", "too long"),
        (f"{sys.base_prefix}/warden", "sandboxes see"),
        ("/nonexistent/warden", "No such file"),
    ],
)
def test_a_door_is_not_opened_where_it_must_not_be(where: str, why: str):
    with pytest.raises(DriverUnavailable, match=why):
        door.open_door(where, os.geteuid(), [os.path.realpath(sys.base_prefix)])


def test_a_door_is_not_opened_where_others_may_put_another(tmp_path: Path):
    tmp_path.chmod(0o777)
    with pytest.raises(DriverUnavailable, match="others may put"):
        door.open_door(f"{tmp_path}/warden", os.geteuid())
    tmp_path.chmod(0o1777)  # as /tmp: what is there stays its owner's
    with door.open_door(f"{tmp_path}/w", os.geteuid()):
        pass


# -- the end ---------------------------------------------------------------------------------------------


async def test_a_shutdown_ends_every_sandbox_says_so_and_leaves_nothing(path: str, driver: NativeDriver):
    pid = pid_at(path)
    await driver.keep_pool(SPEC, 1)
    sandboxes = [await driver.create(SPEC) for _ in range(3)]
    everybody = {pid}.union(*(pids_in(name) for name in names_of_groups(pid)))
    await asyncio.wait_for(driver.shut_down(), BOUND)
    ends = [await sandbox.wait() for sandbox in sandboxes]
    assert {(end.reason, end.detail) for end in ends} == {(Reason.SUPERVISOR_LOST, "the warden ends")}
    await until(lambda: all(map(is_gone, everybody)), GONE_SECONDS)
    assert not names_of_groups(pid)
    assert not os.path.exists(path)
    await driver.close()


@pytest.fixture
def service(path: str) -> Iterator[subprocess.Popen[bytes]]:
    """A warden as an operator's service, that does not linger."""
    words = [sys.executable, "-I", "-m", "cellgate.sandbox.native", "--persist", path, "--linger", "0.5"]
    with subprocess.Popen(words) as process:
        yield process
        process.terminate()


async def connected(path: str) -> NativeDriver:
    """To a warden that is being started."""
    await until(lambda: listens(path))
    return await NativeDriver.connect(path)


def listens(path: str) -> bool:
    """A socket is there a moment before anybody listens at it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(path) == 0


async def test_a_service_ends_when_it_has_long_had_no_driver_and_no_sandbox(
    path: str, service: subprocess.Popen[bytes]
):
    driver = await connected(path)
    await driver.keep_pool(SPEC, 1)  # which keeps nobody from ending
    sandbox = await driver.create(SPEC)
    os.kill(kernel_in(sandbox.id), 0)
    await driver.close()
    await asyncio.sleep(1.0)
    assert service.poll() is None, "it had a sandbox"
    driver = await connected(path)
    (sandbox,) = await driver.sandboxes()
    await sandbox.destroy()
    await asyncio.sleep(1.0)
    assert service.poll() is None, "it had a driver"
    await driver.close()
    await until(lambda: service.poll() is not None)
    assert service.returncode == 0
    assert not os.path.exists(path)


async def test_a_service_that_is_terminated_ends_in_good_order(path: str, service: subprocess.Popen[bytes]):
    driver = await connected(path)
    sandbox = await driver.create(SPEC)
    service.terminate()
    certificate = await asyncio.wait_for(sandbox.wait(), GONE_SECONDS)
    assert (certificate.reason, certificate.signal) == (Reason.SUPERVISOR_LOST, 9)  # the warden's word, not a guess
    await until(lambda: service.poll() is not None)
    assert service.returncode == 0
    assert not os.path.exists(path)
    assert not names_of_groups(service.pid)
    await driver.close()


# -- lines and lists, without a warden -------------------------------------------------------------------


def test_a_driver_that_never_reads_is_let_go_with_a_word_and_takes_no_memory():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[bytes] = []
    with selectors.DefaultSelector() as selector, theirs:
        it = line.Line(ours, selector, lambda _, packet: heard.append(packet))
        for number in range(2 * line.MAX_UNSAID):
            it.say({"usage": number})
        assert (it.is_open, heard) == (False, [b""])
        last: dict[str, object] = {}
        while packet := theirs.recv(1 << 16):
            last = json.loads(packet)
            for key, _ in selector.select(0):
                key.data()
        assert [*last] == ["dismissed"]
        assert not selector.get_map()


def test_a_piece_of_the_list_fits_a_packet_whatever_the_sandboxes_said():
    worst = DeathCertificate(Reason.KERNEL_UNRESPONSIVE, detail="\U0001f600" * 500, memory_peak_bytes=(1 << 63) - 1)
    known = {"id": "w" * 40, "template": "python-data", "limits": SPEC.limits.to_mapping()}
    piece = [{**known, "certificate": worst.to_json()}] * commands.LIST_PIECE
    assert len(commands.pack({"sandboxes": 1 << 40, "known": piece})) <= commands.MAX_PACKET_BYTES


def test_of_too_many_ends_the_oldest_are_forgotten():
    ended: dict[str, dict[str, object]] = {}
    for number in range(10):
        warden.remember(ended, str(number), {}, 3)
    assert list(ended) == ["7", "8", "9"]


def test_shutdown_and_drive_are_commands_like_any_other():
    assert commands.parse_command(b'{"ref":1,"do":"shutdown"}') == (1, commands.Shutdown())
    assert commands.parse_command(b'{"ref":1,"do":"drive","version":1}') == (1, commands.Drive(1))
    for bad in (
        b'{"ref":1,"do":"drive"}',
        b'{"ref":1,"do":"drive","version":true}',
        b'{"ref":1,"do":"drive","version":"1"}',
    ):
        with pytest.raises(CellgateError):
            commands.parse_command(bad)
