"""What agents say, in either form: read into the same requests, or refused by name, whatever the bytes."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.wire.agent import (
    CLOSED_FOR,
    MAX_ID_BYTES,
    MAX_ID_CHARS,
    OPS,
    REFUSALS,
    Ack,
    Cancel,
    Comm,
    Complete,
    Execute,
    Form,
    Input,
    Inspect,
    Interrupt,
    IsComplete,
    MessageError,
    Refused,
    Request,
    Restart,
    Touch,
    Variables,
    choose_form,
    read_event,
    read_request,
    request_of,
    write,
)
from cellgate.wire.strict import MAX_DEPTH, MAX_VALUES

LIMIT = 1 << 20
FORMS = pytest.mark.parametrize("form", Form, ids=lambda form: form.name.lower())


def said(message: Any, form: Form) -> bytes | str:
    """As a client would send it, whatever it is."""
    return json.dumps(message) if form is Form.JSON else bytes(msgpack.packb(message))


def read(data: bytes | str, form: Form) -> Request:
    return read_request(data, form, max_bytes=LIMIT)


def refusal(message: Any, form: Form = Form.JSON) -> Refused:
    with pytest.raises(Refused) as refused:
        read(said(message, form), form)
    return refused.value


ids = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=60)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
seconds = st.floats(0.001, 1e9)
limits = st.dictionaries(
    st.sampled_from(["output_bytes_per_cell", "output_messages_per_cell"]), st.integers(1, 1 << 50)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
requests = st.one_of(
    st.builds(
        Execute, ids, texts, st.none() | seconds, st.booleans(), st.booleans(), st.booleans(), st.booleans(), limits,
        st.dictionaries(ids, texts, max_size=3), st.booleans(),
    ),
    st.builds(Ack, st.integers(0, (1 << 53) - 1)),
    st.builds(Input, ids, texts),
    st.builds(Interrupt, ids),
    st.builds(Cancel, ids, ids),
    st.builds(Complete, ids, texts, st.integers(0, 1000)),
    st.builds(Inspect, ids, texts, st.integers(0, 1000), st.integers(0, 1)),
    st.builds(IsComplete, ids, texts),
    st.builds(Variables, ids, st.none() | ids, st.none() | st.integers(1, 100)),
    st.builds(
        Comm, st.sampled_from(["comm_open", "comm_msg", "comm_close"]), st.dictionaries(texts, json_values, max_size=3),
        st.lists(st.binary(max_size=20), max_size=3).map(tuple),
    ),
    st.builds(Restart, ids),
    st.builds(Touch, ids),
)  # fmt: skip


@given(requests)
def test_a_request_is_the_same_in_both_forms(request: Request):
    for form in Form:
        frame = write(request_of(request), form)
        assert read(bytes(frame.data) if frame.is_binary else bytes(frame.data).decode(), form) == request


@given(st.dictionaries(texts, json_values, max_size=5), st.lists(st.binary(max_size=20), max_size=3))
def test_an_event_is_the_same_in_both_forms(event: dict[str, Any], buffers: list[bytes]):
    event["buffers"] = buffers
    frames = [(form, write(event, form)) for form in Form]
    packed, text = (read_event(bytes(f.data) if f.is_binary else bytes(f.data).decode(), form) for form, f in frames)
    assert packed == text == event


@given(st.binary(max_size=200) | texts, st.sampled_from(Form))
def test_whatever_is_sent_is_a_request_or_refused_by_name(data: bytes | str, form: Form):
    try:
        read(data, form)
    except Refused as refused:
        assert refused.code in REFUSALS
    except MessageError as error:
        assert error.code in CLOSED_FOR


@given(
    st.sampled_from(sorted(OPS)) | texts,
    st.dictionaries(st.sampled_from(["id", "code", "seq", "cell", "value", "timeout", "limits", "cursor", "content",
                                     "msg_type", "buffers", "expressions", "stdin", "x"]), json_values, max_size=6),
    st.sampled_from(Form),
)  # fmt: skip
def test_wrong_types_are_refused_with_a_word_on_what_would_pass(op: str, fields: dict[str, Any], form: Form):
    try:
        read(said({"op": op, **fields}, form), form)
    except Refused as refused:
        assert refused.code in ("unknown_op", "bad_field")
        assert "would pass" in refused.message or "may have" in refused.message
        assert write(refused.to_event(), form)


def test_every_op_has_an_example_above():
    kinds = {Execute, Ack, Input, Interrupt, Cancel, Complete, Inspect, IsComplete, Variables, Comm, Restart, Touch}
    assert set(OPS.values()) == kinds


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"op": "execute", "code": "1"}, "id"),
        ({"op": "execute", "id": "", "code": "1"}, "id"),
        ({"op": "execute", "id": "x" * (MAX_ID_CHARS + 1), "code": "1"}, "id"),
        ({"op": "execute", "id": "ä" * (MAX_ID_BYTES // 2 + 1), "code": "1"}, "id"),
        ({"op": "execute", "id": "a\nb", "code": "1"}, "id"),
        ({"op": "execute", "id": 7, "code": "1"}, "id"),
        ({"op": "execute", "id": "a", "code": None}, "code"),
        ({"op": "execute", "id": "a", "code": "1", "timeout": 0}, "timeout"),
        ({"op": "execute", "id": "a", "code": "1", "timeout": True}, "timeout"),
        ({"op": "execute", "id": "a", "code": "1", "timeout": "5"}, "timeout"),
        ({"op": "execute", "id": "a", "code": "1", "stdin": 1}, "stdin"),
        ({"op": "execute", "id": "a", "code": "1", "limits": {"memory": 1}}, "limits"),
        ({"op": "execute", "id": "a", "code": "1", "limits": {"output_bytes_per_cell": -1}}, "limits"),
        ({"op": "execute", "id": "a", "code": "1", "timout": 5}, "timout"),
        ({"op": "ack", "seq": -1}, "seq"),
        ({"op": "ack", "seq": 1.0}, "seq"),
        ({"op": "comm", "msg_type": "execute_request", "content": {}}, "msg_type"),
        ({"op": "comm", "msg_type": "comm_msg", "content": []}, "content"),
        ({"op": "comm", "msg_type": "comm_msg", "content": {}, "buffers": ["x"]}, "buffers"),
        ({"op": "comm", "msg_type": "comm_msg", "content": {}, "buffers": [{"base64": "%"}]}, "buffers"),
        ({"op": "inspect", "id": "a", "code": "", "cursor": 0, "detail": 2}, "detail"),
    ],
)
@FORMS
def test_a_wrong_field_is_named(message: dict[str, Any], field: str, form: Form):
    refused = refusal(message, form)
    assert (refused.code, refused.facts) == ("bad_field", {"field": field})


def test_a_refusal_says_to_which_request_it_is_if_that_has_a_name():
    assert refusal({"op": "none", "id": "a"}).re == "a"
    assert refusal({"op": "none", "id": "a" * 1000}).re is None
    assert refusal({"op": ["a"], "id": {}}).re is None


@FORMS
def test_null_is_as_good_as_nothing(form: Form):
    message = {"op": "execute", "id": "a", "code": "1", "timeout": None, "limits": None, "stdin": None}
    assert read(said(message, form), form) == Execute("a", "1")


@pytest.mark.parametrize(
    ("data", "form", "code"),
    [
        (b"{}", Form.JSON, "binary_frame"),
        ("{}", Form.MSGPACK, "text_frame"),
        ("x" * (LIMIT + 1), Form.JSON, "too_large"),
        ("ä" * (LIMIT // 2 + 1), Form.JSON, "too_large"),
        (b"x" * (LIMIT + 1), Form.MSGPACK, "too_large"),
        ("[]", Form.JSON, "bad_message"),
        ('{"op": NaN}', Form.JSON, "bad_message"),
        ('{"op": "ack", "op": "ack"}', Form.JSON, "bad_message"),
        ('{"a": ' + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}", Form.JSON, "bad_message"),
        ('{"a": ' + "[" * 100_000, Form.JSON, "bad_message"),
        (b"\x90", Form.MSGPACK, "bad_message"),
        (b"\xc1", Form.MSGPACK, "bad_message"),
        (b"\x81\x01\x02", Form.MSGPACK, "bad_message"),
        (b"\x82\xa1a\x01\xa1a\x02", Form.MSGPACK, "bad_message"),
        (b"\x81\xa1a\xd4\x01\x00", Form.MSGPACK, "bad_message"),
        (b"\x81\xa1a\xa2\xff\xfe", Form.MSGPACK, "bad_message"),
        (b"\x81\xa1a" + b"\x91" * (MAX_DEPTH + 1) + b"\x90", Form.MSGPACK, "bad_message"),
        (b"\x81\xa1a" + b"\x91" * 100_000, Form.MSGPACK, "bad_message"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", Form.MSGPACK, "bad_message"),
        (b"\x81\xa1a\xdd\x00\x04\x00\x01" + b"\x90" * (MAX_VALUES + 1), Form.MSGPACK, "bad_message"),
        (b"", Form.MSGPACK, "bad_message"),
        ("", Form.JSON, "unknown_op"),
    ],
)  # fmt: skip
def test_what_is_no_message_closes_by_name(data: bytes | str, form: Form, code: str):
    with pytest.raises((MessageError, Refused)) as error:
        read(data, form)
    assert error.value.code == code  # type: ignore[attr-defined]


@FORMS
def test_what_is_parsed_takes_no_more_than_some_tens_of_its_size(form: Form):
    """An empty list of one byte takes 56: a megabyte of them is refused before it has become many."""
    empties = b"\x81\xa1a\xdc\x40\x00" + (b"\xdc\x00\x40" + b"\x90" * 64) * (1 << 14)
    data: bytes | str = empties if form is Form.MSGPACK else '{"a": [' + "[]," * (LIMIT // 3 - 10) + "[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            read(data, form)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_the_first_form_that_is_known_here_is_chosen():
    assert choose_form(["x", "cellgate.v1.json", "cellgate.v1.msgpack"]) is Form.JSON
    assert choose_form(["cellgate.v2.json", ""]) is None


def test_what_no_utf_8_can_say_is_replaced_in_both_forms():
    for form in Form:
        frame = write({"text": "a\ud800b"}, form)
        event = read_event(bytes(frame.data) if frame.is_binary else bytes(frame.data).decode(), form)
        assert event == {"text": "a?b"}


def test_a_timeout_that_no_double_holds_is_refused():
    """It was no ValueError, and closed the connection as a fault of ours."""
    assert refusal({"op": "execute", "id": "a", "code": "", "timeout": 10**400}, Form.JSON).code == "bad_field"


def test_infinity_has_no_place_in_a_timeout():
    assert refusal({"op": "execute", "id": "a", "code": "", "timeout": math.inf}, Form.MSGPACK).code == "bad_field"
