"""A connected socket in the loop: what comes is handed on as it is read, what is sent goes out as the socket takes it.

    socket ──▶ heard(data), taken(), lost()       what its owner is called with
    socket ◀── send(pieces), end_writing()        what it calls

A tornado stream makes a future and two turns of the loop of each read, which took a fifth of a warm cell's way through
the gateway. Knows nothing of what is said. Bounds nothing that is sent: its owner sees `buffered_bytes`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

from cellgate.wire.jupyter import Buffer

__all__ = ["MAX_PIECES", "Duplex"]

MAX_PIECES = 512  # of one system call; Linux takes 1024
_NO_LINGER = struct.pack("ii", 1, 0)


class Duplex:
    """Belongs to the loop it was made on. Reads nothing before `resume`. Whoever made it owes a `close`, which leaves
    the socket itself open; nothing is called after that, and never from within a call of the owner's."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        heard: Callable[[bytes], None],
        taken: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        """`taken`: the socket has taken some of what waited. `lost`: the other end sends no more, or the connection
        broke; may be told twice."""
        self.buffered_bytes = 0  # sent, and not yet taken by the socket
        self.sent_bytes = 0  # taken so far
        self.read_bytes = 1 << 12  # at a time; the owner's to change
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fd = sock.fileno()  # the loop takes a number for less: of a socket it first makes a text
        self._heard, self._taken, self._lost = heard, taken, lost
        self._out: deque[memoryview] = deque()
        self._ends_writing = self._is_closed = False

    def send(self, pieces: Sequence[Buffer]) -> None:
        """One after the other, straight into the socket while nothing waits for it. They must not change."""
        taken = 0
        if not self._out:
            try:
                taken = self._sock.sendmsg(pieces[:MAX_PIECES])
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self._loop.call_soon(self._lose)
                return
            self.sent_bytes += taken
            if taken == len(pieces[0]) and len(pieces) == 1:  # nearly always
                return
        was_waiting = bool(self._out)
        for piece in pieces:
            if taken >= len(piece):
                taken -= len(piece)
            else:
                self._out.append(memoryview(piece)[taken:])
                self.buffered_bytes += len(piece) - taken
                taken = 0
        if self._out and not was_waiting and not self._is_closed:
            self._loop.add_writer(self._fd, self._flush)

    def end_writing(self) -> None:
        """When all was taken: the other end then reads to an end. Nothing may be sent any more."""
        self._ends_writing = True
        if not self._out:
            self._end_writing()

    def pause(self) -> None:
        """Read nothing until `resume`; nor is it seen then that the connection is lost."""
        if not self._is_closed:
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Let go of the socket. What it has not taken is dropped, in the kernel's buffers too. Does nothing twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        if self._out:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._out.clear()
        self.buffered_bytes = 0

    # -- called by the loop

    def _read(self) -> None:
        try:
            data = self._sock.recv(self.read_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset: as good as an end
            data = b""
        if data:
            self._heard(data)
        else:
            self._lose()

    def _flush(self) -> None:
        out = self._out
        try:
            sent = self._sock.sendmsg(list(islice(out, MAX_PIECES)))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lose()
            return
        self.sent_bytes += sent
        self.buffered_bytes -= sent
        while out and sent >= len(out[0]):
            sent -= len(out.popleft())
        if out:
            out[0] = out[0][sent:]
        else:
            self._loop.remove_writer(self._fd)
            if self._ends_writing:
                self._end_writing()
        self._taken()

    def _lose(self) -> None:
        if not self._is_closed:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._lost()

    def _end_writing(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
