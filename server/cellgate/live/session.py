"""One session, alive: carries out what `sessions.Session` decides, and brings it what happens.

    clients ── heard ──▶ ┌─────────┐ ── Append ──▶ journal ──▶ readers ──▶ clients
    link ── a read ────▶ │ Session │ ── Send, Interrupt, Kill ──▶ link, sandbox
    sandbox's end ─────▶ │ (pure)  │ ── StartKernel, Destroy ──▶ driver
    timer ─────────────▶ │         │ ── Judge ──▶ gatekeeper
    its verdict ───────▶ └─────────┘ ── Save, Close ──▶ registry, the end

Decides nothing about cells or states. Owns the session's journal, its kernels with their links, and every task that
serves them. Effects are carried out at once and in order; what must wait becomes a task, and tells the session later.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Protocol

from cellgate.errors import (
    CellgateError,
    Fault,
    LinkClosed,
    SandboxGone,
    SandboxStartFailed,
    StorageFull,
    TooManyClients,
    UnknownSession,
)
from cellgate.live.cursors import Cursors, Place
from cellgate.live.gatekeeper import Gatekeeper
from cellgate.live.happenings import (
    CellAccepted,
    CellFinished,
    CellRefused,
    ClientJoined,
    ClientLeft,
    Direction,
    FileMoved,
    Happening,
    Happenings,
    KernelEnded,
    KernelStarted,
    SessionEnded,
    UsageSampled,
    Who,
)
from cellgate.live.known import KnownFile
from cellgate.live.questions import Answer, Questions, make_question
from cellgate.live.reader import Parting, Reader, Sink
from cellgate.live.voices import JupyterVoice, Voice
from cellgate.live.wish import Wish
from cellgate.sandbox.base import Sandbox, SandboxSpec, Usage
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.connection import Batch, KernelConnection
from cellgate.sandbox.watchdog import watch
from cellgate.sessions.cells import Cell, Waiting
from cellgate.sessions.effects import (
    Answered,
    Append,
    Close,
    Destroy,
    Effect,
    Interrupt,
    Judge,
    Kill,
    Remember,
    Save,
    Send,
    StartKernel,
    Tell,
)
from cellgate.sessions.journal import Gap, Journal
from cellgate.sessions.limits import SessionLimits
from cellgate.sessions.news import Accepted, Finished, News
from cellgate.sessions.records import Record
from cellgate.sessions.registry import Registry
from cellgate.sessions.session import Session
from cellgate.sessions.states import State
from cellgate.wire.jupyter import Buffer, ClientMessage, Composer, Dialect
from cellgate_kernel.link import Hello, Link, WindowFull
from cellgate_kernel.message import Channel

__all__ = ["WATCHER", "Host", "LiveSession", "date_now"]

log = logging.getLogger("cellgate.live")

# To let a kernel that is gone say the rest: it lies in a socket's buffer here, and is read in milliseconds.
LAST_WORDS_SECONDS = 2.0
FAREWELL_SECONDS = 5.0  # for clients to read to the end of a session that is over
BUSY_SAMPLE_SECONDS = 5.0  # between two looks at what a cell uses: so much more than a quota may be used
# How the name begins of a client who may only watch. No other can have such a one: who watches takes nobody's place.
WATCHER = b"\x00watcher "
MAX_UNSENT = 64  # requests that wait for the link's window, before their clients are read no further
_EXECUTION_STATES = {
    State.STARTING: "starting",
    State.READY: "idle",
    State.BUSY: "busy",
    State.PAUSED: "idle",
    State.RESTARTING: "restarting",
    State.DEAD: "dead",
    State.GONE: "dead",
}


def date_now() -> str:
    """As messages carry it."""
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


class Host(Protocol):
    """What a session needs of whoever keeps all of them."""

    registry: Registry
    happenings: Happenings

    def now(self) -> float:
        """On the one clock that all sessions live by."""
        ...

    async def make_sandbox(self, spec: SandboxSpec, principal: str) -> Sandbox:
        """Raises CellgateError."""
        ...

    def ran(self, session: LiveSession) -> None:
        """A cell of it runs now, where none did, or none does any more."""
        ...

    def lose(self, error: CellgateError) -> None:
        """The driver lets nobody know any more how its sandboxes fare."""
        ...

    def forget(self, session: LiveSession) -> None:
        """Nothing is left of it."""
        ...


@dataclass
class _Kernel:
    """One incarnation's sandbox and link."""

    sandbox: Sandbox
    connection: KernelConnection
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    unsent: deque[Send] = field(default_factory=deque)  # while the window is full
    is_held: bool = False  # read no further, while the journal cannot be written


