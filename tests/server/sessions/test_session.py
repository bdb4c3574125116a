"""The session core: how cells travel, how each of them ends, whatever kernel, clients and clocks do."""

from __future__ import annotations

import json

import pytest

from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sessions import cells
from cellgate.sessions.asked import MAX_ASKED
from cellgate.sessions.cells import MAX_CARRIED_BYTES
from cellgate.sessions.effects import Append, Close, Destroy, Interrupt, Kill, Save, Send, StartKernel
from cellgate.sessions.journal import Gap, Reading
from cellgate.sessions.records import Kind
from cellgate.sessions.session import RESTART_PAUSES
from cellgate.sessions.states import CELL_MOVES, CellReason, Phase, State
from cellgate_kernel.message import Channel
from tests.support.stage import LIMITS, Stage, cell, client_message, reply, said, status, stream, whole, with_limits


def kinds(effects):
    return [type(effect) for effect in effects]


# -- the way of a cell ------------------------------------------------------------------------------------


def test_a_cell_is_journalled_before_it_is_sent_and_ends_in_one_append():
    stage = Stage().started()
    assert kinds(stage.ask(cell("c1"))) == [Append, Send]
    assert kinds(stage.hear(status("busy", "c1"), stream("c1"), reply("c1"), status("idle", "c1"))) == [Append]
    assert stage.told("c1") == ["busy", "stream", "reply:ok", "idle"]
    assert stage.ends() == {"c1": "ok"}
    assert stage.session.state is State.READY


def test_output_goes_to_all_and_a_reply_to_whoever_asked():
    stage = Stage().started()
    stage.ask(cell("c1"), client=b"one")
    stage.hear(*whole("c1"))
    assert [r.client for r in stage.records if r.kind is Kind.OUTPUT] == [b"", b"one", b""]


def test_the_kernel_gets_one_cell_at_a_time_in_the_order_they_came():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"), cell("c3"))
    assert stage.sends() == ["c1"]
    stage.hear(status("busy", "c1"), reply("c1"))
    assert stage.sends() == ["c1"], "not before its idle"
    stage.hear(status("idle", "c1"))
    assert stage.sends() == ["c1", "c2"]
    stage.hear(*whole("c2"))
    assert stage.sends() == ["c1", "c2", "c3"]


def test_messages_of_a_link_are_numbered_without_a_gap():
    stage = Stage().started()
    stage.ask(cell("c1"), client_message("comm_msg", {"comm_id": "x"}, "m1"), cell("c2"))
    stage.hear(*whole("c1"))
    assert [e.number for e in stage.effects if isinstance(e, Send)] == [1, 2, 3]


def test_what_comes_before_there_is_a_kernel_waits_for_it():
    stage = Stage()
    stage.do(stage.session.begin())
    stage.ask(cell("c1"), client_message("kernel_info_request", {}, "k1"), cell("c2"))
    assert stage.sends() == []
    stage.start()
    assert stage.sends() == ["k1", "c1"]


def test_other_requests_keep_their_place_and_comms_overtake():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"), client_message("complete_request", {}, "t1"))
    stage.ask(client_message("comm_msg", {}, "m1"), client_message("kernel_info_request", {}, "k1"))
    assert stage.sends() == ["c1", "m1", "k1"]
    stage.hear(*whole("c1"))
    assert stage.sends() == ["c1", "m1", "k1", "c2", "t1"]


def test_an_idle_that_comes_before_the_reply_is_held_until_then():
    """The two come on different ways where a kernel speaks ZMQ, and the reply may be the later."""
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.hear(status("busy", "c1"), status("idle", "c1"))
    assert stage.told("c1") == ["busy"]
    stage.hear(reply("c1"))
    assert stage.told("c1") == ["busy", "reply:ok", "idle"]
    assert stage.sends() == ["c1", "c2"]


def test_after_an_error_those_that_wait_are_aborted():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"), cell("c3"), client_message("complete_request", {}, "t1"))
    stage.hear(*whole("c1", "error"))
    assert stage.ends() == {"c1": "error", "c2": "cancelled", "c3": "cancelled"}
    assert stage.told("c2") == ["busy", "reply:aborted", "idle"]
    assert stage.sends() == ["c1", "t1"], "what is no cell is answered all the same"


@pytest.mark.parametrize("options", [{"stop_on_error": False}, {"silent": True}])
def test_an_error_stops_no_others_when_it_was_not_to(options):
    stage = Stage().started()
    stage.ask(cell("c1", **options), cell("c2"))
    stage.hear(*whole("c1", "error"))
    assert stage.sends() == ["c1", "c2"]


@pytest.mark.parametrize("heard", [(), (status("busy", "c1"),)], ids=["before", "after"])
def test_a_cell_is_busy_once_also_when_its_kernel_dies_before_it_said_so(heard):
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*heard)
    stage.die()
    assert stage.told("c1") == ["busy", "error", "reply:error", "idle"]


