"""Tokens made beside a running server: they open it at once, each for its principal, and close it when revoked."""

from __future__ import annotations

import asyncio
import json
import re
import sys

import pytest
import websockets

from tests.support.server import BOUND, Server, served, until

pytestmark = pytest.mark.native

PROMISED_SECONDS = 5.0  # from a revocation until nothing is open any more


async def token(server: Server, *words: str) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cellgate", "token", *words, "--json", "--state-dir", str(server.state_dir),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), BOUND)
    assert process.returncode == 0
    return json.loads(said)


async def status_of(server: Server, text: str, method: str = "GET", path: str = "/api/kernels") -> int:
    return (await server.fetch(method, path, Authorization=f"token {text}")).status


@pytest.fixture
async def server():
    async with served("--profile", "testing") as server:
        yield server


async def opened(server: Server, text: str) -> None:
    async def wait() -> None:
        while await status_of(server, text) != 200:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(wait(), BOUND)


async def test_a_token_opens_a_running_server_until_it_is_revoked(server):
    made = await token(server, "create", "ada")
    text = made["text"]
    await opened(server, text)
    reply = await server.fetch("POST", "/api/kernels", Authorization=f"token {text}")
    assert reply.status == 201
    kernel_id = reply.json()["id"]
    assert (await server.fetch("GET", f"/api/kernels/{kernel_id}")).status == 404  # for the owner, too

    url = re.sub(r"token=[^&]+", f"token={text}", server.channels_url(kernel_id))
    async with websockets.connect(url) as websocket:
        began = asyncio.get_running_loop().time()
        await token(server, "revoke", made["token"]["id"])
        await asyncio.wait_for(websocket.wait_closed(), BOUND)
        assert websocket.close_code == 4003
        assert asyncio.get_running_loop().time() - began < PROMISED_SECONDS
    assert await status_of(server, text) == 401
    assert text not in server.log()


async def test_tokens_are_known_again_after_the_gateway_died(server):
    text = (await token(server, "create", "ada"))["text"]
    await opened(server, text)
    await server.kill_gateway()
    await server.wait_ready()
    assert await status_of(server, text) == 200


async def test_tokens_that_cannot_be_read_stay_as_they_were(server):
    text = (await token(server, "create", "ada"))["text"]
    await opened(server, text)
    (server.state_dir / "access" / "tokens.sqlite").write_bytes(b"rubbish" * 1000)
    await until(lambda: "the tokens cannot be read" in server.log())
    assert await status_of(server, text) == 200


async def test_a_proxy_is_believed_only_when_it_is_named():
    async with served("--profile", "testing", "--trusted-proxies", "127.0.0.0/8") as server:
        said = {"X-Forwarded-User": "ada", "Authorization": ""}
        me = await server.fetch("GET", "/api/me", **said)
        assert me.json()["identity"]["username"] == "ada"
        assert (await server.fetch("GET", "/api/me", **{**said, "X-Forwarded-User": "a b"})).status == 401
    async with served("--profile", "testing") as server:
        assert (await server.fetch("GET", "/api/me", **said)).status == 401
