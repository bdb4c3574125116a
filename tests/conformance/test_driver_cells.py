"""What a cell can count on in a sandbox of any driver."""

from __future__ import annotations

import asyncio
import re

import pytest

from cellgate.sandbox.base import Sandbox
from cellgate.sandbox.client import KernelClient
from cellgate_kernel.message import Channel
from tests.support.drivers import Create

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOUND = 20.0  # seconds to wait for an event that is to come; far more than any takes on a busy machine


async def until(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), BOUND)


async def test_a_new_sandbox_answers_one_plus_one(kernel: KernelClient):
    result = await kernel.execute("1+1", timeout=BOUND)
    assert (result.status, result.value, result.certificate) == ("ok", "2", None)
    assert result.reply["execution_count"] == 1


async def test_what_is_printed_arrives_whole_and_in_order(kernel: KernelClient):
    result = await kernel.execute("for i in range(500): print(i, flush=True)", timeout=BOUND)
    assert result.text() == "".join(f"{i}\n" for i in range(500))


async def test_both_streams_are_told_apart(kernel: KernelClient):
    result = await kernel.execute("import sys\nprint('out')\nprint('err', file=sys.stderr)", timeout=BOUND)
    assert (result.text("stdout"), result.text("stderr")) == ("out\n", "err\n")


async def test_an_error_is_told_with_name_value_and_traceback(kernel: KernelClient):
    result = await kernel.execute("def fail():\n    raise ValueError('no good')\nfail()", timeout=BOUND)
    (error,) = (out["content"] for out in result.outputs if out["msg_type"] == "error")
    assert result.status == "error"
    assert (error["ename"], error["evalue"]) == ("ValueError", "no good")
    assert "fail()" in re.sub(r"\x1b\[[\d;]*m", "", "".join(error["traceback"]))
    assert result.reply["ename"] == "ValueError"


async def test_code_that_does_not_compile_is_an_error_of_the_cell(kernel: KernelClient):
    result = await kernel.execute("1 +", timeout=BOUND)
    assert (result.status, result.reply["ename"]) == ("error", "SyntaxError")


async def test_names_live_from_cell_to_cell(kernel: KernelClient):
    await kernel.execute("x = 40", timeout=BOUND)
    assert (await kernel.execute("x + 2", timeout=BOUND)).value == "42"


async def test_user_expressions_are_answered_in_the_reply(kernel: KernelClient):
    result = await kernel.execute("x = 6", user_expressions={"seven": "x + 1"}, timeout=BOUND)
    assert result.reply["user_expressions"]["seven"]["data"]["text/plain"] == "7"


async def test_a_silent_cell_shows_no_result(kernel: KernelClient):
    assert (await kernel.execute("1+1", silent=True, timeout=BOUND)).outputs == []


async def test_cells_that_wait_behind_an_error_are_aborted(kernel: KernelClient):
    first = asyncio.create_task(kernel.execute("input()", on_input=lambda *_: once_queued(), timeout=BOUND))
    queued = asyncio.Event()

    async def once_queued() -> str:
        await until(queued)
        raise EOFError

    second = asyncio.create_task(kernel.execute("1+1", timeout=BOUND))
    await kernel.request("kernel_info_request", channel=Channel.CONTROL, timeout=BOUND)
    queued.set()
    assert (await first).reply["ename"] == "EOFError"
    assert (await second).status == "aborted"
    assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"


async def test_input_is_asked_of_the_caller_and_its_answer_reaches_the_cell(kernel: KernelClient):
    asked = []

    def answer(prompt: str, is_password: bool) -> str:
        asked.append((prompt, is_password))
        return "Ada"

    result = await kernel.execute("name = input('who? ')\nprint('hello', name)", on_input=answer, timeout=BOUND)
    assert asked == [("who? ", False)]
    assert result.text() == "hello Ada\n"


async def test_input_without_anyone_to_ask_is_an_error_and_no_hang(kernel: KernelClient):
    assert (await kernel.execute("input()", timeout=BOUND)).status == "error"


