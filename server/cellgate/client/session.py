"""A session of a server, as an agent uses it: cells and what they say, over one websocket that mends itself; files and
the rest over HTTP.

Every call survives a dropped connection and the death of the gateway: what was asked is asked again where it has to be,
what was said is told once, in order. A cell is known by its id, under which it never runs twice.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypedDict, cast

from cellgate.client.connection import Connection, pack
from cellgate.client.errors import CellFailed, CellgateError, InvalidRequest, SessionOver
from cellgate.client.files import AsyncFiles
from cellgate.client.http import Http
from cellgate.client.ledger import CellSink, Ledger, Request

if TYPE_CHECKING:
    from typing_extensions import Unpack  # for those who read types; nothing of it runs

    from cellgate.client.events import Event
    from cellgate.wire.result import Result

__all__ = ["AsyncCell", "AsyncSession", "CellOptions", "OnEvent", "OnInput", "OnMessage"]

END_OF_INPUT = "\x04"  # as kernels take it
STOP_SECONDS = 2.0  # for cells to end that nobody waits for, before we let go; they are told in any case
OnEvent = Callable[["Event"], object]
OnMessage = Callable[[Mapping[str, Any]], object]
# What `input()` gets: called with the prompt, and whether it is a password.
OnInput = Callable[[str, bool], "str | Awaitable[str]"]


class CellOptions(TypedDict, total=False):
    """How a cell is to run; what is left out is as for any cell."""

    id: str  # its name: sent again, by anybody, it is the same cell and runs no other time
    timeout: float  # seconds that it may run before it is interrupted, and killed when it does not heed that
    silent: bool
    store_history: bool
    stop_on_error: bool  # unless False, the cells that wait end too when it fails
    expressions: Mapping[str, str]  # to be evaluated after it
    limits: Mapping[str, int]  # of its output, as low as the session's or lower
    diff: bool  # tell which names it added, changed and removed


class AsyncCell:
    """One that was sent. Its events are kept here, up to the server's limits of a cell's output."""

    def __init__(self, session: AsyncSession, cell_id: str, code: str) -> None:
        self.id = cell_id
        self.code = code
        self._session = session
        self._raw: list[Mapping[str, Any]] = []
        self._more = asyncio.Event()
        self._is_done = False
        self._error: CellgateError | None = None

    # -- for the ledger (CellSink)

    def take(self, event: Mapping[str, Any]) -> None:
        self._raw.append(event)
        self._is_done = event.get("event") == "finished"
        self._more.set()

    def fail(self, error: CellgateError) -> None:
        self._error, self._is_done = error, True
        self._more.set()

    # -- for whoever sent it

    @property
    def is_done(self) -> bool:
        return self._is_done

    async def events(self) -> AsyncIterator[Event]:
        """All of them, from the first to `finished`; as often as you like. Raises CellgateError."""
        from cellgate.client.events import read_event

        async for message in self.messages():
            yield read_event(message)

    async def messages(self) -> AsyncIterator[Mapping[str, Any]]:
        """The same as they came, which is quicker."""
        at = 0
        while await self._has_more_than(at):
            yield self._raw[at]
            at += 1
        self._check()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    async def result(self) -> Result:
        """Waits for its end. Raises CellgateError; that the cell itself failed is in the result."""
        while not self._is_done:
            await self._has_more_than(len(self._raw))
        self._check()
        from cellgate.wire.result import fold

        return fold(self._raw)

    async def cancel(self) -> str:
        """Stop it: one that waits will not run, one that runs is interrupted. Returns what it was: waiting, running,
        finished."""
        return str((await self._session._ask("cancel", cell=self.id)).get("was", ""))

    async def answer(self, value: str) -> None:
        """To its `input()`."""
        await self._session._answer(self.id, value)

    async def _has_more_than(self, count: int) -> bool:
        """Waits until it has had more events than so many, or its last."""
        while len(self._raw) <= count and not self._is_done:
            self._more.clear()
            await self._more.wait()
        return len(self._raw) > count

    async def _ask_for_input(self, on_input: OnInput, question: Mapping[str, Any]) -> None:
        """Until there is an answer, or the cell goes on without one: it was interrupted, or somebody else answered."""
        answer = asyncio.ensure_future(_answer(on_input, question))
        moves_on = asyncio.ensure_future(self._has_more_than(len(self._raw)))
        try:
            await asyncio.wait((answer, moves_on), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                await self.answer(answer.result())
        finally:
            answer.cancel()
            moves_on.cancel()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


class AsyncSession:
    """Made by `AsyncClient.session`, `create` or `attach`. Also an async context manager, which lets go at its end."""

    def __init__(
        self,
        http: Http,
        session_id: str,
        *,
        client: str,
        role: str,
        since: int | None,
        patience: float,
        attached: set[AsyncSession],
    ) -> None:
        """In `attached` it stands from its first connection until it is closed."""
        self.id = session_id
        self.client = client
        self.files = AsyncFiles(http, session_id)
        self._http = http
        self._role = role
        self._patience = patience
        self._attached = attached
        self._ledger = Ledger(self._listen, self._recall, since)
        self._connection: Connection | None = None
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self._reading: set[asyncio.Task[None]] = set()  # cells that began before what we read
        self._stopping: set[asyncio.Task[None]] = set()  # cells that nobody waits for

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- cells -------------------------------------------------------------------------------------------

    async def submit(self, /, code: str, *, stdin: bool = False, **options: Unpack[CellOptions]) -> AsyncCell:
        """Give a cell to the session, and go on. It runs after those that wait already, also when this client goes.
        With `stdin` it may ask for input, and waits for `answer`. Raises CellgateError."""
        message = {"op": "execute", "id": os.urandom(12).hex(), "code": code, "stdin": stdin, **options}
        pack(message)  # what cannot be sent is told now, and not when it is sent again
        connection = await self._connected()
        if self._stopping:  # a cell that ends by an interrupt takes those with it that wait by then
            await asyncio.wait(self._stopping)
        sent = self._ledger.sink_of(str(message["id"]))
        if isinstance(sent, AsyncCell):  # by us, and it has not ended
            if sent.code != code:
                raise InvalidRequest("a cell of this id has other code; an id of its own would pass", code="id_taken")
            return sent
        cell = AsyncCell(self, str(message["id"]), code)
        try:
            await connection.send(self._ledger.execute(message, cell))
        except BaseException:  # who is interrupted here never had it
            self._abandon(cell)
            raise
        return cell

    async def run(
        self,
        /,
        code: str,
        *,
        check: bool = False,
        on_event: OnEvent | None = None,
        on_message: OnMessage | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[CellOptions],
    ) -> Result:
        """Run a cell and wait for what becomes of it. Who stops waiting, by whatever exception, stops the cell too.

        `on_event` is called with each event as it comes, `on_message` with the map that it came as; `on_input` answers
        `input()`, which fails without it.
        Raises CellgateError; with `check`, CellFailed for a cell that did not end well.
        """
        cell = await self.submit(code, stdin=on_input is not None, **options)
        try:
            if on_event is not None:
                from cellgate.client.events import read_event
            async for message in cell.messages():
                if on_message is not None:
                    on_message(message)
                if on_event is not None:
                    on_event(read_event(message))
                if on_input is not None and message["event"] == "input_request":
                    await cell._ask_for_input(on_input, message)
            result = await cell.result()
        finally:
            self._abandon(cell)
        if check and not result.is_ok:
            raise CellFailed(result)
        return result

    async def stream(
        self, /, code: str, *, stdin: bool = False, **options: Unpack[CellOptions]
    ) -> AsyncIterator[Event]:
        """Run a cell, and get its events as they come, up to `finished`. A loop that is left early stops the cell.
        With `stdin` answer each InputRequested by `answer(event.cell, text)`."""
        cell = await self.submit(code, stdin=stdin, **options)
        try:
            async for event in cell:
                yield event
        finally:
            self._abandon(cell)

    async def events(self, *, follow: bool = True) -> AsyncIterator[Event]:
        """Everything that happens in the session, whoever causes it, until it is over; without `follow` what has
        happened until now. To see what has been, attach with `since=0`."""
        from cellgate.client.events import read_event

        waiting: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
        connection = self._connect()
        self._listeners.append(waiting.put_nowait)
        end = asyncio.ensure_future(connection.over() if follow else connection.ready())
        end.add_done_callback(lambda _: waiting.put_nowait(None))
        try:
            while (raw := await waiting.get()) is not None:
                yield read_event(raw)
            with suppress(SessionOver):
                await end
        finally:
            self._listeners.remove(waiting.put_nowait)
            end.cancel()
            await asyncio.gather(end, return_exceptions=True)

    async def answer(self, cell_id: str, value: str) -> None:
        """To the `input()` of a cell."""
        await self._answer(cell_id, value)

    async def cancel(self, cell_id: str) -> str:
        """Stop one cell, anybody's. What it was: waiting, running, finished. Raises CellgateError."""
        return str((await self._ask("cancel", cell=cell_id)).get("was", ""))

    async def interrupt(self) -> None:
        """What runs. Raises CellgateError."""
        await self._ask("interrupt")

    async def restart(self) -> None:
        """Lose all variables; returns when a fresh kernel runs. Raises CellgateError."""
        await self._ask("restart")

    async def touch(self) -> None:
        """Say that somebody is still there: an idle session lives on. Raises CellgateError."""
        await self._ask("touch")

    # -- what the kernel knows ---------------------------------------------------------------------------

    async def complete(self, code: str, cursor: int | None = None) -> dict[str, Any]:
        """What could stand at the cursor: {"matches", "start", "end", "types"}. Raises CellgateError."""
        return _plain(await self._ask("complete", code=code, cursor=len(code) if cursor is None else cursor))

    async def inspect(self, code: str, cursor: int | None = None, *, detail: int = 0) -> dict[str, Any]:
        """What stands there: {"found", "data"}. Raises CellgateError."""
        at = len(code) if cursor is None else cursor
        return _plain(await self._ask("inspect", code=code, cursor=at, detail=detail))

    async def is_complete(self, code: str) -> dict[str, Any]:
        """Whether it could run as it is: {"status", "indent"}. Raises CellgateError."""
        return _plain(await self._ask("is_complete", code=code))

    async def variables(self, name: str | None = None, *, most: int | None = None) -> list[dict[str, Any]]:
        """What names there are, up to so many: {"name", "type", "size"?, "shape"?, "repr"}; or one, in detail.
        Raises CellgateError."""
        said = await self._ask("variables", name=name, max=most)
        return list(said.get("variables", ()))

    # -- the session itself ------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """As it was when the server last said so: starting, ready, busy, restarting, dead."""
        return self._ledger.state

    @property
    def running(self) -> str | None:
        """The cell that runs, anybody's, as far as was said."""
        return self._ledger.running

    @property
    def incarnation(self) -> int:
        """Goes up with each kernel: variables are lost then, and only then."""
        return self._ledger.incarnation

    @property
    def seen(self) -> int | None:
        """The number of the last event; attaching with it as `since` reads on behind it."""
        return self._ledger.seen

    async def open(self) -> None:
        """Attach, which else the first call does. Raises CellgateError."""
        await self._connected()

    async def idle(self) -> None:
        """Returns when no cell runs. Raises CellgateError."""
        await self._connected()
        if self.running is not None:
            async for _ in self.events():
                if self._ledger.running is None:
                    return

    async def info(self) -> dict[str, Any]:
        """All that the server tells of it. Raises CellgateError."""
        return cast("dict[str, Any]", await self._http.json("GET", f"/v1/sessions/{self.id}"))

    async def update(self, /, **changes: object) -> dict[str, Any]:
        """Its name, metadata or timeouts. Raises CellgateError."""
        return cast("dict[str, Any]", await self._http.json("PATCH", f"/v1/sessions/{self.id}", changes))

    async def close(self) -> None:
        """Let go of it: it lives on, cells that run do too, and whoever attaches again reads on."""
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=STOP_SECONDS)
        for task in list(self._reading):
            task.cancel()
        if self._connection is not None:
            await self._connection.close()
        self._attached.discard(self)

    async def delete(self) -> None:
        """End it. Raises CellgateError."""
        await self.close()
        await self._http.json("DELETE", f"/v1/sessions/{self.id}")

    # -- within ------------------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        if self._connection is None:
            query = {"client": self.client, "role": self._role}
            path = f"/v1/sessions/{self.id}/ws"
            self._connection = Connection(self._http.server, path, query, self._ledger, self._patience)
            self._attached.add(self)
        self._connection.check()
        return self._connection

    async def _connected(self) -> Connection:
        connection = self._connect()
        await connection.ready()
        return connection

    async def _ask(self, op: str, **said: Any) -> Mapping[str, Any]:
        connection = await self._connected()
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        message = {"op": op, "id": os.urandom(12).hex(), **said}
        pack(message)

        def finish(reply: Mapping[str, Any]) -> None:
            if not answer.done():
                answer.set_result(reply)

        def fail(error: CellgateError) -> None:
            if not answer.done():
                answer.set_exception(error)

        await connection.send(self._ledger.ask(Request(message, finish, fail)))
        try:
            return await answer
        finally:
            self._ledger.forget(message["id"])

    async def _answer(self, cell_id: str, value: str) -> None:
        connection = await self._connected()
        await connection.send(self._ledger.answer_input(cell_id, value))

    def _recall(self, cell_id: str, accepted: int, sink: CellSink) -> None:
        """Read a cell that began before what this attachment reads: over another one, from its beginning."""
        task = asyncio.get_running_loop().create_task(self._read_again(cell_id, accepted, sink))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read_again(self, cell_id: str, accepted: int, sink: CellSink) -> None:
        finished = asyncio.Event()

        def listen(event: Mapping[str, Any]) -> None:
            if event.get("cell") == cell_id:
                sink.take(event)
                if event.get("event") == "finished":
                    finished.set()

        query = {"client": os.urandom(8).hex(), "role": "observer"}
        path = f"/v1/sessions/{self.id}/ws"
        connection = Connection(self._http.server, path, query, Ledger(listen, since=accepted - 1), self._patience)
        try:
            await connection.until(finished)
        except CellgateError as error:
            sink.fail(error)
        finally:
            await connection.close()

    def _listen(self, event: Mapping[str, Any]) -> None:
        for listener in self._listeners:
            listener(event)

    def _abandon(self, cell: AsyncCell) -> None:
        """Nobody waits for it any more: stop it, unless it has ended."""
        if not cell.is_done:
            task = asyncio.get_running_loop().create_task(_stop(cell))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)


async def _answer(on_input: OnInput, question: Mapping[str, Any]) -> str:
    """Somebody may think for long: in a thread, so that the connection lives on. An EOFError is the code's."""
    try:
        if inspect.iscoroutinefunction(on_input):
            return str(await on_input(question["prompt"], question["password"]))
        said = await asyncio.to_thread(on_input, question["prompt"], question["password"])
        return str(await said if inspect.isawaitable(said) else said)
    except EOFError:
        return END_OF_INPUT


async def _stop(cell: AsyncCell) -> None:
    with suppress(CellgateError):
        await cell.cancel()
        await cell.result()


def _plain(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Without what makes it a reply."""
    return {name: value for name, value in reply.items() if name not in ("event", "re", "ok")}
