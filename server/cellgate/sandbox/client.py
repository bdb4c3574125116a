"""A small client of one sandbox's kernel: run a cell, get what came of it, however it ended.

For the command line, `doctor`, tests, benchmarks and programs that embed a sandbox. Sessions, queues, journals
and many readers are the gateway's business: here is one connection, and one owner who waits for each cell.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count
from typing import Any

import msgpack

from cellgate.errors import LimitError, LinkClosed, SandboxGone
from cellgate.sandbox.base import Sandbox
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.connection import KernelConnection, each
from cellgate.sandbox.watchdog import Patience, watch
from cellgate.wire.jupyter import Buffer, JupyterMessage, execute_content, make_message, parse_message
from cellgate_kernel.link import Link
from cellgate_kernel.message import Channel, Status, Tag

__all__ = ["ExecuteResult", "KernelClient", "OnInput", "OnOutput"]

OnOutput = Callable[[JupyterMessage], None]
OnInput = Callable[[str, bool], "str | Awaitable[str]"]

MAX_KEPT_BYTES = 32 << 20  # of one cell's output; a parsed message takes up to 20 times its bytes of memory
MAX_ENDING_BYTES = 32 << 20  # beside it, for what says how a cell ended: two messages as large as a link takes
INTERRUPT_GRACE_SECONDS = 2.0  # between the interrupt and the kill of a cell that is out of time
DRAIN_SECONDS = 0.5  # to read the last output after an end, of the 2 s in which its certificate is promised
END_OF_INPUT = "\x04"  # what ipykernel takes in an input_reply for EOFError


@dataclass
class ExecuteResult:
    """What came of a cell. `status` is ok, error or aborted as the kernel replied, or dead when the sandbox
    ended first: then `certificate` says how, and `reply` is empty."""

    status: str = "dead"
    reply: dict[str, Any] = field(default_factory=dict)
    outputs: list[JupyterMessage] = field(default_factory=list)  # empty when `on_output` took them
    certificate: DeathCertificate | None = None
    timed_out: bool = False  # it was interrupted, and then perhaps killed, because its time was over
    dropped_messages: int = 0  # outputs beyond what is kept
    dropped_bytes: int = 0

    def text(self, stream: str = "stdout") -> str:
        """All that was written to one stream."""
        contents = (out["content"] for out in self.outputs if out["msg_type"] == "stream")
        return "".join(str(content.get("text", "")) for content in contents if content.get("name") == stream)

    @property
    def value(self) -> str | None:
        """The plain text of the cell's last expression."""
        for out in self.outputs:
            if out["msg_type"] == "execute_result":
                data = out["content"].get("data")
                return str(data.get("text/plain", "")) if isinstance(data, dict) else ""
        return None


class _Pending:
    """A request that waits for its reply, and a cell for its idle too."""

    def __init__(
        self,
        *,
        result: ExecuteResult | None = None,
        on_output: OnOutput | None = None,
        on_input: OnInput | None = None,
        max_kept_bytes: int = 0,
    ) -> None:
        self.future: asyncio.Future[JupyterMessage] = asyncio.get_running_loop().create_future()
        self.result = result  # of a cell
        self.on_output = on_output
        self.on_input = on_input
        self.asking: asyncio.Task[None] | None = None  # at most one input at a time, whatever the kernel claims
        self._reply: JupyterMessage | None = None
        self._is_idle = result is None
        self._room = max_kept_bytes
        self._room_for_ending = MAX_ENDING_BYTES

    def replied(self, reply: JupyterMessage) -> None:
        self._reply = reply
        self._settle()

    def went_idle(self) -> None:
        self._is_idle = True
        self._settle()

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def output(self, message_type: str, v1: memoryview) -> None:
        """Hand an output on, or keep it, or count it as dropped."""
        if self.on_output:
            message = parse_message(v1)
            try:
                self.on_output(message)
            except Exception as error:  # the caller's own function: the caller hears of it
                self.fail(error)
        elif self.result:
            if message_type in ("execute_result", "error"):
                self._room_for_ending -= len(v1)
                fits = self._room_for_ending >= 0
            else:
                self._room -= len(v1)
                fits = self._room >= 0
            if fits:
                self.result.outputs.append(parse_message(v1))
            else:
                self.result.dropped_messages += 1
                self.result.dropped_bytes += len(v1)

    def _settle(self) -> None:
        if self._reply and self._is_idle and not self.future.done():
            self.future.set_result(self._reply)


