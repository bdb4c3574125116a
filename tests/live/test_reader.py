"""One client's place in a journal: whatever connection it has, it sees each of its messages once, or how many not."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cellgate.live.reader import CHUNK_BYTES, MAX_CHUNKS, SEEK_BYTES, SEEK_RECORDS, Parting, Reader
from cellgate.live.voices import JupyterVoice
from cellgate.sessions.journal import MIN_LIMIT_BYTES, Gap, Journal
from cellgate.sessions.records import Kind, Record
from cellgate.wire.jupyter import Dialect, Frame, make_message, parse_message
from cellgate_kernel.message import Channel, Status, Tag, join_v1
from tests.support.pipe import Pipe
from tests.support.stage import stream

ME, OTHER = b"me", b"other"
LIMIT_BYTES = 64 << 10
TAG = Tag(Channel.IOPUB, "stream", Status.NONE, b"")


def record(number: int, client: bytes = b"", kind: Kind = Kind.OUTPUT, size: int = 0) -> Record:
    """Whose body begins with its number."""
    return Record(kind, 0, 0, client, TAG, f"{number} ".encode() + b"x" * size)


def say_gap(gap: Gap) -> bytes:
    return f"gap {gap.first} {gap.last}".encode()


class Case:
    """A journal, and one reader after another."""

    def __init__(self, directory: Path, limit_bytes: int = 1 << 20) -> None:
        self.journal = Journal.open(directory, limit_bytes=limit_bytes)
        self.remembered: list[int] = []
        self.believed: list[int] = []
        self.waiting: deque[Callable[[], None]] = deque()  # what readers want called later
        self.readers: list[Reader] = []

    def connect(self, pipe: Pipe, start: int = 1, dialect: Dialect = Dialect.V1, *, after: str = "") -> Reader:
        reader = Reader(
            ME,
            pipe,
            self.journal,
            voice=JupyterVoice(ME, dialect, say_gap),
            start=start,
            limit_bytes=LIMIT_BYTES,
            remember=self._remember,
            later=lambda _seconds, call: self.waiting.append(call),
            after=after,
        )
        self.readers.append(reader)
        reader.catch_up()
        return reader

    def _remember(self, position: int, *, is_sure: bool = True) -> None:
        (self.remembered if is_sure else self.believed).append(position)

    def append(self, *records: Record) -> None:
        first = self.journal.append(records)
        for reader in self.readers:
            reader.appended(first, records)

    def say(self, count: int = 1, size: int = 0) -> None:
        """So many messages for everybody, in one go."""
        first = self.journal.next_seq
        self.append(*(record(first + i, size=size) for i in range(count)))

    def go_on(self) -> None:
        """What was put off has its turn."""
        for _ in range(len(self.waiting)):
            self.waiting.popleft()()

    def let_mark(self, pipe: Pipe) -> bytes:
        """The mark that has arrived behind what was sent."""
        self.go_on()
        (mark,) = pipe.marks
        pipe.marks.clear()
        return mark


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    case = Case(tmp_path)
    yield case
    case.journal.close()


def numbers(pipe: Pipe) -> list[int]:
    """Of the messages that have arrived."""
    return [number for frame in pipe.arrived for number in covered(frame)]


def covered(frame: Frame) -> list[int]:
    """The number of a message, or all that a gap stands for."""
    data = bytes(frame.data)
    if found := re.match(rb"gap (\d+) (\d+)", data):
        return list(range(int(found[1]), int(found[2]) + 1))
    found = re.match(rb"(\d+) ", data) or re.search(rb'"msg_id":"(\d+)"', data)
    assert found, data[:100]
    return [int(found[1])]


def drain(pipe: Pipe, reader: Reader) -> None:
    """The connection takes all there is, and then what comes of that."""
    while not pipe.is_empty:
        pipe.take()
        if not pipe.buffered_bytes:
            reader.drained()


# -- live and behind --------------------------------------------------------------------------------------


def test_who_keeps_up_gets_a_batch_in_one_send(case: Case):
    pipe = Pipe(takes_all=True)
    case.connect(pipe)
    case.say(100)
    assert (pipe.sends, numbers(pipe)) == (1, list(range(1, 101)))


def test_who_comes_later_is_given_what_is_there_and_then_what_comes(case: Case):
    case.say(5)
    pipe = Pipe(takes_all=True)
    case.connect(pipe, start=3)
    case.say(2)
    assert numbers(pipe) == [3, 4, 5, 6, 7]


def test_a_message_for_one_client_alone_reaches_no_other(case: Case):
    pipe = Pipe(takes_all=True)
    case.connect(pipe)
    case.append(record(1), record(2, ME), record(3, OTHER), record(4, kind=Kind.NOTE))
    late = Pipe(takes_all=True)
    case.connect(late)
    assert numbers(pipe) == numbers(late) == [1, 2, 4]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.OUTPUT, Kind.NOTE)])
def test_what_is_no_message_is_not_sent(case: Case, kind: Kind):
    pipe = Pipe(takes_all=True)
    case.connect(pipe)
    case.append(record(1, kind=kind), record(2))
    assert numbers(pipe) == [2]
    assert case.readers[0].position == 3


def test_who_does_not_keep_up_is_served_from_the_journal_and_costs_no_more_than_its_limit(case: Case):
    pipe = Pipe()
    reader = case.connect(pipe)
    for _ in range(300):
        case.say(1, size=2000)
    assert pipe.most_buffered <= LIMIT_BYTES + 2100
    drain(pipe, reader)
    assert numbers(pipe) == list(range(1, 301))
    assert pipe.most_buffered <= CHUNK_BYTES + 2100
    sends = pipe.sends
    case.say(1)
    assert pipe.sends == sends + 1, "it is live again"


def test_a_long_way_to_catch_up_is_gone_in_turns(tmp_path: Path):
    case = Case(tmp_path, limit_bytes=64 << 20)
    for _ in range(2 * MAX_CHUNKS):
        case.say(1, size=CHUNK_BYTES)
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    assert numbers(pipe) == list(range(1, MAX_CHUNKS + 1))
    reader.drained()  # means nothing now: its turn will come
    assert numbers(pipe) == list(range(1, MAX_CHUNKS + 1))
    case.say(1)
    case.go_on()
    case.go_on()
    assert numbers(pipe) == list(range(1, 2 * MAX_CHUNKS + 2))
    case.journal.close()


def test_a_gap_is_told_in_place_of_what_is_gone(tmp_path: Path):
    case = Case(tmp_path, limit_bytes=MIN_LIMIT_BYTES)
    for _ in range(100):
        case.say(1, size=10_000)
    pipe = Pipe(takes_all=True)
    case.connect(pipe)
    first = case.journal.first_seq
    assert first > 1
    assert bytes(pipe.arrived[0].data) == f"gap 1 {first - 1}".encode()
    assert numbers(pipe) == list(range(1, 101))
    case.journal.close()


# -- the legacy dialect -----------------------------------------------------------------------------------


def test_the_legacy_dialect_is_made_of_the_same_messages(case: Case):
    tag, v1 = stream("c1", "text\n")
    pipe = Pipe(takes_all=True)
    case.connect(pipe, dialect=Dialect.LEGACY)
    case.append(Record(Kind.OUTPUT, 0, 0, b"", tag, v1))
    (frame,) = pipe.arrived
    said = json.loads(bytes(frame.data))
    assert not frame.is_binary
    assert (said["channel"], said["content"]["text"], said["parent_header"]["msg_id"]) == ("iopub", "text\n", "c1")


def test_what_the_legacy_dialect_cannot_say_is_left_out_and_harms_nobody(case: Case):
    tag, v1 = stream("c1")
    pipe = Pipe(takes_all=True)
    case.connect(pipe, dialect=Dialect.LEGACY)
    case.append(record(1), Record(Kind.OUTPUT, 0, 0, b"", tag, v1))
    assert len(pipe.arrived) == 1


# -- marks ------------------------------------------------------------------------------------------------


def test_what_was_surely_received_is_what_a_mark_came_back_for(case: Case):
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    case.say(3)
    assert (reader.delivered, case.remembered) == (1, [])
    reader.marked(case.let_mark(pipe))
    assert (reader.delivered, case.remembered) == (4, [4])


def test_one_mark_is_on_its_way_at_a_time_and_the_next_covers_all_since(case: Case):
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    case.say()
    first = case.let_mark(pipe)
    for _ in range(10):
        case.say()
    case.go_on()
    assert not pipe.marks
    reader.marked(first)
    assert reader.delivered == 2
    reader.marked(case.let_mark(pipe))
    assert reader.delivered == 12
    case.go_on()
    assert not pipe.marks, "nothing is left to be sure of"


@pytest.mark.parametrize("mark", [b"", b"x", b"\xff" * 8, b"\0" * 8, (99).to_bytes(8, "little")])
def test_a_mark_that_was_never_sent_says_nothing(case: Case, mark: bytes):
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    reader.marked(mark)
    case.say(3)
    true = case.let_mark(pipe)
    reader.marked(mark)
    assert (reader.delivered, case.remembered) == (1, [])
    reader.marked(true)
    reader.marked(true)  # twice is once
    assert case.remembered == [4]


# -- the end ----------------------------------------------------------------------------------------------


def test_who_is_to_part_reads_to_the_end_first(case: Case):
    pipe = Pipe()
    reader = case.connect(pipe)
    for _ in range(100):
        case.say(1, size=2000)
    reader.finish(Parting.SESSION_OVER)
    assert not pipe.parted
    drain(pipe, reader)
    assert (numbers(pipe), pipe.parted) == (list(range(1, 101)), [Parting.SESSION_OVER])


def test_who_is_live_parts_at_once_and_is_parted_once(case: Case):
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    reader.finish(Parting.SESSION_OVER)
    reader.part(Parting.GOING_AWAY)
    case.say()
    reader.drained()
    assert (pipe.parted, pipe.arrived) == ([Parting.SESSION_OVER], [])


def test_nothing_is_sent_to_a_connection_that_is_gone(case: Case):
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    case.say()
    mark = case.let_mark(pipe)
    case.say()
    reader.gone(in_order=False)
    case.say()
    reader.marked(mark)
    case.go_on()
    assert (numbers(pipe), pipe.marks) == ([1, 2], deque())
    assert case.remembered == [2], "what arrived has arrived"


def test_who_closes_in_order_has_read_what_was_sent(case: Case):
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    case.say()
    reader.marked(pipe.marks.popleft())
    case.say()  # too soon after the mark for another
    reader.gone(in_order=True)
    assert (case.remembered, case.believed) == ([2], [3]), "which it has not confirmed"


@pytest.mark.parametrize("takes_all", [True, False])
def test_who_closes_before_answering_a_mark_may_not_have_read_what_came_before_it(case: Case, takes_all: bool):
    """A frontend that reconnects in the middle of a flood closes in order, with megabytes on their way to it."""
    pipe = Pipe(takes_all=takes_all)
    reader = case.connect(pipe)
    case.say(2)
    case.go_on()
    reader.gone(in_order=True)
    assert (reader.delivered, case.remembered, case.believed) == (1, [], [])


# -- what a client saw last -------------------------------------------------------------------------------


def named(message_id: str, client: bytes = b"", size: int = 0) -> Record:
    _, parts = make_message(
        "stream", {"name": "stdout", "text": "x" * size}, channel=Channel.IOPUB, msg_id=message_id, session="k", date=""
    )
    return Record(Kind.OUTPUT, 0, 0, client, TAG, b"".join(join_v1(b"iopub", parts)))


def ids(pipe: Pipe) -> list[str]:
    return [parse_message(memoryview(frame.data))["header"]["msg_id"] for frame in pipe.arrived]


@pytest.mark.parametrize("start", [1, 2, 3], ids=["before it", "at it", "behind it"])
def test_who_says_what_it_saw_last_reads_on_behind_it(case: Case, start: int):
    case.append(*(named(name) for name in "abcde"))
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe, start=start, after="b")
    assert ids(pipe) == ["c", "d", "e"]
    case.append(named("f"))
    assert ids(pipe)[3:] == ["f"]
    for _ in range(2):
        reader.marked(case.let_mark(pipe))
    assert case.remembered[-1] == 7


def test_news_of_the_session_is_marked_at_once(case: Case):
    """Frontends hang up at a restart and come again: without the mark they would hear of it again, and hang up."""
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    case.say()
    case.append(record(2, kind=Kind.NOTE))
    reader.marked(pipe.marks[-1])
    assert (len(pipe.marks), reader.delivered) == (2, 3)


def test_a_flood_is_marked_now_and_then(case: Case):
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe)
    for _ in range(100):
        case.say()
    assert len(pipe.marks) == 1
    reader.marked(pipe.marks.popleft())
    assert len(pipe.marks) == 0
    case.go_on()
    assert len(pipe.marks) == 1


@pytest.mark.parametrize("start", [2, 2 * SEEK_RECORDS, 3 * SEEK_RECORDS + 10])
def test_what_a_library_confirmed_and_its_owner_never_saw_comes_again_to_who_says_so(case: Case, start: int):
    """Websocket libraries answer pings when they receive, and keep what they received until somebody asks for it."""
    for n in range(1, 3 * SEEK_RECORDS + 20):
        case.append(named(f"m{n}"))
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe, start=start, after="m1")
    while reader.position < case.journal.next_seq:
        case.go_on()
    assert ids(pipe) == [f"m{n}" for n in range(2, 3 * SEEK_RECORDS + 20)]


@pytest.mark.parametrize("after", ["nobody's", '"', "\ud800"])
def test_who_says_what_it_cannot_have_seen_last_reads_on_where_it_was(case: Case, after: str):
    case.append(*(named(name) for name in "abcde"))
    pipe = Pipe(takes_all=True)
    case.connect(pipe, start=3, after=after)
    assert (ids(pipe), case.remembered) == (["c", "d", "e"], [])


@pytest.mark.parametrize("after", ["", "a", "nobody's"])
def test_who_saw_more_than_the_journal_has_reads_on_and_is_not_sought_for_ever(case: Case, after: str):
    """Found by the fault tests: the search went round in a journal whose end somebody had cut off."""
    case.append(named("a"), named("b"))
    pipe = Pipe(takes_all=True)
    case.connect(pipe, start=2000, after=after)
    while case.waiting:
        case.go_on()
    case.append(named("c"))
    assert ids(pipe)[-1] == "c"


def test_a_long_search_is_gone_in_turns_and_has_an_end(tmp_path: Path):
    """A client that was away during a flood may name what was before it, or anything; others do not wait for it."""
    case = Case(tmp_path, limit_bytes=4 * SEEK_BYTES)
    size = CHUNK_BYTES - 500
    for n in range(2 * SEEK_BYTES // CHUNK_BYTES):
        case.append(named(f"{n}", size=size))
    pipe = Pipe(takes_all=True)
    reader = case.connect(pipe, start=5, after="nobody's")
    turns = 0
    while not pipe.arrived:
        (call,) = case.waiting
        assert call == reader.catch_up
        turns += 1
        case.go_on()
    assert ids(pipe)[0] == "4"
    assert turns <= SEEK_BYTES / CHUNK_BYTES / MAX_CHUNKS + 2
    case.journal.close()


def test_who_leaves_while_we_look_is_where_it_was(tmp_path: Path):
    case = Case(tmp_path, limit_bytes=SEEK_BYTES)
    for n in range(2 * MAX_CHUNKS):
        case.append(named(f"{n}", size=CHUNK_BYTES))
    pipe = Pipe(takes_all=True)
    case.connect(pipe, start=5, after="nobody's").gone(in_order=True)
    case.go_on()
    assert (pipe.arrived, case.remembered, case.believed) == ([], [], [])
    case.journal.close()


def test_a_connection_stalls_from_when_it_last_took_something(case: Case):
    """As far as can be told by who asks now and then."""
    pipe = Pipe()
    reader = case.connect(pipe)
    assert reader.stalled_seconds(100) == 0
    case.say(2)
    assert reader.stalled_seconds(101) <= 1
    assert reader.stalled_seconds(160) == 60
    pipe.take(1)
    assert reader.stalled_seconds(170) == 0
    assert reader.stalled_seconds(180) == 10
    pipe.take()
    assert reader.stalled_seconds(1000) == 0


# -- any interleaving ---------------------------------------------------------------------------------------


class Reading(RuleBasedStateMachine):
    """A client that loses its connection, and comes again, sees each of its messages once and in order, or is told
    how many are gone."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.case = Case(self.directory, limit_bytes=MIN_LIMIT_BYTES)
        self.mine: list[int] = []  # numbers of the messages that are for this client
        self.largest_batch = 0
        self.seen = 0  # every number up to here has been seen, told as gone, or was not this client's
        self.received: list[int] = []  # messages, in order
        self.connect_at(1)

    def connect_at(self, start: int, after: str = "") -> None:
        self.case.readers.clear()
        self.case.waiting.clear()
        self.pipe = Pipe()
        self.looked_at = 0
        self.reader = self.case.connect(self.pipe, start, after=after)

    @rule(
        sizes=st.lists(st.sampled_from([0, 100, 3000, 40_000]), min_size=1, max_size=8),
        clients=st.lists(st.sampled_from([b"", ME, OTHER]), min_size=8, max_size=8),
        kinds=st.lists(st.sampled_from([Kind.OUTPUT, Kind.NOTE, Kind.CUT]), min_size=8, max_size=8),
    )
    def append(self, sizes: list[int], clients: list[bytes], kinds: list[Kind]) -> None:
        first = self.case.journal.next_seq
        batch = [
            named(str(first + i), client, size)._replace(kind=kind)
            for i, (size, client, kind) in enumerate(zip(sizes, clients, kinds))
        ]
        self.mine += [first + i for i, r in enumerate(batch) if r.kind is not Kind.CUT and r.client in (b"", ME)]
        self.largest_batch = max(self.largest_batch, sum(len(r.body) for r in batch))
        self.case.append(*batch)

    @rule(count=st.integers(1, 20))
    def take_some(self, count: int) -> None:
        before = self.pipe.buffered_bytes
        self.pipe.take(count)
        if before and not self.pipe.buffered_bytes:
            self.reader.drained()

    @rule()
    def take_all(self) -> None:
        self.take_some(1 << 30)

    @rule(is_fast=st.booleans())
    def change_pace(self, is_fast: bool) -> None:
        drain(self.pipe, self.reader)
        self.pipe.takes_all = is_fast

    @precondition(lambda self: self.pipe.marks)
    @rule()
    def answer(self) -> None:
        self.reader.marked(self.pipe.marks.popleft())

    @rule()
    def others_had_their_turn(self) -> None:
        self.case.go_on()

    @rule()
    def lose_the_connection(self) -> None:
        """With all that is on its way. The client says nothing, and reads on where it surely was."""
        self.reader.gone(in_order=False)
        self.seen = self.reader.delivered - 1  # it may see some again, in order
        self.connect_at(self.reader.delivered)

    @precondition(lambda self: self.received)
    @rule(kept_back=st.integers(0, 30))
    def lose_the_connection_and_say_what_was_seen_last(self, kept_back: int) -> None:
        """Its library may have received, and confirmed, more than its owner came to see."""
        del self.received[max(len(self.received) - kept_back, 1) :]
        if self.received[-1] < self.case.journal.first_seq:
            return  # what is not there cannot be found
        self.reader.gone(in_order=False)
        self.seen = self.received[-1]
        self.connect_at(self.reader.delivered, after=str(self.seen))

    def not_seen(self, before: int) -> list[int]:
        return [number for number in self.mine if self.seen < number < before]

    @invariant()
    def look(self) -> None:
        for frame in self.pipe.arrived[self.looked_at :]:
            told = covered(frame)
            if len(told) > 1 or bytes(frame.data).startswith(b"gap"):
                assert not self.not_seen(told[0]), "no message before a gap is missing"
                assert told[-1] > self.seen
            else:
                assert told[0] > self.seen, "no message comes twice, or late"
                assert self.not_seen(told[0] + 1) == told, "and none is left out"
                self.received += told
            self.seen = told[-1]
        self.looked_at = len(self.pipe.arrived)
        assert not self.not_seen(self.reader.delivered), "nothing is taken for received that was not"

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.pipe.most_buffered <= max(LIMIT_BYTES + self.largest_batch, CHUNK_BYTES + 41_000)

    def teardown(self) -> None:
        if not hasattr(self, "case"):
            return
        drain(self.pipe, self.reader)
        self.pipe.takes_all = True
        while self.case.waiting or self.pipe.marks:
            self.case.go_on()
            while self.pipe.marks:
                self.answer()
        self.look()
        assert not self.not_seen(self.case.journal.next_seq), "in the end it has seen all"
        assert self.reader.position == self.case.journal.next_seq
        self.case.journal.close()
        shutil.rmtree(self.directory)


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
