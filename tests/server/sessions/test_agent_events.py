"""A journal in the words of agents: whatever a kernel said, each event has the fields of its kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.sandbox.certificate import Reason
from cellgate.sessions.agents import EVENTS, answer_of, event_of, message_of, question_of
from cellgate.sessions.records import Kind, Record
from cellgate.wire.agent import Comm, Complete, Execute, Form, Input, Inspect, IsComplete, Refused, Variables, write
from cellgate.wire.jupyter import make_message
from cellgate_kernel.message import CHANNELS, MESSAGE_TYPES, Channel, Status, Tag, join_v1
from tests.support.stage import DATE, Stage, cell, client_message, reply, said, status, stream, whole

COMMON = {"event", "seq", "time", "cell", "parent"}
TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(["code", "text", "name", "value", "prompt", "note", "reason", "status", "state", "msg_type"], str),
    **dict.fromkeys(["client", "sentence", "display_id"], str),
    **dict.fromkeys(["data", "metadata", "facts", "metrics", "content", "expressions", "truncated", "diff"], dict),
    **dict.fromkeys(["wait", "password"], bool),
    **dict.fromkeys(["traceback", "buffers", "payload"], list),
    "count": (int, type(None)),
    "incarnation": int,
    "left_out_bytes": int,
}


def events(stage: Stage, reader: bytes | None = None) -> list[dict[str, Any]]:
    found = [event_of(record, record.seq, reader) for record in stage.records]
    return [event for event in found if event is not None]


def check(event: dict[str, Any]) -> None:
    """It has the fields of its kind, each of its type, and both forms can say it."""
    names = EVENTS[event["event"]]
    assert {name for name in names if not name.endswith("?")} <= event.keys()
    assert event.keys() - COMMON <= {name.rstrip("?") for name in names}
    for name in event.keys() - COMMON:
        assert isinstance(event[name], TYPES[name]), (name, event[name])
    for form in Form:
        assert write(event, form).data


def in_short(found: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in found]


# -- what is told ----------------------------------------------------------------------------------------


def test_a_cells_life_is_told_from_accepted_to_finished():
    stage = Stage().started()
    stage.ask(cell("c1", "print(1); 2"))
    stage.hear(
        status("busy", "c1"),
        said("execute_input", {"code": "print(1); 2", "execution_count": 3}, "c1"),
        stream("c1", "1\n"),
        said("execute_result", {"data": {"text/plain": "2"}, "metadata": {}, "execution_count": 3}, "c1"),
        reply("c1"),
        status("idle", "c1"),
    )
    found = events(stage)
    assert in_short(found) == ["state", "accepted", "started", "stdout", "result", "finished"]
    assert [event["seq"] for event in found] == sorted(event["seq"] for event in found)
    assert {event.get("cell") for event in found[1:]} == {"c1"}
    assert found[1]["client"] == "a"
    assert found[2] | {"count": 3, "code": "print(1); 2"} == found[2]
    assert found[4]["data"] == {"text/plain": "2"}
    assert (found[5]["status"], found[5]["reason"], found[5]["count"]) == ("ok", "ok", 1)
    assert all(event["time"] == 1767225600.0 for event in found), DATE
    for event in found:
        check(event)


def test_every_kind_of_output_has_its_event():
    stage = Stage().started()
    stage.ask(cell("c1"))
    shown = {"data": {"text/plain": "x"}, "metadata": {"a": 1}, "transient": {"display_id": "d"}}
    stage.hear(
        said("stream", {"name": "stderr", "text": "e"}, "c1"),
        said("display_data", shown, "c1"),
        said("update_display_data", shown, "c1"),
        said("clear_output", {"wait": True}, "c1"),
        said("error", {"ename": "E", "evalue": "v", "traceback": ["t"]}, "c1"),
        said("input_request", {"prompt": "?", "password": True}, "c1", Channel.STDIN),
        said("comm_open", {"comm_id": "1"}, "c1"),
    )
    found = events(stage)[2:]
    named = ["stderr", "display", "update_display", "clear_output", "error", "input_request", "comm"]
    assert in_short(found) == named
    assert found[1]["display_id"] == found[2]["display_id"] == "d"
    assert found[5] | {"prompt": "?", "password": True} == found[5]
    for event in found:
        check(event)


def test_what_comes_after_a_cells_end_names_it_as_its_parent():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.hear(*whole("c1"), stream("c1", "of a thread"))
    last = events(stage)[-1]
    assert (last["event"], last.get("cell"), last["parent"]) == ("stdout", None, "c1")


def test_a_kernels_end_is_told_with_its_reason_and_the_next_incarnation():
    stage = Stage().started()
    stage.ask(cell("c1"))
    stage.die(Reason.OOM)
    found = events(stage)
    assert in_short(found) == ["state", "accepted", "error", "finished", "state"]
    assert (found[3]["status"], found[3]["reason"], found[3]["facts"]["oom_kills"]) == ("error", "oom", 0)
    state = found[4]
    assert (state["state"], state["incarnation"], state["reason"]) == ("restarting", 2, "oom")
    stage.do(stage.session.delete(stage.now))
    last = events(stage)[-1]
    assert (last["state"], last["incarnation"], last["reason"]) == ("gone", 2, "session_deleted")
    for event in events(stage):
        check(event)


def test_a_cell_that_is_cancelled_is_aborted():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.hear(*whole("c1", "error"))
    ends = {event["cell"]: event["status"] for event in events(stage) if event["event"] == "finished"}
    assert ends == {"c1": "error", "c2": "aborted"}


def test_a_note_of_the_gateways_is_a_notice_and_no_output():
    stage = Stage().started()
    stage.ask(message_of(Execute("c1", "1", timeout=0.5), date=DATE, max_bytes=1 << 20))
    stage.pass_time(1)
    notice = events(stage)[-1]
    assert (notice["event"], notice["note"], notice["cell"]) == ("notice", "timeout_wall", "c1")
    assert notice["text"] == "the cell has run for the 0.5 s it may, and is interrupted"
    assert notice["facts"] == {"limit_seconds": 0.5}
    check(notice)


def test_a_refused_cell_is_told_to_whoever_asked_and_to_nobody_else():
    stage = Stage().started()
    stage.session.is_degraded = True
    stage.ask(cell("c1"), client=b"me")
    (refused,) = [event for event in events(stage, b"me") if event["event"] != "state"]
    assert (refused["event"], refused["re"], refused["code"]) == ("error", "c1", "backend_error")
    assert "seq" not in refused
    assert in_short(events(stage, b"you")) == in_short(events(stage)) == ["state"]


def test_what_is_no_event_is_none():
    stage = Stage().started()
    stage.ask(client_message("complete_request", {"code": "x", "cursor_pos": 1}, "q"), client=b"me")
    stage.hear(said("complete_reply", {"status": "ok"}, "q", Channel.SHELL), status("busy", "q"), status("idle", "q"))
    assert in_short(events(stage, b"me")) == ["state"]


# -- whatever kernels say --------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
names = st.sampled_from(
    ["name", "text", "data", "metadata", "transient", "execution_count", "code", "wait", "ename", "evalue", "traceback",
     "prompt", "password", "cellgate", "reason", "facts", "metrics", "display_id", "sentence", "incarnation"]
)  # fmt: skip
contents = st.dictionaries(names, json_values, max_size=6)


@given(
    st.sampled_from(Kind), st.sampled_from(MESSAGE_TYPES), st.sampled_from(Channel), contents, contents, st.booleans()
)
def test_whatever_a_record_holds_its_event_has_its_fields(kind, msg_type, channel, content, metadata, of_cell):
    parts = [json.dumps(part).encode() for part in ({"msg_id": "k", "date": DATE}, {}, metadata, content)]
    body = b"".join(join_v1(CHANNELS[channel], [*parts, b"buffer"]))
    if kind in (Kind.TERMINAL, Kind.INCARNATION, Kind.CUT):  # what the gateway writes itself
        body = b"{}"
    tag = Tag(channel, msg_type, Status.NONE, b"c1")
    event = event_of(Record(kind, 5 if of_cell else 0, 0, b"", tag, body), 7, None)
    if event is not None and kind is Kind.OUTPUT:
        check(event)
        assert event["seq"] == 7
    elif event is not None:
        assert all(write(event, form).data for form in Form)


@given(st.binary(max_size=300))
def test_what_is_no_message_is_told_as_such(body):
    tag = Tag(Channel.IOPUB, "stream", Status.NONE, b"c1")
    event = event_of(Record(Kind.OUTPUT, 5, 0, b"", tag, body), 7)
    assert event is not None and event["event"] == "notice" and event["note"] == "unreadable"
    check(event)


@pytest.mark.parametrize(
    "text",
    ["[" * 5000 + "]" * 5000, "{" * 100_000, '{"text": 1e999}', '{"text": ' + "9" * 5000 + "}", '{"text": NaN}'],
    ids=["deep", "broken", "infinite", "long number", "NaN"],
)
def test_json_that_is_hard_on_parsers_harms_nobody(text: str):
    _, parts = make_message("stream", {}, channel=Channel.IOPUB, msg_id="k", session="k", date=DATE)
    parts[3] = text.encode()
    body = b"".join(join_v1(b"iopub", parts))
    tag = Tag(Channel.IOPUB, "stream", Status.NONE, b"c1")
    event = event_of(Record(Kind.OUTPUT, 5, 0, b"", tag, body), 7)
    assert event is not None
    check(event)


def test_numbers_that_not_both_forms_can_say_are_told_in_the_same_way():
    content = (
        b'{"data": {"x": [1e999, NaN, -Infinity, 18446744073709551616, -9223372036854775808, 1.5]}, "metadata": {}}'
    )
    parts = [b"{}", b"{}", b"{}", content]
    tag = Tag(Channel.IOPUB, "display_data", Status.NONE, b"")
    event = event_of(Record(Kind.OUTPUT, 0, 0, b"", tag, b"".join(join_v1(b"iopub", parts))), 7)
    assert event is not None
    assert event["data"]["x"] == [None, None, None, float(1 << 64), -(1 << 63), 1.5]


# -- what is asked ---------------------------------------------------------------------------------------


def test_an_execute_becomes_what_a_jupyter_client_would_send():
    asked = Execute("c1", "x", 5.0, True, False, True, False, {"output_bytes_per_cell": 9}, {"a": "b"}, True)
    message = message_of(asked, date=DATE, max_bytes=1 << 20)
    assert (message.channel, message.msg_type, message.msg_id) == (Channel.SHELL, "execute_request", "c1")
    assert message.content == {
        "code": "x", "silent": True, "store_history": False, "user_expressions": {"a": "b"}, "allow_stdin": True,
        "stop_on_error": False,
    }  # fmt: skip
    assert message.options == {"once": True, "timeout": 5.0, "limits": {"output_bytes_per_cell": 9}, "diff": True}


def test_by_default_a_cell_may_not_ask_for_input():
    message = message_of(Execute("c1", "x"), date=DATE, max_bytes=1 << 20)
    assert message.content["allow_stdin"] is False
    assert message.options == {"once": True}


def test_an_answer_goes_to_stdin_and_a_comm_to_the_shell_with_its_buffers():
    answer = message_of(Input("c1", "yes"), date=DATE, max_bytes=1 << 20)
    assert (answer.channel, answer.msg_type, answer.content["value"]) == (Channel.STDIN, "input_reply", "yes")
    comm = message_of(Comm("comm_msg", {"comm_id": "1"}, (b"\x00",)), date=DATE, max_bytes=1 << 20)
    assert (comm.channel, comm.msg_type, bytes(comm.parts[4])) == (Channel.SHELL, "comm_msg", b"\x00")


@pytest.mark.parametrize("value", [b"bytes", float("nan"), [[[]] * 2] * 100_000], ids=["bytes", "nan", "many"])
def test_what_only_msgpack_can_say_is_refused(value: object):
    with pytest.raises(Refused) as refused:
        message_of(Comm("comm_msg", {"x": value}, id="i"), date=DATE, max_bytes=1 << 20)
    assert (refused.value.code, refused.value.re) == ("bad_field", "i")


@given(st.sampled_from([Complete("i", "x", 1), Inspect("i", "x", 1), IsComplete("i", "x"), Variables("i")]), contents)
def test_whatever_a_kernel_replies_the_answer_can_be_told(request, content):
    assert question_of(request)[0].endswith("_request")
    try:
        answer = answer_of(request, json.loads(json.dumps(content)))
    except Refused as refused:
        answer = refused.to_event()
    assert answer


def test_a_kernel_that_says_no_is_quoted():
    with pytest.raises(Refused) as refused:
        answer_of(Complete("i", "x", 1), {"status": "error", "ename": "E", "evalue": "v"})
    assert (refused.value.code, refused.value.facts) == ("kernel_error", {"name": "E", "value": "v"})
