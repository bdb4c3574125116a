"""A driver's connection as the warden sees it: packets out without ever waiting, packets in one at a time.

Knows nothing of what the packets say.
"""

from __future__ import annotations

import selectors
import socket
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cellgate.errors import CellgateError
from cellgate.sandbox.native.commands import MAX_PACKET_BYTES, describe, pack

__all__ = ["MAX_UNSAID", "Asker", "Line"]

MAX_UNSAID: Final = 10_000  # packets that wait for a driver which does not read: some 300 bytes each


class Line:
    """One connection. `hear(line, packet)` gets every packet, and an empty one when the line has ended, once and
    whoever ended it. It is in the selector's care until then."""

    def __init__(
        self, sock: socket.socket, selector: selectors.BaseSelector, hear: Callable[[Line, bytes], None]
    ) -> None:
        self.is_open = True
        self._socket = sock
        self._selector = selector
        self._hear = hear
        self._unsaid: deque[tuple[bytes, socket.socket | None]] = deque()
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self._on_ready)

    def say(self, message: Mapping[str, object], link: socket.socket | None = None) -> None:
        """Tell the other end. One that is stopped for a while loses nothing and holds nobody up; one that has not
        read for too long is dismissed; one that is gone is told nothing."""
        if not self.is_open:
            return
        if not self._unsaid and self._try(pack(message), link):
            return
        if len(self._unsaid) >= MAX_UNSAID:
            self.dismiss({"dismissed": f"it read nothing while {MAX_UNSAID} packets waited for it"})
        elif self.is_open:
            self._unsaid.append((pack(message), link.dup() if link else None))
            self._selector.modify(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self._on_ready)

    def dismiss(self, last_word: Mapping[str, object]) -> None:
        """End it after a last word, without which the other end would take the warden for dead. What else waits
        to be said is dropped, and what the other end sends is not read any more."""
        if not self.is_open:
            return
        self.is_open = False
        self._drop_unsaid()
        self._unsaid.append((pack(last_word), None))
        self._selector.modify(self._socket, selectors.EVENT_WRITE, self._say_the_rest)
        self._say_the_rest()
        self._hear(self, b"")

    def end(self) -> None:
        """Say what waits, as far as it is taken at once, and hang up."""
        self._say_the_rest()
        self._hang_up()

    def _on_ready(self) -> None:
        if self._unsaid:
            self._say_the_rest()
        if not self.is_open:
            return
        try:
            packet = self._socket.recv(MAX_PACKET_BYTES)  # descriptors that came with it are closed by the kernel
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._hear(self, packet)
        else:
            self._hang_up()

    def _say_the_rest(self) -> None:
        while self._unsaid and self._try(*self._unsaid[0]):
            _, link = self._unsaid.popleft()
            if link is not None:
                link.close()
        if not self._unsaid and self.is_open:
            self._selector.modify(self._socket, selectors.EVENT_READ, self._on_ready)
        elif not self._unsaid:
            self._close()  # the last word is said

    def _try(self, packet: bytes, link: socket.socket | None) -> bool:
        """Whether it was taken. Where nobody is left to take it, the line has ended."""
        fds = array("i", [link.fileno()] if link else [])
        try:  # not socket.send_fds, which drops its flags (CPython up to 3.13 at least) and so waits
            self._socket.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self._hang_up()
            return False
        return True

    def _hang_up(self) -> None:
        was_open, self.is_open = self.is_open, False
        self._drop_unsaid()
        self._close()
        if was_open:
            self._hear(self, b"")

    def _drop_unsaid(self) -> None:
        while self._unsaid:
            _, link = self._unsaid.popleft()
            if link is not None:
                link.close()

    def _close(self) -> None:
        with suppress(KeyError, ValueError):  # closed already
            self._selector.unregister(self._socket)
        self._socket.close()


@dataclass(frozen=True)
class Asker:
    """Who is to be answered, and by which number of his."""

    line: Line
    reference: int

    def answer(self, verb: str, link: socket.socket | None = None, /, **rest: object) -> None:
        self.line.say({verb: self.reference, **rest}, link)

    def refuse(self, error: CellgateError) -> None:
        self.answer("failed", **describe(error))
