"""A driver without processes, for unit tests of what uses sandboxes. It contains nothing: trusted code only.

A fake kernel runs its cells in a thread of the test's own process, and speaks the real link over a socket
pair. Cells are ordinary Python, except that `os`, `signal`, `time` and `sys` are doubles in which the ways to
end a process end the sandbox instead: `os._exit(3)`, `os.kill(os.getpid(), signal.SIGSEGV)`, a `bytearray`
beyond the memory limit, SIGSTOP, writing rubbish to the link. What a real kernel adds (rich display, magics,
completion, child processes) is not here. It passes the conformance suite that the real drivers pass.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import errno
import itertools
import linecache
import os
import queue
import signal as signals
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any, NoReturn

import msgpack

from cellgate.errors import LinkClosed, SandboxGone, UnknownTemplate
from cellgate.sandbox.base import Sandbox, SandboxSpec, Usage
from cellgate.sandbox.certificate import DeathCertificate, Reason, ResourceEvents, decide
from cellgate.sandbox.connection import LinkStream, each
from cellgate.wire.jupyter import PROTOCOL_VERSION, JupyterMessage, make_message, parse_message
from cellgate_kernel.link import Hello, Link, WindowFull
from cellgate_kernel.message import CHANNELS, Channel, Status, Tag, join_v1

__all__ = ["FakeDriver", "FakeSandbox"]

TEMPLATES = ("python",)
LINK_FD = 5  # under which a cell finds its link, as it would in a real kernel


class FakeDriver:
    """Makes sandboxes that cost a thread. They end when it is closed."""

    name = "fake"

    def __init__(self) -> None:
        self._living: dict[str, FakeSandbox] = {}
        self._numbers = itertools.count(1)

    @property
    def templates(self) -> tuple[str, ...]:
        return TEMPLATES

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        if spec.template not in TEMPLATES:
            raise UnknownTemplate(spec.template, TEMPLATES)
        sandbox = FakeSandbox(f"fake-{next(self._numbers)}", spec, self._living)
        self._living[sandbox.id] = sandbox
        return sandbox

    async def ended(self) -> list[Sandbox]:
        return []  # it keeps none: whoever made a sandbox knows how it ended

    async def sandboxes(self) -> list[Sandbox]:
        return list(self._living.values())

    async def close(self) -> None:
        for sandbox in list(self._living.values()):
            await sandbox.destroy()


class FakeSandbox:
    """See `Sandbox`."""

    driver = "fake"

    def __init__(self, sandbox_id: str, spec: SandboxSpec, living: dict[str, FakeSandbox]) -> None:
        self.id = sandbox_id
        self.template = spec.template
        self.limits = spec.limits
        self._living = living
        self._ended: asyncio.Future[DeathCertificate] = asyncio.get_running_loop().create_future()
        self._born = time.monotonic()
        self._kernel = _Kernel(spec.limits.memory_bytes, self._end)

    async def attach(self) -> socket.socket:
        self._must_live()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._kernel.take_link(theirs)
        return ours

    async def interrupt(self) -> None:
        self._kernel.interrupt()

    async def kill(self, reason: Reason, detail: str = "") -> None:
        self._end(int(signals.SIGKILL), killed_for=reason, detail=detail)

    async def wait(self) -> DeathCertificate:
        return await asyncio.shield(self._ended)

    async def usage(self) -> Usage:
        end = self._ended.result() if self._ended.done() else None
        return Usage(
            memory_bytes=None,
            memory_peak_bytes=None,
            cpu_seconds=0.0,
            pids=0 if end else 1,
            oom_kills=end.oom_kills if end else 0,
            pids_limit_hits=0,
            stopped=self._kernel.is_stopped and not end,
        )

    async def destroy(self) -> DeathCertificate:
        await self.kill(Reason.SESSION_DELETED)
        return await self.wait()

    def _must_live(self) -> None:
        if self._ended.done():
            raise SandboxGone(self.id, self._ended.result())

    def _end(self, wait_status: int, *, oom_kills: int = 0, killed_for: Reason | None = None, detail: str = "") -> None:
        if self._ended.done():
            return
        events = ResourceEvents(
            memory_limit_bytes=self.limits.memory_bytes,
            memory_peak_bytes=self.limits.memory_bytes if oom_kills else 0,
            oom_kills=oom_kills,
            wall_seconds=time.monotonic() - self._born,
        )
        self._ended.set_result(decide(wait_status, killed_for, events, detail=detail))
        self._living.pop(self.id, None)
        self._kernel.stop()


class _Ended(BaseException):
    """Unwinds a cell whose sandbox has ended; raised again at each of its lines, so that nothing survives it."""


class _Kernel:
    """The kernel's end of a link, and a thread that runs cells. What touches the link happens on the loop."""

    def __init__(self, memory_bytes: int, end: Callable[..., None]) -> None:
        self.is_stopped = False
        self._loop = asyncio.get_running_loop()
        self._end = end
        self._link = Link()
        self._stream: LinkStream | None = None
        self._linked = asyncio.Event()  # set whenever senders should look again
        self._has_ended = threading.Event()
        self._interrupted = threading.Event()
        self._in_cell = False
        self._requests: queue.SimpleQueue[JupyterMessage] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._controls: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._parent: Mapping[str, Any] = {}
        self._executions = 0
        self._was_set_up = False
        self._environ: dict[str, str] = {}
        self._globals: dict[str, Any] = {"__name__": "__main__", "__builtins__": _doubles(self, memory_bytes)}
        threading.Thread(target=self._run, name="fake kernel", daemon=True).start()

    # -- on the loop: the link ----------------------------------------------------------------------

    def take_link(self, sock: socket.socket) -> None:
        if self._stream:
            self._stream.close()
        self._sock = sock
        self._stream = LinkStream(
            self._link, sock, each(self._take), on_hello=self._set_up, name="a fake kernel's link"
        )
        if self.is_stopped:
            self._stream.pause()
        self._linked.set()

    def interrupt(self) -> None:
        if self._in_cell:
            self._interrupted.set()

    def stop(self) -> None:
        self._has_ended.set()
        self._linked.set()
        if self._stream:
            self._stream.close()

    def _set_up(self, hello: Hello) -> None:
        self._linked.set()
        if not self._was_set_up:
            self._was_set_up = True
            setup = msgpack.unpackb(hello.setup) if hello.setup else {}
            self._environ.update(setup.get("env", {}))
            if code := setup.get("startup"):
                exec(compile(code, "<cell startup>", "exec"), self._globals)

    def _take(self, _number: int, tag: Tag, v1: memoryview) -> None:
        message = parse_message(v1)
        kind = message["msg_type"]
        if tag.channel is Channel.STDIN:
            self._answers.put(message["content"].get("value", ""))
        elif tag.channel is Channel.CONTROL or kind == "kernel_info_request":  # answered while a cell runs
            task = self._loop.create_task(self._control(tag.channel, message))
            self._controls.add(task)
            task.add_done_callback(self._controls.discard)
        else:
            self._requests.put(message)

    async def _control(self, channel: Channel, message: JupyterMessage) -> None:
        kind, header = message["msg_type"], message["header"]
        if kind == "interrupt_request":
            self.interrupt()
        content = {"status": "ok"} | (KERNEL_INFO if kind == "kernel_info_request" else {})
        with contextlib.suppress(_Ended):
            await self._send(Channel.IOPUB, "status", {"execution_state": "busy"}, header, Status.BUSY)
            await self._send(channel, _reply_type(kind), content, header, Status.OK)
            await self._send(Channel.IOPUB, "status", {"execution_state": "idle"}, header, Status.IDLE)
        if kind == "shutdown_request":
            self._end(0)

    async def _send(
        self, channel: Channel, kind: str, content: Mapping[str, Any], parent: Mapping[str, Any], status: Status
    ) -> None:
        """Send when the window has room, on whichever stream there is then."""
        tag, parts = make_message(
            kind,
            content,
            channel=channel,
            msg_id=f"fake_{next(self._numbers)}",
            session="fake",
            date=datetime.now(timezone.utc).isoformat(),
            parent_header=parent,
        )
        tag = Tag(channel, kind, status, str(parent.get("msg_id", "")).encode())
        while not self._has_ended.is_set():
            try:
                if self._stream is None or self._stream.closed.done():
                    self._link.send([tag.pack(), *join_v1(CHANNELS[channel], parts)])  # kept for the next stream
                else:
                    await self._stream.send(tag, parts)
                return
            except LinkClosed:
                continue
            except WindowFull:
                self._linked.clear()
                await self._linked.wait()
        raise _Ended

    # -- in the thread: the cells -------------------------------------------------------------------

    def emit(self, channel: Channel, kind: str, content: Mapping[str, Any], status: Status = Status.NONE) -> None:
        work = self._send(channel, kind, content, self._parent, status)
        try:
            sent = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop was closed: nobody is left
            work.close()
            raise _Ended from None
        sent.result()

    def end(self, wait_status: int, oom_kills: int = 0) -> NoReturn:
        """The cell has ended its own process."""
        self._loop.call_soon_threadsafe(lambda: self._end(wait_status, oom_kills=oom_kills))
        self._has_ended.wait()
        raise _Ended

    def halt(self) -> NoReturn:
        """The cell has stopped its own process: nothing is read any more."""

        def stop() -> None:
            self.is_stopped = True
            if self._stream:
                self._stream.pause()

        self._loop.call_soon_threadsafe(stop)
        self._has_ended.wait()
        raise _Ended

    def wreck_link(self, rubbish: bytes | None) -> None:
        """The cell wrote to its link, or closed it (None)."""
        done = threading.Event()

        def wreck() -> None:
            if self._stream and not self._stream.closed.done():
                if rubbish is None:
                    self._stream.close()
                else:
                    self._sock.send(rubbish)
            done.set()

        self._loop.call_soon_threadsafe(wreck)
        done.wait()

    def check(self) -> None:
        """What a signal handler would do between two lines."""
        if self._has_ended.is_set():
            raise _Ended
        if self._interrupted.is_set():
            self._interrupted.clear()
            raise KeyboardInterrupt

    def wait_for(self, ready: Callable[[float], bool]) -> None:
        """Wait until `ready(seconds)`, which waits that long itself; raises KeyboardInterrupt like a system call."""
        while not ready(0.01):
            self.check()

    def ask(self, prompt: str = "", password: bool = False) -> str:
        if not self._allow_stdin:
            raise RuntimeError("raw_input was called, but this frontend does not support input requests.")
        self.emit(Channel.STDIN, "input_request", {"prompt": str(prompt), "password": password})
        answers: list[str] = []

        def has_answer(seconds: float) -> bool:
            with contextlib.suppress(queue.Empty):
                answers.append(self._answers.get(timeout=seconds))
            return bool(answers)

        self.wait_for(has_answer)
        if answers[0] == "\x04":
            raise EOFError
        return answers[0]

    def _run(self) -> None:
        sys.settrace(self._trace)
        with contextlib.suppress(_Ended):
            while not self._has_ended.is_set():
                with contextlib.suppress(queue.Empty):
                    self._serve(self._requests.get(timeout=0.1))

    def _trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        if not frame.f_code.co_filename.startswith("<cell"):
            return None
        # `while True: pass` stays on one line, which Python tells of only from 3.12 on; there, opcodes traced in
        # several threads crash the interpreter now and then (seen with 3.12.1).
        frame.f_trace_opcodes = _TRACES_OPCODES
        if event == ("opcode" if _TRACES_OPCODES else "line"):
            self.check()
        return self._trace

    def _serve(self, request: JupyterMessage, aborts: bool = False) -> None:
        kind, self._parent = request["msg_type"], request["header"]
        self.emit(Channel.IOPUB, "status", {"execution_state": "busy"}, Status.BUSY)
        if aborts and kind == "execute_request":
            reply: dict[str, Any] = {"status": "aborted"}
        elif kind == "execute_request":
            reply = self._execute(request["content"])
        else:
            reply = {"status": "ok"} | OTHER_REPLIES.get(kind, {})
        behind = []
        if reply["status"] == "error" and request["content"].get("stop_on_error", True):
            while not self._requests.empty():  # before the reply, on which the next request may follow
                behind.append(self._requests.get())
        if kind.endswith("_request"):  # comm messages have no reply
            self.emit(Channel.SHELL, _reply_type(kind), reply, STATUS_OF_REPLY[reply["status"]])
        self.emit(Channel.IOPUB, "status", {"execution_state": "idle"}, Status.IDLE)
        for aborted in behind:
            self._serve(aborted, aborts=True)

    def _execute(self, content: Mapping[str, Any]) -> dict[str, Any]:
        code, silent = str(content.get("code", "")), bool(content.get("silent"))
        self._allow_stdin = bool(content.get("allow_stdin"))
        if not silent:
            self._executions += 1
            self.emit(Channel.IOPUB, "execute_input", {"code": code, "execution_count": self._executions})
        reply: dict[str, Any] = {"status": "ok", "execution_count": self._executions, "payload": []}
        self._interrupted.clear()
        self._in_cell = True
        try:
            value = self._evaluate(code, f"<cell {self._executions}>")
            self._in_cell = False
            if value is not None and not silent:
                data = {"data": {"text/plain": repr(value)}, "metadata": {}}
                self.emit(Channel.IOPUB, "execute_result", data | {"execution_count": self._executions})
            names = content.get("user_expressions") or {}
            reply["user_expressions"] = {name: self._expression(text) for name, text in names.items()}
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self._in_cell = False
            told = _describe(error)
            self.emit(Channel.IOPUB, "error", told)
            reply |= {"status": "error"} | told
        return reply

    def _evaluate(self, code: str, name: str) -> object:
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)  # for tracebacks
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), self._globals)
        if isinstance(last, ast.Expr):
            return eval(compile(ast.Expression(last.value), name, "eval"), self._globals)
        return None

    def _expression(self, text: str) -> dict[str, Any]:
        try:
            value = eval(compile(text, "<cell>", "eval"), self._globals)
        except Exception as error:
            return {"status": "error"} | _describe(error)
        return {"status": "ok", "data": {"text/plain": repr(value)}, "metadata": {}}


