"""A Jupyter client's websocket: what it is asked for and says, in either dialect, and every code that closes it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from cellgate.gateway.sockets import MAX_CLIENT_BYTES, PARTINGS, TRY_AGAIN_LATER
from cellgate.live.reader import Parting
from cellgate.sandbox.fake import FakeSandbox
from cellgate.wire.jupyter import CLIENT_ERRORS, Dialect, execute_content, make_message, parse_message
from cellgate_kernel.message import CHANNELS, Channel, join_v1
from tests.support.agent import closed
from tests.support.gateway import TOKEN, Gateway, gateway
from tests.support.server import BOUND, until

V1 = Subprotocol(str(Dialect.V1.value))
_numbers = itertools.count(1)


@pytest_asyncio.fixture
async def here(tmp_path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, clients_per_session="3", client_stall_seconds="1", message_bytes="1M") as here:
        yield here


@pytest_asyncio.fixture
async def kernel(here: Gateway) -> str:
    kernel_id: str = (await here.ask("POST", "/api/kernels")).json()["id"]
    return kernel_id


def open_one(here: Gateway, kernel: str, session_id: str = "a", *, legacy: bool = False, **options: Any) -> connect:
    url = f"ws://127.0.0.1:{here.port}/api/kernels/{kernel}/channels?token={TOKEN}&session_id={session_id}"
    return connect(url, subprotocols=None if legacy else [V1], compression=None, max_size=None, **options)


def request(kind: str, content: dict[str, Any], channel: Channel = Channel.SHELL) -> tuple[str, bytes, str]:
    """A request's id, as v1 and as legacy JSON."""
    msg_id = f"m{next(_numbers)}"
    _, parts = make_message(kind, content, channel=channel, msg_id=msg_id, session="s", date="2026-01-01T00:00:00Z")
    names = ("header", "parent_header", "metadata", "content")
    objects = {name: json.loads(bytes(part)) for name, part in zip(names, parts)}
    name = CHANNELS[channel]
    return msg_id, b"".join(join_v1(name, parts)), json.dumps({**objects, "channel": name.decode()})


async def run(websocket: ClientConnection, code: str, **options: Any) -> list[dict[str, Any]]:
    """All that a cell brings, to its reply and its idle."""
    msg_id, v1, legacy = request("execute_request", execute_content(code, **options))
    await websocket.send(v1 if websocket.subprotocol else legacy)
    return await outcome(websocket, msg_id)


async def outcome(websocket: ClientConnection, msg_id: str) -> list[dict[str, Any]]:
    mine: list[dict[str, Any]] = []
    while not (
        any(m["header"]["msg_type"].endswith("_reply") for m in mine)
        and any(m["content"].get("execution_state") == "idle" for m in mine)
    ):
        data = await asyncio.wait_for(websocket.recv(), BOUND)
        message = json.loads(data) if isinstance(data, str) else dict(parse_message(memoryview(data)))
        if message["parent_header"].get("msg_id") == msg_id:
            mine.append(message)
    return mine


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(m["content"]["text"] for m in messages if m["header"]["msg_type"] == "stream")


# -- what it carries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True], ids=["v1", "legacy"])
async def test_a_cell_goes_there_and_back_in_either_dialect(here: Gateway, kernel: str, legacy: bool):
    async with open_one(here, kernel, legacy=legacy) as websocket:
        assert websocket.subprotocol == (None if legacy else V1)
        messages = await run(websocket, "print('said')\n1+1")
    kinds = [m["header"]["msg_type"] for m in messages]
    assert (kinds[0], kinds[-1]) == ("status", "status")
    assert {"execute_input", "stream", "execute_result", "execute_reply"} <= set(kinds)
    assert text_of(messages) == "said\n"
    assert [m["channel"] for m in messages if m["header"]["msg_type"] == "execute_reply"] == ["shell"]


async def test_clients_of_both_dialects_see_the_same_in_the_same_order(here: Gateway, kernel: str):
    async with open_one(here, kernel, "new") as new, open_one(here, kernel, "old", legacy=True) as old:
        msg_id, v1, _ = request("execute_request", execute_content("for i in range(50): print(i)\ni"))
        await new.send(v1)
        seen = [m for m in await outcome(new, msg_id) if m["channel"] == "iopub"]
        also = []
        while not also or also[-1]["content"].get("execution_state") != "idle":
            message = json.loads(await asyncio.wait_for(old.recv(), BOUND))
            if message["parent_header"].get("msg_id") == msg_id:
                also.append(message)
    for name in ("header", "parent_header", "metadata", "content", "channel"):
        assert [m[name] for m in also] == [m[name] for m in seen]
    assert all(m["msg_id"] == m["header"]["msg_id"] and m["msg_type"] == m["header"]["msg_type"] for m in also)


