"""The kernel host: joins any kernel to the link, and leaves it to the kernel what a message means.

Two threads. The main thread runs the kernel, and with it hostile code. The reader thread owns all that is joined to
the outside: the birth socket, on which links arrive; the link; the pipes behind file descriptors 1 and 2. It answers
what must be answered while a cell runs (interrupt, shutdown, kernel_info, ping), blocks every signal, and never waits
for a write, so that nothing short of a C call that keeps the interpreter lock keeps it from answering. A third thread
is begun when somebody first asks for files, which it reads and writes.

A link that ends is no end: what is not acknowledged is kept, writers wait once the window is full, and the next link
that arrives goes on where the last one stopped. The birth socket's end means that the supervisor died, and ends all.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed leaves it out
import _thread
import errno
import functools
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Protocol

import msgpack

from .capture import Capture
from .compose import Composer, Parent, Request, RequestError, cut, dumps, outcome
from .files import Files
from .link import Acknowledged, Hello, Link, LinkError, Message, Ping, WindowFull
from .message import CHANNELS, MAX_BUFFERS, STATES, Channel, MessageError, Status, Tag, join_v1
from .outbox import LINGER_SECONDS, Outbox, Text
from .outbox import Message as Outgoing

__all__ = ["Host", "Kernel", "Prepared", "Ready", "Setup"]

Buffer = bytes | bytearray | memoryview

MAX_MESSAGE_BYTES = 8 << 20  # of one message, buffers included: what a browser can be asked to render; half a link body
MAX_QUEUED = 1024  # requests that wait for the kernel: more than any notebook has cells
MAX_QUEUED_BYTES = 64 << 20
NUDGE_SECONDS = 0.05  # after a SIGINT: longer than the gap that it may have fallen into
END_SECONDS = 2.0  # for the last output to leave when the kernel ends
BUSY_END_SECONDS = 3.0  # for the kernel to end after a shutdown request; then it is ended
READ_BYTES = 64 << 10  # per read of the link; a larger buffer is mapped and unmapped for each, which takes it 30 us
JOIN_BYTES = 16 << 10  # below this one copy costs less than passing nine buffers on
WRITE_BYTES = 512 << 10  # gathered per write; and a few of these are all that is ever taken from the outbox unsent
WRITE_BUFFERS = 1000  # IOV_MAX is 1024
_SIGNALS = (*range(1, 32), *range(34, signal.NSIG))  # 32 and 33 are the C library's: naming them warns
PUSH_SECONDS = 0.0003  # between writes by those who make output themselves
# Held back while the link is written to: a handler of the user's may raise. As numbers, and without `signal`'s own
# wrapper, which makes an enum of each and takes a hundred microseconds for them.
_EVERY_SIGNAL = frozenset(map(int, signal.valid_signals()))
EX_LOST = 69  # exit code: the supervisor is gone (EX_UNAVAILABLE)
EX_BUG = 70  # exit code: the host itself failed (EX_SOFTWARE)


class Setup:
    """What the host side says in its first HELLO, before any user code."""

    def __init__(self, data: bytes) -> None:
        """Raises ValueError for anything but a map of the known keys."""
        given = msgpack.unpackb(data) if data else {}
        if not isinstance(given, dict):
            raise ValueError("setup is not a map")
        env = given.get("env") or {}
        texts = [given.get(key) or default for key, default in (("cwd", ""), ("kernel", "python"), ("startup", ""))]
        if not isinstance(env, dict) or not all(isinstance(text, str) for text in (*env, *env.values(), *texts)):
            raise ValueError("env must map strings to strings; cwd, kernel and startup be strings")
        self.env: dict[str, str] = env
        self.cwd, self.kernel, self.startup = texts

    def apply(self) -> None:
        os.environ.update(self.env)
        if self.cwd:
            os.chdir(self.cwd)


class Kernel(Protocol):
    """What the host asks of a kernel. All but `run` is called on the reader thread and must not block."""

    def run(self) -> int:
        """On the main thread: serve what `Host.take` gives until the kernel ends; its exit code, or the negative
        of the signal that ended it: this process then ends by the same."""

    def wake(self) -> None:
        """There is something to `Host.take`."""

    def info(self) -> Mapping[str, Any] | None:
        """The content of kernel_info_reply; None if only the kernel itself can answer, by way of the queue."""

    def control(self, request: Request) -> bool:
        """A request on the control or stdin channel that the host does not answer itself: interrupt, shutdown and
        kernel_info it does. Whether the kernel took it; if not, it is refused."""

    def interrupt(self) -> None:
        """As Ctrl-C would."""

    def shutdown(self, restart: bool) -> None:
        """Make `run` return soon; the reply has been sent."""


class Ready(Kernel, Protocol):
    """A kernel made without knowing its session."""

    def begin(self, setup: Setup) -> None:
        """Once before `run`, on the main thread: the environment and directory are now as `setup` says."""


class Prepared(Protocol):
    """A kernel that wants only a host; what a zygote makes before it forks."""

    def bind(self, host: Host) -> Ready:
        """The kernel, speaking through this host from now on."""


class Host:
    """One per process. `start` it, `wait_for_setup`, then `serve` a kernel."""

    def __init__(self, birth: socket.socket, composer: Composer | None = None) -> None:
        """`birth` brings link streams: as descriptors, or as connections when it listens."""
        self.composer = composer or Composer()
        self._main = threading.main_thread().ident
        self._pid = 0  # of the kernel, once it is started
        self._has_forgotten = False
        self._birth = birth
        self._listens = birth.type == socket.SOCK_STREAM  # SO_ACCEPTCONN is no word that gVisor knows
        self._birth.setblocking(False)
        self._birth.set_inheritable(False)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.outbox = Outbox(self._wake, self._push)
        self._io = threading.Lock()  # held by whoever is at the link; never while waiting for anything
        self._pusher = 0  # the thread that holds it to write its own output
        self._push_again_at = 0.0
        self.capture = Capture(self.outbox)
        self.files = Files(self._answer_files, self.capture.log)
        self._link = Link()
        self._stream: socket.socket | None = None
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._blocked: Outgoing | None = None  # taken from the outbox; waits for the window
        self._owes_pong: int | None = None  # the token of a ping
        self._kernel: Kernel | None = None
        self._queue: deque[Request] = deque()
        self._queued_bytes = 0
        self._setup: Setup | None = None
        self._setup_came = threading.Lock()
        self._setup_came.acquire()
        self._expects_output = False  # a request was handed on: look soon, so that what it prints need not wake us
        self._signals = -1  # a pipe that says which signals came
        self._nudge_by: float | None = None
        self._end_by: float | None = None  # the process ends then at the latest
        self._is_over = False  # the kernel has ended: leave when all is sent
        self._exit_code = 0

    # -- the kernel's side: any thread ------------------------------------------------------------------

    @property
    def received(self) -> int:
        """The number of the newest message that came."""
        return self._link.received

    @property
    def has_requests(self) -> bool:
        return bool(self._queue)

    def take(self, only: Container[str] | None = None) -> Request | None:
        """The next request for the kernel; `only` of these types if given. One caller."""
        queue = self._queue
        for at in range(len(queue)):  # the reader only ever appends
            if only is None or queue[at].type in only:
                request = queue[at]
                del queue[at]
                break
        else:
            return None
        self._queued_bytes = self._queued_bytes - request.size if self._queue else 0
        return request

    def send(
        self,
        channel: Channel,
        message_type: str,
        status: Status,
        parent_id: bytes,
        parts: Sequence[Buffer],
        *,
        urgent: bool = False,
        soon: bool = False,
        wait: bool = True,
    ) -> None:
        """Queue a message: header, parent header, metadata, content, buffers. They must not change afterwards.
        `urgent` may exceed the link's window: replies, idle. For `soon` and `wait` see `Outbox.put`."""
        if self.is_child:
            return
        self.outbox.put(self._message(channel, message_type, status, parent_id, parts, urgent), soon=soon, wait=wait)

    def post(
        self,
        channel: Channel,
        message_type: str,
        content: Mapping[str, Any],
        parent: Parent | None = None,
        *,
        metadata: bytes = b"{}",
        buffers: Sequence[Buffer] = (),
        urgent: bool = False,
        soon: bool = False,
        wait: bool = True,
    ) -> None:
        """Compose a message and `send` it. One that is too large is cut, and a note on stderr says so."""
        if self.is_child:
            return
        message, note = self._compose(channel, message_type, content, parent, metadata, buffers, urgent)
        if note:
            self.write(Text(parent, "stderr", note + "\n"))
            self.outbox.flush()
        self.outbox.put(message, soon=soon, wait=wait)

    def write(self, text: Text) -> None:
        """To a stream; joined with what follows until a flush, any other message, or a few milliseconds pass."""
        if self.is_child:
            os.write(2 if text.name == "stderr" else 1, text.text.encode("utf-8", "replace"))
        else:
            self.outbox.write(text)

    def status(self, state: str, parent: Parent | None, *, soon: bool = False, wait: bool = True) -> None:
        self.send(
            Channel.IOPUB,
            "status",
            STATES[state],
            parent.key if parent else b"",
            self._status_parts(state, parent),
            urgent=state == "idle",
            soon=soon,
            wait=wait,
        )

    def refuse(self, request: Request, name: str, value: str) -> None:
        """Answer a request in full with an error, without the kernel."""
        for message in self._refusal(request, name, value):
            self.outbox.put(message, wait=False)

    # -- composing ----------------------------------------------------------------------------------------

    def _message(
        self,
        channel: Channel,
        message_type: str,
        status: Status,
        parent_id: bytes,
        parts: Sequence[Buffer],
        urgent: bool,
    ) -> Outgoing:
        body = join_v1(CHANNELS[channel], parts)
        body.insert(0, Tag(channel, message_type, status, parent_id).pack())
        size = sum(map(len, body))
        if size < JOIN_BYTES:
            body = [b"".join(body)]
        return Outgoing(body, size, urgent)

    def _compose(
        self,
        channel: Channel,
        message_type: str,
        content: Mapping[str, Any],
        parent: Parent | None,
        metadata: bytes = b"{}",
        buffers: Sequence[Buffer] = (),
        urgent: bool = False,
    ) -> tuple[Outgoing, str]:
        note = ""
        header = self.composer.header(message_type)
        parent_json, parent_id = (parent.header_json, parent.key) if parent else (b"{}", b"")
        parts = [header, parent_json, metadata, dumps(content), *(bytes(part) for part in buffers)]
        if sum(map(len, parts)) > MAX_MESSAGE_BYTES or len(buffers) > MAX_BUFFERS:
            note, small = cut(message_type, content, parts, MAX_MESSAGE_BYTES)
            parts = [header, parent_json, b"{}", dumps(small)]
        status = outcome(message_type, content)
        return self._message(channel, message_type, status, parent_id, parts, urgent), note

    def _status_parts(self, state: str, parent: Parent | None) -> list[Buffer]:
        parent_json = parent.header_json if parent else b"{}"
        return [self.composer.header("status"), parent_json, b"{}", b'{"execution_state":"%b"}' % state.encode()]

    def _refusal(self, request: Request, name: str, value: str) -> list[Outgoing]:
        error: dict[str, Any] = {"ename": name, "evalue": value, "traceback": []}
        answers: list[tuple[Channel, str, dict[str, Any]]] = [(Channel.IOPUB, "status", {"execution_state": "busy"})]
        if request.type == "execute_request":
            answers.append((Channel.IOPUB, "error", error))
        if request.type.endswith("_request"):
            reply = request.type.removesuffix("_request") + "_reply"
            answers.append((request.channel, reply, {"status": "error", **error}))
        answers.append((Channel.IOPUB, "status", {"execution_state": "idle"}))
        return [self._compose(*answer, request, urgent=True)[0] for answer in answers]

    # -- life -----------------------------------------------------------------------------------------------

    @property
    def is_child(self) -> bool:
        """Whether this is a fork made by user code, which must not speak as the kernel. Its number says so, and not
        what it was told: an interrupt is for all processes of the kernel's, and may strike before it was."""
        return os.getpid() != self._pid != 0

    def start(self) -> None:
        """Take over file descriptors 0 to 2 and start the reader thread."""
        self._pid = os.getpid()
        self.capture.start()
        self._watch_signals()
        os.register_at_fork(after_in_child=self._forget)
        for name in ("_exit", "abort"):
            self._speak_before(name)
        before = _signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # the thread inherits it
        try:  # not a threading.Thread: those are the user's, and take a hundred pages more to start after a fork
            _thread.start_new_thread(self._read_forever, ())
        finally:
            _signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _speak_before(self, name: str) -> None:
        """What ends the process on the spot must not overtake lines that are flushed already."""
        end: Callable[..., NoReturn] = getattr(os, name)

        @functools.wraps(end)
        def speak_and_end(*args: Any, **kwargs: Any) -> NoReturn:
            if not self.is_child:
                self._push_again_at = 0.0
                self._push()
            end(*args, **kwargs)

        setattr(os, name, speak_and_end)

    def _watch_signals(self) -> None:
        """A signal that comes between a look for signals and the blocking call after it interrupts neither. So a
        while after each SIGINT the main thread gets another signal, which does nothing but end the call."""
        self._signals, sink = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
        signal.signal(signal.SIGURG, lambda *_: None)
        self._main_thread = threading.get_ident()

    def wait_for_setup(self) -> Setup:
        """The first HELLO's, however long it takes."""
        with self._setup_came:
            assert self._setup is not None
            return self._setup

    def serve(self, kernel: Kernel) -> NoReturn:
        """Run the kernel on this thread until it ends, send what is left, and end the process."""
        self.attach(kernel)
        try:
            code = kernel.run()
        except BaseException:
            self.capture.log(traceback.format_exc())
            code = EX_BUG
        self.end(code)

    def attach(self, kernel: Kernel) -> None:
        """From now on requests wake this kernel."""
        self._kernel = kernel
        if self._queue:
            kernel.wake()

    def end(self, code: int) -> NoReturn:
        """Send what is left and end the process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.capture.drain(final=True)
        self._exit_code = code
        self._is_over = True
        self._end_by = time.monotonic() + END_SECONDS
        self.outbox.is_due = True
        self._wake()
        time.sleep(END_SECONDS + 1)  # the reader ends the process
        _leave(code)

    def close(self) -> None:
        """Of a host that was not started: give its descriptors back."""
        self._drop_stream()
        self._birth.close()
        os.close(self._wakeup)

    def _forget(self) -> None:
        """In a child that user code forked: what it prints goes to the pipes, all else nowhere; and no descriptor
        of the kernel's outlives the kernel in it."""
        if self._has_forgotten:
            return
        self._has_forgotten = True
        for end in (self._birth, self._stream):
            with suppress(OSError):
                if end is not None:
                    end.close()
        for descriptor in (self._wakeup, self._signals):
            with suppress(OSError):
                os.close(descriptor)
        with suppress(ValueError):  # of a thread that forked
            signal.set_wakeup_fd(-1)
        self.capture.forget()

    # -- the reader thread ------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self.is_child:
            os.eventfd_write(self._wakeup, 1)

    def _push(self) -> None:
        """Any thread: write out what waits. Once here no signal handler strikes before all is in order again."""
        thread = threading.get_ident()
        if (
            self.is_child
            or thread in (self._pusher, self.outbox.reader)  # a finalizer prints in there
            or time.monotonic() < self._push_again_at  # a flood: the reader takes many at once, for a third of the cost
        ):
            self.outbox.hurry()
            return
        is_main = thread == self._main  # no other runs handlers
        before = _signal.pthread_sigmask(signal.SIG_BLOCK, ()) if is_main else ()
        try:
            if is_main:
                _signal.pthread_sigmask(signal.SIG_BLOCK, _EVERY_SIGNAL)  # may raise, for one that came just before
            with self._io:
                self._pusher = thread
                self._pump()
                self._pusher = 0
                self._push_again_at = time.monotonic() + PUSH_SECONDS
                if self._blocked is not None or self._unsent:  # the link is stuck: the reader sees when it is not
                    self.outbox.hurry()
        except BaseException:
            self.outbox.hurry()
            raise
        finally:
            if is_main:
                _signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _read_forever(self) -> None:
        self.outbox.reader = threading.get_ident()
        try:
            while True:
                self.turn()
        except BaseException:  # a bug, or user code that took our descriptors: either way this kernel is deaf
            self.capture.log(traceback.format_exc())
            os._exit(EX_BUG)

    def turn(self, *, wait: bool = True) -> None:
        """Once around: send what is due, wait for what comes, take it. The reader thread does nothing else; a
        rehearsal, which has no such thread, calls it without waiting."""
        with self._io:
            poll, timeout, link = self._prepare_turn()
        if poll is None:
            return
        ready = poll.poll(0 if not wait else None if timeout is None else timeout * 1000)
        with self._io:
            self._take_turn(ready, link)

    def _prepare_turn(self) -> tuple[select.poll | None, float | None, int]:
        """Send what is due; then what to wait for, how long, and which descriptor is the link. None: do not wait."""
        outbox, capture = self.outbox, self.capture
        if outbox.is_due:
            outbox.is_due = False
            self._pump()
        # While the link is stuck its progress wakes us, and nothing else need.
        is_stuck = self._blocked is not None or bool(self._unsent)
        timeout: float | None = None
        if not is_stuck and (self._expects_output or self._owes_pong is not None or not outbox.is_empty):
            timeout = LINGER_SECONDS
        if self._nudge_by is not None:
            timeout = NUDGE_SECONDS
            if time.monotonic() > self._nudge_by:
                self._nudge_by = None
                signal.pthread_kill(self._main_thread, signal.SIGURG)
        if self._end_by is not None:
            is_sent = outbox.is_empty and not is_stuck and self._stream is not None
            if (self._is_over and is_sent) or time.monotonic() > self._end_by:
                _leave(self._exit_code)
            timeout = LINGER_SECONDS

        poll = select.poll()
        poll.register(self._birth, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        if self._signals >= 0:
            poll.register(self._signals, select.POLLIN)
        link = -1
        if self._stream is not None:
            link = self._stream.fileno()
            poll.register(link, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if not outbox.is_full:
            for pipe in capture.pipes:
                poll.register(pipe, select.POLLIN)

        outbox.is_awake = is_stuck
        outbox.is_watched = is_stuck or timeout is not None
        if not is_stuck and (outbox.is_due or (timeout is None and not outbox.is_empty)):
            return None, None, link  # something came before the flags said that we sleep
        return poll, timeout, link

    def _take_turn(self, ready: Sequence[tuple[int, int]], link: int) -> None:
        outbox, capture = self.outbox, self.capture
        outbox.is_awake = outbox.is_watched = True
        self._expects_output = False
        if not ready or self._blocked is not None or self._unsent:
            outbox.is_due = True
        for descriptor, events in ready:
            if descriptor == link:
                self._receive()
            elif descriptor == self._wakeup:
                with suppress(BlockingIOError):
                    os.eventfd_read(descriptor)
            elif descriptor == self._birth.fileno():
                if self._listens and events & select.POLLHUP:
                    raise OSError("a cell has shut what streams arrive at")
                self._take_stream()
            elif descriptor == self._signals:
                if signal.SIGINT in os.read(descriptor, 4096):
                    self._nudge_by = time.monotonic() + NUDGE_SECONDS
            else:
                capture.read(descriptor)

    def _take_stream(self) -> None:
        """A fresh link stream; the newest replaces what there is."""
        if self._listens:
            try:
                stream, _ = self._birth.accept()
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):  # a cell has closed or replaced it
                    raise
                return  # who connected has gone again; or a cell holds every descriptor there may be
            self._begin_stream(stream)
            return
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._birth, 16, 4)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data and not descriptors:
            os._exit(EX_LOST)
        for descriptor in descriptors:
            self._begin_stream(socket.socket(fileno=descriptor))

    def _begin_stream(self, stream: socket.socket) -> None:
        self._drop_stream()
        stream.set_inheritable(False)  # as received it would be, by any program that a cell starts
        stream.setblocking(False)
        self._stream = stream
        self._queue_bytes([self._link.open()])
        self._flush()

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._unsent.clear()
        self._unsent_bytes = 0
        self._owes_pong = None

    def _receive(self) -> None:
        """Read the link once."""
        if self._stream is None:
            return
        try:
            data = self._stream.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._drop_stream()
            return
        try:
            events = self._link.receive(data)
        except LinkError as error:
            self.capture.log(f"cellgate_kernel: link dropped: {error}\n")
            self._drop_stream()
            return
        is_due = False
        for event in events:
            if type(event) is Message:
                self._dispatch(event)
            elif type(event) is Acknowledged:
                is_due = True
            elif type(event) is Hello:
                self._greet(event)
                is_due = True
            elif type(event) is Ping:
                self._owes_pong = event.token  # the newest asks for all
        if not self._expects_output:  # else it goes with what the kernel says, in one write
            self._queue_bytes(self._owed())
            self.outbox.is_due |= is_due
        self._flush()

    def _owed(self) -> list[Buffer]:
        """What the other end waits for: the word that its messages came, the answer to its newest ping."""
        owed: list[Buffer] = [self._link.acknowledge()]
        if self._owes_pong is not None and len(self._unsent) < WRITE_BUFFERS:
            owed.append(self._link.pong(self._owes_pong))
            self._owes_pong = None
        return owed

    def _greet(self, hello: Hello) -> None:
        self._queue_bytes(hello.resend)
        if self._setup is None:
            try:
                self._setup = Setup(hello.setup)
            except (ValueError, msgpack.UnpackException) as error:
                raise RuntimeError(f"the host side sent a setup that cannot be read: {error}") from error
            self._setup_came.release()

    # -- what comes ---------------------------------------------------------------------------------------------

    def _dispatch(self, message: Message) -> None:
        """Answer one message or hand it on."""
        try:
            _tag, body = Tag.unpack(message.body)
            request = Request(message.number, body)
        except (MessageError, RequestError) as error:  # nobody to answer to: say it where the operator looks
            self.capture.log(f"cellgate_kernel: message {message.number} ignored: {error}\n")
            return
        kernel = self._kernel
        kind = request.type
        if kind == "kernel_info_request" and kernel is not None and (info := kernel.info()) is not None:
            self._answer(request, "kernel_info_reply", {"status": "ok", **info})
        elif kind == "interrupt_request":
            if kernel is not None:
                kernel.interrupt()
            self._answer(request, "interrupt_reply", {"status": "ok"})
        elif kind == "shutdown_request":
            self._shutdown(request)
        elif kind == "files_request" and request.channel is Channel.CONTROL:
            if why := self.files.take(request):
                self._put_now(self._refusal(request, "files_failed", why))
        elif request.channel in (Channel.CONTROL, Channel.STDIN):
            if (kernel is None or not kernel.control(request)) and kind.endswith("_request"):
                self._put_now(self._refusal(request, "NotSupported", f"this kernel does not answer {kind[:100]}"))
        elif len(self._queue) >= MAX_QUEUED or self._queued_bytes + request.size > MAX_QUEUED_BYTES:
            limit = f"{MAX_QUEUED} requests and {MAX_QUEUED_BYTES >> 20} MiB"
            self._put_now(self._refusal(request, "queue_full", f"the kernel's queue is full; it holds {limit}"))
        else:
            self._queue.append(request)
            self._queued_bytes += request.size
            self._expects_output = True
            if kernel is not None:
                kernel.wake()

    def _answer(self, request: Request, message_type: str, content: Mapping[str, Any]) -> None:
        self._put_now(
            self._compose(channel, kind, value, request, urgent=True)[0]
            for channel, kind, value in (
                (Channel.IOPUB, "status", {"execution_state": "busy"}),
                (request.channel, message_type, content),
                (Channel.IOPUB, "status", {"execution_state": "idle"}),
            )
        )

    def _answer_files(self, request: Request, content: Mapping[str, Any], data: bytes | None) -> None:
        """On the thread of the files, which may wait for room."""
        self.status("busy", request, soon=True)
        buffers = [] if data is None else [data]
        self.post(Channel.CONTROL, "files_reply", content, request, buffers=buffers, soon=True)
        self.status("idle", request)

    def _shutdown(self, request: Request) -> None:
        try:
            restart = bool(request.content.get("restart", False))
        except RequestError:
            restart = False
        self._answer(request, "shutdown_reply", {"status": "ok", "restart": restart})
        if self._kernel is None:
            os._exit(0)
        self._end_by = time.monotonic() + BUSY_END_SECONDS
        self._kernel.shutdown(restart)

    def _put_now(self, messages: Any) -> None:
        """The reader's own answers: before all that waits in the outbox."""
        for message in messages:
            try:
                self._queue_bytes(self._link.send(message.parts, urgent=True))
            except WindowFull:  # thousands of questions and not one acknowledgement: they wait with the rest
                self.outbox.put(message, wait=False)
        self._flush()

    # -- what leaves ----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """From the outbox through the link into the stream, until one of them is at its end."""
        self._flush()
        if self._unsent:
            return
        self._queue_bytes(self._owed())
        now = time.monotonic()
        while True:
            message = self._blocked or self._next(now)
            if message is None:
                break
            try:
                frame = self._link.send(message.parts, urgent=message.urgent)
            except WindowFull:
                self._blocked = message
                break
            except ValueError as error:  # larger than this peer takes
                self._blocked = self._apology(message, str(error))
                continue
            self._blocked = None
            if frame:
                self._queue_bytes(frame)
                if self._unsent_bytes >= WRITE_BYTES or len(self._unsent) >= WRITE_BUFFERS:
                    self._flush()
                    if self._unsent:
                        return
        self._flush()

    def _next(self, now: float) -> Outgoing | None:
        item = self.outbox.take(now, everything=self._is_over)
        if type(item) is not Text:
            return item  # type: ignore[return-value]  # mypy does not narrow by exclusion here
        parent = item.parent
        parts = self.composer.stream(item.name, item.text, parent.header_json if parent else b"{}")
        return self._message(Channel.IOPUB, "stream", Status.NONE, parent.key if parent else b"", parts, False)

    def _apology(self, message: Outgoing, reason: str) -> Outgoing:
        """What tells the reader that a message could not be sent."""
        tag, _ = Tag.unpack(memoryview(message.parts[0]))
        parent = Parent({"msg_id": tag.parent_id.decode()})
        text = f"[{tag.message_type or 'message'} not shown: {reason}]\n"
        parts = self.composer.stream("stderr", text, parent.header_json)
        return self._message(Channel.IOPUB, "stream", Status.NONE, parent.key, parts, message.urgent)

    def _queue_bytes(self, buffers: Sequence[Buffer]) -> None:
        if self._stream is not None:
            self._unsent.extend(memoryview(buffer) for buffer in buffers if buffer)
            self._unsent_bytes += sum(map(len, buffers))

    def _flush(self) -> None:
        """Write as much as the stream takes."""
        unsent, stream = self._unsent, self._stream
        while unsent and stream is not None:
            buffers = [unsent[at] for at in range(min(len(unsent), WRITE_BUFFERS))]
            try:
                written = stream.sendmsg(buffers)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._drop_stream()
                return
            self._unsent_bytes -= written
            for buffer in buffers:
                if written < len(buffer):
                    unsent[0] = buffer[written:]
                    break
                written -= len(buffer)
                unsent.popleft()


def _leave(code: int) -> NoReturn:
    if code < 0:
        os.kill(os.getpid(), -code)
        time.sleep(1)  # until it has struck; the main thread takes what this one blocks
    os._exit(code if code >= 0 else 128 - code)