_TRACES_OPCODES = sys.version_info < (3, 12)


class _Output:
    """A double of sys.stdout or sys.stderr."""

    def __init__(self, kernel: _Kernel, name: str) -> None:
        self._kernel, self._name = kernel, name

    def write(self, text: str) -> int:
        if text:
            self._kernel.emit(Channel.IOPUB, "stream", {"name": self._name, "text": text})
        return len(text)

    def flush(self) -> None:
        pass


def _doubles(kernel: _Kernel, memory_bytes: int) -> dict[str, Any]:
    """The builtins of a cell, and behind its `import` the modules that would end or leave this process."""
    stdout, stderr = _Output(kernel, "stdout"), _Output(kernel, "stderr")

    def raise_signal(number: int) -> None:
        if number == signals.SIGINT:
            kernel.interrupt()
        elif number in (signals.SIGSTOP, signals.SIGTSTP):
            kernel.halt()
        elif number:
            kernel.end(int(number))

    def kill(pid: int, number: int) -> None:
        if pid not in (0, os.getpid()):
            raise PermissionError(errno.EPERM, "a fake kernel may signal itself only")
        raise_signal(number)

    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds

        def is_over(step: float) -> bool:
            time.sleep(max(0.0, min(step, until - time.monotonic())))
            return time.monotonic() >= until

        kernel.wait_for(is_over)

    def write(fd: int, data: bytes) -> int:
        if fd in (1, 2):
            (stdout if fd == 1 else stderr).write(bytes(data).decode(errors="replace"))
        elif fd == LINK_FD:
            kernel.wreck_link(bytes(data))
        else:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return len(data)

    def fstat(fd: int) -> SimpleNamespace:
        if fd != LINK_FD:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return SimpleNamespace(st_mode=stat.S_IFSOCK)

    def closerange(low: int, high: int) -> None:
        if low <= LINK_FD < high:
            kernel.wreck_link(None)

    class LimitedBytearray(bytearray):
        def __init__(self, source: Any = b"", *rest: Any) -> None:
            if isinstance(source, int) and source > memory_bytes:
                kernel.end(int(signals.SIGKILL), oom_kills=1)
            super().__init__(source, *rest)

    def no_processes(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EPERM, "a fake kernel has no processes")

    modules = {
        "os": _double(
            os,
            _exit=lambda status: kernel.end((status & 0xFF) << 8),
            abort=lambda: kernel.end(int(signals.SIGABRT)),
            kill=kill,
            write=write,
            fstat=fstat,
            closerange=closerange,
            environ=kernel._environ,
            **dict.fromkeys(("fork", "system", "popen", "execv", "posix_spawn", "close"), no_processes),
        ),
        "signal": _double(signals, raise_signal=raise_signal, signal=lambda *_: None),
        "time": _double(time, sleep=sleep),
        "sys": _double(sys, stdout=stdout, stderr=stderr),
    }

    def import_double(name: str, *rest: Any) -> Any:
        real = builtins.__import__(name, *rest)
        return modules.get(name.partition(".")[0], real)

    def print_(*values: object, sep: str = " ", end: str = "\n", file: Any = None, flush: bool = False) -> None:
        (file or stdout).write(sep.join(map(str, values)) + end)

    return vars(builtins) | {
        "__import__": import_double,
        "bytearray": LimitedBytearray,
        "input": kernel.ask,
        "print": print_,
    }


