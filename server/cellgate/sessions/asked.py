"""What else the kernel was asked, beside cells: whom its answers are for, and which of them were shown.

Each request gets one reply, and one busy and idle; a kernel that says more of them, or answers what nobody asked, is
not listened to.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cellgate.wire.jupyter import ClientMessage
from cellgate_kernel.message import Channel, Status, Tag

__all__ = ["MAX_ASKED", "OURS", "Asked", "Question"]

OURS = b"\x00cellgate"  # asks what the gateway itself wants to know; no client has such a name

MAX_ASKED = 1024  # requests without an answer; as many as a kernel host queues
MAX_TOLD = 1024  # messages without an answer whose busy and idle are still shown: widgets wait for them
_FLAGS = {Status.BUSY: 1, Status.IDLE: 2}
_REPLY = 4


@dataclass
class Question:
    """One message that the kernel was given."""

    client: bytes
    message: ClientMessage  # its envelope
    number: int  # of the link's message that took it there
    seen: int = 0

    @property
    def reply_type(self) -> str:
        """ "" for a message that has no answer."""
        kind = self.message.msg_type
        return kind.removesuffix("_request") + "_reply" if kind.endswith("_request") else ""

    @property
    def has_reply(self) -> bool:
        return bool(self.seen & _REPLY)

    @property
    def has_busy(self) -> bool:
        return bool(self.seen & _FLAGS[Status.BUSY])

    @property
    def has_idle(self) -> bool:
        return bool(self.seen & _FLAGS[Status.IDLE])


class Asked:
    """Of one kernel."""

    def __init__(self) -> None:
        self._open: dict[bytes, Question] = {}
        self._told: OrderedDict[bytes, Question] = OrderedDict()

    def __len__(self) -> int:
        """How many wait for an answer."""
        return len(self._open)

    def add(self, client: bytes, message: ClientMessage, number: int) -> None:
        """This was given to the kernel, as message `number` of its link."""
        question, message_id = Question(client, message.envelope(), number), message.msg_id.encode()
        if question.reply_type:
            self._open[message_id] = question
            return
        self._told[message_id] = question
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)

    def is_ours(self, message_id: bytes) -> bool:
        """Whether the gateway asked this itself."""
        question = self._open.get(message_id)
        return question is not None and question.client == OURS

    def take_status(self, tag: Tag) -> bool | None:
        """Whether to show a status: not a second time. None if it belongs to nothing here."""
        question = self._open.get(tag.parent_id) or self._told.get(tag.parent_id)
        if question is None:
            return None
        flag = _FLAGS.get(tag.status, 0)
        if not flag or question.seen & flag:
            return False
        self._see(tag.parent_id, question, flag)
        return True

    def take_reply(self, tag: Tag) -> Question | None:
        """What this is the answer to; None if it is to be ignored."""
        question = self._open.get(tag.parent_id)
        if (
            question is None
            or question.has_reply
            or tag.channel is not question.message.channel
            or tag.message_type not in (question.reply_type, "")  # types that are not in the protocol's list have none
        ):
            return None
        self._see(tag.parent_id, question, _REPLY)
        return question

    def take_passed(self, channel: Channel, number: int) -> list[Question]:
        """Those that will not be answered, now that the message with this number was: a kernel answers in order what
        comes on one channel, and many say busy and idle, and no more, to what they do not understand."""
        passed = [
            question
            for question in self._open.values()
            if question.number < number and question.message.channel is channel and question.has_idle
        ]
        for question in passed:
            del self._open[question.message.msg_id.encode()]
        return passed

    def take_open(self) -> list[Question]:
        """Those that the kernel will answer no more, or not to the end."""
        questions = list(self._open.values())
        self._open.clear()
        return questions

    def drop(self, kind: str) -> None:
        """Clients' questions of this type will not be answered: what else ends says enough."""
        for message_id, question in tuple(self._open.items()):
            if question.message.msg_type == kind and question.client != OURS:
                del self._open[message_id]

    def _see(self, message_id: bytes, question: Question, flag: int) -> None:
        question.seen |= flag
        if not question.has_idle:
            return
        if not question.reply_type:
            self._told.pop(message_id, None)
        elif question.has_reply:
            del self._open[message_id]
