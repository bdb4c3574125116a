"""One websocket: tornado's handshake, and from there frames of our own, strict inwards and batched outwards.

    client ──▶ heard(data), marked(mark), drained(), ended(code, reason)    what a subclass overrides
    client ◀── send(frames, mark), shut(code, reason), pause(), resume()    what it calls

Tornado takes 14 microseconds to send a message, and answers much of what RFC 6455 forbids with silence or with the
wrong code; so only its handshake is used. Knows nothing of Jupyter, of sessions, or of who may connect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from typing import Any, cast

from tornado.iostream import IOStream
from tornado.websocket import WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

from cellgate.gateway.duplex import Duplex
from cellgate.gateway.frames import (
    Close,
    CloseCode,
    Event,
    FrameReader,
    Message,
    Opcode,
    Ping,
    WebSocketError,
    close_frame,
    control_frame,
    join_frames,
)
from cellgate.wire.jupyter import Buffer, Frame

__all__ = ["CLOSE_SECONDS", "PING_SECONDS", "SILENCE_SECONDS", "WebSocket"]

PING_SECONDS = 30.0  # of silence until a sign of life is asked for; many proxies drop what is idle for 60
SILENCE_SECONDS = 75.0  # two pings went unanswered, the second for 15 s: there is nobody
CLOSE_SECONDS = 5.0  # for a client to take what is buffered and our close frame, and to answer it
READ_BYTES = 4 << 10  # read at a time; as many pings hold the loop for some 4 ms
MAX_READ_BYTES = 64 << 10  # the same of a large frame, whose bytes cost little
MAX_MARKS = 1024  # remembered of those not answered; of a client that answers none the oldest are forgotten


class WebSocket(WebSocketHandler):
    """To be subclassed, one object for each connection. Tornado's `open`, `select_subprotocol` and `max_message_size`
    are there to be overridden too. Nothing is heard before `open` has returned, and nothing after `ended`, which
    comes after every `open`, also one that raised."""

    ping_seconds = PING_SECONDS
    silence_seconds = SILENCE_SECONDS
    close_seconds = CLOSE_SECONDS

    _connection: _Connection | None = None  # from the handshake until the end

    # -- for subclasses to override; never called from within what they call

    def heard(self, data: bytes | str) -> None:
        """A message: text as `str`, binary as `bytes`. Should it raise, the websocket is closed with 1011."""

    def marked(self, mark: bytes) -> None:
        """The client has received all that was sent before this mark. Marks may be skipped, and keep their order."""

    def drained(self) -> None:
        """The socket has taken what was left in our buffers. Nothing is left by most calls of `send`."""

    def ended(self, code: int | None, reason: str) -> None:
        """It is over, however that came: called once. The code and reason of the first close frame, theirs or ours
        (1005 for theirs without a code); None when the connection was lost without any."""

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether a page of another site may connect. None may, unless a subclass knows better."""
        return False

    # -- for subclasses to call; does nothing before the handshake and after the end

    def send(self, frames: Sequence[Frame], mark: bytes | None = None) -> None:
        """All in one write, and then, if given, a ping that carries the mark: its pong says that all has arrived."""
        if self._connection is not None:
            self._connection.send(frames, mark)

    @property
    def buffered_bytes(self) -> int:
        """Sent, and not yet taken by the socket."""
        return 0 if self._connection is None else self._connection.buffered_bytes

    @property
    def sent_bytes(self) -> int:
        """Taken by the socket so far, in all. It stands still while a client takes nothing."""
        return 0 if self._connection is None else self._connection.sent_bytes

    def pause(self) -> None:
        """Hear nothing until `resume`. What the client sends stays in the sockets, until it can send no more. Neither
        its silence nor its end are noticed meanwhile, unless something is sent."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    def shut(self, code: int, reason: str) -> None:
        """Send a close frame after all that was sent, and hear nothing more. The end comes when the client answers,
        after `close_seconds` at the latest, whether it reads or not."""
        if self._connection is not None:
            self._connection.shut(code, reason)

    # -- called by tornado

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        protocol = super().get_websocket_protocol()
        return None if protocol is None else _Connection(self, cast(WebSocketProtocol13, protocol).params)

    def check_origin(self, origin: str) -> bool:
        return self.is_allowed_origin(origin)

    def get_compression_options(self) -> None:
        """No permessage-deflate: a kilobyte of it may be a megabyte, and its windows take 300 KiB a connection."""

    def on_close(self) -> None:
        if self._connection is not None:
            try:
                self.ended(self.close_code, self.close_reason or "")
            finally:
                self._connection = None  # what it holds is freed now, and not when a cycle is found


class _Connection(WebSocketProtocol13):
    """What is below the handler. Open, then closing (a close frame went out or came in), then ended (told so)."""

    handler: WebSocket

    def __init__(self, handler: WebSocket, params: Any) -> None:
        super().__init__(handler, False, params)
        self._loop = asyncio.get_running_loop()
        self._duplex: Duplex | None = None  # from the handshake on
        self._reader = FrameReader(params.max_message_size)
        self._events: Iterator[Event] = iter(())  # of what was read: some may be left for when they may be heard
        self._may_hear = True
        self._is_receiving = self._is_closing = self._has_ended = self._is_lingering = False
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._context = copy_context()  # the handshake's, in which all is heard, whoever lets it go on
        self._outcome: tuple[int | None, str] = (None, "the connection was lost")
        self._deadline: asyncio.TimerHandle | None = None  # of the closing
        self._next_look: asyncio.TimerHandle | None = None  # whether there is life
        self._alive_at = 0.0
        self._sent_at_look = 0
        self._marks: deque[bytes] = deque(maxlen=MAX_MARKS)  # sent, and not answered
        self._last_ping: bytes | None = None  # of the client's, while the pong before waits to be taken
        self._pong_end = 0  # of the latest pong, as `sent_bytes` counts
        self._has_backlog = False  # of which `drained` will tell

    # -- writing

    @property
    def buffered_bytes(self) -> int:
        return 0 if self._duplex is None else self._duplex.buffered_bytes

    @property
    def sent_bytes(self) -> int:
        return 0 if self._duplex is None else self._duplex.sent_bytes

    def send(self, frames: Sequence[Frame], mark: bytes | None) -> None:
        if self._is_closing:
            return
        if mark is not None:
            self._marks.append(mark)
        self._write(join_frames(frames, mark))

    def _write(self, pieces: list[Buffer]) -> None:
        if self._duplex is not None and pieces:
            self._duplex.send(pieces)
            if self._duplex.buffered_bytes:
                self._has_backlog = True

    def _taken(self) -> None:
        if self._last_ping is not None:
            self._answer_ping(self._last_ping)
        if self._has_backlog and self.buffered_bytes == 0 and not self._is_closing:
            self._has_backlog = False
            self._call(self.handler.drained)

    def _answer_ping(self, data: bytes) -> None:
        """One pong at a time waits to be taken, and after it the latest alone, as RFC 6455 section 5.5.3 has it: a
        client that sends pings and reads nothing fills no memory."""
        self._last_ping = None
        if self.sent_bytes < self._pong_end:
            self._last_ping = data
        elif not self._is_closing:
            self._write([control_frame(Opcode.PONG, data)])
            self._pong_end = self.sent_bytes + self.buffered_bytes

    # -- reading

    def start_pinging(self) -> None:
        """Called by tornado once the stream is ours, before the handler's `open`. Raises what it takes for a handshake
        that failed."""
        if self.stream.closed():  # by a client that reset the connection: our answer found it so
            raise ValueError("the connection was lost")
        self.handler._connection = self
        self.stream.set_nodelay(True)
        unwritten = _take_over(self.stream)
        self._duplex = Duplex(self.stream.socket, heard=self._read, taken=self._taken, lost=self._abort)
        self._write(unwritten)
        self._alive_at = self._loop.time()
        self._look_later(self._alive_at + self.handler.ping_seconds)

    async def _receive_frame_loop(self) -> None:
        """Called by tornado after the handler's `open`; returns when all is over."""
        self._is_receiving = True
        self._events = self._reader.feed(bytes(self.stream._read_buffer))  # what came together with the handshake
        self._go_on()
        try:
            await self._over
        except asyncio.CancelledError:  # the loop ends
            self._abort()
            raise

    def _read(self, data: bytes) -> None:
        self._alive_at = self._loop.time()
        if not self._is_lingering:
            self._events = self._reader.feed(data)
            self._hear()

    def _hear(self) -> None:
        """What was read, as long as it may be heard."""
        try:
            while self._may_hear and not self._has_ended and (event := next(self._events, None)) is not None:
                self._handle(event)
        except WebSocketError as error:
            self.shut(error.code, str(error))
            self._linger()
        if self._duplex is not None:
            self._duplex.read_bytes = max(READ_BYTES, min(self._reader.missing_bytes, MAX_READ_BYTES))

    def _go_on(self) -> None:
        """With what is left of what was read, and then with what comes."""
        if self._may_hear and self._is_receiving:
            self._hear()
        if self._may_hear and self._is_receiving and self._duplex is not None:
            self._duplex.resume()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Close):
            self.shut(event.code, event.reason)
            self._tell_end()
            self._linger()
        elif isinstance(event, Message):
            if not self._is_closing:
                self._call(self.handler.heard, event.data)
        elif isinstance(event, Ping):
            self._answer_ping(event.data)
        elif event.data in self._marks:
            while self._marks.popleft() != event.data:
                pass
            self._call(self.handler.marked, event.data)

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            self.handler.log_exception(type(error), error, error.__traceback__)
            self.shut(CloseCode.SERVER_FAULT, "the server failed")

    def pause(self) -> None:
        if not self._is_closing:
            self._may_hear = False
            if self._duplex is not None:
                self._duplex.pause()

    def resume(self) -> None:
        self._alive_at = self._loop.time()
        if not self._may_hear:
            self._may_hear = True
            # Soon: whoever calls may be within what would be called.
            self._loop.call_soon(self._go_on, context=self._context)

    def _look_for_life(self, due: float) -> None:
        """Every byte of the client is a sign of life. So is what its socket takes of a backlog: the room for it came
        from the other end. When it is we who were away, the client's signs may lie unread."""
        now, sent, handler = self._loop.time(), self.sent_bytes, self.handler
        is_taking = self.buffered_bytes and sent > self._sent_at_look
        if is_taking or not self._may_hear or now - due > handler.ping_seconds:
            self._alive_at = now
        self._sent_at_look = sent
        silence = now - self._alive_at
        if silence >= handler.silence_seconds:
            self._outcome = (None, f"no sign of life for {handler.silence_seconds:g} s")
            return self._abort()
        if silence >= handler.ping_seconds and not self.buffered_bytes:
            self._write([control_frame(Opcode.PING, b"")])
        self._look_later(now + min(handler.ping_seconds, handler.silence_seconds - silence))

    def _look_later(self, due: float) -> None:
        self._next_look = self._loop.call_at(due, self._look_for_life, due)

    # -- the end

    def shut(self, code: int, reason: str) -> None:
        if self._is_closing:
            return
        self._write([close_frame(code, reason)])
        self._is_closing = True
        self._outcome = (code, reason)
        self.resume()
        self._stop_timers()
        self._deadline = self._loop.call_later(self.handler.close_seconds, self._abort)

    def _linger(self) -> None:
        """Let the client take our close frame, until its end or `_deadline`. Were the connection closed at once, with
        something of the client's unread, the client would find it reset."""
        self._is_lingering = True
        if self._duplex is not None:
            self._duplex.end_writing()
            self._duplex.resume()

    def _abort(self) -> None:
        """The end, at once and for good. What was not taken is dropped, in the kernel's buffers too."""
        self._is_closing = self.client_terminated = self.server_terminated = True
        self._stop_timers()
        if self._duplex is not None:
            self._duplex.close()
        stream = cast("IOStream | None", self.stream)  # None when the handshake fails
        if stream is not None:
            stream.close()
        self._tell_end()
        if not self._over.done():
            self._over.set_result(None)

    def _stop_timers(self) -> None:
        for timer in (self._deadline, self._next_look):
            if timer is not None:
                timer.cancel()

    def _tell_end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._call(self.handler.on_ws_connection_close, *self._outcome)

    # -- what tornado's handler calls beside

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        self.shut(CloseCode.NORMAL if code is None else code, reason or "")

    def is_closing(self) -> bool:
        return self._is_closing

    def on_connection_close(self) -> None:
        if not self._has_ended:  # else it is only the answer to `_tell_end`
            self._abort()


def _take_over(stream: IOStream) -> list[Buffer]:
    """Take tornado's hands off the socket of its stream. Returns what it has not written of the handshake."""
    if stream._state is not None:
        stream.io_loop.remove_handler(stream.fileno())
        stream._state = None
    buffer, unwritten = stream._write_buffer, list[Buffer]()
    while waiting := len(buffer):
        with buffer.peek(waiting) as view:
            unwritten.append(bytes(view))
        buffer.advance(len(unwritten[-1]))
    return unwritten
