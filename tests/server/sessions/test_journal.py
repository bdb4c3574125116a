"""The journal: what was said stays, in order, numbered, bounded, over crashes, full disks and damage."""

from __future__ import annotations

import errno
import os
import signal
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cellgate.sessions import journal as journal_module
from cellgate.sessions.journal import MAX_UNWRITTEN_BYTES, MIN_LIMIT_BYTES, Budget, Cursor, Gap, Journal, Kind, Record
from cellgate.sessions.records import HEAD_BYTES, MARK_BYTES, RECORD_BYTES
from cellgate_kernel.message import Channel, Status, Tag

STREAM = Tag(Channel.IOPUB, "stream", Status.NONE, b"parent")
IDLE = Tag(Channel.IOPUB, "status", Status.IDLE, b"parent")
PLENTY = 64 << 20


def output(text: bytes, *, link: int = 0, cell: int = 0) -> Record:
    return Record(Kind.OUTPUT, cell, link, b"", STREAM, text)


def request(cell: int) -> Record:
    return Record(Kind.REQUEST, cell, 0, b"client", STREAM, b"code of %d" % cell)


def said(journal: Journal, from_seq: int = 1, max_bytes: int = 1 << 16) -> tuple[dict[int, bytes], list[Gap]]:
    """All that can be read, by number, and the gaps on the way."""
    cursor, bodies, gaps = Cursor(journal, from_seq), {}, []
    while not cursor.is_at_end:
        reading = cursor.read(max_bytes)
        if reading.gap:
            gaps.append(reading.gap)
        bodies.update((record.seq, bytes(record.body)) for record in reading.records)
    return bodies, gaps


def fill(journal: Journal, count: int, size: int = 1000, batch: int = 10) -> None:
    for at in range(0, count, batch):
        journal.append([output(b"%08d" % n + b"." * (size - 8)) for n in range(at, at + batch)])


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.journal"))


@pytest.fixture
def place(tmp_path):
    return tmp_path / "journal"


@dataclass
class Disk:
    """Stands before pwritev: writes as much as there is room for, then refuses."""

    room: int = 1 << 60
    error: int = errno.ENOSPC
    pwritev: object = field(default=os.pwritev)

    def write(self, descriptor, pieces, offset):
        data = b"".join(pieces)[: self.room]
        if not data:
            raise OSError(self.error, os.strerror(self.error))
        self.room -= len(data)
        return self.pwritev(descriptor, [data], offset)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    monkeypatch.setattr(journal_module.os, "pwritev", disk.write)
    return disk


# -- what is said stays --------------------------------------------------------------------------------


