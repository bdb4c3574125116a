"""The file of cells that are known by their ids: whole after any crash, and never large."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellgate.live import known
from cellgate.live.known import KnownFile
from cellgate.sessions.known import ENTRY_BYTES, KnownCells


def entries(*numbers: int) -> list[bytes]:
    cells = KnownCells()
    return [cells.add(b"%d" % number, "code", number) for number in numbers]


def test_what_was_appended_is_read_by_the_next(tmp_path: Path):
    file = KnownFile(tmp_path / "cells.known")
    assert file.read() == b""
    for entry in entries(1, 2, 3):
        file.append(entry)
    assert KnownFile(tmp_path / "cells.known").read() == b"".join(entries(1, 2, 3))
    assert (tmp_path / "cells.known").stat().st_mode & 0o777 == 0o600


def test_an_entry_that_a_crash_cut_off_is_dropped_and_the_next_is_whole(tmp_path: Path):
    path = tmp_path / "cells.known"
    path.write_bytes(b"".join(entries(1, 2)) + b"torn")
    file = KnownFile(path)
    assert file.read() == b"".join(entries(1, 2))
    file.append(entries(3)[0])
    assert KnownFile(path).read() == b"".join(entries(1, 2, 3))


def test_it_keeps_the_newest_and_no_more_than_twice_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known, "MAX_KNOWN", 10)
    path = tmp_path / "cells.known"
    file, most = KnownFile(path), 0
    for entry in entries(*range(100)):
        file.append(entry)
        most = max(most, path.stat().st_size)
    assert most <= 20 * ENTRY_BYTES
    kept = KnownCells(KnownFile(path).read())
    assert all(kept.find(b"%d" % number) for number in range(91, 100))
    assert kept.find(b"50") is None


def test_without_a_disk_that_takes_it_nobody_is_harmed(tmp_path: Path):
    file = KnownFile(tmp_path / "none" / "cells.known")
    file.append(entries(1)[0])
    assert file.read() == b""


def test_of_an_entry_that_a_full_disk_took_in_part_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its part put all that came after it out of step, so that the next gateway knew none of those cells."""
    file, (first, second, third) = KnownFile(tmp_path / "cells.known"), entries(1, 2, 3)
    file.append(first)
    whole = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:5]))
        file.append(second)
    file.append(third)
    assert KnownFile(tmp_path / "cells.known").read() == first + third


def test_a_link_in_its_place_is_not_followed(tmp_path: Path):
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "cells.known").symlink_to(tmp_path / "victim")
    KnownFile(tmp_path / "cells.known").append(entries(1)[0])
    assert (tmp_path / "victim").read_bytes() == b""
