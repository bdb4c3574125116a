"""A kernel host that listens, as it does in a container: each connection is a fresh stream."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellgate_kernel.link import Hello, Link, Message
from cellgate_kernel.message import Channel, Status, Tag, join_v1

BOUND = 30.0
# `contained.main`, in a directory of the test's own in place of the container's.
BEGIN = """
import sys
from cellgate_kernel import contained
from cellgate_kernel.life import run
run(contained._listen(sys.argv[1]).detach())
"""


class Peer:
    """The host's end, on whatever stream it has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.link = Link()

    def connect(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(BOUND)
        stream.connect(str(self.path))
        stream.sendall(self.link.open())
        return stream

    def read(self, stream: socket.socket) -> list[object]:
        data = stream.recv(1 << 16)
        assert data, "the kernel closed the stream"
        return list(self.link.receive(data))

    def run(self, stream: socket.socket, code: str, name: bytes) -> bytes:
        """All that the cell said."""
        header = b'{"msg_id": "%b", "msg_type": "execute_request", "session": "", "username": ""}' % name
        content = b'{"code": "%b", "silent": false}' % code.encode()
        tag = Tag(Channel.SHELL, "execute_request", Status.NONE, name)
        stream.sendall(b"".join(self.link.send([tag.pack(), *join_v1(b"shell", [header, b"{}", b"{}", content])])))
        said = b""
        while True:
            for event in self.read(stream):
                if isinstance(event, Message):
                    said += event.body
                    found, _ = Tag.unpack(event.body)
                    if found.status is Status.IDLE and found.parent_id == name:
                        return said


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    path = tmp_path / "link"
    process = subprocess.Popen([sys.executable, "-c", BEGIN, str(path)])
    try:
        until = time.monotonic() + BOUND
        while not path.exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        yield Peer(path)
    finally:
        process.kill()
        process.wait()


def greet(peer: Peer) -> socket.socket:
    stream = peer.connect()
    while not any(isinstance(event, Hello) for event in peer.read(stream)):
        pass
    return stream


def test_a_connection_is_a_stream_and_the_newest_replaces_the_others(peer):
    with greet(peer) as first:
        assert b"41" in peer.run(first, "x = 41; x", b"one")
        with greet(peer) as second:
            assert b"42" in peer.run(second, "x + 1", b"two")
            assert first.recv(1 << 16) == b""


def test_everybody_who_reaches_the_path_may_connect_to_it(peer):
    assert os.stat(peer.path).st_mode & 0o777 == 0o777
