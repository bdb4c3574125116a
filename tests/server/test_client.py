"""The client beyond what the conformance suite says of every driver."""

from __future__ import annotations

import asyncio
import json
import math
import socket

import pytest

from cellgate.errors import LimitError, LinkClosed, SandboxGone
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.connection import LinkStream, each
from cellgate.sandbox.fake import FakeDriver
from cellgate_kernel.link import Link
from cellgate_kernel.message import Channel, Status, Tag

BOUND = 10.0


@pytest.fixture
async def sandbox():
    driver = FakeDriver()
    yield await driver.create(SandboxSpec())
    await driver.close()


@pytest.fixture
async def kernel(sandbox):
    async with KernelClient(sandbox) as kernel:
        yield kernel


async def test_output_beyond_what_is_kept_is_counted_and_the_end_of_the_cell_never_dropped(sandbox):
    async with KernelClient(sandbox, max_kept_bytes=5000) as kernel:
        result = await kernel.execute("for i in range(100): print(i)\n'value'", timeout=BOUND)
    assert result.value == "'value'"
    kept = result.text().splitlines()
    assert kept == [str(i) for i in range(len(kept))]
    # Each print is two writes of the fake's; none is missing from the count.
    assert result.dropped_messages == 100 - len(kept)
    assert result.dropped_bytes > 0


async def test_on_output_takes_each_output_as_it_comes_and_none_is_kept(kernel):
    taken = []
    result = await kernel.execute("print('a')\n7", on_output=taken.append, timeout=BOUND)
    assert [message["msg_type"] for message in taken] == ["stream", "execute_result"]
    assert result.outputs == []


async def test_an_error_in_the_callers_own_function_is_the_callers(kernel):
    def fail(_message):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await kernel.execute("print(1)", on_output=fail, timeout=BOUND)
    assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"


async def test_an_error_in_on_input_is_the_callers(kernel):
    def fail(_prompt, _password):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await kernel.execute("input()", on_input=fail)


async def test_an_error_in_on_other_stops_nothing(sandbox):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fail(_message):
        raise ZeroDivisionError

    async with KernelClient(sandbox, on_other=fail) as kernel:
        await kernel.send("comm_info_request", {})
        assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
    assert {type(error) for error in told} == {ZeroDivisionError}


class Liar:
    """A sandbox whose kernel answers every cell as it likes. Alive for good."""

    id = "liar"

    def __init__(self, *answers):
        self.answers = answers
        self.kills = []

    async def attach(self):
        ours, theirs = socket.socketpair()
        self.stream = LinkStream(Link(), theirs, each(self.take))
        return ours

    def take(self, _number, tag, _v1):
        for channel, kind, status, content in self.answers:
            header = json.dumps({"msg_type": kind}).encode()
            self.stream.post(Tag(channel, kind, status, tag.parent_id), [header, b"{}", b"{}", content])

    async def kill(self, reason, detail=""):
        self.kills.append((reason, detail))

    async def wait(self):
        await asyncio.get_running_loop().create_future()


IDLE = (Channel.IOPUB, "status", Status.IDLE, b"{}")


async def test_a_kernel_that_claims_to_be_dead_is_not_believed():
    liar = Liar((Channel.SHELL, "execute_reply", Status.OK, b'{"status":"dead"}'), IDLE)
    async with KernelClient(liar) as kernel:
        assert (await kernel.execute("1", timeout=BOUND)).status == "error"


async def test_a_result_of_another_shape_has_no_value():
    liar = Liar(
        (Channel.IOPUB, "execute_result", Status.NONE, b'{"data":7}'),
        (Channel.IOPUB, "stream", Status.NONE, b'{"name":"stdout","text":[]}'),
        (Channel.SHELL, "execute_reply", Status.OK, b'{"status":"ok"}'),
        IDLE,
    )
    async with KernelClient(liar) as kernel:
        result = await kernel.execute("1", timeout=BOUND)
    assert (result.value, result.text()) == ("", "[]")


