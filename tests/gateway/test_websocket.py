from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from contextvars import ContextVar

import pytest

from cellgate.gateway.duplex import MAX_PIECES
from cellgate.gateway.websocket import PING_SECONDS, SILENCE_SECONDS
from cellgate.wire.jupyter import Frame
from tests.support.websocket import (
    BINARY,
    BOUND,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Echo,
    Got,
    RawClient,
    close,
    frame,
    handshake,
    serve,
)

SMALL_BUFFERS = 8192  # bytes; so that a client that does not read is noticed soon
LARGE = bytes(1 << 20)


def closed(code: int, reason: bytes = b"") -> Got:
    return Got(CLOSE, struct.pack("!H", code) + reason)


class Impatient(Echo):
    """Its client is asked soon, and given up soon."""

    ping_seconds = 0.05
    silence_seconds = 0.3
    close_seconds = 0.2


class Patient(Echo):
    """What comes only at the end of its patience comes too late for a test."""

    close_seconds = 10 * BOUND


class Pausing(Echo):
    def heard(self, data):
        super().heard(data)
        self.pause()


async def fill(handler: Echo) -> int:
    """Send until the socket takes no more; how many bytes of data that were."""
    total = 0
    while handler.buffered_bytes == 0:
        assert not handler.is_gone
        handler.send([Frame(LARGE, True)])
        total += len(LARGE)
        await asyncio.sleep(0)
    return total


# -- what is sent


async def test_frames_arrive_in_order_and_marks_come_back_in_theirs():
    async with serve() as stage:
        client, handler = await stage.pair()
        for number in range(20):
            handler.send([Frame(b"%d" % number, False), Frame(b"x" * (number << 10), True)], b"mark %d" % number)
        for number in range(20):
            assert await client.read() == Got(TEXT, b"%d" % number)
            assert await client.read() == Got(BINARY, b"x" * (number << 10))
            assert await client.read() == Got(PING, b"mark %d" % number)
            client.send(frame(PONG, b"mark %d" % number))
        assert [await handler.next_call() for _ in range(20)] == [("marked", b"mark %d" % n) for n in range(20)]


async def test_a_pong_stands_for_all_marks_before_it_and_one_nobody_asked_for_is_none():
    async with serve() as stage:
        client, handler = await stage.pair()
        for mark in (b"1", b"2", b"3"):
            handler.send([], mark)
        client.send(b"".join(frame(PONG, mark) for mark in (b"4", b"2", b"1", b"", b"3")) + close(1000))
        calls = [await handler.next_call() for _ in range(3)]
    assert calls == [("marked", b"2"), ("marked", b"3"), ("ended", 1000, "")]


