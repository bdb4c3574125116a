"""Where each client reads on: remembered over the death of whoever remembered it, in bounded room."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.live.cursors import SLOTS, Cursors, Place


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clients"


@pytest.fixture
def cursors(path: Path) -> Iterator[Cursors]:
    cursors = Cursors(path)
    yield cursors
    cursors.close()


def test_a_position_is_found_again_also_by_the_next_process(path: Path, cursors: Cursors):
    assert cursors.find(b"a") is None
    cursors.remember(b"a", 7)
    cursors.remember(b"b", 1)
    cursors.remember(b"a", 1 << 40)
    cursors.close()
    heir = Cursors(path)
    assert (heir.find(b"a"), heir.find(b"b"), heir.find(b"c")) == (Place(1 << 40, 1 << 40), Place(1, 1), None)
    heir.close()


def test_what_a_client_confirmed_is_kept_beside_what_is_believed_of_it(path: Path, cursors: Cursors):
    cursors.remember(b"a", 7)
    cursors.remember(b"a", 9, is_sure=False)
    assert cursors.find(b"a") == Place(9, 7)
    cursors.close()
    heir = Cursors(path)
    assert heir.find(b"a") == Place(9, 7)
    heir.remember(b"a", 8)
    assert heir.find(b"a") == Place(8, 8)
    heir.close()


def test_a_position_survives_the_kill_of_its_process(path: Path):
    code = f"""
import os, signal, pathlib
from cellgate.live.cursors import Cursors
Cursors(pathlib.Path({str(path)!r})).remember(b"a", 7)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    heir = Cursors(path)
    assert heir.find(b"a") == Place(7, 7)
    heir.close()


def test_who_saw_more_than_the_journal_has_goes_on_from_its_end(path: Path, cursors: Cursors):
    """A power failure takes the last of a journal, and its numbers are given out again."""
    cursors.remember(b"a", 7)
    cursors.remember(b"a", 9, is_sure=False)
    cursors.remember(b"b", 5)
    cursors.close()
    for _ in range(2):
        heir = Cursors(path, end=6)
        assert (heir.find(b"a"), heir.find(b"b")) == (Place(6, 6), Place(5, 5))
        heir.close()


def test_of_too_many_whoever_has_read_nothing_for_longest_is_forgotten(path: Path, cursors: Cursors):
    """A page makes a new client for each visit; an agent that has held the session for long is none of them."""
    cursors.remember(b"agent", 1)
    for n in range(3 * SLOTS):
        cursors.remember(b"%d" % n, 1)
        if n % SLOTS == 0:
            cursors.remember(b"agent", n + 2)
    for known in (cursors, Cursors(path)):
        assert known.find(b"agent") == Place(2 * SLOTS + 2, 2 * SLOTS + 2)
        known.close()


def test_of_too_many_whoever_came_first_is_forgotten(path: Path, cursors: Cursors):
    for n in range(SLOTS + 3):
        cursors.remember(b"%d" % n, n + 1)
    assert path.stat().st_size < 8192
    for known in (cursors, Cursors(path)):
        assert [known.find(b"%d" % n) for n in range(3)] == [None] * 3
        assert [known.find(b"%d" % n) for n in range(3, SLOTS + 3)] == [Place(n, n) for n in range(4, SLOTS + 4)]
        known.close()


@given(st.lists(st.tuples(st.integers(0, 2 * SLOTS), st.integers(1, 1 << 63)), max_size=400))
def test_whatever_is_remembered_last_is_what_is_found(said: list[tuple[int, int]]):
    cursors = Cursors(Path("/nonexistent/clients"))  # in memory alone
    for client, position in said:
        cursors.remember(b"%d" % client, position)
    newest = dict(said)
    distinct = len(newest)
    for client, position in newest.items():
        assert cursors.find(b"%d" % client) in (
            (Place(position, position),) if distinct <= SLOTS else (Place(position, position), None)
        )
    cursors.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\xff" * 4096, os.urandom(4096), os.urandom(1 << 20)],
    ids=["nothing", "a byte", "ones", "rubbish", "more of it"],
)
def test_a_file_that_holds_anything_else_harms_nobody(path: Path, content: bytes):
    path.write_bytes(content)
    cursors = Cursors(path)
    for n in range(2 * SLOTS):
        cursors.remember(b"%d" % n, 7)
        assert cursors.find(b"%d" % n) == Place(7, 7)
    cursors.close()


def test_a_link_in_the_files_place_is_not_followed(path: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.write_bytes(b"kept")
    path.symlink_to(other)
    cursors = Cursors(path)
    cursors.remember(b"a", 7)
    assert cursors.find(b"a") == Place(7, 7)
    cursors.close()
    assert other.read_bytes() == b"kept"


def test_what_comes_after_the_end_is_not_remembered_and_no_fault(cursors: Cursors):
    """A mark may come back while a connection is being closed, when its session has let go."""
    cursors.remember(b"a", 7)
    cursors.close()
    cursors.close()
    cursors.remember(b"a", 8)
    cursors.remember(b"b", 1)
