"""Files of an earlier version are brought up, with a copy of what they were; those of a later one are left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cellgate.errors import NewerState
from cellgate.live.scripts import MAX_BYTES, Scripts
from cellgate.schema import Schema, bring_up, copy_path

FIRST = ("CREATE TABLE things (name TEXT)",)
SECOND = ("ALTER TABLE things ADD COLUMN size INTEGER DEFAULT 0", "UPDATE things SET size = length(name)")
THIRD = ("CREATE INDEX sizes ON things (size)", "DROP TABLE nothing_of_this_name")

# As version 0.1.0 left it: `.dump` of its file, with the two pragmas that a dump leaves out.
SCRIPTS_OF_VERSION_1 = """
PRAGMA user_version=1;
CREATE TABLE versions (
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    kernel TEXT NOT NULL,
    description TEXT NOT NULL,
    created REAL NOT NULL,
    code TEXT NOT NULL,
    PRIMARY KEY (principal, name, version)
) WITHOUT ROWID;
INSERT INTO versions VALUES('ada','daily',1,'python3','Adds.',1.5,'"Adds."');
INSERT INTO versions VALUES('ada','daily',2,'python3','',2.5,'x = ''ä''');
INSERT INTO versions VALUES('bob','daily',1,'bash','',3.5,'ls');
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.sqlite"


def brought_up(path: Path, schema: Schema) -> list[tuple[object, ...]]:
    """What stands in the file afterwards."""
    with closing(sqlite3.connect(path)) as connection:
        bring_up(connection, schema, path)
        return connection.execute("SELECT * FROM things").fetchall()


def write(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_a_new_file_gets_the_tables_of_now_and_leaves_no_copy(path):
    for _ in range(2):
        assert brought_up(path, Schema((FIRST, SECOND), application=7)) == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA application_id").fetchone() == (7,)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_before_is_copied_and_brought_up(path):
    brought_up(path, Schema((FIRST,)))
    write(path, "INSERT INTO things VALUES ('four')")
    before = dump(path)
    assert brought_up(path, Schema((FIRST, SECOND))) == [("four", 4)]
    kept = copy_path(path, 1)
    assert (dump(kept), kept.stat().st_mode & 0o777) == (before, 0o600)


def test_steps_that_fail_change_nothing(path):
    brought_up(path, Schema((FIRST,)))
    before = dump(path)
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="nothing_of_this_name"):
            brought_up(path, Schema((FIRST, SECOND, THIRD)))
    assert dump(path) == before
    assert brought_up(path, Schema((FIRST, SECOND))) == []


def test_a_file_of_a_later_version_is_left_alone_in_words(path):
    brought_up(path, Schema((FIRST, SECOND)))
    before = path.read_bytes()
    with pytest.raises(NewerState, match="are of version 2, and this one knows 1; that version, or a backup") as raised:
        brought_up(path, Schema((FIRST,)))
    assert raised.value.facts() == {"path": str(path), "version": 2, "known": 1}
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "what", ["PRAGMA application_id=7", "CREATE TABLE others (x)", "PRAGMA user_version=-1", "PRAGMA user_version=1"]
)
def test_a_file_of_another_program_is_not_taken_for_ours(path, what):
    write(path, what)
    before = path.read_bytes()
    with pytest.raises(sqlite3.DatabaseError, match="tables"):
        brought_up(path, Schema((FIRST,), application=8))
    assert path.read_bytes() == before


def test_scripts_that_the_version_before_kept_are_all_there_and_their_sizes_known(path):
    write(path, SCRIPTS_OF_VERSION_1)
    scripts = Scripts.open(path)
    assert [script.version for script in scripts.versions("ada", "daily")] == [2, 1]
    assert scripts.get("ada", "daily").code == "x = 'ä'"
    sizes = scripts._connection.execute("SELECT principal, sum(size) FROM versions GROUP BY principal").fetchall()
    assert sizes == [("ada", 7 + 8), ("bob", 2)]
    scripts.close()
    assert copy_path(path, 1).exists()


def test_how_much_is_kept_is_told_without_reading_it(path):
    """A principal may keep 64 MiB of code, and whoever saves one more line waits for the answer, with everybody."""
    scripts = Scripts.open(path)
    asked: list[str] = []
    scripts._connection.set_trace_callback(asked.append)
    scripts.save("ada", "daily", "1", kernel="python3", now=0.0)
    scripts._connection.set_trace_callback(None)
    (sums,) = [statement for statement in asked if "sum(size)" in statement]
    plan = scripts._connection.execute(f"EXPLAIN QUERY PLAN {sums}").fetchall()
    assert "COVERING INDEX sizes" in str(plan), plan
    assert MAX_BYTES == 64 << 20
    scripts.close()
