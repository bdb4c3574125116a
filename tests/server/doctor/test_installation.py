"""What `cellgate doctor --installation` says of installations that are in order, and of what is not."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import sqlite3
import stat
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cellgate.cli import main
from cellgate.doctor import installation
from cellgate.doctor.installation import CHECKS, Check, State, look_over, render_checks, worst_state
from cellgate.serve.places import Places, prepare
from cellgate.sessions.registry import Registry
from cellgate.settings import Settings, read_settings


@pytest.fixture
def places(tmp_path: Path) -> Places:
    tmp_path.chmod(0o755)
    return prepare(tmp_path / "state", None)


@pytest.fixture
def settings(places: Places) -> Settings:
    given = {"state_dir": str(places.top), "port": "0", "driver": "process", "profile": "testing"}
    return read_settings(flags=given, environ={}, file={})


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch):
    """The directory is its maker's own, also for root."""
    monkeypatch.setattr(installation, "as_gateway", nullcontext)


def test_an_installation_that_is_in_order_is_said_to_be(settings: Settings):
    found = look_over(settings)
    assert list(found) == list(CHECKS)
    failed = {name: check.seen for name, check in found.items() if check.state is State.FAIL}
    assert not failed


def test_all_lines_are_told_to_people_and_to_programs(settings: Settings, capsys, monkeypatch):
    monkeypatch.setenv("CELLGATE_PORT", "0")  # whoever else uses the default one
    status = main(["doctor", "--installation", "--state-dir", str(settings.state_dir)])
    text = capsys.readouterr().out
    assert all(f" {name} " in text for name in CHECKS)
    assert status == main(["doctor", "--installation", "--json", "--state-dir", str(settings.state_dir)])
    spoken = json.loads(capsys.readouterr().out)
    assert (spoken["exit_status"], list(spoken["checks"])) == (status, list(CHECKS))


def break_mode(places: Places) -> None:
    places.top.chmod(0o777)


def break_tokens(places: Places) -> None:
    places.tokens.touch()
    places.tokens.chmod(0o644)


def break_registry(places: Places) -> None:
    (places.gateway / "sessions.sqlite").write_bytes(b"no database" * 1000)


def close_registry(places: Places) -> None:
    """As somebody else's file is, for who is not root: what nobody can open."""
    os.mknod(places.gateway / "sessions.sqlite", stat.S_IFSOCK | 0o600)


def break_version(places: Places) -> None:
    Registry.open(places.gateway).close()
    with closing(sqlite3.connect(places.gateway / "sessions.sqlite")) as connection:
        connection.execute("PRAGMA user_version=99")


@pytest.mark.parametrize(
    ("check", "breaks", "seen", "remedy"),
    [
        ("state directory", break_mode, "others may write", "chmod go-w"),
        ("tokens", break_tokens, "open to others (644)", "chmod 640"),
        ("registry", break_registry, "sessions.sqlite", "restore a backup"),
        ("registry", close_registry, "unable to open", "give it to the user"),
        ("registry", break_version, "is of version 99", "this one knows 1"),
    ],
)
def test_a_state_directory_that_is_not_in_order_is_told_with_what_to_do(
    settings: Settings, places: Places, check: str, breaks, seen: str, remedy: str
):
    assert CHECKS[check](settings, places).state is State.OK
    breaks(places)
    found = CHECKS[check](settings, places)
    assert (found.state, seen in found.seen, remedy in found.remedy) == (State.FAIL, True, True), found


def test_a_whole_registry_says_its_version(settings: Settings, places: Places):
    assert CHECKS["registry"](settings, places).seen == "nothing is kept yet"
    Registry.open(places.gateway).close()
    assert CHECKS["registry"](settings, places).seen == "sessions.sqlite whole, version 1"


def test_a_port_that_is_taken_is_told(settings: Settings, places: Places):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = CHECKS["port"](replace(settings, port=taken.getsockname()[1]), places)
    assert (found.state, "is taken" in found.seen) == (State.FAIL, True)


def test_no_room_and_little_room_are_told_apart(settings: Settings, places: Places, monkeypatch):
    for free, state in ((1 << 20, State.FAIL), (1 << 30, State.WARN), (1 << 40, State.OK)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(free))
        assert CHECKS["room"](settings, places).state is state


@pytest.mark.parametrize(
    ("year", "kept", "state", "seen"),
    [
        (2026, 0, State.OK, "2026-01-01T00:00:00Z, kept right"),
        (2026, -1, State.OK, "may not be asked"),
        (2026, installation.CLOCK_IS_FREE, State.WARN, "nothing keeps"),
        (1970, 0, State.FAIL, "it is 1970"),
    ],
)
def test_a_clock_is_right_as_far_as_is_known(
    settings, places, monkeypatch, year: int, kept: int, state: State, seen: str
):
    now = time.strptime(f"{year}", "%Y")
    monkeypatch.setattr(time, "gmtime", lambda: now)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(adjtimex=lambda _: kept))
    found = CHECKS["clock"](settings, places)
    assert (found.state, seen in found.seen) == (state, True), found


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.parametrize(
    ("unit", "state", "seen"),
    [
        (None, State.OK, "no unit"),
        ("ExecStart=/bin/sh serve\nKillMode=process\n", State.OK, "starts /bin/sh"),
        ("ExecStart=/bin/sh serve\n", State.WARN, "no KillMode=process"),
        ("ExecStart=/no/such/program serve\nKillMode=process\n", State.FAIL, "is not there"),
    ],
)
def test_a_unit_of_systemd_is_read(settings: Settings, places: Places, monkeypatch, tmp_path, unit, state, seen):
    monkeypatch.setattr(installation, "UNIT", tmp_path / "cellgate.service")
    if unit is not None:
        (tmp_path / "cellgate.service").write_text(unit)
    found = CHECKS["systemd"](settings, places)
    assert (found.state, seen in found.seen) == (state, True), found


def test_a_check_that_fails_itself_hinders_no_other(settings: Settings, monkeypatch):
    def broken(*_: object) -> Check:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(CHECKS, "room", broken)
    found = look_over(settings)
    assert found["room"].state is State.FAIL
    assert list(found) == list(CHECKS)


def test_the_worst_line_counts_and_what_to_do_stands_below_its_line():
    checks = {"a": Check(State.OK, "fine"), "b": Check(State.WARN, "so-so", "mend it")}
    assert worst_state(list(checks.values())) is State.WARN
    assert render_checks(checks).splitlines() == [
        "ok   a                fine",
        "warn b                so-so",
        "                      → mend it",
    ]
