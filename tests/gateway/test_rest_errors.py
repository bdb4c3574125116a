"""Every error has one shape and a stable code; faults of ours and secrets are in no answer, and no secret in a log."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.errors import (
    CellgateError,
    Draining,
    DriverUnavailable,
    Fault,
    LimitError,
    LinkClosed,
    SandboxGone,
    SandboxStartFailed,
    ServerFull,
    StorageFull,
    TooManySessions,
    UnknownKernel,
    UsageError,
)
from cellgate.gateway.base import ANSWERS, CODES, MAX_BODY_BYTES, MAX_DRAINED_BYTES, plain_facts, problem_of
from cellgate.gateway.bodies import MAX_DEPTH, BadJson, read_object, text_of
from cellgate.sandbox.certificate import DeathCertificate, Reason
from tests.support.gateway import TOKEN, gateway

SECRET = "/var/lib/cellgate/secret"


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


# -- how errors are told -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (DriverUnavailable("native", SECRET, SECRET), 503, "5"),
        (SandboxStartFailed("native", SECRET, SECRET, SECRET), 503, "5"),
        (StorageFull(SECRET), 507, None),
        (ServerFull(7), 503, "10"),
        (Draining(), 503, "5"),
        (TooManySessions(7), 429, "10"),
        (SandboxGone("7"), 503, "5"),
        (LinkClosed("the link"), 503, "5"),
        (CellgateError(), 500, None),
        (RuntimeError(SECRET), 500, None),
        (OSError(5, SECRET), 500, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_what_goes_wrong_is_told_by_its_code_and_logged_once_if_it_is_ours(
    here, monkeypatch, caplog, error, status, retry
):
    async def fail(*_):
        raise error

    monkeypatch.setattr(here.manager, "create", fail)
    reply = await here.ask("POST", "/api/kernels")
    said = reply.json()
    assert said.keys() == {"code", "message", "fault", "facts", "reason"}
    assert said["fault"] == getattr(error, "fault", Fault.OURS).value
    assert (reply.status, said["code"]) == (status, getattr(error, "code", "internal"))
    assert reply.headers.get("Retry-After") == retry
    assert SECRET not in reply.body.decode() and "Traceback" not in reply.body.decode()
    logged = [record.getMessage() for record in caplog.records if record.name == "cellgate.gateway"]
    hides_detail = ANSWERS[said["code"]][1] is not None
    assert len(logged) == hides_detail
    if found := re.search("under (.{8})$", said["message"]):
        assert f"error {found[1]}: POST /api/kernels" in logged[0]


def test_the_facts_of_an_error_are_plain_and_bounded():
    assert plain_facts(LimitError("pids", 0, "16")) == {"name": "pids", "value": 0, "accepted": "16"}
    for value in ("x" * 10_000, [["x" * 10_000]], 10**4000, {"a\x1b": 1e300}):
        told = plain_facts(LimitError("pids", value, "16"))["value"]
        assert isinstance(told, str) and len(told) <= 200 and told.isprintable()
    assert plain_facts(UnknownKernel("x", ("a", "b\n"))) == {"name": "x", "known": ["a", "b\\n"]}
    certificate = DeathCertificate(Reason.OOM)
    assert plain_facts(SandboxGone("7", certificate))["certificate"] == certificate.to_json()
    assert plain_facts(UsageError("its text says all")) == {}


def every_error(of: type[CellgateError] = CellgateError) -> set[type[CellgateError]]:
    return {of}.union(*(every_error(sub) for sub in of.__subclasses__()))


EVERY_ERROR = sorted(every_error(), key=lambda kind: kind.code)


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=[kind.code for kind in EVERY_ERROR])
def test_a_fault_of_ours_is_told_in_its_own_words_only_where_they_hold_nothing_of_the_host(kind):
    error = kind.__new__(kind)
    for name in kind.__dataclass_fields__:
        setattr(error, name, SECRET if name != "known" else ())
    if kind.code in ANSWERS or kind.fault is Fault.OURS:
        problem = problem_of(error if kind.code != "sandbox_gone" else SandboxGone("7"), "0")
        assert problem.code in CODES and CODES[problem.code] == problem.status
        if kind.fault is Fault.OURS and kind.code not in ("server_full", "draining"):
            assert SECRET not in json.dumps(problem.to_json())
    else:
        assert problem_of(error).code == "internal"


def test_every_code_in_the_table_is_an_errors():
    assert set(ANSWERS) <= {kind.code for kind in EVERY_ERROR}


@pytest.mark.parametrize("token", [TOKEN, None, "wrong"])
async def test_every_answer_bears_the_headers_that_keep_pages_apart(here, monkeypatch, token):
    async def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(here.manager, "create", fail)
    for method, path in (
        ("GET", "/api"),
        ("GET", "/none"),
        ("POST", "/api/kernels"),
        ("PUT", "/api"),
        ("GET", "/login"),
    ):
        reply = await here.ask(method, path, b"" if method != "GET" else None, token=token)
        assert "Server" not in reply.headers
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["Referrer-Policy"] in ("no-referrer", "same-origin")


async def test_a_method_that_is_not_for_a_path_is_told_those_that_are(here):
    reply = await here.ask("PUT", "/api/kernels", b"")
    assert (reply.status, reply.code, reply.headers["Allow"]) == (405, "method_not_allowed", "GET, HEAD, POST")
    reply = await here.ask("HEAD", "/v1/run")
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    assert (await here.ask("TRACE", "/api/kernels")).status == 405


# -- bodies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"7",
        b"\xff\xfe",
        b'{"name": "a", "name": "b"}',
        b'{"limits": {"pids": NaN}}',
        b'{"limits": {"pids": Infinity}}',
        b'{"limits": {"pids": 1e999}}',
        b'{"limits": {"pids": ' + b"9" * 5000 + b"}}",
        b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"a": ' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
        b'{"name": "python3"} {}',
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_a_body_that_is_no_plain_json_object_is_refused(here, body):
    reply = await here.ask("POST", "/api/kernels", body)
    assert (reply.status, reply.code) == (400, "bad_json")
    assert "would pass" in reply.json()["message"]


@given(st.binary())
def test_any_bytes_are_an_object_or_refused(body):
    try:
        assert isinstance(read_object(body), dict)
    except BadJson as error:
        assert len(error.text()) < 200


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_an_object_is_read_as_it_is(fields):
    assert read_object(json.dumps(fields).encode()) == fields


def test_text_is_a_line_that_can_be_shown():
    assert text_of({"name": "Zoë's notebook №1 🙂"}, "name", max_chars=30) == "Zoë's notebook №1 🙂"
    assert text_of({}, "name", max_chars=30, default="x") == text_of({"name": None}, "name", max_chars=1, default="x")


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 2 << 20, MAX_DRAINED_BYTES])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_that_is_too_long_is_read_to_its_end_and_refused(here, size, is_chunked):
    """Who sends it hears why, where a connection that is cut off tells nothing."""
    reply = await asyncio.to_thread(send, here.port, size, is_chunked)
    assert b"413" in reply.split(b"\r\n")[0 if not reply.startswith(b"HTTP/1.1 100") else 2]
    assert b"too_large" in reply
    assert (await here.ask("POST", "/api/kernels", b" " * MAX_BODY_BYTES)).status == 201


def send(port: int, size: int, is_chunked: bool) -> bytes:
    how = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
    head = f"POST /api/kernels?token={TOKEN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{how}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head)
        for at in range(0, size, 1 << 20):
            piece = b" " * min(1 << 20, size - at)
            client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            client.sendall(b"0\r\n\r\n")
        said = b""
        while piece := client.recv(65536):
            said += piece
        return said


async def test_nothing_is_read_of_whoever_is_not_let_in(here):
    """A megabyte that was announced and never comes keeps nobody from an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(b"POST /api/kernels HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    assert b"401" in await asyncio.wait_for(reader.readline(), 30)
    writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Transfer-Encoding: gzip, chunked",
        b"Content-Length: -1",
        b"Content-Length: 2x",
    ],
)
async def test_a_body_whose_end_two_readers_could_see_differently_is_refused(here, head):
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(f"POST /api/kernels?token={TOKEN} HTTP/1.1\r\nHost: x\r\n".encode() + head + b"\r\n\r\n{}")
    assert b"400" in await asyncio.wait_for(reader.readline(), 30)
    writer.close()
    assert here.manager.sessions("owner") == []


