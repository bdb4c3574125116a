"""The link: one duplex byte stream between a sandbox and its host, as a sans-IO core.

Bytes in, events out, bytes out. Knows nothing of sockets, threads, clocks or of what a message says.
Both ends use this class; neither believes the other: every size is checked against a limit before
anything is kept, and a broken frame raises `LinkError`, after which the stream must be dropped.

A frame is a 16-byte header (little endian: body length u32, kind u8, three zero bytes, number u64) and a
body. MESSAGE frames are numbered 1, 2, 3, ... in each direction for the life of the sandbox and kept by
their sender until acknowledged. A stream may break at any byte and be replaced by a fresh one: each end
opens it with a HELLO that says what it has received, and the other sends again what is missing. So a host
that died loses nothing and repeats nothing.

Whoever sends must stop when the window is full; that is the back-pressure that reaches `print`.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "HEADER_BYTES",
    "VERSION",
    "Acknowledged",
    "Event",
    "Hello",
    "Kind",
    "Link",
    "LinkError",
    "LinkLimits",
    "Message",
    "Ping",
    "Pong",
    "WindowFull",
]

Buffer = bytes | bytearray | memoryview

VERSION = 1
_HEADER = struct.Struct("<IB3xQ")
_HELLO = struct.Struct("<HxxIIIQ")  # version, max body, window bytes, window frames, received
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """What a frame is. The number in its header is the message's own for MESSAGE, the last one
    received for ACK, a token to give back for PING and PONG, and zero for HELLO."""

    HELLO = 1
    MESSAGE = 2
    ACK = 3
    PING = 4
    PONG = 5


class LinkError(Exception):
    """The peer broke the protocol: drop the stream (host side: end the sandbox with `protocol_violation`)."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class WindowFull(Exception):
    """The peer has not acknowledged enough yet; try again after an `Acknowledged` or `Hello` event."""


@dataclass(frozen=True)
class LinkLimits:
    """What this end accepts from the other; told in HELLO, and both ends hold themselves to it."""

    max_body_bytes: int = 16 << 20  # one message of 8 MiB with its buffers, and room for its headers
    window_bytes: int = 4 << 20  # unacknowledged bytes: some 8 ms of output at 500 MB/s, so no stall at full speed
    window_frames: int = 8192  # unacknowledged messages; each costs the sender some 100 bytes beside its body


# Frames sent as urgent (control requests, replies that end a cell) may exceed the window by this much,
# so that a full window can never keep an interrupt or an `idle` from its way.
URGENT_FRAMES = 256
URGENT_BYTES = 1 << 20
MAX_SETUP_BYTES = 1 << 20  # a HELLO carries an environment and start-up code, never data


@dataclass(frozen=True)
class Hello:
    """The peer opened a fresh stream. Write `resend` before anything else."""

    setup: bytes
    received: int
    resend: list[Buffer]


@dataclass(frozen=True)
class Message:
    number: int
    body: memoryview


@dataclass(frozen=True)
class Acknowledged:
    number: int


@dataclass(frozen=True)
class Ping:
    token: int


@dataclass(frozen=True)
class Pong:
    token: int


Event = Hello | Message | Acknowledged | Ping | Pong


