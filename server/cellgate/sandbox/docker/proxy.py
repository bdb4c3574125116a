"""`python -m cellgate.sandbox.docker.proxy`: stands before an engine, hands on what a driver asks, and nothing else.

Listens on a unix socket, for its own user; the engine is the one that DOCKER_HOST names, or the host's. One request for
each connection, read whole and judged (`guard.py`), then said again in our words; what the engine answers is handed
back as it comes. A container that is named must be the driver's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from cellgate.errors import CellgateError
from cellgate.sandbox.docker.container import MAPPED_UIDS, OWNER, UIDS
from cellgate.sandbox.docker.engine import Engine, EngineFailed
from cellgate.sandbox.docker.guard import Ask, Refused, Rules, judge, read_ask
from cellgate.sandbox.docker.images import Template, usable_images
from cellgate.sandbox.native.rootfs import covers_of_proc
from cellgate.terminal import one_line

__all__ = ["Proxy"]

MAX_HEAD_BYTES: Final = 16 << 10  # a driver's are some 300
MAX_BODY_BYTES: Final = 256 << 10  # of a container with its seccomp profile: 30 KB
HEAD_SECONDS: Final = 10.0  # for a request to come, from a program beside us
MAX_CONNECTIONS: Final = 64  # a driver has eight calls and a stream of events
PIECE_BYTES: Final = 64 << 10
ENGINE: Final = "unix:///var/run/docker.sock"


class Proxy:
    """Whoever made it owes it a `close`."""

    def __init__(self, directory: Path, *, runtime: str = "", images: Sequence[str] = ()) -> None:
        """`directory` is the driver's. Raises EngineFailed."""
        engine = os.environ.get("DOCKER_HOST") or ENGINE
        if not engine.startswith("unix://"):
            raise EngineFailed(f"{engine} is no unix socket; {ENGINE} would pass")
        self._path = engine.removeprefix("unix://")
        self._engine = Engine.open()
        self._directory = directory
        self._images = images
        self._usable: dict[str, Template] = {}  # by id, since we began
        facts = self._engine.facts()
        self._runtime = runtime or facts.default_runtime
        self._uids = (MAPPED_UIDS if facts.maps_uids else UIDS,)
        self._hidden = frozenset(path for path, _ in covers_of_proc())
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)

    def close(self) -> None:
        self._engine.close()

    async def serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            async with self._connections:
                try:
                    ask = await asyncio.wait_for(_read(client), HEAD_SECONDS)
                    await self._hand_on(await self._judge(ask), client, back)
                except Refused as refusal:
                    _say(f"refused: {refusal}")
                    back.write(_answer(HTTPStatus.FORBIDDEN, f"cellgate's proxy hands on no such thing: {refusal}"))
                except (EngineFailed, CellgateError) as error:
                    back.write(_answer(HTTPStatus.BAD_GATEWAY, str(error)))
                await back.drain()
        except (OSError, EOFError, asyncio.TimeoutError):
            pass  # one of the two has gone
        finally:
            back.close()
            with suppress(OSError):
                await back.wait_closed()

    async def _judge(self, ask: Ask) -> Ask:
        if ask.path.endswith(("/images/json", "/create")):
            await self._learn_images()
        rules = Rules(self._directory, self._runtime, self._usable, self._uids, self._hidden)
        verdict = judge(ask, rules)
        if verdict.container:
            labels = await self._engine.do(self._engine.labels_of, verdict.container)
            if labels is not None and labels.get(OWNER) != str(self._directory):
                raise Refused(f"a container that {self._directory} owns would pass")
        return verdict.ask

    async def _learn_images(self) -> None:
        """When a driver does, which goes on with the images that it found when it began, whatever bears their names
        by then; and when there may be new ones."""
        with suppress(CellgateError):  # there is none that may be used: the driver says so itself
            found = await self._engine.do(usable_images, self._engine, self._images)
            self._usable.update({one.image: one for one in found.values()})

    async def _hand_on(self, ask: Ask, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Until the engine has answered, or the client is gone: a stream of events has no other end."""
        answer, engine = await asyncio.open_unix_connection(self._path)
        try:
            target = ask.path + (f"?{urlencode(ask.query)}" if ask.query else "")
            head = [f"{ask.method} {target} HTTP/1.1", "Host: docker", "Connection: close"]
            head += ["Content-Type: application/json", f"Content-Length: {len(ask.body)}", "", ""]
            engine.write("\r\n".join(head).encode() + ask.body)
            either = {asyncio.ensure_future(_copy(answer, back)), asyncio.ensure_future(client.read(1))}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in either:
                    task.cancel()
                await asyncio.gather(*either, return_exceptions=True)
        finally:
            engine.close()


async def _copy(answer: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
    while piece := await answer.read(PIECE_BYTES):
        back.write(piece)
        await back.drain()


async def _read(client: asyncio.StreamReader) -> Ask:
    """Raises Refused, EOFError."""
    try:
        head = await client.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Refused(f"a head of {MAX_HEAD_BYTES} bytes would pass") from None
    try:
        line, *fields = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        named = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        sizes = [int(value) for name, value in named if name == "content-length"]
    except ValueError:
        raise Refused("its head cannot be read") from None
    if len(sizes) > 1 or any(name == "transfer-encoding" for name, _ in named) or not 0 <= sum(sizes) <= MAX_BODY_BYTES:
        raise Refused(f"a body of up to {MAX_BODY_BYTES} bytes, whose size is told once, would pass")
    return read_ask(line, await client.readexactly(sum(sizes)))


def _answer(status: HTTPStatus, text: str) -> bytes:
    """As an engine tells of errors."""
    body = json.dumps({"message": text}).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _main(options: argparse.Namespace) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    proxy = Proxy(options.directory, runtime=options.runtime, images=options.images)
    try:
        options.listen.unlink(missing_ok=True)  # of one before us; nobody else may write there
        os.umask(0o177)
        server = await asyncio.start_unix_server(proxy.serve, str(options.listen), limit=MAX_HEAD_BYTES)
        await told.wait()
        server.close()
    finally:
        proxy.close()


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cellgate.sandbox.docker.proxy", description=__doc__)
    add = parser.add_argument
    add("--listen", type=Path, required=True, metavar="SOCKET", help="in a directory that nobody else may write")
    add("--directory", type=Path, required=True, help="of the driver: gateway/docker in the server's state directory")
    add("--runtime", default="", help="that its containers run in (default: the engine's)")
    add("--images", default=(), type=_names, help="as for `cellgate serve`: that they may be made of (default: all)")
    try:
        asyncio.run(_main(parser.parse_args(words)))
    except (EngineFailed, OSError) as error:
        _say(str(error))
        return 1
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"cellgate proxy: {one_line(text)}\n")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    sys.exit(main())
