"""An agent's websocket, `/v1/sessions/<id>/ws`: what it asks, and the events of a session from any number on.

What may be asked is in `wire.agent`, which events there are in `sessions.agents`; a cell's fate is decided in
`sessions`. Here is who connects as whom, and what is answered at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast
from uuid import uuid4

from tornado.web import HTTPError

from cellgate.access.scopes import Scope
from cellgate.errors import CellgateError, NoSubprotocol, TooManyClients, UsageError
from cellgate.gateway import base
from cellgate.gateway.auth import Refusal
from cellgate.gateway.channels import TRY_AGAIN_LATER
from cellgate.gateway.sockets import SessionSocket
from cellgate.gateway.websocket import WebSocket
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
MAX_CLIENT_BYTES = 255  # it stands in the records of what it asked
MAX_ANSWERS = 64  # that one connection may wait for, before it is read no further
ROLES = ("driver", "observer")

R = TypeVar("R", bound=Request)


class AgentsHandler(SessionSocket):
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
        may_drive = Scope.EXECUTE in self.caller.scopes
        if asked == "driver" and not may_drive:
            raise base.Refused(Refusal("missing_scope"))
        return asked or ("driver" if may_drive else "observer")

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return self._form.value

    def open(self, *_: str) -> None:
        end = self._live.journal.next_seq - 1
        if self._since is not None and self._since > end:
            self.shut(FUTURE_CURSOR, f"future_cursor: this session has come to {end}; up to that would pass")
            return
        voice = AgentVoice(self._client.encode(), self._form)
        try:
            self._reader = self._live.attach(self._client.encode(), self, voice, since=self._since)
        except TooManyClients as error:
            self.shut(TRY_AGAIN_LATER, f"{error.code}: {error}")
            return
        self._tell(self._attached(end))
        self._reader.catch_up()

    def _attached(self, end: int) -> dict[str, Any]:
        core = self._live.session
        assert self._reader is not None
        return {
            "event": "attached",
            "protocol": PROTOCOL,
            "session": self._live.id,
            "client": self._client,
            "role": self._role,
            "state": core.state.value,
            "incarnation": core.incarnation,
            "kernel": self._live.kernel_name,
            "end": end,
            "since": self._reader.position - 1,
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

    # -- from the client -----------------------------------------------------------------------------

    def heard(self, data: bytes | str) -> None:
        if self._reader is None or self._reader.is_over:
            return
        try:
            request = read_request(data, self._form, max_bytes=self.max_message_size)
            if self._role == "observer" and not isinstance(request, Ack):
                raise Refused("observer", "an observer may send ack; connect with role=driver for the rest", request.id)
            _HEARD[type(request)](self, request)
        except Refused as refused:
            self._tell(refused.to_event())
        except MessageError as error:
            self.shut(CLOSED_FOR[error.code][0], str(error))
        self.give_way()

    def _pass_on(self, request: Execute | Input | Comm) -> None:
        assert self._reader is not None
        if isinstance(request, Input) and not self._live.session.is_asking(request.cell):
            raise Refused("input_unasked", "this cell asks for no input; one that does would pass", request.id)
        message = message_of(request, date=date_now(), max_bytes=self.max_message_size)
        self._live.heard(self._reader, message)

    def _acknowledge(self, request: Ack) -> None:
        assert self._reader is not None
        if not self._reader.confirm(request.seq):
            sent = self._reader.position - 1
            raise Refused("future_cursor", f"up to {sent} was sent to you; that would pass", request.id, sent=sent)

    def _interrupt(self, request: Interrupt) -> None:
        self._answer_with(request, self._live.interrupt())

    def _cancel(self, request: Cancel) -> None:
        was = self._live.cancel(request.cell)
        if was is None:
            raise Refused(
                "unknown_cell", "no cell of this id is known here; one that was accepted would pass", request.id
            )
        self._reply(request, was=was)

    def _restart(self, request: Restart) -> None:
        self._answer_with(request, self._live.restart())

    def _ask(self, request: Complete | Inspect | IsComplete | Variables) -> None:
        self._answer_with(request, self._kernel_says(request))

    async def _kernel_says(self, request: Complete | Inspect | IsComplete | Variables) -> Mapping[str, Any]:
        kind, content = question_of(request)
        answer = await self._live.ask(kind, content, is_clients=True)
        return answer_of(request, answer.content)

    def _touch(self, request: Touch) -> None:
        self._live.touch()
        self._reply(request)

    # -- to the client -------------------------------------------------------------------------------

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._reader is not None:
            self._reader.tell(event)

    def _reply(self, request: Request, **more: Any) -> None:
        self._tell(reply_to(request.id, **more))

    def _answer_with(self, request: Request, work: Awaitable[Mapping[str, Any] | None]) -> None:
        """With what comes of it, while others are answered."""
        task = asyncio.ensure_future(self._answer(request, work))
        self._answers.add(task)
        task.add_done_callback(self._answered)
        if len(self._answers) >= MAX_ANSWERS:
            self.pause()

    async def _answer(self, request: Request, work: Awaitable[Mapping[str, Any] | None]) -> None:
        try:
            self._reply(request, **(await work or {}))
        except Refused as refused:
            self._tell(refused.to_event())
        except CellgateError as error:
            problem = base.problem_of(error)
            facts = error.facts() if base.ANSWERS.get(error.code, (0, ""))[1] is None else {}
            self._tell(Refused(problem.code, problem.message, request.id, **facts).to_event())

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answers.discard(task)
        if len(self._answers) == MAX_ANSWERS - 1:
            self.resume()

    def ended(self, code: int | None, reason: str) -> None:
        for task in self._answers:
            task.cancel()
        super().ended(code, reason)


_HEARD = cast(
    "Mapping[type[Request], Callable[[AgentsHandler, Request], None]]",
    {
        Execute: AgentsHandler._pass_on,
        Input: AgentsHandler._pass_on,
        Comm: AgentsHandler._pass_on,
        Ack: AgentsHandler._acknowledge,
        Interrupt: AgentsHandler._interrupt,
        Cancel: AgentsHandler._cancel,
        Restart: AgentsHandler._restart,
        Touch: AgentsHandler._touch,
        **dict.fromkeys((Complete, Inspect, IsComplete, Variables), AgentsHandler._ask),
    },
)


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