class LiveSession:
    """Made by the Manager, which calls `begin` or `adopt` or `go_on_without_kernel` next, and owes a `close`."""

    def __init__(
        self,
        host: Host,
        session_id: str,
        principal: str,
        wish: Wish,
        kernel_name: str,
        *,
        spec: SandboxSpec,
        setup: bytes,
        session: Session,
        composer: Composer,
        journal: Journal,
        cursors: Cursors,
        known: KnownFile,
        gatekeeper: Gatekeeper,
        created: float = 0.0,
    ) -> None:
        """`created` is in seconds since 1970, for people."""
        self.id = session_id
        self.principal = principal
        self.who = Who(principal, session_id)
        self.wish = wish
        self.kernel_name = kernel_name
        self.created = datetime.fromtimestamp(created, timezone.utc)
        self.session = session
        self.journal = journal
        self.failure: CellgateError | None = None  # why its last kernel could not be started
        self._host = host
        self._spec = spec
        self._setup = setup
        self._cursors = cursors
        self._known = known
        self._gatekeeper = gatekeeper
        self._composer = composer
        self._loop = asyncio.get_running_loop()
        self._kernels: dict[int, _Kernel] = {}
        self._coming: Awaitable[Sandbox] | None = None  # was asked for before the session had begun
        self._readers: dict[bytes, Reader] = {}
        self._questions = Questions()
        self._twins: dict[bytes, Reader] = {}  # a second connection of a client's, until one of both speaks
        self._tasks: set[asyncio.Task[Any]] = set()
        self._judging: set[asyncio.Task[Any]] = set()  # those of them that wait for verdicts
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # when it is due, on the host's clock
        self._changed: list[asyncio.Future[None]] = []  # who waits for a change of state
        self._clear: list[Callable[[], None]] = []  # who waits for the link's window
        self._left = asyncio.Event()  # some client has
        self._unsaved: Save | None = None
        self._was = session.state
        self.is_running = False  # a cell
        self._sampled_at = 0.0
        self._activity = -1.0, datetime.min  # when it was last active, on the host's clock and on people's

    # -- what can be asked ---------------------------------------------------------------------------

    @property
    def execution_state(self) -> str:
        """As Jupyter has it."""
        return _EXECUTION_STATES[self.session.state]

    @property
    def last_activity(self) -> datetime:
        active_at = self.session.active_at
        if self._activity[0] != active_at:  # made once, so that clients who compare what they are told see no change
            quiet = timedelta(seconds=self._host.now() - active_at)
            self._activity = active_at, datetime.now(timezone.utc) - quiet
        return self._activity[1]

    @property
    def expires(self) -> tuple[datetime, str]:
        """When it ends if nothing happens until then, and why: idle or lifetime."""
        expiry = self.session.expiry()
        return datetime.now(timezone.utc) + timedelta(seconds=expiry.at - self._host.now()), expiry.why

    @property
    def limits(self) -> dict[str, int | float]:
        """All of them, by name."""
        return {**self._spec.limits.to_mapping(), **self.session.limits.to_mapping()}

    async def usage(self) -> Usage | None:
        """What its sandbox uses, as the host counts it; None while it has none."""
        kernel = self._kernels.get(self.session.incarnation)
        if kernel is not None:
            with suppress(CellgateError):  # it has just ended
                return await kernel.sandbox.usage()
        return None

    @property
    def connections(self) -> int:
        return len(self._readers)

    @property
    def memory_bytes(self) -> int:
        """That it may come to use."""
        return self._spec.limits.memory_bytes

    @property
    def is_gone(self) -> bool:
        return self.session.state is State.GONE

    @property
    def is_congested(self) -> bool:
        """Whether the kernel takes no more for now: read no further from clients until `when_clear` calls."""
        kernel = self._kernels.get(self.session.incarnation)
        return kernel is not None and len(kernel.unsent) > MAX_UNSENT

    def when_clear(self, call: Callable[[], None]) -> None:
        self._clear.append(call)

    # -- beginnings ----------------------------------------------------------------------------------

    def begin(self, sandbox: Awaitable[Sandbox]) -> None:
        """A new session, whose first sandbox was asked for already."""
        self._coming = sandbox
        self._do(self.session.begin())

    async def started(self) -> None:
        """Returns when its kernel runs, or the session is over. Raises what kept it from that."""
        while self.session.state in (State.STARTING, State.RESTARTING):
            change = self._loop.create_future()
            self._changed.append(change)
            await change
        if self.session.state is State.DEAD:
            raise self.failure or SandboxStartFailed("any", "its kernels", "each ended before it was given a cell")

    async def adopt(self, sandbox: Sandbox) -> None:
        """Take over the sandbox that a former gateway left. The session has recovered."""
        incarnation = self.session.incarnation

        def greeted(hello: Hello) -> None:
            self._do(self.session.adopted(hello.received, self._host.now()))

        try:
            link = Link(sent=None, received=self.session.received)
            await self._attach(incarnation, sandbox, link, on_hello=greeted)
            self._plan_tick()  # it may never greet
        except SandboxGone as gone:
            if gone.certificate is None:
                self.go_on_without_kernel()
            else:
                self._do(self.session.kernel_died(incarnation, gone.certificate, self._host.now()))
            await sandbox.destroy()

    def go_on_without_kernel(self) -> None:
        """The session has recovered, and there is no sandbox of it."""
        self._do(self.session.kernel_lost(self._host.now()))

    # -- from clients --------------------------------------------------------------------------------

    def join(self, client: bytes, sink: Sink, dialect: Dialect, *, after: str = "") -> Reader:
        """Another connection of a Jupyter client. One that was here before reads on where it stopped: behind the
        message whose id it names as `after`, else behind what it has surely received. One that was not begins with what
        is new. Whoever joined owes a `leave`. Raises TooManyClients, UnknownSession."""
        if former := self._come(client):
            self._twins[client] = former
        place = self._place_of(client)
        voice = JupyterVoice(client, dialect, self._say_gap)
        return self._read(client, sink, voice, place.sure if after else place.position, after)

    def attach(self, client: bytes, sink: Sink, voice: Voice, *, since: int | None = None) -> Reader:
        """A connection of an agent, in the place of any that it has. It reads what comes behind the record `since`; or
        behind what it has confirmed. One that was not here before begins with what is new, and so does a WATCHER each
        time. Whoever attached owes a `leave`. Raises TooManyClients, UnknownSession."""
        if former := self._come(client):
            former.part(Parting.REPLACED)
        start = self._place_of(client).sure if since is None else since + 1
        return self._read(client, sink, voice, start)

    def _come(self, client: bytes) -> Reader | None:
        """Let a client in; its connection until now, which counts no longer. Raises TooManyClients, UnknownSession."""
        if self.is_gone:  # since somebody looked for it; who came now would be told nothing, not even of its end
            raise UnknownSession(self.id)
        former = self._readers.get(client)
        alike = sum(name.startswith(WATCHER) is client.startswith(WATCHER) for name in self._readers)
        if former is None and alike >= self.session.limits.clients_per_session:  # who watches keeps no other away
            raise TooManyClients(alike)
        self.session.joined(client)
        if former is not None:
            former.counts = False
            if twin := self._twins.pop(client, None):
                twin.part(Parting.REPLACED)
        return former

    def _place_of(self, client: bytes) -> Place:
        place = self._cursors.find(client)
        if place is None:
            place = Place(self.session.news_from, self.session.news_from)
            self._remember(client, place.position)
        return place

    def _remember(self, client: bytes, position: int, *, is_sure: bool = True) -> None:
        """There is room for some places: who watches, under however many names, has none of them."""
        if not client.startswith(WATCHER):
            self._cursors.remember(client, position, is_sure=is_sure)

    def _read(self, client: bytes, sink: Sink, voice: Voice, start: int, after: str = "") -> Reader:
        reader = self._readers[client] = Reader(
            client,
            sink,
            self.journal,
            voice=voice,
            start=start,
            limit_bytes=self.session.limits.client_outbox_bytes,
            remember=partial(self._remember, client),
            later=self._loop.call_later,
            after=after,
        )
        self._tell(ClientJoined(self.who, voice.name))
        return reader

    def leave(self, reader: Reader, *, in_order: bool) -> None:
        """Its connection has ended; `in_order` if the client closed it itself. One that does so while a cell runs, as
        frontends reconnect, may have turned away from what is on its way."""
        is_current = self._readers.get(reader.client) is reader
        reader.gone(in_order=in_order and is_current and self.session.running is None)
        self._tell(ClientLeft(self.who))
        if self._twins.get(reader.client) is reader:
            del self._twins[reader.client]
        elif is_current:
            del self._readers[reader.client]
            if twin := self._twins.pop(reader.client, None):
                twin.counts = True
                self._readers[reader.client] = twin
            else:
                self.session.left(reader.client)
            self._left.set()

    def _all_readers(self) -> list[Reader]:
        return [*self._readers.values(), *self._twins.values()]

    def heard(self, reader: Reader, message: ClientMessage) -> None:
        """What a client sent. Of two connections of the same client the one that speaks is the client's: a notebook
        server may give up a connection without closing it, and that one's handshake may be read last."""
        if other := self._twins.pop(reader.client, None):
            if other is reader:
                other, self._readers[reader.client] = self._readers[reader.client], reader
            other.counts, reader.counts = False, True
            other.part(Parting.REPLACED)
        self._do(self.session.request(reader.client, message, self._host.now(), self._gatekeeper.recall(message)))

    def change(self, wish: Wish, limits: SessionLimits) -> None:
        """What it is called, and for how long it may what. Raises StorageFull, and nothing has changed."""
        try:
            self._host.registry.rewrite(self.id, wish.to_json())
        except sqlite3.Error as error:
            raise StorageFull(str(error)) from error
        self.wish = wish
        self.session.limits = limits
        self._plan_tick()

    async def ask(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        buffers: Sequence[Buffer] = (),
        *,
        channel: Channel = Channel.SHELL,
        is_clients: bool = False,
    ) -> Answer:
        """What the kernel replies to this. Clients hear nothing of it; it dies with this gateway. On the shell channel
        it waits for its turn among the cells. `is_clients`: a client wrote it, so that it is judged. How long to wait
        is the caller's to say. Raises NotAnswered."""
        question = make_question(msg_type, content, buffers, channel=channel, date=date_now())
        return await self._questions.put(
            question, lambda: self._do(self.session.ask(question, self._host.now(), is_judged=is_clients))
        )

    def touch(self) -> None:
        """Somebody wants it to live on."""
        self.session.touch(self._host.now())

    def cancel(self, cell_id: str) -> str | None:
        """End this cell: one that waits does so at once, one that runs is interrupted. How far it had come, as
        `Session.stage_of` says."""
        was = self.session.stage_of(cell_id)
        self._do(self.session.cancel(cell_id, self._host.now()))
        return was

    async def interrupt(self) -> None:
        self._do(self.session.interrupt(self._host.now()))

    async def restart(self) -> None:
        """Returns when the fresh kernel runs. Raises what kept it from that."""
        self.failure = None
        self._do(self.session.restart(self._host.now()))
        await self.started()

    async def delete(self) -> None:
        """Returns when it is certain; what is left of it is cleared away after."""
        self._do(self.session.delete(self._host.now()))

    def go_on(self) -> None:
        """A cell of it may run that might not before."""
        self._do(self.session.go_on(self._host.now()))

    def file_moved(self, direction: Direction, path: str, size_bytes: int) -> None:
        """All of it has, to or from a client."""
        self._tell(FileMoved(self.who, direction, path, size_bytes))

    # -- the manager's heartbeat ---------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """To be called about once a second: what is no event."""
        if self._unsaved:
            self._save(self._unsaved)
        if self.journal.is_degraded and self.journal.retry():
            log.warning("session %s: the journal can be written again", self.id)
            self._set_degraded(False)
        limit = self.session.limits.client_stall_seconds
        for reader in self._all_readers():
            if reader.stalled_seconds(now) > limit:
                reader.part(Parting.TOO_SLOW)
        pause = min(max(self.session.limits.idle_seconds / 8, 1.0), 60.0)  # several looks within the idle time
        if self.session.is_working:
            pause = min(pause, BUSY_SAMPLE_SECONDS)
        if now >= self._sampled_at + pause and (kernel := self._kernels.get(self.session.incarnation)):
            self._sampled_at = now
            self._start(self._sample(self.session.incarnation, kernel.sandbox))

    async def close(self) -> None:
        """Let go of it without ending it: another gateway may take over."""
        self._questions.give_up(Reason.BACKEND_ERROR.value, "this server is about to stop")
        for reader in self._all_readers():
            reader.part(Parting.GOING_AWAY)
        if self._timer:
            self._timer.cancel()
        tasks = [*self._tasks, *(task for kernel in self._kernels.values() for task in kernel.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for kernel in self._kernels.values():
            kernel.connection.close()
        self._kernels.clear()
        self.journal.close()
        self._cursors.close()

    # -- effects -------------------------------------------------------------------------------------

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Append):
                self._append(effect.records)
            elif isinstance(effect, Answered):
                self._questions.answered(effect)
            elif isinstance(effect, Remember):
                self._known.append(effect.entry)
            elif isinstance(effect, Tell):
                if reader := self._readers.get(effect.client):
                    reader.tell(effect.event)
            elif isinstance(effect, Send):
                self._send(effect)
            elif isinstance(effect, Judge):
                task = self._start(self._judge(effect.item))
                self._judging.add(task)
                task.add_done_callback(self._judging.discard)
            elif isinstance(effect, Save):
                self._save(effect)
            elif isinstance(effect, StartKernel):
                self._start(self._start_kernel(effect.incarnation))
            elif isinstance(effect, Interrupt):
                self._start(self._interrupt(effect.incarnation))
            elif isinstance(effect, Kill):
                if kernel := self._kernels.get(effect.incarnation):
                    self._start(kernel.sandbox.kill(effect.reason, effect.detail))
            elif isinstance(effect, Destroy):
                if destroyed := self._kernels.pop(effect.incarnation, None):
                    self._start(self._destroy(effect.incarnation, destroyed))
            elif isinstance(effect, Close):
                self._questions.give_up(effect.reason.value, "the session is over")
                self._start(self._clear_away())
                self._tell(SessionEnded(self.who, effect.reason.value))
        assert self.journal.next_seq == self.session.next_seq, "the session and its journal count alike"
        if self.session.state is not self._was:
            self._was = self.session.state
            changed, self._changed = self._changed, []
            for waiting in changed:
                if not waiting.done():
                    waiting.set_result(None)
        self._plan_tick()
        if (self.session.running is not None) is not self.is_running:
            self.is_running = not self.is_running
            self._host.ran(self)
        for news in self.session.take_news():
            self._tell(self._happening(news))

    def _append(self, records: Sequence[Record]) -> None:
        first = self.journal.append(records)
        for reader in self._all_readers():
            reader.appended(first, records)
        if self.journal.is_degraded and not self.session.is_degraded:
            log.error("session %s: the journal cannot be written; no cell is accepted until it can", self.id)
            self._set_degraded(True)

    def _set_degraded(self, is_degraded: bool) -> None:
        """Without a disk the kernel must wait, and not this process's memory grow."""
        self.session.is_degraded = is_degraded
        for kernel in self._kernels.values():
            if is_degraded and not kernel.is_held:
                kernel.connection.pause()
            elif kernel.is_held and not is_degraded:
                kernel.connection.resume()
            kernel.is_held = is_degraded

    def _send(self, effect: Send) -> None:
        kernel = self._kernels.get(effect.incarnation)
        if kernel is None:
            return
        if not kernel.unsent and self._post(kernel, effect):
            return
        kernel.unsent.append(effect)
        if len(kernel.unsent) == 1:
            self._start(self._send_unsent(kernel))

    def _post(self, kernel: _Kernel, effect: Send) -> bool:
        """Whether the window had room. A link that is closed takes everything: its kernel's end is to be told soon."""
        try:
            kernel.connection.post_v1(effect.message.tag, effect.message.v1)
        except WindowFull:
            return False
        except LinkClosed:
            pass
        except ValueError as error:
            self._end_for_limits(kernel, error)
        return True

    def _end_for_limits(self, kernel: _Kernel, error: ValueError) -> None:
        """It has said, to a gateway that came later, that it takes less than what every client may send."""
        self._start(kernel.sandbox.kill(Reason.PROTOCOL_VIOLATION, f"limits_lowered: {error}"))

    async def _send_unsent(self, kernel: _Kernel) -> None:
        try:
            while kernel.unsent:
                message = kernel.unsent[0].message
                await kernel.connection.send_v1(message.tag, message.v1)
                kernel.unsent.popleft()
        except LinkClosed:
            pass
        except ValueError as error:
            self._end_for_limits(kernel, error)
        kernel.unsent.clear()
        waiting, self._clear = self._clear, []
        for call in waiting:
            call()

    def _save(self, effect: Save) -> None:
        try:
            self._host.registry.update(
                self.id, state=effect.state, incarnation=effect.incarnation, sandbox_id=effect.sandbox_id
            )
            self._unsaved = None
        except sqlite3.Error as error:  # a full disk: tried again with the next heartbeat
            log.error("session %s: its state cannot be saved: %s", self.id, error)
            self._unsaved = effect

    async def _start_kernel(self, incarnation: int) -> None:
        began = self._host.now()
        sandbox: Sandbox | None = None
        try:
            coming, self._coming = self._coming, None
            sandbox = await (coming or self._host.make_sandbox(self._spec, self.principal))
            await self._attach(incarnation, sandbox, Link(), self._setup)
        except Exception as fault:  # also one of ours: somebody waits for this
            if sandbox is not None:  # it died before its link was up
                with suppress(CellgateError):  # or its driver can say nothing more of it, not even that it is gone
                    await sandbox.destroy()
            if isinstance(fault, CellgateError):
                error = fault
            else:
                log.exception("session %s: a fault of the gateway", self.id)
                error = SandboxStartFailed(sandbox.driver if sandbox else "any", "a fault of the gateway", repr(fault))
            self.failure = error
            log.warning("session %s: its kernel could not be started: %s", self.id, error)
            sentence = str(error) if error.fault is Fault.YOURS else f"{error.code}; the server's log says more"
            self._do(self.session.start_failed(incarnation, sentence, self._host.now()))
        else:
            self._do(self.session.kernel_started(incarnation, sandbox.id, self._host.now()))
            self.failure = None
            seconds = self._host.now() - began
            self._tell(KernelStarted(self.who, incarnation, sandbox.driver, sandbox.template, seconds))

    async def _attach(
        self,
        incarnation: int,
        sandbox: Sandbox,
        link: Link,
        setup: bytes = b"",
        on_hello: Callable[[Hello], None] | None = None,
    ) -> None:
        """Nothing comes over the link before the caller waits for something. Raises SandboxGone."""
        hear = partial(self._hear, incarnation)
        connection = await KernelConnection.open(sandbox, setup, on_messages=hear, link=link, on_hello=on_hello)
        kernel = self._kernels[incarnation] = _Kernel(sandbox, connection, is_held=self.session.is_degraded)
        if kernel.is_held:
            connection.pause()
        is_waited_for = partial(self._waits_for, incarnation)
        kernel.tasks = [
            self._loop.create_task(watch(sandbox, connection, is_waited_for=is_waited_for)),
            self._loop.create_task(self._tell_the_end(incarnation, kernel)),
        ]

    def _waits_for(self, incarnation: int) -> bool:
        return self.session.incarnation == incarnation and self.session.is_working

    async def _interrupt(self, incarnation: int) -> None:
        try:
            if kernel := self._kernels.get(incarnation):
                await kernel.sandbox.interrupt()
        except CellgateError as error:
            log.warning("session %s: its kernel could not be interrupted: %s", self.id, error)
        finally:
            self._do(self.session.interrupt_sent(incarnation, self._host.now()))

    async def _judge(self, item: Cell | Waiting) -> None:
        judgement = await self._gatekeeper.judge(item.message)
        self._do(self.session.judged(item, judgement, self._host.now()))

    async def _destroy(self, incarnation: int, kernel: _Kernel) -> None:
        for task in kernel.tasks:
            task.cancel()
        kernel.connection.close()
        try:
            end = await kernel.sandbox.destroy()
            peak = end.memory_peak_bytes
            self._tell(KernelEnded(self.who, incarnation, end.reason.value, end.cpu_seconds, peak, end.oom_kills))
        except CellgateError as error:  # the warden is driven by another gateway now, which clears away
            log.warning("session %s: its sandbox could not be destroyed: %s", self.id, error)

    async def _clear_away(self) -> None:
        for reader in self._all_readers():
            reader.finish(Parting.SESSION_OVER)
        for task in self._judging:
            task.cancel()
        me = asyncio.current_task()
        while others := [task for task in self._tasks if task is not me]:  # a start that was overtaken, destroys
            await asyncio.wait(others)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._all_left(), FAREWELL_SECONDS)
        for reader in self._all_readers():
            reader.part(Parting.SESSION_OVER)
        if self._timer:
            self._timer.cancel()
        self._cursors.close()
        await self._loop.run_in_executor(None, self.journal.delete)
        with suppress(sqlite3.Error):  # it is saved as gone: the next gateway forgets it
            self._host.registry.forget(self.id)
        self._host.forget(self)

    # -- what happens --------------------------------------------------------------------------------

    def _hear(self, incarnation: int, batch: Batch) -> None:
        """One read of the link. It is acknowledged when this returns: what it brought is journalled then."""
        try:
            self._do(self.session.kernel_messages(incarnation, batch, self._host.now()))
        except Exception:  # a fault of ours: the kernel of this session pays for it, and no other
            log.exception("session %s: could not take what its kernel said", self.id)
            if kernel := self._kernels.get(incarnation):
                self._start(kernel.sandbox.kill(Reason.BACKEND_ERROR, "a fault of the gateway; its log says more"))

    async def _tell_the_end(self, incarnation: int, kernel: _Kernel) -> None:
        try:
            certificate: DeathCertificate = await kernel.sandbox.wait()
        except CellgateError as error:
            log.warning("session %s: nothing can be known of its sandbox any more: %s", self.id, error)
            self._host.lose(error)
            return
        if kernel.is_held:
            kernel.is_held = False
            kernel.connection.resume()
        await asyncio.wait([kernel.connection.closed], timeout=LAST_WORDS_SECONDS)
        self._do(self.session.kernel_died(incarnation, certificate, self._host.now()))

    async def _sample(self, incarnation: int, sandbox: Sandbox) -> None:
        usage = await sandbox.usage()
        self.session.usage(incarnation, usage.cpu_seconds, self._host.now())
        self._tell(UsageSampled(self.who, incarnation, usage.cpu_seconds, usage.memory_bytes))

    def _tick(self) -> None:
        self._timer = None
        self._do(self.session.tick(self._host.now()))

    def _plan_tick(self) -> None:
        """A timer that is due too early finds nothing to do, and is cheaper than setting it anew with each message."""
        at = self.session.wakes_at()
        if at is None or (self._timer is not None and at >= self._timer_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(at - self._host.now(), 0.0) + 0.001, self._tick)

    def _happening(self, news: News) -> Happening:
        if isinstance(news, Accepted):
            return CellAccepted(self.who, news.cell, news.code)
        if isinstance(news, Finished):
            wall = 0.0 if news.sent_at is None else self._host.now() - news.sent_at
            return CellFinished(self.who, news.cell, news.reason.value, wall, news.output_messages, news.output_bytes)
        return CellRefused(self.who, news.reason.value, news.code)

    # -- helpers -------------------------------------------------------------------------------------

    async def _all_left(self) -> None:
        while self._readers:
            self._left.clear()
            await self._left.wait()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("session %s: a task failed", self.id, exc_info=error)

    def _tell(self, happening: Happening) -> None:
        self._host.happenings.tell(happening)

    def _say_gap(self, gap: Gap) -> bytes:
        text = f"{gap.records} messages of this session are no longer kept, and left out here"
        facts = {"note": "gap", "first": gap.first, "last": gap.last, "records": gap.records}
        return self._composer.note(text, parent=None, date=date_now(), facts=facts).v1