def test_what_was_appended_is_read_as_it_was(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    records = [
        Record(Kind.REQUEST, 1, 0, b"client-a", Tag(Channel.SHELL, "execute_request", Status.NONE, b"m1"), b"code"),
        Record(Kind.OUTPUT, 1, 1, b"", STREAM, memoryview(b"a view")),
        Record(Kind.OUTPUT, 1, 2, b"client-a", Tag(Channel.SHELL, "execute_reply", Status.OK, b"m1"), b""),
        Record(Kind.TERMINAL, 1, 3, b"", IDLE, bytearray(b"idle")),
    ]
    assert journal.append(records) == 1
    assert journal.append([Record(Kind.NOTE, body=b"later")]) == 5
    reading = journal.read(1, 1 << 20)
    expected = [record._replace(seq=n, body=bytes(record.body)) for n, record in enumerate(records, 1)]
    assert reading == (None, [*expected, Record(Kind.NOTE, body=b"later", seq=5)], 6)
    assert all(type(record.kind) is Kind for record in reading.records)


def test_a_cursor_goes_on_where_it_stopped_and_finds_nothing_twice(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    cursor = Cursor(journal, 1)
    assert cursor.is_at_end and cursor.read(1000) == (None, [], 1)
    fill(journal, 50)
    seen = []
    while not cursor.is_at_end:
        reading = cursor.read(5000)
        assert 1 <= len(reading.records) <= 5
        seen += [record.seq for record in reading.records]
    assert seen == list(range(1, 51))
    assert cursor.read(5000) == (None, [], 51)


def test_one_record_at_least_is_read_however_large(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    journal.append([output(b"small"), output(b"x" * (3 << 20)), output(b"small")])
    assert [len(journal.read(seq, 1).records) for seq in (1, 2, 3)] == [1, 1, 1]
    assert len(journal.read(2, 1).records[0].body) == 3 << 20


def test_any_number_can_be_read_from(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    for size in (10, MARK_BYTES, 100, 3 * MARK_BYTES, 1):  # within a mark, over it, over several
        fill(journal, 200, max(size, 8))
    for again in (journal, Journal.open(place, limit_bytes=PLENTY)):
        for seq in range(1, 1001):
            assert again.read(seq, 100).records[0].seq == seq
        assert again.read(0, 100).records[0].seq == 1


def test_a_number_beyond_the_end_reads_from_the_end(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 10)
    assert journal.read(1000, 100) == (None, [], 11)


def test_a_batch_of_any_number_of_records_is_written_whole(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    for size in (0, 5000):  # joined into one piece; more pieces than one system call takes
        journal.append([output(b"y" * size) for _ in range(2000)])
    bodies, gaps = said(journal)
    assert [len(body) for body in bodies.values()] == [0] * 2000 + [5000] * 2000
    assert not gaps


def test_only_the_owner_may_look(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 10)
    assert place.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in segments(place))


def test_a_deleted_journal_leaves_nothing(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 10)
    journal.delete()
    assert not place.exists()


# -- bounds --------------------------------------------------------------------------------------------


def test_the_oldest_goes_when_there_is_too_much_and_the_gap_is_told_exactly(place):
    journal = Journal.open(place, limit_bytes=MIN_LIMIT_BYTES)
    fill(journal, 2000)
    on_disk = sum(path.stat().st_size for path in segments(place))
    assert on_disk == journal.size_bytes <= MIN_LIMIT_BYTES
    bodies, gaps = said(journal)
    assert gaps == [Gap(1, 2000 - len(bodies))] and gaps[0].records + len(bodies) == 2000
    assert list(bodies) == list(range(journal.first_seq, 2001))
    assert len(bodies) > 100  # most of the room is used


def test_a_reader_in_the_middle_is_told_what_it_missed_meanwhile(place):
    journal = Journal.open(place, limit_bytes=MIN_LIMIT_BYTES)
    fill(journal, 100)
    cursor = Cursor(journal, 1)
    last = cursor.read(10_000).records[-1].seq
    fill(journal, 2000)
    reading = cursor.read(10_000)
    assert reading.gap == Gap(last + 1, journal.first_seq - 1)
    assert reading.records[0].seq == journal.first_seq


def test_the_index_stays_small(place):
    tracemalloc.start()
    try:
        journal = Journal.open(place, limit_bytes=PLENTY)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            journal.append([output(b"x" * 100)] * 1000)
        assert tracemalloc.get_traced_memory()[0] - before < 24 * 100_000 / 10
    finally:
        tracemalloc.stop()


def test_of_journals_that_share_a_budget_the_largest_gives_first(tmp_path):
    budget = Budget(1 << 20)
    large = Journal.open(tmp_path / "large", limit_bytes=PLENTY, budget=budget)
    small = Journal.open(tmp_path / "small", limit_bytes=PLENTY, budget=budget)
    fill(small, 100)
    fill(large, 5000)
    fill(small, 100)
    assert budget.used_bytes == large.size_bytes + small.size_bytes <= budget.limit_bytes
    assert said(small)[1] == [] and said(large)[1] != []


def test_many_small_journals_stay_within_the_budget_and_keep_what_is_pending(tmp_path):
    budget = Budget(100_000)
    journals = [Journal.open(tmp_path / str(n), limit_bytes=PLENTY, budget=budget) for n in range(20)]
    for n, journal in enumerate(journals):
        journal.append([Record(Kind.REQUEST, 1, 0, b"", STREAM, b"request %d" % n)])
        fill(journal, 20)
    assert budget.used_bytes == sum(journal.size_bytes for journal in journals) <= budget.limit_bytes
    for n, journal in enumerate(journals):
        bodies, gaps = said(journal)
        assert len(bodies) + sum(gap.records for gap in gaps) == 21
        journal.close()
        (request,) = Journal.open(tmp_path / str(n), limit_bytes=PLENTY).recovery.requests
        assert (request.cell, request.seq, request.body) == (1, 1, b"request %d" % n)
    assert budget.used_bytes == 0


def test_a_journal_that_is_opened_again_counts_and_makes_room(tmp_path):
    budget = Budget(300_000)
    for n in range(4):
        Journal.open(tmp_path / str(n), limit_bytes=PLENTY).append([output(b"x" * 100_000)])
    journals = [Journal.open(tmp_path / str(n), limit_bytes=PLENTY, budget=budget) for n in range(4)]
    assert budget.used_bytes == sum(journal.size_bytes for journal in journals) <= 300_000


def test_a_journal_that_gave_all_it_had_goes_on_after_a_restart(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    journal.append([request(1)])
    fill(journal, 20)
    assert journal.give() and not journal.give()
    for _ in range(2):
        journal.close()
        journal = Journal.open(place, limit_bytes=PLENTY)
    assert journal.append([output(b"next")]) == 22
    assert said(journal) == ({22: b"next"}, [Gap(1, 21)])
    assert [path.stat().st_size for path in segments(place)] == [journal.size_bytes]
    assert [record.seq for record in Journal.open(place, limit_bytes=PLENTY).recovery.requests] == [1]


def test_a_journal_that_cannot_give_does_not_keep_others_from_giving(tmp_path, disk):
    budget = Budget(1 << 20)
    other = Journal.open(tmp_path / "other", limit_bytes=PLENTY, budget=budget)
    fill(other, 500)
    stuck = Journal.open(tmp_path / "stuck", limit_bytes=PLENTY, budget=budget)
    disk.room = 0
    fill(stuck, 900)
    disk.room = 1 << 60
    assert stuck.is_degraded and stuck.size_bytes > other.size_bytes
    fill(other, 100)
    assert budget.used_bytes <= budget.limit_bytes
    assert said(stuck)[1] == [] and said(other)[1] != []


# -- the next process ----------------------------------------------------------------------------------


def test_a_successor_learns_what_is_pending_and_goes_on_counting(place):
    first = Journal.open(place, limit_bytes=PLENTY)
    first.append([Record(Kind.INCARNATION, body=b"kernel 1"), request(2), request(3)])
    first.append([output(b"x", link=1, cell=2), Record(Kind.CUT, 2, 2, body=b"done"), Record(Kind.NOTE, 2)])
    first.append([Record(Kind.TERMINAL, 2, 3, b"", IDLE, b"idle")])
    first.append([Record(Kind.CUT, 3, 9, body=b"old"), Record(Kind.CUT, 3, 11, body=b"new"), output(b"x", link=10)])
    heir = Journal.open(place, limit_bytes=PLENTY)
    recovery = heir.recovery
    assert recovery.incarnation and recovery.incarnation.body == b"kernel 1"
    assert recovery.link_number == 11
    assert [(record.cell, record.seq, record.client, record.body) for record in recovery.requests] == [
        (3, 3, b"client", b"code of 3")
    ]
    assert [record.body for record in recovery.cuts] == [b"new"]
    assert recovery.damage == ()
    assert heir.append([output(b"next")]) == 11
    bodies, gaps = said(heir)
    assert list(bodies) == list(range(1, 12)) and not gaps


def test_link_numbers_start_anew_with_an_incarnation(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    journal.append([output(b"x", link=500), Record(Kind.INCARNATION, body=b"2")])
    assert Journal.open(place, limit_bytes=PLENTY).recovery.link_number == 0
    journal.append([output(b"x", link=1)])
    assert Journal.open(place, limit_bytes=PLENTY).recovery.link_number == 1


def test_copies_do_not_bring_back_the_numbers_of_an_older_link(place):
    journal = Journal.open(place, limit_bytes=MIN_LIMIT_BYTES)
    journal.append([request(1), Record(Kind.CUT, 1, 500, body=b"cut"), Record(Kind.INCARNATION, body=b"2")])
    journal.append([output(b"x", link=1)])
    fill(journal, 1000)
    heir = Journal.open(place, limit_bytes=MIN_LIMIT_BYTES)
    assert heir.first_seq > 4 and heir.recovery.link_number == 1


def test_what_is_pending_is_known_when_all_around_it_was_dropped(place):
    journal = Journal.open(place, limit_bytes=MIN_LIMIT_BYTES)
    journal.append([Record(Kind.INCARNATION, body=b"kernel 1"), request(2), Record(Kind.CUT, 2, 7, body=b"cut")])
    journal.append([output(b"x", link=8)])
    for _ in range(3):  # over restarts, too
        fill(journal, 1000)
        journal.close()
        journal = Journal.open(place, limit_bytes=MIN_LIMIT_BYTES)
    recovery = journal.recovery
    assert journal.first_seq > 1000
    assert recovery.incarnation and recovery.incarnation.body == b"kernel 1"
    assert [record.seq for record in recovery.requests] == [2]
    assert [record.body for record in recovery.cuts] == [b"cut"]
    assert recovery.link_number == 8
    assert all(body.endswith(b".") for body in said(journal, journal.first_seq)[0].values())  # no copies are read


def test_opening_reads_no_more_than_the_newest_segment(place, monkeypatch):
    journal = Journal.open(place, limit_bytes=PLENTY)
    for _ in range(10):
        fill(journal, 2000, batch=100)
    read = []
    pread = os.pread
    monkeypatch.setattr(journal_module.os, "pread", lambda *args: (read.append(args[1]), pread(*args))[1])
    Journal.open(place, limit_bytes=PLENTY)
    assert len(segments(place)) > 3
    assert sum(read) <= len(segments(place)) * HEAD_BYTES + segments(place)[-1].stat().st_size


def test_nothing_that_was_appended_is_lost_with_the_process(place):
    """Killed with SIGKILL while it writes, over and over; what it had told it had written is there."""
    told = 0
    for _ in range(10):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            journal = Journal.open(place, limit_bytes=4 << 20)
            while True:
                first = journal.append([output(b"%d" % (journal.next_seq + n)) for n in range(20)])
                os.write(writer, b"%d\n" % (first + 19))
        os.close(writer)
        with os.fdopen(reader, "rb") as lines:
            for count, line in enumerate(lines):
                told = int(line)
                if count == 50:
                    break
            os.kill(child, signal.SIGKILL)
            told = max([told, *(int(line) for line in lines)])
        os.waitpid(child, 0)
        journal = Journal.open(place, limit_bytes=4 << 20)
        assert journal.recovery.damage == ()
        assert journal.next_seq > told
        bodies, gaps = said(journal)
        assert bodies == {n: b"%d" % n for n in range(1, journal.next_seq)} and not gaps


# -- damage --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 3000))
def test_a_torn_tail_is_cut_and_its_numbers_are_given_out_again(tmp_path_factory, cut):
    place = tmp_path_factory.mktemp("torn")
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 30, size=100)
    (path,) = segments(place)
    size = path.stat().st_size
    os.truncate(path, max(size - cut, HEAD_BYTES))
    heir = Journal.open(place, limit_bytes=PLENTY)
    whole, torn = divmod(path.stat().st_size - HEAD_BYTES, RECORD_BYTES + len(STREAM.pack()) + 100)
    assert torn == 0 and heir.size_bytes == path.stat().st_size
    assert heir.recovery.damage == ()
    assert heir.append([output(b"after")]) == whole + 1
    bodies, gaps = said(heir)
    assert list(bodies) == list(range(1, whole + 2)) and not gaps


def test_damage_in_a_body_costs_one_record(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 30, size=100)
    flip(segments(place)[0], HEAD_BYTES + 10 * (RECORD_BYTES + len(STREAM.pack()) + 100) + RECORD_BYTES + 50)
    for again in (journal, Journal.open(place, limit_bytes=PLENTY)):
        bodies, gaps = said(again)
        assert gaps == [Gap(11, 11)]
        assert list(bodies) == [*range(1, 11), *range(12, 31)]
    assert again.recovery.damage == (f"{segments(place)[0].name}: record 11 is damaged",)
    assert again.next_seq == 31


def test_damage_in_a_header_costs_the_rest_of_its_segment_and_no_number_twice(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 30, size=100)
    flip(segments(place)[0], HEAD_BYTES + 10 * (RECORD_BYTES + len(STREAM.pack()) + 100) + 20)
    heir = Journal.open(place, limit_bytes=PLENTY)
    assert "unreadable from record 11 on" in heir.recovery.damage[0]
    seq = heir.append([output(b"after")])
    assert seq > 30
    bodies, gaps = said(heir)
    assert gaps == [Gap(11, seq - 1)] and list(bodies) == [*range(1, 11), seq]


def test_records_that_do_not_follow_are_not_believed(place):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 30, size=100)
    (path,) = segments(place)
    with path.open("r+b") as file:
        again = file.read()[-200:]
        file.write(again[-(RECORD_BYTES + len(STREAM.pack()) + 100) :])  # whole, and here already
    heir = Journal.open(place, limit_bytes=PLENTY)
    assert "unreadable from record 31 on" in heir.recovery.damage[0]
    assert heir.append([output(b"after")]) > 31
    assert list(said(heir)[0])[:31] == [*range(1, 31), heir.next_seq - 1]


def test_a_segment_in_the_middle_may_be_damaged_or_gone(place):
    journal = Journal.open(place, limit_bytes=1 << 20)
    fill(journal, 500)
    journal.close()
    one, two, three, *_ = segments(place)
    flip(two, 3)
    heir = Journal.open(place, limit_bytes=1 << 20)
    assert heir.recovery.damage == (f"{two.name} is no segment of this version; set aside",)
    assert two.with_name(two.name + ".corrupt").exists() and not two.exists()
    gap = Gap(int(two.stem), int(three.stem) - 1)
    assert said(heir)[1] == [gap]
    one.unlink()  # while it is open
    assert said(heir)[1] == [Gap(1, gap.last)]


def test_no_number_of_a_newest_segment_that_is_set_aside_is_given_out_twice(place):
    journal = Journal.open(place, limit_bytes=1 << 20)
    fill(journal, 500)
    flip(segments(place)[-1], 3)
    heir = Journal.open(place, limit_bytes=1 << 20)
    seq = heir.append([output(b"after")])
    assert seq > 500
    bodies, (gap,) = said(heir)
    assert gap.last == seq - 1 and list(bodies) == [*range(1, gap.first), seq]


@pytest.mark.parametrize("name", ["99999999999999999999", "x", "-1", "²"])
def test_a_file_of_any_name_is_set_aside(place, name):
    place.mkdir()
    (place / f"{name}.journal").write_bytes(b"nonsense" * 100)
    journal = Journal.open(place, limit_bytes=PLENTY)
    assert len(journal.recovery.damage) == 1
    assert journal.append([output(b"first")]) == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\0" * 5000, b"cgjrnl\x00\x02" + b"\1" * 200, None])
def test_foreign_files_are_set_aside_and_do_no_harm(place, content):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 20)
    foreign = place / "00000000000000000099.journal"
    if content is None:
        foreign.symlink_to("/dev/zero")
    else:
        foreign.write_bytes(content)
    (place / "notes.txt").write_text("not ours")
    (place / "00000000000000000007.tmp").write_bytes(b"half")
    heir = Journal.open(place, limit_bytes=PLENTY)
    assert len(heir.recovery.damage) == 1
    assert list(said(heir)[0]) == list(range(1, 21))
    assert sorted(path.name for path in place.iterdir() if path.suffix != ".journal") == [
        foreign.name + ".corrupt",
        "notes.txt",
    ]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 0x10
    path.write_bytes(data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 20), st.booleans()), min_size=1, max_size=5))
