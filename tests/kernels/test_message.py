"""The layout of a message: tags and the v1 offsets, there and back, and what is refused."""

import struct
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cellgate_kernel.message import (
    CHANNELS,
    ERROR_CODES,
    MAX_BUFFERS,
    MESSAGE_TYPES,
    Channel,
    MessageError,
    Status,
    Tag,
    join_v1,
    split_v1,
)

tags = st.builds(
    Tag, st.sampled_from(Channel), st.sampled_from(MESSAGE_TYPES), st.sampled_from(Status), st.binary(max_size=255)
)


def joined(channel: bytes, parts) -> bytes:
    return b"".join(join_v1(channel, parts))


@given(tag=tags, rest=st.binary(max_size=50))
def test_a_tag_comes_back_as_it_was_with_the_message_behind_it(tag, rest):
    unpacked, behind = Tag.unpack(memoryview(tag.pack() + rest))
    assert unpacked == tag
    assert behind == rest


def test_a_type_that_is_not_listed_is_sent_as_none():
    tag, _ = Tag.unpack(memoryview(Tag(Channel.IOPUB, "subshell_created", Status.NONE, b"").pack()))
    assert tag.message_type == ""


def test_a_parent_id_that_is_too_long_is_cut():
    tag, behind = Tag.unpack(memoryview(Tag(Channel.SHELL, "", Status.NONE, b"x" * 300).pack() + b"rest"))
    assert tag.parent_id == b"x" * 255
    assert behind == b"rest"


@given(channel=st.sampled_from(CHANNELS), parts=st.lists(st.binary(max_size=40), min_size=4, max_size=9))
def test_a_message_comes_back_as_it_was(channel, parts):
    assert split_v1(memoryview(joined(channel, parts))) == (channel, parts)


def test_the_layout_is_the_one_that_the_subprotocol_specifies():
    """v1.kernel.websocket.jupyter.org: the number of offsets, the offsets, the channel, the parts."""
    parts = [b'{"msg_type":"stream"}', b"{}", b"[]", b'{"text":"x"}', b"buffer", b""]
    table = [8, 72, 77, 98, 100, 102, 114, 120, 120]
    assert joined(b"iopub", parts) == struct.pack("<9Q", *table) + b"iopub" + b"".join(parts)


def test_a_part_that_is_not_flat_bytes_is_copied_flat():
    """`len()` of an array's view counts its items: the offsets would have lied."""
    numbers = array("d", [1.0, 2.0, 3.0])
    data = join_v1(b"iopub", [b"{}"] * 4 + [memoryview(numbers)])
    numbers[0] = 9.0
    assert split_v1(memoryview(b"".join(data)))[1][4] == struct.pack("3d", 1.0, 2.0, 3.0)


@pytest.mark.parametrize("count", [0, 3, 5 + MAX_BUFFERS])
def test_a_number_of_parts_that_the_receiver_would_refuse_is_not_sent(count):
    with pytest.raises(MessageError) as caught:
        join_v1(b"shell", [b""] * count)
    assert caught.value.code == "bad_count"


def test_as_many_buffers_as_are_allowed_pass():
    parts = [b"{}"] * 4 + [b"b"] * MAX_BUFFERS
    assert split_v1(memoryview(joined(b"shell", parts))) == (b"shell", parts)


def v1(*words: int, rest: bytes = b"") -> bytes:
    return struct.pack(f"<{len(words)}Q", *words) + rest


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "short_message"),
        (b"1234567", "short_message"),
        (v1(0), "bad_count"),
        (v1(5, 48, 48, 48, 48, 48), "bad_count"),
        (v1(6, 56, 56), "bad_count"),  # more than is there
        (v1(10_000_000), "bad_count"),  # a stock decoder loops over it
        (v1((1 << 64) - 1), "bad_count"),
        (v1(6, 57, 57, 57, 57, 57, 57, rest=b"x"), "bad_offsets"),  # a gap behind the table
        (v1(6, 48, 56, 56, 56, 56, 56), "bad_offsets"),  # inside the table
        (v1(6, 56, 61, 60, 61, 61, 61, rest=b"shell"), "bad_offsets"),  # falling
        (v1(6, 56, 61, 61, 61, 61, 62, rest=b"shell"), "bad_offsets"),  # past the end
        (v1(6, 56, 61, 61, 61, 61, 61, rest=b"shell+"), "bad_offsets"),  # bytes to spare
        (v1(6, 56, 61, 61, 61, 61, (1 << 64) - 1, rest=b"shell"), "bad_offsets"),
        (v1(6, 56, 61, 61, 61, 61, 61, rest=b"Shell"), "bad_channel"),
        (v1(6, 56, 56, 56, 56, 56, 56), "bad_channel"),
    ],
)
def test_a_broken_message_is_refused_by_name(data, code):
    with pytest.raises(MessageError) as caught:
        split_v1(memoryview(data))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\0\0", "short_tag"),
        (b"\0\0\0\5abcd", "short_tag"),
        (b"\4\0\0\0", "bad_tag"),
        (bytes([0, len(MESSAGE_TYPES), 0, 0]), "bad_tag"),
        (bytes([0, 0, max(Status) + 1, 0]), "bad_tag"),
    ],
)
def test_a_broken_tag_is_refused_by_name(data, code):
    with pytest.raises(MessageError) as caught:
        Tag.unpack(memoryview(data))
    assert caught.value.code == code


words = st.one_of(st.integers(0, 90), st.integers(0, (1 << 64) - 1))


@given(head=st.lists(words, max_size=9), rest=st.binary(max_size=60))
@example(head=[6, 56, 61, 61, 61, 61, 61], rest=b"shell")
def test_any_bytes_are_a_message_or_refused(head, rest):
    data = v1(*head, rest=rest)
    for read in (Tag.unpack, split_v1):
        try:
            result = read(memoryview(data))
        except MessageError as error:
            assert error.code in ERROR_CODES
            continue
        if read is split_v1:  # what was accepted is exactly what joining its parts gives
            channel, parts = result
            assert joined(channel, [bytes(part) for part in parts]) == data
