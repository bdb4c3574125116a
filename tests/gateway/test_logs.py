"""The log as text for people and as objects for programs; neither tells a token."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from cellgate.serve.logs import FORMATS, JsonFormatter
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
