"""An agent's websocket: what it asks and is told, in either form; how it reads on; and every way it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from cellgate.access.scopes import Scope
from cellgate.gateway.agents import FUTURE_CURSOR, MAX_ANSWERS, MAX_CLIENT_CHARS
from cellgate.gateway.sockets import TRY_AGAIN_LATER
from cellgate.live.cursors import SLOTS
from cellgate.wire.agent import (
    CLOSED_FOR,
    Ack,
    Cancel,
    Comm,
    Complete,
    Execute,
    Form,
    Input,
    Inspect,
    Interrupt,
    IsComplete,
    Restart,
    Touch,
    Variables,
)
from tests.gateway.test_channels import open_one, outcome, request
from tests.support.agent import Agent, agent_url, attached, closed, text_of
from tests.support.gateway import TOKEN, Gateway, gateway
from tests.support.server import BOUND, until

Attach = Callable[..., AbstractAsyncContextManager[Agent]]
FORMS = pytest.mark.parametrize("form", Form, ids=lambda form: form.name.lower())


@pytest_asyncio.fixture
async def here(tmp_path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, clients_per_session="3", client_stall_seconds="1", message_bytes="1M") as here:
        yield here


@pytest_asyncio.fixture
async def session(here: Gateway) -> str:
    session_id: str = (await here.ask("POST", "/api/kernels")).json()["id"]
    await here.manager.find("owner", session_id).started()
    return session_id


@pytest.fixture
def attach(here: Gateway, session: str) -> Attach:
    return lambda token=TOKEN, **options: attached(here.port, session, token, **options)


def in_short(events) -> list[str]:
    return [event["event"] for event in events]


# -- what is asked, and told ------------------------------------------------------------------------------


@FORMS
async def test_a_cell_is_told_from_accepted_to_finished(attach: Attach, form: Form):
    async with attach(form=form, client="me") as agent:
        assert agent.websocket.subprotocol == form.value
        events = await agent.run("print('said')\n1+1", id="c1")
    assert in_short(events) == ["accepted", "started", "stdout", "result", "finished"]
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert events[0] | {"client": "me", "code": "print('said')\n1+1", "cell": "c1"} == events[0]
    assert text_of(events) == "said\n"
    assert events[3]["data"] == {"text/plain": "2"}
    end = events[-1]
    assert (end["status"], end["reason"]) == ("ok", "ok")
    assert end["metrics"]["wall"] > 0 and end["metrics"]["output_messages"] == 2


async def test_both_forms_and_whoever_comes_later_are_told_the_same(attach: Attach):
    async with attach(form=Form.JSON, client="a") as first, attach(form=Form.MSGPACK, client="b") as second:
        await first.run("print(1)\n1/0", id="c1")
        await second.end_of("c1")
        async with attach(since=0) as later:
            await later.end_of("c1")
    told = [[event for event in agent.events if "seq" in event and "time" in event] for agent in (first, second, later)]
    assert told[0][-5:] == told[1][-5:] == told[2][-5:]
    assert in_short(told[0][-5:]) == ["accepted", "started", "stdout", "error", "finished"]


async def test_what_it_attached_to_is_told_first(here: Gateway, session: str, attach: Attach):
    async with attach(client="me") as busy, attach(client="you") as other:
        await busy.execute("import time; time.sleep(0.3)", id="c1")
        await busy.named("started")
        await busy.execute("1", id="c2")
        await busy.until(lambda event: event.get("cell") == "c2")
        async with attach(client="third", since=0) as agent:
            told = await agent.next()
            assert told | {"event": "attached", "protocol": 1, "session": session, "client": "third"} == told
            assert told | {"role": "driver", "state": "busy", "incarnation": 1, "since": 0} == told
            assert told["limits"]["message_bytes"] == 1 << 20
            waiting = [("c1", "me", "running"), ("c2", "me", "waiting")]
            assert [(one["cell"], one["client"], one["phase"]) for one in told["pending"]] == waiting
            seen = await agent.named("caught_up")
            assert seen["seq"] >= told["end"]
            assert agent.events[1]["event"] == "state"
        await other.end_of("c2")


async def test_whoever_ran_what_is_in_every_clients_events(attach: Attach):
    async with attach(client="ada") as ada, attach(client="bob") as bob:
        await ada.run("x = 1", id="of-ada")
        events = await bob.run("x", id="of-bob")
        assert events[-2]["data"] == {"text/plain": "1"}
        await ada.end_of("of-bob")
        accepted = {event["cell"]: event["client"] for event in ada.events if event["event"] == "accepted"}
    assert accepted == {"of-ada": "ada", "of-bob": "bob"}


async def test_a_jupyter_clients_cell_is_seen_by_agents_and_theirs_by_it(here: Gateway, session: str, attach: Attach):
    async with attach() as agent, open_one(here, session) as notebook:
        msg_id, v1, _ = request("execute_request", {"code": "print(1)"})
        await notebook.send(v1)
        await outcome(notebook, msg_id)
        assert text_of(await agent.end_of(msg_id)) == "1\n"
        await agent.run("print(2)", id="c1")
        seen = [m for m in await outcome_of_parent(notebook, "c1") if m["msg_type"] == "stream"]
        assert [m["content"]["text"] for m in seen] == ["2\n"]


async def outcome_of_parent(notebook, parent: str):
    from cellgate.wire.jupyter import parse_message

    mine = []
    while not any(m["content"].get("execution_state") == "idle" for m in mine):
        message = parse_message(memoryview(await asyncio.wait_for(notebook.recv(), BOUND)))
        if message["parent_id"] == parent:
            mine.append(message)
    return mine


async def test_input_is_asked_for_only_where_it_may_be_and_answered(attach: Attach):
    async with attach() as agent:
        events = await agent.run("input('name? ')", id="c1")
        assert events[-1]["status"] == "error" and "input_request" not in in_short(events)
        await agent.execute("print(input('name? '))", id="c2", stdin=True)
        asked = await agent.named("input_request")
        assert (asked["cell"], asked["prompt"], asked["password"]) == ("c2", "name? ", False)
        await agent.send(Input("c1", "not that one", "i"))
        assert (await agent.named("error"))["code"] == "input_unasked"
        await agent.send(Input("c2", "Ada"))
        assert text_of(await agent.end_of("c2")) == "Ada\n"


async def test_interrupt_cancel_and_restart_do_what_they_say(attach: Attach):
    async with attach() as agent:
        await agent.execute("while True: pass", id="c1")
        await agent.execute("1", id="c2", stop_on_error=False)
        await agent.named("started")
        assert (await agent.ask(Cancel("q1", "c2")))["was"] == "waiting"
        assert (await agent.ask(Interrupt("q2")))["ok"] is True
        ends = {cell: (await agent.end_of(cell))[-1] for cell in ("c1", "c2")}
        assert {cell: (end["status"], end["reason"]) for cell, end in ends.items()} == {
            "c1": ("error", "interrupted"),
            "c2": ("aborted", "cancelled"),
        }
        assert (await agent.ask(Cancel("q3", "c1")))["was"] == "finished"
        assert (await agent.ask(Cancel("q4", "none")))["code"] == "unknown_cell"
        assert (await agent.ask(Restart("q5")))["ok"] is True
        state = next(event for event in agent.events if event["event"] == "state" and event["incarnation"] == 2)
        assert (state["state"], state["reason"]) == ("restarting", "restarted")
        assert (await agent.run("1+1"))[-2]["data"] == {"text/plain": "2"}


async def test_what_comes_behind_an_interrupt_is_not_struck_by_it(attach: Attach):
    """All in one segment: the interrupt is carried out before the next is heard."""
    async with attach() as agent:
        for round in range(10):
            await asyncio.gather(agent.send(Interrupt(f"i{round}")), agent.execute("1+1", id=f"c{round}"))
            end = (await agent.end_of(f"c{round}"))[-1]
            assert end["reason"] == "ok"


async def test_what_the_kernel_knows_can_be_asked(attach: Attach):
    async with attach() as agent:
        reply = await agent.ask(Complete("q1", "x.", 2))
        assert (reply["matches"], reply["start"], reply["end"]) == ([], 0, 0)
        assert (await agent.ask(Inspect("q2", "x", 1)))["found"] is False
        assert (await agent.ask(IsComplete("q3", "x")))["status"]
        answer = await agent.ask(Variables("q4"))
        assert answer["event"] in ("reply", "error")
        assert (await agent.ask(Touch("q5")))["ok"] is True
        assert not any("seq" in event for event in agent.events if event["event"] == "reply")


async def test_comms_go_there_and_back_with_their_buffers(attach: Attach):
    async with attach() as agent:
        await agent.send(Comm("comm_msg", {"comm_id": "1", "data": {}}, (b"\x00\xff",)))
        assert (await agent.run("1+1"))[-1]["status"] == "ok", "the connection lives"


async def test_a_touch_keeps_an_idle_session(here: Gateway, session: str, attach: Attach):
    live = here.manager.find("owner", session)
    async with attach() as agent:
        before = live.session.active_at
        await agent.ask(Touch("q"))
        assert live.session.active_at > before


# -- one cell, once -----------------------------------------------------------------------------------------


async def test_an_execute_that_is_sent_again_runs_once_and_says_where_to_read(attach: Attach):
    async with attach() as agent:
        first = await agent.run("n = globals().get('n', 0) + 1", id="once")
        await agent.send(Execute("once", "n = globals().get('n', 0) + 1"))
        reply = await agent.named("reply")
        assert (reply["was"], reply["accepted"]) == ("finished", first[0]["seq"])
        assert (await agent.run("n"))[-2]["data"] == {"text/plain": "1"}
        async with attach(since=reply["accepted"] - 1) as again:
            assert await again.end_of("once") == first
        await agent.send(Execute("once", "other code"))
        refused = await agent.until(lambda event: event["event"] == "error" and "re" in event)
        assert (refused["re"], refused["code"], refused["fault"]) == ("once", "id_taken", "yours")


# -- reading on ---------------------------------------------------------------------------------------------


async def test_who_comes_back_with_since_misses_nothing_and_sees_nothing_twice(attach: Attach):
    async with attach(client="me") as agent:
        await agent.execute("import time\nfor i in range(40): print(i, flush=True); time.sleep(0.01)", id="c1")
        seen = [await agent.until(lambda event: "seq" in event) for _ in range(8)]
        agent.websocket.transport.abort()
    async with attach(client="me", since=seen[-1]["seq"]) as agent:
        await agent.end_of("c1")
        seen += [event for event in agent.events if "seq" in event and event["event"] != "caught_up"]
    numbers = [event["seq"] for event in seen]
    assert numbers == sorted(set(numbers))
    assert text_of(seen) == "".join(f"{i}\n" for i in range(40))


async def test_without_since_a_client_reads_on_behind_what_it_acknowledged(attach: Attach):
    async with attach(client="me") as agent:
        await agent.run("print('one')", id="c1")
        await agent.send(Ack((await agent.run("print('two')", id="c2"))[0]["seq"]))
        await agent.ask(Touch("q"))
    async with attach(client="me") as agent:
        await agent.named("caught_up")
        assert {event.get("cell") for event in agent.events} == {None, "c2"}
        assert text_of(agent.events) == "two\n"


async def test_somebody_new_begins_with_the_running_cell(attach: Attach):
    async with attach(client="a") as first:
        await first.run("print('old')", id="c1")
        await first.execute("print('new', flush=True); input()", id="c2", stdin=True)
        await first.named("input_request")
        async with attach(client="b") as other:
            await other.named("caught_up")
            assert text_of(other.events) == "new\n"
            asked = [event["cell"] for event in other.events if event["event"] == "input_request"]
            assert asked == ["c2"], "anybody may answer"
            await other.send(Input("c2", "x"))
            await first.end_of("c2")


async def test_a_cursor_from_the_future_closes_and_one_within_does_not(here: Gateway, session: str, attach: Attach):
    end = here.manager.find("owner", session).journal.next_seq - 1
    async with attach(since=end + 1) as agent:
        assert await closed(agent.websocket) == (FUTURE_CURSOR, "future_cursor")
    async with attach(since=end) as agent:
        assert (await agent.named("caught_up"))["seq"] == end
        await agent.send(Ack(end + 1000))
        refused = await agent.named("error")
        assert (refused["code"], refused["facts"]) == ("future_cursor", {"sent": end})
        assert (await agent.run("1"))[-1]["status"] == "ok"


async def test_what_is_no_longer_kept_is_told_as_a_gap(tmp_path):
    async with gateway(tmp_path, journal_bytes_per_session="1M", output_bytes_per_cell="1M") as here:
        session = (await here.ask("POST", "/api/kernels")).json()["id"]
        async with attached(here.port, session, TOKEN) as agent:
            for _ in range(4):
                await agent.run("print('x' * 400_000)")
        async with attached(here.port, session, TOKEN, since=0) as agent:
            gap = await agent.named("gap")
            assert (gap["first"], gap["seq"], gap["count"]) == (1, gap["last"], gap["last"])
            assert (await agent.until(lambda event: "seq" in event))["seq"] > gap["last"]
            await agent.named("caught_up")


async def test_a_slow_reader_costs_no_memory_and_loses_nothing(here: Gateway, session: str, attach: Attach):
    live = here.manager.find("owner", session)
    async with attach(client="slow", max_queue=1) as slow, attach(client="fast") as fast:
        await slow.next()
        reader = live._audience._readers[b"slow"]
        for _ in range(10):
            await fast.run("for i in range(9): print('x' * 100_000)")
            assert reader._sink.buffered_bytes < live.session.limits.client_outbox_bytes + (1 << 20)
        last = (await fast.run("print('end')", id="last"))[-1]["seq"]
        async with attach(client="slow again", since=0) as again:
            assert text_of(await again.end_of("last")) == "end\n"
            assert again.events[-1]["seq"] == last


async def test_answers_that_nobody_takes_end_the_asking(here: Gateway, session: str, attach: Attach):
    """Ten thousand requests of one client that reads no answer lie in its own sockets, not in our memory."""
    live = here.manager.find("owner", session)
    async with attach(client="greedy", max_queue=1) as agent:
        await agent.next()
        reader = live._audience._readers[b"greedy"]

        async def flood() -> None:
            for number in range(20_000):
                await agent.send(Cancel(f"{number}" + "x" * 100, "y" * 100))

        flooding = asyncio.create_task(flood())
        try:
            await until(lambda: reader._sink.buffered_bytes > 0 or flooding.done())
            most = 0
            for _ in range(50):
                await asyncio.sleep(0.005)
                most = max(most, reader._sink.buffered_bytes)
            assert most < live.session.limits.client_outbox_bytes + (256 << 10)
        finally:
            flooding.cancel()


async def test_as_many_questions_as_wait_are_heard_and_no_more(here: Gateway, session: str, attach: Attach):
    live = here.manager.find("owner", session)
    async with attach() as agent:
        await agent.execute("import time; time.sleep(0.5)", id="c1")
        await agent.named("started")
        for number in range(MAX_ANSWERS + 20):
            await agent.send(IsComplete(f"q{number}", "1"))
        await until(lambda: len(live._questions._waiting) == MAX_ANSWERS)
        answered: set[str] = set()
        while len(answered) < MAX_ANSWERS + 20:
            event = await agent.next()
            answered |= {event["re"]} if "re" in event else set()


# -- who it is ----------------------------------------------------------------------------------------------


async def test_the_newer_connection_of_a_client_takes_the_place_of_the_older(attach: Attach):
    async with attach(client="me") as former, attach(client="me") as newer:
        assert await closed(former.websocket) == (4002, "replaced")
        assert text_of(await newer.run("print(1)")) == "1\n"


async def test_an_observer_sees_everything_and_changes_nothing(here: Gateway, attach: Attach):
    async with attach() as driver, attach(role="observer") as observer:
        assert (await observer.next())["role"] == "observer"
        driving = (Execute("c", "1"), Interrupt("i"), Restart("r"), Complete("q", "x", 1), Touch("t"), Cancel("k", "c"))
        for asked in driving:
            assert (await observer.ask(asked))["code"] == "observer"
        await driver.run("print(1)", id="c1")
        assert text_of(await observer.end_of("c1")) == "1\n"
        await observer.send(Ack(observer.events[-1]["seq"]))
        await observer.send(Ack(1 << 50))
        assert (await observer.named("error"))["code"] == "future_cursor"


async def test_a_token_that_may_only_look_makes_an_observer(here: Gateway, session: str):
    token = here.token("owner", Scope.OBSERVE)
    async with attached(here.port, session, token) as agent:
        assert (await agent.next())["role"] == "observer"
    with pytest.raises(InvalidStatus) as raised:
        async with attached(here.port, session, token, role="driver"):
            pass
    assert raised.value.response.status_code == 403


async def test_who_may_only_look_takes_nobodys_connection_place_or_room(here: Gateway, session: str, attach: Attach):
    """By the name of a driver, which all events tell, whoever had a link to watch ended its connection, and said what
    it had seen; by many names it left no room for others, and their places were forgotten."""
    token = here.token("owner", Scope.OBSERVE)
    live = here.manager.find("owner", session)
    async with attach(client="me") as driver:
        seen = (await driver.run("print(1)"))[1]["seq"]
        await driver.send(Ack(seen))
        await until(lambda: live._audience._cursors.find(b"me") == (seen + 1, seen + 1))
        async with AsyncExitStack() as stack:
            watchers = [attach(token, client=name, since=0) for name in ("me", "a", "b")]
            first, *_ = [await stack.enter_async_context(watcher) for watcher in watchers]
            await first.named("finished")
            await first.send(Ack(first.events[-1]["seq"]))
            async with attach(token, client="c") as one_more:
                assert await closed(one_more.websocket) == (1013, "too_many_clients")
            await stack.enter_async_context(attach(client="another"))
            assert text_of(await driver.run("print(2)")) == "2\n"
    for number in range(SLOTS):
        async with attach(token, client=f"w{number}") as watcher:
            await watcher.next()
    assert live._audience._cursors.find(b"me") == (seen + 1, seen + 1)


async def test_a_foreign_session_and_none_are_the_same_404(here: Gateway, session: str):
    bodies = []
    for session_id, token in ((session, here.token("eve")), ("00000000-0000-4000-8000-000000000000", TOKEN)):
        with pytest.raises(InvalidStatus) as raised:
            async with attached(here.port, session_id, token):
                pass
        assert raised.value.response.status_code == 404
        bodies.append(bytes(raised.value.response.body or b"").replace(session_id.encode(), b"ID"))
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"since": "-1"}, 422),
        ({"since": "x"}, 422),
        ({"since": "1e9"}, 422),
        ({"since": "9" * 19}, 422),
        ({"since": "٣"}, 422),
        ({"client": "x" * (MAX_CLIENT_CHARS + 1)}, 422),
        ({"client": "a\nb"}, 422),
        ({"role": "owner"}, 422),
    ],
)
async def test_a_query_that_makes_no_sense_is_told_before_the_handshake(attach: Attach, query: dict, status: int):
    with pytest.raises(InvalidStatus) as raised:
        async with attach(**query):
            pass
    assert raised.value.response.status_code == status


@pytest.mark.parametrize("offered", [None, ["v1.kernel.websocket.jupyter.org"]], ids=["nothing", "another"])
async def test_without_a_subprotocol_the_error_names_both(here: Gateway, session: str, offered: list[str] | None):
    names = None if offered is None else [Subprotocol(name) for name in offered]
    with pytest.raises(InvalidStatus) as raised:
        async with connect(agent_url(here.port, session, TOKEN), subprotocols=names):
            pass
    assert raised.value.response.status_code == 400
    assert all(form.value in str(raised.value.response.body) for form in Form)


async def test_one_client_too_many_is_to_come_again_later(attach: Attach):
    async with attach(client="a"), attach(client="b"), attach(client="c"), attach(client="d") as one_more:
        assert await closed(one_more.websocket) == (TRY_AGAIN_LATER, "too_many_clients")


# -- what is refused ----------------------------------------------------------------------------------------

NO_MESSAGES: dict[str, tuple[Form, bytes | str]] = {
    "too_large": (Form.JSON, "x" * ((1 << 20) + 1)),
    "text_frame": (Form.MSGPACK, "{}"),
    "binary_frame": (Form.JSON, b"\x80"),
    "bad_message": (Form.MSGPACK, b"\xc1"),
}


@pytest.mark.parametrize("code", CLOSED_FOR)
async def test_what_is_no_message_closes_with_its_code_and_the_session_goes_on(attach: Attach, code: str):
    form, data = NO_MESSAGES[code]
    async with attach(form=form) as agent:
        await agent.run("kept = 1")
        await agent.websocket.send(data)
        number, reason = await closed(agent.websocket)
    assert number == CLOSED_FOR[code][0]
    assert reason == code or code == "too_large", "a frame that is too large is not read at all"
    async with attach() as agent:
        assert (await agent.run("kept"))[-2]["data"] == {"text/plain": "1"}


@FORMS
@pytest.mark.parametrize(
    "message",
    [
        {},
        {"op": None},
        {"op": "execute"},
        {"op": "execute", "id": [], "code": {}},
        {"op": "ack", "seq": -1},
        {"op": "x" * 9999},
    ],
    ids=["nothing", "null", "little", "wrong types", "negative", "long"],
)
async def test_a_request_that_makes_no_sense_is_refused_and_the_connection_stays(
    attach: Attach, form: Form, message: dict
):
    async with attach(form=form) as agent:
        await agent.send(message)
        refused = await agent.named("error")
        assert refused["code"] in ("unknown_op", "bad_field")
        assert refused.keys() == {"event", "re", "code", "message", "fault", "facts"}
        assert (await agent.run("1"))[-1]["status"] == "ok"


async def test_a_cell_that_is_not_accepted_is_refused_by_name(here: Gateway, session: str, attach: Attach):
    live = here.manager.find("owner", session)
    async with attach() as agent:
        refused = await agent.ask(Execute("big", "#" * (live.session.limits.code_bytes + 1)))
        assert (refused["code"], refused["re"]) == ("policy_denied", "big")
        live.session.is_degraded = True
        refused = await agent.ask(Execute("c1", "1"))
        assert (refused["code"], refused["fault"]) == ("backend_error", "ours")
        live.session.is_degraded = False
        assert (await agent.run("1", id="c1"))[-1]["status"] == "ok", "the same id may be tried again"


async def test_a_fault_of_ours_is_an_answer_without_detail(here: Gateway, session: str, attach: Attach, monkeypatch):
    live = here.manager.find("owner", session)

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(live, "restart", fail)
    async with attach() as agent:
        refused = await agent.ask(Restart("r"))
        assert (refused["code"], refused["fault"]) == ("internal", "ours")
        assert "secret" not in str(refused)


async def test_a_kernel_that_ends_answers_what_it_was_asked(here: Gateway, session: str, attach: Attach):
    async with attach() as agent:
        await agent.execute("import time, os; time.sleep(0.3); os._exit(3)", id="c1")
        await agent.named("started")
        await agent.send(IsComplete("q", "1"))
        end = (await agent.end_of("c1"))[-1]
        assert (end["status"], end["reason"]) == ("error", "kernel_exit")
        state = await agent.named("state") if agent.events[-1]["event"] != "state" else agent.events[-1]
        assert (state["state"], state["incarnation"]) == ("restarting", 2)
        answer = await agent.until(lambda event: event.get("re") == "q")
        assert answer["event"] in ("reply", "error"), "it waited in the session, and the next kernel was asked"


async def test_the_end_of_a_session_is_told_and_then_closes(here: Gateway, session: str, attach: Attach):
    async with attach() as agent:
        await agent.execute("while True: pass", id="c1")
        await agent.named("started")
        assert (await here.ask("DELETE", f"/api/kernels/{session}")).status == 204
        assert (await agent.end_of("c1"))[-1]["reason"] == "session_deleted"
        assert (await agent.named("state"))["state"] == "gone"
        assert await closed(agent.websocket) == (4001, "session_over")


async def test_limits_of_a_cell_are_heeded(attach: Attach):
    async with attach() as agent:
        end = (await agent.run("while True: pass", timeout=0.2))[-1]
        assert (end["status"], end["reason"]) == ("error", "timeout_wall")
        events = await agent.run("for i in range(100): print(i, flush=True)", limits={"output_messages_per_cell": 12})
        missing = events[-1]["truncated"]["messages"]
        notice = next(event for event in events if event["event"] == "notice")
        assert (notice["note"], notice["facts"]["dropped_messages_in_all"]) == ("output_truncated", missing)
        assert missing > 0
