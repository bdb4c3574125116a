"""One websocket: tornado's handshake, and from there our own frames, strict inwards and batched outwards.

    client ──▶ heard(message), marked(mark), ended(code, reason)        what a subclass overrides
    client ◀── send(frames, mark), shut(code, reason), pause, resume    what it calls

Tornado's own frame handling costs 14 microseconds for each message sent, and closes in silence where the specification
names a code; so only its handshake and its streams are used. Knows nothing of Jupyter, of sessions, or of who may
connect.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

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

PING_SECONDS = 30.0  # of silence before we ask for a sign of life; proxies drop connections idle for 60
SILENCE_SECONDS = 75.0  # two pings unanswered, and time for the second answer: the client is gone
CLOSE_SECONDS = 5.0  # for the client to take what is buffered, the close frame too, and to answer it
READ_BYTES = 16 << 10  # read at a time: a flood of tiny frames holds the loop for some 5 ms
MAX_MARKS = 1024  # remembered; a client that answers none of so many is taken at its word on later ones only


class WebSocket(WebSocketHandler):
    """To be subclassed. `open` may be overridden as tornado's, `max_message_size` and `select_subprotocol` too; of
    `heard` and the others below it calls none before `open` has returned, and `ended` last, once."""

    ping_seconds = PING_SECONDS
    silence_seconds = SILENCE_SECONDS
    close_seconds = CLOSE_SECONDS

    _connection: _Connection | None = None

    # -- for subclasses to override

    def heard(self, data: bytes | str) -> None:
        """A message: text as `str`, binary as `bytes`."""

    def marked(self, mark: bytes) -> None:
        """The client has received all that was sent up to this mark. Marks may be skipped, never reordered."""

    def drained(self) -> None:
        """The socket has taken what a `send` had left in our buffers. Not called for a `send` it took at once."""

    def ended(self, code: int | None, reason: str) -> None:
        """Nothing will be heard any more, and nothing sent arrives. The code of the first close frame, theirs or ours
        (1005 for theirs without one); None when the connection was lost without any."""

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether a page of this origin may connect. Asked for pages of other sites than ours; none may here."""
        return False

    # -- for subclasses to call; all of it does nothing after the end

    def send(self, frames: Sequence[Frame], mark: bytes | None = None) -> None:
        """In one write, and then, if given, a ping that carries the mark: its pong says that all has arrived."""
        if self._connection is not None:
            self._connection.send(frames, mark)

    @property
    def buffered_bytes(self) -> int:
        """Given to `send` and not yet taken by the socket."""
        return self._connection.buffered_bytes if self._connection is not None else 0

    @property
    def sent_bytes(self) -> int:
        """Taken by the socket so far, in all; it stands still when the client takes nothing."""
        return self._connection.sent_bytes if self._connection is not None else 0

    def pause(self) -> None:
        """Hear nothing for now: what the client sends stays in the socket, and it notices. So does its silence."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    def shut(self, code: int, reason: str) -> None:
        """Send a close frame after what was sent, hear nothing more, and wait CLOSE_SECONDS at most for the client to
        take and answer it."""
        if self._connection is not None:
            self._connection.shut(code, reason)

    # -- called by tornado

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        protocol = super().get_websocket_protocol()
        if protocol is not None:
            self._connection = _Connection(self, cast(WebSocketProtocol13, protocol).params)
        return self._connection

    def check_origin(self, origin: str) -> bool:
        return self.is_allowed_origin(origin)

    def get_compression_options(self) -> None:
        """None of it: a few bytes of deflate are a gigabyte of memory, and each connection would hold 64 KiB."""

    def on_close(self) -> None:
        self.ended(self.close_code, self.close_reason or "")


class _Connection(WebSocketProtocol13):
    """Tornado's handshake; frames, pings and the end are our own."""

    handler: WebSocket

    def __init__(self, handler: WebSocket, params: Any) -> None:
        super().__init__(handler, False, params)
        self._reader = FrameReader(params.max_message_size)
        self._loop = asyncio.get_running_loop()
        self._may_hear = asyncio.Event()
        self._may_hear.set()
        self._marks: deque[bytes] = deque(maxlen=MAX_MARKS)
        self._is_closing = False  # a close frame of ours was sent, or a client's has come
        self._has_ended = False  # the handler was told
        self._closed_with: tuple[int | None, str] = (None, "")
        self._alive_at = self._loop.time()
        self._beat: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._pong_due: bytes | None = None  # the latest ping that could not be answered at once
        self._opened_at = 0  # where the answer to the handshake ends in the stream
        self._pong_until = 0  # where the pong before it ends in the stream

    # -- writing

    @property
    def buffered_bytes(self) -> int:
        stream = self.stream
        return 0 if stream is None or stream.closed() else stream._total_write_index - stream._total_write_done_index

    @property
    def sent_bytes(self) -> int:
        return 0 if self.stream is None else self.stream._total_write_done_index - self._opened_at

    def send(self, frames: Sequence[Frame], mark: bytes | None) -> None:
        if self._is_closing:
            return
        if mark is not None:
            self._marks.append(mark)
        self._write(join_frames(frames, mark))

    def _write(self, pieces: Sequence[Buffer]) -> None:
        stream = self.stream
        try:
            for piece in pieces:
                written = stream.write(cast(bytes, piece))
        except StreamClosedError:
            return  # the reading side tells
        if pieces and not written.done():
            written.add_done_callback(self._on_written)

    def _on_written(self, written: asyncio.Future[None]) -> None:
        if written.cancelled() or written.exception() is not None:
            return
        if self._pong_due is not None:
            self._answer_ping(self._pong_due)
        if self.buffered_bytes == 0 and not self._is_closing:
            self._call(self.handler.drained)

    def _answer_ping(self, data: bytes) -> None:
        """One pong at a time waits to be taken, and only the latest after it: RFC 6455 section 5.5.3."""
        if self.sent_bytes < self._pong_until:
            self._pong_due = data
            return
        self._pong_due = None
        self._write([control_frame(Opcode.PONG, data)])
        self._pong_until = self.sent_bytes + self.buffered_bytes

    # -- reading

    def start_pinging(self) -> None:
        """Called by tornado when the stream is ours, just before the handler's `open`."""
        self.stream.set_nodelay(True)
        self._opened_at = self.stream._total_write_index
        self._alive_at = self._loop.time()
        self._beat = self._loop.call_later(self.handler.ping_seconds, self._check_life)

    async def _receive_frame_loop(self) -> None:
        try:
            while not self._has_ended:
                data = await self.stream.read_bytes(READ_BYTES, partial=True)
                self._alive_at = self._loop.time()
                for event in self._reader.feed(data):
                    self._take(event)
                    if not self._may_hear.is_set():
                        await self._may_hear.wait()
                if len(data) == READ_BYTES:
                    await asyncio.sleep(0)  # there may be more at once, and others have their turn
        except WebSocketError as error:
            self.shut(error.code, str(error))
        except StreamClosedError:
            pass
        finally:
            await self._linger()
            self._abort()

    def _take(self, event: Event) -> None:
        if isinstance(event, Message):
            if not self._is_closing:
                self._call(self.handler.heard, event.data)
        elif isinstance(event, Ping):
            if not self._is_closing:
                self._answer_ping(event.data)
        elif isinstance(event, Close):
            self.shut(event.code, event.reason)
            self._tell_end()
        elif event.data in self._marks:
            while self._marks.popleft() != event.data:
                pass
            self._call(self.handler.marked, event.data)

    def _call(self, callback: Any, *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            self.handler.log_exception(type(error), error, error.__traceback__)
            self.shut(CloseCode.SERVER_FAULT, "the server failed")

    def pause(self) -> None:
        if not self._is_closing:
            self._may_hear.clear()

    def resume(self) -> None:
        self._alive_at = self._loop.time()
        self._may_hear.set()

    # -- the end

    def shut(self, code: int, reason: str) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._closed_with = (code, reason)
        self._may_hear.set()
        self._write([close_frame(code, reason)])
        self._deadline = self._loop.call_later(self.handler.close_seconds, self._abort)

    async def _linger(self) -> None:
        """Let the client take our close frame: closed at once, with bytes of its own unread, it would see a reset."""
        try:
            if self._is_closing and not self.stream.closed():
                await self.stream.write(b"")
                self.stream.socket.shutdown(socket.SHUT_WR)
                while True:
                    await self.stream.read_bytes(READ_BYTES, partial=True)
                    await asyncio.sleep(0)
        except OSError:
            pass

    def _check_life(self) -> None:
        now, handler = self._loop.time(), self.handler
        if not self._may_hear.is_set():
            self._alive_at = now
        if now - self._alive_at >= handler.silence_seconds:
            if not self._is_closing:
                self._closed_with = (None, f"no sign of life for {handler.silence_seconds:g} s")
            return self._abort()
        if now - self._alive_at >= handler.ping_seconds and not self._is_closing and not self.buffered_bytes:
            self._write([control_frame(Opcode.PING, b"")])
        wait = min(handler.ping_seconds, self._alive_at + handler.silence_seconds - now)
        self._beat = self._loop.call_later(wait, self._check_life)

    def _abort(self) -> None:
        """Whatever is not sent yet is dropped, in the kernel's buffers too."""
        for timer in (self._beat, self._deadline):
            if timer is not None:
                timer.cancel()
        self._is_closing = self.client_terminated = self.server_terminated = True
        stream = cast("IOStream | None", self.stream)
        if stream is not None and not stream.closed():
            if self.buffered_bytes:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.close()
        self._may_hear.set()
        self._tell_end()

    def _tell_end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.handler.on_ws_connection_close(*self._closed_with)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        self.shut(CloseCode.NORMAL if code is None else code, reason or "")

    def is_closing(self) -> bool:
        return self._is_closing

    def on_connection_close(self) -> None:
        if not self._has_ended:  # else it is our own telling that comes back
            self._abort()
