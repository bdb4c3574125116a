"""A session with a kernel of any driver and clients that come, fall behind, go and come again."""

from __future__ import annotations

import asyncio
import errno

import pytest

from cellgate.errors import SandboxStartFailed, TooManyClients
from cellgate.live.kernel import MAX_UNSENT
from cellgate.live.manager import Manager
from cellgate.live.reader import CHUNK_BYTES, Parting
from cellgate.live.session import LiveSession
from cellgate.live.wish import Wish
from cellgate.sandbox.certificate import Reason
from cellgate.sessions import journal as journals
from cellgate.sessions import session as sessions
from cellgate.sessions.states import State
from cellgate_kernel.link import LinkLimits
from cellgate_kernel.message import Channel
from tests.live.conftest import OpenManager
from tests.support.live import BOUND, OWNER, Client, Lasting, create, text_of
from tests.support.server import until

LINES = "for i in range({}): print(i, flush=True)"


def lines(count: int) -> str:
    return "".join(f"{i}\n" for i in range(count))


# -- cells ------------------------------------------------------------------------------------------------


async def test_a_cell_is_answered_in_full(client: Client):
    outcome = await client.run("print('said'); 1+1")
    assert (outcome.status, outcome.text, outcome.value) == ("ok", "said\n", "2")
    kinds = [message["msg_type"] for message in outcome.messages]
    assert (kinds[0], kinds[-1]) == ("status", "status")
    assert client.live.execution_state == "idle"


async def test_a_session_is_busy_while_a_cell_runs_and_an_interrupt_ends_it(client: Client):
    cell = client.ask("while True: pass")
    await client.until(lambda: ("execute_input", "while True: pass") in client.shown())
    assert client.live.execution_state == "busy"
    await client.live.interrupt()
    outcome = await client.outcome(cell)
    assert (outcome.status, outcome.reply["content"]["ename"]) == ("error", "KeyboardInterrupt")
    assert (await client.run("1+1")).value == "2"


async def test_a_question_is_asked_of_the_client_that_ran_the_cell_and_answered(live: LiveSession, client: Client):
    other = Client(live, b"b")
    cell = client.ask("print(input('name? '))", allow_stdin=True)
    await client.until(lambda: any(m["msg_type"] == "input_request" for m in client.messages))
    client.send_request("input_reply", {"value": "Ada"}, Channel.STDIN)
    assert (await client.outcome(cell)).text == "Ada\n"
    assert not any(m["msg_type"] == "input_request" for m in other.messages)


async def test_a_restart_returns_when_the_fresh_kernel_runs_and_variables_are_gone(client: Client):
    await client.run("kept = 1")
    running = client.ask("while True: pass")
    await client.until(lambda: client.live.execution_state == "busy")
    await client.live.restart()
    assert client.live.execution_state == "idle"
    assert client.live.session.incarnation == 2
    assert (await client.outcome(running)).status == "aborted"
    assert (await client.run("'kept' in globals()")).value == "False"
    assert ("status", "restarting") not in client.shown()  # frontends take that for a death that nobody asked for


async def test_a_kernel_that_dies_is_told_why_and_replaced(client: Client):
    outcome = await client.run("import os; os._exit(3)")
    assert (outcome.status, outcome.reason) == ("error", "kernel_exit")
    assert outcome.reply["metadata"]["cellgate"]["exit_code"] == 3
    assert (await client.run("1+1")).value == "2"
    assert client.live.session.incarnation == 2


