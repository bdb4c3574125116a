"""Scripts over REST: kept, listed, compared, taken away."""

from __future__ import annotations

import pytest

from cellgate.live.scripts import MAX_CODE_BYTES
from tests.support.gateway import gateway


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def save(here, code, name="daily", **more):
    return await here.ask("POST", "/v1/scripts", {"name": name, "code": code, **more})


async def test_a_script_is_kept_with_its_history(here):
    first = await save(here, '"""Adds."""\n1 + 1\n')
    assert (first.status, first.headers["Location"]) == (201, "/v1/scripts/daily")
    assert {name: first.json()[name] for name in ("version", "kernel", "description")} == {
        "version": 1,
        "kernel": "python3",
        "description": "Adds.",
    }
    assert (await save(here, '"""Adds."""\n1 + 1\n')).status == 200
    assert (await save(here, '"""Adds."""\n1 + 2\n')).json()["version"] == 2
    [listed] = (await here.ask("GET", "/v1/scripts")).json()["scripts"]
    assert (listed["name"], listed["version"], "code" in listed) == ("daily", 2, False)
    assert (await here.ask("GET", "/v1/scripts/daily")).json()["code"].endswith("1 + 2\n")
    assert (await here.ask("GET", "/v1/scripts/daily?version=1")).json()["code"].endswith("1 + 1\n")
    versions = (await here.ask("GET", "/v1/scripts/daily/versions")).json()["versions"]
    assert [one["version"] for one in versions] == [2, 1]
    diff = (await here.ask("GET", "/v1/scripts/daily/diff")).json()
    assert (diff["from"], diff["to"]) == (1, 2)
    assert diff["diff"].splitlines()[-2:] == ["-1 + 1", "+1 + 2"]
    assert (await here.ask("GET", "/v1/scripts/daily/diff?from=2&to=2")).json()["diff"] == ""
    assert (await here.ask("DELETE", "/v1/scripts/daily")).status == 204
    assert (await here.ask("GET", "/v1/scripts")).json() == {"scripts": []}


@pytest.mark.parametrize("path", ["", "?version=7", "/versions", "/diff", "/diff?from=7"])
async def test_what_is_not_there_is_not_found(here, path):
    if "7" in path:
        await save(here, "1")
    reply = await here.ask("GET", f"/v1/scripts/daily{path}")
    assert (reply.status, reply.code) == (404, "unknown_script")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "a"},
        {"name": "a", "code": 7},
        {"name": "a", "code": None},
        {"name": "", "code": "1"},
        {"name": "../a", "code": "1"},
        {"name": ".a", "code": "1"},
        {"name": "-a", "code": "1"},
        {"name": "a b", "code": "1"},
        {"name": "a" * 101, "code": "1"},
        {"name": "a", "code": "x" * (MAX_CODE_BYTES + 1)},
        {"name": "a", "code": "\ud800"},
        {"name": "a", "code": "1", "what": 1},
    ],
    ids=lambda body: repr(body)[:40],
)
async def test_what_cannot_be_kept_is_refused_with_what_would_pass(here, body):
    reply = await here.ask("POST", "/v1/scripts", body)
    assert (reply.status, reply.code) == (422, "usage")
    assert "would pass" in reply.json()["message"]


@pytest.mark.parametrize("query", ["?version=0", "?version=x", "?version=-1", "?version=1e3", "?what=1"])
async def test_a_version_is_a_number(here, query):
    assert (await here.ask("GET", f"/v1/scripts/daily{query}")).code == "usage"


async def test_a_kernel_that_is_none_is_not_found(here):
    assert (await save(here, "1", language="cobol")).code == "unknown_kernel"


async def test_somebody_elses_scripts_are_not_found(here):
    here.manager.scripts.save("somebody else", "daily", "1", kernel="python3", now=0.0)
    for method in ("GET", "DELETE"):
        assert (await here.ask(method, "/v1/scripts/daily")).code == "unknown_script"


async def test_a_version_has_no_fraction(here):
    await save(here, "1")
    said = await here.ask("POST", "/v1/scripts/daily/run", {"version": 1.5})
    assert (said.status, said.code) == (422, "usage")
    assert "a whole number" in said.json()["message"]
