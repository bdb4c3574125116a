"""A link over a socket: what is written and read, and what a peer that misbehaves cannot do."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest

from cellgate.errors import LinkClosed
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.connection import (
    MAX_READ_BYTES,
    READ_BYTES,
    Batch,
    KernelConnection,
    LinkStream,
    _next_read,
    each,
)
from cellgate.sandbox.fake import FakeDriver
from cellgate_kernel.link import Acknowledged, Hello, Link, LinkLimits, Message, WindowFull
from cellgate_kernel.message import Channel, Status, Tag, join_v1

BOUND = 10.0
SHELL = Tag(Channel.SHELL, "execute_request", Status.NONE, b"7")
CONTROL = Tag(Channel.CONTROL, "interrupt_request", Status.NONE, b"8")
PARTS = [b"{}", b"{}", b"{}", b"{}"]


class Peer:
    """The other end, by hand: blocking on purpose only where the bytes are known to be there."""

    def __init__(self, sock: socket.socket, limits: LinkLimits | None = None) -> None:
        self.sock = sock
        self.link = Link(limits)
        sock.setblocking(False)

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def hello(self) -> None:
        await self.write(self.link.open())

    async def read(self) -> list:
        return self.link.receive(
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 16), BOUND)
        )

    async def read_until(self, kind: type) -> list:
        events: list = []
        while not any(isinstance(event, kind) for event in events):
            events += await self.read()
        return events

    async def message(self, tag: Tag = SHELL, parts=PARTS) -> None:
        await self.write(b"".join(self.link.send([tag.pack(), *join_v1(b"iopub", parts)])))


class Taken(list):
    """Messages that came."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def take(self, number: int, tag: Tag, v1: memoryview) -> None:
        self.append((number, tag, bytes(v1)))
        self.more.set()

    async def until(self, count: int) -> None:
        while len(self) < count:
            self.more.clear()
            await asyncio.wait_for(self.more.wait(), BOUND)


def pair(taken: Taken | None = None, link: Link | None = None, **options) -> tuple[LinkStream, socket.socket]:
    ours, theirs = socket.socketpair()
    return LinkStream(link or Link(), ours, each((taken if taken is not None else Taken()).take), **options), theirs


async def test_what_is_sent_before_the_hello_goes_out_behind_it():
    stream, sock = pair(setup=b"setup")
    with closing(stream), closing(sock):
        stream.post(SHELL, PARTS)
        peer = Peer(sock)
        await peer.hello()
        events = await peer.read_until(Message)
        assert isinstance(events[0], Hello)
        assert events[0].setup == b"setup"
        assert [event.number for event in events if isinstance(event, Message)] == [1]


async def test_one_acknowledgement_answers_a_whole_batch():
    taken = Taken()
    stream, sock = pair(taken)
    with closing(stream), closing(sock):
        peer = Peer(sock)
        hello = peer.link.open()
        peer.link.receive(Link().open())  # taken for theirs, so that the messages go out in one write with the hello
        frames = [b"".join(peer.link.send([SHELL.pack(), *join_v1(b"iopub", PARTS)])) for _ in range(100)]
        await peer.write(hello + b"".join(frames))
        await taken.until(100)
        data = b""
        while len(data) < len(Link().open()) + 16:  # our hello and one ACK
            data += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 16), BOUND)
        assert len(data) == len(Link().open()) + 16


async def test_a_few_bytes_are_acknowledged_with_what_is_sent_next():
    taken = Taken()
    stream, sock = pair(taken)
    with closing(stream), closing(sock):
        peer = Peer(sock)
        await peer.hello()
        await peer.read()
        stream._ack_timer = asyncio.get_running_loop().call_later(BOUND, lambda: None)  # it is long until soon
        await peer.message()
        await taken.until(1)
        await stream_is_quiet(sock)
        stream.post(SHELL, PARTS)
        events = await peer.read_until(Message)
        assert [type(event) for event in events] == [Message, Acknowledged]


async def test_what_is_sent_while_messages_are_handled_acknowledges_none_of_them():
    """They are not safe yet: their receiver may be killed before they are."""
    done = asyncio.Event()

    def answer(batch: Batch) -> None:
        stream.post(SHELL, PARTS)
        assert not stream.closed.done()
        seen.append(sock.recv(1 << 16))
        done.set()

    ours, sock = socket.socketpair()
    seen: list[bytes] = []
    stream = LinkStream(Link(), ours, answer)
    with closing(stream), closing(sock):
        peer = Peer(sock)
        await peer.hello()
        await peer.read()
        stream._ack_timer = asyncio.get_running_loop().call_later(BOUND, lambda: None)
        for _ in range(2):
            done.clear()
            await peer.message()
            await asyncio.wait_for(done.wait(), BOUND)
        assert [[type(event) for event in peer.link.receive(data)] for data in seen] == [[Message], [Message]]
        stream.acknowledge()
        await peer.read_until(Acknowledged)
        assert peer.link.acknowledged == 2


async def test_without_automatic_acknowledgements_only_the_owner_gives_them():
    taken = Taken()
    stream, sock = pair(taken, auto_ack=False)
    with closing(stream), closing(sock):
        peer = Peer(sock)
        await peer.hello()
        await peer.read()
        await peer.message()
        await taken.until(1)
        await stream_is_quiet(sock)
        stream.acknowledge()
        await peer.read()
        assert peer.link.acknowledged == 1


async def stream_is_quiet(sock: socket.socket) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        sock.recv(1, socket.MSG_PEEK)