async def test_a_fault_of_ours_at_the_end_of_a_kernel_stands_in_the_log(
    live: LiveSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Nobody awaits the task that tells it, so that its clients waited and nobody could say for what."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(live.session, "kernel_died", fail)
    await live._kernels[1].sandbox.kill(Reason.OOM, "as a test wants it")
    await until(lambda: "a task failed" in caplog.text)
    assert "a fault of ours" in caplog.text


async def test_a_kernel_that_dies_between_cells_is_replaced_too(client: Client):
    code = "import threading, os; threading.Timer(0.05, os._exit, [4]).start()"
    if client.live._kernels[1].sandbox.driver == "fake":  # whose threads are the test's own
        pytest.skip("driver does not promise this")
    await client.run(code)
    await client.until(lambda: ("status", "restarting") in client.shown())
    assert (await client.run("1+1")).value == "2"


async def test_what_a_kernel_said_before_it_died_is_said(client: Client):
    outcome = await client.run(LINES.format(500) + "\nimport os, time; time.sleep(0.1); os._exit(0)")
    assert outcome.text == lines(500)
    assert outcome.reason == "kernel_exit"


async def test_a_fresh_kernel_that_cannot_be_had_is_an_error_of_the_restart(client: Client, driver: Lasting):
    await client.run("1")
    driver.failing = SandboxStartFailed("test", "step", "detail")
    restart = asyncio.create_task(client.live.restart())
    await client.until(lambda: client.live.execution_state == "restarting")
    driver.failing = None
    await restart
    assert (await client.run("1+1")).value == "2"


# -- several clients --------------------------------------------------------------------------------------


async def test_all_clients_see_all_output_in_the_same_order_and_replies_of_their_own(live: LiveSession):
    one, two, three = (Client(live, name) for name in (b"1", b"2", b"3"))
    cells = [client.ask(LINES.format(50)) for client in (one, two, one, two)]
    for client, cell in zip((one, two, one, two), cells):
        assert (await client.outcome(cell)).text == lines(50)
    seen = [
        [(m["msg_type"], m["header"]["msg_id"]) for m in client.messages if m["channel"] == "iopub"]
        for client in (one, two, three)
    ]
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen[0])) == len(seen[0])
    assert not any(m["msg_type"] == "execute_reply" for m in three.messages)


async def test_one_more_client_than_there_may_be_is_refused(open_one: OpenManager):
    manager = await open_one(clients_per_session=2)
    live = await create(manager, OWNER, Wish())
    Client(live, b"a"), Client(live, b"b")
    with pytest.raises(TooManyClients):
        Client(live, b"c")
    assert live.connections == 2
    Client(live, b"b")  # takes its own place
    assert live.connections == 2


async def test_a_client_that_comes_again_takes_the_place_of_its_former_connection(live: LiveSession):
    former = Client(live, b"a")
    again = Client(live, b"a")
    assert (await again.run("print('x')")).text == "x\n"
    assert former.parted is Parting.REPLACED
    assert not former.of("x")
    assert live.connections == 1


# -- reading on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [True, False], ids=["while a cell runs", "between cells"])
async def test_who_hangs_up_is_taken_to_have_read_what_was_sent_but_not_while_a_cell_runs(
    live: LiveSession, runs: bool, monkeypatch: pytest.MonkeyPatch
):
    """Found by the chaos run: a frontend that reconnects hears nothing of what is on its way to it."""
    monkeypatch.setattr("cellgate.live.reader.MARK_SECONDS", 2 * BOUND)  # no mark after the first
    client = Client(live)
    await client.run("pass")
    cell = client.ask("print('said', flush=True)" + ("; import time; time.sleep(600)" if runs else ""))
    await client.until(lambda: ("stream", "said\n") in client.shown())
    if not runs:
        await client.outcome(cell)
    client.leave(in_order=True)
    again = Client(live)
    assert (("stream", "said\n") in again.shown()) is runs
    await live.interrupt()


async def test_a_client_that_comes_back_reads_on_where_it_stopped(live: LiveSession):
    first, other = Client(live), Client(live, b"other")
    await first.run("print('before')")
    await until(lambda: first.reader.delivered == live.journal.next_seq, BOUND)
    first.leave()
    await other.run("print('meanwhile')")
    again = Client(live)
    assert text_of(again.messages) == "meanwhile\n"
    assert (await again.run("print('after')")).text == "after\n"


async def test_what_was_on_its_way_when_the_connection_broke_comes_again_or_not_as_the_client_says(live: LiveSession):
    first = Client(live, answers_marks=False)
    await first.run("print(1)")
    half = len(first.messages)
    await first.run("print(2)")
    first.leave()
    unsure = Client(live)
    assert unsure.shown() == first.shown()
    unsure.leave()
    knows = Client(live, after=first.messages[half - 1]["header"]["msg_id"])
    assert knows.shown() == first.shown()[half:]


@pytest.mark.parametrize("after", ["never-sent", "", '"', "x" * 10_000, "\x00", "\ud800"])
async def test_a_last_message_that_never_was_changes_nothing(live: LiveSession, after: str):
    first = Client(live, answers_marks=False)
    await first.run("print(1)")
    first.leave()
    assert Client(live, after=after).shown() == first.shown()


async def test_a_reply_that_the_connection_did_not_live_to_see_is_delivered(live: LiveSession):
    first, other = Client(live), Client(live, b"other")
    cell = first.ask("input(); 'over'", allow_stdin=True)
    await first.until(lambda: any(m["msg_type"] == "input_request" for m in first.messages))
    first.leave()
    other.send_request("input_reply", {"value": ""}, Channel.STDIN)
    await until(lambda: live.execution_state == "idle", BOUND)
    again = Client(live)
    assert (await again.outcome(cell)).value == "'over'"


