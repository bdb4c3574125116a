"""Sessions whose messages are judged, over every driver: order, denials, warnings, and whatever ends meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from contextvars import copy_context

import pytest
import pytest_asyncio

from cellgate.errors import LimitError, UsageError
from cellgate.live.gatekeeper import Gatekeeper
from cellgate.live.happenings import Happening, Happenings, VerdictGiven, Who
from cellgate.live.judging import Judges
from cellgate.live.trail import begin, request_id
from cellgate.live.wish import Wish
from cellgate.policy.policies import OFF, STANDARD, STRICT
from cellgate.policy.verdicts import Verdict
from cellgate.sessions.states import State
from cellgate_kernel.message import Channel
from tests.live.conftest import OpenManager
from tests.live.test_judging import workers
from tests.support.live import BOUND, OWNER, Client
from tests.support.stage import cell, client_message

STRICTLY = Wish(policy={"extends": "strict"})
SOME_BRACKETS = "[" * 101 + "]" * 101


@pytest_asyncio.fixture(loop_scope="session")
async def strict(manager) -> Client:
    return Client(await manager.create(OWNER, STRICTLY))


async def test_cells_are_judged_by_the_policy_of_the_server(manager):
    client = Client(await manager.create(OWNER, Wish()))
    assert (await client.run("1+1")).value == "2"
    denied = await client.run("open('/var/run/docker.sock')")
    assert (denied.status, denied.reason) == ("error", "policy_denied")
    assert denied.reply["metadata"]["cellgate"]["findings"][0]["rule"] == "host_door"
    assert denied.reply["metadata"]["cellgate"]["policy"] == "standard"
    assert (await client.run("2+2")).value == "4"


async def test_a_denied_cell_leaves_no_trace_in_the_kernel(strict):
    await strict.run("seen = 1")
    await strict.run("seen = 2; import socket")
    assert (await strict.run("seen")).value == "1"


async def test_a_policy_that_is_off_judges_nothing(open_one: OpenManager):
    client = Client(await (await open_one(policy="off")).create(OWNER, Wish()))
    before = workers()
    assert (await client.run("'/var/run/docker.sock'")).value == "'/var/run/docker.sock'"
    assert workers() == before


async def test_many_cells_run_in_the_order_they_came(strict):
    ids = [strict.ask(f"{number} + 0") for number in range(30)]
    outcomes = [await strict.outcome(msg_id) for msg_id in ids]
    assert [outcome.value for outcome in outcomes] == [str(number) for number in range(30)]
    results = [m["parent_id"] for m in strict.messages if m["msg_type"] == "execute_result"]
    assert results == ids


async def test_a_denied_cell_takes_along_what_was_sent_with_it_known_or_not(strict):
    for _ in range(2):  # the second time its verdict is known at once
        first, denied, behind = strict.ask("1"), strict.ask("import socket"), strict.ask("2")
        assert (await strict.outcome(first)).status == "ok"
        assert (await strict.outcome(denied)).reason == "policy_denied"
        assert (await strict.outcome(behind)).status == "aborted"
        assert (await strict.run("3")).value == "3"


async def test_warnings_are_told_once_beside_the_results(manager):
    client = Client(await manager.create(OWNER, Wish()))
    for expected in (1, 0):
        outcome = await client.run("import socket\ns = socket.socket\n1")
        assert outcome.value == "1"
        facts = [m["metadata"].get("cellgate", {}) for m in outcome.messages]
        notes = [fact for fact in facts if fact.get("note") == "policy_warnings"]
        assert len(notes) == expected
        assert {finding["rule"] for note in notes for finding in note["findings"]} <= {"network"}


@pytest.mark.parametrize(
    ("kind", "content", "channel", "told"),
    [
        ("complete_request", {"code": "import socket; s", "cursor_pos": 16}, Channel.SHELL, "complete_reply"),
        ("inspect_request", {"code": "import socket", "cursor_pos": 3}, Channel.SHELL, "inspect_reply"),
        ("debug_request", {"type": "request", "command": "initialize", "seq": 1}, Channel.CONTROL, "debug_reply"),
        ("comm_open", {"comm_id": "c", "target_name": "t", "data": {}}, Channel.SHELL, "comm_close"),
    ],
)
async def test_whatever_else_carries_code_is_judged_and_answered(strict, kind, content, channel, told):
    msg_id = strict.send_request(kind, content, channel)
    await strict.until(lambda: any(m["content"].get("execution_state") == "idle" for m in strict.of(msg_id)))
    (answer,) = [m for m in strict.of(msg_id) if m["msg_type"] == told]
    assert answer["metadata"]["cellgate"]["reason"] == "policy_denied"
    if told.endswith("_reply"):
        assert answer["content"]["status"] == "error"


async def test_expressions_are_judged_with_their_cell(strict):
    outcome = await strict.run("1", user_expressions={"x": "__import__('os')"})
    assert outcome.reason == "policy_denied"
    assert "user_expressions.x" in str(outcome.reply["metadata"]["cellgate"]["findings"])


async def test_messages_without_code_are_not_judged(strict):
    reply = (await strict.outcome(strict.send_request("kernel_info_request", {}))).reply
    assert reply["content"]["status"] == "ok"


@pytest.mark.parametrize(
    "code", ["'\0'", "'\ud800'", SOME_BRACKETS, "x" * 200_000], ids=["NUL", "half", "deep", "long"]
)
async def test_odd_text_has_an_answer_and_its_session_goes_on(strict, code):
    outcome = await strict.run(code)
    assert outcome.status in ("ok", "error")
    assert (await strict.run("1")).value == "1"


async def test_an_interrupt_overtakes_cells_that_are_judged(manager, strict):
    asked, may_answer = asyncio.Event(), asyncio.Event()
    judge = strict.live._gatekeeper._judges.judge_message

    async def slowly(*args, **kwargs):
        asked.set()
        await may_answer.wait()
        return await judge(*args, **kwargs)

    strict.live._gatekeeper._judges.judge_message = slowly
    waiting = strict.ask("7 * 6")
    await asyncio.wait_for(asked.wait(), BOUND)
    interrupt = await strict.outcome(strict.send_request("interrupt_request", {}, Channel.CONTROL))
    assert interrupt.status == "ok"
    assert not strict.is_over(waiting)
    may_answer.set()
    assert (await strict.outcome(waiting)).value == "42"
    strict.live._gatekeeper._judges.judge_message = judge


async def test_each_verdict_is_told_for_the_request_that_wanted_it(manager):
    """They are given by turns: the first brings the second about, which another has asked for."""
    live = await manager.create(OWNER, STRICTLY)
    told: list[str] = []

    def hear(happening: Happening) -> None:
        if isinstance(happening, VerdictGiven) and happening.who.session == live.id:
            told.append(request_id())

    manager.happenings.listen(hear)
    asked = []
    for name in ("first", "second"):
        context = copy_context()
        context.run(begin, name)
        client = context.run(Client, live, name.encode())
        asked.append((client, context.run(client.ask, f"import socket  # {name}", stop_on_error=False)))
    for client, msg_id in asked:
        assert (await client.outcome(msg_id)).reason == "policy_denied"
    assert told == ["first", "second"]


async def test_what_a_client_sent_before_it_left_is_judged_and_run(manager, strict):
    strict.ask("kept = 5")
    strict.leave(in_order=True)
    assert (await Client(strict.live, b"other").run("kept")).value == "5"


async def test_a_session_may_end_while_its_cells_are_judged(manager):
    live = await manager.create(OWNER, Wish(policy={"extends": "strict"}))
    client = Client(live)
    msg_id = client.ask("1 + 1 # not seen yet")
    await live.delete()
    await client.until(lambda: client.is_over(msg_id))
    assert live.session.state is State.GONE


async def test_a_killed_worker_denies_nobody(strict):
    for number in range(3):
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        assert (await strict.run(f"{number} + 1000")).value == str(number + 1000)


async def test_the_policy_of_a_session_outlives_its_gateway(open_one: OpenManager):
    manager = await open_one()
    live = await manager.create(OWNER, STRICTLY)
    assert (await Client(live).run("import socket")).reason == "policy_denied"
    await manager.close(end_sessions=False)
    heir = await open_one()
    if lives := heir.sessions(OWNER):  # of drivers that keep sandboxes
        assert (await Client(lives[0], b"b").run("import socket")).reason == "policy_denied"
        assert lives[0].wish.policy == {"extends": "strict"}


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"extends": "off"}, "tighter"),
        ({"warn": ["host"]}, "tighter"),
        ({"extends": "nonsense"}, "no policy"),
        ({"dney": ["network"]}, "did you mean"),
    ],
)
async def test_a_session_cannot_loosen_the_policy(manager, wish, error):
    with pytest.raises(UsageError, match=error):
        await manager.create(OWNER, Wish(policy=wish))
    assert manager.sessions(OWNER) == []


async def test_a_session_cannot_have_larger_cells(manager):
    with pytest.raises(LimitError, match="at most the server's own"):
        await manager.create(OWNER, Wish(policy={"limits": {"code_bytes": 2 << 20}}))


async def test_a_session_may_deny_more(manager):
    client = Client(await manager.create(OWNER, Wish(policy={"deny": ["network"]})))
    denied = await client.run("import socket")
    assert denied.reason == "policy_denied"
    assert denied.reply["metadata"]["cellgate"]["policy"] == "standard+session"


# -- the gatekeeper by itself ----------------------------------------------------------------------------


class Failing(Judges):
    async def judge_message(self, *args, **kwargs) -> Verdict:
        raise ZeroDivisionError


def gatekeeper(judges: Judges, policy, told: list[Happening]) -> Gatekeeper:
    happenings = Happenings()
    happenings.listen(told.append)
    return Gatekeeper(judges, policy, "python", Who("p", "s"), happenings)


async def test_a_fault_of_ours_lets_nothing_pass():
    told: list[Happening] = []
    judgement = await gatekeeper(Failing(), STANDARD, told).judge(cell("c1"))
    assert not isinstance(judgement, Verdict)
    assert told[0].denied_by == ("policy_error",)


async def test_verdicts_are_told_with_the_rules_that_denied():
    judges, told = Judges(), []
    keeper = gatekeeper(judges, STRICT, told)
    try:
        assert keeper.recall(cell("c1", "import socket")) is None
        await keeper.judge(cell("c1", "import socket"))
        assert keeper.recall(cell("c2", "import socket")) is None  # known, and denied: it takes the long way
        await keeper.judge(cell("c3", "1"))
        assert keeper.recall(cell("c3", "1")).allowed
    finally:
        await judges.close()
    assert [type(happening) for happening in told] == [VerdictGiven] * 3
    assert set(told[0].denied_by) >= {"module"}
    assert [happening.denied_by for happening in told[1:]] == [(), ()]


async def test_what_needs_no_reading_is_known_at_once():
    told: list[Happening] = []
    info = client_message("kernel_info_request", {}, "k1")
    assert gatekeeper(Judges(), STRICT, told).recall(info).allowed
    assert gatekeeper(Judges(), OFF, told).recall(cell("c1")).allowed
    assert told == []
