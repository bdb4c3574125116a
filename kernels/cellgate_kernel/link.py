"""The link: one duplex byte stream between a sandbox and its host, as a sans-IO core.

Bytes in, events out, bytes out. Knows nothing of sockets, threads, clocks or of what a message says.
Both ends use this class; neither believes the other: every size is checked against a limit before
anything is kept, and a broken frame raises `LinkError`, after which the stream must be dropped.

A frame is a 16-byte header (little endian: body length u32, kind u32, number u64) and a body. MESSAGE
frames are numbered 1, 2, 3, ... in each direction for the life of the sandbox and kept by their sender
until acknowledged. A stream may break at any byte and be replaced by a fresh one: each end opens it with a
HELLO that says what it has received, and the other sends again what is missing. So a host that died loses
nothing and repeats nothing.

Whoever sends must stop when the window is full; that is the back-pressure that reaches `print`. The window
bounds what an end keeps of its own; against a peer that ignores it, an end that cannot keep up reads less.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "ERROR_CODES",
    "HEADER_BYTES",
    "MAX_SETUP_BYTES",
    "URGENT_BYTES",
    "URGENT_FRAMES",
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
_HEADER = struct.Struct("<IIQ")  # body length, kind, number
_HELLO = struct.Struct("<IIIIQ")  # version, max body, window bytes, window frames, received
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """What a frame is. The number in its header is the message's own for MESSAGE, the last one
    received for ACK, a token to give back for PING and PONG, and zero for HELLO."""

    HELLO = 1
    MESSAGE = 2
    ACK = 3
    PING = 4
    PONG = 5


_MESSAGE = int(Kind.MESSAGE)  # compared once a frame: a plain int is three times as fast

_KINDS = frozenset(Kind)

# Every code a LinkError can carry, and what the peer did.
ERROR_CODES = {
    "unknown_kind": "a kind that is not in the table",
    "no_hello": "a stream that does not begin with HELLO",
    "second_hello": "HELLO twice on one stream",
    "bad_hello": "a HELLO that is too short, carries a number, or names a limit of zero",
    "version": "a version of the protocol that this end does not speak",
    "limits_lowered": "a HELLO whose max_body_bytes is below a message already kept for it",
    "frame_too_large": "a body longer than this end's max_body_bytes, or than its kind may have",
    "out_of_order": "a message whose number is not the one after the last",
    "bad_ack": "an acknowledgement of what was never sent, or of less than before",
}


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
    """What this end accepts from the other, told in HELLO. The windows of the two ends are both kept to:
    the smaller counts, so that a peer which names a huge one cannot make this end keep without bound."""

    max_body_bytes: int = 16 << 20  # one message of 8 MiB with its buffers, and room for its headers
    window_bytes: int = 4 << 20  # unacknowledged bytes: some 8 ms of output at 500 MB/s, so no stall at full speed
    window_frames: int = 8192  # unacknowledged messages; each costs the sender some 100 bytes beside its body

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 1 <= value < 1 << 32:
                raise ValueError(f"{name} is {value}; 1 to {(1 << 32) - 1} would pass")


# Messages sent as urgent (control requests, replies that end a cell) have this room of their own when the
# window is full, so that it can never keep an interrupt or an `idle` from its way.
URGENT_FRAMES = 256
URGENT_BYTES = 1 << 20
JOIN_BYTES = (
    16 << 10
)  # a body in one piece below this goes in one piece with its header: a copy costs less than a buffer
MAX_SETUP_BYTES = 1 << 20  # a HELLO carries an environment and start-up code, never data
_MAX_INHERITED = 1 << 62  # nobody has sent so many; an heir told more would soon run out of numbers
# A view keeps the whole read alive that it points into. A body that is a smaller part of it than this is
# copied, so that nobody holds more than 16 times the bytes that are counted.
_VIEWED_FROM = 16


@dataclass(frozen=True)
class Hello:
    """The peer opened a fresh stream. Write `resend` before anything else."""

    setup: bytes
    received: int
    resend: list[Buffer]


class Message(NamedTuple):  # a NamedTuple: a frozen dataclass takes half as long again to make
    number: int
    body: memoryview


@dataclass(frozen=True)
class Acknowledged:
    number: int


@dataclass(frozen=True)
class Ping:
    """To be answered with `pong(token)`. Only the newest needs its answer: a peer that asks faster than it
    reads must not make this end queue answers."""

    token: int


@dataclass(frozen=True)
class Pong:
    token: int


Event = Hello | Message | Acknowledged | Ping | Pong


class _Kept(NamedTuple):
    number: int
    size: int
    urgent: bool  # counted against the urgent room instead of the window
    frame: list[Buffer]


class Link:
    """One end of a link. Not thread-safe: its owner holds a lock around it, or one thread owns it."""

    def __init__(self, limits: LinkLimits | None = None, *, sent: int | None = 0, received: int = 0) -> None:
        """`sent` and `received` are the numbers an earlier holder of this end had reached. One who inherits
        the link without knowing what got through says `sent=None`: nothing can be sent until the peer's
        HELLO has told it (`Hello.received`), and numbers go on from there."""
        self.limits = limits or LinkLimits()
        self.sent = sent or 0
        self.received = received
        self.acknowledged = self.sent  # by the peer, of what we sent
        self._sent_is_known = sent is not None
        self._peer: LinkLimits | None = None
        self._window = self.limits  # the smaller of both ends' limits; max_body_bytes is the peer's
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._urgent_frames = 0  # how much of the kept is in the urgent room
        self._urgent_bytes = 0
        self._incoming = bytearray()
        self._needed = HEADER_BYTES  # bytes in `_incoming` before looking at it again is worth while
        self._told = received  # the last acknowledgement we sent

    # -- the stream ---------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the peer's HELLO has come on this stream; before that, messages are only kept."""
        return self._peer is not None

    def open(self, setup: bytes = b"") -> bytes:
        """A fresh byte stream begins: forget what was half read and return the HELLO to write first.
        The caller forgets what it had not yet written to the old stream, and reads no more from it."""
        if len(setup) > MAX_SETUP_BYTES:
            raise ValueError(f"setup is {len(setup)} bytes; a HELLO carries at most {MAX_SETUP_BYTES}")
        self._peer = None
        self._incoming = bytearray()
        self._needed = HEADER_BYTES
        self._told = self.received
        own = self.limits
        body = _HELLO.pack(VERSION, own.max_body_bytes, own.window_bytes, own.window_frames, self.received) + setup
        return _HEADER.pack(len(body), Kind.HELLO, 0) + body

    def receive(self, data: Buffer) -> list[Event]:
        """Take bytes that came and return what they complete. `bytes` are not copied, anything else is.
        A message counts as received once it is returned; its body stays valid for as long as it is held.
        Raises LinkError; the stream is then useless, and what this call had completed does not count."""
        events: list[Event] = []
        received, at = self.received, 0
        while self._incoming and at < len(data):  # of what is half read only the rest of its frame is copied
            half = self._incoming
            missing = self._needed - len(half)
            half += data[at : at + missing]
            at += missing
            if len(half) < self._needed:
                return []
            received = self._split(half, 0, received, events)
        if at < len(data):
            received = self._split(data if isinstance(data, bytes) else bytes(data), at, received, events)
        self.received = received
        return events

    def _split(self, whole: bytes | bytearray, at: int, received: int, events: list[Event]) -> int:
        """Add what these bytes hold from `at` on, and keep what is half there. The number of the last message."""
        size = len(whole)
        viewed_from = size // _VIEWED_FROM
        longest = self.limits.max_body_bytes
        view = memoryview(whole)
        needed = HEADER_BYTES
        while size - at >= HEADER_BYTES:
            length, kind, number = _HEADER.unpack_from(whole, at)
            start = at + HEADER_BYTES
            end = start + length
            if kind == _MESSAGE and self._peer is not None:  # the hot path first
                if length > longest:
                    raise LinkError("frame_too_large", f"message of {length} bytes; at most {longest}")
                if number != received + 1:
                    raise LinkError("out_of_order", f"message {number} after {received}")
                if end > size:
                    needed = end - at
                    break
                received = number
                body = view[start:end] if length >= viewed_from else memoryview(whole[start:end])
                events.append(Message(number, body))
            else:
                self._check_other(length, kind, number)
                if end > size:
                    needed = end - at
                    break
                events.append(self._receive_other(kind, number, view[start:end]))
            at = end
        self._incoming = bytearray(view[at:])
        self._needed = needed
        return received

    def _check_other(self, length: int, kind: int, number: int) -> None:
        """Refuse by its header alone what is not a MESSAGE on an open stream."""
        if kind == Kind.HELLO:
            if self._peer is not None:
                raise LinkError("second_hello", "HELLO twice on one stream")
            if number or length < _HELLO.size:
                raise LinkError("bad_hello", f"{length} bytes, number {number}; {_HELLO.size} bytes at least, number 0")
            if length > _HELLO.size + MAX_SETUP_BYTES:
                raise LinkError("frame_too_large", f"setup of {length - _HELLO.size} bytes; at most {MAX_SETUP_BYTES}")
        elif kind not in _KINDS:
            raise LinkError("unknown_kind", f"kind {kind}")
        elif self._peer is None:
            raise LinkError("no_hello", f"kind {kind} before HELLO")
        elif length:
            raise LinkError("frame_too_large", f"kind {kind} with a body of {length} bytes; it has none")

    def _receive_other(self, kind: int, number: int, body: memoryview) -> Event:
        if kind == Kind.HELLO:
            return self._receive_hello(body)
        if kind == Kind.ACK:
            self._forget(number)
            return Acknowledged(number)
        return Ping(number) if kind == Kind.PING else Pong(number)

    def _receive_hello(self, body: memoryview) -> Hello:
        version, max_body, window_bytes, window_frames, received = _HELLO.unpack_from(body)
        if version != VERSION:
            raise LinkError("version", f"peer speaks version {version}, this end {VERSION}")
        if not (max_body and window_bytes and window_frames):
            raise LinkError("bad_hello", "a limit of zero")
        if self._sent_is_known:
            self._forget(received)
        elif received > _MAX_INHERITED:
            raise LinkError("bad_ack", f"{received} received; at most {_MAX_INHERITED} would pass")
        else:
            self.sent = self.acknowledged = received
            self._sent_is_known = True
        largest = max((kept.size for kept in self._kept), default=0)
        if largest > max_body:
            raise LinkError("limits_lowered", f"max_body_bytes of {max_body}; a message of {largest} is kept for it")
        own = self.limits
        self._peer = LinkLimits(max_body, window_bytes, window_frames)
        self._window = LinkLimits(max_body, min(own.window_bytes, window_bytes), min(own.window_frames, window_frames))
        resend = [part for kept in self._kept for part in kept.frame]
        return Hello(bytes(body[_HELLO.size :]), received, resend)

    def _forget(self, number: int) -> None:
        if not self.acknowledged <= number <= self.sent:
            raise LinkError("bad_ack", f"{number} acknowledged; {self.acknowledged} to {self.sent} would pass")
        self.acknowledged = number
        while self._kept and self._kept[0].number <= number:
            kept = self._kept.popleft()
            if kept.urgent:
                self._urgent_frames -= 1
                self._urgent_bytes -= kept.size
            else:
                self._kept_bytes -= kept.size

    # -- sending ------------------------------------------------------------------------------------

    def has_room(self, size: int, *, urgent: bool = False) -> bool:
        """Whether a message of `size` bytes may be sent now. One message always fits an empty window."""
        return self._has_plain_room(size) or (urgent and self._has_urgent_room(size))

    def _has_plain_room(self, size: int) -> bool:
        window = self._window
        frames = len(self._kept) - self._urgent_frames
        if not frames:
            return self._sent_is_known
        return frames < window.window_frames and self._kept_bytes + size <= window.window_bytes

    def _has_urgent_room(self, size: int) -> bool:
        if not self._sent_is_known:
            return False
        return self._urgent_frames < URGENT_FRAMES and self._urgent_bytes + size <= URGENT_BYTES

    def send(self, parts: Sequence[Buffer], *, urgent: bool = False) -> list[Buffer]:
        """Number and keep a message; return the buffers to write (none while the stream is not open:
        they go out with the next HELLO). The parts, flat bytes, must not be changed afterwards.
        Raises WindowFull, or ValueError if the peer would refuse the size; nothing is kept then."""
        size = sum(map(len, parts))
        longest = self._window.max_body_bytes
        if size > longest:
            raise ValueError(f"message of {size} bytes; the peer accepts {longest}")
        in_urgent_room = False
        if not self._has_plain_room(size):
            if not (urgent and self._has_urgent_room(size)):
                raise WindowFull
            in_urgent_room = True
            self._urgent_frames += 1
            self._urgent_bytes += size
        else:
            self._kept_bytes += size
        self.sent += 1
        header = _HEADER.pack(size, _MESSAGE, self.sent)
        frame: list[Buffer]
        if len(parts) == 1 and size < JOIN_BYTES:
            frame = [header + parts[0]]
        else:
            frame = [header, *parts]
        self._kept.append(_Kept(self.sent, size, in_urgent_room, frame))
        return frame if self._peer is not None else []

    @property
    def owes_acknowledgement(self) -> bool:
        return self._told != self.received and self._peer is not None

    def acknowledge(self) -> bytes:
        """The ACK for all that was received since the last one, or nothing."""
        if not self.owes_acknowledgement:
            return b""
        self._told = self.received
        return _HEADER.pack(0, Kind.ACK, self.received)

    def ping(self, token: int) -> bytes:
        return _HEADER.pack(0, Kind.PING, token)

    def pong(self, token: int) -> bytes:
        return _HEADER.pack(0, Kind.PONG, token)