async def test_a_client_with_a_new_identity_begins_with_the_output_of_the_running_cell(live: LiveSession):
    first = Client(live)
    await first.run("print('long ago')")
    cell = first.ask("print('begins'); input()", allow_stdin=True)
    await first.until(lambda: any(m["msg_type"] == "input_request" for m in first.messages))
    late = Client(live, b"late")
    assert text_of(late.messages) == "begins\n"
    assert late.shown()[0] == ("status", "busy")
    first.send_request("input_reply", {"value": ""}, Channel.STDIN)
    await first.outcome(cell)
    assert late.shown()[-1] == ("status", "idle")
    assert not any(m["channel"] == "shell" for m in late.messages)
    later = Client(live, b"later")
    assert later.messages == [], "nothing runs"


# -- slow clients -----------------------------------------------------------------------------------------


async def test_a_slow_client_costs_bounded_memory_and_reads_all_when_it_can(live: LiveSession):
    slow, fast = Client(live, b"slow"), Client(live, b"fast")
    slow.is_deaf = True
    outcome = await fast.run("for i in range(300): print(str(i) * 500, flush=True)")
    assert slow.most_buffered < live.session.limits.client_outbox_bytes + CHUNK_BYTES
    slow.hear()
    await slow.until(lambda: slow.shown()[-1] == ("status", "idle"))
    assert text_of(slow.messages) == outcome.text


async def test_who_takes_nothing_for_too_long_is_parted_and_may_come_again(manager: Manager, live: LiveSession):
    slow = Client(live)
    await slow.run("1")
    slow.is_deaf = True
    slow.ask("print('kept')")
    await until(lambda: live.execution_state == "idle" and slow.buffered_bytes > 0, BOUND)
    now = manager.now()
    live.look_after(now)
    live.look_after(now + live.session.limits.client_stall_seconds - 1)
    assert slow.parted is None
    live.look_after(now + live.session.limits.client_stall_seconds + 1)
    assert slow.parted is Parting.TOO_SLOW
    await until(lambda: live.connections == 0, BOUND)
    assert "kept\n" in text_of(Client(live).messages)


