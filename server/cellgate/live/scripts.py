"""Code that people and agents keep under a name, with its former versions, in SQLite.

A script is described by its docstring, which is read and never executed. Leaves to others who may save, and what
becomes of a script that is run.
"""

from __future__ import annotations

import ast
import difflib
import io
import logging
import re
import sqlite3
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellgate.errors import StorageFull, UnknownScript, UsageError
from cellgate.schema import Schema, bring_up
from cellgate.sessions.registry import put_aside

__all__ = [
    "MAX_CODE_BYTES",
    "MAX_SCRIPTS",
    "MAX_VERSIONS",
    "SCHEMA",
    "SCRIPT_NAME",
    "Script",
    "Scripts",
    "describe",
    "diff_of",
]

log = logging.getLogger("cellgate.live")

SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
MAX_SCRIPTS = 1000  # of one principal; more than somebody finds again by name
MAX_VERSIONS = 100  # of one script; the oldest goes when there are more
MAX_CODE_BYTES = 256 << 10  # of one version; 8,000 lines
MAX_BYTES = 64 << 20  # of all code of one principal, former versions included
MAX_DESCRIPTION_CHARS = 1000  # it stands in lists
MAX_HEAD_CHARS = 16 << 10  # in which a docstring begins and ends; comments may come before it
MAX_COMPARED_LINES = 500  # of what differs in two versions: matching takes up to the cube of it
BUSY_SECONDS = 2.0  # somebody may look into the file with a tool
_PASSING = ("locked", "readonly", "disk", "unable to open")  # as SQLite says of the host, and not of the file

_TABLE = """
CREATE TABLE versions (
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    kernel TEXT NOT NULL,
    description TEXT NOT NULL,
    created REAL NOT NULL,
    code TEXT NOT NULL,
    PRIMARY KEY (principal, name, version)
) WITHOUT ROWID
"""
# How much there is of a principal's is told by the index alone: all code may be 64 MiB, which would have to be read.
_SIZES = (
    "ALTER TABLE versions ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
    "UPDATE versions SET size = length(CAST(code AS BLOB))",
    "CREATE INDEX sizes ON versions (principal, name, size)",
)
SCHEMA = Schema(((_TABLE,), _SIZES))
_HEAD = "name, version, kernel, description, created"
_COLUMNS = f"{_HEAD}, code"


@dataclass(frozen=True)
class Script:
    """One version of it."""

    name: str
    version: int
    kernel: str  # the kernelspec it is run with
    description: str
    created: float  # seconds since 1970
    code: str


