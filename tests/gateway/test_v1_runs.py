"""One-shots, scripts and batches over REST."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from cellgate.errors import SandboxStartFailed
from cellgate.gateway.bodies import MAX_VALUES
from cellgate.live import oneshots
from tests.support.drivers import open_driver
from tests.support.gateway import TOKEN, gateway
from tests.support.server import until
from tests.support.sse import streamed

ADD = '"""Adds."""\ndef calculate(inputs):\n    print("adding")\n    return inputs["a"] + inputs["b"]'


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def run(here, code, **options):
    return await here.ask("POST", "/v1/run", {"code": code, **options})


async def batch(here, **asked):
    return await here.ask("POST", "/v1/batch", asked)


# -- one ------------------------------------------------------------------------------------------------


async def test_code_is_run_and_nothing_is_left_of_its_session(here):
    said = (await run(here, "print('a')\n6 * 7")).json()
    assert (said["status"], said["stdout"], said["result"]) == ("ok", "a\n", {"text/plain": "42"})
    assert (said["value"], said["files"], said["is_cached"]) == (None, {}, False)
    assert here.manager.sessions("owner") == []


async def test_inputs_go_into_calculate_and_its_value_comes_back(here):
    said = (await run(here, ADD, inputs={"a": 1, "b": 2})).json()
    assert (said["value"], said["stdout"], said["outputs"]) == (3, "adding\n", [])
    assert (await run(here, "def calculate(inputs): return inputs", inputs=None)).json()["value"] is None
    assert (await run(here, "1", inputs=[])).json()["error"]["name"] == "NameError"


async def test_files_go_in_and_come_out(tmp_path):
    driver = await open_driver("process")

    async def open_it():
        return driver

    async with gateway(tmp_path, open_driver=open_it) as here:
        files = {"a.txt": {"text": "ä"}, "d/b.bin": {"base64": base64.b64encode(b"\xff\x00").decode()}}
        both = "open('both', 'wb').write(open('d/b.bin', 'rb').read() + open('a.txt', 'rb').read())"
        code = f"{both}\nopen('t', 'w').write('x')"
        said = (await run(here, code, files=files, fetch=["both", "t", "none"])).json()
    assert said["status"] == "ok", said
    assert base64.b64decode(said["files"]["both"]["base64"]) == b"\xff\x00" + "ä".encode()
    assert said["files"]["t"] == {"text": "x"}
    assert said["files"]["none"]["error"]["code"] == "no_such_file"


async def test_a_one_shot_may_have_an_environment_and_limits_of_its_own(here):
    assert (await run(here, "1", env={"API_KEY": "x"}, limits={"pids": 32}, profile="testing")).json()["status"] == "ok"
    assert (await run(here, "1", limits={"pids": 10**6})).code == "bad_limit"
    assert (await run(here, "while True: pass", timeout=0.3)).json()["reason"] == "timeout_wall"


async def test_the_same_again_is_taken_from_the_cache_only_where_that_is_asked_for(here):
    code = "import uuid\nprint(uuid.uuid4())"
    replies = [(await run(here, code, cache=True)).json() for _ in range(2)]
    assert [said["is_cached"] for said in replies] == [False, True]
    assert replies[0]["stdout"] == replies[1]["stdout"]
    assert (await run(here, code)).json()["stdout"] != replies[0]["stdout"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": 7},
        {"code": "1", "what": 1},
        {"code": "1", "name": "a"},
        {"code": "1", "idempotency_key": "a"},
        {"code": "1", "timeout": 0},
        {"code": "1", "timeout": True},
        {"code": "1", "timeout": 1e9},
        {"code": "1", "cache": "yes"},
        {"code": "1", "fetch": "a"},
        {"code": "1", "fetch": [1]},
        {"code": "1", "fetch": ["a"] * 65},
        {"code": "1", "files": ["a"]},
        {"code": "1", "files": {"a": "text"}},
        {"code": "1", "files": {"a": {"text": 1}}},
        {"code": "1", "files": {"a": {"base64": "!"}}},
        {"code": "1", "files": {"a": {"text": "x", "base64": ""}}},
        {"code": "1", "requirements": ["no-such-thing"]},
        {"code": "1", "requirements": [7]},
        {"code": "1", "requirements": "numpy"},
        {"code": "1", "env": {"LD_PRELOAD": "x"}},
    ],
    ids=lambda body: repr(body)[:50],
)
async def test_what_cannot_be_run_is_refused_with_what_would_pass(here, body):
    reply = await here.ask("POST", "/v1/run", body)
    assert (reply.status, reply.code) == (422, "usage")
    assert "would pass" in reply.json()["message"]
    assert here.manager.sessions("owner") == []


async def test_more_values_than_are_read_are_refused(here):
    reply = await run(here, "1", inputs=[0] * (MAX_VALUES + 1))
    assert (reply.status, reply.code) == (400, "bad_json")
    assert (
        await run(here, f"x = {[0] * MAX_VALUES}\nlen(x)", inputs=None)
    ).status == 200  # commas in code are no values


async def test_a_text_may_stand_for_the_outputs_beside_the_value(here):
    said = (await here.ask("POST", "/v1/run?render=text", {"code": ADD, "inputs": {"a": 1, "b": 2}})).json()
    assert said.keys() == {"cell", "status", "reason", "seq", "text", "value", "files", "is_cached"}
    assert (said["text"].strip(), said["value"]) == ("adding", 3)


async def test_whoever_hangs_up_ends_it(here):
    body = json.dumps({"code": "import time\ntime.sleep(60)"})
    _, writer = await asyncio.open_connection("127.0.0.1", here.port)
    head = f"Host: x\r\nAuthorization: token {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(f"POST /v1/run HTTP/1.1\r\n{head}{body}".encode())
    await until(lambda: any(live.session.running for live in here.manager.sessions("owner")))
    writer.transport.abort()
    await until(lambda: here.manager.sessions("owner") == [])
    async with streamed(
        here, "POST", "/v1/run", {"code": "import time\nprint(1, flush=True)\ntime.sleep(60)"}
    ) as events:
        while (await events.next())["event"] != "stdout":
            pass
    await until(lambda: here.manager.sessions("owner") == [])


async def test_it_is_streamed_with_its_answer_at_the_end(here):
    async with streamed(here, "POST", "/v1/run", {"code": ADD, "inputs": {"a": 1, "b": 2}}) as events:
        told = await events.rest()
    assert [event["text"] for event in told if event["event"] == "stdout"] == ["adding\n"]
    assert told[-1]["event"] == "answer"
    assert told[-1]["answer"]["value"] == 3
    assert not any("seq" in event for event in told)


async def test_what_goes_wrong_in_a_stream_is_told_there(tmp_path, monkeypatch):
    monkeypatch.setattr(oneshots, "ROOM_SECONDS", 0.0)
    async with gateway(tmp_path, sessions_total="1", sessions_per_principal="1") as here:
        await here.ask("POST", "/v1/sessions", {})
        async with streamed(here, "POST", "/v1/run", {"code": "1"}) as events:
            [problem] = await events.rest()
        assert (problem["event"], problem["code"], problem["fault"]) == ("problem", "server_full", "ours")


async def test_a_fault_of_ours_in_a_stream_shows_no_detail(here, monkeypatch, caplog):
    async def fail(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(here.manager.oneshots, "run", fail)
    async with streamed(here, "POST", "/v1/run", {"code": "1"}) as events:
        [problem] = await events.rest()
    assert problem["code"] == "internal"
    assert "secret" not in json.dumps(problem)
    assert "secret" in caplog.text


# -- scripts -------------------------------------------------------------------------------------------


async def test_a_script_is_run_in_its_newest_version_or_another(here):
    for code in ("def calculate(inputs): return inputs", "def calculate(inputs): return -inputs"):
        await here.ask("POST", "/v1/scripts", {"name": "daily", "code": code})
    path = "/v1/scripts/daily/run"
    assert (await here.ask("POST", path, {"inputs": 3})).json()["value"] == -3
    assert (await here.ask("POST", path, {"inputs": 3, "version": 1})).json()["value"] == 3
    assert (await here.ask("POST", path)).json()["status"] == "ok"
    assert (await here.ask("POST", path, {"version": 9})).code == "unknown_script"
    for body in ({"version": 0}, {"version": "1"}, {"code": "1"}, {"kernel": "python3"}):
        assert (await here.ask("POST", path, body)).code == "usage"


# -- many ----------------------------------------------------------------------------------------------


async def test_cells_of_a_batch_run_one_after_the_other_in_one_session(here):
    said = (await batch(here, cells=[{"code": "x = 1"}, {"code": "print(x)"}, {"code": "x + 1"}])).json()
    assert (said["done"], said["failed"], said["is_complete"]) == (3, 0, True)
    assert said["items"][1]["stdout"] == "1\n"
    assert said["items"][2]["result"] == {"text/plain": "2"}
    assert here.manager.sessions("owner") == []


async def test_a_batch_may_run_in_a_session_that_is_there(here):
    session = (await here.ask("POST", "/v1/sessions", {})).json()["id"]
    cells = [{"code": "x = 7", "id": "a"}, {"code": "x", "id": "b"}]
    first = (await batch(here, session=session, cells=cells)).json()
    assert first["items"][1]["result"] == {"text/plain": "7"}
    assert (await batch(here, session=session, cells=cells)).json() == first  # the same ids are the same cells
    assert len(here.manager.sessions("owner")) == 1
    assert (await batch(here, session="none", cells=cells)).code == "unknown_session"


@pytest.mark.parametrize("kind", ["cells", "runs"])
async def test_a_batch_stops_at_an_error_or_goes_on(here, kind, monkeypatch):
    monkeypatch.setattr("cellgate.gateway.v1.runs.AT_ONCE", 1)
    items = [{"code": code} for code in ("1", "1 / 0", "print(3)")]
    stopped = (await batch(here, **{kind: items})).json()
    assert (stopped["done"], stopped["failed"], stopped["is_complete"]) == (2, 1, False)
    assert stopped["items"][2] is None
    whole = (await batch(here, on_error="continue", **{kind: items})).json()
    assert (whole["done"], whole["failed"], whole["is_complete"]) == (3, 1, True)
    assert whole["items"][2]["stdout"] == "3\n"


async def test_one_shots_of_a_batch_are_on_their_own(here):
    runs = [{"code": ADD, "inputs": {"a": n, "b": n}} for n in range(10)]
    said = (await batch(here, runs=runs)).json()
    assert [item["value"] for item in said["items"]] == [2 * n for n in range(10)]
    apart = (await batch(here, runs=[{"code": "x = 1"}, {"code": "x"}], on_error="continue")).json()
    assert apart["failed"] == 1


async def test_an_item_that_cannot_be_run_is_told_in_its_place(here):
    runs = [{"code": "1", "requirements": ["no-such-thing"]}, {"code": "print(2)"}]
    said = (await batch(here, runs=runs, on_error="continue")).json()
    assert said["items"][0]["problem"]["code"] == "usage"
    assert said["items"][1]["stdout"] == "2\n"


async def test_a_fault_of_ours_in_a_batch_is_in_the_log_under_the_id_that_is_told(here, monkeypatch, caplog):
    """The answer named no id, and what kept the sandbox from its start was told to nobody."""

    async def failing(*_):
        raise SandboxStartFailed("fake", "fork", "the details")

    monkeypatch.setattr(here.manager.oneshots, "run", failing)
    [item] = (await batch(here, runs=[{"code": "1"}])).json()["items"]
    error_id = item["problem"]["message"].rpartition(" ")[2]
    [line] = [record.getMessage() for record in caplog.records if record.name == "cellgate.gateway"]
    assert item["problem"]["code"] == "sandbox_start_failed" and "the details" not in str(item)
    assert line.startswith(f"error {error_id}: ") and "the details" in line


async def test_the_progress_of_a_batch_is_streamed(here):
    async with streamed(here, "POST", "/v1/batch", {"cells": [{"code": f"print({n})"} for n in range(3)]}) as events:
        told = await events.rest()
    assert [event["done"] for event in told if event["event"] == "progress"] == [1, 2, 3]
    assert [event["index"] for event in told if event["event"] == "item"] == [0, 1, 2]
    assert [event["text"] for event in told if event["event"] == "stdout"] == ["0\n", "1\n", "2\n"]
    assert (told[-1]["event"], told[-1]["answer"]["is_complete"]) == ("answer", True)


async def test_each_item_has_its_part_of_the_answer(here, monkeypatch):
    monkeypatch.setattr("cellgate.gateway.v1.runs.MAX_RESULT_BYTES", 64 << 10)
    flood = {"code": "for n in range(2000): print('x' * 100)"}
    for kind in ("cells", "runs"):
        reply = await batch(here, **{kind: [flood] * 4})
        assert len(reply.body) < 90_000
        assert all(item["truncated"]["bytes"] > 100_000 for item in reply.json()["items"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"runs": []},
        {"runs": [{"code": "1"}], "cells": [{"code": "1"}]},
        {"runs": [{}]},
        {"runs": ["1"]},
        {"runs": [{"code": "1"}] * 1001},
        {"cells": {"code": "1"}},
        {"cells": [{"code": "1", "what": 1}]},
        {"cells": [{"code": "1", "id": "a"}, {"code": "2", "id": "a"}]},
        {"cells": [{"code": "1"}], "on_error": "ignore"},
        {"cells": [{"code": "1"}], "session": "a", "kernel": "python3"},
        {"runs": [{"code": "1"}], "session": "a"},
        {"runs": [{"code": "1"}], "kernel": "python3"},
        {"cells": [{"code": "1"}], "what": 1},
    ],
    ids=lambda body: repr(body)[:60],
)
async def test_a_batch_that_makes_no_sense_is_refused_before_anything_runs(here, body):
    reply = await here.ask("POST", "/v1/batch", body)
    assert (reply.status, reply.code) == (422, "usage")
    assert "would pass" in reply.json()["message"]
    assert here.manager.sessions("owner") == []


async def test_fifty_one_shots_at_once_over_http_are_all_answered(tmp_path):
    """On a server that may have three sessions: those that find it full wait."""
    async with gateway(tmp_path, sessions_per_principal="3") as here:
        replies = await asyncio.gather(*(run(here, f"print({number})") for number in range(50)))
    assert [reply.json()["stdout"] for reply in replies] == [f"{number}\n" for number in range(50)]