def test_whatever_happens_to_its_files_it_opens_reads_only_truth_and_goes_on(tmp_path_factory, blows):
    place = tmp_path_factory.mktemp("blows")
    journal = Journal.open(place, limit_bytes=MIN_LIMIT_BYTES)
    for at in range(0, 300, 20):
        journal.append([output(b"%06d" % n * 100) for n in range(at + 1, at + 21)])
    journal.close()
    for which, at, truncates in blows:
        paths = segments(place)
        path = paths[which % len(paths)]
        if truncates or not path.stat().st_size:
            os.truncate(path, at % (path.stat().st_size + 1))
        else:
            flip(path, at)
    heir = Journal.open(place, limit_bytes=MIN_LIMIT_BYTES)
    seq = heir.append([output(b"%06d" % heir.next_seq * 100)])
    bodies, gaps = said(heir)
    assert all(body == b"%06d" % n * 100 for n, body in bodies.items())
    missing = {n for gap in gaps for n in range(gap.first, gap.last + 1)}
    assert missing.isdisjoint(bodies) and missing | set(bodies) == set(range(1, seq + 1))


# -- a disk that refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 40, 500, 5000])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_full_disk_loses_nothing_that_memory_can_hold(place, disk, room, error):
    journal = Journal.open(place, limit_bytes=PLENTY)
    journal.append([request(1)])
    disk.room, disk.error = room, error
    fill(journal, 100)
    assert journal.is_degraded and not journal.retry()
    bodies, gaps = said(journal)
    assert list(bodies) == list(range(1, 102)) and not gaps
    disk.room = 1 << 60
    assert journal.retry() and not journal.is_degraded
    fill(journal, 100)
    heir = Journal.open(place, limit_bytes=PLENTY)
    assert heir.recovery.damage == () and [record.seq for record in heir.recovery.requests] == [1]
    bodies, gaps = said(heir)
    assert list(bodies) == list(range(1, 202)) and not gaps
    assert not list(place.glob("*.tmp"))