def test_a_cell_that_is_sent_again_while_it_is_pending_runs_once():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"), cell("c1"), cell("c2"))
    stage.hear(*whole("c1"), *whole("c2"))
    assert stage.sends() == ["c1", "c2"]
    assert stage.session.ignored["repeated_request"] == 2


# -- what is refused --------------------------------------------------------------------------------------


def refused(stage, msg_id):
    assert stage.told(msg_id)[-1] == "idle" and sum(kind.startswith("reply") for kind in stage.told(msg_id)) == 1
    replied = next(message for message in stage.shown(msg_id) if message["msg_type"].endswith("_reply"))
    return replied["metadata"]["cellgate"]["reason"]


def test_code_that_is_too_long_is_refused_with_the_size_that_would_pass():
    stage = Stage().started()
    stage.ask(cell("c1", "é" * 500), cell("c2", "é" * 501))
    assert stage.sends() == ["c1"]
    assert refused(stage, "c2") == "policy_denied"
    assert "1002 bytes; up to 1000" in str(stage.shown("c2"))


def test_a_full_queue_refuses():
    stage = Stage().started()
    stage.ask(*(cell(f"c{n}") for n in range(LIMITS.queue_cells + 2)))
    assert refused(stage, f"c{LIMITS.queue_cells + 1}") == "queue_full"
    assert stage.session.waiting_cells == LIMITS.queue_cells


def test_a_kernel_that_answers_nothing_is_not_asked_without_end():
    stage = Stage().started()
    stage.ask(*(client_message("complete_request", {}, f"t{n}") for n in range(MAX_ASKED + 1)))
    assert len(stage.sends()) == MAX_ASKED
    assert refused(stage, f"t{MAX_ASKED}") == "queue_full"


def test_messages_without_an_answer_wait_behind_cells_in_no_larger_number():
    """Some 370,000 of the smallest did: 540 MB of memory for 64 MiB of them."""
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.ask(*(client_message("other", {}, f"o{n}") for n in range(MAX_ASKED + 1)))
    assert "idle" in str(stage.shown(f"o{MAX_ASKED}"))
    assert not stage.shown(f"o{MAX_ASKED - 1}")


@pytest.mark.parametrize("judges", [False, True])
def test_what_overtakes_cells_and_waits_for_a_kernel_or_a_verdict_has_no_more_bytes_than_they(monkeypatch, judges):
    """A thousand of the largest had: 8 GiB of memory in one session, while its kernel was on its way."""
    monkeypatch.setattr(cells, "MAX_QUEUED_BYTES", 8 << 10)
    stage = Stage(judges=judges)
    stage.do(stage.session.begin())
    if judges:
        stage.start()
    requests = [client_message("debug_request", {"data": "x" * 1024}, f"d{n}", Channel.CONTROL) for n in range(8)]
    stage.ask(*requests)
    assert sum(not stage.shown(request.msg_id) for request in requests) == (8 << 10) // len(requests[0].v1)
    assert refused(stage, requests[-1].msg_id) == "queue_full"


def test_no_cell_is_accepted_while_the_journal_cannot_be_written():
    stage = Stage().started()
    stage.session.is_degraded = True
    stage.ask(cell("c1"))
    assert refused(stage, "c1") == "backend_error"
    assert stage.sends() == []


# -- a kernel that lies -----------------------------------------------------------------------------------


def test_a_second_reply_and_a_second_idle_are_not_shown():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(status("busy", "c1"), reply("c1"), reply("c1", "error"), status("idle", "c1"), status("idle", "c1"))
    stage.hear(reply("c1"))
    assert stage.told("c1") == ["busy", "reply:ok", "idle"]
    assert stage.ends() == {"c1": "ok"}
    assert stage.session.ignored == {"reply_twice": 1, "stray_status": 1, "stray_reply": 1}


def test_a_forged_idle_ends_no_cell():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.hear(status("busy", "c1"), status("idle", "c1"), stream("c1"), status("idle", "c1"))
    assert stage.sends() == ["c1"]
    assert stage.session.running.phase is Phase.QUIET
    assert stage.told("c1") == ["busy", "stream"]


def test_a_reply_to_a_cell_that_waits_is_not_believed():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.hear(*whole("c2"))
    assert stage.told("c2") == []
    stage.hear(*whole("c1"))
    stage.hear(*whole("c2", "error"))
    assert stage.ends() == {"c1": "ok", "c2": "error"}


@pytest.mark.parametrize("state", ["dead", "restarting", "starting"])
def test_that_it_died_is_not_the_kernels_to_say(state):
    stage = Stage().started()
    stage.hear(status("starting"))  # once at its beginning it may
    before = len(stage.shown())
    stage.hear(status(state))
    assert len(stage.shown()) == before
    assert stage.session.state is State.READY


