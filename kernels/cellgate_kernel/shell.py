"""The IPython kernel and shell: ipykernel's own, with what they say leaving through the host.

User code must notice no difference to a stock ipykernel. What is replaced is transport (no ZMQ, no threads), the
serving of requests one after another, and the little that a sandbox does differently: history stays in memory,
`%pip` says that there is no network, debugging and subshells are not offered.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import asyncio
import atexit
import functools
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from inspect import isawaitable
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from ipykernel import ipkernel
from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.eventloops import enable_gui
from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQDisplayPublisher, ZMQInteractiveShell
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.profiledir import ProfileDir
from jupyter_client.session import Session, extract_header
from traitlets import Type, observe

from .compose import Parent, Request, RequestError, dumps
from .host import Host, Setup
from .message import Channel
from .streams import Stream
from .variables import MAX_ROWS, Seen, changes, describe, detail, look, names

__all__ = ["SandboxKernel", "SandboxShell", "current", "follow_threads", "remember_signatures"]

NO_NETWORK = (
    "this sandbox has no network, so %{0} cannot fetch packages. "
    "What is installed can be imported; anything else must be part of the sandbox's image."
)
_INSTALLS = re.compile(r"\s*(\S*python[\d.]*\s+-m\s+)?(pip[\d.]*|conda|mamba|uv\s+pip)\s+(install|download)\b")
COMM_TYPES = frozenset({"comm_open", "comm_msg", "comm_close"})

# The request that what runs now belongs to: of this task, else of the cell that started this thread.
_current: ContextVar[Parent | None] = ContextVar("cellgate_parent")
_latest: Parent | None = None  # where neither is known: the newest request


def current() -> Parent | None:
    try:
        return _current.get()
    except LookupError:
        return _latest


def follow_threads() -> None:
    """Let a thread's output belong to the cell that started the thread, as a task's belongs to its own."""
    start, bootstrap = threading.Thread.start, threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def start_and_remember(self: threading.Thread) -> None:
        self._cellgate_parent = current()  # type: ignore[attr-defined]
        start(self)

    def bootstrap_and_recall(self: threading.Thread) -> None:
        _current.set(getattr(self, "_cellgate_parent", None))
        bootstrap(self)

    start_and_remember.__doc__ = start.__doc__
    threading.Thread.start = start_and_remember  # type: ignore[method-assign]
    threading.Thread._bootstrap_inner = bootstrap_and_recall  # type: ignore[attr-defined]


def remember_signatures() -> None:
    """Let ipykernel look once, not for each cell, at what the shell's methods accept."""
    private: Any = ipkernel
    accepts = functools.cache(private._accepts_parameters)
    private._accepts_parameters = lambda method, names: accepts(getattr(method, "__func__", method), tuple(names))


class LinkSession(Session):
    """A Session whose `send` hands messages to the host. The streams it is given are Channels."""

    host: Host
    has_replied = False  # since the one who serves requests last set it

    def send(  # the base takes ZMQ's types
        self,
        stream: Any,
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        track: bool = False,
        header: Any = None,
        metadata: Any = None,
    ) -> Any:
        if isinstance(msg_or_type, dict):
            message = msg_or_type
            buffers = buffers or message.get("buffers")
        else:
            message = self.msg(msg_or_type, content, parent, header, metadata)
        kind = message["msg_type"]
        is_reply = kind.endswith("_reply")
        self.has_replied |= is_reply
        self.host.post(
            stream if isinstance(stream, Channel) else Channel.SHELL,
            kind,
            message["content"],
            _as_parent(message["parent_header"]),
            metadata=dumps(message["metadata"]) if message["metadata"] else b"{}",
            buffers=[_contiguous(buffer) for buffer in buffers or ()],
            urgent=is_reply or kind == "error",
            soon=is_reply or kind in _SOON,
            wait=not is_reply,
        )
        return message


_SOON = frozenset({"execute_input", "execute_result", "error"})  # an idle, or more output, follows at once


def _contiguous(buffer: Any) -> memoryview:
    view = memoryview(buffer)
    if not view.contiguous:
        raise ValueError(f"Buffer {buffer!r} is not contiguous")
    return view.cast("B") if view.nbytes else memoryview(b"")


def _as_parent(header: Mapping[str, Any] | None) -> Parent | None:
    """The request with this header; mostly it is the one that runs."""
    if not header:
        return None
    running = current()
    if running is not None and (header is running.header or header.get("msg_id") == running.id):
        return running
    return Parent(dict(header))


