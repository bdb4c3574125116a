"""Sessions as agents make, find, change and end them, and what a server says of itself to them."""

from __future__ import annotations

import asyncio

import pytest

from cellgate.gateway.v1.wishes import FORBIDDEN_ENV
from cellgate.live.kernelspecs import Kernelspec
from cellgate.live.wish import Wish
from cellgate.settings import PROFILES
from tests.support.gateway import TOKEN, gateway
from tests.support.server import served


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def make(here, **wish):
    reply = await here.ask("POST", "/v1/sessions", wish)
    assert reply.status == 201, reply.body
    return reply.json()


async def test_a_session_is_made_looked_at_changed_and_ended(here):
    reply = await here.ask("POST", "/v1/sessions", {"name": "mine", "metadata": {"job": [7]}, "env": {"API_KEY": "x"}})
    made = reply.json()
    path = f"/v1/sessions/{made['id']}"
    assert (reply.status, reply.headers["Location"]) == (201, path)
    assert (made["name"], made["metadata"], made["env"]) == ("mine", {"job": [7]}, ["API_KEY"])
    assert (made["kernel"], made["language"], made["template"]) == ("python3", "python", "python")
    assert made["profile"] == "testing"
    assert made["limits"]["pids"] == 64
    await here.manager.find("owner", made["id"]).started()
    seen = (await here.ask("GET", path)).json()
    assert (seen["state"], seen["incarnation"], seen["queue"]) == ("ready", 1, {"running": None, "waiting": 0})
    assert (seen["expires"]["why"], seen["events"]["first"]) == ("idle", 1)
    assert seen["usage"]["pids"] == 1
    changed = await here.ask("PATCH", path, {"name": "yours", "limits": {"idle_seconds": 30}})
    assert (changed.status, changed.json()["name"], changed.json()["metadata"]) == (200, "yours", {"job": [7]})
    assert changed.json()["limits"]["idle_seconds"] == 30
    assert (await here.ask("DELETE", path)).status == 204
    assert (await here.ask("GET", path)).code == "unknown_session"


async def test_it_is_the_same_session_that_jupyter_clients_see(here):
    made = await make(here)
    [kernel] = (await here.ask("GET", "/api/kernels")).json()
    assert kernel["id"] == made["id"]


async def test_interrupt_says_nothing_and_restart_begins_another_incarnation(here):
    path = f"/v1/sessions/{(await make(here))['id']}"
    await here.manager.find("owner", path.rpartition("/")[2]).started()
    assert (await here.ask("POST", f"{path}/interrupt")).status == 204
    restarted = await here.ask("POST", f"{path}/restart")
    assert (restarted.status, restarted.json()["incarnation"]) == (200, 2)


async def test_a_list_can_be_narrowed(here):
    for name in ("a", "b", "b"):
        await make(here, name=name)
    for query, count in (("", 3), ("?name=b", 2), ("?name=none", 0), ("?kernel=python3&name=a", 1), ("?state=gone", 0)):
        reply = await here.ask("GET", f"/v1/sessions{query}")
        assert len(reply.json()["sessions"]) == count, query
    for query in ("?state=none", "?nme=a"):
        assert (await here.ask("GET", f"/v1/sessions{query}")).code == "usage"
    assert (await here.ask("GET", f"/v1/sessions?token={TOKEN}&name=a", token=None)).status == 200


async def test_of_requests_with_one_key_there_is_one_session(here):
    wishes = [here.ask("POST", "/v1/sessions", {"idempotency_key": "job 7"}) for _ in range(5)]
    replies = await asyncio.gather(*wishes)
    assert sorted(reply.status for reply in replies) == [200] * 4 + [201]
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert (await here.ask("POST", "/v1/sessions", {"idempotency_key": "job 8"})).status == 201


async def test_a_profile_lowers_limits_and_what_is_named_counts_before_it(tmp_path):
    async with gateway(tmp_path, profile="production") as here:
        made = await make(here, profile="testing", limits={"pids": 100})
        assert made["profile"] == "testing"
        assert (made["limits"]["cell_seconds"], made["limits"]["pids"]) == (10.0, 100)
        assert made["limits"]["lifetime_seconds"] == 600


async def test_a_kernel_is_chosen_by_language_or_template(here):
    here.manager.kernelspecs["bash"] = Kernelspec("bash", "Bash", "bash", "python", bridged="bash")
    assert (await make(here, language="Bash"))["kernel"] == "bash"
    assert (await make(here, language="python"))["kernel"] == "python3"
    assert (await make(here, template="python"))["kernel"] == "python3"
    for wish in ({"language": "cobol"}, {"template": "none"}, {"kernel": "python3", "language": "bash"}):
        reply = await here.ask("POST", "/v1/sessions", wish)
        assert (reply.status, reply.code) == (404, "unknown_kernel")