class Scripts:
    """All scripts of one server. Made by `open`; whoever did owes a `close`. Each call is a transaction of its own.
    Raises StorageFull when the disk refuses."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @staticmethod
    def open(path: Path) -> Scripts:
        """The file is made if it is not there. One that cannot be read is put aside, and a new one begun: what it held
        may be saved by whoever has the tools. Raises NewerState; StorageFull for one that may be good and cannot be
        read now."""
        try:
            return Scripts(_connect(path))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and any(word in str(error) for word in _PASSING):
                raise StorageFull(f"{path}: {error}") from error
            aside = put_aside(path)
            log.error("the scripts in %s could not be read (%s); the file is put aside as %s", path, error, aside.name)
            return Scripts(_connect(path))

    def close(self) -> None:
        self._connection.close()

    def save(self, principal: str, name: str, code: str, *, kernel: str, now: float) -> tuple[Script, bool]:
        """Its newest version now, and whether that is new: what is there already is not kept twice. Raises UsageError
        when it would be too much."""
        newest = self._find(principal, name)
        if newest is not None and (newest.code, newest.kernel) == (code, kernel):
            return newest, False
        size = len(code.encode())
        self._check_room(principal, size, is_first=newest is None)
        version = newest.version + 1 if newest else 1
        script = Script(name, version, kernel, describe(code), now, code)
        values = (principal, name, version, kernel, script.description, now, code, size)
        oldest = (principal, name, version - MAX_VERSIONS)
        with _as_full(), self._connection:
            self._connection.execute("INSERT INTO versions VALUES (?,?,?,?,?,?,?,?)", values)
            self._connection.execute("DELETE FROM versions WHERE principal=? AND name=? AND version<=?", oldest)
        return script, True

    def newest(self, principal: str) -> list[Script]:
        """Of each script, by name; without its code."""
        rows = self._rows(
            "SELECT name, max(version), kernel, description, created, '' FROM versions WHERE principal=? GROUP BY name",
            (principal,),
        )
        return [Script(*row) for row in rows]

    def versions(self, principal: str, name: str) -> list[Script]:
        """That are kept, newest first; without their code. Raises UnknownScript."""
        rows = self._rows(
            f"SELECT {_HEAD}, '' FROM versions WHERE principal=? AND name=? ORDER BY version DESC", (principal, name)
        )
        found = [Script(*row) for row in rows]
        if not found:
            raise UnknownScript(name)
        return found

    def get(self, principal: str, name: str, version: int | None = None) -> Script:
        """That version, or the newest. Raises UnknownScript."""
        script = self._find(principal, name, version)
        if script is None:
            raise UnknownScript(name, version)
        return script

    def delete(self, principal: str, name: str) -> None:
        """With all its versions. Raises UnknownScript."""
        with _as_full(), self._connection:
            done = self._connection.execute("DELETE FROM versions WHERE principal=? AND name=?", (principal, name))
        if not done.rowcount:
            raise UnknownScript(name)

    def _find(self, principal: str, name: str, version: int | None = None) -> Script | None:
        asked = f"SELECT {_COLUMNS} FROM versions WHERE principal=? AND name=? AND version=ifnull(?, version)"
        rows = self._rows(f"{asked} ORDER BY version DESC LIMIT 1", (principal, name, version))
        return Script(*rows[0]) if rows else None

    def _check_room(self, principal: str, size: int, *, is_first: bool) -> None:
        ((scripts, taken),) = self._rows(
            "SELECT count(DISTINCT name), ifnull(sum(size), 0) FROM versions WHERE principal=?", (principal,)
        )
        if is_first and scripts >= MAX_SCRIPTS:
            raise UsageError(f"you have {scripts} scripts, which is all you may have; deleting one makes room")
        if taken + size > MAX_BYTES:
            raise UsageError(
                f"your scripts and their versions would have {taken + size} bytes; up to {MAX_BYTES} would pass, so "
                "that deleting one makes room"
            )

    def _rows(self, query: str, values: Sequence[object]) -> list[Any]:
        with _as_full():
            return self._connection.execute(query, values).fetchall()


@contextmanager
def _as_full() -> Iterator[None]:
    """What a disk refuses is told so."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFull(str(error)) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=WAL")
        bring_up(connection, SCHEMA, path)
        connection.execute(f"SELECT {_COLUMNS}, size FROM versions LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


# -- pure ----------------------------------------------------------------------------------------------


def describe(code: str) -> str:
    """The docstring of Python code, cleaned and cut; "" without one. Reads no further than to its end: to parse all
    of a large file would keep everybody waiting."""
    lines = io.StringIO(code[:MAX_HEAD_CHARS]).readline
    words: list[str] = []
    try:
        for token in tokenize.generate_tokens(lines):
            if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING):
                continue
            if token.type != tokenize.STRING:
                ends = token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) or token.string == ";"
                break
            words.append(token.string)
        else:
            return ""
        parts = [ast.literal_eval(word) for word in words] if ends else []
    except (tokenize.TokenError, SyntaxError, ValueError, MemoryError, RecursionError):
        return ""
    text = "".join(part for part in parts if isinstance(part, str))
    lines_of_it = [line.strip() for line in text.strip().splitlines()]
    shown = "\n".join(lines_of_it)[:MAX_DESCRIPTION_CHARS]
    return "".join(char for char in shown if char.isprintable() or char == "\n")


def diff_of(before: Sequence[str], after: Sequence[str], names: tuple[str, str]) -> str:
    """As `diff -u` would tell how the lines differ. What is alike at both ends is left out of the comparison, and what
    is too long to be compared is shown as replaced in one piece."""
    most = min(len(before), len(after))
    head = next((at for at in range(most) if before[at] != after[at]), most)
    tail = next((at for at in range(most - head) if before[-1 - at] != after[-1 - at]), most - head)
    middles = before[head : len(before) - tail], after[head : len(after) - tail]
    if max(map(len, middles)) <= MAX_COMPARED_LINES:
        context = 3
        begin, end = max(head - context, 0), max(tail - context, 0)
        former, latter = before[begin : len(before) - end], after[begin : len(after) - end]
        told = list(difflib.unified_diff(former, latter, *names, lineterm=""))
        return "\n".join(told[:2] + [_moved(line, begin) for line in told[2:]])
    hunk = f"@@ -{head + 1},{len(middles[0])} +{head + 1},{len(middles[1])} @@"
    shown = [f"-{line}" for line in middles[0]] + [f"+{line}" for line in middles[1]]
    return "\n".join([f"--- {names[0]}", f"+++ {names[1]}", hunk, *shown])


def _moved(line: str, by: int) -> str:
    """A hunk's head with the lines before it counted."""
    if not line.startswith("@@ "):
        return line
    ranges = [part[1:].split(",") for part in line.split()[1:3]]
    minus, plus = (",".join([str(int(first) + by), *count]) for first, *count in ranges)
    return f"@@ -{minus} +{plus} @@"