def test_a_reply_dressed_as_output_is_not_shown():
    stage = Stage().started()
    stage.ask(cell("c1"))
    _, v1 = reply("c1")
    tag, _ = stream("c1")
    stage.hear((tag, v1), said("execute_reply", {"status": "ok"}, "c1", Channel.IOPUB))
    assert stage.told("c1") == []
    assert stage.session.ignored == {"lying_tag": 1, "stray_reply": 1}


def test_what_is_not_shown_is_known_to_the_journal_all_the_same():
    """It is acknowledged, and never comes again: who takes over must say so."""
    stage = Stage().started()
    stage.hear(status("busy", "nobody"))
    assert (stage.records[-1].kind, stage.records[-1].link) == (Kind.CUT, 1)


def test_output_of_a_thread_that_outlives_its_cell_is_shown():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*whole("c1"))
    stage.hear(stream("c1"), stream("unknown"))
    assert stage.told("c1")[-1] == "stream" and stage.told("unknown") == ["stream"]


def test_a_question_is_passed_to_who_asked_and_an_answer_to_the_kernel_unwritten():
    stage = Stage().started()
    stage.ask(cell("c1"), client=b"one")
    stage.hear(said("input_request", {"prompt": "?", "password": True}, "c1", Channel.STDIN))
    assert stage.records[-1].client == b"one"
    answer = client_message("input_reply", {"value": "secret"}, "i1", Channel.STDIN)
    stage.ask(answer)
    stage.ask(client_message("input_reply", {"value": "again"}, "i2", Channel.STDIN))
    assert stage.sends() == ["c1", "i1"]
    assert not any(b"secret" in r.body for r in stage.records)
    assert stage.session.ignored == {"input_unasked": 1}


def test_a_kernel_info_reply_is_cleaned():
    stage = Stage().started()
    stage.ask(client_message("kernel_info_request", {}, "k1"))
    lie = {"status": "ok", "protocol_version": "99", "help_links": [{"text": "x", "url": "javascript:alert(1)"}]}
    stage.hear(said("kernel_info_reply", lie, "k1", Channel.SHELL))
    content = stage.shown("k1")[0]["content"]
    assert content["protocol_version"].startswith("5.") and content["help_links"] == []


# -- too much output --------------------------------------------------------------------------------------


def test_a_flood_keeps_head_and_tail_and_counts_the_rest_before_the_reply():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*(stream("c1", f"{n}\n") for n in range(1000)))
    stage.hear(said("error", {"ename": "E"}, "c1"), reply("c1", "error"), status("idle", "c1"))
    told = stage.told("c1")
    assert told[-3:] == ["error", "reply:error", "idle"]
    (note,) = (note for note in stage.notes() if note["note"] == "output_truncated")
    assert told.count("stream") - 1 + note["dropped_messages"] == 1000, "one of the streams is the note"
    texts = [m["content"]["text"] for m in stage.shown("c1") if m["msg_type"] == "stream"]
    assert texts[0] == "0\n" and texts[-1] == "999\n"


def test_while_output_is_cut_each_batch_says_how_far_the_link_has_come():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*(stream("c1") for _ in range(500)))
    assert (stage.records[-1].kind, stage.records[-1].link) == (Kind.CUT, 500)


def test_a_kernel_that_has_replied_and_talks_on_cannot_have_its_reply_written_with_each_word():
    stage = Stage().started()
    stage.ask(cell("c1"))
    content = {"status": "ok", "execution_count": 1, "user_expressions": {}, "payload": [{"text": "x" * (60 << 10)}]}
    stage.hear(status("busy", "c1"), said("execute_reply", content, "c1", Channel.SHELL))
    for _ in range(100):
        stage.hear(stream("c1"))
    cuts = [record for record in stage.records if record.kind is Kind.CUT]
    assert len(cuts) > 100
    assert sum(len(cut.body) for cut in cuts) < len(cuts) * (MAX_CARRIED_BYTES + 200)
    stage.crash()
    stage.do(stage.session.adopted(1, stage.now))
    stage.hear(status("idle", "c1"))
    assert stage.ends() == {"c1": "ok"}
    assert json.loads(stage.records[-1].body)["left_out_bytes"] > 60 << 10


def test_output_in_the_background_is_capped_too_and_anew_each_minute():
    stage = Stage().started()
    stage.hear(*(stream("", f"{n}\n") for n in range(1000)))
    shown = len(stage.shown())
    assert shown < 200
    stage.pass_time(60)
    assert "output_truncated" in [note.get("note") for note in stage.notes()]
    before = len(stage.shown())
    stage.hear(stream(""))
    assert len(stage.shown()) == before + 1


# -- every way to end -------------------------------------------------------------------------------------


def in_phase(phase: Phase) -> Stage:
    stage = Stage().started()
    if phase is Phase.WAITING:
        stage.ask(cell("other"))
    stage.ask(cell("c1"))
    heard = {Phase.RUNNING: [], Phase.REPLIED: [reply("c1")], Phase.QUIET: [status("idle", "c1")]}
    stage.hear(*heard.get(phase, []))
    return stage


