"""Where whole sessions are attacked: a real server, tenants with websockets, and a neighbour who must notice nothing.

`House` is shared by all cases of a worker, as the arena is; `Tenant` is one session under attack, whose kernel, or
whose client, is hostile.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from cellgate.wire.jupyter import Dialect, execute_content, make_message, parse_message
from cellgate_kernel.message import CHANNELS, Channel, join_v1
from tests.native.seen import names_of_groups
from tests.support.server import BOUND, Server, until

__all__ = ["House", "Line", "Outcome", "Tenant", "house_of"]

MiB = 1 << 20
ANSWER_SECONDS = 2.0
GROWTH_BYTES = 24 * MiB  # of the gateway, when all is over: what Python's allocator keeps of its peak
V1 = Subprotocol(str(Dialect.V1.value))
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Outcome:
    """What a client saw of one request, in order."""

    messages: list[dict[str, Any]]

    @property
    def reply(self) -> dict[str, Any]:
        (reply,) = [m for m in self.messages if m["msg_type"].endswith("_reply")]
        return reply

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = self.reply["content"]
        return content

    @property
    def status(self) -> str:
        return str(self.content["status"])

    @property
    def reason(self) -> str:
        """Why, when the gateway answered in the kernel's place."""
        return str(self.reply["metadata"].get("cellgate", {}).get("reason", ""))

    @property
    def value(self) -> str | None:
        return next(
            (m["content"]["data"]["text/plain"] for m in self.messages if m["msg_type"] == "execute_result"), None
        )

    def text(self, name: str = "stdout") -> str:
        streams = [m["content"] for m in self.messages if m["msg_type"] == "stream"]
        return "".join(content["text"] for content in streams if content["name"] == name)

    @property
    def notes(self) -> list[dict[str, Any]]:
        """What the gateway said beside."""
        facts = [m["metadata"].get("cellgate", {}) for m in self.messages]
        return [fact for fact in facts if "note" in fact]

    @property
    def kinds(self) -> list[str]:
        return [m["msg_type"] for m in self.messages]

    def check_complete(self) -> None:
        """One reply, one busy and one idle, which comes last."""
        states = [m["content"]["execution_state"] for m in self.messages if m["msg_type"] == "status"]
        assert states == ["busy", "idle"], states
        assert sum(kind.endswith("_reply") for kind in self.kinds) == 1
        assert self.kinds[-1] == "status"


class Line:
    """One websocket of a client."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.is_v1 = websocket.subprotocol == V1
        self.messages: list[dict[str, Any]] = []  # all that were received

    async def ask(self, kind: str, content: dict[str, Any], channel: Channel = Channel.SHELL, msg_id: str = "") -> str:
        msg_id = msg_id or f"h{next(_numbers)}"
        _, parts = make_message(kind, content, channel=channel, msg_id=msg_id, session="h", date="2026-01-01T00:00:00Z")
        v1 = b"".join(join_v1(CHANNELS[channel], parts))
        if self.is_v1:
            await self.websocket.send(v1)
        else:
            names = ("header", "parent_header", "metadata", "content")
            message: dict[str, Any] = {name: json.loads(bytes(part)) for name, part in zip(names, parts)}
            await self.websocket.send(json.dumps({**message, "channel": CHANNELS[channel].decode()}))
        return msg_id

    async def cell(self, code: str, **options: Any) -> str:
        return await self.ask("execute_request", execute_content(code, **options))

    async def run(self, code: str, *, seconds: float = BOUND, **options: Any) -> Outcome:
        return await self.outcome(await self.cell(code, **options), seconds)

    async def request(self, kind: str, content: dict[str, Any], channel: Channel = Channel.SHELL) -> Outcome:
        return await self.outcome(await self.ask(kind, content, channel))

    async def outcome(self, msg_id: str, seconds: float = BOUND) -> Outcome:
        await self.until(lambda: self.is_over(msg_id), seconds)
        return Outcome(self.of(msg_id))

    def of(self, msg_id: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["parent_header"].get("msg_id") == msg_id]

    def is_over(self, msg_id: str) -> bool:
        mine = self.of(msg_id)
        return any(m["msg_type"].endswith("_reply") for m in mine) and any(
            m["content"].get("execution_state") == "idle" for m in mine
        )

    async def idle(self, msg_id: str) -> None:
        """When a request of anybody's is over."""
        await self.until(lambda: any(m["content"].get("execution_state") == "idle" for m in self.of(msg_id)))

    async def until(self, is_so: Callable[[], object], seconds: float = BOUND) -> None:
        """Receive until it is so. Looks each time that something came which might end a request."""

        async def receive() -> None:
            while not is_so():
                while (await self.receive())["msg_type"] in (
                    "stream",
                    "display_data",
                    "update_display_data",
                    "comm_open",
                ):
                    pass

        await asyncio.wait_for(receive(), seconds)

    async def receive(self) -> dict[str, Any]:
        data = await self.websocket.recv()
        message: dict[str, Any]
        if self.is_v1:
            assert isinstance(data, bytes)
            message = dict(parse_message(memoryview(data)))
        else:
            message = json.loads(data if isinstance(data, str) else legacy_json(data))
        self.messages.append(message)
        return message

    async def closed(self, seconds: float = BOUND) -> tuple[int, str]:
        """With what the server closes it; (1006, "") for an end without a close frame."""

        async def receive() -> tuple[int, str]:
            try:
                while True:
                    await self.receive()
            except ConnectionClosed as error:
                return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")

        return await asyncio.wait_for(receive(), seconds)

    def reset(self) -> None:
        """As a network does that goes away."""
        self.websocket.transport.abort()