@pytest.mark.parametrize(
    ("size", "most"), [(1 << 20, MAX_UNSENT + 50), (4 << 20, MAX_UNSENT)], ids=["in number", "in bytes"]
)
async def test_more_requests_than_the_link_takes_hold_their_clients_back(
    live: LiveSession, client: Client, size: int, most: int
):
    """Comms go at once; a kernel that is busy reads them, but one that stands still does not."""
    await client.run("1")
    client.ask("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    await until(lambda: live.execution_state == "busy", BOUND)
    content = {"comm_id": "x", "data": "x" * size}
    clear: list[bool] = []
    for _ in range(most):
        client.send_request("comm_msg", content)
        if live.is_congested:
            break
        await asyncio.sleep(0)
    assert live.is_congested
    live.when_clear(lambda: clear.append(True))
    await live.restart()
    await until(lambda: clear == [True], BOUND)
    assert not live.is_congested
    assert (await client.run("1+1")).value == "2"


async def test_a_kernel_that_says_it_takes_less_than_clients_may_send_is_ended(live: LiveSession, client: Client):
    """To the heir of a gateway it may say so. Nothing could be sent to it then, and no clock of the session went on."""
    await client.run("1")
    live._kernels[1].connection.link._window = LinkLimits(max_body_bytes=1)
    assert (await client.run("1+1")).reason == "protocol_violation"
    assert (await client.run("1+1")).value == "2"


# -- ends -------------------------------------------------------------------------------------------------


async def test_a_deleted_session_tells_its_end_before_it_parts_from_its_clients(manager: Manager, live: LiveSession):
    client = Client(live)
    cell = client.ask("while True: pass")
    await client.until(lambda: live.execution_state == "busy")
    await live.delete()
    assert live.is_gone
    await client.until(lambda: client.parted)
    assert client.parted is Parting.SESSION_OVER
    assert (await client.outcome(cell)).reason == "session_deleted"
    assert client.shown()[-1] == ("status", "dead")
    await until(lambda: live.id not in manager._sessions, BOUND)
    await live.delete()  # twice is once


async def test_a_client_that_reads_slowly_still_reads_the_end(live: LiveSession):
    client = Client(live)
    client.is_deaf = True
    client.ask("for i in range(300): print(str(i) * 500, flush=True)")
    await until(lambda: live.execution_state == "busy", BOUND)
    await until(lambda: live.execution_state == "idle", BOUND)
    await live.delete()
    client.hear()
    await client.until(lambda: client.parted)
    assert client.shown()[-1] == ("status", "dead")
    assert len(text_of(client.messages).split()) == 300


async def test_a_shutdown_by_a_client_is_the_end_and_with_restart_it_is_none(live: LiveSession, client: Client):
    restarted = await client.outcome(client.send_request("shutdown_request", {"restart": True}, Channel.CONTROL))
    assert restarted.reply["content"]["restart"] is True
    assert (await client.run("1+1")).value == "2"
    client.send_request("shutdown_request", {"restart": False}, Channel.CONTROL)
    await client.until(lambda: client.parted)
    assert client.parted is Parting.SESSION_OVER


async def test_a_session_that_is_closed_and_not_ended_says_that_it_goes_on(open_one: OpenManager):
    manager = await open_one()
    live = await create(manager, OWNER, Wish())
    client = Client(live)
    await manager.close(end_sessions=False)
    assert client.parted is Parting.GOING_AWAY
    assert not live.is_gone
    live = (await open_one()).find(OWNER, live.id)
    assert (await Client(live).run("1+1")).value == "2"


# -- a disk that refuses ----------------------------------------------------------------------------------


async def test_while_the_journal_cannot_be_written_the_kernel_waits_and_then_nothing_is_lost(
    open_one: OpenManager, monkeypatch: pytest.MonkeyPatch
):
    """More is said than would be kept in memory: what is not read yet waits in the sandbox."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    manager = await open_one(output_bytes_per_cell="32M", journal_bytes_per_session="64M")
    live = await create(manager, OWNER, Wish())
    client = Client(live)
    count = 3 * journals.MAX_UNWRITTEN_BYTES >> 16
    cell = client.ask(f"for i in range({count}): print(str(i % 10) * (64 << 10), flush=True)")
    await client.until(lambda: any(m["msg_type"] == "stream" for m in client.messages))
    with monkeypatch.context() as patch:
        patch.setattr(journals, "write_all", refuse)
        await until(lambda: live.journal.is_degraded, BOUND)
        refused = await client.run("1")
        assert (refused.status, refused.reason) == ("error", "backend_error")
    live.look_after(manager.now())
    assert not live.journal.is_degraded
    outcome = await client.outcome(cell)
    assert [line[0] for line in outcome.text.split()] == [str(i % 10) for i in range(count)]
    assert (await client.run("1+1")).value == "2"


# -- states -----------------------------------------------------------------------------------------------


async def test_requests_before_the_kernel_runs_wait_for_it(manager: Manager, driver: Lasting):
    driver.may_create.clear()
    live = await manager.create(OWNER, Wish())
    assert live.execution_state == "starting"
    client = Client(live)
    cell = client.ask("1+1")
    driver.may_create.set()
    assert (await client.outcome(cell)).value == "2"
    assert live.session.state is State.READY


async def test_a_session_without_a_kernel_refuses_cells_until_a_restart_brings_one(
    live: LiveSession, driver: Lasting, monkeypatch: pytest.MonkeyPatch
):
    """Kernels that do not start are given up after some; nobody who waits is left waiting."""
    monkeypatch.setattr(sessions, "RESTART_PAUSES", (0.0, 0.01))
    client = Client(live)
    await client.run("1")
    driver.failing = SandboxStartFailed("test", "step", "of the host's own")
    lost = client.ask("import os; os._exit(1)")
    await client.until(lambda: ("status", "dead") in client.shown())
    assert (await client.outcome(lost)).reason == "kernel_exit"
    assert live.execution_state == "dead"
    refused = await client.run("1+1")
    assert (refused.status, refused.reason) == ("error", "backend_error")
    asked = await client.outcome(client.send_request("complete_request", {"code": "x", "cursor_pos": 1}))
    assert asked.status == "error"
    with pytest.raises(SandboxStartFailed):
        await live.restart()
    assert "of the host's own" not in str(client.messages), "that is for our log"
    live.failure = None  # as of kernels that began, and ended before they were given a cell
    with pytest.raises(SandboxStartFailed):
        await live.started()
    driver.failing = None
    await live.restart()
    assert (await client.run("1+1")).value == "2"
