"""POST /v1/validate: what would be said of code as a cell, and what is not judged."""

from __future__ import annotations

import json

import pytest

from cellgate.gateway.v1.validate import MAX_CODE_BYTES
from cellgate.policy.facts import LANGUAGES
from cellgate.policy.judge import judge
from cellgate.policy.policies import STANDARD, STRICT
from tests.support.gateway import gateway

DOOR = "open('/var/run/docker.sock')"


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def validate(here, **fields):
    return await here.ask("POST", "/v1/validate", fields)


async def test_the_answer_is_the_verdict(here):
    reply = await validate(here, code=DOOR)
    assert reply.status == 200
    assert reply.json() == judge(DOOR, "python", STANDARD).to_json()
    assert not reply.json()["allowed"]


async def test_it_may_be_asked_by_a_tighter_policy(here):
    assert (await validate(here, code="import os")).json()["allowed"]
    strict = (await validate(here, code="import os", policy="strict")).json()
    assert strict == judge("import os", "python", STRICT).to_json()
    assert not (await validate(here, code="import os", policy={"deny_modules": ["os"]})).json()["allowed"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_language_is_judged(here, language):
    assert (await validate(here, code="x", language=language)).json()["policy"] == "standard"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "usage"),
        ({"code": 7}, "usage"),
        ({"code": "x", "language": "cobol"}, "usage"),
        ({"code": "x", "policy": "off"}, "usage"),
        ({"code": "x", "policy": "stict"}, "usage"),
        ({"code": "x", "policy": {"alow": ["network"]}}, "usage"),
        ({"code": "x", "policy": {"limits": {"nesting": 0}}}, "bad_limit"),
        ({"code": "x", "polcy": "strict"}, "usage"),
        ({"code": "x" * (MAX_CODE_BYTES + 1)}, "usage"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_what_would_pass(here, fields, code):
    reply = await validate(here, **fields)
    assert (reply.status, reply.code) == (422, code)
    assert (
        "would pass" in reply.json()["message"]
        or "did you mean" in reply.json()["message"]
        or ("tighter" in reply.json()["message"])
    )


async def test_odd_text_has_a_verdict(here):
    for code in ("\0", "(" * 100_000, "x = 1\n" * 30_000, "%time " * 1000):
        reply = await validate(here, code=code)
        assert reply.status == 200, reply.body
        assert json.loads(reply.body)["policy"] == "standard"


async def test_nobody_is_judged_who_is_not_let_in(here):
    assert (await here.ask("POST", "/v1/validate", {"code": "1"}, token="")).status in (401, 403)
