"""A network that behaves badly, between a client and a server on this host: one TCP proxy with a table of toxics.

What a toxic does it does to both directions. Bytes are never changed, only when and whether they arrive.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import cast

__all__ = ["Proxy", "Toxic", "proxied"]


@dataclass(frozen=True)
class Toxic:
    chunk_bytes: int = 64 << 10  # read and passed on at a time
    latency: float = 0.0  # seconds that each chunk takes; the line holds one
    bytes_per_second: float = float("inf")
    reset_after: tuple[int, int] | None = None  # each connection ends after so many bytes, drawn from this range


class Proxy:
    """Made by `proxied`."""

    def __init__(self, target: int, dice: random.Random) -> None:
        self.toxic = Toxic()  # may be changed at any time
        self.port = 0
        self.passed_bytes = 0
        self.resets = 0
        self._target = target
        self._dice = dice
        self._flows: set[asyncio.Task[None]] = set()
        self._may_pass = asyncio.Event()
        self._may_pass.set()

    def hold(self) -> None:
        """Nothing passes in either direction, and nobody is told: as a cable that is pulled."""
        self._may_pass.clear()

    def let_go(self) -> None:
        self._may_pass.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        flow = cast("asyncio.Task[None]", asyncio.current_task())
        self._flows.add(flow)
        flow.add_done_callback(self._flows.discard)
        with suppress(OSError, asyncio.CancelledError):  # the second by `close`; whoever started it looks for no other
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=1 << 16)
            budget = [self._dice.randint(*self.toxic.reset_after) if self.toxic.reset_after else None]
            pumps = [
                asyncio.create_task(self._pump(reader, far_writer, budget)),
                asyncio.create_task(self._pump(far_reader, writer, budget)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
                for end in (writer, far_writer):
                    reset(end)

    async def close(self) -> None:
        for flow in self._flows:
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int | None]) -> None:
        while data := await reader.read(self.toxic.chunk_bytes):
            toxic = self.toxic
            if seconds := toxic.latency + len(data) / toxic.bytes_per_second:
                await asyncio.sleep(seconds)
            await self._may_pass.wait()
            left = budget[0]
            if left is not None:
                data = data[:left]
                budget[0] = left - len(data)
            writer.write(data)
            self.passed_bytes += len(data)
            await writer.drain()
            if budget[0] == 0:
                self.resets += 1
                return


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def proxied(target: int, seed: int = 0) -> AsyncIterator[Proxy]:
    """To the port `target` of this host."""
    proxy = Proxy(target, random.Random(seed))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 16)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