class _FollowsCurrent:
    """Parents as ipykernel's parts keep them, each in a variable of its own, told from the one we keep."""

    @property
    def parent_header(self) -> dict[str, Any]:
        parent = current()
        return parent.header if parent else {}

    @parent_header.setter
    def parent_header(self, value: dict[str, Any]) -> None:
        """Set where ipykernel makes its parts, before anything runs."""

    def set_parent(self, parent: dict[str, Any]) -> None:
        """For libraries: what this thread or task sends from now on belongs to this request."""
        self.set_thread_parent(parent)

    def set_thread_parent(self, parent: dict[str, Any]) -> Any:
        return _current.set(_as_parent(extract_header(parent)) if parent else None)

    def reset_thread_parent(self, token: Any) -> None:
        _current.reset(token)


class SandboxDisplayPublisher(_FollowsCurrent, ZMQDisplayPublisher):
    def publish(  # type: ignore[override]
        self, data: Any, metadata: Any = None, *, transient: Any = None, update: bool = False, **kwargs: Any
    ) -> None:
        """As ipykernel's, which makes and copies several dicts for each message, when somebody listens in."""
        if self._hooks or self.store_display_history:
            super().publish(data, metadata, transient=transient, update=update, **kwargs)
            return
        metadata = {} if metadata is None else metadata
        self._validate_data(data, metadata)
        content = {"data": data, "metadata": metadata, "transient": transient or {}}
        kind = "update_display_data" if update else "display_data"
        self.session.host.post(Channel.IOPUB, kind, content, current())  # type: ignore[union-attr]

    def _flush_streams(self) -> None:
        """Nothing to do: whatever leaves through the host keeps its order."""


class SandboxDisplayHook(_FollowsCurrent, ZMQShellDisplayHook):
    pass


class LazyProfileDir(ProfileDir):
    """A profile that nothing is read from, and nothing written to until user code stores something."""

    def _location_changed(self, change: Any) -> None:  # no longer an observer
        pass


@magics_class
class NoNetworkMagics(Magics):
    @line_magic
    def pip(self, line: str) -> None:
        """There is no network to install from; what does not need one still runs."""
        if line.split(maxsplit=1)[:1] != ["list"] and line.split(maxsplit=1)[:1] != ["show"]:
            raise UsageError(NO_NETWORK.format("pip"))
        assert self.shell is not None
        self.shell.system(f"{sys.executable} -m pip {line}")

    @line_magic
    def conda(self, line: str) -> None:
        """There is no network to install from."""
        raise UsageError(NO_NETWORK.format("conda"))

    mamba = micromamba = uv = conda


class SandboxShell(_FollowsCurrent, ZMQInteractiveShell):
    displayhook_class = Type(SandboxDisplayHook)
    display_pub_class = Type(SandboxDisplayPublisher)
    transformed: tuple[str, str] | None = None  # the cell that runs, and what became of it

    def transform_cell(self, raw_cell: str) -> str:
        """As IPython's, once for a cell that ipykernel transforms before IPython does."""
        if self.transformed is None or self.transformed[0] is not raw_cell:
            self.transformed = (raw_cell, super().transform_cell(raw_cell))
        return self.transformed[1]

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        self.ipython_dir = os.path.expanduser("~/.ipython")

    def init_profile_dir(self, profile_dir: Any) -> None:
        self.profile_dir = LazyProfileDir(location=os.path.join(self.ipython_dir, "profile_default"))

    def set_home(self, home: str) -> None:
        """The home directory is known only after the fork."""
        self.home_dir = home
        if self.ipython_dir != (directory := os.path.join(home, ".ipython")):
            self.ipython_dir = directory
            self.init_profile_dir(None)

    def _ipython_dir_changed(self, change: Any) -> None:  # no longer an observer: the base makes the directory
        pass

    def _tee(self, channel: str) -> Any:
        """Nothing: IPython would keep a copy of all that is ever printed, for `%notebook`, until memory ends."""
        return nullcontext()

    def init_magics(self) -> None:
        super().init_magics()
        self.register_magics(NoNetworkMagics)

    @property
    def parent_header(self) -> Any:
        """The whole request, as ipykernel's shell has it."""
        return self.kernel.get_parent() if self.kernel else {}

    @parent_header.setter
    def parent_header(self, value: Any) -> None:
        """Set where ipykernel makes its parts, before anything runs."""

    def get_parent(self) -> Any:
        return self.kernel.get_parent()

    def enable_gui(self, gui: Any = None) -> None:
        """As ipykernel's, which finds its kernel through an application that is not there."""
        try:
            enable_gui(gui, self.kernel)
        except ValueError as error:
            raise UsageError(str(error)) from error
        self.active_eventloop = gui

    def system_piped(self, cmd: str) -> None:
        """As ipykernel's where there are terminals to make; else through the pipes behind descriptors 1 and 2."""
        if _INSTALLS.match(cmd):
            sys.stderr.write(f"UsageError: {NO_NETWORK.format('pip')}\n")
            self.user_ns["_exit_code"] = 1
            return
        if os.path.exists("/dev/ptmx"):
            super().system_piped(cmd)
            return
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        with subprocess.Popen(self.var_expand(cmd, depth=1), shell=True) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                code = process.wait()
        self.user_ns["_exit_code"] = code
        self.kernel.host.capture.drain()
        if getattr(self, "system_raise_on_error", False) and code != 0:
            raise subprocess.CalledProcessError(code, cmd)

    system = system_piped

    @observe("exit_now")
    def _update_exit_now(self, change: Any) -> None:
        if change["new"]:
            self.kernel.stop_soon()


