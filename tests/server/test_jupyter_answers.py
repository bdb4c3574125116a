"""What the gateway says in a kernel's stead is as complete as what a kernel says, and what it repeats is clean."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.sandbox.certificate import Reason
from cellgate.wire.jupyter import (
    ERROR_NAMES,
    PROTOCOL_VERSION,
    Composer,
    Dialect,
    Ending,
    Said,
    clean_kernel_info,
    parse_message,
    read_frame,
    tag_is_true,
)
from cellgate_kernel.message import Channel, Status

DATE = "2026-01-01T00:00:00Z"


def request(msg_type="execute_request", channel="shell"):
    header = {"msg_id": "7", "msg_type": msg_type, "session": "s"}
    frame = json.dumps({"header": header, "content": {"code": "1", "comm_id": "c"}, "channel": channel})
    return read_frame(frame, Dialect.LEGACY, date="2025-01-01", max_bytes=10_000)


def read(said: list[Said]):
    assert all(tag_is_true(tag, memoryview(v1)) for tag, v1 in said)
    return [parse_message(memoryview(v1)) for _, v1 in said]


@pytest.mark.parametrize("reason", [reason for reason, name in ERROR_NAMES.items() if name])
def test_a_cell_ends_with_error_reply_and_idle(reason):
    ending = Ending(reason, "it was so", {"limit": 5}, execution_count=3)
    error, reply, idle = read(Composer("g").end(request(), ending, date=DATE))
    assert [(m["channel"], m["msg_type"]) for m in (error, reply, idle)] == [
        ("iopub", "error"),
        ("shell", "execute_reply"),
        ("iopub", "status"),
    ]
    assert {json.dumps(m["parent_header"]) for m in (error, reply, idle)} == {json.dumps(request().header)}
    assert reply["content"] == error["content"] | {
        "status": "error", "execution_count": 3, "user_expressions": {}, "payload": [],
    }  # fmt: skip
    assert error["content"]["ename"] == ERROR_NAMES[reason]
    assert error["content"]["evalue"] == "it was so"
    assert "it was so" in error["content"]["traceback"][0]
    assert error["metadata"] == reply["metadata"] == {"cellgate": {"reason": reason, "limit": 5}}
    assert idle["content"] == {"execution_state": "idle"}


def test_a_cancelled_cell_is_aborted_as_a_kernel_would():
    reply, idle = read(Composer("g").end(request(), Ending("cancelled", "the cell before it failed"), date=DATE))
    assert reply["content"]["status"] == "aborted"
    assert idle["content"] == {"execution_state": "idle"}


def test_another_request_is_ended_by_its_reply_on_its_channel():
    said = Composer("g").end(request("debug_request", "control"), Ending("oom", "no memory"), date=DATE)
    reply, _ = read(said)
    assert (reply["channel"], reply["msg_type"], reply["content"]["status"]) == ("control", "debug_reply", "error")


def test_a_message_that_has_no_reply_is_ended_by_idle_alone():
    said = Composer("g").end(request("comm_msg"), Ending("oom", "no memory"), date=DATE)
    assert [m["content"] for m in read(said)] == [{"execution_state": "idle"}]


def test_an_end_has_one_idle_and_one_reply_by_its_tags():
    said = Composer("g").end(request(), Ending("oom", "no memory"), date=DATE)
    assert [(tag.message_type, tag.status) for tag, _ in said] == [
        ("error", Status.NONE),
        ("execute_reply", Status.ERROR),
        ("status", Status.IDLE),
    ]
    assert {tag.parent_id for tag, _ in said} == {b"7"}


def test_no_message_id_is_given_out_twice():
    composer = Composer("g")
    said = [*composer.end(request(), Ending("oom", ""), date=DATE), *composer.reply(request(), {}, date=DATE)]
    ids = [m["header"]["msg_id"] for m in read(said)]
    assert len(set(ids)) == len(ids)


def test_a_reply_in_the_kernels_stead_lies_between_busy_and_idle():
    busy, reply, idle = read(Composer("g").reply(request("kernel_info_request"), {"status": "ok"}, date=DATE))
    assert (busy["content"]["execution_state"], idle["content"]["execution_state"]) == ("busy", "idle")
    assert (reply["msg_type"], reply["content"]) == ("kernel_info_reply", {"status": "ok"})


def test_a_status_may_belong_to_no_request():
    tag, v1 = Composer("g").status("restarting", parent=None, date=DATE)
    assert tag.parent_id == b""
    message = parse_message(memoryview(v1))
    assert (message["parent_header"], message["content"]) == ({}, {"execution_state": "restarting"})


def test_a_note_is_a_line_for_people_with_facts_for_programs():
    said = Composer("g").note("12 messages not shown", parent=request(), date=DATE, facts={"dropped": 12})
    (message,) = read([said])
    assert message["content"] == {"name": "stderr", "text": "[cellgate: 12 messages not shown]\n"}
    assert (said.tag.channel, message["metadata"]) == (Channel.IOPUB, {"cellgate": {"dropped": 12}})


def test_every_way_a_sandbox_ends_can_be_told():
    assert {reason.value for reason in Reason} <= set(ERROR_NAMES)


# -- kernel_info ---------------------------------------------------------------------------------------

HONEST = {
    "status": "ok",
    "protocol_version": "5.4",
    "implementation": "ipython",
    "implementation_version": "9.1",
    "language_info": {
        "name": "python", "version": "3.11", "mimetype": "text/x-python", "file_extension": ".py",
        "pygments_lexer": "ipython3", "nbconvert_exporter": "python",
        "codemirror_mode": {"name": "ipython", "version": 3},
    },
    "banner": "Python 3\nand more",
    "help_links": [{"text": "Python", "url": "https://docs.python.org/3"}],
    "debugger": True,
    "supported_features": ["kernel subshells"],
}  # fmt: skip


def test_what_an_honest_kernel_says_is_repeated():
    assert clean_kernel_info(HONEST) == HONEST


@pytest.mark.parametrize("version", ["99", "abc", "5", "4.1", "5.3\n", 5.3, None, {}])
def test_a_version_we_do_not_speak_is_not_repeated(version):
    assert clean_kernel_info(HONEST | {"protocol_version": version})["protocol_version"] == PROTOCOL_VERSION


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "https://a b", 'https://"', "", None, 7])
def test_a_link_that_leads_elsewhere_than_to_the_web_is_left_out(url):
    assert clean_kernel_info(HONEST | {"help_links": [{"text": "x", "url": url}]})["help_links"] == []


def test_a_banner_is_short_and_moves_no_cursor():
    assert clean_kernel_info({"banner": "a\x1b[2J\x00\u202eb\n" + "c" * 10_000})["banner"] == "a[2Jb\n" + "c" * 4087


def test_a_codemirror_mode_may_be_a_name():
    info = clean_kernel_info({"language_info": {"name": "R", "codemirror_mode": "r"}})["language_info"]
    assert info == {"name": "R", "codemirror_mode": "r"}


FIELDS = st.sampled_from([*HONEST, "url", "text", "name"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*HONEST, "more"]), anything))
def test_whatever_a_kernel_says_of_itself_comes_out_as_the_same_fields(content):
    clean = clean_kernel_info(content)
    assert clean.keys() == HONEST.keys()
    assert len(json.dumps(clean, allow_nan=False)) < 100_000