@pytest.mark.parametrize("phase", [phase for phase in CELL_MOVES if phase is not Phase.DONE])
@pytest.mark.parametrize("reason", Reason)
def test_a_kernels_death_ends_each_cell_once_with_its_reason(phase, reason):
    stage = in_phase(phase)
    stage.die(reason)
    expected = {Phase.WAITING: "cancelled", Phase.REPLIED: "ok"}.get(phase, reason.value)
    assert stage.ends()["c1"] == expected
    stage.check_contract(is_over=True)


@pytest.mark.parametrize("phase", [phase for phase in CELL_MOVES if phase is not Phase.DONE])
def test_a_restart_ends_each_cell_once(phase):
    stage = in_phase(phase)
    effects = stage.do(stage.session.restart(stage.now))
    assert [type(e) for e in effects if not isinstance(e, Append)] == [Save, Destroy, StartKernel]
    assert stage.ends()["c1"] == ("ok" if phase is Phase.REPLIED else "cancelled")
    stage.check_contract(is_over=True)


@pytest.mark.parametrize("phase", [phase for phase in CELL_MOVES if phase is not Phase.DONE])
def test_a_deletion_ends_each_cell_once(phase):
    stage = in_phase(phase)
    effects = stage.do(stage.session.delete(stage.now))
    assert [type(e) for e in effects if not isinstance(e, Append)] == [Save, Destroy, Close]
    stage.check_contract(is_over=True)
    assert stage.do(stage.session.delete(stage.now)) == []


def test_a_certificate_is_told_with_its_facts():
    stage = in_phase(Phase.RUNNING)
    certificate = DeathCertificate(Reason.OOM, signal=9, memory_limit_bytes=1 << 20, oom_kills=1)
    stage.do(stage.session.kernel_died(1, certificate, stage.now))
    error = next(message for message in stage.shown("c1") if message["msg_type"] == "error")
    assert error["metadata"]["cellgate"]["reason"] == "oom"
    assert error["metadata"]["cellgate"]["memory_limit_bytes"] == 1 << 20


def test_the_death_of_a_former_kernel_says_nothing_of_this_one():
    stage = Stage().started()
    stage.do(stage.session.restart(stage.now))
    stage.start()
    stage.ask(cell("c1"))
    assert stage.do(stage.session.kernel_died(1, DeathCertificate(Reason.SESSION_DELETED), stage.now)) == []
    assert stage.session.kernel_messages(1, [(1, *reply("c1"))], stage.now) == []
    assert stage.session.state is State.BUSY


# -- interrupts and time ----------------------------------------------------------------------------------


def test_no_cell_is_sent_while_an_interrupt_is_on_its_way():
    stage = Stage().started()
    stage.ask(cell("c1", stop_on_error=False), cell("c2"))
    stage.hear(status("busy", "c1"))
    assert kinds(stage.do(stage.session.interrupt(stage.now))) == [Interrupt]
    stage.hear(reply("c1", "error"), status("idle", "c1"))
    assert stage.sends() == ["c1"], "it might strike c2"
    stage.do(stage.session.interrupt_sent(1, stage.now))
    assert stage.sends() == ["c1", "c2"]
    assert stage.ends() == {"c1": "interrupted"}


def test_of_two_interrupts_that_are_on_their_way_neither_strikes_the_next_cell():
    """The first was told of, and the second struck the cell after the one that both were meant for."""
    stage = Stage().started()
    stage.ask(cell("c1", stop_on_error=False), cell("c2"))
    stage.hear(status("busy", "c1"))
    stage.do(stage.session.interrupt(stage.now))
    stage.do(stage.session.interrupt(stage.now))
    stage.do(stage.session.interrupt_sent(1, stage.now))
    stage.hear(reply("c1", "error"), status("idle", "c1"))
    assert stage.sends() == ["c1"]
    stage.do(stage.session.interrupt_sent(1, stage.now))
    assert stage.sends() == ["c1", "c2"]


def test_a_cell_that_has_not_begun_is_interrupted_by_a_message_that_cannot_overtake_it():
    stage = Stage().started()
    stage.ask(cell("c1", stop_on_error=False), cell("c2"))
    (sent,) = stage.do(stage.session.interrupt(stage.now))
    assert isinstance(sent, Send) and (sent.number, sent.message.msg_type) == (2, "interrupt_request")
    stage.hear(*whole("c1", "error"))
    assert stage.sends() == ["c1", "interrupt", "c2"], "c2 comes behind it"
    assert stage.ends() == {"c1": "interrupted"}


def test_an_interrupt_request_is_answered_here():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(status("busy", "c1"))
    effects = stage.ask(client_message("interrupt_request", {}, "i1", Channel.CONTROL))
    assert kinds(effects) == [Append, Interrupt]
    assert stage.told("i1") == ["busy", "reply:ok", "idle"]