async def test_what_a_client_does_not_take_is_counted_and_told_when_it_is_gone():
    async with serve(send_bytes=SMALL_BUFFERS) as stage:
        client, handler = await stage.pair(receive_bytes=SMALL_BUFFERS)
        total = await fill(handler)
        waits, sent = handler.buffered_bytes, handler.sent_bytes
        assert waits + sent == total + 10 * (total // len(LARGE))
        handler.send([Frame(b"x", True)])
        assert (handler.buffered_bytes, handler.sent_bytes) == (waits + 3, sent)
        assert handler.said.empty()

        for _ in range(total // len(LARGE)):
            assert len((await client.read()).data) == len(LARGE)
        assert await client.read() == Got(BINARY, b"x")
        assert await handler.next_call() == ("drained",)
        assert (handler.buffered_bytes, handler.sent_bytes) == (0, waits + 3 + sent)
        assert handler.said.empty()


async def test_more_than_one_system_call_takes_arrives_all_the_same():
    async with serve() as stage:
        client, handler = await stage.pair()
        handler.send([Frame(bytes([number % 256]) * (16 << 10), True) for number in range(MAX_PIECES + 1)])
        for number in range(MAX_PIECES + 1):
            assert await client.read() == Got(BINARY, bytes([number % 256]) * (16 << 10))


async def test_small_messages_are_not_held_back_by_the_kernel():
    async with serve() as stage:
        _, handler = await stage.pair()
        assert handler.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_sending_after_the_end_does_nothing():
    async with serve() as stage:
        client, handler = await stage.pair()
        client.reset()
        assert (await handler.next_call())[0] == "ended"
        handler.send([Frame(LARGE, True)], b"mark")
        handler.pause()
        handler.resume()
        handler.shut(1000, "")
        assert handler.buffered_bytes == 0
        await asyncio.sleep(0)
        assert handler.said.empty()


# -- what is heard


async def test_text_is_heard_as_str_and_binary_as_bytes():
    async with serve() as stage:
        client, handler = await stage.pair()
        client.send(frame(TEXT, "é".encode()) + frame(BINARY, b"\xff"))
        assert await handler.next_call() == ("heard", "é")
        assert await handler.next_call() == ("heard", b"\xff")


async def test_what_comes_along_with_the_handshake_is_heard():
    async with serve() as stage:
        client = await RawClient.connect(stage.port, first=frame(TEXT, b"early"))
        assert await client.read() == Got(TEXT, b"early")


async def test_compression_is_not_agreed_on():
    async with serve() as stage:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        client = await RawClient.connect(stage.port, headers=offer)
        assert client.head.startswith("HTTP/1.1 101 ")
        assert "extensions" not in client.head.lower()
        client.send(frame(TEXT, b"\xf2H\xcd\xc9\xc9\x07\x00", rsv=4))
        got = await client.read_all()
    assert [(opcode, data[:2]) for opcode, data in got] == [(CLOSE, struct.pack("!H", 1002))]


async def test_a_page_of_another_site_may_not_connect():
    async with serve() as stage:
        client = await RawClient.connect(stage.port, headers="Origin: http://elsewhere.example\r\n")
        assert client.head.startswith("HTTP/1.1 403 ")


async def test_a_paused_websocket_hears_nothing_until_it_is_resumed():
    async with serve(Pausing) as stage:
        client, handler = await stage.pair()
        client.send(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(PING, b"3"))
        for expected in (Got(TEXT, b"1"), Got(TEXT, b"2"), Got(PONG, b"3")):
            assert await client.read() == expected
            if expected != Got(PONG, b"3"):
                assert handler.said.qsize() == 1
                handler.said.get_nowait()
            handler.resume()


async def test_what_is_heard_after_a_pause_is_heard_for_the_same_request_whoever_ended_the_pause():
    """Logs name the request that something is done for by a context variable."""
    request = ContextVar("request", default="nobody's")

    class Named(Pausing):
        def prepare(self):
            request.set("its own")

        def heard(self, data):
            super().heard(data)
            self.said.put_nowait(("for", request.get()))

    async with serve(Named) as stage:
        client, handler = await stage.pair()
        client.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        for _ in range(3):
            assert (await handler.next_call())[0] == "heard"
            assert await handler.next_call() == ("for", "its own")
            handler.resume()
            client.send(frame(TEXT, b"more"))


async def test_a_client_that_is_not_heard_can_send_only_so_much():
    async with serve() as stage:
        client, handler = await stage.pair()
        handler.pause()
        client.send(frame(BINARY, LARGE) * 64)
        waits = -1
        while client.writer.transport.get_write_buffer_size() != waits:  # until it can send no more
            waits = client.writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.1)
        assert waits > 32 * len(LARGE)
        assert handler.said.empty()
        handler.resume()
        for _ in range(64):
            assert len((await client.read()).data) == len(LARGE)


async def test_pings_are_answered_and_of_those_whose_pongs_are_not_taken_only_the_last():
    async with serve(send_bytes=SMALL_BUFFERS) as stage:
        client, handler = await stage.pair(receive_bytes=SMALL_BUFFERS)
        client.send(frame(PING, b"first"))
        assert await client.read() == Got(PONG, b"first")
        count = await fill(handler) // len(LARGE)
        waits = handler.buffered_bytes
        client.send(b"".join(frame(PING, b"%0125d" % number) for number in range(10_000)) + frame(TEXT, b"heard"))
        assert await handler.next_call() == ("heard", "heard")
        assert handler.buffered_bytes <= waits + 127 + 7
        got = [await client.read() for _ in range(count + 3)]
    assert [data for opcode, data in got if opcode == PONG] == [b"%0125d" % 0, b"%0125d" % 9999]


async def test_a_handler_that_fails_closes_with_1011_and_says_no_more_than_that(caplog):
    class Failing(Echo):
        def heard(self, data):
            raise RuntimeError("a secret")

    async with serve(Failing) as stage:
        client, handler = await stage.pair()
        client.send(frame(TEXT, b"x"))
        assert await client.read() == closed(1011, b"the server failed")
        client.send(close(1011))
        assert await handler.next_call() == ("ended", 1011, "the server failed")
    assert "a secret" in caplog.text


# -- how it ends: `ended` comes once, and nothing after it


async def end_of(handler: Echo) -> tuple[object, ...]:
    """The one end; nothing else may come before it, and nothing until the connection is gone."""
    call = await handler.next_call()
    await until_gone(handler)
    assert handler.said.empty()
    return call


async def until_gone(handler: Echo) -> None:
    deadline = asyncio.get_running_loop().time() + BOUND
    while not handler.is_gone:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)  # whatever is told of it is told by now
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("sent", "answered", "told"),
    [
        (close(1000, b"bye"), closed(1000, b"bye"), (1000, "bye")),
        (close(4999), closed(4999), (4999, "")),
        (frame(CLOSE), Got(CLOSE, b""), (1005, "")),
    ],
)
async def test_a_client_that_closes_is_answered(sent, answered, told):
    async with serve() as stage:
        client, handler = await stage.pair()
        client.send(sent)
        assert await client.read_all() == [answered]
        assert await end_of(handler) == ("ended", *told)


