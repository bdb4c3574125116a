"""Whoever asks is told what they have and may, and nothing of others'."""

from __future__ import annotations

import pytest

from cellgate.access.scopes import Scope
from tests.support.gateway import gateway
from tests.support.live import Client

MiB = 1 << 20


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path, sessions_per_principal="2") as here:
        yield here


async def test_each_is_told_of_their_own(here):
    ada, eve = here.token("ada"), here.token("eve", Scope.OBSERVE)
    kernel_id = (await here.ask("POST", "/api/kernels", token=ada)).json()["id"]
    await Client(here.manager.find("ada", kernel_id)).run("1 + 1")
    mine = (await here.ask("GET", "/v1/quotas", token=ada)).json()
    assert mine["principal"] == "ada"
    assert mine["quotas"]["sessions_per_principal"] == {"used": 1, "limit": 2}
    assert mine["quotas"]["memory_bytes_per_principal"]["used"] == 256 * MiB
    assert mine["quotas"]["wall_seconds_per_day"]["used"] > 0
    assert 0 < mine["day_ends_in_seconds"] <= 86400
    others = (await here.ask("GET", "/v1/quotas", token=eve)).json()["quotas"]
    assert {row["used"] for row in others.values()} == {0}


async def test_what_is_refused_is_refused_with_the_same_numbers(here):
    for _ in range(2):
        assert (await here.ask("POST", "/api/kernels")).status == 201
    quota = (await here.ask("GET", "/v1/quotas")).json()["quotas"]["sessions_per_principal"]
    assert quota["used"] == quota["limit"]
    refused = await here.ask("POST", "/api/kernels")
    assert (refused.status, refused.code) == (429, "too_many_sessions")
    assert "Retry-After" in refused.headers


async def test_a_quota_tells_what_was_asked_what_is_left_and_when(tmp_path):
    async with gateway(tmp_path, memory_bytes_per_principal="300M") as here:
        assert (await here.ask("POST", "/api/kernels")).status == 201
        refused = await here.ask("POST", "/api/kernels")
        assert (refused.status, refused.code) == (429, "quota_used_up")
        facts = refused.json()["facts"]
        assert (facts["quota"], facts["asked"], facts["left"]) == ("memory_bytes_per_principal", 256 * MiB, 44 * MiB)
        assert int(refused.headers["Retry-After"]) > 0
