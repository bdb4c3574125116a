"""Brings a SQLite file of ours to the tables that this version uses, whichever version wrote it.

What a file's tables have become is a table itself: a `Schema` has a step for each version, of which the first makes
the tables and each further one changes those of the version before. A file says its version in `user_version`. Before
the steps are taken the file is copied as it is, beside it; they are taken together or not at all. A file that a newer
version wrote is left alone, in words: a server that is set back must not take its state for damaged.

Knows no table; whose files these are, and what becomes of one that cannot be read, is for `registry`, `scripts` and
`tokens`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cellgate.errors import NewerState

__all__ = ["Schema", "bring_up", "copy_path"]


@dataclass(frozen=True)
class Schema:
    """A step is statements, each of which SQLite takes by itself."""

    steps: tuple[tuple[str, ...], ...]
    application: int = 0  # SQLite's application_id, so that no other program's file is taken for ours

    @property
    def version(self) -> int:
        return len(self.steps)


def copy_path(path: Path, version: int) -> Path:
    """Where a file is kept as it was in this version, when a later one has changed its tables."""
    return path.with_name(f"{path.name}.version-{version}")


def bring_up(connection: sqlite3.Connection, schema: Schema, path: Path) -> None:
    """Take the steps that are missing; `path` is the connection's file. Raises NewerState; sqlite3.Error for a file
    that is not ours, or a disk that refuses."""
    connection.execute("BEGIN IMMEDIATE")  # whoever opens it beside us waits, and finds it brought up
    try:
        version = _version(connection, schema, path)
        if 0 < version < schema.version:
            _copy(path, copy_path(path, version))
        for step in schema.steps[version:]:
            for statement in step:
                connection.execute(statement)
        if version < schema.version:
            connection.execute(f"PRAGMA application_id={schema.application}")
            connection.execute(f"PRAGMA user_version={schema.version}")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _version(connection: sqlite3.Connection, schema: Schema, path: Path) -> int:
    """Of its tables; 0 for a new file."""
    application, version, tables = (
        int(connection.execute(asked).fetchone()[0])
        for asked in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    is_ours = application == schema.application if version else not application and not tables
    if not is_ours or version < 0:
        raise sqlite3.DatabaseError(f"application {application:#x}, version {version}, {tables} tables")
    if version > schema.version:
        raise NewerState(str(path), version, schema.version)
    return version


def _copy(path: Path, kept: Path) -> None:
    """As it is now. A copy that is there already is of a change that was not finished: made anew."""
    kept.unlink(missing_ok=True)
    kept.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(kept)) as target:
        source.backup(target)