async def test_a_client_that_closes_still_gets_what_was_sent_before():
    async with serve(Patient, send_bytes=SMALL_BUFFERS) as stage:
        client, handler = await stage.pair(receive_bytes=SMALL_BUFFERS)
        count = await fill(handler) // len(LARGE)
        client.send(close(1000))
        assert await handler.next_call() == ("ended", 1000, "")
        assert await client.read_all() == [Got(BINARY, LARGE)] * count + [closed(1000)]


async def test_a_client_that_resets_the_connection_has_ended():
    async with serve() as stage:
        client, handler = await stage.pair()
        client.reset()
        assert await end_of(handler) == ("ended", None, "the connection was lost")


async def test_a_client_that_resets_the_connection_before_it_is_answered_opens_nothing(caplog):
    asked, may_answer = asyncio.Event(), asyncio.Event()
    handlers: list[Echo] = []

    class Slow(Echo):
        async def prepare(self):
            handlers.append(self)
            asked.set()
            await may_answer.wait()

        def on_close(self):
            super().on_close()
            self.said.put_nowait(("closed",))

    async with serve(Slow) as stage:
        with socket.create_connection(("127.0.0.1", stage.port)) as client:
            client.sendall(handshake(stage.port))
            await asyncio.wait_for(asked.wait(), BOUND)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        may_answer.set()
        assert await handlers[0].next_call() == ("closed",)
        assert stage._opened.empty()
    assert "Uncaught exception" not in caplog.text


async def test_a_client_that_leaves_without_a_word_has_ended_and_what_it_said_before_is_heard():
    async with serve() as stage:
        client, handler = await stage.pair()
        client.send(frame(TEXT, b"last words"))
        client.writer.write_eof()
        assert await handler.next_call() == ("heard", "last words")
        assert await end_of(handler) == ("ended", None, "the connection was lost")


@pytest.mark.parametrize("waits", ["nothing", "output"])
async def test_a_client_that_is_gone_is_noticed_by_sending_though_nothing_is_heard(waits):
    async with serve(Pausing, send_bytes=SMALL_BUFFERS) as stage:
        client, handler = await stage.pair(receive_bytes=SMALL_BUFFERS)
        client.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        assert await handler.next_call() == ("heard", "1")
        if waits == "output":
            await fill(handler)
        client.reset()
        if waits != "output":
            handler.send([Frame(b"x", True)])  # the first is taken, and its answer is that nobody is there
            await asyncio.sleep(0)
            handler.send([Frame(b"x", True)])
        assert await end_of(handler) == ("ended", None, "the connection was lost")


async def test_a_client_that_gives_no_sign_of_life_is_asked_and_then_given_up():
    async with serve(Impatient) as stage:
        client, handler = await stage.pair()
        assert await end_of(handler) == ("ended", None, "no sign of life for 0.3 s")
        got = await client.read_all()
        assert len(got) >= 2
        assert set(got) == {Got(PING, b"")}


async def test_a_client_that_answers_pings_may_be_silent_for_ever():
    async with serve(Impatient) as stage:
        client, handler = await stage.pair()
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 3 * Impatient.silence_seconds:
            assert await client.read() == Got(PING, b"")
            client.send(frame(PONG))
        assert handler.said.empty()


async def test_a_client_is_not_given_up_for_a_time_when_we_looked_away():
    """A gateway that was stopped and continued would drop all its clients, whose answers lie unread."""
    async with serve(Impatient) as stage:
        client, handler = await stage.pair()
        assert await client.read() == Got(PING, b"")
        time.sleep(2 * Impatient.silence_seconds)
        client.send(frame(PONG) + frame(TEXT, b"still here"))
        assert await handler.next_call() == ("heard", "still here")


async def test_a_client_that_takes_what_waits_for_it_is_alive_though_it_says_nothing():
    async with serve(Impatient, send_bytes=SMALL_BUFFERS) as stage:
        client, handler = await stage.pair(receive_bytes=SMALL_BUFFERS)
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 3 * Impatient.silence_seconds:
            await fill(handler)
            await client.reader.read(4096)
            await asyncio.sleep(0.001)
        assert not [said for said in handler.said._queue if said[0] == "ended"]


