"""An agent's websocket, `/v1/sessions/<id>/ws`: what it asks, and the events of a session from any number on.

What may be asked is in `wire.agent`, which events there are in `sessions.agents`; a cell's fate is decided in
`sessions`. Here is who connects as whom, and what is answered at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from tornado.web import HTTPError

from cellgate.access.scopes import Scope
from cellgate.errors import NoSubprotocol, UsageError
from cellgate.gateway import base
from cellgate.gateway.auth import Refusal
from cellgate.gateway.sockets import MAX_CLIENT_BYTES, SessionSocket
from cellgate.gateway.websocket import WebSocket
from cellgate.live.audience import WATCHER
from cellgate.live.reader import Reader
from cellgate.live.session import date_now
from cellgate.live.voices import AgentVoice
from cellgate.sessions.agents import answer_of, message_of, question_of
from cellgate.wire.agent import (
    CLOSED_FOR,
    PROTOCOL,
    Ack,
    Cancel,
    Comm,
    Complete,
    Execute,
    Form,
    Input,
    Inspect,
    Interrupt,
    IsComplete,
    MessageError,
    Refused,
    Request,
    Restart,
    Touch,
    Variables,
    choose_form,
    read_request,
    reply_to,
)

__all__ = ["FUTURE_CURSOR", "AgentsHandler"]

FUTURE_CURSOR = 4009  # closes a connection that begins behind the journal's end
MAX_CLIENT_CHARS = 100  # of a name that people read
MAX_ANSWERS = 64  # that one connection may wait for, before it is read no further
ROLES = ("driver", "observer")

Work = Callable[[], Awaitable[Mapping[str, Any] | None]]  # what is told of it beside that it was done


class AgentsHandler(SessionSocket):
    is_shared = True
    _form: Form
    _client: str
    _role: str
    _since: int | None

    async def get(self, session_id: str) -> None:
        self._live = self.manager.find(self.principal, session_id)
        if not self.asked().is_websocket:
            raise HTTPError(400)
        self._client = _client_of(self.get_query_argument("client", ""))
        self._since = _since_of(self.get_query_argument("since", ""))
        self._role = self._role_of(self.get_query_argument("role", ""))
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        form = choose_form(name.strip() for name in offered)
        if form is None:
            raise NoSubprotocol(tuple(form.value for form in Form))
        self._form = form
        self._answers: set[asyncio.Task[None]] = set()
        await WebSocket.get(self, session_id)

    def _role_of(self, asked: str) -> str:
        if asked and asked not in ROLES:
            raise UsageError(f"role is {asked[:40]!r}; {' or '.join(ROLES)} would pass")
        if asked == "driver" and not self._may_drive:
            raise base.Refused(Refusal("missing_scope"))
        return asked or ("driver" if self._may_drive else "observer")

    @property
    def _may_drive(self) -> bool:
        return Scope.EXECUTE in self.caller.scopes

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return self._form.value

    def open(self, *_: str) -> None:
        end = self._live.journal.next_seq - 1
        if self._since is not None and self._since > end:
            self.shut(FUTURE_CURSOR, f"future_cursor: this session has come to {end}; up to that would pass")
            return
        super().open()

    def join(self) -> Reader:
        client = self._client.encode() if self._may_drive else WATCHER + self._client.encode()
        return self._live.attach(client, self, AgentVoice(client, self._form), since=self._since)

    def joined(self, reader: Reader) -> None:
        core = self._live.session
        reader.tell(
            {
                "event": "attached",
                "protocol": PROTOCOL,
                "session": self._live.id,
                "client": self._client,
                "role": self._role,
                "state": core.state.value,
                "incarnation": core.incarnation,
                "kernel": self._live.kernel_name,
                "end": self._live.journal.next_seq - 1,
                "since": reader.position - 1,
                "pending": [
                    {
                        "cell": cell.message.msg_id,
                        "client": cell.client.decode("utf-8", "replace"),
                        "phase": cell.phase.value,
                    }
                    for cell in core.pending
                ],
                "limits": core.limits.to_mapping(),
            }
        )

    # -- from the client -----------------------------------------------------------------------------

    def hear(self, reader: Reader, data: bytes | str) -> None:
        try:
            request = read_request(data, self._form, max_bytes=self.max_message_size)
            if self._role == "observer" and not isinstance(request, Ack):
                raise Refused("observer", "an observer may send ack; connect with role=driver for the rest", request.id)
            self._carry_out(request, reader)
        except Refused as refused:
            reader.tell(refused.to_event())
        except MessageError as error:
            self.shut(CLOSED_FOR[error.code][0], str(error))

    def _carry_out(self, request: Request, reader: Reader) -> None:
        """Raises Refused."""
        live = self._live
        match request:
            case Ack(seq=seq):
                if not reader.confirm(seq):
                    sent = reader.position - 1
                    raise Refused("future_cursor", f"up to {sent} was sent; that would pass", request.id, sent=sent)
            case Input(cell=cell) if not live.session.is_asking(cell):
                raise Refused("input_unasked", "this cell asks for no input; one that does would pass", request.id)
            case Execute() | Input() | Comm():
                live.heard(reader, message_of(request, date=date_now(), max_bytes=self.max_message_size))
            case Touch():
                live.touch()
                reader.tell(reply_to(request.id))
            case Cancel(cell=cell):
                if (was := live.cancel(cell)) is None:
                    raise Refused("unknown_cell", "no such cell is known; one that was accepted would pass", request.id)
                reader.tell(reply_to(request.id, was=was))
            case Interrupt():
                self._answer_with(live.interrupt, request.id, reader)
            case Restart():
                self._answer_with(live.restart, request.id, reader)
            case Complete() | Inspect() | IsComplete() | Variables():
                self._answer_with(partial(self._kernel_says, request), request.id, reader)

    async def _kernel_says(self, request: Complete | Inspect | IsComplete | Variables) -> Mapping[str, Any]:
        kind, content = question_of(request)
        answer = await self._live.ask(kind, content, is_clients=True)
        return answer_of(request, answer.content)

    # -- answers that must wait ----------------------------------------------------------------------

    def _answer_with(self, work: Work, re: str, reader: Reader) -> None:
        """While others are answered. Nothing is heard until the work has begun: what comes behind it shall find it
        done, as far as that is done at once."""
        task = asyncio.ensure_future(self._answer(work, re, reader))
        self._answers.add(task)
        task.add_done_callback(self._answered)
        self.hold("begins")
        if len(self._answers) >= MAX_ANSWERS:
            self.hold("answers")

    async def _answer(self, work: Work, re: str, reader: Reader) -> None:
        self.release("begins")
        try:
            reader.tell(reply_to(re, **(await work() or {})))
        except Refused as refused:
            reader.tell(refused.to_event())
        except Exception as error:  # a fault of ours too is an answer
            problem = self.problem_of(error).to_json()
            del problem["reason"]  # of HTTP
            reader.tell({"event": "error", "re": re, **problem})

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answers.discard(task)
        self.release("answers")

    def ended(self, code: int | None, reason: str) -> None:
        for task in self._answers:
            task.cancel()
        super().ended(code, reason)


def _client_of(name: str) -> str:
    """Somebody new, without one. Raises UsageError."""
    if not name:
        return uuid4().hex
    if len(name) > MAX_CLIENT_CHARS or len(name.encode()) > MAX_CLIENT_BYTES or not name.isprintable():
        raise UsageError(f"client is {name[:40]!r}; up to {MAX_CLIENT_CHARS} characters that can be shown would pass")
    return name


def _since_of(text: str) -> int | None:
    """Raises UsageError."""
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise UsageError(f"since is {text[:40]!r}; the number of an event, or 0 for all that is kept, would pass")
    return int(text)
