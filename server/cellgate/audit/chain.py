"""The lines of an audit log, chained by hashes: a line that was changed, removed, added or moved is found and located.

    {"n":7,"at":"2026-11-20T10:15:47.123Z","what":"cell_accepted", ... ,"hash":"5e0c…"}

`n` counts from 1 without a gap. `hash` is the SHA-256 of the hash before it and of all that stands before it in its own
line. So whoever changes a byte must write anew every line from there on; who has kept a hash elsewhere finds that out
too. Pure: bytes and values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quote
from typing import NamedTuple

__all__ = ["BEGINNING", "Checker", "Damage", "Link", "facts_of", "make_line", "split_line"]

_TAIL = re.compile(rb',"hash":"([0-9a-f]{64})"\}')
_encode = json.JSONEncoder(separators=(",", ":")).encode  # of what is no string or whole number
_TAIL_BYTES = len(',"hash":""}') + 64
_NUMBER = re.compile(rb'\{"n":([1-9][0-9]{0,15}),')


class Link(NamedTuple):
    """Where a chain stands: the number of its last line, and that one's hash."""

    number: int
    hash: str


BEGINNING = Link(0, "0" * 64)


def make_line(before: Link, facts: Mapping[str, object]) -> tuple[bytes, Link]:
    """The next line, with its end, and where the chain stands then."""
    number = before.number + 1
    members = [f'{{"n":{number}']
    for name, value in facts.items():  # two lines of every cell are strings and whole numbers: any object costs twice
        said = _quote(value) if isinstance(value, str) else value if type(value) is int else _encode(value)
        members.append(f'"{name}":{said}')
    body = ",".join(members).encode()
    found = _hash(before.hash, body)
    return b'%s,"hash":"%s"}\n' % (body, found.encode()), Link(number, found)


def split_line(line: bytes) -> tuple[bytes, Link] | None:
    """What the hash covers, and the line's link; None for what is no line of a log."""
    tail = _TAIL.fullmatch(line[-_TAIL_BYTES:])
    head = _NUMBER.match(line)
    if tail is None or head is None:
        return None
    return line[:-_TAIL_BYTES], Link(int(head[1]), tail[1].decode())


def facts_of(line: bytes) -> dict[str, object]:
    """What a line says. Raises ValueError."""
    facts = json.loads(line)
    if not isinstance(facts, dict):
        raise ValueError("no object")
    return facts


@dataclass(frozen=True)
class Damage:
    """Where something is wrong: a file, its line (from 1) and the offset of that in bytes."""

    file: str
    line: int
    offset: int
    problem: str


class Checker:
    """Goes through the files of a log in order."""

    def __init__(self) -> None:
        self.lines = 0
        self.first: int | None = None
        self.last: Link | None = None
        self._also = ""  # what the last line's hash must be, if it is that which was changed
        self._unread = 0  # lines before this one that were none

    def check(self, file: str, lines: Iterable[bytes]) -> Iterator[Damage]:
        """All damage in this file, whose lines come with their ends. The first line of all is taken for the
        beginning: older files may have been let go of."""
        offset = 0
        for index, line in enumerate(lines, 1):
            if problem := self._problem(line):
                yield Damage(file, index, offset, problem)
            offset += len(line)

    def _problem(self, line: bytes) -> str:
        self.lines += 1
        split = split_line(line[:-1]) if line.endswith(b"\n") else None
        if split is None:
            self._unread += 1
            return "this is no whole line of the log"
        body, link = split
        before, also, unread = self.last or BEGINNING, self._also, self._unread
        is_first = self.last is None
        self.last, self._also, self._unread = link, "", 0
        if is_first:
            self.first = link.number
        if (is_first and link.number > 1) or unread:  # the hash before it is not known
            missing = 0 if is_first else link.number - before.number - 1 - unread
        elif link.hash in (expected := _hash(before.hash, body), _hash(also, body) if also else ""):
            return ""
        else:
            self._also = expected
            missing = link.number - before.number - 1
            if not missing:
                return "it was changed"
        if missing > 0:
            return f"before it {missing} lines are missing, from number {before.number + 1} on"
        return f"it has the number {link.number}, and stands behind {before.number}" if missing else ""


def _hash(before: str, body: bytes) -> str:
    return hashlib.sha256(before.encode() + body).hexdigest()