async def test_half_open_connections_end_within_90_seconds():
    assert PING_SECONDS <= 30
    assert SILENCE_SECONDS <= 90
    assert SILENCE_SECONDS >= 2 * PING_SECONDS + 10  # so that one lost ping is no end


async def test_a_client_that_is_shut_out_reads_all_that_was_sent_and_then_why():
    async with serve() as stage:
        client, handler = await stage.pair()
        handler.send([Frame(LARGE, True)] * 8)
        handler.shut(4001, "é" * 100)
        handler.shut(4002, "again")
        handler.send([Frame(b"too late", True)])
        client.send(frame(TEXT, b"unheard"))
        got = [await client.read() for _ in range(9)]
        assert got == [Got(BINARY, LARGE)] * 8 + [closed(4001, "é".encode() * 61)]
        client.send(close(4001))
        assert await client.read_all() == []
        assert await end_of(handler) == ("ended", 4001, "é" * 100)


@pytest.mark.parametrize("answers", [True, False], ids=["a close frame", "nothing"])
async def test_a_client_that_reads_nothing_is_gone_soon_after_it_was_shut_out(answers):
    async with serve(Impatient, send_bytes=SMALL_BUFFERS) as stage:
        client, handler = await stage.pair(receive_bytes=SMALL_BUFFERS)
        await fill(handler)
        began = asyncio.get_running_loop().time()
        handler.shut(4008, "too slow")
        if answers:
            client.send(close(4008))
        assert await end_of(handler) == ("ended", 4008, "too slow")
        assert asyncio.get_running_loop().time() - began < Impatient.close_seconds + 1
        with pytest.raises(ConnectionResetError):  # nothing of it stays in the kernel either
            while await client.reader.read(1 << 16):
                pass


async def test_a_client_that_takes_the_close_frame_and_does_not_answer_is_gone_as_soon():
    async with serve(Impatient) as stage:
        client, handler = await stage.pair()
        handler.shut(4001, "over")
        assert await client.read() == closed(4001, b"over")
        assert await end_of(handler) == ("ended", 4001, "over")


async def test_a_paused_websocket_can_be_shut_and_a_shut_one_not_paused():
    async with serve(Patient) as stage:
        client, handler = await stage.pair()
        handler.pause()
        handler.shut(4001, "over")
        handler.pause()
        client.send(close(4001))
        assert await client.read_all() == [closed(4001, b"over")]
        assert await end_of(handler) == ("ended", 4001, "over")


async def test_marks_that_come_back_while_it_closes_still_count():
    async with serve() as stage:
        client, handler = await stage.pair()
        handler.send([Frame(b"x", True)], b"mark")
        handler.shut(4001, "over")
        client.send(frame(PONG, b"mark") + close(4001))
        assert await client.read_all() == [Got(BINARY, b"x"), Got(PING, b"mark"), closed(4001, b"over")]
        assert await handler.next_call() == ("marked", b"mark")
        assert await end_of(handler) == ("ended", 4001, "over")


async def test_a_client_in_the_middle_of_a_message_too_large_reads_why():
    """Closed at once, with the client's bytes unread, the connection would be reset and the reason lost."""
    async with serve() as stage:
        client, handler = await stage.pair()
        client.send(frame(BINARY, LARGE * 17))
        (got,) = await client.read_all()
        assert got == closed(1009, b"17825792 bytes; up to 1048576 would pass")
        assert await end_of(handler) == ("ended", 1009, "17825792 bytes; up to 1048576 would pass")


async def test_an_open_that_fails_has_an_end_too(caplog):
    class Broken(Echo):
        def open(self):
            super().open()
            raise RuntimeError("not today")

    async with serve(Broken) as stage:
        client, handler = await stage.pair()
        assert await end_of(handler) == ("ended", None, "the connection was lost")
        with contextlib.suppress(ConnectionResetError):
            assert await client.read_all() == []
    assert "not today" in caplog.text


async def test_shut_in_open_is_an_end_like_others():
    class Full(Echo):
        def open(self):
            super().open()
            self.shut(1013, "full")

    async with serve(Full) as stage:
        client, handler = await stage.pair()
        client.send(close(1013))
        assert await client.read_all() == [closed(1013, b"full")]
        assert await end_of(handler) == ("ended", 1013, "full")


async def test_a_handshake_that_fails_opens_nothing_and_ends_nothing():
    async with serve() as stage:
        client = await RawClient.connect(stage.port, key="")
        assert client.head.startswith("HTTP/1.1 400 ")
        assert stage._opened.empty()
