"""Carries a link over a socket with asyncio: bytes in and out, windows, acknowledgements, pings.

`LinkStream` is one end of a link on one byte stream, either end. `KernelConnection` is the host's end of a
sandbox's: it attaches, and ends a sandbox that breaks the protocol. What a message says is left to the
caller, who gets all of one read in a plain call: no task and no future is made per frame.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, islice

from cellgate.errors import LinkClosed
from cellgate.sandbox.base import Sandbox
from cellgate.sandbox.certificate import Reason
from cellgate_kernel.link import Acknowledged, Hello, Link, LinkError, Message, Ping, Pong, WindowFull
from cellgate_kernel.message import CHANNELS, Channel, MessageError, Tag, join_v1

__all__ = ["Batch", "KernelConnection", "LinkStream", "OnMessages", "each"]

Buffer = bytes | bytearray | memoryview
Batch = list[tuple[int, Tag, memoryview]]  # numbers, tags and messages of one read, in order
OnMessages = Callable[[Batch], None]

READ_BYTES = 64 << 10  # of malloc's own; a larger buffer is mapped and unmapped for each read, which takes it 15 us
MAX_READ_BYTES = 1 << 20  # after a read full of large messages: one system call for all that a socket's buffer holds
JOIN_BYTES = 16 << 10  # of a message; below it a copy costs less than one more buffer to write
LARGE_BYTES = 4 << 10  # of a message; a megabyte of the smallest would keep all other sessions waiting for 0.1 s
MAX_IOVECS = 1024  # Linux takes no more buffers in one sendmsg
# Unacknowledged bytes that do not wait: a hundredth of the window, so that no flood ever meets its end. What is less
# goes with what is sent next, or soon: to wake a kernel after each cell to hear that costs both sides some 20 us.
ACK_BYTES = 32 << 10
ACK_SECONDS = 0.01


def _next_read(size: int, messages: int) -> int:
    """How much to ask for after a read of this size."""
    return MAX_READ_BYTES if size >= READ_BYTES and 0 < messages * LARGE_BYTES <= size else READ_BYTES


def each(on_message: Callable[[int, Tag, memoryview], None]) -> OnMessages:
    """For whoever wants messages one by one."""

    def on_messages(batch: Batch) -> None:
        for number, tag, v1 in batch:
            on_message(number, tag, v1)

    return on_messages


class LinkStream:
    """One end of a link on one byte stream. Belongs to the loop it was made on.

    `on_messages(batch)` is called for all messages of one read, which stay valid; with `auto_ack` they are
    acknowledged soon after it has returned. It may raise MessageError for a message that is none, and nothing else.
    `closed` resolves once, with what the peer broke, or None when either end closed the stream.
    """

    def __init__(
        self,
        link: Link,
        sock: socket.socket,
        on_messages: OnMessages,
        *,
        setup: bytes = b"",
        on_hello: Callable[[Hello], None] | None = None,
        auto_ack: bool = True,
        name: str = "a link",
    ) -> None:
        """Takes over `sock` and writes the HELLO."""
        self.link = link
        self.name = name
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[LinkError | None] = self._loop.create_future()
        self.heard_at = self._loop.time()  # when the last bytes came
        self._sock = sock
        self._fd = sock.fileno()  # the loop takes a number for less: of a socket it first makes a text
        self._on_messages = on_messages
        self._on_hello = on_hello
        self._auto_ack = auto_ack
        self._read_bytes = READ_BYTES
        self._out: deque[Buffer] = deque()  # bounded by the window, and by one ACK and PONG at a time
        self._out_blocked = False  # a writer waits for room in the socket
        self._owes_pong: int | None = None
        self._owes_ack = False
        self._unacknowledged_bytes = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        self._room: list[asyncio.Future[None]] = []  # senders that wait for the window
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._tokens = count(1)
        sock.setblocking(False)
        self._loop.add_reader(self._fd, self._read)
        self._write([link.open(setup)])

    # -- sending ------------------------------------------------------------------------------------

    def post(self, tag: Tag, parts: Sequence[Buffer]) -> None:
        """Send a message now. `parts` are header, parent header, metadata, content and any buffers.
        Raises WindowFull, LinkClosed, or ValueError when the peer would refuse the size."""
        self.post_v1(tag, b"".join(join_v1(CHANNELS[tag.channel], parts)))

    def post_v1(self, tag: Tag, v1: bytes) -> None:
        """The same, of a message that is laid out already."""
        if self.closed.done():
            raise LinkClosed(self.name)
        urgent = tag.channel in (Channel.CONTROL, Channel.STDIN)  # else a full window could keep an interrupt out
        parts = [tag.pack() + v1] if len(v1) < JOIN_BYTES else [tag.pack(), v1]
        self._write(self.link.send(parts, urgent=urgent))

    async def send(self, tag: Tag, parts: Sequence[Buffer]) -> None:
        """Send a message as soon as the window has room. Raises LinkClosed, or ValueError as `post`."""
        await self.send_v1(tag, b"".join(join_v1(CHANNELS[tag.channel], parts)))

    async def send_v1(self, tag: Tag, v1: bytes) -> None:
        while True:
            try:
                return self.post_v1(tag, v1)
            except WindowFull:
                room: asyncio.Future[None] = self._loop.create_future()
                self._room.append(room)
                await room

    def acknowledge(self) -> None:
        """Tell the peer now that all messages so far are safe. Done for you, soon, with `auto_ack`."""
        self._owes_ack = True
        self._write(())

    async def ping(self, timeout: float) -> float:
        """Seconds until the peer answered. Raises TimeoutError, or LinkClosed."""
        if self.closed.done():
            raise LinkClosed(self.name)
        token, begin = next(self._tokens), self._loop.time()
        pong = self._pings[token] = self._loop.create_future()
        self._write([self.link.ping(token)])
        try:
            await asyncio.wait_for(pong, timeout)
        except asyncio.TimeoutError:  # not the built-in one before Python 3.11
            raise TimeoutError(f"no answer to a ping in {timeout} s") from None
        finally:
            del self._pings[token]
        return self._loop.time() - begin

    def post_ping(self) -> None:
        """A ping whose answer shows in `heard_at` alone."""
        self._write([self.link.ping(next(self._tokens))])

    def pause(self) -> None:
        """Read no more until `resume`: the peer's window fills, and it waits."""
        if not self.closed.done():
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        if not self.closed.done():
            self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Drop the stream; the link keeps what is not acknowledged, for the next stream. Does nothing twice."""
        self._close(None)

    # -- the socket ---------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data = self._sock.recv(self._read_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset: as good as an end
            data = b""
        if not data:
            self._close(None)
            return
        self.heard_at = self._loop.time()
        self._unacknowledged_bytes += len(data)
        if self._auto_ack:
            self._owes_ack = False  # nothing, before what comes now is safe too
        try:
            self._dispatch(data)
        except LinkError as error:
            self._close(error)
        except MessageError as error:
            self._close(LinkError(error.code, str(error)))
        else:
            if self._auto_ack:
                self._owes_ack = self.link.owes_acknowledgement
            is_much = self._owes_ack and self._unacknowledged_bytes >= ACK_BYTES
            if is_much or self._out or self._owes_pong is not None:
                self._write(())
            elif self._owes_ack and self._ack_timer is None:
                self._ack_timer = self._loop.call_later(ACK_SECONDS, self._acknowledge_late)

    def _acknowledge_late(self) -> None:
        self._ack_timer = None
        self._write(())

    def _dispatch(self, data: bytes) -> None:
        batch: Batch = []
        try:
            self._sort(data, batch)
        finally:  # what came before a broken frame was said all the same
            self._read_bytes = _next_read(len(data), len(batch))
            if batch:
                self._on_messages(batch)

    def _sort(self, data: bytes, batch: Batch) -> None:
        unpack = Tag.unpack
        for event in self.link.receive(data):
            if type(event) is Message:  # the hot path first
                batch.append((event.number, *unpack(event.body)))
            elif type(event) is Acknowledged:
                self._wake_senders()
            elif type(event) is Ping:
                self._owes_pong = event.token  # of many pings in a batch the last is answered: no flood of pongs
            elif type(event) is Pong:  # answers every ping before it too: only the newest needs its answer
                for token, pong in self._pings.items():
                    if token <= event.token and not pong.done():
                        pong.set_result(None)
            elif type(event) is Hello:
                self._out.extend(event.resend)
                self._wake_senders()
                if self._on_hello:
                    self._on_hello(event)

    def _write(self, buffers: Sequence[Buffer]) -> None:
        self._out.extend(buffers)
        if not self._out_blocked and not self.closed.done():
            self._flush()

    def _flush(self) -> None:
        out = self._out
        if self._owes_ack:
            self._owes_ack = False
            self._unacknowledged_bytes = 0
            if ack := self.link.acknowledge():
                out.append(ack)
        if self._owes_pong is not None and self.link.is_open:
            out.append(self.link.pong(self._owes_pong))
            self._owes_pong = None
        blocked = False
        while out:
            try:
                sent = self._sock.sendmsg(list(islice(out, MAX_IOVECS)))
            except (BlockingIOError, InterruptedError):
                blocked = True
                break
            except OSError:  # the peer is gone; what it wrote before is still to be read, and then the end
                out.clear()
                break
            while out and sent >= len(out[0]):  # an empty buffer goes here too
                sent -= len(out.popleft())
            if sent:
                out[0] = memoryview(out[0])[sent:]
        if blocked is not self._out_blocked:
            self._out_blocked = blocked
            if blocked:
                self._loop.add_writer(self._fd, self._flush)
            else:
                self._loop.remove_writer(self._fd)

    def _wake_senders(self) -> None:
        waiting, self._room = self._room, []
        for room in waiting:
            if not room.done():
                room.set_result(None)

    def _close(self, error: LinkError | None) -> None:
        if self.closed.done():
            return
        self.closed.set_result(error)
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._sock.close()
        self._out.clear()
        self._wake_senders()  # to find it closed
        for pong in self._pings.values():
            if not pong.done():
                pong.set_exception(LinkClosed(self.name))


class KernelConnection(LinkStream):
    """The host's end of a sandbox's link. Whoever opened it owes a `close`."""

    def __init__(
        self,
        sandbox: Sandbox,
        sock: socket.socket,
        on_messages: OnMessages,
        *,
        link: Link,
        setup: bytes,
        auto_ack: bool,
        on_hello: Callable[[Hello], None] | None = None,
    ) -> None:
        self.sandbox = sandbox
        self._killing: asyncio.Task[None] | None = None
        name = f"the link to sandbox {sandbox.id}"
        super().__init__(link, sock, on_messages, setup=setup, on_hello=on_hello, auto_ack=auto_ack, name=name)
        self.closed.add_done_callback(self._end_if_broken)

    @staticmethod
    async def open(
        sandbox: Sandbox,
        setup: bytes = b"",
        *,
        on_messages: OnMessages,
        link: Link | None = None,
        on_hello: Callable[[Hello], None] | None = None,
        auto_ack: bool = True,
    ) -> KernelConnection:
        """Attach to the sandbox. `setup` is honoured on its very first link only. `link` is that of an earlier
        connection, or `Link(sent=..., received=...)` with the numbers it had reached, so that nothing is lost
        or comes twice. Messages may be sent at once; they go out when the kernel has answered, which `on_hello`
        hears of. Nothing is read before the caller waits for something. Raises SandboxGone."""
        sock = await sandbox.attach()
        link = link or Link()
        return KernelConnection(
            sandbox, sock, on_messages, link=link, setup=setup, auto_ack=auto_ack, on_hello=on_hello
        )

    async def aclose(self) -> None:
        """`close`, and wait until a sandbox that broke the protocol has been told to end."""
        self.close()
        if self._killing:
            await self._killing

    def _end_if_broken(self, closed: asyncio.Future[LinkError | None]) -> None:
        if error := closed.result():
            kill = self.sandbox.kill(Reason.PROTOCOL_VIOLATION, str(error))
            self._killing = self._loop.create_task(kill)
