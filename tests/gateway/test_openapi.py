"""The document says what the routes do: each operation is in it, and each status it names can be met."""

from __future__ import annotations

import json
import re
import time

import pytest

from cellgate import errors
from cellgate.access.scopes import Scope
from cellgate.gateway import auth
from cellgate.gateway.app import ROUTES
from cellgate.gateway.auth import MAX_GUESSES, REFUSALS
from cellgate.gateway.base import CODES, MAX_BODY_BYTES
from cellgate.gateway.openapi import Route, document
from cellgate.live.files import SessionFiles
from cellgate.live.oneshots import OneShots
from cellgate.live.scripts import Scripts
from cellgate.live.session import LiveSession
from cellgate.settings import read_settings
from tests.support.gateway import Gateway, Reply, gateway

SETTINGS = read_settings(flags={"profile": "testing"}, environ={}, file={})
DOCUMENT = json.loads(json.dumps(document(ROUTES, SETTINGS)))
EVERY_OPERATION = [
    pytest.param(route, method, id=f"{method} {route.path}") for route in ROUTES for method in route.operations
]
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "eA=="}


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def test_the_document_is_served_to_whoever_may_ask(here):
    assert (await here.ask("GET", "/v1/openapi.json")).json() == DOCUMENT
    assert (await here.ask("GET", "/v1/openapi.json", token=None)).status == 401


def test_every_operation_is_in_the_document_and_no_other_is_answered():
    for route in ROUTES:
        methods = {name.upper() for name in DOCUMENT["paths"][route.path] if name != "parameters"}
        assert methods == route.operations.keys() == set(route.handler.methods()) - {"HEAD", "OPTIONS"}
    assert DOCUMENT["paths"].keys() == {route.path for route in ROUTES}


def test_what_is_open_to_anybody_says_so():
    for route in ROUTES:
        for method in route.operations:
            security = DOCUMENT["paths"][route.path][method.lower()]["security"]
            assert (security == []) == route.handler.is_anonymous
            assert all(list(way.values()) == [[route.operations[method].scope]] for way in security)


def test_every_reference_leads_somewhere_and_every_operation_has_its_own_id():
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert named == DOCUMENT["components"]["schemas"].keys()
    ids = re.findall(r'"operationId": "(\w+)"', json.dumps(DOCUMENT))
    assert len(ids) == len(set(ids)) == sum(len(route.operations) for route in ROUTES)


def test_the_limits_that_may_be_asked_for_end_at_the_servers_own():
    limits = DOCUMENT["components"]["schemas"]["KernelWish"]["properties"]["limits"]["properties"]
    assert limits["pids"]["maximum"] == SETTINGS.sandbox.pids
    assert limits["cell_seconds"]["maximum"] == SETTINGS.session.cell_seconds
    assert limits.keys() == SETTINGS.sandbox.to_mapping().keys() | SETTINGS.session.to_mapping().keys()


@pytest.mark.parametrize(("route", "method"), EVERY_OPERATION)
async def test_every_error_in_the_document_can_be_met(here, monkeypatch, route, method):
    kernel_id = (await here.ask("POST", "/api/kernels")).json()["id"]
    body = {"path": "a.ipynb", "kernel": {"id": kernel_id}}
    session_id = (await here.ask("POST", "/api/sessions", body)).json()["id"]
    names = {"kernel_id": kernel_id, "session_id": session_id, "kernel_name": "python3"}
    names |= {"file_name": "logo-svg.svg", "path": "js/main.js", "script": "a"}
    await here.ask("POST", "/v1/scripts", {"name": "a", "code": "1"})
    described = DOCUMENT["paths"][route.path][method.lower()]["responses"]
    for code in route.codes(method):
        with monkeypatch.context() as patch:
            reply = await provoke(here, patch, route, method, code, names)
        assert code in described[str(reply.status)]["description"].split(", ")
        if reply.headers["Content-Type"] == "application/json":
            assert (reply.status, reply.code) == (CODES[code], code)
        else:
            assert reply.status == CODES[code]
    assert [live.id for live in here.manager.sessions("owner")] == [kernel_id]


FAILURES = {
    "unknown_session": errors.UnknownSession("7"),
    "unknown_kernel": errors.UnknownKernel("7", ()),
    "driver_unavailable": errors.DriverUnavailable("native", "", ""),
    "sandbox_start_failed": errors.SandboxStartFailed("native", "", ""),
    "draining": errors.Draining(),
    "link_closed": errors.LinkClosed(""),
    "sandbox_gone": errors.SandboxGone(""),
    "server_full": errors.ServerFull(1),
    "storage_full": errors.StorageFull(""),
    "too_many_clients": errors.TooManyClients(1),
    "too_many_waiting": errors.TooManyWaiting(1),
    "too_many_sessions": errors.TooManySessions(1),
    "quota_used_up": errors.QuotaUsedUp("memory_bytes_per_principal", 2, 1, ""),
    "bad_limit": errors.LimitError("pids", 0, "1"),
    "not_answered": errors.NotAnswered("oom", ""),
    "bad_path": errors.BadPath("x"),
    "no_such_file": errors.NoSuchFile("x"),
    "not_a_file": errors.NotAFile("x"),
    "not_a_directory": errors.NotADirectory("x"),
    "already_there": errors.AlreadyThere("x"),
    "not_empty": errors.NotEmpty("x"),
    "not_permitted": errors.NotPermitted("x"),
    "workspace_gone": errors.WorkspaceGone("x"),
    "file_too_large": errors.FileTooLarge("x", 1),
    "bad_range": errors.BadRange("x", 1),
    "bad_archive": errors.BadArchive("x"),
    "disk_full": errors.DiskFull("x", 1, 1),
    "files_failed": errors.FilesFailed("x", ""),
    "policy_error": errors.PolicyError(""),
}


