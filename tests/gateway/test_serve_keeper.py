"""The process that stays, with stand-ins for the gateway: functions that end in every way a gateway can end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cellgate.commands.exits import EndedBySignal, ExitStatus
from cellgate.sandbox.native import commands
from cellgate.serve import keeper
from cellgate.serve.keeper import MAX_FAILURES, Keeper, WardenStarter, is_final, pause_before, serving
from tests.support.child import in_child

BOUND = 10.0


class Diary:
    """What processes that are forked tell each other: lines in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, line: object) -> int:
        """Returns how many times this line was written."""
        with self._path.open("a") as file:
            file.write(f"{line}\n")
        return self.read().count(str(line))

    def read(self) -> list[str]:
        return self._path.read_text().split() if self._path.exists() else []


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


def kept(gateway: Callable[[socket.socket], int], **options) -> object:
    """What a keeper of this gateway returns, or the signal that ended it."""

    def run() -> object:
        try:
            return int(Keeper(gateway, **options).run())
        except EndedBySignal as ended:
            return signal.Signals(ended.number).name

    return in_child(run)


def serve(line: socket.socket) -> None:
    line.send(serving("the stand-in"))


def end_by(number: int) -> int:
    os.kill(os.getpid(), number)
    return 0


def tell_keeper(number: int) -> None:
    os.kill(os.getppid(), number)


def test_a_gateway_that_is_killed_has_a_successor_at_once_and_the_operator_is_told(diary: Diary, capfd):
    def gateway(line: socket.socket) -> int:
        serve(line)
        if diary.write("served") <= 3:
            return end_by(signal.SIGKILL)
        return 0

    began = time.monotonic()
    assert kept(gateway, on_serving=lambda pid, about: diary.write(about.replace(" ", "-"))) == ExitStatus.OK
    assert time.monotonic() - began < BOUND
    assert diary.read().count("served") == 4
    assert diary.read().count("the-stand-in") == 1
    said = capfd.readouterr().err
    assert said.count("cellgate: the gateway was ended by SIGKILL; another takes its place") == 3
    assert said.count("cellgate: the gateway serves again, as process ") == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_keeper_that_was_told_to_end_tells_its_gateway_and_ends_as_it_does(diary: Diary, number: signal.Signals):
    def gateway(line: socket.socket) -> int:
        serve(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        tell_keeper(number)
        signal.sigwait([signal.SIGTERM])
        diary.write("told")
        return 4 if number == signal.SIGHUP else 0

    assert kept(gateway) == (4 if number == signal.SIGHUP else 0)
    assert diary.read() == ["told"]


def test_a_second_signal_ends_everything_at_once(diary: Diary):
    def gateway(line: socket.socket) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        tell_keeper(signal.SIGTERM)
        signal.sigwait([signal.SIGTERM])
        tell_keeper(signal.SIGINT)
        time.sleep(BOUND)
        return diary.write("lived")

    began = time.monotonic()
    assert kept(gateway) == "SIGINT"
    assert time.monotonic() - began < BOUND / 2
    assert diary.read() == []


def test_a_keeper_whose_words_nobody_reads_keeps_on(diary: Diary):
    def gateway(line: socket.socket) -> int:
        serve(line)
        return end_by(signal.SIGKILL) if diary.write("served") == 1 else 0

    def run() -> int:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, sys.stderr.fileno())
        return Keeper(gateway, on_serving=lambda pid, about: sys.stderr.write("greeting")).run()  # type: ignore[arg-type]

    assert in_child(run) == ExitStatus.OK
    assert diary.read() == ["served", "served"]


def test_a_server_under_nohup_outlives_its_terminal():
    def gateway(line: socket.socket) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        tell_keeper(signal.SIGHUP)
        tell_keeper(signal.SIGTERM)
        signal.sigwait([signal.SIGTERM])
        return 0

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert kept(gateway) == ExitStatus.OK  # had it listened, the second signal would have been a second one
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_gateway_that_does_not_end_is_killed(monkeypatch, capfd):
    monkeypatch.setattr(keeper, "END_SECONDS", 0.2)

    def gateway(line: socket.socket) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell_keeper(signal.SIGTERM)
        time.sleep(BOUND)
        return 0

    assert kept(gateway) == ExitStatus.FAILED
    assert "the gateway has not ended within 0.2 s, and is killed" in capfd.readouterr().err


