"""What the terminal and the system ask of a command while it runs.

Ctrl-C goes to the code while there is some running. Any other time, and for any other signal, the command itself stops:
its task is cancelled, everything is taken down, and whoever runs it learns why from EndedBySignal. Output that nobody
reads stops it likewise.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from cellgate.commands.exits import EndedBySignal

__all__ = ["Press", "Signals"]

Press = Callable[[], Awaitable[object]]
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """While this is entered, in the main task."""

    def __init__(self, broken: asyncio.Future[None]) -> None:
        self._broken = broken
        self._presses: list[Press] = []  # what the next Ctrl-C does, and those after it
        self._is_given = False
        self._why: BaseException | None = None
        self._tasks: set[asyncio.Future[object]] = set()

    async def __aenter__(self) -> Signals:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # in a coroutine there is one
        self._task = task
        for number in _STOPPING:
            self._loop.add_signal_handler(number, self._take, number)
        self._broken.add_done_callback(lambda broken: self._stop(broken.exception()))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number in _STOPPING:
            self._loop.remove_signal_handler(number)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._why and kind is asyncio.CancelledError:
            raise self._why from None

    @contextmanager
    def given_to(self, *presses: Press) -> Iterator[None]:
        """Meanwhile the first Ctrl-C does the first of these, and so on; all after the last do nothing."""
        self._presses, self._is_given = [*presses], True
        try:
            yield
        finally:
            self._presses, self._is_given = [], False

    def _take(self, number: int) -> None:
        if number != signal.SIGINT or not self._is_given:
            return self._stop(EndedBySignal(number))
        if self._presses:
            task = asyncio.ensure_future(self._presses.pop(0)())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _stop(self, why: BaseException | None) -> None:
        if self._why is None and why is not None:
            self._why = why
            self._task.cancel()
