from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellgate.gateway.frames import (
    JOIN_BYTES,
    Close,
    CloseCode,
    FrameReader,
    Message,
    Opcode,
    Ping,
    Pong,
    WebSocketError,
    close_frame,
    control_frame,
    join_frames,
)
from cellgate.wire.jupyter import Frame
from tests.support.websocket import BINARY, PING, TEXT, close, frame

LIMIT = 1 << 20


def read(*chunks: bytes, limit: int = LIMIT) -> list[object]:
    """All events, and the error that was the end of it, if one was."""
    reader = FrameReader(limit)
    events: list[object] = []
    try:
        for chunk in chunks:
            events += reader.feed(chunk)
    except WebSocketError as error:
        events.append((error.code, str(error)))
    return events


def split(data: bytes, at: list[int]) -> list[bytes]:
    cuts = [0, *sorted(cut % (len(data) + 1) for cut in at), len(data)]
    return [data[a:b] for a, b in zip(cuts, cuts[1:])]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[object]]:
    """What a client may send: messages in fragments with pings between them, and what is to be read there."""
    sent = b""
    events: list[object] = []
    for data in draw(st.lists(st.text(max_size=300) | st.binary(max_size=300), max_size=5)):
        payload = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        if isinstance(data, str) and any(0xD800 <= ord(char) < 0xE000 for char in data):
            continue
        parts = split(payload, draw(st.lists(st.integers(0, 400), max_size=3)))
        for number, part in enumerate(parts):
            opcode = 0 if number else TEXT if isinstance(data, str) else BINARY
            sent += frame(opcode, part, fin=number == len(parts) - 1)
            if number < len(parts) - 1 and draw(st.booleans()):
                sent += frame(PING, b"%d" % number)
                events.append(Ping(b"%d" % number))
        events.append(Message(data))
    return sent, events


@given(conversations(), st.lists(st.integers(0, 2000), max_size=8))
@settings(max_examples=200, deadline=None)
def test_what_was_sent_is_read_however_the_bytes_are_cut(conversation, cuts):
    sent, events = conversation
    assert read(*split(sent, cuts)) == events


@given(st.binary(max_size=400) | st.binary(max_size=40).map(lambda data: frame(TEXT, data)), st.integers(0, 3000))
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_there_are_events_or_one_error_the_same_for_each_byte_alone(data, limit):
    assert read(data, limit=limit) == read(*(data[at : at + 1] for at in range(len(data))), limit=limit)


def test_a_payload_is_awaited_and_not_made_room_for():
    reader = FrameReader(1 << 40)
    tracemalloc.start()
    assert list(reader.feed(b"\x82\xff" + (1 << 39).to_bytes(8, "big") + b"mask" + b"x" * 1000)) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16
    assert reader.missing_bytes == (1 << 39) - 1000


def test_more_than_the_limit_is_refused_by_the_header_alone():
    assert read(b"\x82\xff" + (1 << 30).to_bytes(8, "big") + b"mask") == [
        (CloseCode.TOO_BIG, f"{1 << 30} bytes; up to {LIMIT} would pass")
    ]


def test_a_hundred_thousand_fragments_take_no_more_memory_than_what_is_in_them():
    fragments = frame(TEXT, b"x", fin=False) + frame(0, b"x", fin=False) * 99_999
    reader = FrameReader(100_000)
    tracemalloc.start()
    for at in range(0, len(fragments), 4096):
        assert list(reader.feed(fragments[at : at + 4096])) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 100_000
    with pytest.raises(WebSocketError) as caught:
        list(reader.feed(frame(0, b"x", fin=False)))
    assert caught.value.code == CloseCode.TOO_BIG


def test_fragments_count_together_and_control_frames_not_at_all():
    whole = frame(TEXT, b"x" * 60, fin=False) + frame(PING, b"y" * 60) + frame(0, b"x" * 40)
    assert read(whole, limit=100) == [Ping(b"y" * 60), Message("x" * 100)]
    assert read(whole, limit=99)[-1][0] == CloseCode.TOO_BIG


@pytest.mark.parametrize("wrong", [b"\xff", b"\xed\xa0\x80", b"\xf4\x90", b"\xc0", b"caf\xe9s"])
def test_wrong_text_is_refused_at_its_first_wrong_byte(wrong):
    head = frame(TEXT, b"good " + wrong + b"." * 1000)[: 8 + 5 + len(wrong)]
    assert read(head) == [(CloseCode.BAD_TEXT, "text must be UTF-8")]


def test_a_character_may_be_cut_by_fragments_and_must_be_whole_at_the_end():
    first, last = "né".encode()[:2], "né".encode()[2:]
    assert read(frame(TEXT, first, fin=False), frame(0, last)) == [Message("né")]
    assert read(frame(TEXT, first, fin=False), frame(0, b""))[-1][0] == CloseCode.BAD_TEXT


def test_nothing_is_read_after_a_close_frame():
    assert read(close(1000, b"bye") + frame(TEXT, b"more")) == [Close(1000, "bye")]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_a_close_code_that_may_be_sent_is_read(code):
    assert read(close(code)) == [Close(code, "")]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_code_that_may_not_be_sent_is_refused(code):
    assert read(close(code))[0][0] == CloseCode.PROTOCOL_ERROR


# -- to clients


def unmasked(pieces) -> list[object]:
    """What a client reads: our own reader, made to believe that these are masked with zeros."""
    data, at, out = b"".join(pieces), 0, b""
    while at < len(data):
        size = data[at + 1]
        start = at + {126: 4, 127: 10}.get(size, 2)
        length = size if size < 126 else int.from_bytes(data[at + 2 : start], "big")
        out += bytes([data[at], size | 0x80]) + data[at + 2 : start] + bytes(4) + data[start : start + length]
        at = start + length
    return read(out)


@given(st.lists(st.sampled_from([0, 1, 125, 126, 65535, 65536, JOIN_BYTES - 1, JOIN_BYTES]), max_size=6), st.booleans())
@settings(max_examples=50, deadline=None)
def test_frames_arrive_in_their_order_with_the_mark_behind_them(sizes, is_marked):
    frames = [Frame(bytes([65 + number]) * size, number % 2 == 0) for number, size in enumerate(sizes)]
    messages = [Message(data if is_binary else data.decode()) for data, is_binary in frames]
    pieces = join_frames(frames, b"mark" if is_marked else None)
    assert unmasked(pieces) == messages + [Ping(b"mark")] * is_marked
    assert len(pieces) <= 2 * sum(size >= JOIN_BYTES for size in sizes) + 1


def test_small_frames_are_one_piece_and_large_ones_are_not_copied():
    large = bytes(JOIN_BYTES)
    pieces = join_frames(
        [Frame(b"a", True), Frame(memoryview(b"b"), False), Frame(large, True), Frame(b"c", True)], b"m"
    )
    assert len(pieces) == 3
    assert pieces[1] is large
    assert join_frames([]) == []


def test_a_reason_is_cut_between_characters_and_whatever_it_holds():
    assert unmasked([close_frame(1000, "é" * 100)]) == [Close(1000, "é" * 61)]
    assert unmasked([close_frame(4000, "a\ud800b")]) == [Close(4000, "a?b")]
    assert unmasked([close_frame(CloseCode.NO_CODE, "not sent")]) == [Close(CloseCode.NO_CODE, "")]


def test_a_mark_of_more_than_125_bytes_is_our_own_fault():
    assert unmasked([control_frame(Opcode.PONG, b"x" * 125)]) == [Pong(b"x" * 125)]
    with pytest.raises(ValueError, match="126 bytes"):
        join_frames([], b"x" * 126)
