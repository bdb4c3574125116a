"""What the gateway asks a kernel itself: answered to it alone, and always."""

from __future__ import annotations

from cellgate.sandbox.certificate import Reason
from cellgate.sessions.asked import MAX_ASKED
from cellgate.sessions.effects import Answered, Send
from cellgate.sessions.records import Kind
from cellgate_kernel.message import Channel
from tests.support.stage import Stage, cell, client_message, said, status, stream, whole


def question(msg_id: str, channel: Channel = Channel.SHELL):
    return client_message("variables_request", {}, msg_id, channel)


def put(stage: Stage, msg_id: str, channel: Channel = Channel.SHELL):
    return stage.do(stage.session.ask(question(msg_id, channel), stage.now, is_judged=False))


def answers(stage: Stage) -> dict[str, str]:
    """By id: what the kernel said, or why it will not."""
    found = [effect for effect in stage.effects if isinstance(effect, Answered)]
    assert len({effect.msg_id for effect in found}) == len(found), "none is answered twice"
    return {effect.msg_id: effect.reason or "reply" for effect in found}


def reply(msg_id: str, channel: Channel = Channel.SHELL):
    return said("variables_reply", {"status": "ok"}, msg_id, channel)


def test_the_answer_is_for_the_gateway_alone():
    stage = Stage().started()
    before = len(stage.messages)
    put(stage, "q")
    assert stage.sends() == ["q"]
    stage.hear(status("busy", "q"), stream("q", "of a repr that prints"), reply("q"), status("idle", "q"))
    assert answers(stage) == {"q": "reply"}
    assert stage.messages[before:] == []
    assert stage.session.ignored["output_of_question"] == 1


def test_what_was_answered_is_known_to_be_so_by_whoever_takes_over():
    """The link is acknowledged, so that it never comes again: the journal must say how far it came."""
    stage = Stage().started()
    put(stage, "q")
    stage.hear(status("busy", "q"), reply("q"), status("idle", "q"))
    assert stage.records[-1].kind is Kind.CUT
    assert stage.records[-1].link == 3


def test_on_the_shell_it_keeps_its_place_among_the_cells_and_on_control_it_goes_at_once():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    put(stage, "variables")
    put(stage, "files", Channel.CONTROL)
    assert stage.sends() == ["c1", "files"]
    stage.hear(*whole("c1"))
    stage.hear(*whole("c2"))
    assert stage.sends() == ["c1", "files", "c2", "variables"]


def test_a_kernel_that_ends_answers_what_it_was_asked():
    stage = Stage().started()
    put(stage, "q")
    stage.die(Reason.OOM)
    assert answers(stage) == {"q": "oom"}
    stage.start()
    stage.hear(reply("q"))
    assert answers(stage) == {"q": "oom"}, "another kernel cannot answer it"


def test_a_second_answer_and_one_that_nobody_asked_for_are_not_listened_to():
    stage = Stage().started()
    put(stage, "q")
    stage.hear(reply("q"), reply("q"), reply("other"))
    assert answers(stage) == {"q": "reply"}
    assert stage.session.ignored["stray_reply"] == 2


def test_what_the_kernel_passed_over_is_answered_when_it_answers_the_next():
    stage = Stage().started()
    put(stage, "q1")
    put(stage, "q2")
    stage.hear(status("busy", "q1"), status("idle", "q1"), reply("q2"))
    assert answers(stage) == {"q1": "cancelled", "q2": "reply"}


def test_without_a_kernel_or_with_too_many_questions_the_answer_is_no():
    stage = Stage().started()
    for number in range(MAX_ASKED + 1):
        put(stage, f"q{number}")
    assert answers(stage) == {f"q{MAX_ASKED}": "queue_full"}
    stage.do(stage.session.delete(stage.now))
    put(stage, "late")
    assert len(answers(stage)) == MAX_ASKED + 2
    assert answers(stage)["late"] == "backend_error"


def test_a_question_before_the_kernel_runs_waits_for_it():
    stage = Stage()
    stage.do(stage.session.begin())
    put(stage, "variables")
    put(stage, "files", Channel.CONTROL)
    assert stage.sends() == []
    stage.start()
    assert sorted(stage.sends()) == ["files", "variables"]
    assert [type(effect) for effect in stage.effects].count(Send) == 2