BODIES = {  # that begin something, where an empty one does not
    "/v1/scripts": b'{"name": "a", "code": "1"}',
    "/v1/sessions/{session_id}/execute": b'{"code": "1"}',
    "/v1/run": b'{"code": "1"}',
    "/v1/batch": b'{"cells": [{"code": "1"}]}',
    "/v1/sessions/{session_id}/files": b'{"make_directory": "a"}',
    "/v1/validate": b'{"code": "1"}',
}


async def provoke(
    here: Gateway, patch: pytest.MonkeyPatch, route: Route, method: str, code: str, names: dict[str, str]
) -> Reply:
    """A request to this operation that meets this error. `names` are of what exists."""
    sent: bytes | None = b'{"path": "b", "kernel": {"name": "python3"}}' if method in ("POST", "PATCH") else None
    path, token, headers = route.path, "the-token-of-this-test", {}
    if path.startswith("/v1/"):
        sent = sent and BODIES.get(path, b"{}")
        names = names | {"session_id": names["kernel_id"]}
    cookie = here.cookie(time.time())
    if path == "/login":
        token, headers, sent = "", {"Host": f"127.0.0.1:{here.port}"}, sent and b"token=the-token-of-this-test"
    if path.endswith(("/channels", "/ws")):
        headers = headers | UPGRADE
        cookie = cookie | UPGRADE
    if code == "internal":

        async def fail(*_):
            raise RuntimeError

        patch.setattr(route.handler, method.lower(), fail)
    elif code == "bad_request":
        names = dict.fromkeys(names, "%ff")
        if "{" not in path:
            path += f"?{next(iter(route.operations[method].query))}=%ff"
    elif code == "too_large":
        sent = b"x" * (getattr(route.handler, "max_body_bytes", MAX_BODY_BYTES) + 1000)
    elif code == "bad_json":
        sent, path = sent and b"{", path + ("" if sent else "?permissions=%7B")
    elif code == "usage":
        wrong = b"\xff" if path == "/login" else b'{"name": 7}'
        sent, path = sent and wrong, path + ("" if sent else "?permissions=%7B%22a%22:1%7D&state=none&role=none")
    elif code == "no_subprotocol":
        pass  # it offers none
    elif code == "not_found":
        names = names | {"file_name": "none", "path": "none"}
        headers = headers | {"Mcp-Session-Id": "none"}
    elif code == "missing_scope":
        scope = route.operations[method].scope
        token = here.token("owner", Scope.ADMIN if scope is not Scope.ADMIN else Scope.OBSERVE)
    elif code == "wrong_token" or code == "too_many_guesses":
        token, sent = "wrong", b"token=wrong" if path == "/login" else sent
        patch.setattr(here.guard, "_guesses", auth._Guesses())
        for _ in range(MAX_GUESSES if code == "too_many_guesses" else 0):
            await here.ask(method, route.path.format(**names), sent, token=token, headers=headers)
    elif code in REFUSALS:
        token = ""
        if code != "unauthorized":
            headers = (
                cookie
                | {
                    "foreign_origin": {"Origin": "https://evil.example"},
                    "foreign_host": {"Host": "evil.example", "Origin": "http://evil.example"},
                    "simple_form": {"Content-Type": "text/plain"},
                    "no_origin": {},
                }[code]
            )
        if code == "no_origin":
            del headers["Origin"]
    elif code == "draining" and path == "/healthz":
        patch.setattr(here.manager, "is_draining", True)
    elif path == "/readyz":

        async def check(*_):
            raise FAILURES[code]

        patch.setattr(here.services.readiness, "check", check)
    elif code == "unknown_kernel" and method == "GET":
        names = names | {"kernel_name": "none"}
    elif code in ("unknown_session", "unknown_script") and "{" in path:
        names = dict.fromkeys(names, "none")
    else:

        async def refuse(*_, **__):
            raise FAILURES[code]

        def refuse_now(*_, **__):
            raise FAILURES[code]

        patch.setattr(here.manager, "create", refuse)
        patch.setattr(here.manager, "validate", refuse)
        patch.setattr(here.manager, "change", refuse_now)
        patch.setattr(Scripts, "save", refuse_now)
        patch.setattr(Scripts, "delete", refuse_now)
        patch.setattr(LiveSession, "restart", refuse)
        patch.setattr(LiveSession, "attach", refuse_now)
        patch.setattr(LiveSession, "ask", refuse)
        patch.setattr(SessionFiles, "_ask", refuse)
        patch.setattr(OneShots, "session", refuse_now)
        patch.setattr(OneShots, "run", refuse)
        headers = headers | ({"Accept": "text/event-stream"} if path.endswith("/events") else {})
    return await here.ask(
        method, re.sub(r"\{(\w+)\}", lambda found: names[found[1]], path), sent, token=token, headers=headers
    )
