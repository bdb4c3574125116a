"""What whoever runs the server sees of everybody's sessions, and may do with them."""

from __future__ import annotations

import pytest

from cellgate.access.scopes import Scope
from tests.support.gateway import gateway


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def test_everybodys_sessions_are_shown_in_numbers_and_ended(here):
    admin, ada = here.token("operator", Scope.ADMIN), here.token("ada")
    session_id = (await here.ask("POST", "/v1/sessions", {"env": {"SECRET": "x"}}, token=ada)).json()["id"]
    [row] = (await here.ask("GET", "/v1/admin", token=admin)).json()["sessions"]
    assert (row["id"], row["principal"], row["waiting"]) == (session_id, "ada", 0)
    assert row["limits"]["memory_bytes"] > 0
    assert not {"env", "metadata", "idempotency_key"} & row.keys()
    assert (await here.ask("DELETE", f"/v1/admin/sessions/{session_id}", token=admin)).status == 204
    assert (await here.ask("GET", f"/v1/sessions/{session_id}", token=ada)).code == "unknown_session"
    assert (await here.ask("DELETE", f"/v1/admin/sessions/{session_id}", token=admin)).code == "unknown_session"


async def test_an_operator_is_told_how_the_last_kernels_ended(here):
    session_id = (await here.ask("POST", "/v1/sessions", {})).json()["id"]
    await here.manager.find("owner", session_id).started()
    await here.ask("DELETE", f"/v1/sessions/{session_id}")
    [death] = (await here.ask("GET", "/v1/admin")).json()["deaths"]
    assert (death["session"], death["principal"], death["reason"]) == (session_id, "owner", "session_deleted")


async def test_an_operator_alone_reads_nobodys_session(here):
    admin = here.token("ada", Scope.ADMIN)
    session_id = (await here.ask("POST", "/v1/sessions", {}, token=here.token("ada"))).json()["id"]
    assert (await here.ask("GET", f"/v1/sessions/{session_id}", token=admin)).code == "missing_scope"
    assert (await here.ask("GET", f"/v1/sessions/{session_id}/events", token=admin)).code == "missing_scope"
