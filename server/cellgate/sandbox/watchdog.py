"""Notices a kernel that can never answer again, and ends its sandbox with `kernel_unresponsive`.

A busy kernel is not unresponsive: C code that holds the interpreter answers no ping and yet uses its time.
Only two signs count, and neither is the kernel's to claim: it closed its end of the link and lives on, or it
is silent *and* the host sees its process stand still. What a cell may take is the session's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cellgate.sandbox.base import Sandbox
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.connection import KernelConnection

__all__ = ["Patience", "Signs", "find_unresponsive", "watch"]


@dataclass(frozen=True)
class Patience:
    """How long each sign is waited for, in seconds."""

    look_every: float = 3.0  # a ping wakes a sleeping kernel, so not oftener than the promise of 10 s needs
    silent: float = 2.0  # 3 until asked, 3 until found silent and stopped, 1 to confirm: 7 of the 10
    stopped: float = 1.0  # seen twice: when a suspended host wakes, the kernels may wake after us
    link_lost: float = 1.0  # an exit closes the link a moment before it can be seen; 2 are promised


@dataclass(frozen=True)
class Signs:
    """What has been seen of a kernel, on one monotonic clock. None: it was not so at the last look."""

    asked_at: float | None = None  # when it was sent a ping, and nothing has come from it since
    stopped_since: float | None = None
    link_lost_at: float | None = None


def find_unresponsive(signs: Signs, patience: Patience, now: float) -> str | None:
    """Why the kernel will never answer again, or None while it may."""
    if signs.link_lost_at is not None and now - signs.link_lost_at >= patience.link_lost:
        return "it closed its link and went on running"
    silent = signs.asked_at is not None and now - signs.asked_at >= patience.silent
    stopped = signs.stopped_since is not None and now - signs.stopped_since >= patience.stopped
    return "its process is stopped and answers nothing" if silent and stopped else None


async def watch(
    sandbox: Sandbox,
    connection: KernelConnection,
    patience: Patience | None = None,
    *,
    is_waited_for: Callable[[], bool] = lambda: True,
) -> None:
    """Runs until the sandbox has ended. The owner of the connection runs it as a task and cancels it before
    it closes the connection or attaches another, for a closed link is laid to the kernel. While nobody waits for
    the kernel it is not woken by pings."""
    patience = patience or Patience()
    loop = asyncio.get_running_loop()
    ended = asyncio.ensure_future(sandbox.wait())
    signs = Signs()
    try:
        while not ended.done():
            if is_waited_for() or connection.closed.done():
                signs = await _look(sandbox, connection, signs, loop.time())
            else:
                signs = Signs()
            if why := find_unresponsive(signs, patience, loop.time()):
                await sandbox.kill(Reason.KERNEL_UNRESPONSIVE, why)
                return
            events: set[asyncio.Future[Any]] = {ended}
            pause = patience.look_every
            if signs.link_lost_at is not None:
                pause = patience.link_lost
            else:
                events.add(connection.closed)
                if signs.stopped_since is not None:
                    pause = patience.stopped
            await asyncio.wait(events, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()


async def _look(sandbox: Sandbox, connection: KernelConnection, before: Signs, now: float) -> Signs:
    if connection.closed.done():
        return Signs(link_lost_at=now if before.link_lost_at is None else before.link_lost_at)
    if before.asked_at is None or connection.heard_at > before.asked_at:
        connection.post_ping()
        return Signs(asked_at=now)
    if not (await sandbox.usage()).stopped:
        return Signs(asked_at=before.asked_at)
    return Signs(before.asked_at, stopped_since=now if before.stopped_since is None else before.stopped_since)
