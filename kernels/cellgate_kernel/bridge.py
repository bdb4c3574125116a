"""Any other installed kernelspec behind the link: starts the kernel beside the host and passes messages between.

The kernel is a child of the host and speaks ZMQ over unix sockets in a directory that only this user can enter.
Messages pass as they are; header, parent and status are read for the tag. The host answers what it always answers,
and `kernel_info` from what the kernel said at its start. Queues, windows and the link are the host's business.

What holds for output. Our side of the iopub socket has no high-water mark. The kernel's own side is a PUB socket,
which drops beyond its mark, 1000 messages unless somebody changed it; on a busy machine ZMQ's threads come too late
often enough for that (467 of 5,000 flushed lines were once lost). A kernel that is started as `python -m module` is
therefore started with its mark removed, and drops nothing. Any other kernel is as its author left it.
When the link's window is full we do not let messages pile up here: the kernel is stopped (SIGSTOP to its process
group) until there is room. So `print` waits in any kernel, and what waits here is bounded by what was on its way.
Processes that a kernel put into groups of their own are not stopped; they wait when it does not read them.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any, NoReturn

import zmq
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from .compose import Request, cut, dumps, outcome
from .host import MAX_MESSAGE_BYTES, Host, Setup
from .message import MAX_BUFFERS, Channel, Status

__all__ = ["Bridge", "serve"]

DELIMITER = b"<IDS|MSG>"
CHANNELS = (Channel.SHELL, Channel.CONTROL, Channel.STDIN, Channel.IOPUB)
MAX_PENDING = 1024  # requests with the kernel and not answered; the rest waits in the host's queue, which has an end
MAX_BATCH = 256  # messages taken from one socket before the others, and the kernel's life, are looked at
NUDGE_SECONDS = 0.5  # between questions to a kernel that is starting: what it publishes before we are joined is lost
FULL_SECONDS = 0.01  # between looks at whether the window has room again
SHUTDOWN_SECONDS = 3.0  # for a kernel to end by itself when asked
LAST_WORDS_SECONDS = 1.0  # for what a dead kernel had written to come through
QUIET_MILLISECONDS = 50  # without a word after its death, and it has said all
PR_SET_PDEATHSIG = 1
# What `python -m module` becomes, to remove the high-water marks of publishing sockets.
WITHOUT_MARK = """
import runpy, sys, zmq
make = zmq.Context.socket
def socket(self, kind, *args, **kwargs):
    made = make(self, kind, *args, **kwargs)
    if kind in (zmq.PUB, zmq.XPUB):
        made.sndhwm = 0
    return made
zmq.Context.socket = socket
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
EX_NO_KERNEL = 78  # exit code: no such kernelspec, or its program does not start (EX_CONFIG)


def serve(host: Host, setup: Setup, name: str) -> NoReturn:
    """Serve the kernelspec `name` until its kernel ends, and end this process in the same way."""
    try:
        spec = KernelSpecManager().get_kernel_spec(name)
        bridge = Bridge(host, name, spec, setup.startup)
    except (NoSuchKernel, OSError, ValueError) as error:
        host.capture.log(f"cellgate_kernel: kernel {name!r} does not start: {error}\n")
        host.end(EX_NO_KERNEL)
    host.serve(bridge)


