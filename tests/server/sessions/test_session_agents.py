"""What a session owes agents beside: a cell runs once however often it is asked for, under limits of its own, and can
be taken back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from cellgate.sessions.agents import message_of
from cellgate.sessions.cells import Cell, cap_limits
from cellgate.sessions.effects import Interrupt, Kill, Remember, Send, Tell
from cellgate.sessions.known import ENTRY_BYTES, MAX_KNOWN, KnownCells
from cellgate.sessions.output_cap import CapLimits
from cellgate.sessions.records import Kind
from cellgate.wire.agent import Execute
from cellgate_kernel.message import Channel
from tests.support.stage import DATE, LIMITS, Stage, reply, said, status, stream, whole
from tests.support.stage import cell as jupyters_cell


def cell(name: str, code: str = "1+1", **options):
    return message_of(Execute(name, code, **options), date=DATE, max_bytes=1 << 20)


def told(stage: Stage) -> list[Mapping[str, Any]]:
    return [effect.event for effect in stage.effects if isinstance(effect, Tell)]


def ends(stage: Stage) -> list[dict]:
    return [json.loads(bytes(record.body)) for record in stage.records if record.kind is Kind.TERMINAL]


def crash(stage: Stage) -> None:
    known = b"".join(effect.entry for effect in stage.effects if isinstance(effect, Remember))
    stage.crash(known=known)
    stage.do(stage.session.adopted(stage.sends_in_all(), stage.now))


# -- once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_over", [False, True], ids=["while it runs", "when it has finished"])
@pytest.mark.parametrize("dies", [False, True], ids=["", "and its gateway died"])
def test_a_cell_that_is_asked_for_again_does_not_run_again(is_over: bool, dies: bool):
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*(whole("c1") if is_over else [status("busy", "c1")]))
    if dies:
        crash(stage)
    stage.ask(cell("c1"), client=b"somebody else")
    assert stage.sends() == ["c1"]
    (reply,) = told(stage)
    accepted = next(record.seq for record in stage.records if record.kind is Kind.REQUEST)
    was = "finished" if is_over else "running"
    assert reply == {"event": "reply", "re": "c1", "ok": True, "cell": "c1", "was": was, "accepted": accepted}


def test_one_that_waits_is_known_too():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"), cell("c2"))
    assert told(stage)[0]["was"] == "waiting"
    stage.hear(*whole("c1"))
    stage.hear(*whole("c2"))
    assert stage.sends() == ["c1", "c2"]


def test_a_jupyter_client_that_sends_the_id_of_a_waiting_cell_adds_none():
    """Each such request was another cell of the same id, and the queue counted them as one."""
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.ask(*[jupyters_cell(name) for name in ("c1", "c2", "c2")], client=b"notebook")
    assert len(stage.session.pending) == 2
    stage.hear(*whole("c1"))
    stage.hear(*whole("c2"))
    assert stage.sends() == ["c1", "c2"]


def test_another_cell_under_a_known_id_is_refused_and_not_run():
    stage = Stage().started()
    stage.ask(cell("1", "first"))
    stage.hear(*whole("1"))
    stage.ask(cell("1", "second"))
    assert stage.sends() == ["1"]
    assert [(event["event"], event["re"], event["code"]) for event in told(stage)] == [("error", "1", "id_taken")]


def test_a_cell_that_no_journal_has_is_not_known():
    """A crash between keeping its entry and journalling it: nobody was told that it was accepted."""
    stage = Stage().started()
    entry = KnownCells().add(b"c1", "1+1", stage.session.next_seq)
    stage.crash(known=entry)
    stage.do(stage.session.adopted(0, stage.now))
    stage.ask(cell("c1"))
    assert stage.sends() == ["c1"]


def test_an_entry_is_kept_before_its_cell_is_journalled_and_sent():
    stage = Stage().started()
    kinds = [type(effect).__name__ for effect in stage.ask(cell("c1"))]
    assert kinds == ["Remember", "Append", "Send"]


def test_a_cell_that_was_refused_may_be_asked_for_again():
    stage = Stage().started()
    stage.session.is_degraded = True
    stage.ask(cell("c1"))
    stage.session.is_degraded = False
    stage.ask(cell("c1"))
    assert stage.sends() == ["c1"]


def test_known_cells_are_bounded_and_survive_what_a_crash_cuts_off():
    cells = KnownCells()
    entries = b"".join(cells.add(b"%d" % number, "x", number) for number in range(MAX_KNOWN + 10))
    for known in (cells, KnownCells(entries + b"torn")):
        assert known.find(b"9") is None
        found = known.find(b"10")
        assert found is not None and found.seq == 10 and found.is_of("x") and not found.is_of("y")
    assert len(entries) == (MAX_KNOWN + 10) * ENTRY_BYTES


# -- limits ----------------------------------------------------------------------------------------------


def test_a_cell_may_have_less_time_than_the_session_and_never_more():
    stage = Stage().started()
    stage.ask(cell("short", timeout=3.0), cell("long", timeout=1e9))
    stage.pass_time(2.9)
    assert not any(isinstance(effect, Interrupt) for effect in stage.effects)
    assert stage.session.wakes_at() == pytest.approx(stage.now + 0.1)
    stage.pass_time(0.2)
    assert any(isinstance(effect, Interrupt) for effect in stage.effects)
    assert stage.notes()[-1] == {"note": "timeout_wall", "limit_seconds": 3.0}
    stage.pass_time(LIMITS.interrupt_grace_seconds + 0.1)
    assert any(isinstance(effect, Kill) for effect in stage.effects)
    stage.die()
    assert stage.ends()["short"] == "oom", "as its certificate says"


def test_the_time_of_a_long_one_is_the_sessions():
    stage = Stage().started()
    stage.ask(cell("long", timeout=1e9))
    stage.pass_time(LIMITS.cell_seconds + 0.1)
    assert any(isinstance(effect, Interrupt) for effect in stage.effects)


def test_a_cells_own_limit_of_output_holds_also_after_a_crash():
    stage = Stage().started()
    stage.ask(cell("c1", limits={"output_messages_per_cell": 8}))
    stage.hear(status("busy", "c1"), *(stream("c1") for _ in range(10)))
    assert stage.told("c1").count("stream") == 6
    crash(stage)
    stage.hear(*(stream("c1") for _ in range(10)), *whole("c1")[1:])
    (end,) = ends(stage)
    assert end["truncated"]["messages"] == 20 - 6 - 2
    assert end["metrics"]["output_messages"] == 20


@pytest.mark.parametrize("nonsense", [None, [], {"timeout": "x", "limits": 7}, {"timeout": True, "limits": {"x": -1}}])
def test_options_that_make_no_sense_change_nothing(nonsense):
    assert cap_limits(LIMITS, nonsense if isinstance(nonsense, dict) else {}) == CapLimits.of(1 << 16, 100)


def test_options_beyond_the_sessions_are_the_sessions():
    options = {"limits": {"output_bytes_per_cell": 1 << 60, "output_messages_per_cell": float("inf")}}
    assert cap_limits(LIMITS, options) == CapLimits.of(1 << 16, 100)


# -- taking back -----------------------------------------------------------------------------------------


def test_a_cell_that_waits_is_cancelled_and_the_others_run():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"), cell("c3"))
    stage.do(stage.session.cancel("c2", stage.now))
    assert stage.ends() == {"c2": "cancelled"}
    assert stage.told("c2") == ["busy", "reply:aborted", "idle"]
    stage.hear(*whole("c1"))
    stage.hear(*whole("c3"))
    assert stage.sends() == ["c1", "c3"]
    stage.check_contract(is_over=True)


def test_one_that_runs_is_interrupted_and_one_that_is_over_is_left_alone():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(status("busy", "c1"))
    stage.do(stage.session.cancel("c1", stage.now))
    assert any(isinstance(effect, Interrupt) for effect in stage.effects)
    stage.do(stage.session.interrupt_sent(1, stage.now))
    stage.hear(reply("c1", "error"), status("idle", "c1"))
    assert stage.ends() == {"c1": "interrupted"}
    assert stage.session.stage_of("c1") == "finished"
    before = len(stage.records)
    stage.do(stage.session.cancel("c1", stage.now))
    stage.do(stage.session.cancel("none", stage.now))
    assert len(stage.records) == before
    assert stage.session.stage_of("none") is None


# -- what it took ----------------------------------------------------------------------------------------


def test_the_end_of_a_cell_says_what_it_took():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.now += 2
    stage.hear(*whole("c1"))
    content = {"status": "ok", "execution_count": 7, "user_expressions": {"a": {"status": "ok"}}, "payload": [{}]}
    lines = [stream("c2") for _ in range(3)]
    stage.now += 1
    reply = said("execute_reply", content, "c2", Channel.SHELL)
    stage.hear(status("busy", "c2"), *lines, reply, status("idle", "c2"))
    metrics = {"wall": 1.0, "queued": 2.0, "output_messages": 3, "output_bytes": 3 * len(lines[0][1])}
    end = ends(stage)[1]
    assert end.pop("date") == DATE
    assert end == {
        "reason": "ok",
        "sentence": "",
        "facts": {},
        "metrics": metrics,
        "count": 7,
        "expressions": {"a": {"status": "ok"}},
        "payload": [{}],
    }


def test_a_cell_that_never_ran_took_no_time():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.now += 2
    stage.do(stage.session.restart(stage.now))
    assert [(end["metrics"]["wall"], end["metrics"]["queued"]) for end in ends(stage)] == [(2.0, 0.0), (0.0, 2.0)]


def test_a_huge_reply_is_told_by_its_size_alone():
    stage = Stage().started()
    stage.ask(cell("c1"))
    content = {"status": "ok", "execution_count": 1, "user_expressions": {"a": "x" * 100_000}}
    stage.hear(status("busy", "c1"), said("execute_reply", content, "c1", Channel.SHELL), status("idle", "c1"))
    (end,) = ends(stage)
    assert end["left_out_bytes"] > 100_000
    assert "expressions" not in end


def test_what_a_reply_said_is_told_with_the_end_also_by_another_gateway():
    """One that died between the two took count, values and changes with it."""
    stage = Stage().started()
    stage.ask(cell("c1"))
    content = {"status": "ok", "execution_count": 7, "user_expressions": {"a": {"status": "ok"}}}
    stage.hear(status("busy", "c1"), said("execute_reply", content, "c1", Channel.SHELL))
    stage.crash()
    stage.do(stage.session.adopted(1, stage.now))
    stage.hear(status("idle", "c1"))
    (end,) = ends(stage)
    assert (end["count"], end["expressions"]) == (7, {"a": {"status": "ok"}})


def test_an_empty_account_is_one(monkeypatch: pytest.MonkeyPatch):
    """Of a cell that recovered without anything known of it."""
    message = cell("c1")
    one = Cell.accepted(1, b"a", message, LIMITS, 5.0)
    assert one.account(7.0) == {"metrics": {"wall": 0.0, "queued": 2.0, "output_messages": 0, "output_bytes": 0}}
    assert [type(effect) for effect in Stage().started().ask(message)][-1] is Send
