"""The tokens that an operator has made, besides the server's own: whose each is, what it opens, and until when.

    cellgate token create ──▶ TokenStore ──▶ tokens.sqlite ──▶ TokenWatch ──▶ the gateway's Guard

A token is shown once, when it is made. What is kept of it is a hash: it is random and as long as the hash, so that a
plain SHA-256 cannot be reversed by trying. The file belongs to whoever runs the server; the gateway only reads it.
Leaves to the Guard who is let in.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cellgate.access.scopes import Scope, read_scopes, scopes_as_text
from cellgate.errors import CellgateError, StorageFull, UsageError
from cellgate.schema import Schema, bring_up

__all__ = [
    "MAX_NOTE_CHARS",
    "PRINCIPAL",
    "TOKEN",
    "Token",
    "TokenStore",
    "TokenWatch",
    "digest_of",
    "make_token",
    "read_principal",
]

TOKEN = re.compile(r"cg_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")  # with its id, which may be shown
PRINCIPAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")  # a name, or an address of e-mail
SECRET_BYTES = 32  # 2**256 to guess from
MAX_NOTE_CHARS = 200  # what it is for, in a line of a table
BUSY_SECONDS = 5.0  # somebody else makes one, too
SETTLED_SECONDS = 2.0  # after a write: another within the same tick of the clock of files leaves the same times
_NO_FILE = (0, 0, 0, 0)
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

_TABLE = """
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    principal TEXT NOT NULL,
    scopes TEXT NOT NULL,
    note TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL,
    revoked REAL
) WITHOUT ROWID
"""
_SCHEMA = Schema(((_TABLE,),))
_ALL = "SELECT id, digest, principal, scopes, note, created, expires, revoked FROM tokens ORDER BY created, id"


@dataclass(frozen=True)
class Token:
    """What is kept of one. Times are in seconds since 1970."""

    id: str
    digest: bytes = field(repr=False)
    principal: str
    scopes: frozenset[Scope]
    note: str = ""
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None

    def is_good(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def make_token(
    principal: str, scopes: Collection[Scope], *, now: float, expires: float | None = None, note: str = ""
) -> tuple[Token, str]:
    """A fresh one, and its text, which nobody can tell again."""
    token_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(8))
    text = f"cg_{token_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return Token(token_id, digest_of(text), principal, frozenset(scopes), note, now, expires), text


def read_principal(text: str) -> str:
    """A principal's name. Raises UsageError."""
    if not PRINCIPAL.fullmatch(text):
        raise UsageError(f"{text[:80]!r} names no principal; up to 128 letters, digits and . _ @ + - would pass")
    return text


class TokenStore:
    """The file, for whoever may write it. Made by `open`; whoever did owes a `close`. Each call is a transaction, and
    on the disk when it returns. Raises StorageFull when the disk refuses."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @staticmethod
    def open(path: Path, *, reader_gid: int | None = None) -> TokenStore:
        """The file is made if it is not there; only its owner reads it, and the group `reader_gid`. Raises StorageFull,
        NewerState, or UsageError when it holds something else."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if reader_gid is not None:
                    os.fchown(descriptor, -1, reader_gid)
                    os.fchmod(descriptor, 0o640)
            finally:
                os.close(descriptor)
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
        except (OSError, sqlite3.OperationalError) as error:
            raise StorageFull(f"{path}: {error}") from error
        try:
            bring_up(connection, _SCHEMA, path)
        except sqlite3.Error as error:
            connection.close()
            raise UsageError(f"{path} holds no tokens: {error}; another state directory would pass") from error
        except CellgateError:
            connection.close()
            raise
        return TokenStore(connection)

    def close(self) -> None:
        self._connection.close()

    def add(self, token: Token) -> None:
        self._write("INSERT INTO tokens VALUES (?,?,?,?,?,?,?,?)", _values(token))

    def revoke(self, token_id: str, now: float) -> Token:
        """From now on it opens nothing; it stays in the table. Raises UsageError when there is none."""
        found = next((token for token in self.tokens() if token.id == token_id), None)
        if found is None:
            raise UsageError(f"there is no token {token_id[:80]!r}; `cellgate token ls` lists them")
        if found.revoked is None:
            self._write("UPDATE tokens SET revoked = ? WHERE id = ?", (now, token_id))
            found = replace(found, revoked=now)
        return found

    def tokens(self) -> list[Token]:
        """All that ever were, oldest first."""
        return _read(self._connection)

    def _write(self, statement: str, values: Sequence[object]) -> None:
        try:
            with self._connection:
                self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise StorageFull(str(error)) from error


class TokenWatch:
    """The file, for whoever reads it now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None  # of the file as it was, if that is certain

    def look(self, now: float) -> list[Token] | None:
        """All tokens, if there may be others than at the last look; none when there is no file. Raises StorageFull
        when it cannot be read; those of the last look count on then, and it is tried again."""
        try:
            found = os.stat(self._path)
            seen = found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
            if seen == self._seen:
                return None
            with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=0.0)) as connection:
                tokens = _read(connection)
        except FileNotFoundError:
            has_been, self._seen = self._seen, _NO_FILE
            return None if has_been == _NO_FILE else []
        except (OSError, sqlite3.Error) as error:
            raise StorageFull(f"{self._path}: {error}") from error
        self._seen = seen if now - found.st_mtime > SETTLED_SECONDS else None
        return tokens


def _values(token: Token) -> tuple[object, ...]:
    scopes = scopes_as_text(token.scopes)
    return token.id, token.digest, token.principal, scopes, token.note, token.created, token.expires, token.revoked


def _read(connection: sqlite3.Connection) -> list[Token]:
    tokens = []
    for token_id, digest, principal, scopes, *rest in connection.execute(_ALL):
        with suppress(CellgateError):  # of scopes that this version does not know: it opens nothing
            tokens.append(Token(token_id, digest, principal, read_scopes(scopes), *rest))
    return tokens