class Bridge:
    """A `Kernel` for the host. Construct it on the main thread, which must live as long as the kernel shall."""

    def __init__(self, host: Host, name: str, spec: KernelSpec, startup: str = "") -> None:
        """Starts the kernel. Raises OSError if that cannot be done."""
        self._host = host
        self._by_message = spec.interrupt_mode == "message"
        self._startup = startup
        self._own = f"cellgate-{os.urandom(8).hex()}"  # begins the ids of our own requests, whose answers end here
        self._count = 0
        self._info: dict[str, Any] | None = None
        self._is_heard = False  # our subscription has reached the kernel: what it publishes from now on, we see
        self._nudge_at = 0.0
        self._nudges = 0  # not answered yet
        self._pending: dict[str, Request] = {}
        self._urgent: deque[Request | dict[str, Any]] = deque()  # for the control and stdin sockets
        self._end_by: float | None = None
        self._is_stopped = False
        self._wakeup, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._folder = Path(tempfile.mkdtemp(prefix="cellgate-"))  # mode 0700
        connection_file, connection = write_connection_file(
            str(self._folder / "connection.json"),
            transport="ipc",
            ip=str(self._folder / "k"),
            key=os.urandom(16).hex().encode(),
            kernel_name=name,
        )
        self._key = connection["key"].encode() if isinstance(connection["key"], str) else connection["key"]
        self._context = zmq.Context()
        self._sockets = {channel: self._connect(channel, connection) for channel in CHANNELS}
        signal.signal(signal.SIGINT, lambda *_: self.interrupt())
        signal.signal(signal.SIGCHLD, lambda *_: None)  # to be woken
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        try:
            self._process = _start(spec, connection_file)
        except BaseException:
            self._clear()
            raise

    def _connect(self, channel: Channel, connection: Mapping[str, Any]) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.SUB if channel is Channel.IOPUB else zmq.DEALER)
        socket.linger = 0
        socket.rcvhwm = socket.sndhwm = 0  # before connect, or they do not hold for it
        socket.reconnect_ivl = 10  # ms: the kernel binds when it has started
        if channel is Channel.IOPUB:
            socket.subscribe(b"")
        else:
            socket.routing_id = self._own.encode()  # the same on all: input requests go to who sent the cell
        socket.connect(f"ipc://{connection['ip']}-{connection[channel.name.lower() + '_port']}")
        return socket

    # -- asked by the host, on its reader thread ------------------------------------------------------------

    def wake(self) -> None:
        with suppress(BlockingIOError):  # it is full of calls to wake
            os.write(self._waker, b"w")

    def info(self) -> Mapping[str, Any] | None:
        return self._info

    def control(self, request: Request) -> bool:
        self._urgent.append(request)
        self.wake()
        return True

    def interrupt(self) -> None:
        """In the way its kernelspec asks for; not while it is idle, when SIGINT would end a naive kernel."""
        if not self._pending:
            return
        if self._by_message:
            self._urgent.append({"msg_type": "interrupt_request", "content": {}})
            self.wake()
        else:
            self._signal(signal.SIGINT)

    def shutdown(self, restart: bool) -> None:
        self._end_by = time.monotonic() + SHUTDOWN_SECONDS
        self._urgent.append({"msg_type": "shutdown_request", "content": {"restart": restart}})
        self.wake()

    # -- the main thread ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Pass messages until the kernel has ended: its exit code, or the negative of the signal that ended it."""
        try:
            while self._process.poll() is None:
                self._turn()
            self._hear_last_words()
        finally:
            self._signal(signal.SIGKILL)  # what it started and left
            self._clear()
        code = self._process.returncode
        if code < 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the kernel has left one, if one was wanted
            with suppress(OSError, ValueError):  # SIGKILL has no handler
                signal.signal(-code, signal.SIG_DFL)
        return code

    def _clear(self) -> None:
        self._context.destroy(linger=0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _turn(self) -> None:
        """Wait until something can be done, and do it."""
        is_full = self._host.outbox.is_full
        self._stop(is_full)
        timeout = FULL_SECONDS if is_full else None
        if self._info is None or not self._is_heard:
            timeout = self._nudge()
        if self._end_by is not None:
            left = self._end_by - time.monotonic()
            if left <= 0:
                self._signal(signal.SIGKILL)
            timeout = max(0.0, min(left, timeout if timeout is not None else left))
        poller = zmq.Poller()
        poller.register(self._wakeup, zmq.POLLIN)
        for channel, socket in self._sockets.items():
            if not is_full or channel is not Channel.IOPUB:
                poller.register(socket, zmq.POLLIN)
        ready = dict(poller.poll(None if timeout is None else math.ceil(timeout * 1000)))
        if self._wakeup in ready:
            with suppress(BlockingIOError):
                os.read(self._wakeup, 4096)
        for channel, socket in self._sockets.items():
            if socket in ready:
                self._receive(channel, socket)
        while self._urgent:
            self._pass_on(self._urgent.popleft())
        if self._is_heard and not self._nudges:
            while len(self._pending) < MAX_PENDING and (request := self._host.take()):
                self._pass_on(request)

    def _nudge(self) -> float:
        """Ask who it is until we hear both its answer and, on iopub, that it became idle. One question at a time:
        ipykernel 7 on Python 3.10 now and then forgets a request that comes while it serves another."""
        now = time.monotonic()
        if self._nudges:
            return NUDGE_SECONDS  # ZMQ keeps the question until the kernel listens
        if now >= self._nudge_at:
            self._nudge_at = now + NUDGE_SECONDS
            self._nudges += 1
            self._ask(Channel.SHELL, "kernel_info_request", {})
        return max(0.0, self._nudge_at - now)

    def _stop(self, is_full: bool) -> None:
        if is_full is not self._is_stopped:
            self._is_stopped = is_full
            self._signal(signal.SIGSTOP if is_full else signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """To the kernel's process group, of which it is the leader."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    # -- towards the kernel ---------------------------------------------------------------------------------

    def _pass_on(self, request: Request | dict[str, Any]) -> None:
        if isinstance(request, dict):
            self._ask(Channel.CONTROL, request["msg_type"], request["content"])
            return
        if request.type == "variables_request":  # of ours alone; others would pass over it in silence
            self._host.refuse(request, "NotSupported", "only Cellgate's own Python kernel tells its variables")
            return
        if request.channel is Channel.SHELL and request.type.endswith("_request"):
            self._pending[request.id] = request
        self._send(request.channel, [bytes(part) for part in request.parts])

    def _ask(self, channel: Channel, message_type: str, content: Mapping[str, Any]) -> None:
        self._count += 1
        message_id = f"{self._own}-{self._count}"
        header = json.loads(self._host.composer.header(message_type)) | {"msg_id": message_id}
        self._send(channel, [dumps(header), b"{}", b"{}", dumps(content)])

    def _send(self, channel: Channel, parts: list[bytes]) -> None:
        signature = hmac.new(self._key, b"".join(parts[:4]), hashlib.sha256).hexdigest().encode()
        self._sockets[channel].send_multipart([DELIMITER, signature, *parts])

    # -- from the kernel ------------------------------------------------------------------------------------

    def _receive(self, channel: Channel, socket: zmq.Socket[bytes]) -> None:
        """Pass on what one socket holds, some at a time."""
        following = _receive_now(socket)
        for _ in range(MAX_BATCH):
            frames = following
            if frames is None:
                return
            if channel is Channel.IOPUB and self._host.outbox.is_full:
                following = None
            else:
                following = _receive_now(socket)
            self._deliver(channel, frames, soon=following is not None)
        if following is not None:
            self._deliver(channel, following)

    def _deliver(self, channel: Channel, frames: list[bytes], *, soon: bool = False) -> None:
        try:
            at = frames.index(DELIMITER) + 2
            parts = frames[at:]
            message_type = json.loads(parts[0])["msg_type"]
            parent_id = json.loads(parts[1]).get("msg_id", "")
            is_hinted = message_type == "status" or message_type.endswith("_reply")
            content = json.loads(parts[3]) if is_hinted else {}
            if parent_id.startswith(self._own):
                self._hear(message_type, content)
                return
            status = outcome(message_type, content)
            parent = parent_id.encode()
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._host.capture.log(f"cellgate_kernel: the kernel sent no message: {error!r}\n")
            return
        if message_type == "iopub_welcome":  # between ZMQ's ends; a client of ours has not subscribed to anything
            return
        if status is Status.BUSY and (request := self._pending.get(parent_id)):
            self._host.capture.begin(request)  # what the kernel's descriptors 1 and 2 say is this request's
        elif channel is Channel.SHELL:
            self._pending.pop(parent_id, None)
        urgent = channel is not Channel.IOPUB or status is Status.IDLE or message_type == "error"
        if sum(map(len, parts)) > MAX_MESSAGE_BYTES or len(parts) > 4 + MAX_BUFFERS:
            parts = self._cut(message_type, parent, parts)
        self._host.send(channel, message_type, status, parent, parts, urgent=urgent, soon=soon, wait=False)

    def _hear(self, message_type: str, content: dict[str, Any]) -> None:
        """An answer to a question of our own."""
        if message_type == "kernel_info_reply":
            self._nudges -= 1
            if self._info is None:
                self._info = {key: value for key, value in content.items() if key != "status"}
        elif content.get("execution_state") == "idle" and not self._is_heard:
            self._is_heard = True
            if self._startup:
                silent = {"silent": True, "store_history": False, "allow_stdin": False, "user_expressions": {}}
                self._ask(Channel.SHELL, "execute_request", {"code": self._startup, **silent})

    def _cut(self, message_type: str, parent: bytes, parts: list[bytes]) -> list[bytes]:
        """What is left of a message that is too large; a note on stderr says so."""
        try:
            content = json.loads(parts[3])
        except (ValueError, RecursionError):
            content = {}
        note, small = cut(message_type, content if isinstance(content, dict) else {}, parts, MAX_MESSAGE_BYTES)
        said = self._host.composer.stream("stderr", note + "\n", parts[1])
        self._host.send(Channel.IOPUB, "stream", Status.NONE, parent, said, wait=False)
        return [*parts[:2], b"{}", dumps(small)]

    def _hear_last_words(self) -> None:
        """What the kernel sent before it died is still in the unix sockets, or already with us."""
        end = time.monotonic() + LAST_WORDS_SECONDS
        poller = zmq.Poller()
        for socket in self._sockets.values():
            poller.register(socket, zmq.POLLIN)
        while time.monotonic() < end and not self._host.outbox.is_full:
            ready = dict(poller.poll(QUIET_MILLISECONDS))
            if not ready:
                break
            for channel, socket in self._sockets.items():
                if socket in ready:
                    self._receive(channel, socket)


def _receive_now(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def _start(spec: KernelSpec, connection_file: str) -> subprocess.Popen[bytes]:
    """The kernel's process: leader of a group of its own, and killed when the host dies."""
    values = {"connection_file": connection_file, "resource_dir": spec.resource_dir, "prefix": sys.prefix}
    command = _without_mark(
        [re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), word) for word in spec.argv]
    )
    environment = {
        **os.environ,
        **{name: Template(text).safe_substitute(os.environ) for name, text in spec.env.items()},
    }
    prctl = ctypes.CDLL(None).prctl
    environment.pop("JPY_PARENT_PID", None)  # somebody else's; ours is watched by the system
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),  # noqa: PLW1509 - one call, no imports
    )


def _without_mark(command: list[str]) -> list[str]:
    """The same command; if it is `python -m module`, with WITHOUT_MARK."""
    if not command:
        raise ValueError("its argv is empty")
    program = Path(command[0]).name
    if command[0] in ("python", "python3", f"python3.{sys.version_info[1]}"):
        command[0] = sys.executable  # as Jupyter does: the one on the path may be another
    at = command.index("-m") if "-m" in command else 0
    is_option = all(word.startswith("-") for word in command[1:at])  # else it is an argument of something else
    if at and is_option and re.fullmatch(r"python[\d.]*", program):
        return [*command[:at], "-c", WITHOUT_MARK, *command[at + 1 :]]
    return command
