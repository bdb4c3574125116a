"""Requests over HTTP, to a server of the test's own that breaks off where a real one must not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from cellgate.client import AsyncClient
from cellgate.client.errors import CellgateError, ConnectionLost, InvalidRequest, ServerFault
from cellgate.client.files import AsyncFiles
from cellgate.client.http import Http, Server
from cellgate.client.runs import CELL_SECONDS
from cellgate.gateway.v1.runs import DEFAULT_SECONDS

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


@asynccontextmanager
async def answering(*answers: bytes):
    """A client of a server that gives each connection the next of these, and hangs up. The last is given again."""
    left = list(answers)
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Http(Server.at(f"http://127.0.0.1:{port}", "the-token"), timeout=5, patience=5), asked


async def test_a_request_that_nobody_answered_is_made_again_if_it_may():
    async with answering(b"", HEAD + b'{"a": 123}') as (http, asked):
        assert await http.json("GET", "/x") == {"a": 123} and len(asked) == 2
        assert b"Authorization: Bearer the-token" in asked[0]
    async with answering(b"") as (http, asked):
        with pytest.raises(ConnectionLost):
            await http.json("POST", "/x", {})
        assert len(asked) == 1


async def test_a_delete_that_had_been_done_is_done():
    gone = b'HTTP/1.1 404 Not Found\r\nContent-Length: 26\r\n\r\n{"code":"unknown_session"}'
    async with answering(b"", gone) as (http, _):
        assert await http.json("DELETE", "/x") is None
    async with answering(gone) as (http, _):
        with pytest.raises(CellgateError):
            await http.json("DELETE", "/x")


async def test_a_file_that_came_in_part_is_no_file(tmp_path):
    async with answering(HEAD + b"12345") as (http, _):
        with pytest.raises(ConnectionLost):
            await AsyncFiles(http, "s").get("name", tmp_path / "name")
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_cannot_be_written_is_no_fault_of_the_server(tmp_path):
    async with answering(HEAD + b"1234567890") as (http, _):
        with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
            await http.fetch("/x", full, on_bytes=lambda count: None)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 500 X\r\nContent-Length: 19\r\n\r\n" + b'{"code":"internal"}', ServerFault),
        (b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\n<ht>", CellgateError),
        (b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n[]", CellgateError),
        (b"nothing like HTTP\r\n\r\n", ConnectionLost),
    ],
)
async def test_whatever_is_answered_is_one_of_our_errors(answer: bytes, kind: type[CellgateError]):
    async with answering(answer) as (http, _):
        with pytest.raises(kind):
            await http.json("PUT", "/x")


async def test_who_stops_waiting_waits_no_longer():
    hears = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hears.set()
        await reader.read()  # until the other end hangs up
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asking = asyncio.create_task(Http(Server.at(f"http://127.0.0.1:{port}"), 60, 60).json("GET", "/x"))
        await hears.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asking, 10)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8890/?token=abc", (False, "127.0.0.1", 8890, "", "abc")),
        ("https://example.org", (True, "example.org", 443, "", None)),
        ("http://[::1]:9/base/", (False, "::1", 9, "/base", None)),
    ],
)
def test_a_url_is_read_as_the_server_prints_it(url: str, expected: tuple[object, ...]):
    server = Server.at(url)
    assert (server.is_secure, server.host, server.port, server.prefix, server.token) == expected
    assert "abc" not in repr(server)


@pytest.mark.parametrize("url", ["", "localhost", "ftp://x", "http://", "http://x:99999"])
def test_what_is_no_url_is_refused(url: str):
    with pytest.raises(InvalidRequest, match="would pass"):
        Server.at(url)


async def test_a_page_of_a_proxy_is_no_file_and_no_answer(tmp_path):
    """It leads to its login, or shows it."""
    elsewhere = b"HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\nContent-Length: 5\r\n\r\n<a/>\n"
    async with answering(elsewhere) as (http, asked):
        with pytest.raises(CellgateError, match="302"):
            await AsyncFiles(http, "s").get("name", tmp_path / "name")
        assert len(asked) == 1
    assert list(tmp_path.iterdir()) == []
    async with answering(HEAD + b"<!doctype>") as (http, _):
        with pytest.raises(CellgateError, match="no server of Cellgate's"):
            await http.json("GET", "/x")


@pytest.mark.parametrize(("timeout", "least"), [(None, 2 * DEFAULT_SECONDS), (100, 200)])
async def test_a_run_is_waited_for_as_long_as_its_cells_may_take(timeout, least):
    """Code that took all of its time, or `calculate` after it, was given up on while the server stopped it."""
    waited = []

    class Asked(Http):
        async def json(self, *_, timeout=None, **__):
            waited.append(timeout)
            return {}

    client = AsyncClient("http://127.0.0.1:1")
    client._http = Asked(Server.at("http://127.0.0.1:1"), timeout=1, patience=1)
    await client.run("1", timeout=timeout)
    await client.scripts.run("s", timeout=timeout)
    assert min(waited) > least and len(waited) == 2 and CELL_SECONDS == DEFAULT_SECONDS