async def _close(websocket: ClientConnection) -> None:
    with suppress(AttributeError):  # asyncio's own, for a connection that was reset
        await websocket.close()


def legacy_json(data: bytes) -> str:
    """Of a binary frame: count and offsets, four bytes each, then the JSON and the buffers."""
    count = int.from_bytes(data[:4], "big")
    offsets = [int.from_bytes(data[4 * i : 4 * i + 4], "big") for i in range(1, count + 1)] + [len(data)]
    return data[offsets[0] : offsets[1]].decode()


class Tenant:
    """One session, and its clients' websockets, which are closed with it."""

    def __init__(self, house: House, kernel_id: str, stack: AsyncExitStack) -> None:
        self.house = house
        self.id = kernel_id
        self._stack = stack

    async def connect(self, session_id: str = "", *, legacy: bool = False, query: str = "", **options: Any) -> Line:
        url = self.house.server.channels_url(self.id, session_id) + query
        subprotocols = None if legacy else [V1]
        websocket = await connect(url, subprotocols=subprotocols, compression=None, max_size=None, **options)
        self._stack.push_async_callback(_close, websocket)
        return Line(websocket)

    async def model(self) -> dict[str, Any]:
        """As the server shows it."""
        model: dict[str, Any] = (await self.house.server.fetch("GET", f"/api/kernels/{self.id}")).json()
        return model


class House:
    """A server and a neighbour on it. Made and closed by the fixture."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def begin(self) -> None:
        async with AsyncExitStack() as stack:
            self.neighbour = await self._create(stack)
            line = await self.neighbour.connect()
            assert (await line.run("secret = 'of the neighbour'")).status == "ok"
        self.is_restarted()

    def is_restarted(self) -> None:
        """By the case itself: what is looked at afterwards is the gateway of now."""
        self._gateway = self.server.gateway_pid()
        self._rss = self.rss()

    @asynccontextmanager
    async def tenant(self, **wish: object) -> AsyncIterator[Tenant]:
        async with AsyncExitStack() as stack:
            yield await self._create(stack, **wish)

    async def _create(self, stack: AsyncExitStack, **wish: object) -> Tenant:
        reply = await self.server.fetch("POST", "/api/kernels", wish)
        assert reply.status == 201, reply
        return Tenant(self, reply.json()["id"], stack)

    def rss(self) -> int:
        """Of the gateway, in bytes."""
        pages = int(Path(f"/proc/{self.server.gateway_pid()}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # -- after every case

    async def check(self) -> None:
        assert self.server.gateway_pid() == self._gateway, "another gateway has taken its place"
        async with AsyncExitStack() as stack:
            line = await (Tenant(self, self.neighbour.id, stack)).connect()
            begin = time.monotonic()
            assert (await line.run("secret")).value == "'of the neighbour'"
            fresh = await self._create(stack)
            assert (await (await fresh.connect()).run("1+1")).value == "2"
            assert time.monotonic() - begin < 2 * ANSWER_SECONDS
        for kernel in (await self.server.fetch("GET", "/api/kernels")).json():
            if kernel["id"] != self.neighbour.id:
                assert (await self.server.fetch("DELETE", f"/api/kernels/{kernel['id']}")).status == 204
        await until(lambda: len(names_of_groups(self.server.warden_pid())) == 1)
        assert "Traceback" not in self.server.log(), self.server.log()[-5000:]
        grown, self._rss = self.rss() - self._rss, max(self.rss(), self._rss)
        assert grown < GROWTH_BYTES, f"the gateway has grown by {grown >> 20} MiB"


@asynccontextmanager
async def house_of(server: Server) -> AsyncIterator[House]:
    """For a case that needs a server of its own."""
    house = House(server)
    await house.begin()
    yield house
    await house.check()
