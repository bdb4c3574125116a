"""A session whose kernel gets only what was judged: order, denials, warnings, and whatever happens meanwhile."""

from __future__ import annotations

import json

import pytest

from cellgate.errors import PolicyError
from cellgate.policy.judge import judge, judge_message
from cellgate.policy.policies import STANDARD, STRICT
from cellgate.policy.verdicts import Verdict
from cellgate.sessions.docket import MAX_WARNED, Warner
from cellgate.sessions.effects import Judge
from cellgate.sessions.records import Kind
from cellgate.sessions.states import State
from cellgate_kernel.message import Channel
from tests.support.stage import Stage, cell, client_message, whole

ALLOWED = Verdict()
DENIED = judge("import socket", "python", STRICT)


def judging() -> Stage:
    return Stage(judges=True).started()


def complete(msg_id: str):
    return client_message("complete_request", {"code": "x.", "cursor_pos": 2}, msg_id)


def test_a_cell_reaches_the_kernel_when_it_is_allowed():
    stage = judging()
    stage.ask(cell("c1"))
    assert stage.sends() == []
    stage.judge(ALLOWED)
    assert stage.sends() == ["c1"]


def test_what_is_known_to_pass_does_not_wait():
    stage = judging()
    stage.do(stage.session.request(b"a", cell("c1"), stage.now, ALLOWED))
    assert stage.sends() == ["c1"]
    assert stage.asked() == []


def test_a_denied_cell_is_answered_in_full_and_never_sent():
    stage = judging()
    stage.ask(cell("c1", "import socket"))
    stage.judge(DENIED)
    assert stage.sends() == []
    assert stage.told("c1") == ["busy", "error", "reply:error", "idle"]
    assert stage.ends() == {"c1": "policy_denied"}
    stage.check_contract(is_over=True)
    error = stage.shown("c1")[1]
    assert error["content"]["ename"] == "PolicyDenied"
    assert "import socket" in "\n".join(error["content"]["traceback"])
    reply = stage.shown("c1")[2]
    (terminal,) = [json.loads(record.body) for record in stage.records if record.kind is Kind.TERMINAL]
    for facts in (error["metadata"]["cellgate"], reply["metadata"]["cellgate"], terminal | terminal["facts"]):
        assert facts["reason"] == "policy_denied"
        assert facts["policy"] == "strict"
        assert {finding["rule"] for finding in facts["findings"]} >= {"module"}


def test_what_cannot_be_judged_is_denied():
    stage = judging()
    stage.ask(cell("c1"))
    stage.judge(PolicyError("it took too long"))
    assert stage.ends() == {"c1": "policy_denied"}
    assert "it took too long" in stage.shown("c1")[1]["content"]["evalue"]
    assert stage.shown("c1")[1]["metadata"]["cellgate"]["error"] == "policy_error"


def test_cells_run_in_the_order_they_came_whatever_is_known_of_them():
    stage = judging()
    stage.ask(cell("c1"))
    stage.do(stage.session.request(b"b", cell("c2"), stage.now, ALLOWED))
    assert stage.sends() == []
    stage.judge(ALLOWED)
    stage.hear(*whole("c1"))
    assert stage.sends() == ["c1", "c2"]


def test_one_is_judged_at_a_time_also_while_another_runs():
    stage = judging()
    stage.ask(*(cell(f"c{number}") for number in range(4)))
    assert len(stage.asked()) == 1
    for _ in range(4):
        stage.judge(ALLOWED)
    assert stage.sends() == ["c0"]
    assert stage.asked() == []


def test_a_denied_cell_waits_for_its_turn_and_takes_along_what_is_behind():
    """As one would that fails."""
    stage = judging()
    stage.ask(cell("c1"), cell("c2"), cell("c3"))
    stage.judge(ALLOWED)
    stage.judge(DENIED)
    assert stage.ends() == {}
    stage.hear(*whole("c1"))
    assert stage.ends() == {"c1": "ok", "c2": "policy_denied", "c3": "cancelled"}
    stage.judge(ALLOWED)  # of the one that is no more
    assert stage.sends() == ["c1"]
    stage.ask(cell("c4"))
    stage.judge(ALLOWED)
    assert stage.sends() == ["c1", "c4"]


def test_a_denied_cell_that_stops_nobody_takes_nothing_along():
    stage = judging()
    stage.ask(cell("c1", stop_on_error=False), cell("c2"))
    stage.judge(DENIED)
    stage.judge(ALLOWED)
    assert stage.sends() == ["c2"]


def test_other_requests_keep_their_place_and_are_answered_when_denied():
    stage = judging()
    stage.ask(complete("q1"), cell("c1"), complete("q2"))
    stage.judge(DENIED)
    stage.judge(ALLOWED)
    stage.judge(ALLOWED)
    assert stage.sends() == ["c1", "q2"]
    assert stage.told("q1") == ["busy", "reply:error", "idle"]
    assert stage.shown("q1")[1]["metadata"]["cellgate"]["reason"] == "policy_denied"