@pytest.mark.parametrize("room", [1, 100, 20_000])
def test_a_large_message_that_was_half_written_is_kept_whole(place, disk, room):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 10)
    disk.room = room
    journal.append([output(b"x" * 60_000)])
    disk.room = 1 << 60
    assert journal.retry()
    assert said(Journal.open(place, limit_bytes=PLENTY))[0][11] == b"x" * 60_000


def test_a_disk_that_stays_full_costs_bounded_memory_and_the_gap_is_told(place, disk):
    journal = Journal.open(place, limit_bytes=PLENTY)
    fill(journal, 100)
    disk.room = 0
    fill(journal, 20_000)
    (gap,) = said(journal)[1]
    assert gap.first == 101 and gap.records > 10_000
    assert journal.size_bytes < 200_000 + 2 * MAX_UNWRITTEN_BYTES
    disk.room = 1 << 60
    assert journal.retry()
    assert said(Journal.open(place, limit_bytes=PLENTY))[1] == [gap]


def test_a_crash_while_the_disk_is_full_leaves_what_was_written(place, disk):
    journal = Journal.open(place, limit_bytes=PLENTY)
    journal.append([request(1)])
    disk.room = 300
    fill(journal, 100)
    heir = Journal.open(place, limit_bytes=PLENTY)
    assert heir.recovery.damage == () and [record.seq for record in heir.recovery.requests] == [1]
    assert heir.next_seq == 2