def test_a_cell_out_of_time_is_told_interrupted_and_then_killed():
    stage = Stage().started()
    stage.ask(cell("c1"))
    assert stage.session.wakes_at() == stage.now + LIMITS.cell_seconds
    assert stage.pass_time(LIMITS.cell_seconds - 0.1) == []
    assert kinds(stage.pass_time(0.1)) == [Append, Interrupt]
    assert stage.session.wakes_at() == stage.now + LIMITS.interrupt_grace_seconds
    (kill,) = stage.pass_time(LIMITS.interrupt_grace_seconds)
    assert isinstance(kill, Kill) and kill.reason is Reason.TIMEOUT_WALL
    assert stage.pass_time(1) == [], "once is enough"
    stage.die(Reason.TIMEOUT_WALL)
    assert stage.ends() == {"c1": "timeout_wall"}


def test_a_cell_that_heeds_the_interrupt_of_its_clock_ended_for_its_time():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.pass_time(LIMITS.cell_seconds)
    stage.do(stage.session.interrupt_sent(1, stage.now))
    stage.hear(*whole("c1", "error"))
    assert stage.ends() == {"c1": "timeout_wall"}
    assert stage.session.state is State.READY, "and its variables are kept"


def test_a_kernel_that_never_says_idle_is_ended_by_the_clock():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(reply("c1"))
    stage.pass_time(LIMITS.cell_seconds)
    assert kinds(stage.pass_time(LIMITS.interrupt_grace_seconds)) == [Kill]
    stage.die(Reason.TIMEOUT_WALL)
    assert stage.told("c1")[-1] == "idle"
    assert stage.ends() == {"c1": "ok"}


def test_a_kernel_that_is_being_killed_gets_no_other_cell():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.pass_time(LIMITS.cell_seconds)
    stage.do(stage.session.interrupt_sent(1, stage.now))
    stage.pass_time(LIMITS.interrupt_grace_seconds)
    stage.hear(*whole("c1"))  # at the last moment
    assert stage.sends() == ["c1"]
    stage.die(Reason.TIMEOUT_WALL)
    assert stage.ends() == {"c1": "ok", "c2": "cancelled"}


def test_time_that_a_cell_waits_is_not_its_own():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.pass_time(LIMITS.cell_seconds - 1)
    stage.hear(*whole("c1"))
    assert stage.pass_time(LIMITS.cell_seconds - 1) == []


# -- kernels one after another ----------------------------------------------------------------------------


def test_a_kernel_that_dies_in_a_cell_is_replaced_at_once_however_often():
    stage = Stage().started()
    for n in range(2, 12):
        stage.ask(cell(f"c{n}"))
        assert StartKernel in kinds(stage.die(Reason.KERNEL_SIGNAL))
        assert stage.session.incarnation == n
        stage.start()
    assert stage.session.state is State.READY


def test_kernels_that_die_by_themselves_are_replaced_later_and_later_and_then_no_more():
    stage = Stage().started()
    for pause in RESTART_PAUSES:
        effects = stage.die(Reason.KERNEL_EXIT)
        if pause:
            assert StartKernel not in kinds(effects) and stage.session.wakes_at() == stage.now + pause
            assert kinds(stage.pass_time(pause)) == [StartKernel]
        stage.start()
    stage.die(Reason.KERNEL_EXIT)
    assert stage.session.state is State.DEAD
    stage.ask(cell("c1"), client_message("complete_request", {}, "t1"))
    assert refused(stage, "c1") == refused(stage, "t1") == "backend_error"
    assert StartKernel in kinds(stage.do(stage.session.restart(stage.now)))
    stage.ask(cell("c2"))
    stage.start()
    assert stage.sends() == ["c2"]


def test_a_first_kernel_that_does_not_start_is_not_tried_again():
    stage = Stage()
    stage.do(stage.session.begin())
    stage.ask(cell("c1"), client_message("complete_request", {}, "t1"))
    stage.do(stage.session.start_failed(1, "no such image", stage.now))
    assert stage.session.state is State.DEAD
    assert stage.ends() == {"c1": "cancelled"}
    assert refused(stage, "t1") == "backend_error"


def test_clients_are_told_of_a_restart_and_why():
    stage = Stage().started()
    stage.die(Reason.OOM)
    assert stage.shown()[-1]["content"] == {"execution_state": "restarting"}
    assert stage.notes()[-1]["reason"] == "oom"


def test_a_restart_that_was_asked_for_is_told_as_a_start():
    """JupyterLab shows `restarting` as "appears to have died", to whoever asked for it too."""
    stage = Stage().started()
    stage.do(stage.session.restart(stage.now))
    assert stage.shown()[-1]["content"] == {"execution_state": "starting"}
    assert stage.notes()[-1]["reason"] == "restarted"


