"""A kernel host for tests: started cold or forked, and a client that speaks the link to it in plain blocking calls."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack

from cellgate_kernel.link import Hello, Link, LinkLimits, Message, Pong
from cellgate_kernel.message import Channel, Status, Tag, join_v1, split_v1

TIMEOUT = 20.0  # seconds for anything a test waits for; a hang, not slowness, reaches it


@dataclass
class Received:
    """One message from the kernel."""

    tag: Tag
    header: dict[str, Any]
    parent: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: list[bytes]

    @property
    def type(self) -> str:
        return self.header["msg_type"]


@dataclass
class Answer:
    """All that came for one request, up to its reply and its idle."""

    id: str
    messages: list[Received] = field(default_factory=list)

    @property
    def reply(self) -> dict[str, Any]:
        return next(m.content for m in self.messages if m.tag.channel != Channel.IOPUB and m.type.endswith("_reply"))

    def contents(self, kind: str) -> list[dict[str, Any]]:
        return [m.content for m in self.messages if m.type == kind]

    @property
    def types(self) -> list[str]:
        return [m.type for m in self.messages]

    def text(self, name: str = "stdout") -> str:
        return "".join(c["text"] for c in self.contents("stream") if c["name"] == name)

    @property
    def result(self) -> str:
        return self.contents("execute_result")[0]["data"]["text/plain"]


def strict(data: memoryview) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(bytes(data).decode("utf-8"), parse_constant=refuse)


class Client:
    """The host's end of a link."""

    def __init__(self, birth: socket.socket, setup: dict[str, Any] | None = None, limits: LinkLimits | None = None):
        self.birth = birth
        self.setup = msgpack.packb(setup) if setup else b""
        self.link = Link(limits)
        self.auto_ack = True
        self.read_bytes = 1 << 20
        self.received: list[Received] = []  # not yet asked for
        self.on_input: Callable[[dict[str, Any]], str | None] | None = None
        self.stream: socket.socket | None = None
        self.pongs: list[int] = []
        self.ahead = b""  # goes out with the next message, in one write
        self.attach()

    def attach(self) -> None:
        """A fresh stream in place of the one there is."""
        self.detach()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.birth, [b"L"], [theirs.fileno()])
        self.stream = ours
        ours.sendall(self.link.open(self.setup))
        while not self.link.is_open:
            if not self.step():
                raise EOFError("the kernel ended before its HELLO")

    def detach(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def step(self, timeout: float = TIMEOUT) -> bool:
        """Read once. False at the end of the stream."""
        assert self.stream is not None
        if not select.select([self.stream], [], [], timeout)[0]:
            raise TimeoutError(f"nothing came in {timeout} s")
        try:
            data = self.stream.recv(self.read_bytes)
        except ConnectionResetError:
            data = b""
        if not data:
            return False
        for event in self.link.receive(data):
            if isinstance(event, Message):
                self.received.append(self.read(event.body))
            elif isinstance(event, Hello):
                self.stream.sendall(b"".join(event.resend))
            elif isinstance(event, Pong):
                self.pongs.append(event.token)
        if self.auto_ack:
            self.acknowledge()
        return True

    def acknowledge(self) -> None:
        assert self.stream is not None
        with contextlib.suppress(BrokenPipeError):
            self.stream.sendall(self.link.acknowledge())

    @staticmethod
    def read(body: memoryview) -> Received:
        tag, rest = Tag.unpack(body)
        channel, parts = split_v1(rest)
        header, parent, metadata, content = map(strict, parts[:4])
        assert channel == (b"shell", b"control", b"stdin", b"iopub")[tag.channel]
        assert tag.message_type in (header["msg_type"], "")
        assert tag.parent_id == parent.get("msg_id", "").encode()
        if header["msg_type"] == "status":
            assert tag.status == {"starting": 1, "busy": 2, "idle": 3}[content["execution_state"]]
        elif header["msg_type"].endswith("_reply") and "status" in content:
            assert tag.status == {"ok": 4, "error": 5, "aborted": 6}.get(content["status"], 0)
        return Received(tag, header, parent, metadata, content, [bytes(part) for part in parts[4:]])

    def send(
        self,
        kind: str,
        content: dict[str, Any] | None = None,
        channel: Channel = Channel.SHELL,
        buffers: list[bytes] | None = None,
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Send a request; its id."""
        message_id = uuid.uuid4().hex
        header = {"msg_id": message_id, "msg_type": kind, "username": "t", "session": "s", "date": "", "version": "5.3"}
        parts = [json.dumps(part).encode() for part in (header, parent or {}, metadata or {}, content or {})]
        self.send_parts(Tag(channel, kind, Status.NONE, message_id.encode()), [*parts, *(buffers or [])])
        return message_id

    def send_parts(self, tag: Tag, parts: list[bytes]) -> None:
        assert self.stream is not None
        name = (b"shell", b"control", b"stdin", b"iopub")[tag.channel]
        frame = self.link.send([tag.pack(), *join_v1(name, parts)], urgent=True)
        self.stream.sendall(self.ahead + b"".join(frame))
        self.ahead = b""

    def await_message(self, found: Callable[[Received], bool], timeout: float = TIMEOUT) -> Received:
        """The first message that is found; it is taken out, the others stay."""
        by = time.monotonic() + timeout
        seen = 0
        while True:
            for at in range(seen, len(self.received)):
                if found(self.received[at]):
                    return self.received.pop(at)
            seen = len(self.received)
            if not self.step(max(by - time.monotonic(), 0.001)):
                raise EOFError("the kernel ended")

    def finish(self, message_id: str, timeout: float = TIMEOUT) -> Answer:
        """All that comes for a request until it is answered and idle."""
        answer = Answer(message_id)
        is_idle = is_answered = False
        by = time.monotonic() + timeout
        while not (is_idle and is_answered):
            message = self.await_message(
                lambda m: m.parent.get("msg_id") == message_id, timeout=max(by - time.monotonic(), 0.001)
            )
            answer.messages.append(message)
            is_idle |= message.type == "status" and message.content["execution_state"] == "idle"
            is_answered |= message.tag.channel != Channel.IOPUB and message.type.endswith("_reply")
            if message.type == "input_request" and self.on_input is not None:
                value = self.on_input(message.content)
                if value is not None:
                    self.send("input_reply", {"value": value}, Channel.STDIN, parent=message.header)
        return answer

    def request(self, kind: str, content: dict[str, Any] | None = None, channel: Channel = Channel.SHELL) -> Answer:
        return self.finish(self.send(kind, content, channel))

    def start(self, code: str, **more: Any) -> str:
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": self.on_input is not None,
            "stop_on_error": True,
        }
        return self.send("execute_request", {**content, **more})

    def execute(self, code: str, timeout: float = TIMEOUT, **more: Any) -> Answer:
        return self.finish(self.start(code, **more), timeout)

    def interrupt(self) -> Answer:
        return self.request("interrupt_request", {}, Channel.CONTROL)

    def await_status(self, state: str, message_id: str) -> None:
        self.await_message(
            lambda m: (
                m.type == "status" and m.content["execution_state"] == state and m.parent.get("msg_id") == message_id
            )
        )

    def await_text(self, text: str) -> Received:
        return self.await_message(lambda m: m.type == "stream" and text in m.content["text"])


@dataclass
class Rig:
    """A kernel process and a client of it."""

    pid: int
    birth: socket.socket
    client: Client

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Until the process ends; its exit code, negative for a signal."""
        by = time.monotonic() + timeout
        descriptor = os.pidfd_open(self.pid)
        try:
            if not select.select([descriptor], [], [], max(by - time.monotonic(), 0))[0]:
                raise TimeoutError("the kernel has not ended")
        finally:
            os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code

    def close(self) -> None:
        self.client.detach()
        self.birth.close()
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


@contextlib.contextmanager
def cold(setup: dict[str, Any] | None = None, limits: LinkLimits | None = None) -> Iterator[Rig]:
    """A kernel host in a process of its own, as the process driver starts it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "cellgate_kernel", "--birth-fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    process.returncode = 0  # the rig reaps it
    rig = Rig(process.pid, ours, Client(ours, setup, limits))
    try:
        yield rig
    finally:
        rig.close()


class Zygote:
    """A process that has prepared a kernel and forks it on demand, with no isolation."""

    def __init__(self, template: str = "python") -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, template, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        assert self.control.recv(16) == b"ready"

    def fork(self, theirs: socket.socket) -> int:
        socket.send_fds(self.control, [b"fork"], [theirs.fileno()])
        return int(self.control.recv(16))

    @contextlib.contextmanager
    def kernel(self, setup: dict[str, Any] | None = None, limits: LinkLimits | None = None) -> Iterator[Rig]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = self.fork(theirs)
        rig = ForkedRig(pid, ours, Client(ours, setup, limits), self)
        try:
            yield rig
        finally:
            rig.close()

    def reap(self, pid: int) -> int:
        self.control.send(b"reap %d" % pid)
        return int(self.control.recv(16))

    def close(self) -> None:
        self.control.close()
        self.process.wait(TIMEOUT)


@dataclass
class ForkedRig(Rig):
    zygote: Zygote

    def wait(self, timeout: float = TIMEOUT) -> int:
        pid, self.pid = self.pid, 0
        descriptor = os.pidfd_open(pid)
        try:
            if not select.select([descriptor], [], [], timeout)[0]:
                raise TimeoutError("the kernel has not ended")
        finally:
            os.close(descriptor)
        return self.zygote.reap(pid)

    def close(self) -> None:
        self.client.detach()
        self.birth.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.zygote.reap(self.pid)
            self.pid = 0


def be_zygote(template: str, control: socket.socket) -> None:
    from cellgate_kernel.life import run
    from cellgate_kernel.python import prepare

    prepared = prepare(template)
    control.send(b"ready")
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, 64, 1)
        if not order:
            return
        if order.startswith(b"reap"):
            control.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(int(order[5:]), 0)[1]))
        elif pid := os.fork():
            os.close(descriptors[0])
            control.send(b"%d" % pid)
        else:
            control.close()
            os.setpgid(0, 0)
            run(descriptors[0], prepared)


if __name__ == "__main__":
    be_zygote(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