async def test_whoever_comes_back_reads_on_and_may_say_after_what(here: Gateway, kernel: str):
    async with open_one(here, kernel, "a") as websocket:
        first = await run(websocket, "print(1)")
        second = await run(websocket, "print(2)")
        websocket.transport.abort()
    del second
    async with open_one(here, kernel, f"a&after={first[-1]['header']['msg_id']}") as again:
        data = await asyncio.wait_for(again.recv(), BOUND)
        assert isinstance(data, bytes)
        said = parse_message(memoryview(data))
        assert (said["msg_type"], said["content"]) == ("status", {"execution_state": "busy"})
        assert said["parent_id"] != first[0]["parent_header"]["msg_id"]


@pytest.mark.parametrize("session_id", ["", "x" * (MAX_CLIENT_BYTES + 1)], ids=["none", "too long"])
async def test_whoever_does_not_say_who_it_is_is_somebody_new_each_time(here: Gateway, kernel: str, session_id: str):
    async with open_one(here, kernel, session_id) as one, open_one(here, kernel, session_id) as two:
        assert text_of(await run(one, "print(1)")) == "1\n"
        assert text_of(await run(two, "print(2)")) == "2\n"


async def test_names_of_any_script_are_names_and_each_is_its_own(here: Gateway, kernel: str):
    async with open_one(here, kernel, "%C3%A9") as one, open_one(here, kernel, "e%CC%81") as two:
        assert text_of(await run(one, "print(1)")) == "1\n"
        assert text_of(await run(two, "print(2)")) == "2\n"


@pytest.mark.parametrize("query", ["%ff", "a&after=%ff"])
async def test_an_address_that_is_no_text_is_refused_before_the_handshake(here: Gateway, kernel: str, query: str):
    with pytest.raises(InvalidStatus) as raised:
        async with open_one(here, kernel, query):
            pass
    assert raised.value.response.status_code == 400


async def test_a_kernel_that_is_not_there_is_told_before_the_handshake(here: Gateway):
    with pytest.raises(InvalidStatus) as raised:
        async with open_one(here, "00000000-0000-4000-8000-000000000000"):
            pass
    assert raised.value.response.status_code == 404


# -- what closes it ---------------------------------------------------------------------------------------


async def test_the_end_of_a_session_is_told_and_then_closes(here: Gateway, kernel: str):
    async with open_one(here, kernel) as websocket:
        msg_id, v1, _ = request("execute_request", execute_content("while True: pass"))
        await websocket.send(v1)
        await until(lambda: here.manager.find("owner", kernel).execution_state == "busy")
        assert (await here.ask("DELETE", f"/api/kernels/{kernel}")).status == 204
        reply = next(m for m in await outcome(websocket, msg_id) if m["msg_type"] == "execute_reply")
        assert reply["metadata"]["cellgate"]["reason"] == "session_deleted"
        assert await closed(websocket) == (4001, "session_over")


async def test_the_newer_connection_of_a_client_takes_the_place_of_the_older_when_it_speaks(here: Gateway, kernel: str):
    async with open_one(here, kernel) as former, open_one(here, kernel) as newer:
        assert text_of(await run(newer, "print(1)")) == "1\n"
        assert await closed(former) == (4002, "replaced")


async def test_a_connection_that_was_given_up_and_is_heard_of_last_does_not_take_the_place_of_the_one_that_speaks(
    here: Gateway, kernel: str
):
    """A notebook server that is a gateway's client opened two for a page, cancelled the first, which tornado does not
    do, and had its second closed: what the page said meanwhile was lost."""
    async with open_one(here, kernel) as speaker, open_one(here, kernel) as orphan:
        assert text_of(await run(speaker, "print(1)")) == "1\n"
        assert await closed(orphan) == (4002, "replaced")
        assert text_of(await run(speaker, "print(2)")) == "2\n"