def test_what_is_said_for_a_kernel_bears_its_session():
    """JupyterLab drops what it has not shown yet when a message of another session comes."""
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(said("stream", {"name": "stdout", "text": "x"}, "c1"))
    theirs = stage.shown()[-1]["header"]["session"]
    stage.die(Reason.OOM)
    assert {message["header"]["session"] for message in stage.shown()[-3:]} == {theirs}


def test_the_end_of_a_session_answers_what_was_asked_but_no_kernel_info():
    """JupyterLab's client asks for that at each connect, and has an unhandled rejection when the answer is an error."""
    stage = Stage().started()
    stage.ask(client_message("kernel_info_request", {}, "info"), client_message("complete_request", {}, "complete"))
    stage.do(stage.session.delete(stage.now))
    assert refused(stage, "complete") == "session_deleted"
    assert not stage.shown("info")


def test_restarts_that_race_make_one_kernel():
    stage = Stage().started()
    first = stage.do(stage.session.restart(stage.now))
    assert kinds(first).count(StartKernel) == 1
    assert stage.do(stage.session.restart(stage.now)) == []
    stage.start()
    assert stage.session.incarnation == 2


def test_a_kernel_that_comes_after_the_end_is_destroyed():
    stage = Stage()
    stage.do(stage.session.begin())
    stage.do(stage.session.delete(stage.now))
    assert stage.do(stage.session.kernel_started(1, "late", stage.now)) == [Destroy(1)]


def test_a_shutdown_request_is_answered_and_ends_or_restarts():
    stage = Stage().started()
    stage.ask(client_message("shutdown_request", {"restart": True}, "s1", Channel.CONTROL))
    assert stage.session.state is State.RESTARTING
    stage.start()
    stage.ask(client_message("shutdown_request", {"restart": False}, "s2", Channel.CONTROL))
    assert stage.session.state is State.GONE
    assert stage.told("s1") == stage.told("s2") == ["busy", "reply:ok", "idle"]


# -- the end of a session ---------------------------------------------------------------------------------


def test_an_idle_session_is_told_and_then_ends():
    stage = Stage().started()
    begun = stage.now
    assert stage.session.wakes_at() == begun + LIMITS.idle_seconds - LIMITS.notice_seconds
    assert kinds(stage.pass_time(LIMITS.idle_seconds - LIMITS.notice_seconds)) == [Append]
    assert stage.notes()[-1] == {"note": "session_expiring", "why": "idle", "seconds_left": LIMITS.notice_seconds}
    assert stage.session.wakes_at() == begun + LIMITS.idle_seconds
    assert stage.pass_time(1) == [], "told once"
    effects = stage.pass_time(LIMITS.notice_seconds)
    assert [type(e) for e in effects if not isinstance(e, Append)] == [Save, Kill, Destroy, Close]
    assert stage.session.state is State.GONE
    assert stage.session.wakes_at() is None


def test_a_request_after_the_notice_keeps_the_session():
    stage = Stage().started()
    stage.pass_time(LIMITS.idle_seconds - 1)
    stage.ask(client_message("complete_request", {}, "t1"))
    stage.pass_time(LIMITS.idle_seconds - 1)
    assert stage.session.state is State.READY


def test_a_running_cell_keeps_the_session_and_so_does_one_that_asks():
    stage = Stage(with_limits(cell_seconds=500)).started()
    stage.ask(cell("c1"))
    stage.hear(said("input_request", {"prompt": "?"}, "c1", Channel.STDIN))
    for _ in range(4):
        stage.pass_time(LIMITS.idle_seconds)
    assert stage.session.state is State.BUSY


@pytest.mark.parametrize("share, is_kept", [(0.5, True), (0.001, False)])
def test_threads_that_compute_keep_the_session(share, is_kept):
    stage = Stage().started()
    for n in range(20):
        stage.session.usage(1, n * 10 * share, stage.now)
        stage.pass_time(10)
    assert (stage.session.state is State.READY) == is_kept


def test_a_lifetime_ends_even_a_session_that_works():
    stage = Stage(with_limits(cell_seconds=2000)).started()
    stage.ask(cell("c1"))
    stage.pass_time(LIMITS.lifetime_seconds - LIMITS.notice_seconds)
    assert stage.notes()[-1]["why"] == "lifetime"
    stage.pass_time(LIMITS.notice_seconds)
    assert stage.ends() == {"c1": "session_expired"}
    assert any(isinstance(e, Kill) and e.reason is Reason.SESSION_EXPIRED for e in stage.effects)


# -- taking over from a gateway that died -----------------------------------------------------------------


def test_a_cell_that_did_not_reach_the_kernel_is_sent_by_the_next_gateway():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.crash()
    stage.do(stage.session.adopted(0, stage.now))
    assert stage.sends() == ["c1", "c1"]
    stage.hear(*whole("c1"))
    stage.hear(*whole("c2"))
    assert stage.ends() == {"c1": "ok", "c2": "ok"}
    stage.check_contract(is_over=True)


