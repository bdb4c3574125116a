"""A kernel host in a plain subprocess and the host's end of its link, without threads or a loop: reading waits.

For tests of the kernel side alone, where no driver should stand between. `LinkedKernel` is the process and its
link; `client()` is jupyter_client's own blocking client with its channels put on the link, so that whatever
was written for that client runs against our kernels.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from queue import Empty
from typing import Any

import msgpack
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.session import Session

from cellgate_kernel.link import Acknowledged, Hello, Link, LinkLimits, Message, Ping, Pong
from cellgate_kernel.message import CHANNELS, Channel, Status, Tag, join_v1, split_v1

KERNELS = Path(__file__).parents[2] / "kernels"
TIMEOUT_SECONDS = 30.0  # for anything that must happen; nothing waits for it to pass


class LinkedKernel:
    """Use as a context manager. Messages are jupyter_client's dicts, with the tag they came with as `tag`."""

    def __init__(
        self,
        *arguments: str,
        setup: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        limits: LinkLimits | None = None,
        auto_ack: bool = True,
    ) -> None:
        self.birth, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, [str(KERNELS), os.environ.get("PYTHONPATH")]))
        self._temporary = tempfile.TemporaryDirectory(prefix="kernel-")  # ends with it, as a sandbox's does
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cellgate_kernel", "--birth-fd", str(theirs.fileno()), *arguments],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path, "TMPDIR": self._temporary.name, **(env or {})},
                start_new_session=True,
            )
        self.link = Link(limits)
        self.auto_ack = auto_ack
        self.session = Session(key=b"")
        self.waiting: dict[Channel, deque[dict[str, Any]]] = {channel: deque() for channel in Channel}
        self.pongs: list[int] = []
        self.socket: socket.socket | None = None
        self._out = b""
        self.attach(msgpack.packb(setup) if setup is not None else b"")

    def __enter__(self) -> LinkedKernel:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it as a supervisor's death would, and holds it to that."""
        self.detach()
        self.birth.close()
        try:
            self.process.wait(TIMEOUT_SECONDS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._temporary.cleanup()

    # -- the stream -----------------------------------------------------------------------------------

    def attach(self, setup: bytes = b"") -> None:
        """Replace the stream by a fresh one."""
        self.detach()
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        with theirs:
            socket.send_fds(self.birth, [b"L"], [theirs.fileno()])
        self._out = self.link.open(setup)

    def detach(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = None

    def send(self, msg: Mapping[str, Any], channel: Channel = Channel.SHELL) -> str:
        """Send a message as jupyter_client's Session makes it; returns its id."""
        parts = [self.session.pack(msg[name]) for name in ("header", "parent_header", "metadata", "content")]
        message_id: str = msg["header"]["msg_id"]
        tag = Tag(channel, msg["header"]["msg_type"], Status.NONE, message_id.encode())
        self.send_parts([tag.pack(), *join_v1(CHANNELS[channel], [*parts, *msg.get("buffers", [])])])
        return message_id

    def send_parts(self, parts: list[bytes | bytearray | memoryview]) -> None:
        urgent = parts[0][0] != Channel.SHELL
        self._out += b"".join(self.link.send(parts, urgent=urgent))
        self.pump(0)

    def request(self, message_type: str, content: dict[str, Any], channel: Channel = Channel.SHELL) -> str:
        return self.send(self.session.msg(message_type, content), channel)

    def execute(self, code: str, **content: Any) -> str:
        defaults = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        return self.request("execute_request", {**defaults, "allow_stdin": False, "stop_on_error": True, **content})

    def ping(self) -> None:
        token = len(self.pongs) + 1
        self._out += self.link.ping(token)
        self.pump_until(lambda: token in self.pongs, "PONG")

    def pump(self, seconds: float) -> bool:
        """Write what waits, and read once, waiting up to `seconds` for something to come. False: it closed."""
        if self.socket is None:
            raise ConnectionError("no stream")
        deadline = time.monotonic() + seconds
        while True:
            readable, writable, _ = select.select(
                [self.socket], [self.socket] if self._out else [], [], max(0, deadline - time.monotonic())
            )
            if writable:
                try:
                    self._out = self._out[self.socket.send(self._out) :]
                except OSError:
                    self._out = b""
            if readable:
                return self._read()
            if not writable and time.monotonic() >= deadline:
                return True

    def _read(self) -> bool:
        assert self.socket is not None
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self.detach()
            return False
        for event in self.link.receive(data):
            if isinstance(event, Message):
                self._take(event.body)
            elif isinstance(event, Hello):
                self._out += b"".join(event.resend)
            elif isinstance(event, Ping):
                self._out += self.link.pong(event.token)
            elif isinstance(event, Pong):
                self.pongs.append(event.token)
            else:
                assert isinstance(event, Acknowledged)
        if self.auto_ack:
            self._out += self.link.acknowledge()
        return True

    def _take(self, body: memoryview) -> None:
        tag, v1 = Tag.unpack(body)
        channel, parts = split_v1(v1)
        assert channel == CHANNELS[tag.channel]
        header, parent, metadata, content = (json.loads(bytes(part)) for part in parts[:4])
        message = {
            "tag": tag,
            "channel": channel.decode(),
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": parent,
            "metadata": metadata,
            "content": content,
            "buffers": [bytes(part) for part in parts[4:]],
        }
        self.waiting[tag.channel].append(message)

    # -- waiting --------------------------------------------------------------------------------------

    def pump_until(self, done: Any, what: str, timeout: float = TIMEOUT_SECONDS) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            left = deadline - time.monotonic()
            assert left > 0, f"no {what} in {timeout} s"
            if not self.pump(min(left, 0.05)) and not done():  # what is awaited may not be a message
                raise ConnectionError(f"the stream closed before {what}")

    def next(self, channel: Channel, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """The next message of a channel. Raises queue.Empty, as jupyter_client does."""
        deadline = time.monotonic() + timeout
        while not self.waiting[channel]:
            left = deadline - time.monotonic()
            if left <= 0 or not self.pump(left):
                raise Empty
        return self.waiting[channel].popleft()

    def run(self, code: str, **content: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Execute and return the reply, and all of iopub that has the same parent, from busy to idle."""
        return self.finish(self.execute(code, **content))

    def finish(self, message_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        outputs = []
        while True:
            message = self.next(Channel.IOPUB)
            if message["parent_header"].get("msg_id") == message_id:
                outputs.append(message)
                if message["content"].get("execution_state") == "idle":
                    break
        while True:
            reply = self.next(Channel.SHELL)
            if reply["parent_header"].get("msg_id") == message_id:
                return reply, outputs

    def interrupt(self) -> None:
        """As a supervisor does: SIGINT to the process group, from outside."""
        os.killpg(self.process.pid, signal.SIGINT)

    def client(self) -> LinkClient:
        return LinkClient(self)


def text_of(outputs: list[dict[str, Any]], name: str = "stdout") -> str:
    """What a cell wrote to one of its streams."""
    streams = (message["content"] for message in outputs if message["msg_type"] == "stream")
    return "".join(content["text"] for content in streams if content["name"] == name)


class LinkChannel:
    """What jupyter_client's client expects of a channel."""

    def __init__(self, kernel: LinkedKernel, channel: Channel) -> None:
        self._kernel = kernel
        self._channel = channel

    def send(self, msg: Mapping[str, Any]) -> None:
        self._kernel.send(msg, self._channel)

    def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        return self._kernel.next(self._channel, TIMEOUT_SECONDS if timeout is None else timeout)

    def msg_ready(self) -> bool:
        self._kernel.pump(0)
        return bool(self._kernel.waiting[self._channel])

    def is_alive(self) -> bool:
        return self._kernel.socket is not None

    def start(self) -> None: ...

    def stop(self) -> None: ...


class LinkClient(BlockingKernelClient):
    """jupyter_client's blocking client over a link: no ZMQ, no connection file."""

    def __init__(self, kernel: LinkedKernel) -> None:
        super().__init__(session=kernel.session)
        self._shell_channel = LinkChannel(kernel, Channel.SHELL)
        self._iopub_channel = LinkChannel(kernel, Channel.IOPUB)
        self._stdin_channel = LinkChannel(kernel, Channel.STDIN)
        self._control_channel = LinkChannel(kernel, Channel.CONTROL)