def test_what_is_held_in_memory_is_written_by_whoever_closes_in_order(place, disk):
    """A gateway that was told to end within a second of the room that there was again left its heir without it."""
    journal = Journal.open(place, limit_bytes=PLENTY)
    disk.room = 300
    fill(journal, 100)
    journal.close()
    assert len(said(Journal.open(place, limit_bytes=PLENTY))[0]) < 100, "there is no room yet"
    disk.room = 1 << 60
    journal.close()
    bodies, gaps = said(Journal.open(place, limit_bytes=PLENTY))
    assert list(bodies) == list(range(1, 101)) and not gaps


def test_a_journal_on_a_full_disk_begins_in_memory(place, disk):
    disk.room = 0
    journal = Journal.open(place, limit_bytes=PLENTY)
    assert not journal.is_degraded
    assert journal.append([request(1)]) == 1
    assert journal.is_degraded and list(said(journal)[0]) == [1]
    assert list(place.iterdir()) == []


# -- all of it by turns --------------------------------------------------------------------------------


class JournalMachine(RuleBasedStateMachine):
    """Two journals on one budget, against a plain list of all that was ever said. Nothing that is read differs from
    it, and nothing is missing that no gap tells of."""

    @initialize(limit=st.sampled_from([MIN_LIMIT_BYTES, 1 << 20]), shared=st.sampled_from([300_000, 1 << 30]))
    def begin(self, limit, shared):
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        self.monkeypatch = pytest.MonkeyPatch()
        self.disk = Disk()
        self.monkeypatch.setattr(journal_module.os, "pwritev", self.disk.write)
        self.limit, self.shared = limit, shared
        self.said = [[b""], [b""]]  # number 0 was never given out
        self.pending = [{}, {}]
        self.open()

    def open(self):
        self.budget = Budget(self.shared)
        self.journals = [
            Journal.open(Path(self.temporary.name) / str(n), limit_bytes=self.limit, budget=self.budget) for n in (0, 1)
        ]

    def teardown(self):
        if hasattr(self, "temporary"):
            self.monkeypatch.undo()
            self.temporary.cleanup()

    @rule(which=st.integers(0, 1), sizes=st.lists(st.sampled_from([0, 10, 1000, 30_000]), min_size=1, max_size=20))
    def append_output(self, which, sizes):
        said = self.said[which]
        bodies = [b"%d " % (len(said) + n) + b"." * size for n, size in enumerate(sizes)]
        assert self.journals[which].append([output(body) for body in bodies]) == len(said)
        said += bodies

    @rule(which=st.integers(0, 1))
    def accept_cell(self, which):
        cell = self.journals[which].next_seq
        self.journals[which].append([request(cell)])
        self.said[which].append(b"code of %d" % cell)
        self.pending[which][cell] = b"code of %d" % cell

    @precondition(lambda self: any(self.pending))
    @rule(which=st.integers(0, 1), data=st.data())
    def end_cell(self, which, data):
        if self.pending[which]:
            cell = data.draw(st.sampled_from(sorted(self.pending[which])))
            self.journals[which].append([Record(Kind.TERMINAL, cell, body=b"end")])
            self.said[which].append(b"end")
            del self.pending[which][cell]

    @rule(room=st.sampled_from([0, 10, 1000, 50_000]))
    def fill_disk(self, room):
        self.disk.room = room

    @rule()
    def free_disk(self):
        self.disk.room = 1 << 60
        assert all(journal.retry() for journal in self.journals)

    @rule()
    def crash(self):
        """What the disk had refused is lost with the process; all else is there."""
        was_degraded = [journal.is_degraded for journal in self.journals]
        self.disk.room = 1 << 60
        self.open()
        for which, journal in enumerate(self.journals):
            assert journal.recovery.damage == ()
            if not was_degraded[which]:
                assert journal.next_seq == len(self.said[which])
            del self.said[which][journal.next_seq :]
            recovered = {record.cell: record.body for record in journal.recovery.requests}
            if was_degraded[which]:
                self.pending[which] = recovered
            assert recovered == self.pending[which]

    @invariant()
    def what_is_read_was_said(self):
        for journal, expected in zip(getattr(self, "journals", []), getattr(self, "said", [])):
            bodies, gaps = said(journal, max_bytes=20_000)
            assert all(body == expected[n] for n, body in bodies.items())
            missing = {n for gap in gaps for n in range(gap.first, gap.last + 1)}
            assert missing.isdisjoint(bodies)
            assert missing | set(bodies) == set(range(1, len(expected)))
            assert gaps == [] or gaps[0].first == 1 or journal.is_degraded or journal.first_seq <= gaps[0].first

    @invariant()
    def the_bounds_are_kept(self):
        if hasattr(self, "budget"):
            assert self.budget.used_bytes == sum(journal.size_bytes for journal in self.journals)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
