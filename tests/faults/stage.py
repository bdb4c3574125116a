"""What the fault tests share: sessions of a server, clients of them, and what may be left when they are gone."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

from cellgate.sandbox.native.driver import NativeDriver
from cellgate.sessions.journal import Journal
from cellgate.sessions.records import Record
from tests.faults.roamer import Asked, Place, Roamer
from tests.faults.websocket import Message
from tests.native.seen import descendants, name_of, names_of_groups
from tests.support.server import BOUND, Server, served, until

__all__ = [
    "at_rest_of",
    "check_idle",
    "check_rest",
    "cpu_seconds",
    "create",
    "end_of",
    "fill",
    "journals",
    "kernels",
    "left_behind",
    "of",
    "read_journal",
    "reply_of",
    "roaming",
    "rss_bytes",
    "sandbox_of",
    "served_on",
    "spread",
    "text_of",
]


LOOK_SECONDS = 0.5  # at a process, to see whether it rests
CLEARED_SECONDS = 30.0  # from the last delete until nothing is left; a second, but for a machine with much else to do
READ_BYTES = 1 << 20
KiB = 1 << 10


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


def read_journal(directory: Path) -> Iterator[Record]:
    """A copy of it: the gateway writes on."""
    with tempfile.TemporaryDirectory(prefix="cellgate-test-") as copy:
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        journal = Journal.open(Path(copy), limit_bytes=1 << 40)
        seq = 1
        while seq < journal.next_seq:
            reading = journal.read(seq, READ_BYTES)
            yield from reading.records
            seq = reading.next_seq
        journal.close()


# -- a state directory ----------------------------------------------------------------------------------


@asynccontextmanager
async def served_on(size: str) -> AsyncIterator[Server]:
    """A server whose state directory is a file system of its own, so large."""
    async with served(start=False) as server:
        server.state_dir.mkdir(mode=0o711)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "cellgate-test", server.state_dir], check=True
        )
        try:
            await server.start()
            yield server
        finally:
            try:
                await server.end()
                await server.end_warden()
            finally:
                subprocess.run(["umount", "--lazy", server.state_dir], check=True)


def fill(directory: Path) -> Path:
    """Take all the room there is."""
    path = directory / "filling"
    with path.open("ab", buffering=0) as file:
        for size in (64 * KiB, 4 * KiB, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return path


def sandbox_of(server: Server, session_id: str) -> str:
    """The name of its sandbox, and of that one's cgroup; "" while it has none. Read from a copy of the registry."""
    with tempfile.TemporaryDirectory(prefix="cellgate-test-") as copy:
        for path in (server.state_dir / "gateway").glob("sessions.sqlite*"):
            with suppress(FileNotFoundError):
                shutil.copy(path, copy)
        with closing(sqlite3.connect(Path(copy, "sessions.sqlite"))) as registry, suppress(sqlite3.DatabaseError):
            for (name,) in registry.execute("SELECT sandbox_id FROM sessions WHERE id = ?", (session_id,)):
                return str(name)
    return ""


# -- what is left at the end -----------------------------------------------------------------------------


async def at_rest_of(server: Server) -> set[str]:
    """The names of a warden's processes while it has no sandbox and everything else that it needs."""
    place = await create(server)
    await server.fetch("DELETE", f"/api/kernels/{place.kernel_id}")
    warden = server.warden_pid()
    await until(lambda: not names_of_groups(warden))
    return {name_of(pid) for pid in descendants(warden)}


async def left_behind(server: Server, at_rest: set[str]) -> list[str]:
    """Delete all sessions, and end the server: a sentence for each thing that is still there, or does not rest."""
    found = []
    for kernel_id in await kernels(server):
        reply = await server.fetch("DELETE", f"/api/kernels/{kernel_id}")
        if reply.status != 204:
            found.append(f"a session could not be deleted: {reply}")
    warden = server.warden_pid()

    def left() -> list[str]:
        names = sorted(names_of_groups(warden)) + sorted(os.listdir(journals(server)))
        return names + sorted(name for pid in descendants(warden) if (name := name_of(pid)) not in {*at_rest, ""})

    with suppress(AssertionError):
        await until(lambda: not left(), CLEARED_SECONDS)
    found += [f"left behind: {name}" for name in left()]
    try:
        await check_idle(server)
    except AssertionError:
        found.append("the gateway finds no rest")
    await server.end()
    driver = await NativeDriver.connect(server.warden_path)
    try:
        for sandbox in (*await driver.sandboxes(), *await driver.ended()):
            found.append(f"the warden still has sandbox {sandbox.id}")
    finally:
        await driver.close()
    return found


def spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p50, p95 = ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]
    return f"p50 {p50:.2f}, p95 {p95:.2f}, max {ordered[-1]:.2f} s ({len(ordered)} times)"


# -- a process, as the host sees it --------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
