"""What the fault tests share: sessions of a server, clients of them, and what may be left when they are gone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.faults.roamer import Asked, Place, Roamer
from tests.faults.websocket import Message
from tests.native.seen import names_of_groups
from tests.support.server import BOUND, Server, until

__all__ = [
    "check_idle",
    "check_rest",
    "create",
    "end_of",
    "journals",
    "kernels",
    "of",
    "reply_of",
    "roaming",
    "rss_bytes",
    "text_of",
]


LOOK_SECONDS = 0.5  # at a process, to see whether it rests


async def create(server: Server, **wish: object) -> Place:
    reply = await server.fetch("POST", "/api/kernels", wish or None)
    assert reply.status == 201, reply
    return Place(server.port, reply.json()["id"], server.token)


@asynccontextmanager
async def roaming(place: Place, name: str = "client") -> AsyncIterator[Roamer]:
    """A client that is connected."""
    roamer = Roamer(place, name)
    task = asyncio.create_task(roamer.run())
    try:
        await until(lambda: roamer.websocket is not None)
        yield roamer
    finally:
        roamer.leave()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def end_of(asked: Asked, seconds: float = BOUND) -> None:
    await asyncio.wait_for(asked.done.wait(), seconds)


def of(roamer: Roamer, asked: Asked) -> list[Message]:
    return [message for _, message in roamer.seen if message.parent == asked.id]


def text_of(roamer: Roamer, asked: Asked) -> str:
    return "".join(str(m.content["text"]) for m in of(roamer, asked) if m.type == "stream")


def reply_of(roamer: Roamer, asked: Asked) -> Message:
    (reply,) = (message for message in of(roamer, asked) if message.type == "execute_reply")
    return reply


async def kernels(server: Server) -> set[str]:
    return {kernel["id"] for kernel in (await server.fetch("GET", "/api/kernels")).json()}


def journals(server: Server) -> Path:
    return server.state_dir / "gateway" / "sessions"


async def check_rest(server: Server, sessions: Iterable[str]) -> None:
    """These sessions are all there is, each with its journal and one sandbox, soon."""
    wanted = set(sessions)

    def is_so() -> bool:
        return set(os.listdir(journals(server))) == wanted and len(names_of_groups(server.warden_pid())) == len(wanted)

    await until(is_so)
    assert await kernels(server) == wanted


async def check_idle(server: Server) -> None:
    """Its gateway does nothing when nobody asks for anything: a loop that goes round would show."""
    pid = server.gateway_pid()
    before = cpu_seconds(pid)
    await asyncio.sleep(LOOK_SECONDS)
    assert cpu_seconds(pid) - before < 0.5 * LOOK_SECONDS


# -- a process, as the host sees it --------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