class KernelClient:
    """`async with KernelClient(sandbox) as kernel: result = await kernel.execute("1+1")`.

    Neither makes nor destroys the sandbox; leaving the block closes the link and the kernel goes on. `setup`
    (`env`, `cwd`, `kernel`, `startup`) counts on the first connection to a sandbox only. `on_other` gets what
    belongs to no waiting request, as the prints of a background thread do. Its `link` handed to a later client
    goes on where this one stopped.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        setup: Mapping[str, Any] | None = None,
        link: Link | None = None,
        on_other: OnOutput | None = None,
        patience: Patience | None = None,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self.sandbox = sandbox
        self.link = link or Link()
        self._setup: bytes = msgpack.packb(dict(setup)) if setup else b""
        self._on_other = on_other
        self._patience = patience
        self._max_kept_bytes = max_kept_bytes
        self._pending: dict[bytes, _Pending] = {}
        self._session = os.urandom(8).hex()
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection: KernelConnection | None = None
        self._certificate: DeathCertificate | None = None
        self._has_left = False

    async def __aenter__(self) -> KernelClient:
        """Raises SandboxGone."""
        self._connection = await KernelConnection.open(
            self.sandbox, self._setup, on_messages=each(self._take), link=self.link
        )
        self._start(self._tell_the_end())
        self._start(watch(self.sandbox, self._connection, self._patience))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._has_left = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.connection.aclose()
        for pending in self._pending.values():
            pending.fail(LinkClosed(self.connection.name))

    @property
    def connection(self) -> KernelConnection:
        if self._connection is None:
            raise RuntimeError("a KernelClient is used inside `async with`")
        return self._connection

    # -- requests -----------------------------------------------------------------------------------

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        on_input: OnInput | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = True,
    ) -> ExecuteResult:
        """Run a cell to its end. `on_output` gets each output as it comes, and then none is kept.
        `on_input(prompt, is_password)` answers `input()`; EOFError from it reaches the cell as EOFError.
        `timeout` seconds from now the cell is interrupted, and if that does not end it the sandbox is killed for
        `timeout_wall`. When this call is cancelled the cell goes on: `interrupt` it.
        Raises SandboxGone when the sandbox had ended before, ValueError when the code is too long for the link."""
        if timeout is not None and not 0 < timeout < math.inf:
            raise LimitError("timeout", timeout, "a number of seconds above 0")
        content = execute_content(
            code,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            allow_stdin=on_input is not None,
            stop_on_error=stop_on_error,
        )
        if self._certificate:
            raise SandboxGone(self.sandbox.id, self._certificate)
        result = ExecuteResult()
        pending = _Pending(result=result, on_output=on_output, on_input=on_input, max_kept_bytes=self._max_kept_bytes)
        clock = self._start(self._limit_time(timeout, result)) if timeout is not None else None
        try:
            reply = await self._ask(pending, "execute_request", content, Channel.SHELL)
            result.reply = reply["content"]
            said = result.reply.get("status")
            result.status = said if said in ("ok", "error", "aborted") else "error"  # "dead" is ours to say
        except SandboxGone as gone:
            result.certificate = gone.certificate
        finally:
            if clock:
                clock.cancel()
        return result

    async def request(
        self,
        msg_type: str,
        content: Mapping[str, Any] | None = None,
        *,
        channel: Channel = Channel.SHELL,
        buffers: Sequence[Buffer] = (),
        timeout: float | None = None,
    ) -> JupyterMessage:
        """Send any other request and return its reply. Raises SandboxGone, also when it ends meanwhile, and
        TimeoutError."""
        if self._certificate:
            raise SandboxGone(self.sandbox.id, self._certificate)
        try:
            return await asyncio.wait_for(self._ask(_Pending(), msg_type, content or {}, channel, buffers), timeout)
        except asyncio.TimeoutError:  # not the built-in one before Python 3.11
            raise TimeoutError(f"no answer to {msg_type} in {timeout} s") from None

    async def send(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        channel: Channel = Channel.SHELL,
        parent_header: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[Buffer] = (),
    ) -> str:
        """Send a message that has no reply, as comm messages have none, and return its id. What comes of it
        goes to `on_other`. Raises LinkClosed."""
        msg_id = self._new_id()
        tag, parts = make_message(
            msg_type,
            content,
            channel=channel,
            msg_id=msg_id,
            session=self._session,
            date=_now(),
            parent_header=parent_header,
            metadata=metadata,
            buffers=buffers,
        )
        await self.connection.send(tag, parts)
        return msg_id

    async def interrupt(self) -> None:
        """Interrupt the cell that runs, as Ctrl-C does."""
        await self.sandbox.interrupt()

    # -- behind them --------------------------------------------------------------------------------

    async def _ask(
        self,
        pending: _Pending,
        msg_type: str,
        content: Mapping[str, Any],
        channel: Channel,
        buffers: Sequence[Buffer] = (),
    ) -> JupyterMessage:
        msg_id = self._new_id()
        tag, parts = make_message(
            msg_type, content, channel=channel, msg_id=msg_id, session=self._session, date=_now(), buffers=buffers
        )
        self._pending[tag.parent_id] = pending
        try:
            try:
                await self.connection.send(tag, parts)
            except LinkClosed:
                if self._has_left:
                    raise  # else the kernel closed it: its certificate is on the way
            return await pending.future
        finally:
            del self._pending[tag.parent_id]
            if pending.asking:
                pending.asking.cancel()

    def _take(self, _number: int, tag: Tag, v1: memoryview) -> None:
        """A message came. Raises MessageError, and then the connection ends the sandbox."""
        pending = self._pending.get(tag.parent_id)
        if pending is None:
            if self._on_other:
                self._tell_other(self._on_other, parse_message(v1))
        elif tag.channel is Channel.STDIN:
            if pending.on_input and (pending.asking is None or pending.asking.done()):
                pending.asking = self._start(self._answer(pending, pending.on_input, parse_message(v1)))
        elif tag.channel is not Channel.IOPUB:
            pending.replied(parse_message(v1))
        elif tag.message_type == "status":
            if tag.status is Status.IDLE:
                pending.went_idle()
        elif tag.message_type != "execute_input":  # it only says again what was asked
            pending.output(tag.message_type, v1)

    def _tell_other(self, on_other: OnOutput, message: JupyterMessage) -> None:
        try:
            on_other(message)
        except Exception as error:  # the caller's own function, and no call of the caller's to raise it from
            context = {"message": "on_other of a KernelClient failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _answer(self, pending: _Pending, on_input: OnInput, question: JupyterMessage) -> None:
        content = question["content"]
        try:
            answer = on_input(str(content.get("prompt", "")), content.get("password") is True)
            value = await answer if inspect.isawaitable(answer) else answer
        except EOFError:
            value = END_OF_INPUT
        except Exception as error:  # the caller's own function: the caller hears of it
            pending.fail(error)
            return
        parent = question["header"]
        await self.send("input_reply", {"value": value, "status": "ok"}, channel=Channel.STDIN, parent_header=parent)

    async def _limit_time(self, timeout: float, result: ExecuteResult) -> None:
        await asyncio.sleep(timeout)
        result.timed_out = True
        await self.sandbox.interrupt()
        await asyncio.sleep(INTERRUPT_GRACE_SECONDS)
        await self.sandbox.kill(Reason.TIMEOUT_WALL, f"{timeout:g} s were allowed, and the interrupt was not heeded")

    async def _tell_the_end(self) -> None:
        certificate = await self.sandbox.wait()
        await asyncio.wait({self.connection.closed}, timeout=DRAIN_SECONDS)
        self._certificate = certificate
        for pending in self._pending.values():
            pending.fail(SandboxGone(self.sandbox.id, certificate))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _new_id(self) -> str:
        return f"{self._session}_{next(self._numbers)}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
