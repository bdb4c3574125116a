"""PROTOCOL.md says of the journal what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from cellgate.sessions import journal, output_cap, records

PAGE = (Path(__file__).parents[2] / "server" / "PROTOCOL.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The rows of the one table whose heading row begins with these cells."""
    found = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert len(found) == 1, f"{len(found)} tables are headed {heading!r}"
    return [[cell.strip().strip("`") for cell in row.strip("| ").split(" | ")] for row in found[0].splitlines()]


def fixed_bytes(heading: str) -> int:
    """What the fixed fields of a table take; each lies where the one before ends."""
    at = 0
    for offset, size, *_ in table(heading):
        if not size.isdigit():
            break
        assert int(offset) == at
        at += int(size)
    return at


def test_kinds_of_records():
    assert {row[0]: int(row[1]) for row in table("record | code")} == {kind.name: kind.value for kind in records.Kind}
    assert records.CARRIED == 128


def test_the_layout_of_segments_and_records():
    assert fixed_bytes("at | bytes | field of a segment") == records.HEAD_BYTES
    assert fixed_bytes("at | bytes | field of a record") == records.RECORD_BYTES
    assert records.MAGIC == b"cgjrnl\x00\x01"


def test_limits_of_a_journal():
    names = [name for name in vars(journal) if re.fullmatch(r"(MIN|MAX)_\w+_(BYTES|RECORDS)|SEGMENTS", name)]
    assert {row[0]: int(row[1]) for row in table("limit of a journal | value")} == {
        name: getattr(journal, name) for name in names
    }


def test_limits_of_the_output_cap():
    names = [name for name in vars(output_cap) if re.fullmatch(r"MAX_\w+|TAIL_PART", name)]
    assert {row[0]: int(row[1]) for row in table("limit of the output cap | value")} == {
        name: getattr(output_cap, name) for name in names
    }
