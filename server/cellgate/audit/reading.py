"""Reads an audit log: verifies it whole, or finds lines in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cellgate.audit.chain import Checker, Damage, Link, facts_of
from cellgate.audit.writer import HEAD_NAME, file_names, read_head

__all__ = ["Report", "find", "verify"]


@dataclass(frozen=True)
class Report:
    """What there is of a log, and what is wrong with it."""

    files: int
    lines: int
    first: int | None  # number of the first line; more than 1 where older files were let go of
    last: Link | None
    damage: tuple[Damage, ...]


def verify(directory: Path, expected: Link | None = None) -> Report:
    """Every line. `expected` is one that somebody has kept elsewhere. Raises OSError."""
    checker = Checker()
    names = file_names(directory)
    damage: list[Damage] = []
    hashes: dict[int, str] = {}
    wanted = [link for link in (read_head(directory), expected) if link is not None]
    for name in names:
        with (directory / name).open("rb") as file:
            damage += checker.check(name, _noted(file, checker, hashes, {link.number for link in wanted}))
    if checker.last:
        hashes.setdefault(checker.last.number, checker.last.hash)
    for link in wanted:
        last = checker.last.number if checker.last else 0
        if link.number > last:
            problem = f"the log ends with number {last}; number {link.number} was written"
            damage.append(Damage(names[-1] if names else HEAD_NAME, 0, 0, problem))
        elif hashes.get(link.number, link.hash) != link.hash:
            damage.append(Damage(names[-1], 0, 0, f"number {link.number} has another hash than the one that was kept"))
    return Report(len(names), checker.lines, checker.first, checker.last, tuple(damage))


def _noted(lines: Iterator[bytes], checker: Checker, hashes: dict[int, str], wanted: set[int]) -> Iterator[bytes]:
    """The lines; on the way the hashes of those that are wanted are kept."""
    for line in lines:
        yield line
        if checker.last and checker.last.number in wanted:
            hashes[checker.last.number] = checker.last.hash


def find(directory: Path, *, where: Mapping[str, str], since: str = "", until: str = "") -> Iterator[dict[str, object]]:
    """Lines whose facts are these, from one date to another, as ISO 8601 has them. What is no line is passed over:
    `verify` tells of it. Raises OSError."""
    needles = [json.dumps(value).encode() for value in where.values()]
    for name in file_names(directory):
        with (directory / name).open("rb") as file:
            for line in file:
                if all(needle in line for needle in needles):  # most lines need not be parsed
                    try:
                        facts = facts_of(line)
                    except ValueError:
                        continue
                    at = str(facts.get("at", ""))
                    is_in_time = since <= at and (not until or at < until)
                    if is_in_time and all(str(facts.get(key)) == value for key, value in where.items()):
                        yield facts
