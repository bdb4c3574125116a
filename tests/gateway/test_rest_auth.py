"""Nobody is heard before it is known who asks, on every route of the table."""

from __future__ import annotations

import re
import time

import pytest

from cellgate.access.scopes import Scope, with_implied
from cellgate.gateway.app import ROUTES
from cellgate.gateway.status import StatusHandler
from tests.support.gateway import Gateway, gateway

ANONYMOUS = {"/watch", "/login", "/logout", "/healthz", "/readyz", "/api", "/static/{path}"}
GUARDED = [
    pytest.param(route, method, id=f"{method} {route.path}")
    for route in ROUTES
    for method in route.operations
    if route.path not in ANONYMOUS
]
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path, allowed_origins="https://lab.example.org") as here:
        yield here


async def kernel_of(here: Gateway) -> str:
    return (await here.ask("POST", "/api/kernels")).json()["id"]


def filled(path: str, kernel_id: str) -> str:
    """A path in which the parameters stand for what exists."""
    known = {"kernel_id": kernel_id, "kernel_name": "python3", "file_name": "logo-svg.svg", "session_id": "none"}
    return re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], "none"), path)


def test_what_anybody_may_see_is_this_and_no_more():
    assert {route.path for route in ROUTES if route.handler.is_anonymous} == ANONYMOUS


@pytest.mark.parametrize(("route", "method"), GUARDED)
async def test_every_other_operation_refuses_whoever_shows_no_token_or_a_wrong_one(here, route, method):
    kernel_id = await kernel_of(here)
    path = filled(route.path, kernel_id)
    upgrade = UPGRADE if path.endswith("/channels") else {}
    for token, code in ((None, "unauthorized"), ("wrong", "wrong_token")):
        reply = await here.ask(
            method, path, b"{}" if method in ("POST", "PATCH") else None, token=token, headers=upgrade
        )
        assert (reply.status, reply.code) == (401, code)
        assert reply.headers["Www-Authenticate"] == "Bearer"
        assert kernel_id not in reply.body.decode()
    assert [live.id for live in here.manager.sessions("owner")] == [kernel_id]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_operation_but_those_names_the_scope_it_wants(route):
    for operation in route.operations.values():
        assert (operation.scope is None) == route.handler.is_anonymous


@pytest.mark.parametrize(("route", "method"), GUARDED)
async def test_every_other_operation_refuses_a_token_of_any_other_scope(here, route, method):
    wanted = route.operations[method].scope
    path = filled(route.path, await kernel_of(here))
    upgrade = UPGRADE if path.endswith("/channels") else {}
    body = b"{}" if method in ("POST", "PATCH") else None
    for scope in Scope:
        if wanted not in with_implied([scope]):
            reply = await here.ask(method, path, body, token=here.token("owner", scope), headers=upgrade)
            assert (reply.status, reply.code) == (403, "missing_scope")


async def test_a_route_without_a_scope_is_open_to_nobody(here, monkeypatch):
    """Who forgets to name one opens nothing."""
    scopes = here.services.scopes
    monkeypatch.setitem(scopes, (StatusHandler, "GET"), None)
    assert (await here.ask("GET", "/api/status")).code == "missing_scope"
    monkeypatch.delitem(scopes, (StatusHandler, "GET"))
    assert (await here.ask("GET", "/api/status")).code == "missing_scope"
    assert (await here.ask("HEAD", "/api/status")).status == 403


@pytest.mark.parametrize(("route", "method"), GUARDED)
async def test_every_other_operation_refuses_a_strangers_page_with_our_cookie(here, route, method):
    path = filled(route.path, await kernel_of(here))
    upgrade = UPGRADE if path.endswith("/channels") else {}
    body = b"{}" if method in ("POST", "PATCH") else None
    for changed, code in (
        ({"Origin": "https://evil.example"}, "foreign_origin"),
        ({"Origin": "null"}, "foreign_origin"),
        ({"Origin": "https://lab.example.org.evil.example"}, "foreign_origin"),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, "foreign_host"),
    ):
        headers = {**here.cookie(time.time()), **upgrade, **changed}
        reply = await here.ask(method, path, body, token=None, headers=headers)
        assert (reply.status, reply.code) == (403, code)
        assert "Access-Control-Allow-Origin" not in reply.headers


