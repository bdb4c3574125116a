"""`cellgate mcp`: a server's tools over standard input and output, by the official client and by hand."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mcp
import pytest
from mcp.client.stdio import StdioServerParameters

from tests.support.drivers import open_driver
from tests.support.gateway import TOKEN, Gateway, gateway
from tests.support.server import until


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path, open_driver=lambda: open_driver("process")) as here:
        yield here


def words(here: Gateway, token: str = TOKEN) -> list[str]:
    return [sys.executable, "-m", "cellgate", "mcp", "--server", f"{here.origin}?token={token}"]


async def test_the_official_client_runs_code_and_its_session_ends_with_it(here):
    command, *arguments = words(here)
    heard: list[str | None] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    parameters = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    async with mcp.Client(parameters) as client:
        assert "run_code" in {tool.name for tool in (await client.list_tools()).tools}
        await client.call_tool("run_code", {"code": "x = 6"})
        code = "import time\nprint('at work', flush=True)\ntime.sleep(3)\nx * 7"
        result = await client.call_tool("run_code", {"code": code}, progress_callback=listen)
        assert "42" in result.content[0].text and "at work" in str(heard)
        assert len(here.manager.sessions("owner")) == 1
    await until(lambda: not here.manager.sessions("owner"))


@asynccontextmanager
async def started(here: Gateway, token: str = TOKEN) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words(here, token), stdin=pipe, stdout=pipe, limit=1 << 22)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ask(process: asyncio.subprocess.Process, *messages: object) -> dict:
    """What is answered to the last of them."""
    assert process.stdin and process.stdout
    for message in messages:
        process.stdin.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
    return json.loads(await asyncio.wait_for(process.stdout.readline(), 30))


BEGIN = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}}


async def test_each_request_has_one_line_of_answer_and_notes_have_none(here):
    async with started(here) as process:
        assert (await ask(process, b"\n", BEGIN))["result"]["protocolVersion"] == "2025-06-18"
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert await ask(process, note, {"jsonrpc": "2.0", "id": 1, "method": "ping"}) == {
            "jsonrpc": "2.0", "id": 1, "result": {},
        }  # fmt: skip
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert await process.stdout.read() == b""


async def test_what_no_server_answers_is_an_error_of_that_request(here):
    async with started(here) as process:
        await ask(process, BEGIN)
        unknown = await ask(process, {"jsonrpc": "2.0", "id": 1, "method": "none"})
        assert unknown["error"]["code"] == -32601
        long = {"jsonrpc": "2.0", "id": 2, "method": "ping", "params": {"x": "x" * (9 << 20)}}
        refused = await ask(process, long)
        assert refused["id"] == 2 and "would pass" in refused["error"]["message"]
    async with started(here, "wrong") as process:
        refused = await ask(process, BEGIN)
        assert refused["id"] == 0 and "token" in refused["error"]["message"]