# -- logs ----------------------------------------------------------------------------------------------


async def test_no_log_holds_a_token_or_a_line_of_the_clients_making(here, monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    async def fail(*_):
        raise RuntimeError("a fault\nof ours")

    monkeypatch.setattr(here.manager, "create", fail)
    await here.ask("POST", f"/api/kernels?token={TOKEN}", b"", token=None)
    await here.ask("GET", f"/api/none%0aforged%1b[31m?token={TOKEN}", token=None)
    await here.ask("GET", "/api/kernels/a%0ab?token=wrong-token", token=None)
    await here.ask("GET", f"/api/kernels?token={TOKEN}%00%ff", token=None)
    await here.ask("GET", f"/?token={TOKEN}", token=None)
    await here.ask("POST", "/login", f"token={TOKEN}".encode(), token=None)
    _reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(f"GET /api/\x1b[31m\x01forged?token={TOKEN} HTTP/1.1\r\nHost: x\r\nX: \x00{TOKEN}\r\n\r\n".encode())
    await asyncio.wait_for(_reader.read(), 30)
    writer.close()
    lines = [record.getMessage() for record in caplog.records if record.name != "asyncio"]
    assert len(lines) >= 6
    assert not [line for line in lines if TOKEN in line or "wrong-token" in line]
    assert not [line for line in lines if re.search(r"[\x00-\x1f\x7f]", line)]
