"""Jupyter messages to and from their v1 layout."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.wire.jupyter import PROTOCOL_VERSION, execute_content, make_message, parse_message
from cellgate_kernel.message import Channel, MessageError, Status, Tag, join_v1


def v1(parts, channel: bytes = b"shell") -> memoryview:
    return memoryview(b"".join(join_v1(channel, parts)))


def make(content, **more):
    return make_message(
        "execute_request", content, channel=Channel.SHELL, msg_id="7", session="s", date="2026-01-01", **more
    )


def test_a_request_is_complete_and_read_back_as_it_was_made():
    content = execute_content("1+1", user_expressions={"x": "y"})
    tag, parts = make(content, metadata={"a": 1}, parent_header={"msg_id": "6"}, buffers=[b"ab", memoryview(b"cd")])
    message = parse_message(v1(parts))
    assert tag == Tag(Channel.SHELL, "execute_request", Status.NONE, b"7")
    assert message["header"] == {
        "msg_id": "7",
        "msg_type": "execute_request",
        "session": "s",
        "username": "",
        "date": "2026-01-01",
        "version": PROTOCOL_VERSION,
    }
    assert (message["channel"], message["msg_type"], message["parent_id"]) == ("shell", "execute_request", "6")
    assert (message["content"], message["metadata"]) == (content, {"a": 1})
    assert [bytes(buffer) for buffer in message["buffers"]] == [b"ab", b"cd"]


def test_an_execute_request_has_every_field_of_the_specification():
    assert set(execute_content("")) == {
        "code", "silent", "store_history", "user_expressions", "allow_stdin", "stop_on_error",
    }  # fmt: skip


def test_code_with_a_lone_surrogate_is_sent_as_something_readable():
    _, parts = make({"code": "x = '\ud800'"})
    assert parse_message(v1(parts))["content"]["code"] == "x = '?'"


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        make({"value": value})


def test_a_whole_number_of_any_length_is_read():
    message = parse_message(v1([b'{"msg_type":"x"}', b"{}", b"{}", b'{"n":' + b"7" * 5000 + b"}"]))
    assert message["content"]["n"] > 1e300


@pytest.mark.parametrize(
    "parts",
    [
        [b"[]", b"{}", b"{}", b"{}"],
        [b"{}", b"{}", b"{}", b"{}"],
        [b'{"msg_type":7}', b"{}", b"{}", b"{}"],
        [b'{"msg_type":"x"}', b'{"msg_id":[]}', b"{}", b"{}"],
        [b'{"msg_type":"x"}', b"{}", b"{}", b"7"],
        [b'{"msg_type":"x"}', b"{}", b"\xff", b"{}"],
        [b'{"msg_type":"x"}', b"{}", b"{}", b"{"],
        [b'{"msg_type":"x"}', b"{}", b"{}", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
    ],
    ids=["list", "no type", "type 7", "parent id", "content 7", "no utf-8", "no json", "deep"],
)
def test_what_is_no_message_is_refused(parts):
    with pytest.raises(MessageError):
        parse_message(v1(parts))


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=40), min_size=4, max_size=6).map(lambda p: bytes(v1(p))))
def test_bytes_are_a_message_or_refused_and_no_third_result(data):
    try:
        message = parse_message(memoryview(data))
    except MessageError:
        return
    assert isinstance(json.dumps(message["content"]), str)
