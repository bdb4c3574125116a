"""What whoever asks may do: a closed list. Which route wants which scope is in the table of routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from cellgate.errors import UsageError

__all__ = ["ALL_SCOPES", "SCOPES", "Scope", "read_scopes", "scopes_as_markdown", "scopes_as_text", "with_implied"]


class Scope(str, Enum):
    OBSERVE = "observe"
    EXECUTE = "execute"
    FILES = "files"
    ADMIN = "admin"

    def __str__(self) -> str:
        return self.value


# Each is about one's own sessions, but the last.
SCOPES: dict[Scope, str] = {
    Scope.OBSERVE: "see one's sessions, and read what is said in them",
    Scope.EXECUTE: "start and end them, run code in them; with it comes `observe`",
    Scope.FILES: "read and write the files in them; with it comes `observe`",
    Scope.ADMIN: "see how the server fares, everybody's sessions in numbers, and end them; nobody's code or output",
}
ALL_SCOPES = frozenset(Scope)
_IMPLIED = {Scope.EXECUTE: Scope.OBSERVE, Scope.FILES: Scope.OBSERVE}


def with_implied(scopes: Iterable[Scope]) -> frozenset[Scope]:
    given = frozenset(scopes)
    return given | {_IMPLIED[scope] for scope in given if scope in _IMPLIED}


def read_scopes(text: str) -> frozenset[Scope]:
    """From names between commas or spaces, with what they imply. Raises UsageError."""
    names = text.replace(",", " ").split()
    if unknown := [name for name in names if name not in Scope.__members__.values()]:
        raise UsageError(f"{unknown[0][:80]!r} is no scope; {', '.join(Scope)} would pass")
    if not names:
        raise UsageError(f"there is no scope; one or more of {', '.join(Scope)} would pass")
    return with_implied(map(Scope, names))


def scopes_as_text(scopes: Iterable[Scope]) -> str:
    """In the order of the table; what is implied is left out."""
    given = frozenset(scopes)
    implied = {_IMPLIED[scope] for scope in given if scope in _IMPLIED}
    return ",".join(scope.value for scope in SCOPES if scope in given - implied)


def scopes_as_markdown() -> str:
    """The table for people."""
    rows = [f"| `{scope}` | {meaning} |" for scope, meaning in SCOPES.items()]
    return "\n".join(["| scope | what it lets one do |", "|---|---|", *rows]) + "\n"
