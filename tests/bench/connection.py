"""What it costs the host to read a link: CPU per message, received, checked, tagged, handed on and acknowledged.

    python tests/bench/connection.py

A child writes messages as fast as the window lets it; the host's end is the LinkStream that the gateway uses.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time

from cellgate.sandbox.connection import LinkStream, each
from cellgate_kernel.link import Link, WindowFull
from cellgate_kernel.message import Channel, Status, Tag, join_v1

PARENT = b"0123456789abcdef_1"
BATCH = 64  # messages per write: what a kernel that prints without a pause has ready at once
ROUNDS = 3
SIZES = {200: 100_000, 64 << 10: 4_000}  # bytes of a message: how many


def write(sock: socket.socket, size: int, count: int) -> None:
    """The sandbox's end: blocking, as simple as can be."""
    link = Link()
    tag = Tag(Channel.IOPUB, "stream", Status.NONE, PARENT).pack()
    empty = sum(map(len, [tag, *join_v1(b"iopub", [b"{}"] * 4)]))
    message = b"".join([tag, *join_v1(b"iopub", [b"{}", b"{}", b"{}", b"{}" + b"x" * (size - empty)])])
    sock.sendall(link.open())
    while not link.is_open:
        link.receive(sock.recv(1 << 20))
    out: list[bytes] = []
    while link.sent < count:
        try:
            out.append(b"".join(link.send([message])))
            if len(out) < BATCH and link.sent < count:
                continue
        except WindowFull:
            link.receive(sock.recv(1 << 20))
        sock.sendall(b"".join(out))
        out.clear()
    while link.acknowledged < count:
        link.receive(sock.recv(1 << 20))


async def read(size: int, count: int) -> tuple[float, float]:
    """Seconds of CPU and of wall time per message at the host's end."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        write(theirs, size, count)
        os._exit(0)
    theirs.close()
    done = asyncio.Event()

    def take(number: int, _tag: Tag, _v1: memoryview) -> None:
        if number == count:
            done.set()

    cpu, wall = time.process_time(), time.perf_counter()
    stream = LinkStream(Link(), ours, each(take))
    await done.wait()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await stream.closed  # the child leaves once all is acknowledged
    os.waitpid(child, 0)
    return cpu / count, wall / count


def main() -> None:
    for size, count in SIZES.items():
        rounds = [asyncio.run(read(size, count)) for _ in range(ROUNDS)]
        cpu, wall = (min(column) * 1e6 for column in zip(*rounds))
        print(f"{size:6} bytes: {cpu:6.2f} us of CPU a message, {wall:6.2f} us of time (best of {ROUNDS})")


if __name__ == "__main__":
    main()