def test_control_overtakes_cells_that_are_judged_and_keeps_its_own_order():
    stage = judging()
    debug = [client_message("debug_request", {"command": c}, f"d{c}", Channel.CONTROL) for c in ("1", "2")]
    stage.ask(cell("c1"), *debug)
    first, second = stage.asked()
    assert second.message.msg_id == "d1"
    stage.do(stage.session.judged(second, ALLOWED, stage.now))
    assert stage.sends() == ["d1"]
    stage.do(stage.session.judged(stage.asked()[1], ALLOWED, stage.now))
    assert stage.sends() == ["d1", "d2"]
    stage.do(stage.session.judged(first, ALLOWED, stage.now))
    assert stage.sends() == ["d1", "d2", "c1"]


def test_an_interrupt_does_not_wait_for_a_verdict():
    stage = judging()
    stage.ask(cell("c1"), client_message("interrupt_request", {}, "i1", Channel.CONTROL))
    assert stage.told("i1") == ["busy", "reply:ok", "idle"]


def test_a_denied_comm_is_closed():
    stage = judging()
    stage.ask(client_message("comm_open", {"comm_id": "x1", "target_name": "t", "data": {}}, "o1"))
    stage.judge(judge_message("comm_open", {}, STRICT))
    assert stage.told("o1") == ["busy", "comm_close", "idle"]
    assert stage.shown("o1")[1]["content"]["comm_id"] == "x1"


@pytest.mark.parametrize("verdict", [ALLOWED, DENIED], ids=["allowed", "denied"])
@pytest.mark.parametrize("end", ["delete", "restart"])
def test_a_verdict_that_comes_too_late_changes_nothing(end, verdict):
    stage = judging()
    stage.ask(cell("c1"), client_message("debug_request", {}, "d1", Channel.CONTROL))
    asked = stage.asked()
    stage.do(stage.session.delete(stage.now) if end == "delete" else stage.session.restart(stage.now))
    assert stage.ends() == {"c1": "cancelled"}
    told = len(stage.records)
    for item in asked if end == "delete" else asked[:1]:
        stage.do(stage.session.judged(item, verdict, stage.now))
    assert len(stage.records) == told
    assert stage.sends() == []


def test_whatever_waits_for_a_verdict_is_answered_when_there_is_no_kernel_any_more():
    stage = Stage(judges=True)
    stage.do(stage.session.begin())
    stage.ask(cell("c1"), complete("q1"), client_message("debug_request", {}, "d1", Channel.CONTROL))
    stage.do(stage.session.start_failed(1, "no room", stage.now))
    assert stage.session.state is State.DEAD
    assert [stage.told(msg_id)[-1] for msg_id in ("c1", "q1", "d1")] == ["idle"] * 3


def test_the_next_gateway_judges_again_what_waits():
    """Its policy may be another."""
    stage = judging()
    stage.ask(cell("c1"), cell("c2"))
    stage.judge(ALLOWED)
    stage.judge(ALLOWED)
    stage.crash()
    stage.effects.clear()
    stage.do(stage.session.adopted(1, stage.now))
    stage.hear(*whole("c1"))
    assert stage.sends() == []
    for item in [effect.item for effect in stage.effects if isinstance(effect, Judge)]:
        stage.do(stage.session.judged(item, DENIED, stage.now))
    while stage.asked():
        stage.judge(DENIED)
    assert stage.ends() == {"c1": "ok", "c2": "policy_denied"}
    stage.check_contract(is_over=True)


def test_warnings_stand_beside_the_results_of_their_cell_once():
    stage = judging()
    code = "import requests\nrequests.get(u)"
    verdict = judge(code, "python", STANDARD)
    for name in ("c1", "c2"):
        stage.ask(cell(name, code))
        stage.judge(verdict)
        stage.hear(*whole(name))
    (note,) = [facts for facts in stage.notes() if facts["note"] == "policy_warnings"]
    assert {finding["rule"] for finding in note["findings"]} == {"network"}
    assert note["policy"] == "standard"
    shown = [message for message in stage.shown("c1") if message["msg_type"] == "stream"]
    assert "requests" in shown[0]["content"]["text"]
    assert stage.ends() == {"c1": "ok", "c2": "ok"}


def test_a_silent_cell_is_not_warned_of():
    stage = judging()
    code = "import requests\nrequests.get(u)"
    stage.ask(cell("c1", code, silent=True))
    stage.judge(judge(code, "python", STANDARD))
    assert stage.notes() == []


def test_what_was_warned_of_is_remembered_up_to_a_number():
    warner = Warner()
    told = 0
    for number in range(MAX_WARNED + 10):
        code = f"import requests as r\nr.get{number}(u)\nopen(u)"
        told += warner.note(judge(code, "python", STANDARD)) is not None
    assert told <= MAX_WARNED


def test_what_is_known_to_pass_stays_behind_a_request_that_is_judged():
    stage = judging()
    stage.ask(complete("q1"))
    stage.do(stage.session.request(b"b", complete("q2"), stage.now, ALLOWED))
    assert stage.sends() == []
    stage.judge(ALLOWED)
    assert stage.sends() == ["q1", "q2"]


def test_no_verdict_is_wanted_of_a_cell_that_was_cancelled():
    stage = judging()
    stage.ask(cell("c1"), cell("c2"), cell("c3"))
    stage.do(stage.session.restart(stage.now))
    stage.ask(cell("c4"))
    stage.judge(ALLOWED)  # of the first, which was asked for before
    assert [item.message.msg_id for item in stage.asked()] == ["c4"]