class Link:
    """One end of a link. Not thread-safe: its owner holds a lock around it, or one thread owns it."""

    def __init__(self, limits: LinkLimits | None = None, *, sent: int = 0, received: int = 0) -> None:
        """`sent` and `received` are the numbers an earlier holder of this end had reached."""
        self.limits = limits or LinkLimits()
        self.sent = sent
        self.received = received
        self.acknowledged = sent  # by the peer, of what we sent
        self._peer: LinkLimits | None = None
        self._kept: deque[tuple[int, int, list[Buffer]]] = deque()  # number, bytes, frame as buffers
        self._kept_bytes = 0
        self._incoming = bytearray()
        self._told = received  # the last acknowledgement we sent

    # -- the stream ---------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the peer's HELLO has come on this stream; before that, messages are only kept."""
        return self._peer is not None

    def open(self, setup: bytes = b"") -> bytes:
        """A fresh byte stream begins: forget what was half read and return the HELLO to write first."""
        if len(setup) > MAX_SETUP_BYTES:
            raise ValueError(f"setup is {len(setup)} bytes; a HELLO carries at most {MAX_SETUP_BYTES}")
        self._peer = None
        self._incoming = bytearray()
        self._told = self.received
        own = self.limits
        body = _HELLO.pack(VERSION, own.max_body_bytes, own.window_bytes, own.window_frames, self.received) + setup
        return _HEADER.pack(len(body), Kind.HELLO, 0) + body

    def receive(self, data: Buffer) -> list[Event]:
        """Take bytes that came and return what they complete. A message counts as received once it is
        returned; its body is a view that stays valid. Raises LinkError; the stream is then useless."""
        if self._incoming:
            self._incoming += data
            whole = self._incoming
        else:
            whole = data if isinstance(data, bytearray) else bytearray(data)
        events: list[Event] = []
        size = len(whole)
        at = 0
        view = memoryview(whole)
        while size - at >= HEADER_BYTES:
            length, kind, number = _HEADER.unpack_from(whole, at)
            if length > self._longest(kind):
                raise LinkError("frame_too_large", f"kind {kind} of {length} bytes; at most {self._longest(kind)}")
            end = at + HEADER_BYTES + length
            if end > size:
                break
            body = view[at + HEADER_BYTES : end]
            at = end
            if kind == Kind.MESSAGE and self._peer is not None:  # the hot path first
                if number != self.received + 1:
                    raise LinkError("out_of_order", f"message {number} after {self.received}")
                self.received = number
                events.append(Message(number, body))
            else:
                events.append(self._receive_other(kind, number, body))
        self._incoming = bytearray(view[at:]) if at < size else bytearray()
        return events

    def _longest(self, kind: int) -> int:
        if kind == Kind.MESSAGE:
            return self.limits.max_body_bytes
        return _HELLO.size + MAX_SETUP_BYTES if kind == Kind.HELLO else 0

    def _receive_other(self, kind: int, number: int, body: memoryview) -> Event:
        if kind == Kind.HELLO:
            return self._receive_hello(body)
        if self._peer is None:
            raise LinkError("no_hello", f"kind {kind} before HELLO")
        if kind == Kind.ACK:
            self._forget(number)
            return Acknowledged(number)
        if kind == Kind.PING:
            return Ping(number)
        if kind == Kind.PONG:
            return Pong(number)
        raise LinkError("unknown_kind", f"kind {kind}")

    def _receive_hello(self, body: memoryview) -> Hello:
        if self._peer is not None:
            raise LinkError("second_hello", "HELLO twice on one stream")
        if len(body) < _HELLO.size:
            raise LinkError("short_hello", f"{len(body)} bytes")
        version, max_body, window_bytes, window_frames, received = _HELLO.unpack_from(body)
        if version != VERSION:
            raise LinkError("version", f"peer speaks version {version}, this end {VERSION}")
        if not (max_body and window_bytes and window_frames):
            raise LinkError("bad_limits", "a limit of zero")
        self._forget(received)
        self._peer = LinkLimits(max_body, window_bytes, window_frames)
        resend = [part for _, _, frame in self._kept for part in frame]
        return Hello(bytes(body[_HELLO.size :]), received, resend)

    def _forget(self, number: int) -> None:
        if not self.acknowledged <= number <= self.sent:
            raise LinkError("bad_ack", f"{number} acknowledged; sent {self.acknowledged} to {self.sent}")
        self.acknowledged = number
        while self._kept and self._kept[0][0] <= number:
            self._kept_bytes -= self._kept.popleft()[1]

    # -- sending ------------------------------------------------------------------------------------

    def has_room(self, size: int, *, urgent: bool = False) -> bool:
        """Whether a message of `size` bytes may be sent now. One message always fits an empty window."""
        if not self._kept:
            return True
        peer = self._peer or self.limits
        frames, room = peer.window_frames, peer.window_bytes
        if urgent:
            frames, room = frames + URGENT_FRAMES, room + URGENT_BYTES
        return len(self._kept) < frames and self._kept_bytes + size <= room

    def send(self, parts: Sequence[Buffer], *, urgent: bool = False) -> list[Buffer]:
        """Number and keep a message; return the buffers to write (none while the stream is not open:
        they go out with the next HELLO). The parts must not be changed afterwards.
        Raises WindowFull, or ValueError if the peer would refuse the size; nothing is kept then."""
        size = sum(map(len, parts))
        longest = (self._peer or self.limits).max_body_bytes
        if size > longest:
            raise ValueError(f"message of {size} bytes; the peer accepts {longest}")
        if not self.has_room(size, urgent=urgent):
            raise WindowFull
        number = self.sent + 1
        frame: list[Buffer] = [_HEADER.pack(size, Kind.MESSAGE, number), *parts]
        self._kept.append((number, size, frame))
        self._kept_bytes += size
        self.sent = number
        return frame if self._peer is not None else []

    def acknowledge(self) -> bytes:
        """The ACK for all that was received since the last one, or nothing."""
        if self._told == self.received or self._peer is None:
            return b""
        self._told = self.received
        return _HEADER.pack(0, Kind.ACK, self.received)

    def ping(self, token: int) -> bytes:
        return _HEADER.pack(0, Kind.PING, token)

    def pong(self, token: int) -> bytes:
        return _HEADER.pack(0, Kind.PONG, token)
