"""Frames beside jupyter_server's own: each side reads what the other writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.wire.jupyter import Dialect, parse_message, read_frame, write_frame
from cellgate_kernel.message import join_v1

base = pytest.importorskip("jupyter_server.services.kernels.connection.base")
DATE = "2026-01-01T00:00:00Z"

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, values, max_size=3)
headers = st.fixed_dictionaries(
    {
        "msg_id": st.uuids().map(str),
        "msg_type": st.sampled_from(["comm_msg", "complete_request"]),
        "session": text,
        "username": text,
        "date": st.just(DATE),
        "version": st.just("5.3"),
    }
)
messages = st.fixed_dictionaries(
    {
        "header": headers,
        "parent_header": st.just({}),
        "metadata": objects,
        "content": objects,
        "buffers": st.lists(st.binary(max_size=20), max_size=3),
    }
)
channels = st.sampled_from(["shell", "control"])


def pack(value) -> bytes:
    return json.dumps(value).encode()


def read(data, dialect):
    return read_frame(data, dialect, date="", max_bytes=1 << 20)


def assert_same(message, written, channel):
    parsed = parse_message(memoryview(message.v1))
    assert parsed["channel"] == channel
    assert {name: parsed[name] for name in ("header", "parent_header", "metadata", "content")} == {
        name: value for name, value in written.items() if name != "buffers"
    }
    assert [bytes(buffer) for buffer in parsed["buffers"]] == written["buffers"]


@given(messages, channels)
def test_v1_frames_that_jupyter_server_writes_are_read(written, channel):
    parts = [pack(written[name]) for name in ("header", "parent_header", "metadata", "content")]
    frame = base.serialize_msg_to_ws_v1([*parts, *written["buffers"]], channel)
    assert frame == b"".join(join_v1(channel.encode(), [*parts, *written["buffers"]]))
    assert_same(read(frame, Dialect.V1), written, channel)


@given(messages, channels)
def test_legacy_frames_that_jupyter_server_writes_are_read(written, channel):
    message = written | {"channel": channel}
    assert_same(read(base.serialize_binary_message(message), Dialect.LEGACY), written, channel)
    assert_same(read(json.dumps(message | {"buffers": []}), Dialect.LEGACY), written | {"buffers": []}, channel)


@given(messages, channels)
def test_frames_that_we_write_are_read_by_jupyter_server(said, channel):
    parts = [pack(said[name]) for name in ("header", "parent_header", "metadata", "content")]
    v1 = b"".join(join_v1(channel.encode(), [*parts, *said["buffers"]]))
    assert base.deserialize_msg_from_ws_v1(v1) == (channel, [*parts, *said["buffers"]])

    data, is_binary = write_frame(v1, Dialect.LEGACY)
    read_back = base.deserialize_binary_message(data) if is_binary else json.loads(bytes(data))
    read_back["header"]["date"] = DATE  # a datetime by now
    assert read_back == said | {
        "channel": channel,
        "msg_id": said["header"]["msg_id"],
        "msg_type": said["header"]["msg_type"],
    }