def test_gateways_that_die_before_they_serve_are_given_up(diary: Diary, monkeypatch, capfd):
    monkeypatch.setattr(keeper, "_PAUSE_SECONDS", 0.01)

    def gateway(line: socket.socket) -> int:
        diary.write("began")
        return end_by(signal.SIGUSR1)

    assert kept(gateway) == ExitStatus.FAILED
    assert diary.read() == ["began"] * MAX_FAILURES
    assert f"{MAX_FAILURES} gateways in a row died before they served; this one was ended by SIGUSR1" in (
        capfd.readouterr().err
    )


def test_a_keeper_that_waits_before_the_next_start_can_be_told_to_end(monkeypatch):
    monkeypatch.setattr(keeper, "_PAUSE_SECONDS", 2 * BOUND)
    monkeypatch.setattr(keeper, "_LONGEST_PAUSE_SECONDS", 2 * BOUND)

    def gateway(line: socket.socket) -> int:
        if os.fork() == 0:  # who tells the keeper when the gateway is gone
            parent = os.getppid()
            keeper_pid = int(Path(f"/proc/{parent}/stat").read_text().split()[3])
            while os.path.exists(f"/proc/{parent}"):  # until the keeper has reaped it
                time.sleep(0.01)
            os.kill(keeper_pid, signal.SIGTERM)
            os._exit(0)
        time.sleep(0.1)
        return end_by(signal.SIGUSR1)

    began = time.monotonic()
    assert kept(gateway) == ExitStatus.OK
    assert time.monotonic() - began < BOUND


