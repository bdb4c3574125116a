"""The registry: what a gateway must know of its sessions outlives it, and nothing found there stops the next."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys

import pytest

from cellgate.errors import NewerState, StateDirectoryInUse
from cellgate.sessions.registry import Registry, SessionRow
from cellgate.sessions.states import State


@pytest.fixture
def registry(tmp_path):
    registry = Registry.open(tmp_path / "state")
    yield registry
    registry.close()


def test_what_is_added_is_there_for_the_next_gateway(tmp_path):
    row = SessionRow("s1", "ada", {"template": "python"}, State.STARTING, 1, "", 12.5, 34.5, "boot")
    first = Registry.open(tmp_path)
    first.add(row)
    first.update("s1", state=State.READY, incarnation=2, sandbox_id="box")
    first.close()
    second = Registry.open(tmp_path)
    assert second.rows() == [SessionRow("s1", "ada", {"template": "python"}, State.READY, 2, "box", 12.5, 34.5, "boot")]
    second.forget("s1")
    second.forget("s1")
    assert second.rows() == []
    second.close()


def test_a_second_gateway_on_the_same_directory_is_refused(tmp_path, registry):
    with pytest.raises(StateDirectoryInUse, match="another gateway"):
        Registry.open(tmp_path / "state")


def test_the_lock_goes_with_a_gateway_that_is_killed(tmp_path):
    code = "import sys,os,signal;from pathlib import Path;from cellgate.sessions.registry import *;"
    code += "r=Registry.open(Path(sys.argv[1]));r.add(SessionRow('s1','ada'));os.kill(os.getpid(),signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    registry = Registry.open(tmp_path)
    assert [row.id for row in registry.rows()] == ["s1"], "and what it had added is there"
    registry.close()


def test_an_id_is_given_once(registry):
    registry.add(SessionRow("s1", "ada"))
    with pytest.raises(sqlite3.IntegrityError):
        registry.add(SessionRow("s1", "bob"))


@pytest.mark.parametrize("what", ["text", "torn", "foreign", "columns"])
def test_a_database_that_is_none_is_put_aside(tmp_path, what):
    registry = Registry.open(tmp_path)
    for n in range(200):
        registry.add(SessionRow(f"s{n}", "ada", {"x": "y" * 100}))
    registry.close()
    path = tmp_path / "sessions.sqlite"
    data = path.read_bytes()
    if what == "text":
        path.write_bytes(b"certainly no database, whatever its name may be" * 100)
    elif what == "torn":
        path.write_bytes(data[: len(data) // 2] + os.urandom(4096))
    else:
        connection = sqlite3.connect(path)
        connection.execute({
            "foreign": "PRAGMA application_id=1",
            "columns": "DROP TABLE sessions",
        }[what])  # fmt: skip
        connection.commit()
        connection.close()
    found = path.read_bytes()
    registry = Registry.open(tmp_path)
    assert registry.rows() == []
    assert registry.quarantined.read_bytes() == found, "nothing of it is lost"
    registry.add(SessionRow("s1", "ada"))
    registry.close()
    assert Registry.open(tmp_path).rows()[0].id == "s1"


def test_a_registry_that_a_newer_version_wrote_is_left_alone(tmp_path):
    registry = Registry.open(tmp_path)
    registry.add(SessionRow("s1", "ada"))
    registry._connection.execute("PRAGMA user_version=99")
    registry.close()
    for _ in range(2):
        with pytest.raises(NewerState, match="a newer version of Cellgate"):
            Registry.open(tmp_path)
    assert [path.name for path in tmp_path.glob("sessions.sqlite*")] == ["sessions.sqlite"]


@pytest.mark.parametrize("change", ["state = 'odd'", "spec = '[]'", "spec = '{'", "created = 'x'", "incarnation = 'x'"])
def test_a_row_that_makes_no_sense_is_to_be_cleared_away(registry, change):
    registry.add(SessionRow("s1", "ada", sandbox_id="box", state=State.READY))
    registry.add(SessionRow("s2", "ada", state=State.READY))
    with registry._connection as connection:
        connection.execute(f"UPDATE sessions SET {change} WHERE id = 's1'")
    odd, good = registry.rows()
    assert (odd.id, odd.state, odd.sandbox_id) == ("s1", State.GONE, "box")
    assert (good.id, good.state) == ("s2", State.READY)


def test_a_directory_that_cannot_be_written_is_the_operators_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Registry.open(tmp_path / "file" / "state")


def test_whatever_lies_in_the_file_there_is_a_registry(tmp_path):
    """Also when the library cannot say what it found there, because that is no text."""
    registry = Registry.open(tmp_path / "whole")
    for n in range(20):
        registry.add(SessionRow(f"s{n}", "ada", {"x": "y" * 100}))
    registry.close()
    whole = (tmp_path / "whole" / "sessions.sqlite").read_bytes()
    dice = random.Random(17)
    for n in range(150):
        data = bytearray(whole)
        schema = range(100, len(data)) if n % 2 else range(3900, 4096)  # the text of the schema ends the first page
        for _ in range(dice.choice((1, 20, 500))):
            data[dice.choice(schema)] ^= 1 << dice.randrange(8)
        (tmp_path / "sessions.sqlite").write_bytes(data)
        damaged = Registry.open(tmp_path)
        damaged.rows()
        damaged.close()
