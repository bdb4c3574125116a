"""Code run over REST: one answer with all that became of it, or its events as they come."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from cellgate.gateway.v1 import executes, streams
from tests.support.drivers import open_driver
from tests.support.gateway import TOKEN, gateway
from tests.support.server import until
from tests.support.sse import streamed

BOUND = 30.0


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


@pytest.fixture
async def path(here):
    reply = await here.ask("POST", "/v1/sessions", {})
    return f"/v1/sessions/{reply.json()['id']}"


async def execute(here, path, code, **options):
    return await here.ask("POST", f"{path}/execute", {"code": code, **options})


# -- one answer ----------------------------------------------------------------------------------------


async def test_the_answer_has_all_that_became_of_the_code(here, path):
    reply = await execute(here, path, "print('a')\n6 * 7", id="mine")
    said = reply.json()
    assert reply.status == 200
    assert (said["cell"], said["status"], said["reason"]) == ("mine", "ok", "ok")
    assert (said["stdout"], said["stderr"], said["result"]) == ("a\n", "", {"text/plain": "42"})
    assert said["outputs"] == [{"data": {"text/plain": "42"}, "metadata": {}}]
    assert (said["error"], said["truncated"], said["notices"]) == (None, None, [])
    assert said["seq"] > 0


async def test_who_reads_events_keeps_nobody_from_running_code(tmp_path):
    """Whoever may only look could hold all connections that a session may have."""
    async with gateway(tmp_path, clients_per_session="1") as here:
        path = f"/v1/sessions/{(await here.ask('POST', '/v1/sessions', {})).json()['id']}"
        async with streamed(here, "GET", f"{path}/events?since=0") as events:
            await events.next()
            assert (await execute(here, path, "1 + 1")).json()["result"] == {"text/plain": "2"}
            assert (await here.ask("GET", f"{path}/events", headers={"Accept": "text/event-stream"})).status == 429


async def test_variables_live_on_and_an_error_is_an_answer_too(here, path):
    await execute(here, path, "x = 1")
    assert (await execute(here, path, "x")).json()["result"] == {"text/plain": "1"}
    failed = await execute(here, path, "1 / 0")
    assert (failed.status, failed.json()["status"], failed.json()["reason"]) == (200, "error", "error")
    assert failed.json()["error"]["name"] == "ZeroDivisionError"


async def test_code_that_is_not_taken_is_answered_with_the_reason(here, path):
    said = (await execute(here, path, "x" * 300_000)).json()
    assert (said["status"], said["reason"], said["stdout"]) == ("error", "policy_denied", "")
    assert "would pass" in said["sentence"]


async def test_output_beyond_what_an_answer_holds_is_cut_and_counted(here, path):
    said = (
        await execute(here, path, "for n in range(2000): print('x' * 100)", limits={"output_bytes_per_cell": 9000})
    ).json()
    assert said["status"] == "ok"
    assert len(said["stdout"]) < 9000
    assert said["truncated"]["bytes"] > 100_000


async def test_a_cell_is_ended_after_its_own_time(here, path):
    said = (await execute(here, path, "import time\nwhile True: time.sleep(0.01)", timeout=0.3)).json()
    assert said["reason"] == "timeout_wall"


async def test_asked_again_while_it_runs_it_runs_once(here, path):
    code = "import time\ntime.sleep(0.3)\nprint('once')"
    replies = await asyncio.gather(*(execute(here, path, code, id="again") for _ in range(3)))
    assert [reply.json()["stdout"] for reply in replies] == ["once\n"] * 3
    assert len({reply.json()["seq"] for reply in replies}) == 1


async def test_whoever_hangs_up_leaves_the_cell_running(here, path):
    live = here.manager.sessions("owner")[0]
    _, writer = await asyncio.open_connection("127.0.0.1", here.port)
    body = json.dumps({"code": "import time\ntime.sleep(0.2)\nx = 7"})
    head = f"Host: x\r\nAuthorization: token {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(f"POST {path}/execute HTTP/1.1\r\n{head}{body}".encode())
    await until(lambda: live.session.running is not None)
    writer.close()
    assert (await execute(here, path, "x")).json()["result"] == {"text/plain": "7"}
    await until(lambda: live.connections == 0)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": 7},
        {"code": None},
        {"code": "1", "what": 1},
        {"code": "1", "stdin": True},
        {"code": "1", "id": ""},
        {"code": "1", "id": "x" * 129},
        {"code": "1", "timeout": 0},
        {"code": "1", "timeout": -1},
        {"code": "1", "timeout": "1"},
        {"code": "1", "silent": 1},
        {"code": "1", "limits": {"pids": 1}},
        {"code": "1", "limits": {"output_bytes_per_cell": 0}},
        {"code": "1", "expressions": {"a": 1}},
        {"code": "1", "op": "restart"},
    ],
    ids=repr,
)
async def test_what_cannot_be_run_is_refused_with_what_would_pass(here, path, body):
    reply = await here.ask("POST", f"{path}/execute", body)
    assert (reply.status, reply.code) == (422, "usage")
    assert "would pass" in reply.json()["message"]


async def test_a_foreign_session_is_not_found(here):
    for path in ("execute", "events"):
        method = "POST" if path == "execute" else "GET"
        body = {"code": "1"} if path == "execute" else None
        assert (await here.ask(method, f"/v1/sessions/none/{path}", body)).code == "unknown_session"


async def test_a_text_for_a_language_model_may_stand_for_the_outputs(here, path):
    said = await here.ask("POST", f"{path}/execute?render=text", {"code": "print('a' * 40_000)\n1 / 0", "id": "c"})
    assert said.json().keys() == {"cell", "status", "reason", "seq", "text"}
    assert (said.json()["cell"], said.json()["status"]) == ("c", "error")
    assert len(said.json()["text"]) <= 12_000
    assert "ZeroDivisionError" in said.json()["text"]
    assert f"GET {path}/events?since=" in said.json()["text"]
    short = await here.ask("POST", f"{path}/execute?render=text&max_chars=200", {"code": "print('a' * 4000)"})
    assert len(short.json()["text"]) <= 200
    for query in ("?render=html", "?max_chars=1", "?render=text&max_chars=x", "?render=text&max_chars=10000000"):
        assert (await here.ask("POST", f"{path}/execute{query}", {"code": "1"})).code == "usage"


# -- variables -----------------------------------------------------------------------------------------


async def test_the_names_in_a_kernel_are_told_without_running_anything(tmp_path):
    driver = await open_driver("process")

    async def open_it():
        return driver

    async with gateway(tmp_path, open_driver=open_it) as here:
        path = f"/v1/sessions/{(await here.ask('POST', '/v1/sessions', {})).json()['id']}"
        await execute(here, path, "x = [1, 2]\ny = 'a'")
        said = (await here.ask("GET", f"{path}/variables")).json()
        assert [(one["name"], one["type"], one["size"]) for one in said["variables"]] == [
            ("x", "list", 2),
            ("y", "str", 1),
        ]
        assert said["more"] == 0
        [one] = (await here.ask("GET", f"{path}/variables?name=x")).json()["variables"]
        assert one["data"] == [1, 2]
        assert len((await here.ask("GET", f"{path}/variables?max=1")).json()["variables"]) == 1
        for query in ("?max=0", "?max=x", "?name=", "?what=1"):
            assert (await here.ask("GET", f"{path}/variables{query}")).code == "usage"


async def test_a_kernel_that_is_busy_for_long_is_not_waited_for(here, path, monkeypatch):
    monkeypatch.setattr(executes, "VARIABLES_SECONDS", 0.1)

    async def never(*_):
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(here.manager.sessions("owner")[0], "ask", never)
    assert (await here.ask("GET", f"{path}/variables")).code == "not_answered"


# -- events --------------------------------------------------------------------------------------------


async def test_a_cell_is_streamed_as_it_goes_and_the_stream_ends_with_it(here, path):
    code = "import time\nprint('a', flush=True)\ntime.sleep(0.3)\nprint('b', flush=True)"
    async with streamed(here, "POST", f"{path}/execute", {"code": code, "id": "c"}) as events:
        assert "200 OK" in events.head and "Content-Type: text/event-stream" in events.head
        told = await events.rest()
    kinds = [event["event"] for event in told]
    assert (kinds[0], kinds[1], kinds[-1]) == ("accepted", "started", "finished")
    assert "".join(event["text"] for event in told if event["event"] == "stdout") == "a\nb\n"
    assert {event["cell"] for event in told} == {"c"}
    await until(lambda: here.manager.sessions("owner")[0].connections == 0)


async def test_a_stream_that_broke_goes_on_behind_the_last_event(here, path):
    code = "import time\nfor n in range(20):\n    print(n, flush=True)\n    time.sleep(0.02)"
    body = {"code": code, "id": "c"}
    told, last = [], {}
    for _ in range(3):
        async with streamed(here, "POST", f"{path}/execute", body, **last) as events:
            told += [await events.next() for _ in range(4)]
        last = {"Last-Event-ID": str(told[-1]["seq"])}
    async with streamed(here, "POST", f"{path}/execute", body, **last) as events:
        told += await events.rest()
    assert "".join(event["text"] for event in told if event["event"] == "stdout") == "".join(
        f"{n}\n" for n in range(20)
    )
    assert [event["seq"] for event in told] == sorted({event["seq"] for event in told})
    assert [event["event"] for event in told].count("finished") == 1


async def test_a_cell_that_is_not_taken_is_told_in_the_stream(here, path):
    async with streamed(here, "POST", f"{path}/execute", {"code": "x" * 300_000}) as events:
        [refused] = await events.rest()
    assert (refused["event"], refused["code"]) == ("error", "policy_denied")


async def test_all_that_is_said_in_a_session_can_be_read_from_any_number_on(here, path):
    for number in range(3):
        await execute(here, path, f"print({number})")
    page = (await here.ask("GET", f"{path}/events")).json()
    assert [event["text"] for event in page["events"] if event["event"] == "stdout"] == ["0\n", "1\n", "2\n"]
    assert page["since"] == page["end"]
    assert (await here.ask("GET", f"{path}/events?since={page['end']}")).json()["events"] == []
    middle = page["events"][len(page["events"]) // 2]["seq"]
    rest = (await here.ask("GET", f"{path}/events?since={middle}")).json()["events"]
    assert rest == [event for event in page["events"] if event["seq"] > middle]


async def test_a_stream_of_a_session_has_what_was_and_what_comes_until_it_ends(here, path):
    await execute(here, path, "print('was')")
    async with streamed(here, "GET", f"{path}/events") as events:
        while (await events.next())["event"] != "finished":
            pass
        await execute(here, path, "print('comes')")
        while (event := await events.next())["event"] != "stdout":
            pass
        assert event["text"] == "comes\n"
        await here.ask("DELETE", path)
        last = await events.rest()
    assert [(event["event"], event.get("why")) for event in last][-1] == ("parted", "session_over")


async def test_a_silent_stream_is_kept_alive(here, path, monkeypatch):
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)
    end = (await here.ask("GET", f"{path}/events")).json()["end"]
    async with streamed(here, "GET", f"{path}/events?since={end}") as events:
        assert (await asyncio.wait_for(events.reader.readline(), BOUND)).startswith(b": ")
    await until(lambda: here.manager.sessions("owner")[0].connections == 0)


async def test_a_reader_that_is_slow_costs_no_more_than_any_client(here, path):
    live = here.manager.sessions("owner")[0]
    async with streamed(here, "GET", f"{path}/events") as events:
        await until(lambda: live.connections == 1)
        reader = next(iter(live._audience._readers.values()))
        most = 0
        for _ in range(12):
            await execute(here, path, "for _ in range(20): print('x' * 40_000)")
            most = max(most, reader._sink.buffered_bytes)
        assert most < live.session.limits.client_outbox_bytes + (2 << 20)
        told = []
        while sum(event["event"] == "finished" for event in told) < 12:
            told.append(await events.next())
    assert [event["seq"] for event in told] == sorted({event["seq"] for event in told})


async def test_whoever_takes_nothing_is_hung_up_on_in_the_end(here, path, monkeypatch):
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.2)
    live = here.manager.sessions("owner")[0]
    code = "for _ in range(15): print('x' * 60_000)"
    for _ in range(12):  # more than a socket's buffers hold
        await execute(here, path, code)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", here.port))
        head = f"Host: x\r\nAuthorization: token {TOKEN}\r\nAccept: text/event-stream\r\n\r\n"
        client.sendall(f"GET {path}/events HTTP/1.1\r\n{head}".encode())
        await until(lambda: live.connections == 1)
        await until(lambda: live.connections == 0)


async def test_a_look_at_the_events_head_ends(here, path):
    reply = await here.ask("HEAD", f"{path}/events", headers={"Accept": "text/event-stream"})
    assert reply.status == 200


@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?since=1.5", "?since=99999999", "?since=", "?what=1"])
async def test_a_number_that_nobody_has_seen_is_refused(here, path, query):
    for headers in ({}, {"Accept": "text/event-stream"}):
        reply = await here.ask("GET", f"{path}/events{query}", headers=headers)
        assert (reply.status, reply.code) == (422, "usage")
    for last in ("-1", "x", "99999999"):
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
        assert (await here.ask("GET", f"{path}/events", headers=headers)).code == "usage"
        assert (await here.ask("POST", f"{path}/execute", {"code": "1"}, headers=headers)).code == "usage"