async def test_an_interrupt_ends_a_sleeping_cell_and_the_kernel_goes_on(kernel: KernelClient):
    started = asyncio.Event()
    cell = asyncio.create_task(
        kernel.execute(
            "import time\nx = 1\nprint('on', flush=True)\ntime.sleep(600)", on_output=lambda _: started.set()
        )
    )
    await until(started)
    await kernel.interrupt()
    assert (await asyncio.wait_for(cell, BOUND)).reply["ename"] == "KeyboardInterrupt"
    assert (await kernel.execute("x", timeout=BOUND)).value == "1"


async def test_an_interrupt_ends_a_busy_loop(kernel: KernelClient):
    started = asyncio.Event()
    cell = asyncio.create_task(
        kernel.execute("print('on', flush=True)\nwhile True: pass", on_output=lambda _: started.set())
    )
    await until(started)
    await kernel.interrupt()
    assert (await asyncio.wait_for(cell, BOUND)).reply["ename"] == "KeyboardInterrupt"


async def test_an_interrupt_request_on_the_link_does_the_same(kernel: KernelClient):
    started = asyncio.Event()
    cell = asyncio.create_task(
        kernel.execute("print('on', flush=True)\nwhile True: pass", on_output=lambda _: started.set())
    )
    await until(started)
    reply = await kernel.request("interrupt_request", channel=Channel.CONTROL, timeout=BOUND)
    assert reply["content"]["status"] == "ok"
    assert (await asyncio.wait_for(cell, BOUND)).reply["ename"] == "KeyboardInterrupt"


async def test_an_interrupt_while_no_cell_runs_changes_nothing(kernel: KernelClient):
    await kernel.execute("x = 1", timeout=BOUND)
    for _ in range(3):
        await kernel.interrupt()
    await kernel.request("is_complete_request", {"code": "x"}, timeout=BOUND)  # a cell sent at once might be meant
    assert (await kernel.execute("x", timeout=BOUND)).value == "1"


async def test_control_and_pings_are_answered_while_a_cell_runs(kernel: KernelClient):
    started = asyncio.Event()
    cell = asyncio.create_task(
        kernel.execute("print('on', flush=True)\nwhile True: pass", on_output=lambda _: started.set())
    )
    await until(started)
    info = await kernel.request("kernel_info_request", channel=Channel.CONTROL, timeout=BOUND)
    assert info["content"]["language_info"]["name"] == "python"
    assert await kernel.connection.ping(BOUND) < BOUND
    await kernel.interrupt()
    await asyncio.wait_for(cell, BOUND)


async def test_a_cell_out_of_time_is_interrupted_and_the_kernel_goes_on(kernel: KernelClient):
    await kernel.execute("1", timeout=BOUND)  # it has started
    result = await kernel.execute("while True: pass", timeout=0.3)
    assert (result.status, result.timed_out, result.reply["ename"]) == ("error", True, "KeyboardInterrupt")
    assert (await kernel.execute("1+1", timeout=BOUND)).value == "2"


async def test_two_sandboxes_share_no_names(create: Create):
    one, other = await create(), await create()
    async with KernelClient(one) as first, KernelClient(other) as second:
        await asyncio.gather(first.execute("mine = 1", timeout=BOUND), second.execute("mine = 2", timeout=BOUND))
        assert (await first.execute("mine", timeout=BOUND)).value == "1"
        assert (await second.execute("mine", timeout=BOUND)).value == "2"


async def test_the_environment_of_the_setup_is_there_before_the_first_cell(sandbox: Sandbox):
    setup = {"env": {"GREETING": "hello"}, "startup": "import os; greeting = os.environ['GREETING']"}
    async with KernelClient(sandbox, setup=setup) as kernel:
        assert (await kernel.execute("greeting", timeout=BOUND)).value == "'hello'"


async def test_a_later_setup_changes_nothing(sandbox: Sandbox):
    async with KernelClient(sandbox, setup={"env": {"GREETING": "hello"}}) as kernel:
        await kernel.execute("1", timeout=BOUND)
    async with KernelClient(sandbox, setup={"env": {"GREETING": "other"}}, link=kernel.link) as again:
        result = await again.execute("import os; os.environ['GREETING']", timeout=BOUND)
        assert result.value == "'hello'"
