"""What the gateway itself asks of a session's kernel: what names it has, what is in its files, how a name goes on.

Nobody else hears of it, no journal keeps it, and whoever asked waits here until there is an answer or it is known that
there will be none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from cellgate.errors import NotAnswered
from cellgate.sessions.effects import Answered
from cellgate.sessions.states import CellReason
from cellgate.wire.jupyter import ClientMessage
from cellgate.wire.strict import load_plainly
from cellgate_kernel.message import MessageError, split_v1

__all__ = ["Answer", "Questions"]

MAX_READ_BYTES = 512 << 10  # of an answer's JSON, beside its buffers: what is parsed while all sessions wait


class Answer(NamedTuple):
    content: dict[str, Any]
    buffers: tuple[bytes, ...]
    metadata: dict[str, Any]


class Questions:
    """Those that wait, of one session."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Answered]] = {}

    async def put(self, question: ClientMessage, ask: Callable[[], None]) -> Answer:
        """`ask` puts it to the session. Raises NotAnswered."""
        waiting = self._waiting[question.msg_id] = asyncio.get_running_loop().create_future()
        try:
            ask()
            return _read(await waiting)
        finally:
            del self._waiting[question.msg_id]

    def answered(self, effect: Answered) -> None:
        waiting = self._waiting.get(effect.msg_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(effect)

    def give_up(self, reason: str, sentence: str) -> None:
        """None of them will be answered."""
        for msg_id in self._waiting:
            self.answered(Answered(msg_id, None, reason, sentence))


def _read(effect: Answered) -> Answer:
    if effect.body is None:
        raise NotAnswered(effect.reason, effect.sentence, effect.facts)
    try:
        _, _, metadata, content, *buffers = split_v1(memoryview(effect.body))[1]
        if len(metadata) + len(content) > MAX_READ_BYTES:
            sentence = f"its answer has {len(content)} bytes; up to {MAX_READ_BYTES} are read"
            raise NotAnswered(CellReason.PROTOCOL_VIOLATION.value, sentence)
        return Answer(load_plainly(content), tuple(map(bytes, buffers)), load_plainly(metadata))
    except MessageError as error:
        raise NotAnswered(CellReason.PROTOCOL_VIOLATION.value, str(error)) from error
