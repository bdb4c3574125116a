"""Writes down what is said in a session, and what is to be done, in one order: the session's pen.

Records become the Appends between the other effects. What the gateway itself has to say is composed here, so that a
client finds everything complete that its kernel did not say. Decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cellgate.sessions.asked import OURS, Question
from cellgate.sessions.cells import Cell
from cellgate.sessions.effects import Answered, Append, Effect
from cellgate.sessions.news import Accepted, Finished, News, Refused
from cellgate.sessions.output_cap import OutputCap, Truncated
from cellgate.sessions.records import Kind, Record
from cellgate.sessions.states import CellReason, State
from cellgate.wire.jupyter import ClientMessage, Composer, Ending, Said
from cellgate_kernel.message import Channel

__all__ = ["Transcript"]


class Transcript:
    """`next_seq` is the number that the journal gives the next record: it and this count alike."""

    def __init__(self, composer: Composer, date: Callable[[], str], next_seq: int) -> None:
        self.next_seq = next_seq
        self.now = 0.0  # of the call that speaks
        self.covered = 0  # the highest number of the kernel's messages that the journal knows
        self._composer = composer
        self._date = date
        self._effects: list[Effect] = []
        self._records: list[Record] | None = None  # of the Append at the end of the effects
        self._news: list[News] = []

    def speak_as(self, session: str) -> None:
        """In the place of the kernel that names itself so."""
        self._composer.session = session or self._composer.session

    # -- in order -------------------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        self.next_seq += 1
        self.covered = max(self.covered, record.link)
        if self._records is None:
            self._records = [record]
            self._effects.append(Append(self._records))
        else:
            self._records.append(record)

    def do(self, effect: Effect) -> None:
        self._records = None
        self._effects.append(effect)

    def done(self) -> list[Effect]:
        """All since the last time."""
        effects, self._effects, self._records = self._effects, [], None
        return effects

    def take_news(self) -> list[News]:
        """All since the last time."""
        news, self._news = self._news, []
        return news

    # -- of cells -------------------------------------------------------------------------------------

    def accept(self, cell: Cell) -> None:
        """To be called with the cell's key being `next_seq`."""
        self.record(Record(Kind.REQUEST, cell.key, 0, cell.client, cell.message.tag, cell.message.v1))
        self._news.append(Accepted(cell.key, cell.message.content["code"]))

    def progress(self, cell: Cell | None, received: int) -> None:
        """How far the link has come, and the cell."""
        key, body = (cell.key, cell.progress()) if cell is not None else (0, b"")
        self.record(Record(Kind.CUT, key, received, body=body))

    def show_held(self, cap: OutputCap[Record], cell: Cell | None) -> None:
        """What the cap kept back."""
        for item in cap.finish():
            self.show(item, cell)

    def show(self, item: Record | Truncated, cell: Cell | None) -> None:
        """What a cap let through."""
        if isinstance(item, Record):
            self.record(item)
            return
        facts = {
            "note": "output_truncated",
            "dropped_messages": item.messages,
            "dropped_bytes": item.bytes,
            "dropped_messages_in_all": item.messages_in_all,
            "dropped_bytes_in_all": item.bytes_in_all,
        }
        self.note(f"{item.messages} messages of output, {item.bytes} bytes, are left out here", facts, cell)

    def idle(self, cell: Cell) -> None:
        """In the kernel's place."""
        self._say(self._composer.status("idle", parent=cell.message, date=self._date()), b"", cell)

    def end(
        self,
        cell: Cell,
        reason: CellReason,
        sentence: str,
        facts: Mapping[str, object],
        traceback: Sequence[str] = (),
    ) -> None:
        """All that a cell is owed which the kernel has not replied to."""
        if not cell.is_busy:  # it was not given to the kernel, or that died before it said so
            self._say(self._composer.status("busy", parent=cell.message, date=self._date()), b"", cell)
        ending = Ending(reason.value, sentence, facts, traceback)
        for said in self._composer.end(cell.message, ending, date=self._date()):
            self._say(said, b"" if said.tag.channel is Channel.IOPUB else cell.client, cell)
        self.terminal(cell, reason, sentence, facts)

    def terminal(self, cell: Cell, reason: CellReason, sentence: str = "", facts: Mapping[str, object] = {}) -> None:
        body: dict[str, object] = {"reason": reason.value, "sentence": sentence, "date": self._date()}
        body |= {"facts": facts, **cell.account(self.now)}
        self.record(Record(Kind.TERMINAL, cell.key, 0, cell.client, cell.message.tag, _dump(body)))
        self._news.append(Finished(cell.key, reason, cell.sent_at if cell.sent_number else None, *cell.cap.seen))

    def terminal_of_damaged(self, request: Record) -> None:
        """For a cell whose request cannot be read any more: nobody can be answered, but it shall not stay open."""
        body = {"reason": CellReason.BACKEND_ERROR.value, "sentence": "the record of its request is damaged"}
        self.record(Record(Kind.TERMINAL, request.seq, 0, request.client, body=_dump(body)))

    # -- of requests that the gateway answers ---------------------------------------------------------

    def answer(self, client: bytes, message: ClientMessage, content: Mapping[str, Any]) -> None:
        for said in self._composer.reply(message, content, date=self._date()):
            self._say(said, client)

    def refuse(
        self,
        client: bytes,
        message: ClientMessage,
        reason: CellReason,
        sentence: str,
        facts: Mapping[str, object] = {},
    ) -> None:
        """Answer in full what was not accepted."""
        if client == OURS:
            self.do(Answered(message.msg_id, None, reason.value, sentence, facts))
            return
        self._say(self._composer.status("busy", parent=message, date=self._date()), client)
        for said in self._composer.end(message, Ending(reason.value, sentence, facts), date=self._date()):
            self._say(said, client)
        if message.msg_type == "execute_request":
            self._news.append(Refused(reason, message.content["code"]))

    def end_question(self, question: Question, reason: CellReason, sentence: str) -> None:
        """What the kernel has not said of a request that it was given."""
        client, message = question.client, question.message
        if client == OURS:
            self.do(Answered(message.msg_id, None, reason.value, sentence))
            return
        if not question.has_busy:
            self._say(self._composer.status("busy", parent=message, date=self._date()), b"")
        for said in self._composer.end(message, Ending(reason.value, sentence), date=self._date()):
            is_for_all = said.tag.channel is Channel.IOPUB
            if not (question.has_idle if is_for_all else question.has_reply):
                self._say(said, b"" if is_for_all else client)

    def reply_as_kernel(self, client: bytes, message: ClientMessage, content: Mapping[str, Any], link: int) -> None:
        """The kernel's answer in other words."""
        kind = message.msg_type.removesuffix("_request") + "_reply"
        said = self._composer.say(message.channel, kind, content, parent=message, date=self._date())
        self.record(Record(Kind.OUTPUT, 0, link, client, said.tag, said.v1))

    # -- of the session -------------------------------------------------------------------------------

    def incarnation(self, number: int, state: State, why: str, reason: str) -> None:
        """A kernel begins; numbers of its link do, too."""
        body = {"incarnation": number, "state": state.value, "sentence": why, "reason": reason, "date": self._date()}
        self.record(Record(Kind.INCARNATION, body=_dump(body)))
        self.covered = 0

    def state(self, state: str, facts: Mapping[str, object]) -> None:
        """What Jupyter clients know a kernel's end by."""
        said = self._composer.say(
            Channel.IOPUB,
            "status",
            {"execution_state": state},
            parent=None,
            date=self._date(),
            metadata={"cellgate": dict(facts)},
        )
        self.record(Record(Kind.NOTE, 0, 0, b"", said.tag, said.v1))

    def note(self, text: str, facts: Mapping[str, object], cell: Cell | None = None) -> None:
        said = self._composer.note(text, parent=cell.message if cell else None, date=self._date(), facts=facts)
        self.record(Record(Kind.NOTE, cell.key if cell else 0, 0, b"", said.tag, said.v1))

    def _say(self, said: Said, client: bytes, cell: Cell | None = None) -> None:
        self.record(Record(Kind.OUTPUT, cell.key if cell else 0, 0, client, said.tag, said.v1))


_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: each `dumps` with separators makes another


def _dump(value: Mapping[str, object]) -> bytes:
    return _encode(value).encode()