def test_settings_that_change_while_no_gateway_lives_cost_no_time_and_no_gateway(diary: Diary, monkeypatch, capfd):
    monkeypatch.setattr(keeper, "_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(keeper, "END_SECONDS", 1.0)

    def gateway(line: socket.socket) -> int:
        if os.fork() == 0:  # who tells the keeper when the gateway is gone
            parent = os.getppid()
            keeper_pid = int(Path(f"/proc/{parent}/stat").read_text().split()[3])
            while os.path.exists(f"/proc/{parent}"):
                time.sleep(0.01)
            os.kill(keeper_pid, signal.SIGHUP)
            os._exit(0)
        time.sleep(0.1)
        return end_by(signal.SIGKILL)

    def renewed(line: socket.socket) -> int:
        diary.write("renewed")
        time.sleep(1.5)  # longer than one that was told to end may live
        return ExitStatus.OK

    assert kept(gateway, renew=lambda: renewed) == ExitStatus.OK
    assert diary.read() == ["renewed"]
    assert "has not ended" not in capfd.readouterr().err


def test_settings_that_change_again_while_a_gateway_ends_count_too(diary: Diary):
    def gateway(line: socket.socket) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        tell_keeper(signal.SIGHUP)
        signal.sigwait([signal.SIGHUP])
        tell_keeper(signal.SIGHUP)
        deadline = time.monotonic() + BOUND / 2
        while "read-2" not in diary.read() and time.monotonic() < deadline:
            time.sleep(0.01)
        return ExitStatus.OK

    def renew() -> Callable[[socket.socket], int]:
        number = diary.write("read-1") if "read-1" not in diary.read() else diary.write("read-2") + 1
        return lambda line: diary.write(f"gateway-{number}") and ExitStatus.OK

    assert kept(gateway, renew=renew) == ExitStatus.OK
    assert diary.read() == ["read-1", "read-2", "gateway-2"]


@pytest.mark.parametrize("ends_sessions", [True, False])
def test_an_end_that_is_told_while_a_gateway_makes_room_for_another_ends_sessions_if_it_should(
    diary: Diary, ends_sessions: bool
):
    """The one that made room had kept them, as it was told, and nobody was left to end them."""

    def gateway(line: socket.socket) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        tell_keeper(signal.SIGHUP)
        signal.sigwait([signal.SIGHUP])
        tell_keeper(signal.SIGTERM)
        return ExitStatus.OK

    def renewed(line: socket.socket) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        serve(line)
        signal.sigwait([signal.SIGTERM])
        diary.write("ended")
        return ExitStatus.OK

    assert kept(gateway, renew=lambda: renewed, ends_sessions=ends_sessions) == ExitStatus.OK
    assert diary.read() == ["ended"] * ends_sessions


def test_a_gateway_that_fails_to_begin_is_not_begun_again(diary: Diary, capfd):
    def gateway(line: socket.socket) -> int:
        diary.write("began")
        raise RuntimeError("a bug")

    assert kept(gateway) == ExitStatus.FAILED
    assert diary.read() == ["began"]
    assert "RuntimeError: a bug" in capfd.readouterr().err


def test_nobody_new_is_let_in_once_the_end_was_told():
    def gateway(line: socket.socket, listening: socket.socket) -> int:
        address = listening.getsockname()
        listening.close()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        tell_keeper(signal.SIGTERM)
        signal.sigwait([signal.SIGTERM])
        deadline = time.monotonic() + BOUND
        while time.monotonic() < deadline:
            try:
                socket.create_connection(address).close()
            except ConnectionRefusedError:
                return ExitStatus.OK
        return ExitStatus.USAGE

    def run() -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        return Keeper(lambda line: gateway(line, listening), sockets=[listening]).run()

    assert in_child(run) == ExitStatus.OK


# -- the warden ------------------------------------------------------------------------------------------


class StandIn:
    """In place of `start_warden`: says what it is to say when `go` is called."""

    def __init__(self, word: bytes) -> None:
        self.started = 0
        self._word = word

    def __call__(self, path: str, uid: int | None, images: Path | None) -> socket.socket:
        self.started += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if self._word:
                theirs.send(self._word)
        return ours


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        (b'{"hello":1}', {}),
        (b'{"unavailable":"driver_unavailable","facts":{}}', {"unavailable": "driver_unavailable", "facts": {}}),
        (b"", {"unavailable": "driver_unavailable"}),
    ],
    ids=["it comes", "it cannot", "it dies"],
)
def test_whoever_asks_for_a_warden_was_told_when_it_is_there_or_why_not(
    tmp_path: Path, monkeypatch, word: bytes, answer: dict[str, object]
):
    stand_in = StandIn(word)
    monkeypatch.setattr(keeper, "start_warden", stand_in)

    def gateway(line: socket.socket) -> int:
        line.send(keeper.WARDEN)
        line.send(keeper.WARDEN)  # one who asks again while it is being started starts no other
        said = commands.unpack(line.recv(1 << 16))
        return 0 if answer.items() <= said.items() else 2

    assert kept(gateway, warden=WardenStarter(str(tmp_path / "socket"), None)) == 0


# -- what is decided -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "was_told", "has_served", "final"),
    [
        (0, False, True, True),  # somebody told the gateway itself
        (0, True, True, True),
        (-9, False, True, False),
        (-9, False, False, False),
        (-9, True, True, True),
        (2, False, False, True),  # another server works in its directory
        (2, False, True, True),
        (4, False, False, True),  # there is no driver here
        (4, False, True, False),
        (1, False, True, False),
    ],
)
def test_a_successor_is_started_where_it_may_fare_better(code: int, was_told: bool, has_served: bool, final: bool):
    assert is_final(code, was_told=was_told, has_served=has_served) is final


def test_the_pauses_grow_with_the_failures_and_a_gateway_that_lived_costs_none():
    pauses = [pause_before(failures, 0.0) for failures in range(MAX_FAILURES + 1)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, None]
    assert pause_before(0, 0.4) == pytest.approx(0.1)
    assert pause_before(0, 3600.0) == 0.0


def test_what_a_gateway_says_of_itself_reaches_the_terminal_as_one_plain_line():
    assert serving("native\x1b[2J\nroot").isascii()
    assert not any(byte < 0x20 for byte in serving("native\x1b[2J\nroot"))
