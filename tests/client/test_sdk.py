"""The SDK over a real gateway, as a program uses it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest
import pytest_asyncio

from cellgate.client import (
    AsyncClient,
    AsyncSession,
    CellFailed,
    Client,
    ConnectionLost,
    InvalidRequest,
    NotFound,
    Result,
    SessionOver,
    Unauthorized,
)
from cellgate.client.events import Accepted, Display, Finished, InputRequested, Started, Stdout
from tests.support.server import BOUND, Server, served, until

pytestmark = [pytest.mark.native, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    """One for all; whatever a test does to it, it serves again afterwards."""
    async with served() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Server):
    async with AsyncClient(server.url, server.token) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def session(client: AsyncClient):
    async with client.session() as session:
        yield session


def value_of(result: Result) -> str:
    assert result.result is not None, result
    return result.result["text/plain"]


def error_of(result: Result) -> str:
    assert result.error is not None, result
    return result.error["name"]


async def in_thread(work, *args):
    return await asyncio.wait_for(asyncio.to_thread(work, *args), BOUND)


async def test_the_first_lines_of_the_documents(server: Server):
    def program() -> str:
        with Client(server.url, server.token) as c, c.session() as s:
            assert s.run("x = 20").is_ok
            return value_of(s.run("x + 1"))

    assert await in_thread(program) == "21"


# -- cells ---------------------------------------------------------------------------------------------


async def test_a_result_has_everything_that_became_of_a_cell(session: AsyncSession):
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6*7"
    result = await session.run(code, id="the-answer")
    assert (result.cell, result.status, result.reason) == ("the-answer", "ok", "ok")
    assert (result.stdout, result.stderr, result.result) == ("out\n", "err\n", {"text/plain": "42"})
    failed = await session.run("1/0")
    assert (failed.status, error_of(failed)) == ("error", "ZeroDivisionError")
    with pytest.raises(CellFailed, match="division by zero") as raised:
        await session.run("1/0", check=True)
    assert error_of(raised.value.result) == "ZeroDivisionError"


async def test_events_come_while_the_cell_runs(session: AsyncSession):
    seen = []
    async for event in session.stream("print('a', flush=True)\ninput('go? ')\ndisplay(1)", stdin=True):
        seen.append(event)
        if isinstance(event, InputRequested):
            assert any(isinstance(one, Stdout) and one.text == "a\n" for one in seen)
            await session.answer(event.cell, "yes")
    kinds = [type(event) for event in seen]
    assert kinds[:2] == [Accepted, Started] and Display in kinds and kinds[-1] is Finished
    assert [event.seq for event in seen] == sorted({event.seq for event in seen})


async def test_a_blocking_stream_is_a_plain_iterator(server: Server):
    def program() -> list[str]:
        with Client(server.url, server.token) as client, client.session() as session:
            code = "for i in range(3): print(i, flush=True)"
            return [event.text for event in session.stream(code) if isinstance(event, Stdout)]

    assert "".join(await in_thread(program)) == "0\n1\n2\n"


async def test_input_is_answered_by_a_function_that_may_take_its_time(session: AsyncSession):
    asked = []

    def answer(prompt: str, is_password: bool) -> str:
        asked.append((prompt, is_password, threading.current_thread() is threading.main_thread()))
        return "Ada"

    result = await session.run("import getpass\nprint(input('name? '), getpass.getpass('word? '))", on_input=answer)
    assert result.stdout == "Ada Ada\n"
    assert asked == [("name? ", False, False), ("word? ", True, False)]
    without = await session.run("input()")
    assert error_of(without) == "StdinNotImplementedError"


async def test_a_cell_goes_on_without_anybody_waiting_and_can_be_asked_for_later(client: AsyncClient):
    session = await client.create()
    code = "import time\ntime.sleep(0.2)\nprint('done')"
    await session.submit(code, id="slow")
    await session.close()
    async with await client.attach(session.id) as again:
        assert (await (await again.submit(code, id="slow")).result()).stdout == "done\n"
        await again.delete()


async def test_a_callback_is_told_every_event(session: AsyncSession):
    seen = []
    result = await session.run("print(1)\n2", on_event=seen.append)
    assert result.is_ok and seen[0].name == "accepted" and seen[-1].name == "finished"


# -- stopping ------------------------------------------------------------------------------------------


async def test_a_timeout_stops_the_work(session: AsyncSession):
    result = await session.run("while True: pass", timeout=0.5)
    assert result.reason == "timeout_wall"
    assert (await session.run("1")).is_ok


async def test_who_stops_waiting_stops_the_cell(session: AsyncSession):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(session.run("import time\nwhile True: time.sleep(0.01)"), 0.5)
    assert (await asyncio.wait_for(session.run("'free'"), BOUND)).is_ok


async def test_a_stream_that_is_left_early_stops_the_cell(session: AsyncSession):
    async for event in session.stream("import time\nwhile True: print('x', flush=True); time.sleep(0.01)"):
        if isinstance(event, Stdout):
            break
    assert (await asyncio.wait_for(session.run("'free'"), BOUND)).is_ok


INTERRUPTED = """
import os, signal, sys, threading
from cellgate.client import Client

