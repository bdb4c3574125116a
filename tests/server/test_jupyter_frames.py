"""Both subprotocols: what clients send is a message or refused with a code; what they get is what was said."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.wire import jupyter, strict
from cellgate.wire.jupyter import (
    CLIENT_ERRORS,
    PROTOCOL_VERSION,
    Dialect,
    choose_dialect,
    close_code,
    execute_content,
    make_message,
    parse_message,
    read_frame,
    tag_is_true,
    write_frame,
)
from cellgate_kernel.message import MAX_BUFFERS, Channel, MessageError, Status, Tag, join_v1, split_v1

DATE = "2026-01-01T00:00:00Z"
MAX_BYTES = 16 << 20
HEADER = {
    "msg_id": "7",
    "msg_type": "execute_request",
    "session": "s",
    "username": "u",
    "date": "2025-05-05T05:05:05Z",
    "version": "5.4",
}


def read(data, dialect=Dialect.LEGACY, max_bytes=MAX_BYTES):
    return read_frame(data, dialect, date=DATE, max_bytes=max_bytes)


def v1(header=HEADER, content=b'{"code":"1"}', *, channel=b"shell", parent=b"{}", metadata=b"{}", buffers=()) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return b"".join(join_v1(channel, [head, parent, metadata, content, *buffers]))


def text(**changes) -> str:
    message = {"header": HEADER, "parent_header": {}, "metadata": {}, "content": {"code": "1"}, "channel": "shell"}
    return json.dumps(message | changes)


def binary(message: str, *buffers: bytes) -> bytes:
    """The legacy layout."""
    parts = [message.encode(), *buffers]
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"!{len(parts) + 1}I", len(parts), *offsets) + b"".join(parts)


def refusal(data, dialect=Dialect.LEGACY, max_bytes=MAX_BYTES) -> str:
    with pytest.raises(MessageError) as refused:
        read(data, dialect, max_bytes)
    assert close_code(refused.value) in (1003, 1007, 1008, 1009)
    return refused.value.code


# -- what is taken -------------------------------------------------------------------------------------


def test_v1_is_spoken_with_whoever_offers_it_and_legacy_with_the_rest():
    assert choose_dialect(["x", "v1.kernel.websocket.jupyter.org"]) is Dialect.V1
    assert choose_dialect(["v2.kernel.websocket.jupyter.org"]) is Dialect.LEGACY
    assert choose_dialect([]) is Dialect.LEGACY
    assert choose_dialect([str(number) for number in range(1000)]) is Dialect.LEGACY
    assert (Dialect.V1.value, Dialect.LEGACY.value) == ("v1.kernel.websocket.jupyter.org", None)


def test_a_complete_v1_frame_goes_on_as_the_very_bytes_that_came():
    frame = v1(buffers=[b"ab", b""])
    message = read(frame, Dialect.V1)
    assert message.v1 is frame
    assert (message.channel, message.msg_type, message.msg_id) == (Channel.SHELL, "execute_request", "7")
    assert (message.header, message.content) == (HEADER, {"code": "1"})
    assert [bytes(part) for part in message.parts[4:]] == [b"ab", b""]
    assert message.tag == Tag(Channel.SHELL, "execute_request", Status.NONE, b"7")


@pytest.mark.parametrize("frame", [text(), binary(text()), v1()], ids=["text", "binary", "v1"])
def test_a_message_is_the_same_in_every_dialect(frame):
    message = read(frame, Dialect.V1 if frame == v1() else Dialect.LEGACY)
    assert (message.header, message.content, message.channel) == (HEADER, {"code": "1"}, Channel.SHELL)
    assert read(message.v1, Dialect.V1) == message


def test_buffers_come_in_legacy_binary_frames():
    message = read(binary(text(), b"\x00\xff", b"", b"abc"))
    assert [bytes(part) for part in message.parts[4:]] == [b"\x00\xff", b"", b"abc"]


@pytest.mark.parametrize("buffers", [[], {}, None])
def test_every_way_to_say_that_there_are_no_buffers_is_understood(buffers):
    assert len(read(text(buffers=buffers)).parts) == 4


def test_a_message_of_nothing_but_ids_and_code_is_completed():
    """As smolagents sends it, and less."""
    frame = json.dumps({"header": {"msg_id": "7", "msg_type": "execute_request"}, "content": {"code": "1"}})
    message = read(frame)
    assert message.channel is Channel.SHELL
    assert message.header == {
        "msg_id": "7", "msg_type": "execute_request", "username": "", "session": "", "date": DATE,
        "version": PROTOCOL_VERSION,
    }  # fmt: skip
    assert parse_message(memoryview(message.v1))["header"] == message.header


@pytest.mark.parametrize("date", ["", None, {}, 7])
@pytest.mark.parametrize("dialect", Dialect)
def test_a_date_that_is_none_is_filled_in(date, dialect):
    header = HEADER | {"date": date}
    message = read(v1(header) if dialect is Dialect.V1 else text(header=header), dialect)
    assert message.header == HEADER | {"date": DATE}
    assert parse_message(memoryview(message.v1))["header"] == message.header


def test_an_older_version_and_fields_we_do_not_know_are_kept():
    header = HEADER | {"version": "5.0", "subshell_id": "x"}
    assert read(text(header=header)).header == header
    assert read(v1(header), Dialect.V1).header == header


def test_empty_and_missing_parts_are_empty_objects():
    message = read(v1(HEADER | {"msg_type": "kernel_info_request"}, b"", parent=b"", metadata=b""), Dialect.V1)
    assert [bytes(part) for part in message.parts[1:]] == [b"{}"] * 3
    message = read(text(header=HEADER | {"msg_type": "kernel_info_request"}, content=None, metadata=None))
    assert message.content == {}


def test_a_channel_that_is_not_said_is_the_one_where_the_type_belongs():
    assert read(text(channel=None)).channel is Channel.SHELL
    answer = read(text(channel=None, header=HEADER | {"msg_type": "input_reply"}, content={"value": "x"}))
    assert answer.channel is Channel.STDIN


def test_numbers_of_any_length_and_lone_surrogates_do_no_harm():
    message = read(text(content={"code": "\ud800", "n": int("7" * 300)}))
    assert message.content == json.loads(bytes(message.parts[3])) == {"code": "?", "n": int("7" * 300)}
    assert read(v1(content=b'{"code":"","n":' + b"7" * 5000 + b"}"), Dialect.V1).content["code"] == ""


def test_code_may_be_full_of_what_looks_like_structure():
    code = '[{,"\\' * 100_000
    assert read(text(content={"code": code})).content["code"] == code
    assert read(v1(content=json.dumps({"code": code}).encode()), Dialect.V1).content["code"] == code


def test_code_stands_in_no_log():
    assert "hush" not in repr(read(text(content={"code": "hush"})))


def test_200_levels_pass_and_201_do_not():
    def nested(levels):
        return b'{"code":"","x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert read(v1(content=nested(strict.MAX_DEPTH)), Dialect.V1)
    assert refusal(v1(content=nested(strict.MAX_DEPTH + 1)), Dialect.V1) == "bad_json"


# -- what is refused -----------------------------------------------------------------------------------

COUNT = struct.Struct("<Q")
GOOD = v1()


def with_offset(index: int, value: int) -> bytes:
    frame = bytearray(GOOD)
    COUNT.pack_into(frame, 8 * (index + 1), value)
    return bytes(frame)


V1_REFUSED = {
    "text": (text(), "text_frame"),
    "nothing": (b"", "short_message"),
    "odd length": (GOOD[:7], "short_message"),
    "count of 0": (COUNT.pack(0) + GOOD[8:], "bad_count"),
    "count of ten million": (COUNT.pack(10_000_000), "bad_count"),
    "count of 2**63": (COUNT.pack(1 << 63) + GOOD[8:], "bad_count"),
    "falling offsets": (with_offset(2, 60), "bad_offsets"),
    "offset of 2**63": (with_offset(3, 1 << 63), "bad_offsets"),
    "offset of -1": (with_offset(1, (1 << 64) - 1), "bad_offsets"),
    "into the table": (with_offset(0, 0), "bad_offsets"),
    "cut": (GOOD[:-1], "bad_offsets"),
    "more than it says": (GOOD + b"x", "bad_offsets"),
    "iopub": (v1(channel=b"iopub"), "bad_channel"),
    "not utf-8": (v1(b'{"msg_id":"\xff"}'), "bad_json"),
    "not json": (v1(b"{"), "bad_json"),
    "a list": (v1(b"[]"), "bad_json"),
    "metadata 7": (v1(metadata=b"7"), "bad_json"),
    "parent null in a list": (v1(parent=b"[null]"), "bad_json"),
    "infinity in an incomplete header": (v1(b'{"msg_id":"7","msg_type":"x","y":1e999}'), "bad_json"),
    "NaN": (v1(content=b'{"code":"","x":NaN}'), "bad_json"),
    "-Infinity": (v1(content=b'{"code":"","x":-Infinity}'), "bad_json"),
    "a key twice": (v1(content=b'{"code":"good","code":"evil"}'), "bad_json"),
    "a key twice, one escaped": (v1(content=b'{"code":"good","\\u0063ode":"evil"}'), "bad_json"),
    "depth of 100,000": (v1(content=b'{"code":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "bad_json"),
    "unclosed depth": (v1(content=b'{"code":' + b"[" * 100_000), "bad_json"),
    "too many values": (v1(content=b'{"code":"","x":[' + b"[]," * 300_000 + b"0]}"), "bad_json"),
    "too many texts": (v1(content=b'{"code":"","x":[' + b'"",' * 600_000 + b"0]}"), "bad_json"),
    "a header of 9 KB": (v1(HEADER | {"x": "y" * 9000}), "bad_header"),
    "no msg_id": (v1({"msg_type": "execute_request"}), "bad_header"),
    "an empty msg_id": (v1(HEADER | {"msg_id": ""}), "bad_header"),
    "a long msg_id": (v1(HEADER | {"msg_id": "x" * 256}), "bad_header"),
    "a msg_id with a line end": (v1(HEADER | {"msg_id": "a\nb"}), "bad_header"),
    "a msg_id that is half a pair": (v1(HEADER | {"msg_id": "\ud800"}), "bad_header"),
    "msg_id 7": (v1(HEADER | {"msg_id": 7}), "bad_header"),
    "a parent whose msg_id is 7": (v1(parent=b'{"msg_id":7}'), "bad_header"),
    "no msg_type": (v1({"msg_id": "7"}), "bad_header"),
    "a msg_type that is a path": (v1(HEADER | {"msg_type": "../../x"}), "bad_header"),
    "no code": (v1(content=b"{}"), "bad_content"),
    "code that is none": (v1(content=b'{"code":null}'), "bad_content"),
    "silent 1": (v1(content=b'{"code":"","silent":1}'), "bad_content"),
    "expressions in a list": (v1(content=b'{"code":"","user_expressions":[]}'), "bad_content"),
    "a cell on control": (v1(channel=b"control"), "wrong_channel"),
    "a cell on stdin": (v1(channel=b"stdin"), "wrong_channel"),
    "completion on stdin": (v1(HEADER | {"msg_type": "complete_request"}, channel=b"stdin"), "wrong_channel"),
    "input_reply on shell": (v1(HEADER | {"msg_type": "input_reply"}), "wrong_channel"),
}  # fmt: skip

LEGACY_REFUSED = {
    "nothing": ("", "bad_header"),
    "no json": ("{", "bad_json"),
    "a list": ("[]", "bad_json"),
    "depth of 100,000": ("[" * 100_000 + "]" * 100_000, "bad_json"),
    "a key twice": ('{"channel":"shell","channel":"control"}', "bad_json"),
    "NaN": (text(metadata={"x": float("nan")}), "bad_json"),
    "infinity in digits": (text().replace('"1"', '"1", "x": 1e999'), "bad_json"),
    "header in a list": (text(header=[]), "bad_json"),
    "no header": ("{}", "bad_header"),
    "a header of 9 KB": (text(header=HEADER | {"x": "y" * 9000}), "bad_header"),
    "channel iopub": (text(channel="iopub"), "bad_channel"),
    "channel 7": (text(channel=7), "bad_channel"),
    "channel in a list": (text(channel=["shell"]), "bad_channel"),
    "buffers in text": (text(buffers=["x"]), "bad_buffers"),
    "no code": (text(content={}), "bad_content"),
    "a cell on control": (text(channel="control"), "wrong_channel"),
    "binary of nothing": (b"", "short_message"),
    "binary of 3 bytes": (b"\0\0\0", "short_message"),
    "count of 0": (struct.pack("!II", 0, 8), "bad_count"),
    "count of 2**31": (struct.pack("!I", 1 << 31), "bad_count"),
    "count above the limit": (struct.pack("!I", MAX_BUFFERS + 2) + bytes(4 * MAX_BUFFERS + 99), "bad_count"),
    "offset into the table": (struct.pack("!II", 1, 4) + text().encode(), "bad_offsets"),
    "falling offsets": (struct.pack("!III", 2, 12, 11) + text().encode(), "bad_offsets"),
    "offset beyond the end": (struct.pack("!III", 2, 12, 1 << 31) + text().encode(), "bad_offsets"),
    "binary that is not utf-8": (struct.pack("!II", 1, 8) + b"\xff", "bad_json"),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "code"), V1_REFUSED.values(), ids=V1_REFUSED)
def test_what_is_no_v1_frame_is_refused(frame, code):
    assert refusal(frame, Dialect.V1) == code


@pytest.mark.parametrize(("frame", "code"), LEGACY_REFUSED.values(), ids=LEGACY_REFUSED)
def test_what_is_no_legacy_frame_is_refused(frame, code):
    assert refusal(frame) == code


@pytest.mark.parametrize("frame", [text(), binary(text()), text(content={"code": "ä" * 50})])
def test_a_frame_may_have_as_many_bytes_as_its_limit_and_no_more(frame):
    size = len(frame.encode() if isinstance(frame, str) else frame)
    assert read(frame, max_bytes=size)
    assert refusal(frame, max_bytes=size - 1) == "too_large"
    assert refusal(v1(), Dialect.V1, max_bytes=len(v1()) - 1) == "too_large"


def test_a_message_that_grows_beyond_its_limit_on_its_way_into_v1_is_refused():
    frame = text(content={"code": ""})[:-1] + ',"metadata":{"x":[' + "1e15," * 20_000 + "0]}}"
    frame = frame.replace('"metadata": {}, ', "")
    assert read(frame)
    assert refusal(frame, max_bytes=len(frame)) == "too_large"


def test_every_code_that_is_raised_has_its_row_and_every_row_is_raised_here():
    sources = [Path(str(module.__file__)).read_text() for module in (jupyter, strict)]
    raised = {code for source in sources for code in re.findall(r'MessageError\(\s*"(\w+)"', source)}
    assert raised <= set(CLIENT_ERRORS)
    assert {code for _, code in [*V1_REFUSED.values(), *LEGACY_REFUSED.values()]} | {"too_large"} == set(CLIENT_ERRORS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
any_values = json_values | st.just("\ud800") | st.just({"\ud800": "\udfff"})
NAMES = ["header", "parent_header", "metadata", "content", "channel", "buffers"]
FIELDS = [*HEADER, "code", "silent"]
almost = st.dictionaries(
    st.sampled_from(NAMES), any_values | st.dictionaries(st.sampled_from(FIELDS), any_values), max_size=6
).map(lambda changes: text(**changes))
PARTS = [json.dumps(HEADER).encode(), b"{}", b'{"code":"1"}', b""]
almost_v1 = st.lists(
    st.sampled_from(PARTS) | any_values.map(json.dumps).map(str.encode),
    min_size=4,
    max_size=6,
).map(lambda parts: b"".join(join_v1(b"shell", parts)))  # fmt: skip


@given(
    st.binary(max_size=200) | st.text(max_size=200) | almost | almost_v1 | almost.map(binary), st.sampled_from(Dialect)
)
def test_any_frame_is_a_message_or_refused_with_a_listed_code_and_no_third_result(data, dialect):
    try:
        message = read(data, dialect)
    except MessageError as error:
        assert close_code(error)
        assert str(error).startswith(error.code)
        return
    assert read(message.v1, Dialect.V1) == message
    assert parse_message(memoryview(message.v1))["content"] == message.content


@given(st.data())
def test_a_frame_with_bytes_changed_is_a_message_or_refused(data):
    frame = bytearray(v1(buffers=[b"ab"]))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read(bytes(frame), Dialect.V1)
    except MessageError as error:
        assert close_code(error)


# -- what clients get ----------------------------------------------------------------------------------


def output(content=b'{"name":"stdout","text":"x"}', *buffers: bytes) -> bytes:
    return v1(HEADER | {"msg_type": "stream"}, content, channel=b"iopub", parent=b'{"msg_id":"7"}', buffers=buffers)


def test_a_v1_client_gets_the_bytes_that_the_kernel_composed():
    said = output()
    frame = write_frame(said, Dialect.V1)
    assert frame.is_binary
    assert frame.data is said


def test_a_legacy_client_gets_text_with_all_that_they_look_for():
    data, is_binary = write_frame(output(), Dialect.LEGACY)
    assert not is_binary
    assert json.loads(bytes(data)) == {
        "header": HEADER | {"msg_type": "stream"},
        "msg_id": "7",
        "msg_type": "stream",
        "parent_header": {"msg_id": "7"},
        "metadata": {},
        "content": {"name": "stdout", "text": "x"},
        "buffers": [],
        "channel": "iopub",
    }


def test_a_legacy_client_gets_a_binary_frame_when_there_are_buffers():
    data, is_binary = write_frame(output(b"{}", b"\xff", b"", b"abc"), Dialect.LEGACY)
    assert is_binary
    count, *offsets = struct.unpack("!5I", data[:20])
    assert count == 4
    parts = [bytes(data[a:b]) for a, b in zip(offsets, [*offsets[1:], len(data)])]
    assert parts[1:] == [b"\xff", b"", b"abc"]
    assert json.loads(parts[0])["msg_type"] == "stream"


def test_a_text_frame_is_utf8_whatever_the_kernel_said():
    data, _ = write_frame(output(b'{"text":"\xff"}'), Dialect.LEGACY)
    assert json.loads(bytes(data))["content"] == {"text": "\ufffd"}


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=40) | st.just(b"{}"), min_size=4, max_size=6).map(
    lambda parts: b"".join(join_v1(b"iopub", parts))
))  # fmt: skip
def test_whatever_a_kernel_said_is_a_frame_or_refused(data):
    try:
        frame = write_frame(data, Dialect.LEGACY)
    except MessageError:
        return
    assert frame.is_binary or str(bytes(frame.data), "utf-8")


@given(json_values, st.lists(st.binary(max_size=9), max_size=3), st.sampled_from(["shell", "control"]))
def test_what_is_written_for_a_legacy_client_reads_as_what_was_said(value, buffers, channel):
    content = json.dumps({"x": value}).encode()
    said = v1(HEADER | {"msg_type": "comm_msg"}, content, channel=channel.encode(), buffers=buffers)
    try:
        message = read(said, Dialect.V1)
    except MessageError:  # NaN
        return
    data, is_binary = write_frame(said, Dialect.LEGACY)
    back = read(bytes(data) if is_binary else str(data, "utf-8"))
    assert (back.channel, back.header, back.content) == (message.channel, message.header, message.content)
    assert [bytes(part) for part in back.parts[4:]] == buffers


# -- tags ----------------------------------------------------------------------------------------------


def reply(content, **changes) -> tuple[Tag, memoryview]:
    tag, parts = make_message(
        "execute_reply", content, channel=Channel.SHELL, msg_id="9", session="k", date=DATE,
        parent_header={"msg_id": "7"},
    )  # fmt: skip
    true = tag._replace(parent_id=b"7", status=Status.OK)
    return true._replace(**changes), memoryview(b"".join(join_v1(b"shell", parts)))


def test_a_tag_that_says_what_the_message_says_is_true():
    assert tag_is_true(*reply({"status": "ok"}))
    assert tag_is_true(*reply({"status": "error"}, status=Status.ERROR))


@pytest.mark.parametrize(
    "changes",
    [
        {"channel": Channel.IOPUB},
        {"message_type": "stream"},
        {"message_type": ""},
        {"parent_id": b"8"},
        {"parent_id": b""},
        {"status": Status.ERROR},
        {"status": Status.NONE},
    ],
    ids=str,
)
def test_a_tag_that_says_anything_else_is_not(changes):
    assert not tag_is_true(*reply({"status": "ok"}, **changes))


@pytest.mark.parametrize(
    "header",
    [
        b'{"msg_type":"stream","msg_id":"1","msg_type":"status"}',
        b'{"msg_id":"1","msg_type":"stream","username":"","session":"","version":"5.3","date":"","msg_type":"status"}',
        b'{"msg_type":["stream"]}',
        b"[]",
        b"{",
        b"",
    ],
)
def test_a_header_that_hides_its_type_makes_no_tag_true(header):
    message = memoryview(v1(header, b"{}", channel=b"iopub"))
    assert not tag_is_true(Tag(Channel.IOPUB, "stream", Status.NONE, b""), message)


def test_a_type_without_a_code_is_named_by_the_message_alone():
    message = memoryview(v1(HEADER | {"msg_type": "our_own"}, b"{}", channel=b"iopub"))
    assert tag_is_true(Tag(Channel.IOPUB, "", Status.NONE, b""), message)


def test_a_request_reads_as_it_was_made():
    content = execute_content("1")
    _, parts = make_message("execute_request", content, channel=Channel.SHELL, msg_id="7", session="s", date=DATE)
    frame = b"".join(join_v1(b"shell", parts))
    assert read(frame, Dialect.V1).content == content
    assert split_v1(memoryview(read(frame, Dialect.V1).v1))[1] == split_v1(memoryview(frame))[1]
