"""A link to watch one session: opens that one, to look at, until it ends; and nothing else."""

from __future__ import annotations

import pytest

from cellgate.gateway.app import ROUTES
from tests.support.gateway import Gateway, gateway


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def shared(here: Gateway) -> tuple[str, str]:
    """A session, and the token of a link to it."""
    session_id = (await here.ask("POST", "/v1/sessions", {})).json()["id"]
    answer = (await here.ask("POST", f"/v1/sessions/{session_id}/share")).json()
    assert answer["url"] == f"{here.origin}/watch#{answer['token']}"
    return session_id, answer["token"]


async def test_whoever_has_the_link_sees_that_session_and_no_other(here):
    session_id, token = await shared(here)
    other, _ = await shared(here)
    assert (await here.ask("GET", f"/v1/sessions/{session_id}", token=token)).json()["id"] == session_id
    assert (await here.ask("GET", f"/v1/sessions/{other}", token=token)).code == "missing_scope"


async def test_whoever_has_the_link_does_not_see_what_its_owner_keeps_beside_it(here):
    kept = {"metadata": {"for": "a client"}, "env": {"KEY": "x"}, "idempotency_key": "job-1"}
    session_id = (await here.ask("POST", "/v1/sessions", kept)).json()["id"]
    token = (await here.ask("POST", f"/v1/sessions/{session_id}/share")).json()["token"]
    seen = (await here.ask("GET", f"/v1/sessions/{session_id}", token=token)).json()
    assert (seen["metadata"], seen["env"], seen["idempotency_key"]) == ({}, [], None)
    assert (await here.ask("GET", f"/v1/sessions/{session_id}")).json()["metadata"] == kept["metadata"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_a_link_opens_what_is_for_watching_and_nothing_else(here, route):
    session_id, token = await shared(here)
    path = route.path.replace("{session_id}", session_id).replace("{kernel_id}", session_id).replace("{path}", "x")
    open_to_it = {("GET", "/v1/sessions/{session_id}"), ("GET", "/v1/sessions/{session_id}/ws")}
    for method in route.operations:
        if not route.handler.is_anonymous and (method, route.path) not in open_to_it:
            reply = await here.ask(method, path, b"{}" if method in ("POST", "PATCH") else None, token=token)
            assert reply.status in (403, 426), (method, path)


async def test_a_link_ends_with_its_session_and_none_can_be_made_up(here):
    session_id, token = await shared(here)
    for wrong in (token[:-1], token + "x", token.replace("owner", "other"), f"share.{session_id}.{'0' * 64}.owner"):
        assert (await here.ask("GET", f"/v1/sessions/{session_id}", token=wrong)).code == "wrong_token"
    await here.ask("DELETE", f"/v1/sessions/{session_id}")
    assert (await here.ask("GET", f"/v1/sessions/{session_id}", token=token)).code == "unknown_session"


async def test_somebody_elses_session_cannot_be_shared(here):
    session_id, _ = await shared(here)
    assert (await here.ask("POST", f"/v1/sessions/{session_id}/share", token=here.token("ada"))).code == (
        "unknown_session"
    )
