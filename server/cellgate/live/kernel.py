"""One incarnation's kernel: its sandbox, and the link on which it is spoken to.

What the link's window has no room for waits here, in order; whoever listens to clients is told when there is too much
of it, and when there is none any more. Decides nothing about cells, and leaves what the kernel says to its session.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from cellgate.errors import LinkClosed
from cellgate.sandbox.base import Sandbox
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.connection import KernelConnection
from cellgate.sessions.cells import MAX_QUEUED_BYTES
from cellgate.wire.jupyter import ClientMessage
from cellgate_kernel.link import WindowFull

__all__ = ["LinkedKernel"]

# Requests that wait for the link's window, before their clients are read no further; or MAX_QUEUED_BYTES of them.
MAX_UNSENT = 64


class LinkedKernel:
    """Whoever made it cancels `tasks`, closes the connection and destroys the sandbox."""

    def __init__(
        self,
        sandbox: Sandbox,
        connection: KernelConnection,
        *,
        start: Callable[[Coroutine[Any, Any, None]], object],
        cleared: Callable[[], None],
    ) -> None:
        """`start` begins a task that somebody else owns. `cleared`: nothing waits for the window any more."""
        self.sandbox = sandbox
        self.connection = connection
        self.tasks: list[asyncio.Task[None]] = []
        self._start = start
        self._cleared = cleared
        self._unsent: deque[ClientMessage] = deque()
        self._unsent_bytes = 0
        self._is_held = False

    @property
    def is_congested(self) -> bool:
        return len(self._unsent) > MAX_UNSENT or self._unsent_bytes > MAX_QUEUED_BYTES

    def send(self, message: ClientMessage) -> None:
        """In order, as soon as the window has room."""
        if not self._unsent and self._post(message):
            return
        self._unsent.append(message)
        self._unsent_bytes += len(message.v1)
        if len(self._unsent) == 1:
            self._start(self._send_unsent())

    def hold(self, is_held: bool) -> None:
        """Read nothing of what it says, or go on with that."""
        if is_held is not self._is_held:
            self._is_held = is_held
            if is_held:
                self.connection.pause()
            else:
                self.connection.resume()

    def _post(self, message: ClientMessage) -> bool:
        """Whether the window had room. A link that is closed takes everything: its kernel's end is to be told soon."""
        try:
            self.connection.post_v1(message.tag, message.v1)
        except WindowFull:
            return False
        except LinkClosed:
            pass
        except ValueError as error:
            self._end_for_limits(error)
        return True

    async def _send_unsent(self) -> None:
        try:
            while self._unsent:
                message = self._unsent[0]
                await self.connection.send_v1(message.tag, message.v1)
                self._unsent.popleft()
                self._unsent_bytes -= len(message.v1)
        except LinkClosed:
            pass
        except ValueError as error:
            self._end_for_limits(error)
        self._unsent.clear()
        self._unsent_bytes = 0
        self._cleared()

    def _end_for_limits(self, error: ValueError) -> None:
        """It has said, to a gateway that came later, that it takes less than what every client may send."""
        self._start(self.sandbox.kill(Reason.PROTOCOL_VIOLATION, f"limits_lowered: {error}"))