async def test_a_path_that_is_not_there_tells_so_only_to_whoever_may_ask(here):
    for path in ("/api/contents", "/metric", "/api/kernels/x/y/z", "/statics", "//evil.example"):
        assert (await here.ask("GET", path, token=None)).code == "unauthorized"
        assert (await here.ask("GET", path)).code == "not_found"


async def test_the_files_of_the_page_are_open_to_anybody_and_nothing_else_is_reached_by_their_path(here):
    assert (await here.ask("GET", "/static/js/main.js", token=None)).status == 200
    for path in (
        "js",
        "js/",
        "../etc/passwd",
        "%2e%2e/home.py",
        "/etc/passwd",
        "bundling/build.mjs",
        "js/../js/main.js",
    ):
        assert (await here.ask("GET", f"/static/{path}", token=None)).code == "not_found"


async def test_what_is_somebody_elses_is_in_no_list_and_can_be_given_to_no_notebook(here):
    model = (await here.ask("POST", "/api/sessions", {"path": "a.ipynb"})).json()
    kernel_id = model["kernel"]["id"]
    here.manager.find("owner", kernel_id).principal = "somebody else"
    mine = (await here.ask("POST", "/api/sessions", {"path": "b.ipynb"})).json()
    for method, path in (("POST", "/api/sessions"), ("PATCH", f"/api/sessions/{mine['id']}")):
        reply = await here.ask(method, path, {"path": "c.ipynb", "kernel": {"id": kernel_id}})
        assert (reply.status, reply.code) == (404, "unknown_session")
    assert [row["id"] for row in (await here.ask("GET", "/api/kernels")).json()] == [mine["kernel"]["id"]]
    assert [row["id"] for row in (await here.ask("GET", "/api/sessions")).json()] == [mine["id"]]


async def test_guesses_are_answered_later_and_later(here):
    replies = [await here.ask("GET", "/api/status", token=f"guess-{n}") for n in range(25)]
    assert [reply.code for reply in replies] == ["wrong_token"] * 20 + ["too_many_guesses"] * 5
    assert (replies[-1].status, replies[-1].headers["Retry-After"]) == (429, "3")
    assert (await here.ask("GET", "/api/status")).status == 200


# -- pages of other origins ----------------------------------------------------------------------------


async def test_a_page_of_an_allowed_origin_may_ask_with_the_token_and_read_the_answer(here):
    lab = "https://lab.example.org"
    ask = {"Origin": lab, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    reply = await here.ask("OPTIONS", "/api/kernels", token=None, headers=ask)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["Access-Control-Allow-Origin"] == lab
    assert "POST" in reply.headers["Access-Control-Allow-Methods"]
    assert reply.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, X-Request-Id"
    for answered in (await here.ask("GET", "/api/kernels", headers={"Origin": lab}), reply):
        assert answered.headers["Access-Control-Allow-Origin"] == lab
        assert "Origin" in answered.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answered.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "*", ""])
async def test_a_page_of_any_other_origin_may_not(here, origin):
    ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    reply = await here.ask("OPTIONS", "/api/kernels", token=None, headers=ask)
    assert (reply.status, reply.code) == (403, "foreign_origin")
    reply = await here.ask("GET", "/api/kernels", headers={"Origin": origin})
    assert not [name for name in reply.headers if name.startswith("Access-Control")]


async def test_a_plain_form_cannot_start_a_kernel(here):
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {**here.cookie(time.time()), "Content-Type": kind}
        assert (await here.ask("POST", "/api/kernels", b"{}", token=None, headers=headers)).code == "simple_form"
    assert here.manager.sessions("owner") == []