def test_a_cell_that_reached_the_kernel_is_not_sent_again():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.hear(status("busy", "c1"), stream("c1"))
    stage.crash()
    assert stage.session.received == 2
    stage.do(stage.session.adopted(1, stage.now))
    assert stage.session.state is State.BUSY and stage.sends() == ["c1"]
    stage.hear(stream("c1"), reply("c1"), status("idle", "c1"))
    assert stage.told("c1") == ["busy", "stream", "stream", "reply:ok", "idle"]
    assert stage.sends() == ["c1", "c2"]


@pytest.mark.parametrize("heard", [(), (status("busy", "c1"), stream("c1"))], ids=["before", "after"])
def test_a_cell_is_busy_once_also_when_its_kernel_dies_under_another_gateway_than_said_so(heard):
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*heard)
    stage.crash()
    stage.do(stage.session.kernel_lost(stage.now))
    assert stage.told("c1").count("busy") == 1
    stage.check_contract(is_over=True)


def test_a_cell_whose_beginning_is_no_longer_kept_has_said_that_it_is_busy():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.read = lambda seq, _: Reading(Gap(seq, seq + 9), [], seq + 10)
    stage.crash()
    stage.do(stage.session.kernel_lost(stage.now))
    assert "busy" not in stage.told("c1")


def test_what_a_kernel_had_kept_counts_also_before_its_link_can_be_written():
    """It comes in one read with the kernel's HELLO; once it was thrown away there."""
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.crash()
    stage.hear(*whole("c1"))
    assert stage.ends() == {"c1": "ok"}
    assert stage.sends() == ["c1"]
    stage.do(stage.session.adopted(1, stage.now))
    assert stage.sends() == ["c1", "c2"]


@pytest.mark.parametrize("first, then", [("reply", "idle"), ("idle", "reply")])
def test_a_cell_that_was_half_done_is_finished_once(first, then):
    messages = {"reply": reply("c1", "error"), "idle": status("idle", "c1")}
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(messages[first])
    stage.crash()
    stage.do(stage.session.adopted(1, stage.now))
    stage.hear(messages[then])
    assert stage.told("c1") == ["reply:error", "idle"]
    assert stage.ends() == {"c1": "error"}


def test_what_a_dead_gateway_had_held_back_counts_as_dropped():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*(stream("c1") for _ in range(500)))
    shown = stage.told("c1").count("stream")
    stage.crash()
    stage.do(stage.session.adopted(1, stage.now))
    stage.hear(*whole("c1")[1:])
    (note,) = (note for note in stage.notes() if note["note"] == "output_truncated")
    assert note["dropped_messages"] + shown == 500


def test_a_kernel_that_ended_unseen_leaves_no_cell_open():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.crash()
    effects = stage.do(stage.session.kernel_lost(stage.now))
    assert StartKernel in kinds(effects) and stage.session.incarnation == 2
    assert stage.ends() == {"c1": "supervisor_lost", "c2": "cancelled"}
    stage.check_contract(is_over=True)


def test_a_gateway_that_died_while_a_kernel_started_starts_it_again():
    stage = Stage().started()
    stage.do(stage.session.restart(stage.now))
    stage.ask(cell("c1"))
    stage.crash()
    assert StartKernel(2) in stage.do(stage.session.kernel_lost(stage.now))
    stage.start()
    assert stage.sends() == ["c1"]


def test_every_reason_a_sandbox_ends_for_is_one_that_a_cell_ends_for():
    assert {reason.value for reason in Reason} <= {reason.value for reason in CellReason}


# -- whoever is not sure -----------------------------------------------------------------------------------


def test_a_cell_that_was_pending_when_its_client_came_back_is_not_run_again_though_it_has_ended():
    """Found by the chaos run: the client was cut off before its cell's turn, came back, saw no sign of it, and asked
    again; in the meantime the cell ran to its end, and then ran twice."""
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"), client=b"one")
    stage.session.joined(b"one")
    stage.hear(*whole("c1"))
    stage.hear(*whole("c2"))
    stage.ask(cell("c1"), cell("c2"), client=b"one")
    assert stage.sends() == ["c1", "c2"]
    assert stage.session.ignored["repeated_request"] == 2


def test_a_cell_that_ended_before_its_client_came_back_or_of_another_client_is_a_new_one():
    """Its end is in what the client reads first. Not every client gives each cell an id of its own."""
    stage = Stage().started()
    stage.ask(cell("c1"), client=b"one")
    stage.session.joined(b"two")
    stage.hear(*whole("c1"))
    stage.session.joined(b"one")
    stage.ask(cell("c1"), client=b"one")
    stage.hear(*whole("c1"))
    stage.ask(cell("c1"), client=b"two")
    assert stage.sends() == ["c1", "c1", "c1"]
    stage.session.joined(b"one")
    stage.session.left(b"one")


