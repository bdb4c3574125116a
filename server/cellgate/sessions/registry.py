"""The sessions that exist, in SQLite: what must be known of each before its journal is opened.

One gateway at a time: a lock on a file beside the database, held by the process, so that it goes with it however that
ends. A database that cannot be read is put aside and a new one begun; the journals are not touched by that, and the
sandboxes that nobody knows any more are ended by the recovery.

Leaves to others what the states mean and when they change; makes no decision.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

from cellgate.errors import StateDirectoryInUse
from cellgate.schema import Schema, bring_up
from cellgate.sessions.states import State

__all__ = ["SCHEMA", "Registry", "SessionRow", "put_aside"]

APPLICATION = 0x43454C47  # "CELG"
BUSY_SECONDS = 2.0  # somebody may look into the file with a tool

_TABLE = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    sandbox_id TEXT NOT NULL,
    created REAL NOT NULL,
    created_monotonic REAL NOT NULL,
    boot_id TEXT NOT NULL
) WITHOUT ROWID
"""
SCHEMA = Schema(((_TABLE,),), application=APPLICATION)
_ALL = "SELECT * FROM sessions ORDER BY created_monotonic, id"


@dataclass(frozen=True)
class SessionRow:
    """One session. `spec` is what it was asked for with, as JSON has it."""

    id: str
    principal: str
    spec: Mapping[str, object] = field(default_factory=dict)
    state: State = State.STARTING
    incarnation: int = 0
    sandbox_id: str = ""  # "" when it has none
    created: float = 0.0  # seconds since 1970: for people, decides nothing
    created_monotonic: float = 0.0  # on this host's monotonic clock, which a new gateway shares until the next boot
    boot_id: str = ""


class Registry:
    """Made by `open`; whoever did owes a `close`. Each call is a transaction of its own, and safe against the death
    of this process once it has returned. Raises sqlite3.Error when the disk refuses."""

    def __init__(self, connection: sqlite3.Connection, lock: int, quarantined: Path | None) -> None:
        self._connection = connection
        self._lock = lock
        self.quarantined = quarantined  # where an unreadable predecessor was put

    @staticmethod
    def open(directory: Path) -> Registry:
        """The registry of this state directory, which is made if it is not there. Raises StateDirectoryInUse,
        NewerState, or OSError when nothing can be written there."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateDirectoryInUse(str(directory)) from None
            path = directory / "sessions.sqlite"
            quarantined = None
            try:
                connection = _connect(path)
            except _Unreadable:
                quarantined = put_aside(path)
                connection = _connect(path)
        except BaseException:
            os.close(lock)
            raise
        return Registry(connection, lock, quarantined)

    def close(self) -> None:
        """Let go of the file and the lock. Does nothing twice."""
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def add(self, row: SessionRow) -> None:
        """Raises sqlite3.IntegrityError for an id that is there."""
        with self._connection:
            self._connection.execute("INSERT INTO sessions VALUES (?,?,?,?,?,?,?,?,?)", _values(row))

    def update(self, session_id: str, *, state: State, incarnation: int, sandbox_id: str) -> None:
        """What a session's Save says. Does nothing for one that is forgotten."""
        with self._connection:
            self._connection.execute(
                "UPDATE sessions SET state = ?, incarnation = ?, sandbox_id = ? WHERE id = ?",
                (state.value, incarnation, sandbox_id, session_id),
            )

    def rewrite(self, session_id: str, spec: Mapping[str, object]) -> None:
        """It is asked for differently now. Does nothing for one that is forgotten."""
        with self._connection:
            self._connection.execute("UPDATE sessions SET spec = ? WHERE id = ?", (json.dumps(dict(spec)), session_id))

    def forget(self, session_id: str) -> None:
        """When nothing of it is left. Does nothing twice."""
        with self._connection:
            self._connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))

    def rows(self) -> list[SessionRow]:
        """All of them, oldest first. One that makes no sense has the state GONE, so that what is left of it is
        cleared away."""
        return [_row(values) for values in self._connection.execute(_ALL).fetchall()]


class _Unreadable(Exception):
    """No database, or not ours."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")  # a damaged row costs no other
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        # What is committed survives the death of the process; a power failure may take the last of it, and with it
        # all sandboxes. A flush per session would cost more than a session's start.
        connection.execute("PRAGMA synchronous=NORMAL")
        bring_up(connection, SCHEMA, path)
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise _Unreadable("quick_check")
        connection.execute(_ALL).fetchall()
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error) or "readonly" in str(error) or "disk" in str(error):
            raise OSError(f"{path}: {error}") from error  # the file may be good: no reason to put it aside
        raise _Unreadable(str(error)) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter: sqlite3 quotes what is damaged
        connection.close()
        raise _Unreadable(str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def put_aside(path: Path) -> Path:
    """Rename the database and what belongs to it; the first free name is taken."""
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _values(row: SessionRow) -> tuple[object, ...]:
    spec = json.dumps(dict(row.spec))
    return (
        *(row.id, row.principal, spec, row.state.value, row.incarnation, row.sandbox_id),
        *(row.created, row.created_monotonic, row.boot_id),
    )


def _row(values: tuple[object, ...]) -> SessionRow:
    names = [column.name for column in fields(SessionRow)]
    given = dict(zip(names, values))
    try:
        spec, state = json.loads(str(given["spec"])), State(given["state"])
        if isinstance(spec, dict) and all(isinstance(given[name], wanted) for name, wanted in _TYPES.items()):
            return SessionRow(**(given | {"spec": spec, "state": state}))  # type: ignore[arg-type]  # checked just now
    except ValueError:
        pass
    return SessionRow(str(given["id"]), str(given["principal"]), state=State.GONE, sandbox_id=str(given["sandbox_id"]))


_TYPES: dict[str, type] = {
    **dict.fromkeys(("id", "principal", "sandbox_id", "boot_id"), str),
    **dict.fromkeys(("created", "created_monotonic"), float),
    "incarnation": int,
}