async def test_a_full_window_makes_send_wait_and_lets_control_pass():
    stream, sock = pair(link=Link(LinkLimits(window_frames=2)))
    with closing(stream), closing(sock):
        peer = Peer(sock)
        await peer.hello()
        stream.post(SHELL, PARTS)
        stream.post(SHELL, PARTS)
        with pytest.raises(WindowFull):
            stream.post(SHELL, PARTS)
        stream.post(CONTROL, PARTS)
        waiting = asyncio.create_task(stream.send(SHELL, PARTS))
        while peer.link.received < 3:
            await peer.read()
        assert not waiting.done()
        await peer.write(peer.link.acknowledge())
        await asyncio.wait_for(waiting, BOUND)


async def test_who_waits_for_the_window_hears_of_the_end():
    stream, sock = pair(link=Link(LinkLimits(window_frames=1)))
    stream.post(SHELL, PARTS)
    waiting = asyncio.create_task(stream.send(SHELL, PARTS))
    await asyncio.sleep(0)
    sock.close()
    with pytest.raises(LinkClosed):
        await asyncio.wait_for(waiting, BOUND)
    assert await stream.closed is None
    with pytest.raises(LinkClosed):
        stream.post(SHELL, PARTS)
    with pytest.raises(LinkClosed):
        await stream.ping(1)


async def test_large_messages_cross_a_small_socket_buffer_both_ways_whole():
    taken, body = Taken(), bytes(range(256)) * (8 << 12)  # 8 MiB
    stream, sock = pair(taken, link=Link(LinkLimits(window_bytes=32 << 20)))
    back = Taken()
    other = LinkStream(Link(LinkLimits(window_bytes=32 << 20)), sock, each(back.take))
    with closing(stream), closing(other):
        for end in (stream, other):
            await asyncio.wait_for(end.send(SHELL, [*PARTS, body, b"", b"x", b""]), BOUND)
        await taken.until(1)
        await back.until(1)
    assert taken[0][2] == back[0][2]
    assert body in taken[0][2]


async def test_a_ping_is_answered_with_its_time_or_a_timeout():
    stream, sock = pair()
    other = LinkStream(Link(), sock, each(Taken().take))
    with closing(stream), closing(other):
        assert 0 <= await stream.ping(BOUND) < BOUND
        other.pause()
        with pytest.raises(TimeoutError):
            await stream.ping(0.02)
        other.resume()
        assert await stream.ping(BOUND) < BOUND


async def test_of_many_pings_at_once_the_newest_answer_answers_all():
    stream, sock = pair()
    other = LinkStream(Link(), sock, each(Taken().take))
    with closing(stream), closing(other):
        first = asyncio.create_task(stream.ping(BOUND))
        await asyncio.sleep(0)
        stream.post_ping()
        await first


async def test_a_peer_that_pings_and_does_not_read_makes_no_queue_of_answers():
    stream, sock = pair()
    with closing(stream), closing(sock):
        peer = Peer(sock)
        await peer.hello()
        for _ in range(50):
            await peer.write(peer.link.ping(1) * 4096)
        assert len(stream._out) < 10


async def test_what_was_written_before_the_end_is_read_to_the_end():
    taken = Taken()
    stream, sock = pair(taken)
    peer = Peer(sock)
    await peer.hello()
    await peer.read()
    for _ in range(50):
        await peer.message()
    sock.close()
    stream.post(SHELL, PARTS)  # cannot be written any more, and must not hide what is still to be read
    assert await asyncio.wait_for(stream.closed, BOUND) is None
    assert [number for number, *_ in taken] == list(range(1, 51))


RUBBISH = {
    "no frame": b"\xff" * 64,
    "no hello": Link().ping(1),
    "a message that is none": b"message",
    "a tag that is none": b"tag",
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
async def test_a_broken_frame_closes_the_stream_and_says_what_was_wrong(rubbish: bytes):
    stream, sock = pair()
    with closing(sock):
        peer = Peer(sock)
        if rubbish in (b"message", b"tag"):
            await peer.hello()
            await peer.read()
            await peer.write(b"".join(peer.link.send([b"\xff\xff\xff\xff"] if rubbish == b"tag" else [b""])))
        else:
            await peer.write(rubbish)
        error = await asyncio.wait_for(stream.closed, BOUND)
        assert error is not None
        assert error.code


async def test_a_sandbox_that_breaks_the_protocol_is_ended_for_it():
    driver = FakeDriver()
    sandbox = await driver.create(SandboxSpec())
    connection = await KernelConnection.open(sandbox, on_messages=each(Taken().take))
    await connection.ping(BOUND)
    sandbox._kernel._sock.send(b"\xff" * 64)
    end = await asyncio.wait_for(sandbox.wait(), BOUND)
    assert end.reason is Reason.PROTOCOL_VIOLATION
    assert "unknown_kind" in end.detail
    await connection.aclose()
    await driver.close()


@pytest.mark.parametrize(
    ("size", "messages", "what"),
    [
        (READ_BYTES - 1, 1, "a read that was not full"),
        (READ_BYTES, 4000, "small messages, of which a megabyte would keep the loop"),
        (READ_BYTES, 0, "a flood of pings"),
    ],
)
def test_little_is_read_at_a_time_after(size: int, messages: int, what: str):
    assert _next_read(size, messages) == READ_BYTES, what


def test_much_is_read_at_a_time_of_large_messages():
    assert _next_read(READ_BYTES, 1) == _next_read(MAX_READ_BYTES, 16) == MAX_READ_BYTES
