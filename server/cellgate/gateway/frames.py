"""Websocket frames (RFC 6455) as a server reads and writes them.

    bytes of a client ── FrameReader.feed ──▶ Message, Ping, Pong, Close     or WebSocketError, with its close code
    join_frames, control_frame ──▶ bytes for it

Pure: bytes in, events out. Strict where the specification says MUST, and never keeps more than one message of the
allowed size, whatever a frame declares. No extensions: nothing is compressed, so the reserved bits are refused. The
handshake and the connection belong to `websocket`, what messages mean to `cellgate.wire.jupyter`.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from tornado.util import _websocket_mask  # in C: 20 times as fast as what Python offers

from cellgate.wire.jupyter import Buffer, Frame

__all__ = [
    "MAX_CONTROL_BYTES",
    "Close",
    "CloseCode",
    "Event",
    "FrameReader",
    "Message",
    "Opcode",
    "Ping",
    "Pong",
    "WebSocketError",
    "close_frame",
    "control_frame",
    "join_frames",
]

MAX_CONTROL_BYTES = 125  # of a ping's, pong's or close frame's payload; RFC 6455 section 5.5
JOIN_BYTES = 16 << 10  # below it copying a frame costs less than a write of its own


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Those that are decided here; others are passed on as numbers."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    NO_CODE = 1005  # never on the wire: the client gave none
    BAD_TEXT = 1007
    TOO_BIG = 1009
    SERVER_FAULT = 1011


class WebSocketError(Exception):
    """What came is no websocket, or more than may come: the connection is to be closed with `code` and the text."""

    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Message(NamedTuple):
    data: str | bytes  # of a text frame, of a binary frame


class Ping(NamedTuple):
    data: bytes


class Pong(NamedTuple):
    data: bytes


class Close(NamedTuple):
    code: int
    reason: str


Event = Message | Ping | Pong | Close


# -- to clients ----------------------------------------------------------------------------------------


def join_frames(frames: Sequence[Frame], mark: bytes | None = None) -> list[Buffer]:
    """The frames, and after them a ping that carries `mark`, as pieces to be written one after the other: small
    frames in one piece, the data of large ones as it is."""
    pieces: list[Buffer] = []
    joined: list[Buffer] = []
    for data, is_binary in frames:
        size = len(data) if isinstance(data, bytes) else memoryview(data).nbytes
        joined.append(_header(Opcode.BINARY if is_binary else Opcode.TEXT, size))
        if size < JOIN_BYTES:
            joined.append(data)
        else:
            pieces += (b"".join(joined), data)
            joined.clear()
    if mark is not None:
        joined.append(control_frame(Opcode.PING, mark))
    if joined:
        pieces.append(b"".join(joined))
    return pieces


def control_frame(opcode: Opcode, data: bytes) -> bytes:
    if len(data) > MAX_CONTROL_BYTES:
        raise ValueError(f"{len(data)} bytes; up to {MAX_CONTROL_BYTES} fit into a control frame")
    return _header(opcode, len(data)) + data


def close_frame(code: int, reason: str) -> bytes:
    """With as much of the reason as fits, in whole characters. NO_CODE answers a close frame without one."""
    if code == CloseCode.NO_CODE:
        return control_frame(Opcode.CLOSE, b"")
    text = reason.encode("utf-8", "replace")[: MAX_CONTROL_BYTES - 2].decode("utf-8", "ignore")
    return control_frame(Opcode.CLOSE, struct.pack("!H", code) + text.encode())


_FINAL = 0x80
_HEADER = struct.Struct("!BB")
_HEADER_16 = struct.Struct("!BBH")
_HEADER_64 = struct.Struct("!BBQ")


def _header(opcode: int, size: int) -> bytes:
    if size < 126:
        return _HEADER.pack(_FINAL | opcode, size)
    if size < 1 << 16:
        return _HEADER_16.pack(_FINAL | opcode, 126, size)
    return _HEADER_64.pack(_FINAL | opcode, 127, size)


# -- from clients --------------------------------------------------------------------------------------


class FrameReader:
    """Reads what one client sends. After a WebSocketError or a Close there is nothing more to be read."""

    def __init__(self, max_message_bytes: int) -> None:
        self.max_message_bytes = max_message_bytes
        self._buffer = bytearray()  # what has come and is not used up: part of a header, or of a control frame
        self._frame: _FrameHead | None = None  # the one whose payload is being read
        self._message: bytearray | None = None  # the data of the message so far, over all its frames
        self._is_text = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    @property
    def missing_bytes(self) -> int:
        """Of the frame that has begun; what follows them is not known yet."""
        return 0 if self._frame is None else self._frame.size

    def feed(self, data: bytes) -> Iterator[Event]:
        """What is complete with these bytes. To be exhausted before the next call. Raises WebSocketError."""
        self._buffer += data
        while (frame := self._frame or self._read_head()) is not None:
            event = (self._read_control if frame.opcode >= Opcode.CLOSE else self._read_data)(frame)
            if event is not None:
                yield event
            if self._frame is not None or isinstance(event, Close):
                return

    def _read_head(self) -> _FrameHead | None:
        """The next frame's, taken off the buffer when it is there as a whole."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode, is_final, size = first & 0x0F, bool(first & 0x80), second & 0x7F
        self._check_head(opcode, is_final, size, reserved=first & 0x70, is_masked=bool(second & 0x80))
        start = {126: 4, 127: 10}.get(size, 2)
        if len(buffer) < start + 4:
            return None
        if start > 2:
            size = int.from_bytes(buffer[2:start], "big")
        if opcode < Opcode.CLOSE:
            self._check_size(size)
        self._frame = _FrameHead(opcode, is_final, bytes(buffer[start : start + 4]), size)
        del buffer[: start + 4]
        return self._frame

    def _check_head(self, opcode: int, is_final: bool, size: int, *, reserved: int, is_masked: bool) -> None:
        if reserved:
            raise _protocol_error("a reserved bit is set, and no extension was agreed on")
        if opcode not in _OPCODES:
            raise _protocol_error(f"opcode {opcode} is reserved")
        if not is_masked:
            raise _protocol_error("frames from clients must be masked")
        if opcode >= Opcode.CLOSE:
            if not is_final:
                raise _protocol_error("a control frame cannot be fragmented")
            if size > MAX_CONTROL_BYTES:
                raise _protocol_error(f"a control frame carries up to {MAX_CONTROL_BYTES} bytes")
        elif opcode == Opcode.CONTINUATION and self._message is None:
            raise _protocol_error("there is no message to continue")
        elif opcode != Opcode.CONTINUATION and self._message is not None:
            raise _protocol_error("the message before is not finished")

    def _check_size(self, size: int) -> None:
        if self._message is not None:
            size += len(self._message)
        if size > self.max_message_bytes:
            raise WebSocketError(CloseCode.TOO_BIG, f"{size} bytes; up to {self.max_message_bytes} would pass")

    def _read_data(self, frame: _FrameHead) -> Message | None:
        if frame.opcode != Opcode.CONTINUATION and self._message is None:
            self._message, self._is_text = bytearray(), frame.opcode == Opcode.TEXT
            self._utf8.reset()
        assert self._message is not None
        part = _websocket_mask(frame.mask, bytes(self._buffer[: frame.size]))
        del self._buffer[: frame.size]
        self._message += part
        left = frame.size - len(part)
        if left == 0 and frame.is_final:
            data, self._message, self._frame = bytes(self._message), None, None
            return Message(self._decode(data) if self._is_text else data)
        if self._is_text:
            self._check_text(part)
        turn = len(part) % 4
        self._frame = frame._replace(size=left, mask=frame.mask[turn:] + frame.mask[:turn]) if left else None
        return None

    def _read_control(self, frame: _FrameHead) -> Event | None:
        if len(self._buffer) < frame.size:
            return None
        data = _websocket_mask(frame.mask, bytes(self._buffer[: frame.size]))
        del self._buffer[: frame.size]
        self._frame = None
        if frame.opcode == Opcode.PING:
            return Ping(data)
        if frame.opcode == Opcode.PONG:
            return Pong(data)
        return self._read_close(data)

    def _read_close(self, data: bytes) -> Close:
        if not data:
            return Close(CloseCode.NO_CODE, "")
        code = int.from_bytes(data[:2], "big")
        if len(data) == 1 or not (code in _CLOSE_CODES or 3000 <= code < 5000):
            raise _protocol_error("a close code may be 1000 to 1003, 1007 to 1014, or 3000 to 4999")
        return Close(code, self._decode(data[2:]))

    def _check_text(self, part: Buffer) -> None:
        """Fails at the byte that cannot be (half of a surrogate pair: the next), however much is yet to come."""
        try:
            self._utf8.decode(part)
        except UnicodeDecodeError as error:
            raise _bad_text() from error

    def _decode(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise _bad_text() from error


class _FrameHead(NamedTuple):
    opcode: int
    is_final: bool
    mask: bytes
    size: int  # of the payload that is yet to be read


_OPCODES = frozenset(Opcode)
_CLOSE_CODES = frozenset([*range(1000, 1004), *range(1007, 1015)])  # those that IANA lists and that may be sent


def _protocol_error(text: str) -> WebSocketError:
    return WebSocketError(CloseCode.PROTOCOL_ERROR, text)


def _bad_text() -> WebSocketError:
    return WebSocketError(CloseCode.BAD_TEXT, "text must be UTF-8")
