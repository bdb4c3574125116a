"""The log as text for people and as objects for programs; neither tells a token."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import copy_context

import pytest
import websockets

from cellgate.live.trail import REQUEST_ID, begin, request_id
from cellgate.serve.logs import FORMATS, JsonFormatter, TextFormatter
from cellgate.settings import SETTINGS, read_settings
from tests.support.server import served, until


def formatted(**more) -> dict:
    record = logging.LogRecord("cellgate.live", logging.WARNING, "x.py", 1, "session %s: %s", ("s1", "a\nb"), None)
    vars(record).update(more)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


def test_an_object_says_when_where_how_bad_and_what():
    told = formatted()
    assert (told["level"], told["logger"], told["message"]) == ("warning", "cellgate.live", "session s1: a\nb")
    assert told["at"].endswith("Z")


def test_facts_stand_beside_and_replace_nothing():
    told = formatted(facts={"status": 200, "message": "another", "path": b"x"})
    assert (told["status"], told["message"], told["path"]) == (200, "session s1: a\nb", "b'x'")


def test_a_fault_brings_its_traceback():
    try:
        raise ValueError("here")
    except ValueError:
        assert "ValueError: here" in formatted(exc_info=sys.exc_info())["traceback"]


def test_a_line_about_a_session_says_which_and_one_for_a_request_for_which():
    def lines() -> tuple[dict, str]:
        begin("mine-1")
        record = logging.LogRecord("cellgate.live", logging.INFO, "x.py", 1, "it is so", (), None)
        return formatted(), TextFormatter().format(record)

    told, text = copy_context().run(lines)
    assert (told["session"], told["request"]) == ("s1", "mine-1")
    assert text == "cellgate: it is so [mine-1]"
    assert "request" not in formatted()


@pytest.mark.parametrize("chosen", [None, "", "a b", "x" * 65, "a\nb", "-a", "ä", "{}"])
def test_what_cannot_stand_in_a_log_is_no_id_of_a_request(chosen):
    def made() -> str:
        assert begin(chosen).id == request_id() != chosen
        return request_id()

    first, second = (copy_context().run(made) for _ in range(2))
    assert first != second and REQUEST_ID.fullmatch(first)


def test_what_outlives_a_request_is_not_done_for_it():
    def end() -> None:
        request = begin("mine-1")
        later = copy_context()
        assert later.run(request_id) == "mine-1"
        request.is_over = True
        assert later.run(request_id) == ""

    copy_context().run(end)


def test_the_setting_knows_the_formats_there_are():
    for name in FORMATS:
        assert read_settings(flags={"log_format": name}, environ={}, file={}).log_format == name
    with pytest.raises(ValueError):
        SETTINGS["log_format"].read("xml")


@pytest.mark.native
async def test_every_request_is_an_object_with_who_asked_and_without_the_token():
    async with served("--profile", "testing", "--log-format", "json") as server:
        await server.fetch("GET", f"/api/status?token={server.token}")
        await until(lambda: '"/api/status"' in server.log())
        rows = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
        [row] = [row for row in rows if row.get("path") == "/api/status"]
        assert (row["principal"], row["status"], row["logger"]) == ("owner", 200, "cellgate.access")
        assert server.token not in server.log()


@pytest.mark.native
async def test_a_request_is_found_by_its_id_in_the_answer_the_log_and_the_audit_log():
    async with served("--profile", "testing", "--log-format", "json") as server:

        def logged(**facts: object) -> list[dict]:
            rows = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
            return [row for row in rows if facts.items() <= row.items()]

        def audited(what: str) -> list[dict]:
            files = sorted((server.state_dir / "gateway" / "audit").glob("*.jsonl"))
            rows = [json.loads(line) for file in files for line in file.read_text().split("\n")[:-1]]
            return [row for row in rows if row["what"] == what]

        made = await server.fetch("POST", "/v1/sessions", {}, **{"X-Request-Id": "mine-1"})
        session_id = made.json()["id"]
        assert made.headers["X-Request-Id"] == "mine-1"
        ran = await server.fetch("POST", f"/v1/sessions/{session_id}/execute", {"code": "1"})
        refused = await server.fetch("GET", "/v1/sessions", Authorization="token wrong")
        ids = ["mine-1", ran.headers["X-Request-Id"], refused.headers["X-Request-Id"]]
        assert len(set(ids)) == 3
        await until(lambda: all(logged(request=one) for one in ids))
        assert logged(request=ids[1])[0]["session"] == session_id

        url, chosen = server.channels_url(session_id, "me"), {"X-Request-Id": "mine-2"}
        async with websockets.connect(url, additional_headers=chosen) as websocket:
            assert websocket.response is not None and websocket.response.headers["X-Request-Id"] == "mine-2"
            header = {"msg_id": "m1", "msg_type": "execute_request", "session": "me"}
            await websocket.send(json.dumps({"channel": "shell", "header": header, "content": {"code": "2"}}))
            await until(lambda: len(audited("cell_finished")) == 2)
        assert [row["request"] for row in audited("cell_accepted")] == [ids[1], "mine-2"]
        assert [row.get("request") for row in audited("session_created")] == ["mine-1"]
        assert [row.get("request") for row in audited("cell_finished")] == [None, None]
        assert [row["request"] for row in audited("token_refused")] == [ids[2]]
