"""The chaos run in small, and that its checks find what they look for."""

from __future__ import annotations

import pytest

from cellgate.sessions.records import Kind, Record
from cellgate_kernel.message import Channel, Status, Tag
from tests.faults.chaos import Plan, run_chaos
from tests.faults.history import Expected, check_companion, check_journal, check_owner, check_visitor
from tests.faults.roamer import Seen
from tests.faults.websocket import Message

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

NONCE = "s0"
CELLS = [Expected("s0-cell-0", 0, 2), Expected("s0-cell-1", 1, 1)]


@pytest.mark.native
@pytest.mark.slow
async def test_nothing_is_lost_or_doubled_while_clients_are_cut_off_and_gateways_killed():
    plan = Plan(7, sessions=4, drops=20, kills=6, drop_every=0.2, kill_every=0.5, patience=4.0)
    report = await run_chaos(plan)
    print(report)
    assert not report.tally.faults, report
    assert report.tally.cells > 0


# -- the checks ------------------------------------------------------------------------------------------


def message(number: int, kind: str, parent: str = "", channel: str = "iopub", **content: object) -> Message:
    return Message(channel, {"msg_id": f"m{number}", "msg_type": kind}, parent, {}, content)


def history() -> list[Message]:
    """Of two cells, as it should be."""
    said = []
    for cell in CELLS:
        said += [
            ("status", "iopub", {"execution_state": "busy"}),
            ("execute_input", "iopub", {}),
            *(("stream", "iopub", {"text": f"s0 {cell.number} {i} {cell.number + 1}\n"}) for i in range(cell.lines)),
            ("execute_reply", "shell", {"status": "ok"}),
            ("status", "iopub", {"execution_state": "idle"}),
        ]
    parents = [CELLS[0].id] * 6 + [CELLS[1].id] * 5
    return [
        message(n, kind, parent, channel, **content)
        for n, ((kind, channel, content), parent) in enumerate(zip(said, parents))
    ]


def seen(messages: list[Message], connection: int = 1) -> list[Seen]:
    return [Seen(connection, message) for message in messages]


def test_a_whole_history_has_no_fault():
    tally = check_owner(NONCE, CELLS, seen(history()))
    assert (tally.faults, tally.cells, tally.lines, tally.lost, tally.doubled) == ([], 2, 3, 0, 0)


@pytest.mark.parametrize("place", range(11))
def test_each_message_that_is_missing_is_found(place: int):
    messages = history()
    del messages[place]
    tally = check_owner(NONCE, CELLS, seen(messages))
    assert tally.faults
    assert tally.lost == (place in (2, 3, 8))


@pytest.mark.parametrize("place", range(11))
def test_each_message_that_comes_twice_is_found(place: int):
    messages = history()
    messages.insert(place, messages[place])
    tally = check_owner(NONCE, CELLS, seen(messages))
    assert tally.faults
    assert tally.doubled == (place in (2, 3, 8))


def test_lines_out_of_order_or_of_another_session_are_found():
    messages = history()
    messages[2], messages[3] = messages[3], messages[2]
    assert "out of order" in check_owner(NONCE, CELLS, seen(messages)).faults[0]
    messages = history()
    messages[2] = message(2, "stream", CELLS[0].id, text="s1 0 0 1\n")
    assert "foreign are ['s1 0 0 1']" in check_owner(NONCE, CELLS, seen(messages)).faults[0]


def test_a_lost_variable_and_a_cell_that_ran_twice_show_in_the_counter():
    messages = history()
    messages[8] = message(8, "stream", CELLS[1].id, text="s0 1 0 1\n")
    assert check_owner(NONCE, CELLS, seen(messages)).lost == 1


def test_a_companion_may_see_twice_but_not_miss():
    messages = [m for m in history() if m.channel == "iopub"]
    twice, tally = check_companion(NONCE, seen(history()), seen(messages[:4]) + seen(messages[2:], 2))
    assert (twice, tally.faults) == (2, [])
    _, tally = check_companion(NONCE, seen(history()), seen(messages[:4] + messages[5:]))
    assert tally.faults


def test_a_visitor_sees_a_stretch_without_a_hole_from_the_beginning_of_a_cell():
    messages = [m for m in history() if m.channel == "iopub"]
    assert not check_visitor(NONCE, seen(history()), seen(messages[:3]) + seen(messages[5:], 2)).faults
    assert check_visitor(NONCE, seen(history()), seen([messages[0], messages[2]])).faults
    assert check_visitor(NONCE, seen(history()), seen(messages[2:])).faults


def test_a_journal_accepts_and_ends_each_cell_once():
    requests = [record(Kind.REQUEST, cell.id) for cell in CELLS]
    ends = [record(Kind.TERMINAL, cell.id) for cell in CELLS]
    assert not check_journal(NONCE, CELLS, requests + ends).faults
    for wrong in (requests + ends[:1], requests + ends + ends[:1], requests[:1] + ends, requests * 2 + ends):
        assert check_journal(NONCE, CELLS, wrong).faults


def record(kind: Kind, cell_id: str) -> Record:
    return Record(kind, 1, 0, b"", Tag(Channel.SHELL, "execute_request", Status.NONE, cell_id.encode()))