async def test_inputs_that_nobody_waits_for_start_one_task_at_most():
    asked = []
    liar = Liar(
        *[(Channel.STDIN, "input_request", Status.NONE, b'{"prompt":7}')] * 100,
        (Channel.SHELL, "execute_reply", Status.OK, b'{"status":"ok"}'),
        IDLE,
    )

    async def ask(prompt: str, _password: bool) -> str:
        asked.append(prompt)
        return await asyncio.get_running_loop().create_future()

    async with KernelClient(liar) as kernel:
        await kernel.execute("1", on_input=ask, timeout=BOUND)
    assert len(asked) <= 1


async def test_an_answer_that_is_no_message_ends_the_sandbox():
    liar = Liar((Channel.SHELL, "execute_reply", Status.OK, b"[" * 100_000))
    async with KernelClient(liar) as kernel:
        cell = asyncio.create_task(kernel.execute("1"))
        await asyncio.wait_for(kernel.connection.closed, BOUND)
        cell.cancel()
    assert [reason for reason, _ in liar.kills] == [Reason.PROTOCOL_VIOLATION]


async def test_a_cancelled_execute_leaves_the_cell_running_and_the_client_usable(kernel):
    printed = asyncio.Event()
    cell = asyncio.create_task(
        kernel.execute("import time\nprint('on')\ntime.sleep(600)", on_output=lambda _: printed.set())
    )
    await asyncio.wait_for(printed.wait(), BOUND)
    cell.cancel()
    await asyncio.wait({cell})
    await kernel.interrupt()
    await kernel.request("is_complete_request", {"code": ""}, timeout=BOUND)  # a cell would be aborted with it
    assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"


async def test_what_belongs_to_nobody_goes_to_on_other(sandbox):
    others, came = [], asyncio.Event()

    def take(message):
        others.append(message)
        if message["content"].get("execution_state") == "idle":
            came.set()

    async with KernelClient(sandbox, on_other=take) as kernel:
        msg_id = await kernel.send("comm_info_request", {})
        await asyncio.wait_for(came.wait(), BOUND)
    assert {message["parent_id"] for message in others} == {msg_id}
    assert "comm_info_reply" in [message["msg_type"] for message in others]


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
async def test_a_time_that_is_none_is_refused(kernel, timeout):
    with pytest.raises(LimitError):
        await kernel.execute("1", timeout=timeout)


async def test_a_request_in_vain_says_so(kernel):
    with pytest.raises(TimeoutError):
        await kernel.request("comm_msg", {}, timeout=0.02)


async def test_a_request_whose_sandbox_ends_gets_the_certificate(kernel):
    cell = asyncio.create_task(kernel.execute("import time\ntime.sleep(600)"))
    request = asyncio.create_task(kernel.request("complete_request", {"code": "", "cursor_pos": 0}))
    await kernel.connection.ping(BOUND)
    await kernel.sandbox.kill(Reason.SESSION_EXPIRED)
    with pytest.raises(SandboxGone) as gone:
        await asyncio.wait_for(request, BOUND)
    assert gone.value.certificate.reason is Reason.SESSION_EXPIRED
    assert (await asyncio.wait_for(cell, BOUND)).certificate == gone.value.certificate


async def test_a_client_that_was_left_refuses_and_releases_who_waits(sandbox):
    async with KernelClient(sandbox) as kernel:
        cell = asyncio.create_task(kernel.execute("import time\ntime.sleep(600)"))
        await kernel.connection.ping(BOUND)
    with pytest.raises(LinkClosed):
        await asyncio.wait_for(cell, BOUND)
    with pytest.raises(LinkClosed):
        await asyncio.wait_for(kernel.execute("1"), BOUND)
    assert not kernel._tasks


async def test_code_too_long_for_the_link_is_refused_and_the_kernel_goes_on(kernel):
    with pytest.raises(ValueError, match="accepts"):
        await kernel.execute("x" * (17 << 20))
    assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"
