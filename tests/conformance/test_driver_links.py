"""Links of a sandbox of any driver: they may break and be replaced, and nothing is lost or comes twice."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from cellgate.errors import LinkClosed
from cellgate.sandbox.base import Sandbox
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.connection import KernelConnection, each
from cellgate.wire.jupyter import execute_content, make_message, parse_message
from cellgate_kernel.link import Link, LinkLimits, WindowFull
from cellgate_kernel.message import Channel, Status, Tag

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUND = 20.0


class Reader:
    """Takes messages down, and waits for what is to come."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.text = ""
        self.idle = asyncio.Event()
        self.enough = asyncio.Event()
        self.wanted = 1 << 60

    def take(self, number: int, tag: Tag, v1: memoryview) -> None:
        self.numbers.append(number)
        if tag.message_type == "stream":
            self.text += parse_message(v1)["content"]["text"]
        if tag.status is Status.IDLE and tag.parent_id == b"cell":
            self.idle.set()
        if len(self.numbers) >= self.wanted:
            self.enough.set()


def cell(code: str, msg_id: str = "cell"):
    return make_message(
        "execute_request", execute_content(code), channel=Channel.SHELL, msg_id=msg_id, session="s", date=""
    )


LINES = 300
PRINTS = f"for i in range({LINES}): print(i, flush=True)"
PRINTED = "".join(f"{i}\n" for i in range(LINES))


async def test_a_link_that_breaks_in_the_middle_loses_nothing_and_repeats_nothing(sandbox: Sandbox):
    reader, link = Reader(), Link()
    reader.wanted = 50
    with closing(await KernelConnection.open(sandbox, on_messages=each(reader.take), link=link)) as connection:
        connection.post(*cell(PRINTS))
        await asyncio.wait_for(reader.enough.wait(), BOUND)
    with closing(await KernelConnection.open(sandbox, on_messages=each(reader.take), link=link)):
        await asyncio.wait_for(reader.idle.wait(), BOUND)
    assert reader.text == PRINTED
    assert reader.numbers == list(range(1, len(reader.numbers) + 1))


async def test_an_heir_that_knows_only_the_numbers_goes_on_where_they_stopped(sandbox: Sandbox):
    """As a gateway does that was killed: what it had read and not acknowledged comes again, and no more."""
    reader = Reader()
    reader.wanted = 20
    with closing(await KernelConnection.open(sandbox, on_messages=each(reader.take), auto_ack=False)) as connection:
        connection.post(*cell(PRINTS))
        await asyncio.wait_for(reader.enough.wait(), BOUND)
    journalled = reader.numbers[-1]
    with closing(
        await KernelConnection.open(sandbox, on_messages=each(reader.take), link=Link(sent=None, received=journalled))
    ) as heir:
        await asyncio.wait_for(reader.idle.wait(), BOUND)
        assert reader.text == PRINTED
        reader.idle.clear()
        await heir.send(*cell("1+1"))
        await asyncio.wait_for(reader.idle.wait(), BOUND)
    assert reader.numbers == list(range(1, len(reader.numbers) + 1))


async def test_a_newer_link_replaces_the_older(sandbox: Sandbox):
    old = await KernelConnection.open(sandbox, on_messages=each(Reader().take), auto_ack=False)
    reader = Reader()
    await old.ping(BOUND)
    heirs = Link(sent=None, received=0)  # its own, as the older may still read what was on its way
    with (
        closing(old),
        closing(await KernelConnection.open(sandbox, on_messages=each(reader.take), link=heirs)) as new,
    ):
        assert await asyncio.wait_for(old.closed, BOUND) is None
        await new.send(*cell("1+1"))
        await asyncio.wait_for(reader.idle.wait(), BOUND)
        with pytest.raises(LinkClosed):
            old.post(*cell("1+1"))


async def test_a_cell_runs_on_while_nobody_is_attached(sandbox: Sandbox):
    reader, link = Reader(), Link()
    reader.wanted = 1
    with closing(await KernelConnection.open(sandbox, on_messages=each(reader.take), link=link)) as connection:
        connection.post(*cell("import time\nprint('on', flush=True)\ntime.sleep(0.2)\nprint('done', flush=True)"))
        await asyncio.wait_for(reader.enough.wait(), BOUND)
    with closing(await KernelConnection.open(sandbox, on_messages=each(reader.take), link=link)):
        await asyncio.wait_for(reader.idle.wait(), BOUND)
    assert reader.text == "on\ndone\n"


async def test_output_that_nobody_acknowledges_waits_and_then_comes_whole(sandbox: Sandbox):
    """Back-pressure up to `print`: the kernel never has more than a window under way."""
    reader, link = Reader(), Link(LinkLimits(window_frames=32))
    reader.wanted = 32
    connection = await KernelConnection.open(sandbox, on_messages=each(reader.take), link=link, auto_ack=False)
    with closing(connection):
        connection.post(*cell(PRINTS))
        await asyncio.wait_for(reader.enough.wait(), BOUND)
        await connection.ping(BOUND)  # what was under way has come
        assert len(reader.numbers) <= 32 + 3  # a reply and statuses may pass
        while not reader.idle.is_set():
            connection.acknowledge()
            await asyncio.sleep(0.001)
    assert reader.text == PRINTED


async def test_requests_beyond_the_window_are_refused_or_wait(sandbox: Sandbox):
    reader = Reader()
    connection = await KernelConnection.open(
        sandbox, on_messages=each(reader.take), link=Link(LinkLimits(window_frames=4))
    )
    with closing(connection):
        with pytest.raises(WindowFull):  # the kernel answers no earlier than the loop runs
            for number in range(5):
                connection.post(*cell("1", str(number)))
        for number in range(5, 20):
            await asyncio.wait_for(connection.send(*cell("1", str(number))), BOUND)
        await connection.send(*cell("1"))
        await asyncio.wait_for(reader.idle.wait(), BOUND)


async def test_a_megabyte_comes_whole_in_one_message(kernel: KernelClient):
    result = await kernel.execute("print('x' * (1 << 20), flush=True)", timeout=BOUND)
    assert result.text() == "x" * (1 << 20) + "\n"


async def test_a_large_cell_goes_whole(kernel: KernelClient):
    code = f"len({'x' * (2 << 20)!r})"
    assert (await kernel.execute(code, timeout=BOUND)).value == str(2 << 20)
