"""One session, as a sans-IO core: what happens to it comes in as calls, what is to be done goes out as effects.

    a client's request ─┐                        ┌─▶ Append    to the journal, which every client reads
    a verdict on it ────┤                        ├─▶ Judge
    the kernel's words ─┤                        ├─▶ Send, Interrupt, Kill
    a sandbox's end ────┼─▶ Session ─▶ effects ──┼─▶ StartKernel, Destroy
    time, usage ────────┘                        └─▶ Save, Close

It keeps the promise that each accepted cell gets one reply, one idle and one terminal record with a reason, whatever
becomes of it, and whatever the kernel says: hostile code may say anything. What it says in vain (a second reply, the
idle of a cell that is none, a tag that lies) is counted in `ignored` and not shown.

Knows nothing of sockets, files or tasks. Every call takes the time as `now`, and returns effects that are to be
carried out in order, before those of the next call. Time that passes is told by `tick`, at `wakes_at` or oftener.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cellgate.policy.verdicts import Verdict
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sessions.asked import MAX_ASKED, OURS
from cellgate.sessions.cells import MAX_QUEUED_BYTES, Cell, Judgement, Queue, Waiting
from cellgate.sessions.clocks import Expiry, Life, Urge, urge_of, urges_at
from cellgate.sessions.docket import Denial, Docket, Warner, permit
from cellgate.sessions.effects import (
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
from cellgate.sessions.hearing import Hearing
from cellgate.sessions.journal import Reading, Recovery
from cellgate.sessions.known import Known, KnownCells
from cellgate.sessions.limits import SessionLimits
from cellgate.sessions.news import News
from cellgate.sessions.records import Kind
from cellgate.sessions.states import SESSION_MOVES, CellMove, CellReason, Move, Phase, State, moved
from cellgate.sessions.transcript import Transcript
from cellgate.wire.agent import Refused, reply_to
from cellgate.wire.jupyter import (
    ClientMessage,
    Composer,
    Dialect,
    make_request,
    read_frame,
)
from cellgate_kernel.message import Channel, MessageError, Status, Tag

__all__ = ["RESTART_PAUSES", "Batch", "Session"]

Batch = Iterable[tuple[int, Tag, memoryview]]

# How long to wait before each further kernel, when those before ended and had not been given a cell. After the last
# there is none until somebody asks. One that ended in a cell is replaced at once: the cell did it, and another may not.
RESTART_PAUSES = (0.0, 0.5, 2.0, 8.0)
FIRST_WORDS_BYTES = 256 << 10  # of a cell's run, in which an heir looks for its busy
NO_KERNEL = "there is no kernel; a restart would start one"
_OVERTAKING = frozenset({"comm_open", "comm_msg", "comm_close", "kernel_info_request"})
_ALLOWED = Verdict()  # what nobody judges


_INTERRUPT = make_request(
    "interrupt_request", {}, channel=Channel.CONTROL, msg_id="interrupt", session="cellgate", date=""
)


@dataclass
class _Kernel:
    """What is known of the kernel of this incarnation, and of no other."""

    is_heard: bool = False  # what it says counts
    is_linked: bool = False  # and it can be sent something: not yet, while it has not greeted the heir of a gateway
    sent: int = 0  # messages on its link
    received: int = 0
    was_given_a_cell: bool = False
    interrupts: int = 0  # that are on their way; each strikes what runs when it arrives
    is_being_killed: bool = False


class Session:
    """One per session and gateway. `is_degraded` is set by whoever owns the journal, `withheld` (a sentence) by whoever
    counts what its principal uses: no cell is accepted then."""

    def __init__(
        self,
        limits: SessionLimits,
        *,
        composer: Composer,
        date: Callable[[], str],
        next_seq: int,
        now: float,
        born_at: float | None = None,
        judges: bool = False,
        may_run: Callable[[], bool] = lambda: True,
    ) -> None:
        """`date` is what messages carry, and decides nothing. `next_seq` is the journal's. `judges`: whether the
        kernel gets only what was judged. `may_run`: whether a cell may begin now; if not, `go_on` is called when one
        may. Call `begin` or `recover` next."""
        self.limits = limits
        self.state = State.STARTING
        self.incarnation = 0
        self.sandbox_id = ""
        self.is_degraded = False
        self.withheld = ""
        self._log = Transcript(composer, date, next_seq)
        self._hearing = Hearing(self._log, limits, now, replied=self._replied, finished=self._finish)
        self.ignored = self._hearing.ignored  # what the kernel or a client said in vain, by kind
        self._life = Life(born_at=now if born_at is None else born_at, active_at=now)
        self._kernel = _Kernel()
        self._running: Cell | None = None  # what the kernel has
        self._queue = Queue()
        self._known = KnownCells()
        self._docket = Docket() if judges else None
        self._warner = Warner()
        self._may_run = may_run
        self._early: list[Waiting] = []  # what needs no place in the queue and came while there was no kernel
        self._asked_before: dict[bytes, frozenset[bytes]] = {}  # by client: its cells that were pending when it came
        self._failures = 0  # kernels in a row that ended before they were given a cell
        self._start_at: float | None = None
        self._gave_up_at = next_seq  # the record that says so

    # -- what can be asked ----------------------------------------------------------------------------

    @property
    def running(self) -> Cell | None:
        """The cell that the kernel has."""
        return self._running

    @property
    def pending(self) -> list[Cell]:
        """The cells that will still end, in the order in which they run."""
        waiting = [item for item in self._queue.waiting if isinstance(item, Cell)]
        return waiting if self._running is None else [self._running, *waiting]

    def is_asking(self, cell_id: str) -> bool:
        """Whether this cell waits for input."""
        return self._running is not None and self._running.asks and self._running.message.msg_id == cell_id

    @property
    def next_seq(self) -> int:
        """The number that the journal must give the next record, once all effects are carried out."""
        return self._log.next_seq

    @property
    def news_from(self) -> int:
        """The record that a client begins with who was not here before: the first of the running cell's, or the one
        that says why there is no kernel; else the next."""
        if self._running is not None:
            return self._running.begins_at
        return self._gave_up_at if self.state is State.DEAD else self.next_seq

    @property
    def waiting_cells(self) -> int:
        return self._queue.cells

    @property
    def is_working(self) -> bool:
        """Whether it is not idle, whatever its processes use."""
        return self._running is not None or self._queue.cells > 0 or self.state in (State.STARTING, State.RESTARTING)

    @property
    def active_at(self) -> float:
        """When it was last known to work."""
        return self._life.active_at

    def expiry(self) -> Expiry:
        """When it will end, and why, if nothing happens until then."""
        return self._life.expiry(self.limits)

    @property
    def received(self) -> int:
        """The highest number of the kernel's messages that was handed in: `Link(sent=None, received=...)`."""
        return self._kernel.received

    def wakes_at(self) -> float | None:
        """When `tick` has something to do, if nothing else happens before."""
        if self.state is State.GONE:
            return None
        at = self._life.looks_at(self.limits, self.is_working)
        if (cell := self._running) is not None and self._kernel.is_heard and not self._kernel.is_being_killed:
            seconds = cell.seconds(self.limits)
            at = min(at, urges_at(seconds, self.limits.interrupt_grace_seconds, cell.sent_at, cell.overdue_at))
        if self._start_at is not None:
            at = min(at, self._start_at)
        if (renewal := self._hearing.renews_at) is not None:
            at = min(at, renewal)
        return at

    def take_news(self) -> list[News]:
        """What there is to tell since the last time; to be asked once the effects are carried out."""
        return self._log.take_news()

    # -- beginnings -----------------------------------------------------------------------------------

    def begin(self) -> list[Effect]:
        """A new session: start its first kernel."""
        self._begin_incarnation("created")
        self._log.do(StartKernel(self.incarnation))
        return self._log.done()

    def recover(
        self,
        found: Recovery,
        *,
        state: State,
        incarnation: int,
        sandbox_id: str,
        read: Callable[[int, int], Reading],
        known: bytes = b"",
    ) -> list[str]:
        """Take over from a gateway that is no more: what the registry and the journal say. If its sandbox lives, attach
        to it with `Link(sent=None, received=session.received)` and call `adopted`; else `kernel_lost`. `read` is the
        journal's; `known`: the entries that were to be remembered. Returns what could not be understood, for the
        log."""
        self._known = KnownCells(known, end=self._log.next_seq)
        self.state, self.incarnation, self.sandbox_id = state, incarnation, sandbox_id
        self._kernel.received = self._log.covered = found.link_number
        cuts = {cut.cell: cut for cut in found.cuts}
        problems = []
        for request in found.requests:
            try:
                message = read_frame(bytes(request.body), Dialect.V1, date="", max_bytes=len(request.body))
                cell = Cell.recovered(request, cuts.get(request.seq), message, self.limits, self._life.active_at)
            except (MessageError, ValueError) as error:
                problems.append(f"cell {request.seq} cannot be read: {error}")
                self._log.terminal_of_damaged(request)
                continue
            self._await_judgement(cell, None)  # the policy may be another by now
            if cell.phase is Phase.WAITING:
                self._queue.add(cell)
            else:
                cell.is_busy = _was_told_busy(cell, read(cell.begins_at, FIRST_WORDS_BYTES))
                cell.asks = True  # perhaps: an answer is not journalled, and a kernel that did not ask throws it away
                cell.sent_at = self._life.active_at  # also for a kernel that never greets: its time goes on
                self._running = cell
        if state not in (State.STARTING, State.RESTARTING, State.DEAD, State.GONE):
            self.state = State.READY if self._running is None else State.BUSY  # which of them is not saved
            self._kernel.is_heard = True  # what it had kept comes together with the greeting
        return problems

    def adopted(self, received: int, now: float) -> list[Effect]:
        """The link to a kernel that outlived its gateway is up. `received`: how many messages have reached it
        (`Hello.received`). A cell that has not is sent again; the time of one that runs begins anew. What the kernel
        had kept may be handed in before this."""
        self._log.now = now
        kernel = self._kernel
        kernel.is_linked = True
        kernel.sent = received
        kernel.was_given_a_cell = True  # it may have been
        if (cell := self._running) is not None and cell.sent_number > received:
            self._running = None
            cell.phase, cell.sent_number, cell.overdue_at = Phase.WAITING, 0, None
            self._queue.add_first(cell)
            self._move(Move.CELL_ENDED)
        elif cell is not None:
            cell.sent_at = now
            self._send_held(cell)
        self._life.active_at = now
        self._pass_on_early()
        self._feed(now)
        return self._done()

    def kernel_lost(self, now: float) -> list[Effect]:
        """Instead of `adopted`: there is no sandbox. It ended while there was no gateway, and nobody can say how; or
        one was just to be started."""
        self._log.now = now
        sentence = "the sandbox ended while the gateway was away"
        if self.state in (State.STARTING, State.RESTARTING):
            self._end_work(CellReason.SUPERVISOR_LOST, sentence, {})
            if self.received:  # a kernel has spoken under this number, and could not be saved
                self._begin_incarnation(sentence)
            else:
                self._save()
            self._log.do(StartKernel(self.incarnation))
        elif self.state in (State.DEAD, State.GONE):
            self._end_work(CellReason.SUPERVISOR_LOST, sentence, {})
            self._cancel_waiting(sentence)
        else:
            self._kernel.was_given_a_cell = True  # it may have been
            self._lose_kernel(CellReason.SUPERVISOR_LOST, sentence, {}, now)
        return self._done()

    # -- from clients ---------------------------------------------------------------------------------

    def joined(self, client: bytes) -> None:
        """A connection of this client's has begun. If it had another, it may not know what became of its cells, and ask
        again for those that are pending now: they are the same, also when they have ended by then."""
        self._asked_before[client] = frozenset(cell.id for cell in self.pending if cell.client == client)

    def left(self, client: bytes) -> None:
        """It has ended, and there is no newer one."""
        self._asked_before.pop(client, None)

    def request(
        self, client: bytes, message: ClientMessage, now: float, judgement: Judgement | None = None
    ) -> list[Effect]:
        """Anything that a client sends. `client` says whom the answers are for; `judgement` is what is known already of
        whether it may pass."""
        self._life.active_at = self._log.now = now
        kind = message.msg_type
        if self.state is State.GONE:
            self.ignored["request_after_end"] += 1
        elif kind == "execute_request":
            self._accept(client, message, judgement, now)
        elif kind == "interrupt_request":
            self._log.answer(client, message, {"status": "ok"})
            self._interrupt()
        elif kind == "shutdown_request":
            is_restart = message.content.get("restart") is True
            self._log.answer(client, message, {"status": "ok", "restart": is_restart})
            if is_restart:
                self._restart(now)
            else:
                self._end(Reason.SESSION_DELETED, "a client asked the kernel to shut down")
        elif self.state is State.DEAD:
            self._log.refuse(client, message, CellReason.BACKEND_ERROR, NO_KERNEL)
        elif kind == "input_reply":
            self._give_input(message)
        else:
            self._ask(client, message, judgement)
        return self._done()

    def ask(self, message: ClientMessage, now: float, *, is_judged: bool) -> list[Effect]:
        """A question of the gateway's own, which is answered by an `Answered`; no client hears of it. `is_judged`: as
        if a client had asked it."""
        self._life.active_at = self._log.now = now
        if self.state in (State.GONE, State.DEAD):
            self._log.refuse(OURS, message, CellReason.BACKEND_ERROR, NO_KERNEL)
        else:
            self._ask(OURS, message, None if is_judged else _ALLOWED)
        return self._done()

    def judged(self, item: Cell | Waiting, judgement: Judgement, now: float) -> list[Effect]:
        """What came of a Judge."""
        self._log.now = now
        if self._docket is None or not self._docket.take(item):
            return []  # it waits no more
        item.judgement = judgement
        if isinstance(item, Waiting) and item.overtakes:
            self._pass_on(item)
        self._feed(now)
        return self._done()

    def stage_of(self, cell_id: str) -> str | None:
        """How far a cell has come, if it is known."""
        name = cell_id.encode()
        if self._running is not None and self._running.id == name:
            return "running"
        if self._queue.has(name):
            return "waiting"
        return "finished" if self._known.find(name) else None

    def accepted_at(self, cell_id: str) -> int | None:
        """The number of the record in which a cell was accepted that its client named."""
        known = self._known.find(cell_id.encode())
        return known and known.seq

    def cancel(self, cell_id: str, now: float) -> list[Effect]:
        """Somebody wants this cell to end, wherever it is."""
        self._life.active_at = self._log.now = now
        if cell := self._queue.remove(cell_id.encode()):
            cell.move(CellMove.LOST)
            self._log.end(cell, CellReason.CANCELLED, "it was cancelled before it ran", {})
            self._feed(now)
        elif self._running is not None and self._running.id == cell_id.encode():
            self._interrupt()
        return self._done()

    def touch(self, now: float) -> None:
        """Somebody is still there, and wants the session to live on."""
        self._life.active_at = now

    def interrupt(self, now: float) -> list[Effect]:
        """Somebody wants the running cell interrupted."""
        self._life.active_at = self._log.now = now
        self._interrupt()
        return self._log.done()

    def go_on(self, now: float) -> list[Effect]:
        """A cell may run that might not before."""
        self._feed(now)
        return self._log.done()

    def interrupt_sent(self, incarnation: int, now: float) -> list[Effect]:
        """An Interrupt has been carried out, or has failed: cells may follow."""
        self._log.now = now
        if incarnation == self.incarnation:
            self._kernel.interrupts -= 1
            self._feed(now)
        return self._log.done()

    def restart(self, now: float) -> list[Effect]:
        """Somebody wants a fresh kernel. While one is on its way, that is the one."""
        self._life.active_at = self._log.now = now
        self._restart(now)
        return self._log.done()

    def delete(self, now: float) -> list[Effect]:
        """Somebody wants the session gone."""
        self._log.now = now
        self._end(Reason.SESSION_DELETED, "the session was deleted")
        return self._log.done()

    # -- from the sandbox -----------------------------------------------------------------------------

    def kernel_started(self, incarnation: int, sandbox_id: str, now: float) -> list[Effect]:
        """A StartKernel came true: the link is up. To be told before anything that comes over it."""
        self._log.now = now
        if incarnation != self.incarnation or self.state not in (State.STARTING, State.RESTARTING):
            self._log.do(Destroy(incarnation))  # of a start that was overtaken by the session's end
            return self._log.done()
        self.sandbox_id = sandbox_id
        self._kernel.is_heard = self._kernel.is_linked = True
        self._move(Move.STARTED)
        self._life.active_at = now
        self._save()
        self._pass_on_early()
        self._feed(now)
        return self._done()

    def start_failed(self, incarnation: int, sentence: str, now: float) -> list[Effect]:
        """A StartKernel did not come true, and nothing is left of it."""
        self._log.now = now
        if incarnation == self.incarnation and self.state in (State.STARTING, State.RESTARTING):
            sentence = f"the kernel could not be started: {sentence}"
            if self.state is State.STARTING:  # its first: whoever waits for it hears now, and may want it elsewhere
                self._give_up(sentence)
            else:
                self._replace_kernel(now, sentence, {"reason": CellReason.BACKEND_ERROR.value})
        return self._log.done()

    def kernel_messages(self, incarnation: int, batch: Batch, now: float) -> list[Effect]:
        """All that one read of the link brought: numbers, tags and messages. Once the effects are carried out the
        link may be acknowledged; until then the messages must stay as they are."""
        self._log.now = now
        kernel = self._kernel
        if incarnation != self.incarnation or not kernel.is_heard:
            return []
        for number, tag, v1 in batch:
            kernel.received = number
            try:
                self._hearing.hear(number, tag, v1, self._running)
            except MessageError as error:
                self._end_for_violation(error)
        cell = self._running
        is_half_done = cell is not None and (cell.phase is not Phase.RUNNING or cell.cap.is_cutting)
        if is_half_done or self._log.covered < kernel.received:  # what is acknowledged never comes again
            self._log.progress(cell, kernel.received)
        return self._log.done()

    def kernel_died(self, incarnation: int, certificate: DeathCertificate, now: float) -> list[Effect]:
        """The sandbox has ended, and all that it had said was handed in."""
        self._log.now = now
        if incarnation == self.incarnation and self._kernel.is_heard:
            facts = {name: value for name, value in certificate.to_json().items() if name not in ("reason", "detail")}
            self._lose_kernel(CellReason(certificate.reason.value), certificate.sentence(), facts, now)
        return self._log.done()

    def usage(self, incarnation: int, cpu_seconds: float, now: float) -> None:
        """What the sandbox's processes have used so far, as the host counts it; threads that compute are work. To be
        handed in some times within `idle_seconds`."""
        if incarnation == self.incarnation:
            self._life.sample(cpu_seconds, now)

    # -- time -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        self._log.now = now
        if self.state is State.GONE:
            return []
        if self._start_at is not None and now >= self._start_at:
            self._start_at = None
            self._log.do(StartKernel(self.incarnation))
        self._hearing.tick(self.limits, now)
        self._limit_cell(now)
        if self.is_working:
            self._life.active_at = now
        expiry = self._life.expiry(self.limits)
        if now >= expiry.at:
            self._expire(expiry)
        elif notice := self._life.notice_due(self.limits, now):
            left = notice.at - now
            text = f"this session ends in {left:.0f} s"
            text += ": it is idle; running a cell keeps it" if notice.why == "idle" else ": its lifetime is over"
            self._log.note(text, {"note": "session_expiring", "why": notice.why, "seconds_left": round(left, 3)})
        return self._log.done()

    def _expire(self, expiry: Expiry) -> None:
        if expiry.why == "idle":
            sentence = f"the session was idle for {self.limits.idle_seconds:g} s"
        else:
            sentence = f"the session's lifetime of {self.limits.lifetime_seconds:g} s was over"
        self._end(Reason.SESSION_EXPIRED, sentence)

    def _limit_cell(self, now: float) -> None:
        cell, kernel = self._running, self._kernel
        if cell is None or kernel.is_being_killed or not kernel.is_heard:
            return
        allowed = cell.seconds(self.limits)
        urge = urge_of(allowed, self.limits.interrupt_grace_seconds, cell.sent_at, cell.overdue_at, now)
        if urge is Urge.INTERRUPT:
            cell.overdue_at = now
            text = f"the cell has run for the {allowed:g} s it may, and is interrupted"
            self._log.note(text, {"note": "timeout_wall", "limit_seconds": allowed}, cell)
            self._signal()
        elif urge is Urge.KILL:
            kernel.is_being_killed = True
            detail = f"{allowed:g} s were allowed, and the interrupt was not heeded"
            self._log.do(Kill(self.incarnation, Reason.TIMEOUT_WALL, detail))

    # -- a cell's way to the kernel -------------------------------------------------------------------

    def _accept(self, client: bytes, message: ClientMessage, judgement: Judgement | None, now: float) -> None:
        cell_id = message.msg_id.encode()
        once = message.options.get("once") is True
        if once and (known := self._known.find(cell_id)):
            self._log.do(Tell(client, self._again(message, known)))
            return
        is_pending = (self._running is not None and self._running.id == cell_id) or self._queue.has(cell_id)
        if is_pending or cell_id in self._asked_before.get(client, ()):
            self.ignored["repeated_request"] += 1  # a client that was not sure: it is on its way already
            return
        if refusal := self._refusal(message):
            self._log.refuse(client, message, *refusal)
            return
        cell = Cell.accepted(self._log.next_seq, client, message, self.limits, now)
        if once:
            self._log.do(Remember(self._known.add(cell_id, message.content["code"], cell.key)))
        self._log.accept(cell)
        self._queue.add(cell)
        self._await_judgement(cell, judgement)
        self._feed(now)

    def _again(self, message: ClientMessage, known: Known) -> dict[str, object]:
        """To whoever asks for a cell that was asked for before."""
        name = message.msg_id
        if known.is_of(message.content["code"]):
            return reply_to(name, cell=name, was=self.stage_of(name), accepted=known.seq)
        sentence = "there was another cell of this id, with other code; an id of its own would pass"
        return Refused("id_taken", sentence, name, accepted=known.seq).to_event()

    def _refusal(self, message: ClientMessage) -> tuple[CellReason, str] | None:
        """Why a cell is not accepted."""
        limits = self.limits
        if self.state is State.DEAD:
            return CellReason.BACKEND_ERROR, NO_KERNEL
        if self.is_degraded:
            return CellReason.BACKEND_ERROR, "the journal cannot be written; cells pass again when it can"
        if self.withheld:
            return CellReason.QUOTA_USED_UP, self.withheld
        code = message.content["code"]
        if len(code) * 4 > limits.code_bytes and (size := len(code.encode("utf-8", "replace"))) > limits.code_bytes:
            return CellReason.POLICY_DENIED, f"the code has {size} bytes; up to {limits.code_bytes} would pass"
        if self._queue.cells >= limits.queue_cells or not self._queue.has_room(message):
            return CellReason.QUEUE_FULL, f"{self._queue.cells} cells wait; up to {limits.queue_cells} may"
        return None

    def _feed(self, now: float) -> None:
        """Give the kernel what is next, if it is its turn."""
        queue, kernel = self._queue, self._kernel
        while kernel.is_linked and (first := queue.first) is not None and (judgement := first.judgement) is not None:
            if isinstance(first, Waiting):
                queue.take()
                self._send_request(first, judgement)
                continue
            if self.state is not State.READY or kernel.interrupts or kernel.is_being_killed:
                return
            verdict = permit(judgement)
            if verdict is not None and not self._may_run():
                return
            queue.take()
            if verdict is None:
                self._deny(first, judgement)
                continue
            self._move(Move.CELL_SENT)
            self._running = first
            first.move(CellMove.SENT)
            first.sent_at, first.sent_number, first.begins_at = now, kernel.sent + 1, self._log.next_seq
            kernel.was_given_a_cell = True
            self._log.progress(first, 0)
            if verdict.findings and not first.message.content.get("silent") and (note := self._warner.note(verdict)):
                self._log.note(*note, first)
            self._send(first.message)
            self._send_held(first)

    def _deny(self, cell: Cell, judgement: Judgement) -> None:
        """When its turn has come: to what stands behind it, it is a cell that failed."""
        denial = Denial.of(judgement, cell.message)
        cell.move(CellMove.LOST)
        cell.outcome = Status.ERROR
        self._log.end(cell, CellReason.POLICY_DENIED, denial.sentence, denial.facts, denial.traceback)
        if cell.stops_others:
            self._cancel_waiting("a cell before it was denied")

    # -- verdicts -------------------------------------------------------------------------------------

    def _await_judgement(self, item: Cell | Waiting, judgement: Judgement | None) -> None:
        """Whatever the kernel is to get has one, known or not, or waits for one."""
        if self._docket is None:
            item.judgement = _ALLOWED
        elif judgement is not None:
            item.judgement = judgement
        else:
            self._docket.add(item)

    def _done(self) -> list[Effect]:
        """The effects of a call that may have brought something that is to be judged."""
        if self._docket is not None:
            for item in self._docket.due():
                self._log.do(Judge(item))
        return self._log.done()

    # -- other requests -------------------------------------------------------------------------------

    def _ask(self, client: bytes, message: ClientMessage, judgement: Judgement | None) -> None:
        """Comms, kernel_info and control go at once, as a kernel lets them overtake its queue; the rest keeps its
        place among the cells."""
        queue, kind = self._queue, message.msg_type
        overtakes = kind in _OVERTAKING or message.channel is Channel.CONTROL
        may_stay = kind.endswith("_request") or not overtakes  # with the kernel, or in the queue
        beside = [*self._early, *(self._docket.overtaking if self._docket is not None else ())]
        waiting = len(self._hearing.asked) + len(queue) - queue.cells + len(beside)
        size = sum(len(item.message.v1) for item in beside)
        if (may_stay and waiting >= MAX_ASKED) or not queue.has_room(message, size):
            sentence = f"{waiting} requests wait, of {queue.bytes + size} bytes"
            sentence += f"; up to {MAX_ASKED} may, of {MAX_QUEUED_BYTES} bytes"
            self._log.refuse(client, message, CellReason.QUEUE_FULL, sentence)
            return
        item = Waiting(client, message, overtakes)
        self._await_judgement(item, judgement)
        if item.judgement is not None or not overtakes:
            self._pass_on(item)

    def _pass_on_early(self) -> None:
        early, self._early = self._early, []
        for waiting in early:
            self._pass_on(waiting)

    def _pass_on(self, item: Waiting) -> None:
        kernel, queue = self._kernel, self._queue
        if kernel.is_linked and item.judgement is not None and (item.overtakes or not len(queue)):
            self._send_request(item, item.judgement)
        elif not item.overtakes:
            queue.add(item)
        elif len(self._early) < MAX_ASKED:
            self._early.append(item)
        else:
            self.ignored["message_before_start"] += 1

    def _send_request(self, waiting: Waiting, judgement: Judgement) -> None:
        if permit(judgement) is None:
            denial = Denial.of(judgement, waiting.message)
            client, message = waiting.client, waiting.message
            self._log.refuse(client, message, CellReason.POLICY_DENIED, denial.sentence, denial.facts)
            return
        self._hearing.asked.add(waiting.client, waiting.message, self._kernel.sent + 1)
        self._send(waiting.message)

    def _give_input(self, message: ClientMessage) -> None:
        """An answer to `input()`, from whichever client. Never journalled: it may be a password. If the gateway takes
        it down with it, the question is still in the journal, and the kernel still waits."""
        cell = self._running
        if cell is None or not cell.asks:
            self.ignored["input_unasked"] += 1
            return
        cell.asks = False
        self._send_to_cell(cell, message)

    def _send_to_cell(self, cell: Cell, message: ClientMessage) -> None:
        """What means the cell that the kernel has, now or as soon as the kernel has greeted this gateway."""
        if self._kernel.is_linked:
            self._send(message)
        elif message not in cell.held:  # of interrupts one is enough
            cell.held.append(message)

    def _send_held(self, cell: Cell) -> None:
        held, cell.held = cell.held, []
        for message in held:
            self._send(message)

    def _send(self, message: ClientMessage) -> None:
        self._kernel.sent += 1
        self._log.do(Send(self.incarnation, self._kernel.sent, message))

    def _interrupt(self) -> None:
        kernel = self._kernel
        if not kernel.is_heard or kernel.is_being_killed:
            return
        if self._running is not None:
            self._running.is_interrupted = True
        self._strike()

    def _strike(self) -> None:
        """By a signal, which comes at once and heeds no queue. It would overtake a cell on its way to the kernel, and
        strike nobody: what has not begun is interrupted by a message that comes behind it."""
        cell = self._running
        if cell is None or (self._kernel.is_linked and cell.is_busy):
            self._signal()
        else:
            self._send_to_cell(cell, _INTERRUPT)

    def _signal(self) -> None:
        self._kernel.interrupts += 1
        self._log.do(Interrupt(self.incarnation))

    def _end_for_violation(self, error: MessageError) -> None:
        if not self._kernel.is_being_killed:
            self._kernel.is_being_killed = True
            self._log.do(Kill(self.incarnation, Reason.PROTOCOL_VIOLATION, str(error)))

    # -- what the kernel says -------------------------------------------------------------------------

    def _replied(self, cell: Cell) -> None:
        if cell.stops_others:
            self._cancel_waiting("a cell before it failed")

    def _finish(self, cell: Cell) -> None:
        """Reply and idle are there: say that this was all, and go on."""
        self._log.terminal(cell, cell.reason)
        self._running = None
        self._failures = 0
        self._life.active_at = self._log.now
        self._move(Move.CELL_ENDED)
        self._feed(self._log.now)

    # -- ends -----------------------------------------------------------------------------------------

    def _end_work(self, reason: CellReason, sentence: str, facts: Mapping[str, object]) -> None:
        """Say in the kernel's place what the running cell has not been told, and whoever else asked it something."""
        for question in self._hearing.asked.take_open():
            self._log.end_question(question, reason, sentence)
        cell, self._running = self._running, None
        if cell is None:
            return
        self._log.show_held(cell.cap, cell)
        was = cell.phase
        cell.move(CellMove.LOST)
        if was is Phase.REPLIED:
            self._log.idle(cell)
            self._log.terminal(cell, cell.reason)
        else:
            self._log.end(cell, reason, sentence, facts)

    def _cancel_waiting(self, why: str) -> None:
        for cell in self._queue.take_cells():
            cell.move(CellMove.LOST)
            self._log.end(cell, CellReason.CANCELLED, f"it was not run: {why}", {})

    def _lose_kernel(self, reason: CellReason, sentence: str, facts: Mapping[str, object], now: float) -> None:
        """The kernel is no more: end what it had, and start another."""
        self._end_work(reason, sentence, facts)
        self._cancel_waiting(sentence)
        if self._kernel.was_given_a_cell:
            self._failures = 0
        self._replace_kernel(now, sentence, {**facts, "reason": reason.value})

    def _replace_kernel(self, now: float, sentence: str, facts: Mapping[str, object]) -> None:
        if self._failures >= len(RESTART_PAUSES):
            self._give_up(sentence)
            return
        pause = RESTART_PAUSES[self._failures]
        self._failures += 1
        self._part(sentence, facts)
        if pause:
            self._start_at = now + pause
        else:
            self._log.do(StartKernel(self.incarnation))

    def _restart(self, now: float) -> None:
        if self._start_at is not None:
            self._start_at = now  # somebody wants now what was to come later
        if self.state in (State.STARTING, State.RESTARTING, State.GONE):
            return
        sentence = "the kernel was restarted"
        self._end_work(CellReason.CANCELLED, sentence, {})
        self._cancel_waiting(sentence)
        self._failures = 0
        self._part(sentence, {"reason": "restarted"}, state="starting")
        self._log.do(StartKernel(self.incarnation))

    def _part(self, sentence: str, facts: Mapping[str, object], *, state: str = "restarting") -> None:
        """From this incarnation, and begin the next. Jupyter's clients take `restarting` for what nobody asked for,
        and say so."""
        former = self.incarnation
        if self.state is not State.RESTARTING:
            self._move(Move.RESTARTED)
        self._say_state(state, sentence, facts)
        self._begin_incarnation(sentence, str(facts.get("reason", "")))
        self._log.do(Destroy(former))

    def _begin_incarnation(self, why: str, reason: str = "") -> None:
        self._forget_kernel()
        self.incarnation += 1
        self._log.incarnation(self.incarnation, self.state, why, reason)
        self._save()

    def _give_up(self, sentence: str) -> None:
        """There will be no kernel unless somebody asks."""
        self._cancel_waiting(sentence)
        unjudged = self._docket.clear() if self._docket is not None else ()
        for waiting in [*self._early, *unjudged, *self._queue.take_rest()]:
            self._log.refuse(waiting.client, waiting.message, CellReason.BACKEND_ERROR, sentence)
        self._early = []
        self._move(Move.GAVE_UP)
        self._gave_up_at = self._log.next_seq
        self._say_state("dead", sentence, {"reason": CellReason.BACKEND_ERROR.value})
        self._forget_kernel()
        self._save()
        self._log.do(Destroy(self.incarnation))

    def _end(self, reason: Reason, sentence: str) -> None:
        if self.state is State.GONE:
            return
        self._hearing.asked.drop("kernel_info_request")  # at each connect JupyterLab asks, and fails at an error
        self._end_work(CellReason(reason.value), sentence, {})
        self._cancel_waiting(sentence)
        if self._docket is not None:
            self._docket.clear()
        self._move(Move.ENDED)
        self._say_state("dead", sentence, {"reason": reason.value})
        self._start_at = None
        self._kernel.is_heard = self._kernel.is_linked = False
        self._save()  # with its sandbox: whoever comes after a crash destroys it
        if reason is not Reason.SESSION_DELETED:  # that is what destroying it says by itself
            self._log.do(Kill(self.incarnation, reason, sentence))
        self._log.do(Destroy(self.incarnation))
        self._log.do(Close(reason))

    def _forget_kernel(self) -> None:
        self.sandbox_id = ""
        self._kernel = _Kernel()
        self._hearing.forget_kernel(self.limits)
        self._life.forget_samples()

    def _say_state(self, state: str, sentence: str, facts: Mapping[str, object]) -> None:
        facts = {**facts, "sentence": sentence, "incarnation": self.incarnation, "state": self.state.value}
        self._log.state(state, facts)

    def _move(self, move: Move) -> None:
        self.state = moved(SESSION_MOVES, self.state, move)

    def _save(self) -> None:
        self._log.do(Save(self.state, self.incarnation, self.sandbox_id))


def _was_told_busy(cell: Cell, first_words: Reading) -> bool:
    """Whether the clients know that it runs: a kernel says that first of all. If what it said first is no longer kept,
    it has said much."""
    return first_words.gap is not None or any(
        record.cell == cell.key and record.kind is Kind.OUTPUT and record.tag.status is Status.BUSY
        for record in first_words.records
    )
