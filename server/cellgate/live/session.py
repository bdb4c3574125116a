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
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

from cellgate.errors import (
    CellgateError,
    Fault,
    SandboxGone,
    SandboxStartFailed,
    StorageFull,
    UnknownSession,
)
from cellgate.live.audience import Audience
from cellgate.live.cursors import Cursors
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
from cellgate.live.kernel import LinkedKernel
from cellgate.live.known import KnownFile
from cellgate.live.questions import Answer, Questions
from cellgate.live.reader import Parting, Reader, Sink
from cellgate.live.voices import JupyterVoice, Voice
from cellgate.live.wish import Wish
from cellgate.sandbox.base import Sandbox, SandboxSpec, Usage
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.connection import Batch, KernelConnection
from cellgate.sandbox.watchdog import watch
from cellgate.sessions.asked import OURS
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
from cellgate.wire.jupyter import Buffer, ClientMessage, Composer, Dialect, make_request
from cellgate_kernel.link import Hello, Link
from cellgate_kernel.message import Channel

__all__ = ["Host", "LiveSession", "date_now", "kernel_ended"]

log = logging.getLogger("cellgate.live")

# To let a kernel that is gone say the rest: it lies in a socket's buffer here, and is read in milliseconds.
LAST_WORDS_SECONDS = 2.0
FAREWELL_SECONDS = 5.0  # for clients to read to the end of a session that is over
BUSY_SAMPLE_SECONDS = 5.0  # between two looks at what a cell uses: so much more than a quota may be used
_EXECUTION_STATES = {
    State.STARTING: "starting",
    State.READY: "idle",
    State.BUSY: "busy",
    State.PAUSED: "idle",
    State.RESTARTING: "restarting",
    State.DEAD: "dead",
    State.GONE: "dead",
}