def _double(module: ModuleType, **replaced: Any) -> ModuleType:
    double = ModuleType(module.__name__)
    vars(double).update(vars(module))
    vars(double).update(replaced)
    return double


def _describe(error: BaseException) -> dict[str, Any]:
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return {"ename": type(error).__name__, "evalue": str(error), "traceback": [line.rstrip("\n") for line in lines]}


def _reply_type(request_type: str) -> str:
    return request_type.removesuffix("_request") + "_reply"


STATUS_OF_REPLY = {"ok": Status.OK, "error": Status.ERROR, "aborted": Status.ABORTED}

KERNEL_INFO: dict[str, Any] = {
    "protocol_version": PROTOCOL_VERSION,
    "implementation": "cellgate-fake",
    "implementation_version": "0",
    "language_info": {"name": "python", "version": "3", "mimetype": "text/x-python", "file_extension": ".py"},
    "banner": "a fake kernel",
    "help_links": [],
}

OTHER_REPLIES: dict[str, dict[str, Any]] = {
    "complete_request": {"matches": [], "cursor_start": 0, "cursor_end": 0, "metadata": {}},
    "inspect_request": {"found": False, "data": {}, "metadata": {}},
    "is_complete_request": {"status": "ok"},
    "history_request": {"history": []},
    "comm_info_request": {"comms": {}},
}
