"""The Model Context Protocol over HTTP, by its official client and by hand."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client

from cellgate.access.scopes import Scope
from cellgate.errors import SandboxStartFailed
from cellgate.gateway.mcp import SESSION_HEADER
from cellgate.gateway.tools import TOOLS
from cellgate.gateway.v1 import executes
from cellgate.wire.mcp import VERSIONS, Call, McpError, Note, read_message
from tests.support.drivers import driver_params, open_driver
from tests.support.gateway import TOKEN, Gateway, Reply, gateway
from tests.support.server import served

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(params=driver_params(["process", "native"]))
async def here(request, tmp_path):
    async with gateway(tmp_path, open_driver=lambda: open_driver(request.param)) as here:
        yield here


@pytest.fixture
async def fake(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


@asynccontextmanager
async def connected(here: Gateway, token: str = TOKEN, **options: Any) -> AsyncIterator[mcp.Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http,
        mcp.Client(streamable_http_client(f"{here.origin}/mcp", http_client=http), **options) as client,
    ):
        yield client


async def say(client: mcp.Client, tool: str, **arguments: Any) -> str:
    """The text of a tool's answer, which must be none of an error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return "\n".join(block.text for block in result.content if block.type == "text")


async def test_the_official_client_finds_the_tools_and_runs_code(here):
    async with connected(here) as client:
        listed = (await client.list_tools()).tools
        assert {tool.name for tool in listed} == set(TOOLS)
        first = await say(client, "run_code", code="x = 20\nprint('hello')")
        assert first.startswith("[a new session, ") and "hello" in first and "[names: added x]" in first
        assert await say(client, "run_code", code="x + 22") == "42"
        failed = await client.call_tool("run_code", {"code": "def f():\n    1/0\nf()"})
        assert failed.is_error
        assert "ZeroDivisionError: division by zero\nCell In[" in failed.content[0].text
    assert here.manager.sessions("owner") == []  # the client said goodbye


async def test_each_client_has_a_session_of_its_own_unless_it_names_one(here):
    async with connected(here) as one, connected(here) as other:
        await say(one, "run_code", code="x = 'one'")
        assert (await other.call_tool("run_code", {"code": "x"})).is_error
        made = await say(one, "create_session", name="shared")
        assert "(shared), kernel python3" in made
        await say(one, "run_code", code="y = 'both'", session="shared")
        assert await say(other, "run_code", code="y", session="shared") == "'both'"
        listed = await say(other, "list_sessions")
        assert listed.count("\n") == 2 and "shared" in listed and listed.count("(yours by default)") == 1
        await say(other, "close_session", session="shared")
        gone = await one.call_tool("run_code", {"code": "y", "session": "shared"})
        assert gone.is_error and "[unknown_session]" in gone.content[0].text
        assert await say(one, "run_code", code="x") == "'one'"


async def test_images_come_as_images(here):
    code = f"from IPython.display import Image, display\nimport base64\ndisplay(Image(data={PNG!r}))"
    async with connected(here) as client:
        await say(client, "run_code", code="1")
        result = await client.call_tool("run_code", {"code": code})
        image = next(block for block in result.content if block.type == "image")
        assert (image.mime_type, base64.b64decode(image.data)) == ("image/png", PNG)
        assert "[image 1: image/png, 1 × 1 pixels" in result.content[0].text
        await say(client, "run_code", code=f"open('p.png', 'wb').write({PNG!r})")
        read = await client.call_tool("read_file", {"path": "p.png"})
        assert base64.b64decode(read.content[0].data) == PNG


async def test_files_are_written_listed_read_and_removed(here):
    async with connected(here) as client:
        assert "3 bytes" in await say(client, "write_file", path="d/a.txt", content="abc")
        assert await say(client, "list_files", path="d") == "a.txt  3"
        assert await say(client, "read_file", path="d/a.txt") == "abc"
        assert await say(client, "run_code", code="open('d/a.txt').read()") == "'abc'"
        await say(client, "write_file", path="b", content=base64.b64encode(b"\x00\x01").decode(), is_base64=True)
        assert "[binary] AAE=" in await say(client, "read_file", path="b")
        await say(client, "write_file", path="long", content="x" * 200)
        assert "[bytes 0 to 50 of 200; offset=50 reads on]" in await say(client, "read_file", path="long", max_bytes=50)
        await say(client, "delete_file", path="d", recursive=True)
        missing = await client.call_tool("read_file", {"path": "d/a.txt"})
        assert missing.is_error and "[no_such_file]" in missing.content[0].text
        refused = await client.call_tool("read_file", {"path": "../../etc/passwd"})
        assert refused.is_error and "[bad_path]" in refused.content[0].text


