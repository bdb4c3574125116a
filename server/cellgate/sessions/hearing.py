"""What a kernel says, held against what it was asked: shown once, each thing in its place, or counted as said in vain.

    hear ──▶ the transcript     what clients are to see
         ──▶ replied, finished  what it means for the running cell

Hostile code may say anything: a second reply, the idle of a cell that is none, a tag that lies. Decides nothing of what
comes next; which kernel is heard at all is for the session. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cellgate.sessions.agents import summary_of
from cellgate.sessions.asked import OURS, Asked
from cellgate.sessions.cells import Cell, cap_limits
from cellgate.sessions.effects import Answered
from cellgate.sessions.limits import SessionLimits
from cellgate.sessions.output_cap import OutputCap
from cellgate.sessions.records import Kind, Record
from cellgate.sessions.states import CellMove, CellReason, Phase
from cellgate.sessions.transcript import Transcript
from cellgate.wire.jupyter import MAX_INFO_BYTES, clean_kernel_info, parse_message, session_of, tag_is_true
from cellgate_kernel.message import MESSAGE_TYPES, Channel, MessageError, Status, Tag

__all__ = ["BACKGROUND_SECONDS", "Hearing"]

BACKGROUND_SECONDS = 60.0  # output of threads that outlive their cell is capped as a cell's is, anew each minute
_ESSENTIAL = frozenset({"error", "execute_result", "input_request"})
_NO_OUTPUT = frozenset(kind for kind in MESSAGE_TYPES if kind.endswith(("_reply", "_request")))


class Hearing:
    """One session's, over all its kernels. `asked` is what else the kernel was asked, `ignored` counts what was said in
    vain, by kind."""

    def __init__(
        self,
        log: Transcript,
        limits: SessionLimits,
        now: float,
        *,
        replied: Callable[[Cell], None],
        finished: Callable[[Cell], None],
    ) -> None:
        """`replied` is called when a cell's reply has been shown, `finished` when its idle has, too."""
        self.asked = Asked()
        self.ignored: Counter[str] = Counter()
        self._log = log
        self._replied = replied
        self._finished = finished
        self._background: OutputCap[Record] = OutputCap(cap_limits(limits))  # of what belongs to no running cell
        self._background_since = now
        self._is_named = False  # what the gateway says for the kernel bears its session
        self._has_said_starting = False

    @property
    def renews_at(self) -> float | None:
        """When output of the background that is cut now passes again."""
        return self._background_since + BACKGROUND_SECONDS if self._background.is_cutting else None

    def tick(self, limits: SessionLimits, now: float) -> None:
        """Do what is due."""
        if (renewal := self.renews_at) is not None and now >= renewal:
            self._renew_background(limits)
            self._background_since = now

    def forget_kernel(self, limits: SessionLimits) -> None:
        """Another is heard from now on."""
        self.asked = Asked()
        self._is_named = self._has_said_starting = False
        self._renew_background(limits)

    def hear(self, number: int, tag: Tag, v1: memoryview, cell: Cell | None) -> None:
        """One message, while this cell runs. Raises MessageError for what is none."""
        try:
            is_true = tag_is_true(tag, v1)
        except MessageError:
            self.ignored["no_message"] += 1
            raise
        if not is_true:
            self.ignored["lying_tag"] += 1
            return
        if not self._is_named:
            self._log.speak_as(session_of(v1))
            self._is_named = True
        if tag.channel is Channel.IOPUB:
            if tag.message_type == "status":
                self._hear_status(number, tag, v1, cell)
            else:
                self._hear_output(number, tag, v1, cell)
        elif tag.channel is Channel.STDIN:
            self._hear_question(number, tag, v1, cell)
        else:
            self._hear_reply(number, tag, v1, cell)

    def _hear_output(self, number: int, tag: Tag, v1: memoryview, cell: Cell | None) -> None:
        if tag.message_type in _NO_OUTPUT:
            self.ignored["stray_reply"] += 1
        elif self.asked.is_ours(tag.parent_id):
            self.ignored["output_of_question"] += 1
        elif cell is None or tag.parent_id != cell.id:
            # Of a thread that outlived its cell, of a comm, or of nobody known: shown as it is. Clients know theirs.
            self._pass(self._background, Record(Kind.OUTPUT, 0, number, b"", tag, v1), None)
        elif tag.message_type == "execute_input" and not cell.is_named:
            cell.is_named = True
            self._log.record(Record(Kind.OUTPUT, cell.key, number, b"", tag, v1))
        else:
            self._pass(cell.cap, Record(Kind.OUTPUT, cell.key, number, b"", tag, v1), cell)

    def _hear_question(self, number: int, tag: Tag, v1: memoryview, cell: Cell | None) -> None:
        if cell is None or tag.parent_id != cell.id or tag.message_type != "input_request":
            self.ignored["stray_question"] += 1
            return
        cell.asks = True
        self._pass(cell.cap, Record(Kind.OUTPUT, cell.key, number, cell.client, tag, v1), cell)

    def _pass(self, cap: OutputCap[Record], record: Record, cell: Cell | None) -> None:
        """Show what the cap lets through."""
        size = len(record.body)
        if cap.is_cutting:
            record = record._replace(body=bytes(record.body))  # it may be held, and not the whole read with it
        for item in cap.take(record, size, essential=record.tag.message_type in _ESSENTIAL):
            self._log.show(item, cell)

    def _hear_status(self, number: int, tag: Tag, v1: memoryview, cell: Cell | None) -> None:
        """Busy and idle, once for each request. That it died or restarts is not the kernel's to say."""
        is_ours = self.asked.is_ours(tag.parent_id)
        if cell is not None and tag.parent_id == cell.id:
            record = Record(Kind.OUTPUT, cell.key, number, b"", tag, v1)
            if tag.status is Status.BUSY and not cell.is_busy and cell.phase is Phase.RUNNING:
                cell.is_busy = True
                self._log.record(record)
            elif tag.status is Status.IDLE and cell.phase is Phase.RUNNING:
                cell.move(CellMove.IDLE)
            elif tag.status is Status.IDLE and cell.phase is Phase.REPLIED:
                cell.move(CellMove.IDLE)
                self._end(cell, record)
            else:
                self.ignored["status_twice"] += 1
        elif (is_new := self.asked.take_status(tag)) is not None:
            if is_new and is_ours:
                return
            if is_new:
                self._log.record(Record(Kind.OUTPUT, 0, number, b"", tag, v1))
            else:
                self.ignored["status_twice"] += 1
        elif tag.status is Status.STARTING and not tag.parent_id and not self._has_said_starting:
            self._has_said_starting = True
            self._log.record(Record(Kind.OUTPUT, 0, number, b"", tag, v1))
        else:
            self.ignored["stray_status"] += 1

    def _hear_reply(self, number: int, tag: Tag, v1: memoryview, cell: Cell | None) -> None:
        if cell is not None and tag.parent_id == cell.id:
            is_its_own = tag.message_type == "execute_reply" and tag.channel is cell.message.channel
            if is_its_own and cell.phase in (Phase.RUNNING, Phase.QUIET):
                self._end_passed(tag.channel, cell.sent_number)
                self._take_reply(cell, Record(Kind.OUTPUT, cell.key, number, cell.client, tag, v1))
            else:
                self.ignored["reply_twice"] += 1
            return
        question = self.asked.take_reply(tag)
        if question is None:
            self.ignored["stray_reply"] += 1
            return
        if question.client == OURS:
            self._end_passed(tag.channel, question.number)
            self._log.do(Answered(question.message.msg_id, bytes(v1)))
        elif question.message.msg_type != "kernel_info_request":  # which a kernel's host may answer for it, out of turn
            self._end_passed(tag.channel, question.number)
            self._log.record(Record(Kind.OUTPUT, 0, number, question.client, tag, v1))
        else:
            try:
                said = parse_message(v1)["content"] if len(v1) <= MAX_INFO_BYTES else {}
            except MessageError:
                said = {}
            self._log.reply_as_kernel(question.client, question.message, clean_kernel_info(said), number)

    def _end_passed(self, channel: Channel, number: int) -> None:
        """Answer what the kernel has passed over without an answer, now that it replies to what came behind."""
        for question in self.asked.take_passed(channel, number):
            self._log.end_question(question, CellReason.CANCELLED, "the kernel did not answer it")

    def _take_reply(self, cell: Cell, reply: Record) -> None:
        cell.outcome = reply.tag.status
        cell.asks = False
        cell.said = summary_of(reply)
        cell.move(CellMove.REPLY)
        self._log.show_held(cell.cap, cell)
        self._log.record(reply)
        self._replied(cell)
        if cell.phase is Phase.DONE:  # its idle had come first
            self._end(cell, None)

    def _end(self, cell: Cell, idle: Record | None) -> None:
        self._log.show_held(cell.cap, cell)  # what came between the two
        if idle is not None:
            self._log.record(idle)
        else:
            self._log.idle(cell)
        self._finished(cell)

    def _renew_background(self, limits: SessionLimits) -> None:
        self._log.show_held(self._background, None)
        self._background = OutputCap(cap_limits(limits))
