"""A manager of sessions over any driver, and clients of its sessions, in the test's own process and without a wire."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellgate.errors import CellgateError
from cellgate.live.manager import Manager
from cellgate.live.reader import Parting
from cellgate.live.session import LiveSession
from cellgate.live.wish import Wish
from cellgate.sandbox.base import Driver, Sandbox, SandboxSpec
from cellgate.settings import read_settings
from cellgate.wire.jupyter import Dialect, Frame, JupyterMessage, execute_content, parse_message
from cellgate_kernel.message import Channel
from tests.support.stage import client_message

BOUND = 30.0  # seconds, for whatever must happen; nothing waits for it to pass
OWNER = "owner"


class Lasting:
    """A driver that outlives its managers, as a warden does that is its own service. It creates nothing while it is
    `failing`, and waits with it while it may not."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.failing: CellgateError | None = None
        self.may_create = asyncio.Event()
        self.may_create.set()

    @property
    def name(self) -> str:
        return self.driver.name

    @property
    def templates(self) -> tuple[str, ...]:
        return self.driver.templates

    async def create(self, spec: SandboxSpec) -> Sandbox:
        await self.may_create.wait()
        if self.failing is not None:
            raise self.failing
        return await self.driver.create(spec)

    async def sandboxes(self) -> list[Sandbox]:
        return await self.driver.sandboxes()

    async def ended(self) -> list[Sandbox]:
        return await self.driver.ended()

    async def close(self) -> None:
        """Left to whoever made it."""


def opener(driver: Driver) -> Callable[[], Awaitable[Driver]]:
    async def open_driver() -> Driver:
        return driver

    return open_driver


async def open_manager(directory: Path, open_driver: Callable[[], Awaitable[Driver]], **flags: object) -> Manager:
    """With the profile `testing` and these settings. Whoever opened it owes a `close`."""
    texts = {name: str(value) for name, value in {"profile": "testing", **flags}.items()}
    return await Manager.open(read_settings(flags=texts, environ={}, file={}), open_driver, directory=directory)


async def create(manager: Manager, principal: str = OWNER, wish: Wish | None = None) -> LiveSession:
    """A session whose kernel runs."""
    live = await manager.create(principal, wish or Wish())
    await live.started()
    return live


@dataclass(frozen=True)
class Outcome:
    """What a client saw of one cell, from busy to idle."""

    reply: dict[str, Any]
    messages: list[JupyterMessage]

    @property
    def status(self) -> str:
        return str(self.reply["content"]["status"])

    @property
    def reason(self) -> str:
        """Why, if the gateway said so in its kernel's place."""
        return str(self.reply["metadata"].get("cellgate", {}).get("reason", ""))

    @property
    def text(self) -> str:
        return text_of(self.messages)

    @property
    def value(self) -> str | None:
        for message in self.messages:
            if message["msg_type"] == "execute_result":
                return str(message["content"]["data"]["text/plain"])
        return None


def text_of(messages: Sequence[JupyterMessage], name: str = "stdout") -> str:
    streams = (m["content"] for m in messages if m["msg_type"] == "stream")
    return "".join(content["text"] for content in streams if content["name"] == name)


class Client:
    """Has joined a session, takes everything at once and gives every mark back, unless it `is_deaf`: then nothing is
    taken until `hear`."""

    _numbers = itertools.count(1)

    def __init__(self, live: LiveSession, name: bytes = b"a", *, after: str = "", answers_marks: bool = True) -> None:
        self.live = live
        self.name = name
        self.messages: list[JupyterMessage] = []
        self.parted: Parting | None = None
        self.is_deaf = False
        self.answers_marks = answers_marks
        self.sent_bytes = 0
        self.buffered_bytes = 0
        self.most_buffered = 0
        self._waiting: list[tuple[Sequence[Frame], bytes | None]] = []
        self._news = asyncio.Event()
        self._has_left = False
        self.reader = live.join(name, self, Dialect.V1, after=after)
        self.reader.catch_up()

    # -- Sink

    def send(self, frames: Sequence[Frame], mark: bytes | None = None) -> None:
        self._waiting.append(([Frame(bytes(frame.data), frame.is_binary) for frame in frames], mark))
        self.buffered_bytes += sum(len(frame.data) for frame in frames)
        if not self.is_deaf:
            self._take()
        self.most_buffered = max(self.most_buffered, self.buffered_bytes)

    def part(self, why: Parting) -> None:
        self.parted = why
        self._news.set()
        asyncio.get_running_loop().call_soon(self.leave)

    # -- what a client does

    def ask(self, code: str, **options: Any) -> str:
        """Send a cell; its id."""
        return self.send_request("execute_request", execute_content(code, **options))

    def send_request(self, kind: str, content: dict[str, Any], channel: Channel = Channel.SHELL) -> str:
        message_id = f"m{next(self._numbers)}"
        self.live.heard(self.reader, client_message(kind, content, message_id, channel))
        return message_id

    async def run(self, code: str, **options: Any) -> Outcome:
        return await self.outcome(self.ask(code, **options))

    async def outcome(self, message_id: str) -> Outcome:
        """When both reply and idle have come."""
        await self.until(lambda: self.is_over(message_id))
        mine = self.of(message_id)
        reply = next(m for m in mine if m["msg_type"].endswith("_reply"))
        return Outcome(dict(reply), mine)

    def of(self, message_id: str) -> list[JupyterMessage]:
        return [m for m in self.messages if m["parent_id"] == message_id]

    def is_over(self, message_id: str) -> bool:
        mine = self.of(message_id)
        return any(m["msg_type"].endswith("_reply") for m in mine) and any(
            m["content"].get("execution_state") == "idle" for m in mine
        )

    async def until(self, is_so: Callable[[], object]) -> None:
        async def wait() -> None:
            while not is_so():
                self._news.clear()
                await self._news.wait()

        await asyncio.wait_for(wait(), BOUND)

    def hear(self) -> None:
        """Take all that waits, and what comes from now on."""
        self.is_deaf = False
        self._take()
        if not self._has_left:
            self.reader.drained()

    def leave(self, *, in_order: bool = False) -> None:
        """The connection breaks, with whatever it has not taken."""
        if not self._has_left:
            self._has_left = True
            self._waiting.clear()
            self.live.leave(self.reader, in_order=in_order)

    def shown(self) -> list[tuple[str, str]]:
        """All messages in short, in order: type and text, or state, or status."""
        fields = ("text", "execution_state", "status", "code", "ename")
        return [
            (m["msg_type"], next((str(m["content"][name]) for name in fields if name in m["content"]), ""))
            for m in self.messages
        ]

    def _take(self) -> None:
        while self._waiting:
            frames, mark = self._waiting.pop(0)
            self.messages += [parse_message(memoryview(frame.data)) for frame in frames]
            size = sum(len(frame.data) for frame in frames)
            self.buffered_bytes -= size
            self.sent_bytes += size
            if mark is not None and self.answers_marks:
                asyncio.get_running_loop().call_soon(self.reader.marked, mark)
        self._news.set()