async def test_variables_code_to_judge_and_scripts_have_tools(here):
    reply = await here.ask(
        "POST", "/v1/scripts", {"name": "twice", "code": "def calculate(n): return 2 * n\nprint('ran')"}
    )
    assert reply.status == 201
    async with connected(here) as client:
        await say(client, "run_code", code="table = {'a': [1, 2]}; n = 3")
        assert await say(client, "variables") == "table: dict[1] = {'a': [1, 2]}\nn: int = 3"
        assert json.loads(await say(client, "variables", name="table"))["data"] == {"a": [1, 2]}
        assert (await client.call_tool("variables", {"name": "none"})).is_error
        assert (await say(client, "validate", code="1 + 1")).startswith("allowed")
        assert "network" in await say(client, "validate", code="import requests\nrequests.get('http://x')")
        assert "ran" in (said := await say(client, "run_script", name="twice", inputs=21)) and "value: 42" in said
        unknown = await client.call_tool("run_script", {"name": "none"})
        assert unknown.is_error and "[unknown_script]" in unknown.content[0].text


async def test_variables_of_a_kernel_that_is_busy_for_long_are_not_waited_for(fake, monkeypatch):
    """The call lasted as long as the cell, hours perhaps, and said nothing meanwhile."""
    monkeypatch.setattr(executes, "VARIABLES_SECONDS", 0.1)

    async def never(*_):
        await asyncio.get_running_loop().create_future()

    async with connected(fake) as client:
        await say(client, "run_code", code="1")
        monkeypatch.setattr(fake.manager.sessions("owner")[0], "ask", never)
        told = await client.call_tool("variables", {})
        assert told.is_error and "[not_answered]" in told.content[0].text


async def test_a_fault_of_ours_is_in_the_log_under_the_id_that_a_tool_tells(fake, monkeypatch, caplog):
    async def failing(*_):
        raise SandboxStartFailed("fake", "fork", "the details")

    async with connected(fake) as client:
        monkeypatch.setattr(fake.manager, "create_once", failing)
        told = (await client.call_tool("run_code", {"code": "1"})).content[0].text
    error_id = told.removesuffix(" [sandbox_start_failed]").rpartition(" ")[2]
    [line] = [record.getMessage() for record in caplog.records if record.name == "cellgate.gateway"]
    assert line.startswith(f"error {error_id}: ") and "the details" in line and "the details" not in told


async def test_what_was_cut_can_be_read(here):
    async with connected(here) as client:
        await say(client, "run_code", code="1")
        cut = await say(client, "run_code", code="for i in range(5000): print(i)", max_chars=1000)
        assert len(cut) <= 1000 and "characters in all" in cut
        cell = cut.partition("cell='")[2].partition("'")[0]
        whole = await say(client, "read_output", cell=cell, part="stdout", max_chars=100_000)
        assert whole.split("\n")[:5000] == [str(number) for number in range(5000)]
        part = await say(client, "read_output", cell=cell, offset=10, max_chars=200)
        assert "offset=210 reads on" in part


async def test_progress_is_told_while_a_cell_runs_and_a_cancelled_call_interrupts_it(here):
    heard: list[str | None] = []
    begun = asyncio.Event()

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)
        begun.set()

    async with connected(here) as client:
        await say(client, "run_code", code="1")
        code = "import time\nprint('step one', flush=True)\ntime.sleep(60)"
        call = asyncio.ensure_future(client.call_tool("run_code", {"code": code}, progress_callback=listen))
        await asyncio.wait_for(begun.wait(), 30)
        assert "step one" in str(heard[-1])
        await say(client, "interrupt")
        result = await asyncio.wait_for(call, 30)
        assert result.is_error and "KeyboardInterrupt" in result.content[0].text
        begun.clear()
        call = asyncio.ensure_future(client.call_tool("run_code", {"code": code}, progress_callback=listen))
        await asyncio.wait_for(begun.wait(), 30)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert await asyncio.wait_for(say(client, "run_code", code="2 + 2"), 30) == "4"


# -- by hand -----------------------------------------------------------------------------------------------


async def post(here: Gateway, message: object, session: str = "", **headers: str) -> Reply:
    named = {"Accept": "application/json", **({SESSION_HEADER: session} if session else {}), **headers}
    return await here.ask("POST", "/mcp", message, headers=named)


