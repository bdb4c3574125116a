"""Files of a session over HTTP, over real sandboxes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import quote

import pytest

from cellgate.gateway.v1.files import asked_range
from cellgate.live.files import MAX_LISTED, PIECE_BYTES
from tests.support.drivers import driver_params, open_driver
from tests.support.gateway import TOKEN, Gateway, Reply, gateway
from tests.support.live import Client
from tests.support.server import served

MiB = 1 << 20


@dataclass
class Session:
    here: Gateway
    id: str
    driver: str
    mounts: frozenset[str] = frozenset()  # what a sandbox finds in its work directory, where this checkout lies there

    async def ask(self, method: str, path: str = "", body: object = None, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            named.setdefault("Content-Type", "application/octet-stream")
        return await self.here.ask(method, f"/v1/sessions/{self.id}/{path}", body, headers=named)

    async def put(self, path: str, data: bytes) -> Reply:
        return await self.ask("PUT", f"files/{path}", data)

    async def names(self, path: str = "") -> list[str]:
        reply = await self.ask("GET", f"files?path={quote(path)}")
        assert reply.status == 200, reply.body
        return [entry["name"] for entry in reply.json()["entries"] if entry["name"] not in self.mounts]

    @property
    def live(self):
        return self.here.manager.find("owner", self.id)

    async def run(self, code: str) -> None:
        """Start a cell of the session, and see its reply."""
        answer = await asyncio.wait_for(self.live.ask("execute_request", _cell(code)), 30)
        assert answer.content["status"] == "ok", answer.content


def _cell(code: str) -> dict:
    return {"code": code, "silent": True, "store_history": False, "user_expressions": {}, "allow_stdin": False}


@pytest.fixture(params=driver_params(["process", "native"]))
async def session(request, tmp_path):
    async with gateway(tmp_path, open_driver=lambda: open_driver(request.param)) as here:
        reply = await here.ask("POST", "/v1/sessions", {})
        assert reply.status == 201, reply.body
        session = Session(here, reply.json()["id"], request.param)
        await session.live.started()
        session.mounts = frozenset(await session.names())
        yield session


async def test_a_file_goes_in_and_comes_out(session):
    data = os.urandom(3 * PIECE_BYTES + 17)
    reply = await session.put("a/b/data.bin", data)
    assert (reply.status, reply.json()["size"], reply.json()["type"]) == (200, len(data), "file")
    fetched = await session.ask("GET", "files/a/b/data.bin")
    assert (fetched.status, fetched.body) == (200, data)
    assert await session.names("a/b") == ["data.bin"]
    again = await session.put("a/b/data.bin", b"")
    assert (again.status, again.json()["size"]) == (200, 0)
    assert (await session.ask("GET", "files/a/b/data.bin")).body == b""
    assert (await session.ask("DELETE", "files/a/b/data.bin")).status == 204
    assert await session.names("a/b") == []


async def test_a_download_is_kept_as_a_file_and_runs_nowhere(session):
    await session.put(quote('<b>ä".html'), b"<script>alert(1)</script>")
    headers = (await session.ask("GET", "files/" + quote('<b>ä".html'))).headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert headers["Content-Disposition"] == (
        "attachment; filename=\"_b___.html\"; filename*=UTF-8''%3Cb%3E%C3%A4%22.html"
    )


async def test_head_tells_what_something_is(session):
    entry = (await session.put("d/f", b"12345")).json()
    reply = await session.ask("HEAD", "files/d/f")
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "5")
    assert (reply.headers["Cellgate-Type"], reply.headers["ETag"]) == ("file", f'"{entry["version"]}"')
    assert (await session.ask("HEAD", "files/d")).headers["Cellgate-Type"] == "directory"
    assert (await session.ask("HEAD", "files/nothing")).status == 404
    assert (await session.ask("GET", "files/d/f", If_None_Match=f'"{entry["version"]}"')).status == 304


async def test_a_part_of_a_file_is_fetched(session):
    entry = (await session.put("f", b"0123456789")).json()
    reply = await session.ask("GET", "files/f", Range="bytes=3-5")
    assert (reply.status, reply.body, reply.headers["Content-Range"]) == (206, b"345", "bytes 3-5/10")
    assert (await session.ask("GET", "files/f", Range="bytes=7-")).body == b"789"
    assert (await session.ask("GET", "files/f", Range="bytes=-2")).body == b"89"
    beyond = await session.ask("GET", "files/f", Range="bytes=10-")
    assert (beyond.status, beyond.code, beyond.headers["Content-Range"]) == (416, "bad_range", "bytes */10")
    other = await session.ask("GET", "files/f", Range="bytes=3-5", If_Range='"other"')
    assert (other.status, other.body) == (200, b"0123456789")
    same = await session.ask("GET", "files/f", Range="bytes=3-5", If_Range=f'"{entry["version"]}"')
    assert same.status == 206


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None), ("", None), ("bytes=-", None), ("bytes=1-2,4-5", None), ("lines=1-2", None), ("bytes=5-2", None),
        ("bytes=0-0", (0, 1)), ("bytes=2-", (2, 8)), ("bytes=2-99", (2, 8)), ("bytes=-99", (0, 10)),
        ("bytes=10-", IndexError), ("bytes=-0", IndexError), ("bytes=" + "9" * 18 + "-", IndexError),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)  # fmt: skip
def test_ranges_are_read_as_http_has_them(header, wanted):
    if wanted is IndexError:
        with pytest.raises(IndexError):
            asked_range(header, 10)
    else:
        assert asked_range(header, 10) == wanted


async def test_directories_are_made_listed_moved_and_removed(session):
    made = await session.ask("POST", "files", {"make_directory": "x/y"})
    assert (made.status, made.json()["type"]) == (201, "directory")
    await session.put("x/y/f", b"1")
    moved = await session.ask("POST", "files", {"rename": "x/y", "to": "z"})
    assert (moved.status, moved.json()["name"]) == (200, "z")
    assert sorted(await session.names()) == ["x", "z"]
    refused = await session.ask("DELETE", "files/z")
    assert (refused.status, refused.code) == (409, "not_empty")
    assert (await session.ask("DELETE", "files/z?recursive=true")).status == 204
    assert await session.names() == ["x"]


async def test_a_long_list_comes_in_parts(session):
    await session.run(f"import os; os.mkdir('d')\nfor i in range({MAX_LISTED + 5}): open(f'd/{{i:04}}', 'w').close()")
    first = (await session.ask("GET", "files?path=d")).json()
    assert (len(first["entries"]), first["more"]) == (MAX_LISTED, True)
    rest = (await session.ask("GET", f"files?path=d&after={first['entries'][-1]['name']}")).json()
    assert (len(rest["entries"]), rest["more"]) == (5, False)
    assert len((await session.ask("GET", "files?path=d&max=3")).json()["entries"]) == 3


@pytest.mark.parametrize("kind", ["tar", "zip"])
async def test_a_directory_goes_out_and_in_as_an_archive(session, kind):
    data = os.urandom(2 * MiB)
    await session.put("tree/sub/data", data)
    await session.put("tree/small", b"x")
    packed = await session.ask("GET", f"archive?path=tree&format={kind}")
    assert packed.status == 200
    assert packed.headers["Content-Disposition"].startswith(f'attachment; filename="tree.{kind}"')
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(packed.body)) as archive:
            assert archive.read("sub/data") == data
    else:
        with tarfile.open(fileobj=io.BytesIO(packed.body)) as archive:
            assert archive.extractfile("sub/data").read() == data
    unpacked = await session.ask("PUT", f"archive?path=new/place&format={kind}", packed.body)
    assert (unpacked.status, unpacked.json()) == (200, {"entries": 3, "bytes": 2 * MiB + 1})
    assert (await session.ask("GET", "files/new/place/sub/data")).body == data
    assert sorted(await session.names("new/place")) == ["small", "sub"]


HOSTILE_PATHS = [
    "..", "../x", "a/../../x", "%2e%2e%2fx", "a%2f..%2f..%2fx", "a//b", "a%00b", "/etc/passwd", "%2Fetc%2Fpasswd",
    "x" * 300, "a/" * 2100 + "x", "f/", "f/inside", "link", "link/passwd", "~root/x", "..%5c..%5cx", "․․/x",
]  # fmt: skip
ODD_NAMES = HOSTILE_PATHS[-3:]


async def test_a_path_leads_nowhere_else(session):
    await session.put("f", b"x")
    await session.run("import os; os.symlink('/etc', 'link')")
    before = await session.names()
    for path in HOSTILE_PATHS:
        for method, body in (("GET", None), ("HEAD", None), ("DELETE", None), ("PUT", b"bad")):
            if (path == "link" and method in ("DELETE", "PUT")) or (path in ODD_NAMES and method == "PUT"):
                continue  # the link itself is the session's own, and such a name is like any other
            reply = await session.ask(method, "files/" + quote(path, safe="/%"), body)
            assert reply.status in (400, 404, 409), (path, method, reply.status, reply.body)
            assert b"root:" not in reply.body
    assert await session.names() == before


async def test_what_looks_like_a_file_is_not_waited_for(session):
    await session.run("import os, socket; os.mkfifo('pipe'); s = socket.socket(socket.AF_UNIX); s.bind('socket')")
    for name in ("pipe", "socket"):
        reply = await session.ask("GET", f"files/{name}")
        assert (reply.status, reply.code) == (409, "not_a_file")


async def test_a_sparse_file_is_listed_and_not_sent(session):
    await session.run("import os; os.truncate(os.open('sparse', os.O_CREAT | os.O_RDWR), 60 << 20)")
    entries = (await session.ask("GET", "files")).json()["entries"]
    assert {entry["name"]: entry["size"] for entry in entries}["sparse"] == 60 << 20
    session.live._spec = _with_file_bytes(session.live._spec, 16 << 20)
    reply = await session.ask("GET", "files/sparse")
    assert (reply.status, reply.code) == (413, "file_too_large")
    assert reply.json()["facts"]["file_bytes"] == 16 << 20
    part = await session.ask("GET", "files/sparse", Range="bytes=1000000-1000009")
    assert (part.status, part.body) == (206, bytes(10))


def _with_file_bytes(spec, count):
    return replace(spec, limits=replace(spec.limits, file_bytes=count))


async def test_an_upload_that_is_too_large_is_refused_and_nothing_is_left(session):
    session.live._spec = _with_file_bytes(session.live._spec, 1 * MiB)
    refused = await session.put("big", bytes(2 * MiB))
    assert (refused.status, refused.code) == (413, "file_too_large")
    assert refused.json()["facts"] == {"path": "big", "file_bytes": MiB}
    assert await session.names() == []


async def test_a_full_workspace_is_told_with_its_figures_and_nothing_is_left(session):
    if session.driver == "process":
        pytest.skip("driver does not promise this: a workspace has no quota of its own")
    limit = session.live.limits["workspace_bytes"]
    await session.run(f"open('filler', 'wb').write(bytes({limit} - (2 << 20)))")
    for method, path in (("PUT", "files/big"), ("PUT", "archive?format=tar")):
        refused = await session.ask(method, path, bytes(4 * MiB))
        assert (refused.status, refused.code) == (507, "disk_full"), refused.body
        assert refused.json()["facts"]["workspace_bytes"] == limit
    assert await session.names() == ["filler"]
    assert (await session.put("small", b"x")).status == 200


async def test_a_workspace_without_inodes_is_told_so(session):
    if session.driver == "process":
        pytest.skip("driver does not promise this: a workspace has no quota of its own")
    await session.run("import os; os.mkdir('many')")
    await session.run("try:\n    for i in range(10**5): open(f'many/{i}', 'w').close()\nexcept OSError: pass")
    refused = await session.put("one-more", b"x")
    assert (refused.status, refused.code) == (507, "disk_full")
    assert refused.json()["facts"]["free_inodes"] == 0
    assert (await session.ask("DELETE", "files/many?recursive=true")).status == 204
    assert (await session.put("one-more", b"x")).status == 200


async def test_a_directory_that_its_owner_closed_is_told_so(session):
    if session.driver == "process":
        pytest.skip("driver does not promise this: it runs as root here, to whom nothing is closed")
    await session.run("import os; os.mkdir('closed'); open('closed/x', 'w').close(); os.chmod('closed', 0)")
    for method, path, body in (
        ("GET", "files?path=closed", None),
        ("GET", "files/closed/x", None),
        ("PUT", "files/closed/y", b"y"),
    ):
        refused = await session.ask(method, path, body)
        assert (refused.status, refused.code) == (409, "not_permitted"), (path, refused.body)
    assert (await session.ask("GET", "archive")).status == 200  # what cannot be read is left out


async def test_an_archive_that_is_refused_is_told_why(session):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        link = tarfile.TarInfo("evil")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    refused = await session.ask("PUT", "archive", buffer.getvalue())
    assert (refused.status, refused.code) == (422, "bad_archive")
    assert refused.json()["facts"]["entry"] == "evil"
    assert await session.names() == []
    assert (await session.ask("PUT", "archive?format=rar", b"x")).status == 422
    assert (await session.ask("GET", "archive?format=rar")).status == 422
    assert (await session.ask("GET", "archive?path=nothing")).status == 404


async def test_files_are_there_while_a_cell_runs(session):
    client = Client(session.live)
    cell = client.ask("import time; time.sleep(60)")
    await client.until(lambda: ("status", "busy") in client.shown())
    await session.put("meanwhile", b"1")
    assert await session.names() == ["meanwhile"]
    await session.ask("POST", "interrupt")
    assert (await client.outcome(cell)).status == "error"


async def test_a_workspace_that_code_removed_is_told_so(session):
    if session.driver != "process":
        pytest.skip("driver does not promise this: the work directory is a mount")
    await session.run("import os, shutil; shutil.rmtree(os.getcwd())")
    reply = await session.ask("GET", "files/x")
    assert (reply.status, reply.code) == (410, "workspace_gone")


async def test_what_was_sent_half_is_not_there(session):
    _, writer = await asyncio.open_connection("127.0.0.1", session.here.port)
    head = f"PUT /v1/sessions/{session.id}/files/half HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: token {TOKEN}\r\n"
    writer.write(f"{head}Content-Length: {4 * MiB}\r\n\r\n".encode() + bytes(2 * MiB))
    await writer.drain()
    while not await session.names():  # until the first pieces have come; bounded by the suite's timeout
        pass
    writer.close()
    while await session.names():
        pass


@pytest.mark.native
async def test_a_kill_in_the_middle_of_an_upload_leaves_the_file_as_it_was():
    async with served("--profile", "testing", "--end-sessions") as server:
        base = f"/v1/sessions/{(await server.fetch('POST', '/v1/sessions')).json()['id']}/files"
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for body, length, seen in ((b"as it was", 9, "f"), (bytes(2 * MiB), 4 * MiB, ".cellgate-")):
            head = f"PUT {base}/f HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: token {server.token}\r\n"
            writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
            names: list[str] = []
            while not any(name.startswith(seen) for name in names):  # bounded by the suite's timeout
                names = [entry["name"] for entry in (await server.fetch("GET", base)).json()["entries"]]
        await server.kill_gateway()
        await server.wait_ready()
        assert (await server.fetch("GET", f"{base}/f")).body == b"as it was"
        writer.close()


async def test_a_file_that_changes_while_it_is_read_is_broken_off(session):
    await session.run("open('f', 'wb').write(bytes(8 << 20))")
    reader, writer = await asyncio.open_connection("127.0.0.1", session.here.port, limit=1 << 16)
    head = f"GET /v1/sessions/{session.id}/files/f HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: token {TOKEN}\r\n\r\n"
    writer.write(head.encode())
    assert b"200" in await reader.readline()
    await session.run("open('f', 'ab').write(b'more')")
    got = 0
    while chunk := await reader.read(1 << 16):
        got += len(chunk)
    assert got < 8 << 20
    writer.close()


async def test_a_body_that_does_not_say_its_length_is_taken_and_bounded(session):
    session.live._spec = _with_file_bytes(session.live._spec, MiB)
    for count, status in ((3, b"200"), (40, b"413")):
        reader, writer = await asyncio.open_connection("127.0.0.1", session.here.port)
        head = f"PUT /v1/sessions/{session.id}/files/f{count} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        writer.write(f"{head}Authorization: token {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(count):
            writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        writer.write(b"0\r\n\r\n")
        assert status in await reader.readline()
        writer.close()
    assert await session.names() == ["f3"]


async def test_a_client_that_takes_nothing_is_let_go(session):
    session.live.session.limits = replace(session.live.session.limits, client_stall_seconds=1.0)
    await session.run("open('f', 'wb').write(bytes(24 << 20))")
    reader, writer = await asyncio.open_connection("127.0.0.1", session.here.port, limit=1 << 16)
    head = f"GET /v1/sessions/{session.id}/files/f HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: token {TOKEN}\r\n\r\n"
    writer.write(head.encode())
    assert b"200" in await reader.readline()
    await asyncio.sleep(3)  # what is measured: longer than one may take nothing
    got = 0
    with suppress(ConnectionResetError):
        while chunk := await reader.read(1 << 16):
            got += len(chunk)
    assert got < 24 << 20
    writer.close()


async def test_an_unknown_session_and_somebody_elses_are_told_alike(session):
    from cellgate.access.scopes import Scope

    other = session.here.token("bob", Scope.FILES)
    for method, path, body in (
        ("GET", "files", None), ("GET", "files/x", None), ("PUT", "files/x", b"data"), ("DELETE", "files/x", None),
        ("GET", "archive", None), ("PUT", "archive", b"data"), ("POST", "files", {"make_directory": "x"}),
    ):  # fmt: skip
        for session_id in (session.id, "nothing"):
            reply = await session.here.ask(method, f"/v1/sessions/{session_id}/{path}", body, token=other)
            assert (reply.status, reply.code) == (404, "unknown_session")
    assert await session.names() == []


async def test_who_only_watches_or_runs_code_reads_and_writes_no_files(session):
    from cellgate.access.scopes import Scope

    await session.put("f", b"x")
    base = f"/v1/sessions/{session.id}/files/f"
    for scope in (Scope.OBSERVE, Scope.EXECUTE):
        watcher = session.here.token("owner", scope)
        assert (await session.here.ask("GET", base, token=watcher)).status == 403
        assert (await session.here.ask("PUT", base, b"y", token=watcher)).status == 403
    assert (await session.ask("GET", "files/f")).body == b"x"


async def test_a_hostile_kernel_host_is_believed_nothing(session, monkeypatch):
    """What answers beside hostile code may say anything at all."""
    entry = {"status": "ok", "name": "x", "type": "file", "size": 10, "modified": 0, "mode": 0, "version": "1-1-1"}
    said: list = [
        {}, {"status": "ok"}, {"status": "error"}, {"status": "error", "ename": {}},
        {"status": "ok", "entries": [7]}, {"status": "ok", "entries": {}},
        *({**entry, **odd} for odd in ({"name": 7}, {"size": -1}, {"size": 1 << 70}, {"size": "10"}, {"mode": None})),
        *({**entry, **odd} for odd in ({"modified": "now"}, {"version": "1\r\nSet-Cookie: x"}, {"modified": 1e308})),
        {"status": "error", "ename": "disk_full", "facts": {"free_bytes": "x"}},
    ]  # fmt: skip

    class Liar:
        buffers = (b"z" * (PIECE_BYTES + 1),)
        content: dict = {}

    async def lie(*_args, **_options):
        return Liar

    monkeypatch.setattr(session.live, "ask", lie)
    for content in said:
        Liar.content = json.loads(json.dumps(content))
        for path in ("files", "files/x"):
            reply = await session.ask("GET", path)
            assert reply.status in (502, 507), (content, reply.status, reply.body)
            assert "Set-Cookie" not in reply.headers


async def test_a_transfer_takes_little_memory_and_keeps_nobody_waiting(session):
    """The same with 500 MB is measured in `bench/`; here the pieces are counted."""
    import psutil

    me = psutil.Process()
    await session.run("open('f', 'wb').write(bytes(24 << 20))")
    before = me.memory_info().rss
    reader, writer = await asyncio.open_connection("127.0.0.1", session.here.port, limit=1 << 16)
    head = f"GET /v1/sessions/{session.id}/files/f HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: token {TOKEN}\r\n\r\n"
    writer.write(head.encode())
    assert b"200" in await reader.readline()
    assert (await session.here.ask("GET", "/healthz")).status == 200  # while nobody reads
    assert me.memory_info().rss - before < 16 * MiB
    got = 0
    while got < 24 << 20:
        got += len(await reader.read(1 << 16))
    writer.close()