class _MainThread:
    """What ipykernel asks its shell channel thread for, of which there is none."""

    @property
    def parent_thread(self) -> threading.Thread:
        return threading.main_thread()


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _quiet_logger() -> logging.Logger:
    """Where ipykernel tells each traceback again: nowhere, whatever user code does to the root logger."""
    logger = logging.getLogger("cellgate_kernel")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)
    return logger


class SandboxKernel(IPythonKernel):
    """Serves requests one after another on the main thread; see `host.Kernel` for what the reader thread calls."""

    shell_class = Type(SandboxShell)
    session: LinkSession
    shell: SandboxShell
    host: Host  # from `bind` on
    loop: asyncio.AbstractEventLoop

    _execute_sleep = 0  # output keeps its order without it

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            session=LinkSession(key=b""),
            iopub_socket=Channel.IOPUB,
            stdin_socket=Channel.STDIN,
            shell_channel_thread=_MainThread(),
            log=_quiet_logger(),
            **kwargs,
        )
        self._running: Request | None = None
        self._is_serving = False  # from before a request is taken until the queue was empty
        self._serving: asyncio.Task[None] | None = None
        self._woken: asyncio.Event
        self._aborts_to = 0  # execute requests up to this number are aborted
        self._interrupt_pending = False
        self._stdin_replies: SimpleQueue[Request] = SimpleQueue()
        self._info: Mapping[str, Any] | None = None
        self._exit_code = 0
        self._cpu_before = 0.0  # the cell
        self._seen: Seen | None = None  # the namespace before the cell, where its reply is to tell what has changed
        self.shell_handlers["variables_request"] = self.variables_request

    @property
    def _supports_kernel_subshells(self) -> bool:
        return False

    @property
    def io_loop(self) -> Any:  # type: ignore[override]  # ipykernel sets it at start
        """Tornado's view of our loop, for libraries that ask the kernel for it."""
        from tornado.ioloop import IOLoop

        return IOLoop.current()

    # -- what the host asks (host.Kernel); reader thread but for `run` ----------------------------------

    def info(self) -> Mapping[str, Any]:
        if self._info is None:
            self._info = {**self.kernel_info, "supported_features": []}  # no debugger, no subshells
        return self._info

    def wake(self) -> None:
        self.loop.call_soon_threadsafe(self._look)

    def control(self, request: Request) -> bool:
        if request.type == "input_reply":
            self._stdin_replies.put(request)
            return True
        return False

    def interrupt(self) -> None:
        """SIGINT, also to children when they are ours alone to signal. When nothing is to be interrupted, nothing:
        the signal could be late and strike a cell that came after it."""
        if not self._is_serving and not self.host.has_requests:
            return
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGINT)

    def shutdown(self, restart: bool) -> None:
        self.loop.call_soon_threadsafe(self.stop_soon)
        if self._running is not None:
            self.interrupt()

    def bind(self, host: Host) -> None:
        """Speak through this host from now on."""
        self.host = self.session.host = host
        self.session.session = host.composer.session
        self._aborts_to = 0  # numbers are the link's
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        sys.stdout = Stream(host, "stdout", 1, current)
        sys.stderr = Stream(host, "stderr", 2, current)

    def begin(self, setup: Setup) -> None:
        sys.argv = [""]
        if "" not in sys.path:
            sys.path.insert(0, "")  # modules in the working directory can be imported
        if "TMPDIR" in setup.env:
            tempfile.tempdir = None  # found out again when it is asked for
        if (home := os.environ.get("HOME", "/")) != self.shell.home_dir:
            self.shell.set_home(home)
        if setup.cwd:
            self.shell.user_ns["_dh"][:] = [os.getcwd()]  # what `%cd -` goes back to
        if setup.startup:
            self.shell.run_cell(setup.startup, silent=True, store_history=False)

    def run(self) -> int:
        signal.signal(signal.SIGINT, self._interrupted_between_cells)
        self.host.status("starting", None, soon=True)
        self.loop.call_soon(self._look)
        while not self.shell.exit_now:
            try:
                self.loop.run_forever()
            except KeyboardInterrupt:  # it struck a task of the user's, which has ended with it
                signal.signal(signal.SIGINT, self._interrupted_between_cells)
                self.loop.call_soon(self._look)
        try:
            atexit._run_exitfuncs()
        except BaseException:  # the user's last words
            self.host.capture.log(traceback.format_exc())
        return self._exit_code

    def rehearse(self, host: Host) -> None:
        """Serve what the host has, and return. For warming up without a reader thread."""
        while host.has_requests or self._running is not None:
            self._look()
            self.loop.run_until_complete(asyncio.sleep(0))

    def unbind(self) -> None:
        """Undo `bind`: no loop, no host."""
        global _latest
        _latest = None
        if self._serving is not None:
            self._serving.cancel()
            self.loop.run_until_complete(asyncio.gather(self._serving, return_exceptions=True))
        self._serving = None
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        asyncio.set_event_loop(None)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        del self.host, self.session.host, self.loop

    # -- serving -------------------------------------------------------------------------------------------

    def stop_soon(self) -> None:
        """End `run` once the request that is being served is answered."""
        self.shell.exit_now = True
        if self._running is None:
            self.loop.stop()

    def _look(self) -> None:
        """Serve what waits, if nothing is being served; comms also beside an asynchronous cell, which may wait for
        one."""
        if self._serving is None or self._serving.done():  # done: user code cancelled it, or an interrupt struck it
            self._running = None
            self._woken = asyncio.Event()
            self._serving = self.loop.create_task(self._serve_all())
        if self._running is None:
            self._woken.set()
            return
        while request := self.host.take(COMM_TYPES):
            self.loop.create_task(self._serve_comm(request))

    async def _serve_all(self) -> None:
        """One task for all requests, so that context variables set in one cell are there in the next."""
        while True:
            self._woken.clear()
            self._is_serving = True
            while not self.shell.exit_now and (request := self.host.take()):
                await self._serve(request)
            self._is_serving = False
            if not self.host.has_requests:  # one that came after the last idle was sent was meant for nobody
                self._interrupt_pending = False
            if self.shell.exit_now:
                self.loop.stop()
                return
            await self._woken.wait()

    async def _serve(self, request: Request) -> None:
        global _latest
        host = self.host
        self._running = request
        _latest = request
        _current.set(request)
        host.capture.begin(request)
        host.status("busy", request, soon=True)
        self.session.has_replied = False
        try:
            await self._handle(request)
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            self._reply_error(request, error)
        except Exception as error:
            host.capture.log(traceback.format_exc())
            self._reply_error(request, error)
        finally:
            self._running = None
            self._interrupt_pending = False
        if host.is_child:  # user code forked and let the child run out of its cell
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        host.capture.drain()
        host.status("idle", request, wait=False)

    async def _serve_comm(self, request: Request) -> None:
        _current.set(request)
        try:
            await self._handle(request)
        except Exception:
            self.host.capture.log(traceback.format_exc())

    async def _handle(self, request: Request) -> None:
        if request.type == "execute_request" and request.number <= self._aborts_to:
            self._reply(request, {"status": "aborted"})
            return
        handler = self.shell_handlers.get(request.type)
        if handler is None:
            if request.type.endswith("_request"):
                raise RequestError(f"this kernel does not answer {request.type[:100]}")
            return
        if request.type == "execute_request":  # interruptible where the user's code runs, in `do_execute`
            await handler(Channel.SHELL, [], request.message)
            if not self.session.has_replied:
                raise RequestError("content: `code` must be there")  # ipykernel is silent then
            return
        await self._interruptibly(lambda: handler(Channel.SHELL, [], request.message))

    def _reply(self, request: Request, content: dict[str, Any]) -> None:
        kind = request.type.removesuffix("_request") + "_reply"
        self.host.post(Channel.SHELL, kind, content, request, urgent=True, soon=True, wait=False)

    def _reply_error(self, request: Request, error: BaseException) -> None:
        """In place of the reply that a handler did not come to."""
        if self.session.has_replied or not request.type.endswith("_request"):
            return
        content = {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
        if request.type == "execute_request":
            content["execution_count"] = self.execution_count
            self.host.post(Channel.IOPUB, "error", content, request, urgent=True, soon=True)
        self._reply(request, content)

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        """Execute requests that have come by now do not run after the one that failed."""
        self._aborts_to = self.host.received

    # -- parents -------------------------------------------------------------------------------------------

    def set_parent(self, ident: Any, parent: dict[str, Any], channel: str = "shell") -> None:
        """For libraries that serve requests themselves: what is sent from now on belongs to this one."""
        self.shell.set_parent(parent)

    def get_parent(self, channel: str | None = None) -> dict[str, Any]:
        parent = current()
        if isinstance(parent, Request):
            return parent.message
        return {"header": parent.header} if parent else {}

    # -- executing -----------------------------------------------------------------------------------------

    async def do_execute(self, *args: Any, **kwargs: Any) -> Any:
        execute = super().do_execute
        try:
            return await self._interruptibly(lambda: execute(*args, **kwargs))
        finally:
            self.shell.transformed = None
            self.host.capture.drain(final=True)

    async def _interruptibly(self, call: Callable[[], Any]) -> Any:
        """Call where user code may run: SIGINT raises KeyboardInterrupt, also one that came a moment too early.
        The functions are `signal`'s own in C, for an interrupt may strike within those in Python around them."""
        before = _signal.getsignal(signal.SIGINT)  # a plain number, which is all that C takes for SIG_IGN
        try:
            _signal.signal(signal.SIGINT, signal.default_int_handler)
            if self._interrupt_pending:
                signal.raise_signal(signal.SIGINT)
            result = call()
            return await result if isawaitable(result) else result
        finally:
            try:
                _signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))  # raises what came before it
            finally:
                _signal.signal(signal.SIGINT, before)
                _signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))

    def _interrupted_between_cells(self, signum: int, frame: FrameType | None) -> None:
        """Meant for a cell that was sent and has not begun; if there is none, for nobody."""
        if self._is_serving or self.host.has_requests:
            self._interrupt_pending = True

    @contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """An interrupt of an asynchronous cell: raised where Python code runs, else the cell is cancelled."""

        def interrupt(signum: int, frame: FrameType | None) -> None:
            if asyncio.current_task(self.loop) is not None:
                raise KeyboardInterrupt
            self.loop.call_soon_threadsafe(future.cancel)

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # -- variables -----------------------------------------------------------------------------------------

    def _variables(self) -> dict[str, Any]:
        return names(self.shell.user_ns, self.shell.user_ns_hidden)

    async def variables_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """All variables in a line each, or one in detail."""
        content = parent["content"]
        variables = self._variables()
        name, count = content.get("name"), content.get("max", MAX_ROWS if content.get("name") is None else 20)
        if not isinstance(count, int) or not (name is None or isinstance(name, str)):
            raise RequestError("content: `max` must be a whole number, `name` text")
        if name is None:
            told = describe(variables, count)
        elif name in variables:
            told = {"variables": [detail(name, variables[name], count)], "more": 0}
        else:
            told = {"variables": [], "more": 0}
        self.session.send(stream, "variables_reply", {"status": "ok", **told}, parent)

    async def execute_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        wish = parent["metadata"].get("cellgate")
        self._seen = look(self._variables()) if isinstance(wish, dict) and wish.get("diff") is True else None
        self._cpu_before = _cpu_seconds()
        await super().execute_request(stream, ident, parent)

    def finish_metadata(self, parent: Any, metadata: dict[str, Any], reply_content: Any) -> dict[str, Any]:
        finished: dict[str, Any] = super().finish_metadata(parent, metadata, reply_content)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        ours = finished["cellgate"] = {"cpu": round(_cpu_seconds() - self._cpu_before, 6), "peak_memory": peak}
        if self._seen is not None:
            ours["diff"] = changes(self._seen, look(self._variables()))
        return finished

    # -- input ---------------------------------------------------------------------------------------------

    def _input_request(self, prompt: str, ident: Any, parent: Any, password: bool = False) -> str:
        replies = self._stdin_replies
        try:
            while True:  # answers to questions that were given up
                replies.get_nowait()
        except Empty:
            pass
        self.host.outbox.flush()
        content = {"prompt": prompt, "password": password}
        self.host.post(Channel.STDIN, "input_request", content, current())
        try:
            reply = replies.get()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted by user") from None  # a short traceback
        value = reply.content.get("value", "")
        if value == "\x04":
            raise EOFError
        return str(value)