async def test_who_takes_nothing_is_told_so_if_it_wakes_in_time(here: Gateway, kernel: str):
    """It holds what it has, the sockets' buffers are full, and after a second of that it is to come again."""
    live = here.manager.find("owner", kernel)
    async with open_one(here, kernel, "slow", max_queue=1) as slow, open_one(here, kernel, "fast") as fast:
        for _ in range(20):
            await run(fast, "for i in range(9): print('x' * 100_000)")
        reader = live._audience._readers[b"slow"]
        await until(lambda: reader.is_over)
        assert await closed(slow) == (4008, "too_slow")
    async with open_one(here, kernel, "slow") as again:
        assert text_of(await run(again, "print(1)")) == "1\n"


async def test_one_client_too_many_is_to_come_again_later(here: Gateway, kernel: str):
    a, b, c, d = (open_one(here, kernel, name) for name in "abcd")
    async with a, b, c, d as one_more:
        assert await closed(one_more) == (TRY_AGAIN_LATER, "too_many_clients")
    await until(lambda: here.manager.find("owner", kernel).connections == 0)
    async with open_one(here, kernel, "d") as websocket:
        assert text_of(await run(websocket, "print(1)")) == "1\n"


async def test_a_gateway_that_goes_says_that_it_comes_back(here: Gateway, kernel: str):
    async with open_one(here, kernel) as websocket:
        await run(websocket, "1")
        await here.manager.close(end_sessions=False)
        assert await closed(websocket) == (1012, "going_away")


def refused() -> dict[str, tuple[bool, bytes | str]]:
    """A frame for each row of CLIENT_ERRORS: whether its client is a legacy one, and what it sends."""
    _, v1, legacy = request("execute_request", execute_content("1"))
    message = json.loads(legacy)
    return {
        "too_large": (False, bytes((1 << 20) + 1)),
        "text_frame": (False, legacy),
        "short_message": (False, b"x"),
        "bad_count": (False, b"\xff" * 80),
        "bad_offsets": (False, v1[:8] + bytes(8) + v1[16:]),
        "bad_channel": (True, json.dumps({**message, "channel": "iopub"})),
        "bad_json": (True, legacy[:-1]),
        "bad_header": (True, json.dumps({**message, "header": {}})),
        "bad_content": (True, json.dumps({**message, "content": {}})),
        "bad_buffers": (True, json.dumps({**message, "buffers": ["x"]})),
        "wrong_channel": (True, json.dumps({**message, "channel": "stdin"})),
    }


@pytest.mark.parametrize("code", CLIENT_ERRORS)
async def test_what_is_no_message_closes_with_its_code_and_the_session_goes_on(here: Gateway, kernel: str, code: str):
    is_legacy, data = refused()[code]
    async with open_one(here, kernel, legacy=is_legacy) as websocket:
        await run(websocket, "kept = 1")
        await websocket.send(data)
        number, reason = await closed(websocket)
    assert number == CLIENT_ERRORS[code][0]
    assert reason == code or code == "too_large", "a frame that is too large is not read at all"
    async with open_one(here, kernel, legacy=is_legacy) as websocket:
        assert text_of(await run(websocket, "print(kept)")) == "1\n"


def test_every_parting_has_a_code_of_its_own_and_begins_its_reason_with_its_name():
    assert set(PARTINGS) == set(Parting)
    codes = [code for code, _ in PARTINGS.values()]
    assert len({*codes, TRY_AGAIN_LATER}) == len(codes) + 1
    for why, (_, reason) in PARTINGS.items():
        assert reason.startswith(f"{why.value}: ")
        assert len(reason.encode()) <= 123, "what a close frame has room for"


# -- holding back -----------------------------------------------------------------------------------------


async def test_a_client_that_sends_more_than_the_kernel_takes_is_read_no_further_and_loses_nothing(
    here: Gateway, kernel: str
):
    """Comms go to the kernel at once. While it takes none they wait in the link, in the session, then in the socket."""
    live = here.manager.find("owner", kernel)
    content = {"comm_id": "x", "data": "x" * 1_000_000}
    async with open_one(here, kernel) as websocket:
        await run(websocket, "1")
        sandbox = live._kernels[1].sandbox
        assert isinstance(sandbox, FakeSandbox)
        kernel_side = sandbox._kernel._stream
        assert kernel_side is not None
        kernel_side.pause()

        async def flood() -> None:
            for _ in range(200):
                await websocket.send(request("comm_msg", content)[1])

        flooding = asyncio.create_task(flood())
        await until(lambda: live.is_congested)
        sent = live.session._kernel.sent
        assert sent < 200
        kernel_side.resume()
        await asyncio.wait_for(flooding, BOUND)
        assert text_of(await run(websocket, "print(1)")) == "1\n"
        assert live.session._kernel.sent > 200