def test_what_a_running_cell_says_begins_where_it_was_sent_and_not_where_it_began_to_wait():
    """Found by the chaos run: a new client of a queue of cells was shown, before the cell that ran, the ends of those
    before it. A gateway that takes over knows the place too."""
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.hear(*whole("c1"))
    end_of_c1 = max(r.seq for r in stage.records if r.kind is Kind.TERMINAL)
    stage.hear(status("busy", "c2"))
    assert stage.session.running.begins_at == end_of_c1 + 1
    stage.crash()
    stage.do(stage.session.adopted(2, stage.now))
    assert stage.session.running.begins_at == end_of_c1 + 1


COMPLETED = said("complete_reply", {"status": "ok", "matches": []}, "t1", Channel.SHELL)


@pytest.mark.parametrize(
    ("heard", "rest"),
    [
        ([], ["busy", "reply:error", "idle"]),
        ([status("busy", "t1")], ["reply:error", "idle"]),
        ([status("busy", "t1"), COMPLETED], ["idle"]),
        ([status("busy", "t1"), status("idle", "t1")], ["reply:error"]),
        ([status("busy", "t1"), COMPLETED, status("idle", "t1")], []),
    ],
)
def test_whoever_asked_a_kernel_that_ended_is_told_what_it_had_not_said(heard, rest):
    """Found by the fault tests: a client asked something, the kernel died over it, and the client waited for ever."""
    stage = Stage().started()
    stage.ask(client_message("complete_request", {"code": "x"}, "t1"), client=b"one")
    stage.hear(*heard)
    before = len(stage.told("t1"))
    stage.die()
    assert stage.told("t1")[before:] == rest
    replies = [r for r in stage.records if r.tag.message_type == "complete_reply"]
    assert [r.client for r in replies] == [b"one"]


def test_what_was_asked_before_a_restart_is_aborted():
    stage = Stage().started()
    stage.ask(client_message("complete_request", {"code": "x"}, "t1"))
    stage.do(stage.session.restart(stage.now))
    assert stage.told("t1") == ["busy", "reply:aborted", "idle"]


def test_what_is_no_message_at_all_ends_the_kernel_for_breaking_the_protocol():
    """As PROTOCOL.md has it for every body of a link's message; what is a message and lies is not shown."""
    stage = Stage().started()
    stage.ask(cell("c1"))
    tag, _ = stream("c1")
    stage.hear(status("busy", "c1"), (tag, memoryview(b"\xff" * 100)), (tag, memoryview(b"")), stream("c1"))
    kills = [effect for effect in stage.effects if isinstance(effect, Kill)]
    assert [(kill.reason, kill.detail[:9]) for kill in kills] == [(Reason.PROTOCOL_VIOLATION, "bad_count")]
    assert stage.told("c1") == ["busy", "stream"]
    stage.die(Reason.PROTOCOL_VIOLATION)
    assert stage.ends() == {"c1": "protocol_violation"}


def test_requests_that_a_kernel_passes_over_are_answered_and_use_up_no_room():
    """Stock kernels say busy and idle, and no reply, to what they do not understand."""
    stage = Stage().started()
    for n in range(2 * MAX_ASKED):
        stage.ask(client_message("unheard_of_request", {}, f"t{n}"), client_message("complete_request", {}, f"c{n}"))
        stage.hear(status("busy", f"t{n}"), status("idle", f"t{n}"))
        done = said("complete_reply", {"status": "ok"}, f"c{n}", Channel.SHELL)
        stage.hear(status("busy", f"c{n}"), done, status("idle", f"c{n}"))
    for n in (0, MAX_ASKED, 2 * MAX_ASKED - 1):
        assert stage.told(f"t{n}") == ["busy", "idle", "reply:aborted"]
        assert stage.told(f"c{n}") == ["busy", "reply:ok", "idle"]


def test_a_cells_reply_too_says_that_what_came_before_it_has_no_answer():
    stage = Stage().started()
    stage.ask(client_message("unheard_of_request", {}, "t1"), cell("c1"), client_message("comm_info_request", {}, "t2"))
    stage.hear(status("busy", "t1"), status("idle", "t1"), *whole("c1"))
    assert (stage.told("t1"), stage.told("t2")) == (["busy", "idle", "reply:aborted"], [])


def test_an_answer_that_comes_after_its_idle_and_before_the_next_is_shown():
    stage = Stage().started()
    stage.ask(client_message("complete_request", {}, "t1"), client_message("complete_request", {}, "t2"))
    stage.hear(status("busy", "t1"), status("idle", "t1"), status("busy", "t2"), status("idle", "t2"))
    for name in ("t1", "t2"):
        stage.hear(said("complete_reply", {"status": "ok"}, name, Channel.SHELL))
        assert stage.told(name) == ["busy", "idle", "reply:ok"]
