"""The watchdog: which signs make a kernel unresponsive, and that it acts on them in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.connection import KernelConnection
from cellgate.sandbox.fake import FakeDriver
from cellgate.sandbox.watchdog import Patience, Signs, find_unresponsive, watch

PATIENCE = Patience(look_every=3.0, silent=2.0, stopped=1.0, link_lost=1.0)
NOW = 100.0

TABLE = {
    "nothing is known": (Signs(), False),
    "it was asked just now": (Signs(asked_at=99.0), False),
    "it is silent and busy": (Signs(asked_at=0.0), False),
    "it is silent and was seen stopped once": (Signs(asked_at=97.0, stopped_since=NOW), False),
    "it is silent and stays stopped": (Signs(asked_at=97.0, stopped_since=99.0), True),
    "it is stopped and was asked just now": (Signs(asked_at=99.0, stopped_since=90.0), False),
    "its link is just closed": (Signs(link_lost_at=99.5), False),
    "its link is closed and it lives on": (Signs(link_lost_at=99.0), True),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_signs_decide(row):
    signs, is_unresponsive = row
    assert bool(find_unresponsive(signs, PATIENCE, NOW)) is is_unresponsive


def test_its_patience_keeps_what_is_promised():
    """A stopped kernel is told of within 10 s, and one that closed its link within 2 s, with a second to spare."""
    patience = Patience()
    worst = patience.look_every + max(patience.look_every, patience.silent) + patience.stopped
    assert worst <= 9.0
    assert patience.link_lost <= 1.0


QUICK = Patience(look_every=0.05, silent=0.04, stopped=0.02, link_lost=0.02)


async def test_a_busy_kernel_is_left_alone_and_a_stopped_one_is_not():
    driver = FakeDriver()
    sandbox = await driver.create(SandboxSpec())
    connection = await KernelConnection.open(sandbox, on_messages=lambda _: None)
    watching = asyncio.create_task(watch(sandbox, connection, QUICK))
    connection.pause()  # as deaf as a kernel whose reader thread does not get the interpreter
    await asyncio.sleep(0.3)
    assert [living.id for living in await driver.sandboxes()] == [sandbox.id]
    sandbox._kernel.is_stopped = True
    assert (await asyncio.wait_for(sandbox.wait(), 5)).reason is Reason.KERNEL_UNRESPONSIVE
    await asyncio.wait_for(watching, 5)
    connection.close()
    await driver.close()


async def test_a_link_closed_by_a_kernel_that_lives_ends_it():
    driver = FakeDriver()
    sandbox = await driver.create(SandboxSpec())
    connection = await KernelConnection.open(sandbox, on_messages=lambda _: None)
    watching = asyncio.create_task(watch(sandbox, connection))
    sandbox._kernel._stream.close()
    begin = time.monotonic()
    assert (await asyncio.wait_for(sandbox.wait(), 5)).reason is Reason.KERNEL_UNRESPONSIVE
    assert time.monotonic() - begin < 2.0
    await watching
    await driver.close()


async def test_it_ends_with_the_sandbox():
    driver = FakeDriver()
    sandbox = await driver.create(SandboxSpec())
    connection = await KernelConnection.open(sandbox, on_messages=lambda _: None)
    watching = asyncio.create_task(watch(sandbox, connection))
    await sandbox.kill(Reason.SESSION_EXPIRED)
    await asyncio.wait_for(watching, 5)
    assert (await sandbox.wait()).reason is Reason.SESSION_EXPIRED
    connection.close()