@pytest.mark.parametrize(
    "wish",
    [
        {"nme": "x"},
        {"name": "x" * 201},
        {"name": "a\nb"},
        {"name": 7},
        {"metadata": []},
        {"metadata": {"a": "x" * 9000}},
        {"idempotency_key": "x" * 129},
        {"profile": "none"},
        {"limits": []},
        {"env": {"A B": "x"}},
        {"env": {"": "x"}},
        {"env": {"A": 7}},
        {"env": {"A": None}},
        {"env": {"A": "x" * 4097}},
        {"env": {"A": "one\ntwo"}},
        {"env": {f"A{number}": "x" for number in range(65)}},
        *(
            {"env": {name: "/tmp"}}
            for name in ("PATH", "LD_PRELOAD", "PYTHONPATH", "JPY_PARENT_PID", "HOME", "ld_preload", "CELLGATE_TOKEN")
        ),
    ],
    ids=lambda wish: repr(wish)[:60],
)
async def test_what_cannot_be_asked_for_is_refused_with_what_would_pass(here, wish):
    reply = await here.ask("POST", "/v1/sessions", wish)
    assert (reply.status, reply.code, reply.json()["fault"]) == (422, "usage", "yours")
    assert "would pass" in reply.json()["message"]
    assert here.manager.sessions("owner") == []


@pytest.mark.parametrize("limits", [{"pids": 0}, {"cell_seconds": 1e9}, {"idle_seconds": "1"}, {"pids": 10**40}])
async def test_a_limit_that_cannot_be_is_refused_with_its_name(here, limits):
    reply = await here.ask("POST", "/v1/sessions", {"limits": limits})
    assert (reply.status, reply.code) == (422, "bad_limit")
    assert reply.json()["facts"]["name"] in limits


@pytest.mark.parametrize("change", [{"limits": {"pids": 20}}, {"limits": {"memory_bytes": 1}}, {"kernel": "python3"}])
async def test_what_a_sandbox_has_from_birth_cannot_be_changed(here, change):
    reply = await here.ask("PATCH", f"/v1/sessions/{(await make(here))['id']}", change)
    assert (reply.status, reply.code) == (422, "usage")


async def test_somebody_elses_session_is_not_found(here):
    made = await here.manager.create("somebody else", Wish())
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/interrupt"),
        ("POST", "/restart"),
    ):
        reply = await here.ask(method, f"/v1/sessions/{made.id}{path}", {} if method == "PATCH" else None)
        assert (reply.status, reply.code) == (404, "unknown_session")
    assert (await here.ask("GET", "/v1/sessions")).json() == {"sessions": []}


def test_names_of_variables_that_agents_use_are_none_of_those_that_steer():
    for name in ("API_KEY", "PATHS", "MY_PATH", "OMP_NUM_THREADS", "KERNEL_USERNAME", "TZ", "LANG", "MPLBACKEND"):
        assert not FORBIDDEN_ENV.fullmatch(name)


# -- what a server says of itself ----------------------------------------------------------------------


async def test_languages_limits_and_profiles_are_those_of_the_settings(here):
    [python] = [one for one in (await here.ask("GET", "/v1/languages")).json()["languages"] if one["name"] == "python"]
    assert python["kernels"][0]["name"] == "python3"
    assert "ipykernel" in python["kernels"][0]["packages"]
    limits = {row["name"]: row for row in (await here.ask("GET", "/v1/limits")).json()["limits"]}
    assert (limits["pids"]["value"], limits["pids"]["of"], limits["sessions_total"]["of"]) == (64, "sandbox", "server")
    said = (await here.ask("GET", "/v1/profiles")).json()
    assert (said["default"], said["profiles"].keys()) == ("testing", PROFILES.keys())
    assert said["profiles"]["testing"]["cell_seconds"] == 10


@pytest.mark.native
async def test_isolation_is_measured_once_by_a_server_that_has_given_up_its_rights_and_sessions_carry_the_tier():
    async with served() as server:
        before = (await server.fetch("POST", "/v1/sessions", {})).json()
        first, second = await asyncio.gather(*(server.fetch("GET", "/v1/isolation") for _ in range(2)))
        after = (await server.fetch("GET", f"/v1/sessions/{before['id']}")).json()
    assert before["tier"] is None
    assert first.json() == second.json()
    assert (first.json()["driver"], first.json()["standing"] == "unmeasured") == ("native", False)
    assert after["tier"] == first.json()["tier"]