def kernel_ended(who: Who, incarnation: int, end: DeathCertificate) -> KernelEnded:
    """What its sandbox's certificate says of a kernel."""
    peak = end.memory_peak_bytes
    return KernelEnded(who, incarnation, end.reason.value, end.cpu_seconds, peak, end.oom_kills)


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
        self._known = known
        self._gatekeeper = gatekeeper
        self._composer = composer
        self._loop = asyncio.get_running_loop()
        self._kernels: dict[int, LinkedKernel] = {}
        self._coming: Awaitable[Sandbox] | None = None  # was asked for before the session had begun
        self._audience = Audience(session, journal, cursors, self._loop.call_later)
        self._questions = Questions()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._judging: set[asyncio.Task[Any]] = set()  # those of them that wait for verdicts
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # when it is due, on the host's clock
        self._changed: list[asyncio.Future[None]] = []  # who waits for a change of state
        self._clear: list[Callable[[], None]] = []  # who waits for the link's window
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
        return len(self._audience)

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
        return kernel is not None and kernel.is_congested

    def when_clear(self, call: Callable[[], None]) -> None:
        self._clear.append(call)

    def _cleared(self) -> None:
        waiting, self._clear = self._clear, []
        for call in waiting:
            call()

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
            await self._end(incarnation, sandbox)

    def go_on_without_kernel(self) -> None:
        """The session has recovered, and there is no sandbox of it."""
        self._do(self.session.kernel_lost(self._host.now()))

    # -- from clients --------------------------------------------------------------------------------

    def join(self, client: bytes, sink: Sink, dialect: Dialect, *, after: str = "") -> Reader:
        """Another connection of a Jupyter client. One that was here before reads on where it stopped: behind the
        message whose id it names as `after`, else behind what it has surely received. One that was not begins with what
        is new. Whoever joined owes a `leave`. Raises TooManyClients, UnknownSession."""
        self._check_is_there()
        voice = JupyterVoice(client, dialect, self._say_gap)
        reader = self._audience.join(client, sink, voice, after=after)
        self._tell(ClientJoined(self.who, voice.name))
        return reader

    def attach(self, client: bytes, sink: Sink, voice: Voice, *, since: int | None = None) -> Reader:
        """A connection of an agent, in the place of any that it has. It reads what comes behind the record `since`; or
        behind what it has confirmed. One that was not here before begins with what is new, and so does a WATCHER each
        time. Whoever attached owes a `leave`. Raises TooManyClients, UnknownSession."""
        self._check_is_there()
        reader = self._audience.attach(client, sink, voice, since=since)
        self._tell(ClientJoined(self.who, voice.name))
        return reader

    def _check_is_there(self) -> None:
        if self.is_gone:  # since somebody looked for it; who came now would be told nothing, not even of its end
            raise UnknownSession(self.id)

    def leave(self, reader: Reader, *, in_order: bool) -> None:
        """Its connection has ended; `in_order` if the client closed it itself."""
        self._audience.leave(reader, in_order=in_order)
        self._tell(ClientLeft(self.who))

    def heard(self, reader: Reader, message: ClientMessage) -> None:
        """What a client sent."""
        self._audience.speaks(reader)
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
        question = make_request(
            msg_type,
            content,
            channel=channel,
            msg_id=uuid4().hex,
            session="cellgate",
            date=date_now(),
            buffers=buffers,
        )
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
        for reader in self._audience.readers():
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
        for reader in self._audience.readers():
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
        self._audience.close()

    # -- effects -------------------------------------------------------------------------------------

    def _do(self, effects: Sequence[Effect]) -> None:
        end: Close | None = None
        for effect in effects:
            if isinstance(effect, Append):
                self._append(effect.records)
            elif isinstance(effect, Answered):
                self._questions.answered(effect)
            elif isinstance(effect, Remember):
                self._known.append(effect.entry)
            elif isinstance(effect, Tell):
                if reader := self._audience.find(effect.client):
                    reader.tell(effect.event)
            elif isinstance(effect, Send):
                if kernel := self._kernels.get(effect.incarnation):
                    kernel.send(effect.message)
            elif isinstance(effect, Judge):
                task = self._context_of(effect.item.client).run(self._start, self._judge(effect.item))
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
                end = effect
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
        if end is not None:  # behind its cells
            self._tell(SessionEnded(self.who, end.reason.value))

    def _append(self, records: Sequence[Record]) -> None:
        first = self.journal.append(records)
        for reader in self._audience.readers():
            reader.appended(first, records)
        if self.journal.is_degraded and not self.session.is_degraded:
            log.error("session %s: the journal cannot be written; no cell is accepted until it can", self.id)
            self._set_degraded(True)

    def _set_degraded(self, is_degraded: bool) -> None:
        """Without a disk the kernel must wait, and not this process's memory grow."""
        self.session.is_degraded = is_degraded
        for kernel in self._kernels.values():
            kernel.hold(is_degraded)

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
        kernel = self._kernels[incarnation] = LinkedKernel(
            sandbox, connection, start=self._start, cleared=self._cleared
        )
        kernel.hold(self.session.is_degraded)
        is_waited_for = partial(self._waits_for, incarnation)
        kernel.tasks = [
            self._loop.create_task(watch(sandbox, connection, is_waited_for=is_waited_for)),
            self._loop.create_task(self._tell_the_end(incarnation, kernel)),
        ]
        for task in kernel.tasks:
            task.add_done_callback(self._ended)

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

    def _context_of(self, client: bytes) -> Context:
        """In which this client's verdicts are told. Each brings the next about, which may be for another's request."""
        if client == OURS:
            return copy_context()
        reader = self._audience.find(client)
        return Context() if reader is None else reader.context

    async def _judge(self, item: Cell | Waiting) -> None:
        judgement = await self._gatekeeper.judge(item.message)
        self._do(self.session.judged(item, judgement, self._host.now()))

    async def _destroy(self, incarnation: int, kernel: LinkedKernel) -> None:
        for task in kernel.tasks:
            task.cancel()
        kernel.connection.close()
        await self._end(incarnation, kernel.sandbox)

    async def _end(self, incarnation: int, sandbox: Sandbox) -> None:
        try:
            self._tell(kernel_ended(self.who, incarnation, await sandbox.destroy()))
        except CellgateError as error:  # the warden is driven by another gateway now, which clears away
            log.warning("session %s: its sandbox could not be destroyed: %s", self.id, error)

    async def _clear_away(self) -> None:
        for reader in self._audience.readers():
            reader.finish(Parting.SESSION_OVER)
        for task in self._judging:
            task.cancel()
        me = asyncio.current_task()
        while others := [task for task in self._tasks if task is not me]:  # a start that was overtaken, destroys
            await asyncio.wait(others)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._audience.all_left(), FAREWELL_SECONDS)
        for reader in self._audience.readers():
            reader.part(Parting.SESSION_OVER)
        if self._timer:
            self._timer.cancel()
        self._audience.close()
        self.journal.close()  # here: the budget that it leaves is all journals', and the loop's
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

    async def _tell_the_end(self, incarnation: int, kernel: LinkedKernel) -> None:
        try:
            certificate: DeathCertificate = await kernel.sandbox.wait()
        except CellgateError as error:
            log.warning("session %s: nothing can be known of its sandbox any more: %s", self.id, error)
            self._host.lose(error)
            return
        kernel.hold(False)
        await asyncio.wait([kernel.connection.closed], timeout=LAST_WORDS_SECONDS)
        self._do(self.session.kernel_died(incarnation, certificate, self._host.now()))

    async def _sample(self, incarnation: int, sandbox: Sandbox) -> None:
        usage = await sandbox.usage()
        if incarnation not in self._kernels:  # it has ended meanwhile, which tells all that it used
            return
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
