"""How well this host's sandboxes isolate, measured by the server itself: once, when somebody first asks, as it takes
three sandboxes and some seconds. What is measured, and what it means, is the doctor's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cellgate.doctor.examine import examine, report_unavailable
from cellgate.doctor.report import Report
from cellgate.errors import DriverUnavailable, SandboxStartFailed
from cellgate.sandbox.base import Driver

__all__ = ["Isolation"]


class Isolation:
    """One for each server; belongs to its loop. Whoever made it owes a `close`."""

    def __init__(self, get_driver: Callable[[], Awaitable[Driver]], name: str) -> None:
        """`name` is that of the driver, for when there is none to be had."""
        self._get_driver = get_driver
        self._name = name
        self._measuring: asyncio.Task[Report] | None = None

    @property
    def tier(self) -> str | None:
        """What sandboxes here are good for; None while nobody has measured."""
        if self._measuring is None or not self._measuring.done() or self._measuring.cancelled():
            return None
        return None if self._measuring.exception() else self._measuring.result().tier.value

    async def report(self) -> Report:
        """Everybody who asks shares one examination. One that failed is begun anew by who asks next."""
        if self._measuring is None or (self._measuring.done() and self.tier is None):
            self._measuring = asyncio.get_running_loop().create_task(self._measure())
        return await asyncio.shield(self._measuring)

    async def close(self) -> None:
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)

    async def _measure(self) -> Report:
        try:
            return await examine(await self._get_driver())
        except (DriverUnavailable, SandboxStartFailed) as error:
            return report_unavailable(self._name, error)