def call(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.mark.parametrize(("asked", "spoken"), [*((one, one) for one in VERSIONS), ("2099-01-01", VERSIONS[-1])])
async def test_a_revision_is_agreed_on(fake, asked, spoken):
    reply = await post(fake, call("initialize", protocolVersion=asked, capabilities={}, clientInfo={}))
    assert reply.json()["result"]["protocolVersion"] == spoken
    assert len(reply.headers[SESSION_HEADER]) == 32


async def test_any_gateway_knows_a_client_by_its_id(fake):
    session = "0" * 32
    said = await post(fake, call("tools/call", name="list_sessions", arguments={}), session)
    assert said.json()["result"]["content"][0]["text"] == "(no sessions)"
    assert (await post(fake, call("ping"), "not one")).status == 404
    for _ in range(2):
        await post(fake, call("tools/call", name="list_files", arguments={}), session)
    assert len(fake.manager.sessions("owner")) == 1
    assert (await fake.ask("DELETE", "/mcp", headers={SESSION_HEADER: session})).status == 204
    assert fake.manager.sessions("owner") == []


@pytest.mark.native
async def test_a_client_finds_its_variables_after_the_gateway_was_killed():
    async with served("--profile", "testing", "--end-sessions") as server:

        async def run(code: str) -> str:
            message = call("tools/call", name="run_code", arguments={"code": code})
            headers = {SESSION_HEADER: "a" * 32, "Accept": "application/json"}
            return (await server.fetch("POST", "/mcp", message, **headers)).json()["result"]["content"][-1]["text"]

        assert await run("x = 'kept'") == "[names: added x]"
        await server.kill_gateway()
        await server.wait_ready()
        assert await run("x") == "'kept'"


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, 200, -32600),
        ({"jsonrpc": "2.0", "id": 1}, 200, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]}, 200, -32602),
        (call("server/discover"), 200, -32601),
        (call("resources/list"), 200, -32601),
        (call("tools/call", name="none"), 200, -32602),
        (call("tools/call", name=["run_code"]), 200, -32602),
        (call("tools/call", name="run_code", arguments=[1]), 200, -32602),
    ],
)
async def test_what_is_no_request_is_refused(fake, message, status, code):
    reply = await post(fake, message)
    assert (reply.status, reply.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("request_id", [True, "x" * 300, 1 << 70, [1], None])
async def test_what_is_nobodys_request_is_answered_as_http_answers(fake, request_id):
    message = {"jsonrpc": "2.0" if request_id is not None else "1.0", "id": request_id, "method": "ping"}
    assert (await post(fake, message)).code == "usage"
    assert (await post(fake, {})).code == "usage"


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"code": 7}, {"code": "1", "timeout": "soon"}, {"code": "1", "timeout": -1}, {"code": "1", "colour": "red"},
        {"code": "1", "max_chars": 1}, {"code": "1", "session": "x" * 200}, {"code": "\ud800"},
        {"code": "x" * (1 << 20) + "x"},
    ],
    ids=str,
)  # fmt: skip
async def test_arguments_that_cannot_be_are_told_to_the_model(fake, arguments):
    reply = await post(fake, call("tools/call", name="run_code", arguments=arguments))
    result = reply.json()["result"]
    assert result["isError"] and "would pass" in result["content"][0]["text"]
    assert fake.manager.sessions("owner") == []


async def test_notes_are_taken_and_what_is_no_json_is_refused(fake):
    for note in ("notifications/initialized", "notifications/cancelled", "anything"):
        reply = await post(fake, {"jsonrpc": "2.0", "method": note, "params": {"requestId": 1}})
        assert (reply.status, reply.body) == (202, b"")
    assert (await post(fake, {"jsonrpc": "2.0", "id": 1, "result": {}})).status == 202
    assert (await post(fake, b"[1")).code == "bad_json"
    later = await post(fake, call("ping"), **{"MCP-Protocol-Version": "2099-01-01"})
    assert (later.status, later.json()["error"]["data"]["supported"]) == (400, list(VERSIONS))
    assert (await fake.ask("GET", "/mcp")).status == 405


async def test_nobody_reaches_anothers_session_and_who_only_watches_runs_nothing(fake):
    await fake.ask("POST", "/v1/sessions", {"name": "mine"})
    bob, watcher = fake.token("bob", Scope.EXECUTE), fake.token("owner", Scope.OBSERVE)
    body = call("tools/call", name="run_code", arguments={"code": "1", "session": "mine"})
    said = await fake.ask("POST", "/mcp", body, token=bob)
    assert "[unknown_session]" in said.json()["result"]["content"][0]["text"]
    assert (await fake.ask("POST", "/mcp", body, token=watcher)).status == 403
    assert (await fake.ask("POST", "/mcp", body, token=None)).status == 401


def test_messages_are_read():
    assert read_message({"jsonrpc": "2.0", "id": "a", "method": "m"}) == Call("a", "m")
    assert read_message({"jsonrpc": "2.0", "method": "m", "params": {"a": 1}}) == Note("m", {"a": 1})
    assert Call(1, "m", {"_meta": {"progressToken": 7}}).progress_token == 7
    assert Call(1, "m", {"_meta": []}).progress_token is None
    with pytest.raises(McpError):
        read_message({"jsonrpc": "2.0", "id": {}, "method": "m"})
