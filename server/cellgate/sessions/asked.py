"""What else the kernel was asked, beside cells: whom its answers are for, and which of them were shown.

Each request gets one reply, and one busy and idle; a kernel that says more of them, or answers what nobody asked, is
not listened to.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cellgate.wire.jupyter import ClientMessage
from cellgate_kernel.message import Channel, Status, Tag

__all__ = ["MAX_ASKED", "Asked", "Question"]

MAX_ASKED = 1024  # requests without an answer; as many as a kernel host queues
MAX_TOLD = 1024  # messages without an answer whose busy and idle are still shown: widgets wait for them
_FLAGS = {Status.BUSY: 1, Status.IDLE: 2}
_REPLY = 4


@dataclass
class Question:
    """One message that the kernel was given."""

    client: bytes
    channel: Channel
    reply_type: str  # "" for a message that has no answer
    message: ClientMessage | None  # of a kernel_info_request: its answer is not passed on as it is
    seen: int = 0


class Asked:
    """Of one kernel."""

    def __init__(self) -> None:
        self._open: dict[bytes, Question] = {}
        self._told: OrderedDict[bytes, Question] = OrderedDict()

    def __len__(self) -> int:
        """How many wait for an answer."""
        return len(self._open)

    def add(self, client: bytes, message: ClientMessage) -> None:
        """This was given to the kernel."""
        kind, message_id = message.msg_type, message.msg_id.encode()
        if kind.endswith("_request"):
            reply_type = kind.removesuffix("_request") + "_reply"
            kept = message if kind == "kernel_info_request" else None
            self._open[message_id] = Question(client, message.channel, reply_type, kept)
            return
        self._told[message_id] = Question(client, message.channel, "", None)
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)

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
            or question.seen & _REPLY
            or tag.channel is not question.channel
            or tag.message_type not in (question.reply_type, "")  # types that are not in the protocol's list have none
        ):
            return None
        self._see(tag.parent_id, question, _REPLY)
        return question

    def _see(self, message_id: bytes, question: Question, flag: int) -> None:
        question.seen |= flag
        if not question.seen & _FLAGS[Status.IDLE]:
            return
        if not question.reply_type:
            self._told.pop(message_id, None)
        elif question.seen & _REPLY:
            del self._open[message_id]