with Client(*sys.argv[1:3]) as client:
    session = client.attach(sys.argv[3])
    try:
        session.run("open('it-runs', 'w').close()\\nwhile True: pass", on_event=lambda event: (
            event.name == "started" and threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()))
    except KeyboardInterrupt:
        print("stopped")
"""


async def test_ctrl_c_stops_the_cell_that_a_program_waits_for(server: Server, session: AsyncSession):
    words = ["-c", INTERRUPTED, server.url, server.token, session.id]
    run = await in_thread(lambda: subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False))
    assert (run.stdout, run.returncode) == ("stopped\n", 0), run.stderr
    assert (await asyncio.wait_for(session.run("'free'"), BOUND)).is_ok


async def test_cells_that_wait_can_be_cancelled_and_ones_that_run_interrupted(session: AsyncSession):
    running = await session.submit("import time\nwhile True: time.sleep(0.01)", stop_on_error=False)
    waiting = await session.submit("print('never')")
    assert await waiting.cancel() == "waiting"
    assert (await waiting.result()).reason == "cancelled"
    await until(lambda: any(one.get("event") == "started" for one in running._raw))
    await session.interrupt()
    assert (await running.result()).reason == "interrupted"
    assert await running.cancel() == "finished"


async def test_a_restart_loses_variables_and_keeps_the_session(session: AsyncSession):
    await session.run("x = 1")
    before = session.incarnation
    await session.restart()
    assert error_of(await session.run("x")) == "NameError"
    assert session.incarnation == before + 1


# -- going away and coming back ------------------------------------------------------------------------

COUNTING = "import time\nfor i in range({}): print(i, flush=True); time.sleep(0.005)"


async def drops(session: AsyncSession, times: int) -> None:
    """Cut the connection, again and again, each time once it is there."""
    connection = session._connection
    assert connection is not None
    for _ in range(times):
        await until(lambda: connection._websocket is not None)
        await connection.drop()
        await asyncio.sleep(0.02)


async def test_nobody_notices_a_dropped_connection(session: AsyncSession):
    await session.open()
    running, _ = await asyncio.gather(session.run(COUNTING.format(200)), drops(session, 8))
    assert running.stdout == "".join(f"{i}\n" for i in range(200))
    with_drop = asyncio.create_task(drops(session, 3))
    results = [await session.run(f"counted = {i}; counted") for i in range(30)]
    await with_drop
    assert [value_of(result) for result in results] == [str(i) for i in range(30)]


async def test_nobody_notices_the_death_of_the_gateway(server: Server, session: AsyncSession):
    seen: list[int] = []
    task = asyncio.create_task(session.run(COUNTING.format(300), on_event=lambda event: seen.append(event.seq)))
    await until(lambda: len(seen) > 10)
    await server.kill_gateway()
    result = await asyncio.wait_for(task, BOUND)
    assert result.is_ok and result.stdout == "".join(f"{i}\n" for i in range(300))
    assert seen == sorted(set(seen))
    assert value_of(await session.run("i")) == "299"


async def test_requests_outlive_the_gateway_that_they_were_made_to(server: Server, client: AsyncClient):
    """As its successor answers them; a session is made once, and its end is no error the second time."""
    made: list[AsyncSession] = []

    async def make() -> None:
        for _ in range(4):
            made.append(await client.create())
            await client.sessions()

    making = asyncio.create_task(make())
    await until(lambda: bool(made))
    await server.kill_gateway()
    await asyncio.wait_for(making, BOUND)
    assert {one["id"] for one in await client.sessions()} == {session.id for session in made}
    await asyncio.gather(server.kill_gateway(), *(client.delete(session.id) for session in made))
    await until_none(client)


async def until_none(client: AsyncClient) -> None:
    while await client.sessions():
        await asyncio.sleep(0.01)


async def test_a_cell_that_is_sent_again_runs_once(client: AsyncClient):
    async with client.session() as session:
        first = await session.run("n = globals().get('n', 0) + 1; n", id="once")
        async with await client.attach(session.id) as other:
            second = await other.run("n = globals().get('n', 0) + 1; n", id="once")
        assert first.result == second.result == {"text/plain": "1"}
        assert (await session.run("n")).result == {"text/plain": "1"}


async def test_a_cell_that_is_under_way_is_the_same_for_whoever_sends_it_here(session: AsyncSession):
    code = "import time; time.sleep(0.2); n = globals().get('n', 0) + 1; n"
    one, two = await asyncio.gather(session.run(code, id="same"), session.run(code, id="same"))
    assert value_of(one) == value_of(two) == "1"
    waiting = await session.submit(code, id="other")
    with pytest.raises(InvalidRequest, match="id of its own"):
        await session.submit("1", id="other")
    assert (await waiting.result()).is_ok


async def test_sessions_that_were_closed_are_forgotten(server: Server):
    """A program that ran for weeks kept every session that it had ever made."""
    async with AsyncClient(server.url, server.token) as client:
        made = [await client.create() for _ in range(2)]
        await asyncio.gather(*(session.open() for session in made))
        assert client._sessions == {*made}
        await made[0].close()
        assert client._sessions == {made[1]}
        await made[1].delete()
        assert client._sessions == set()
        await client.delete(made[0].id)


async def test_a_server_that_stays_away_is_told_after_the_patience_that_was_asked_for(server: Server):
    async with AsyncClient(server.url, server.token, patience=0.5) as client:
        session = await client.create()
        task = asyncio.create_task(session.run("import time; time.sleep(60)"))
        await until(lambda: session.state == "busy" or bool(session._ledger._cells))
        await server.end()
        began = time.monotonic()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(task, BOUND)
        assert time.monotonic() - began < BOUND / 2
    await server.start()


async def test_all_that_happens_can_be_seen_by_others_and_from_the_beginning(client: AsyncClient):
    async with client.session() as session:
        await session.run("print('first')")
        watcher = await client.attach(session.id, client="watcher", role="observer", since=0)
        seen = []
        async for event in watcher.events():
            seen.append(event)
            if isinstance(event, Finished):
                break
        assert [event.text for event in seen if isinstance(event, Stdout)] == ["first\n"]
        (accepted,) = (event for event in seen if isinstance(event, Accepted))
        assert accepted.client == session.client
        await watcher.close()


# -- what goes wrong -----------------------------------------------------------------------------------


async def test_errors_are_known_by_their_kind(server: Server, client: AsyncClient):
    with pytest.raises(NotFound) as missing:
        async with await client.attach("nobody") as session:
            await session.run("1")
    assert missing.value.code == "unknown_session" and missing.value.status == 404
    async with AsyncClient(server.url, "a wrong token") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.sessions()
    with pytest.raises(ConnectionLost):
        async with AsyncClient("http://127.0.0.1:9", "x") as nowhere:
            await nowhere.sessions()


async def test_what_cannot_be_sent_is_told_to_who_sends_it_and_harms_nobody_else(session: AsyncSession):
    running = await session.submit("'fine'")
    for code in ("'\ud800'", b"1", object()):
        with pytest.raises(InvalidRequest):
            await session.run(code)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="timeout"):
        await session.run("1", timeout=-1)
    assert (await running.result()).is_ok


async def test_the_end_of_a_session_is_told_to_who_waits(client: AsyncClient):
    session = await client.create()
    running = await session.submit("import time; time.sleep(60)")
    await until(lambda: any(event["event"] == "started" for event in running._raw))
    await client.delete(session.id)
    assert (await asyncio.wait_for(running.result(), BOUND)).reason == "session_deleted"
    with pytest.raises((SessionOver, NotFound)):
        await asyncio.wait_for(session.run("1"), BOUND)
    await session.close()
