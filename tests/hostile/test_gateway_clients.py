"""Clients that attack the server they talk to: by HTTP, by websocket, by coming and going."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from cellgate.wire.jupyter import execute_content, make_message
from cellgate_kernel.message import CHANNELS, Channel, join_v1
from tests.hostile.house import V1, House, Line, MiB, Tenant, house_of
from tests.support.server import BOUND, served
from tests.support.websocket import frame as client_frame

MESSAGE_BYTES = 8 * MiB  # of one message of a client, by default


# -- handshakes -------------------------------------------------------------------------------------------

HANDSHAKES: dict[str, tuple[dict[str, str], set[int]]] = {
    "nothing": ({}, {401}),
    "a wrong token": ({"Authorization": "token " + "x" * 43}, {401}),
    "a short token": ({"Authorization": "token x"}, {401}),
    "no token in its place": ({"Authorization": "token "}, {401}),
    "a cookie of nobody's": ({"Cookie": "cellgate=2|1:0|x"}, {401}),
    "a foreign page": ({"Origin": "https://evil.example"}, {401, 403}),
}


@pytest.mark.parametrize("what", HANDSHAKES)
async def test_a_websocket_is_for_whoever_shows_the_token_and_comes_to_us(house: House, what: str):
    headers, statuses = HANDSHAKES[what]
    url = house.server.channels_url(house.neighbour.id).partition("?")[0]
    with pytest.raises(InvalidStatus) as raised:
        async with connect(url, additional_headers=headers, compression=None):
            pass
    assert raised.value.response.status_code in statuses


async def test_no_kernel_is_told_from_another_that_is_not_there_without_a_token(house: House):
    answers = set()
    for kernel_id in (house.neighbour.id, "00000000-0000-4000-8000-000000000000", "..%2f..", "x" * 5000):
        for method in ("GET", "DELETE"):
            reply = await house.server.fetch(method, f"/api/kernels/{kernel_id}", Authorization="")
            answers.add((reply.status, reply.body))
    assert len(answers) == 1


@pytest.mark.parametrize(
    "offered", [["x"], ["x", "y", str(V1)], [f"p{n}" for n in range(500)]], ids=["unknown", "ours last", "hundreds"]
)
async def test_whatever_subprotocols_are_offered_one_is_chosen_or_none(
    house: House, tenant: Tenant, offered: list[str]
):
    subprotocols = [Subprotocol(name) for name in offered]
    async with connect(house.server.channels_url(tenant.id), subprotocols=subprotocols, compression=None) as websocket:
        assert websocket.subprotocol == (V1 if str(V1) in offered else None)
        assert (await Line(websocket).run("1+1")).value == "2"


@pytest.mark.parametrize(
    "query", ["&session_id=%ff", "&after=%ff", "&session_id=" + "x" * 5000, "&after=" + "%22" * 1000]
)
async def test_an_address_that_makes_no_sense_is_refused_or_means_somebody_new(tenant: Tenant, query: str):
    try:
        line = await tenant.connect(query=query)
    except InvalidStatus as error:
        assert error.response.status_code == 400
    else:
        assert (await line.run("1+1")).value == "2"


# -- messages ---------------------------------------------------------------------------------------------


def v1(code: str = "1+1", **changes: object) -> bytes:
    _, parts = make_message(
        "execute_request", {**execute_content(code), **changes}, channel=Channel.SHELL, msg_id="x", session="s", date=""
    )
    return b"".join(join_v1(CHANNELS[Channel.SHELL], parts))


def legacy(**changes: object) -> str:
    header = {
        "msg_id": "x",
        "msg_type": "execute_request",
        "session": "s",
        "username": "",
        "date": "",
        "version": "5.3",
    }
    parts = {"header": header, "parent_header": {}, "metadata": {}, "content": execute_content("1")}
    return json.dumps({**parts, "channel": "shell", **changes})


BROKEN: dict[str, tuple[bool, bytes | str, int]] = {
    # legacy, what is sent, the code that it is closed with
    "text under v1": (False, legacy(), 1003),
    "nothing": (False, b"", 1007),
    "an odd length": (False, b"\1\2\3", 1007),
    "a count of nothing": (False, struct.pack("<Q", 0), 1007),
    "a count beyond the end": (False, struct.pack("<Q", 1 << 62), 1007),
    "a million offsets": (False, struct.pack("<Q", 1 << 20) + bytes(64), 1007),
    "offsets that point back": (False, struct.pack("<7Q", 6, 56, 50, 60, 40, 70, 8), 1007),
    "negative offsets": (False, struct.pack("<q6q", 6, 56, -1, -2, -3, -4, -5), 1007),
    "no channel": (False, v1().replace(b"shell", b"", 1), 1007),
    "an unknown channel": (False, v1().replace(b"shell", b"shelf", 1), 1007),
    "a header that is not UTF-8": (False, v1().replace(b'"msg_id":"x"', b'"msg_id":"\xff"'), 1007),
    "a depth of a hundred thousand": (True, '{"header":' * 100_000, 1007),
    "lists without end": (True, "[" * 100_000, 1007),
    "not a number": (True, legacy(metadata=float("nan")), 1007),
    "a key twice": (True, legacy()[:-1] + ',"channel":"shell"}', 1007),
    "a million values": (True, legacy(metadata={"x": [0] * 10**6}), 1007),
    "not an object": (True, "[]", 1007),
    "no header": (True, legacy(header={}), 1007),
    "a name of a million letters": (True, legacy(header={"msg_id": "x" * 10**6, "msg_type": "execute_request"}), 1007),
    "code that is none": (True, legacy(content={"code": 7}), 1007),
    "a cell on stdin": (True, legacy(channel="stdin"), 1008),
    "iopub": (True, legacy(channel="iopub"), 1007),
    "more than a message may have": (False, v1("x" * MESSAGE_BYTES), 1009),
    "a binary frame that is none": (True, b"\xff" * 100, 1007),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_is_no_message_closes_its_own_connection_with_a_code_and_nothing_else(tenant: Tenant, what: str):
    is_legacy, data, code = BROKEN[what]
    bad, good = await tenant.connect("bad", legacy=is_legacy), await tenant.connect("good")
    await good.run("kept = 1")
    await bad.websocket.send(data)
    assert (await bad.closed())[0] == code
    assert (await good.run("kept")).value == "1"
    again = await tenant.connect("bad", legacy=is_legacy)
    assert (await again.run("kept")).value == "1"


FRAMES: dict[str, tuple[bytes, set[int]]] = {
    # what is written to the socket, and the codes that may answer it
    "a declared gibibyte": (b"\x82\xff" + struct.pack("!Q", 1 << 30) + b"\x12\x34\x56\x78", {1009}),
    "a declared exbibyte": (b"\x82\xff" + struct.pack("!Q", 1 << 60) + b"\x12\x34\x56\x78", {1009}),
    "a length with its highest bit": (b"\x82\xff" + b"\xff" * 8 + b"\x12\x34\x56\x78", {1002, 1009}),
    "a frame without a mask": (client_frame(2, b"x", masked=False), {1002}),
    "a reserved bit, for compression": (client_frame(2, b"x", rsv=4), {1002}),
    "an opcode of nobody's": (client_frame(3, b"x"), {1002}),
    "a continuation of nothing": (client_frame(0, b"x"), {1002}),
    "a long ping": (client_frame(9, b"x" * 126), {1002}),
    "a fragmented ping": (client_frame(9, b"x", fin=False), {1002}),
    "text that is not UTF-8": (client_frame(1, b"\xff\xff"), {1003, 1007}),
    "a close code of nobody's": (client_frame(8, struct.pack("!H", 999)), {1002}),
    "fragments without end": (
        client_frame(2, b"x" * 65_536, fin=False) + client_frame(0, b"x" * 65_536, fin=False) * 200, {1009},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FRAMES)
async def test_what_is_no_websocket_is_closed_with_its_code_and_costs_no_memory(
    house: House, tenant: Tenant, what: str
):
    data, codes = FRAMES[what]
    line = await tenant.connect()
    before = house.rss()
    line.websocket.transport.write(data)
    assert (await line.closed())[0] in codes
    assert house.rss() - before < MESSAGE_BYTES + 4 * MiB


@pytest.mark.parametrize(
    "data",
    [client_frame(9, b"x" * 125) * 20_000, client_frame(10, b"\1\0\0\0\0\0\0\0") * 20_000, client_frame(0, fin=False)],
    ids=["pings", "pongs", "a fragment"],
)
async def test_floods_of_control_frames_are_swallowed_and_others_served(house: House, tenant: Tenant, data: bytes):
    """Whoever floods is answered as far as it reads, and the neighbour in its time."""
    line, neighbour = await tenant.connect(), await house.neighbour.connect()
    before = house.rss()
    if data == client_frame(0, fin=False):  # the beginning of a message, and any number of empty parts of it
        data = client_frame(2, b"x", fin=False) + data * 20_000
    line.websocket.transport.write(data)
    begin = time.monotonic()
    assert (await neighbour.run("1+1")).value == "2"
    assert time.monotonic() - begin < 1.0
    assert house.rss() - before < 8 * MiB
    line.reset()


# -- requests ---------------------------------------------------------------------------------------------

WISHES = [
    *(
        {"name": name}
        for name in ("../../x", "python3/../..", "--privileged", "{{7*7}}", "$(id)", "`id`", "a\nb", "\0")
    ),
    *({"env": {name: "1"}} for name in ("LD_PRELOAD", "PYTHONPATH", "PATH", "JPY_PARENT_PID", "", "=")),
    *({"env": {"KERNEL_UID": value}} for value in (0, None, ["0"], {"a": 1})),
    *({"env": env} for env in ([], "x", 7)),
    *({"limits": {"memory_bytes": value}} for value in (0, -1, 1 << 63, "10", None, 1e308, True)),
    *({"limits": {name: 1}} for name in ("image", "mounts", "privileged", "uid", "", "x" * 10_000)),
    {"limits": []},
    {"name": 7},
    {"name": "x" * 100_000},
]


async def test_whatever_is_wished_for_is_had_as_it_is_said_or_refused(house: House):
    """Names are looked up and limits compared; nothing of it becomes a path, an argument or a template."""
    for wish in WISHES:
        reply = await house.server.fetch("POST", "/api/kernels", wish)
        assert reply.status in (400, 404, 413, 422), (wish, reply)
        assert len(reply.body) < 1000
    unknown = {"image": "--privileged", "mounts": ["/var/run/docker.sock"], "kernel": {"id": "x"}}
    reply = await house.server.fetch("POST", "/api/kernels", unknown)
    assert (reply.status, reply.headers["Cellgate-Ignored"]) == (201, "image, kernel, mounts"), (
        "told, and not looked at"
    )
    bodies = [b"", b"{", b"[]", b"null", b"\xff", b'{"name":NaN}', b'{"a":' * 50_000, b"7", b'{"name":"x","name":"y"}']
    for body in bodies[1:]:
        status = await raw_post(house, body)
        assert status in (400, 413, 422), body[:50]


async def test_variables_of_a_kernel_are_text_and_nothing_more(house: House):
    values = {"KERNEL_A": " 0", "KERNEL_B": "{{7*7}}$(id)`id`", "KERNEL_UID": "4242"}
    async with house.tenant(env=values) as tenant:
        line = await tenant.connect()
        read = await line.run(
            f"import json, os; print(json.dumps([os.environ[n] for n in {list(values)}]), os.getuid())"
        )
        said, _, uid = read.text().rpartition(" ")
        assert json.loads(said) == list(values.values())
        assert uid.strip() != "4242"
    for value in ("0", " 0", "0x0", "00", "-1", "4294967296", "{{7*7}}"):
        assert (await house.server.fetch("POST", "/api/kernels", {"env": {"KERNEL_UID": value}})).status == 422
    assert (await house.server.fetch("POST", "/api/kernels", {"env": {"KERNEL_C": "a\nb: c"}})).status == 422


async def raw_post(house: House, body: bytes) -> int:
    head = (
        f"POST /api/kernels HTTP/1.1\r\nHost: 127.0.0.1:{house.server.port}\r\nConnection: close\r\n"
        f"Authorization: token {house.server.token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    try:
        writer.write(head.encode() + body)
        line = await asyncio.wait_for(reader.readline(), BOUND)
        return int(line.split()[1])
    finally:
        writer.close()


async def test_requests_that_are_never_finished_and_connections_that_say_nothing_keep_nobody_waiting(
    house: House, tenant: Tenant
):
    """Half a header, half a body, an answer that is not read, hundreds of idle connections, a client that vanishes."""
    head = (
        f"POST /api/kernels HTTP/1.1\r\nHost: 127.0.0.1:{house.server.port}\r\n"
        f"Authorization: token {house.server.token}\r\n"
    )
    beginnings = [
        b"",
        b"G",
        head.encode(),
        (head + "Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{").encode(),
    ]
    sockets = []
    try:
        for n in range(300):
            sock = socket.create_connection(("127.0.0.1", house.server.port))
            sock.sendall(beginnings[n % len(beginnings)])
            sockets.append(sock)
        lines = [await tenant.connect(f"idle{n}") for n in range(7)]
        begin = time.monotonic()
        neighbour = await house.neighbour.connect()
        assert (await neighbour.run("1+1")).value == "2"
        assert (await house.server.fetch("GET", "/api/status")).status == 200
        assert time.monotonic() - begin < 1.0
        assert (await lines[-1].run("1+1")).value == "2"
    finally:
        for sock in sockets:
            sock.close()


async def test_whoever_leaves_before_the_answer_leaves_a_session_that_is_listed(house: House):
    before = {kernel["id"] for kernel in (await house.server.fetch("GET", "/api/kernels")).json()}
    head = (
        f"POST /api/kernels HTTP/1.1\r\nHost: 127.0.0.1:{house.server.port}\r\n"
        f"Authorization: token {house.server.token}\r\nContent-Length: 0\r\n\r\n"
    )
    for _ in range(10):
        sock = socket.create_connection(("127.0.0.1", house.server.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(head.encode())
        sock.close()
    await house.server.fetch("POST", "/api/kernels")
    after = {kernel["id"] for kernel in (await house.server.fetch("GET", "/api/kernels")).json()}
    assert before < after
    assert len(after - before) <= 11


async def test_a_storm_of_creations_by_all_means_ends_as_it_began(house: House):
    async def in_and_out(n: int) -> None:
        reply = await house.server.fetch("POST", "/api/kernels")
        assert reply.status == 201
        tenant_id = reply.json()["id"]
        if n % 3:
            await house.server.fetch("POST", f"/api/kernels/{tenant_id}/{('interrupt', 'restart')[n % 2]}")
        assert (await house.server.fetch("DELETE", f"/api/kernels/{tenant_id}")).status == 204

    await asyncio.gather(*(in_and_out(n) for n in range(60)))


async def test_cells_interrupts_restarts_and_a_deletion_at_once_have_each_one_outcome(house: House):
    async with house.tenant() as tenant:
        line = await tenant.connect()
        cells = []
        for n in range(30):
            cells.append(await line.cell("import time; time.sleep(0.02)", stop_on_error=False))
            if n % 5 == 4:
                path = f"/api/kernels/{tenant.id}/{'interrupt' if n % 2 else 'restart'}"
                reply = await house.server.fetch("POST", path)
                assert reply.status in (200, 204)
        for cell in cells:
            outcome = await line.outcome(cell)
            outcome.check_complete()
            assert outcome.status in ("ok", "error", "aborted")
        last = await line.cell("import time; time.sleep(60)")
        assert (await house.server.fetch("DELETE", f"/api/kernels/{tenant.id}")).status == 204
        assert (await line.outcome(last)).reason in ("session_deleted", "cancelled")
        assert (await line.closed())[0] == 4001
        assert (await house.server.fetch("GET", f"/api/kernels/{tenant.id}")).status == 404


async def test_more_cells_than_may_wait_are_refused_and_the_others_run(line: Line):
    """100 may wait, in the profile `testing`."""
    cells = [await line.cell("1", stop_on_error=False) for _ in range(1)]
    cells += [await line.cell("import time; time.sleep(0.5)")]
    cells += [await line.cell("2", stop_on_error=False) for _ in range(150)]
    outcomes = [await line.outcome(cell) for cell in cells]
    for outcome in outcomes:
        outcome.check_complete()
    reasons = [outcome.reason for outcome in outcomes]
    assert set(reasons) == {"", "queue_full"}
    assert 40 <= reasons.count("queue_full") <= 60


# -- coming and going -------------------------------------------------------------------------------------


async def test_a_client_whose_network_breaks_reads_everything_once_when_it_is_back(tenant: Tenant):
    """Reset again and again in the middle of a cell; it comes back as the same client and says what it saw last."""
    line = await tenant.connect("roaming")
    cell = await line.cell("import time\nfor i in range(300): print(i, flush=True); time.sleep(0.002)")
    seen = line.messages
    for n in range(10):
        while len(seen) <= 20 * n:
            await line.receive()
        line.reset()
        line = await tenant.connect("roaming", query=f"&after={seen[-1]['header']['msg_id']}")
        line.messages = seen
    outcome = await line.outcome(cell)
    outcome.check_complete()
    assert outcome.text() == "".join(f"{i}\n" for i in range(300))
    assert len({m["header"]["msg_id"] for m in seen}) == len(seen)


async def test_of_several_clients_each_reads_at_its_own_pace(tenant: Tenant):
    """One reads, one does not, one is gone: the first is not slowed down by the others."""
    fast, slow, gone = [await tenant.connect(name) for name in ("fast", "slow", "gone")]
    gone.reset()
    outcome = await fast.run("for i in range(1000): print(str(i) * 100)")
    outcome.check_complete()
    await slow.idle(outcome.messages[0]["parent_header"]["msg_id"])
    assert [m["header"]["msg_id"] for m in slow.messages if m["channel"] == "iopub"] == [
        m["header"]["msg_id"] for m in fast.messages if m["channel"] == "iopub"
    ]


async def test_more_clients_than_a_session_may_have_are_told_to_come_again_later(tenant: Tenant):
    """8 may, in the profile `testing`."""
    for n in range(8):
        await tenant.connect(f"c{n}")
    code, reason = await (await tenant.connect("c8")).closed()
    assert (code, reason.partition(":")[0]) == (1013, "too_many_clients")
    former = await tenant.connect("c0")  # its own place
    assert (await former.run("1+1")).value == "2"


async def test_the_same_client_twice_is_the_one_that_speaks(tenant: Tenant):
    former, newer = await tenant.connect("same"), await tenant.connect("same")
    assert (await newer.run("1+1")).value == "2"
    code, reason = await former.closed()
    assert (code, reason.partition(":")[0]) == (4002, "replaced")


# -- the whole server ---------------------------------------------------------------------------------------


async def test_another_token_at_the_next_start_ends_all_that_the_former_one_had_opened():
    """Sockets go with the gateway; old tokens and cookies open no new ones, and the sessions are there."""
    first, second = "first-token-of-this-test", "second-token-of-this-test"
    flags = ("--profile", "testing", "--policy", "off")
    async with served(*flags, env={"CELLGATE_TOKEN": first}) as server, house_of(server) as house:
        line = await house.neighbour.connect()
        await server.end()
        assert (await line.closed())[0] == 1012
        await server.start("--token", second)
        assert (await server.fetch("GET", "/api/kernels", Authorization=f"token {first}")).status == 401
        server.token = second
        assert (await server.fetch("GET", "/api/kernels")).status == 200
        house.is_restarted()


async def test_a_directory_that_cannot_be_written_is_told_and_running_sessions_go_on():
    """No new sessions, with a reason that names no path of ours; and all is well when it can be written again."""
    if os.geteuid() != 0:
        pytest.skip("driver does not promise this")
    async with served("--profile", "testing", "--policy", "off") as server, house_of(server) as house:
        sessions = next(server.state_dir.rglob("sessions"))
        aside = sessions.with_name("aside")
        sessions.rename(aside)
        sessions.write_text("in its place")
        try:
            reply = await server.fetch("POST", "/api/kernels")
            assert (reply.status, reply.json()["code"]) == (507, "storage_full")
            assert str(server.state_dir) not in reply.body.decode()
            assert (await (await house.neighbour.connect()).run("1+1")).value == "2"
        finally:
            sessions.unlink()
            aside.rename(sessions)
