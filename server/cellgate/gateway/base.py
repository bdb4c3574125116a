"""What all answers over HTTP have in common: nobody is heard before it is known who asks, an error has one shape and
a stable code, faults of ours show no detail, and no page of another origin can use an answer that was not meant for it.

    request ──▶ prepare: Guard.admit, scope ──▶ body (RestHandler) ──▶ the handler's method ──▶ answer
                   │ refused                        │ too large            │ CellgateError
                   └─────────────────────────┴──────────────────────┴──▶ {"code", "message", "fault", "facts", "reason"}

What a request may do is decided by `auth`; what it does, by the handlers.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, RequestHandler, stream_request_body

from cellgate.access.scopes import Scope
from cellgate.errors import CellgateError, Fault
from cellgate.gateway.auth import REFUSALS, Asked, Guard, Principal, Refusal, Way
from cellgate.gateway.bodies import TooLarge, read_object
from cellgate.live import trail
from cellgate.terminal import one_line

if TYPE_CHECKING:
    from cellgate.gateway.assets import Assets
    from cellgate.gateway.kernelspecs import Logos
    from cellgate.gateway.mcp import Calls
    from cellgate.gateway.notebooks import Notebooks
    from cellgate.gateway.status import Readiness
    from cellgate.gateway.visitors import Visitors
    from cellgate.live.manager import Manager
    from cellgate.metrics.meters import Meters
    from cellgate.metrics.traces import Traces
    from cellgate.settings import Settings

__all__ = [
    "ANSWERS",
    "CODES",
    "MAX_BODY_BYTES",
    "PLAIN",
    "Handler",
    "Nowhere",
    "Problem",
    "Refused",
    "RestHandler",
    "Services",
    "log_request",
    "plain_facts",
    "problem_of",
    "timestamp",
]

log = logging.getLogger("cellgate.gateway")
access_log = logging.getLogger("cellgate.access")

MAX_BODY_BYTES = 64 << 10  # a request names a kernel, some limits and variables
MAX_DRAINED_BYTES = 32 << 20  # of a longer body are read, so that its sender hears why it is refused
RETRY_SECONDS = 5  # until what failed for now may pass, when nobody knows better
MAX_PATH_CHARS = 200  # of a line in the log
MAX_FACT_CHARS = 200  # of what somebody sent, in the error that refuses it
MAX_FACT_ITEMS = 100  # names of what there is: kernels, rules
MAX_FACT_NUMBER = 1 << 53  # what every reader of JSON can hold

_OURS = "something failed here that is no fault of yours; the server's log says more under {error_id}"
_NO_KERNEL = "no kernel could be started, through no fault of yours; the server's log says why under {error_id}"

# Each error that a request may end with, by its code: the HTTP status, and what is said in place of the error's own
# text where that is for the log alone.
ANSWERS: dict[str, tuple[int, str | None]] = {
    "bad_json": (400, None),
    "bad_path": (400, None),
    "no_subprotocol": (400, None),
    "no_such_file": (404, None),
    "unknown_kernel": (404, None),
    "unknown_script": (404, None),
    "unknown_session": (404, None),
    "already_there": (409, None),
    "not_a_directory": (409, None),
    "not_a_file": (409, None),
    "not_empty": (409, None),
    "not_permitted": (409, None),
    "workspace_gone": (410, None),
    "file_too_large": (413, None),
    "too_large": (413, None),
    "bad_range": (416, None),
    "bad_archive": (422, None),
    "usage": (422, None),
    "bad_limit": (422, None),
    "policy_error": (422, None),
    "quota_used_up": (429, None),
    "too_many_clients": (429, None),
    "too_many_sessions": (429, None),
    "too_many_waiting": (429, None),
    "internal": (500, _OURS),
    "files_failed": (502, None),
    "driver_unavailable": (503, _NO_KERNEL),
    "draining": (503, None),
    "link_closed": (503, None),
    "not_answered": (503, None),
    "sandbox_gone": (503, None),
    "sandbox_start_failed": (503, _NO_KERNEL),
    "server_full": (503, None),
    "disk_full": (507, None),
    "storage_full": (507, "this server has no room to keep what a session says; new ones pass again when it has"),
}

# What HTTP itself may end with: code, and a sentence.
PLAIN: dict[int, tuple[str, str]] = {
    400: ("bad_request", "this is no request that makes sense; a path and a query in UTF-8 would pass"),
    404: ("not_found", "there is nothing here; /v1/openapi.json lists what there is"),
    405: ("method_not_allowed", "this method is not for this path; the header Allow names those that would pass"),
}

# Every code that an answer can have, with its status.
CODES: dict[str, int] = {
    **{code: status for status, (code, _) in PLAIN.items()},
    **{code: status for code, (status, _) in REFUSALS.items()},
    **{code: status for code, (status, _) in ANSWERS.items()},
}

_OF_SESSION = re.compile(r"/(?:v1/sessions|api/kernels)/([0-9a-f-]{36})(?:/|$)")  # a path that is about one

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # a URL may hold the token
    "Cache-Control": "no-store",
}


@dataclass
class Services:
    """What the handlers of one server share."""

    manager: Manager
    guard: Guard
    visitors: Visitors
    meters: Meters
    traces: Traces | None
    readiness: Readiness
    settings: Settings
    notebooks: Notebooks
    logos: Logos
    assets: Assets
    calls: Calls
    document: bytes  # what /v1/openapi.json answers
    scopes: Mapping[tuple[type[Handler], str], Scope | None]  # by handler and method: what one must have
    paths: Mapping[type[Handler], str]  # by handler: as the table of routes has it


class Refused(Exception):
    """A request that the guard does not let in."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(frozen=True)
class Problem:
    """An error as its answer tells it."""

    status: int
    code: str
    message: str
    retry_after: int | None = None
    fault: Fault = Fault.YOURS
    facts: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Jupyter's clients read `message` and `reason`; `code` is stable."""
        return {
            "code": self.code,
            "message": self.message,
            "fault": self.fault.value,
            "facts": dict(self.facts),
            "reason": HTTPStatus(self.status).phrase,
        }


def problem_of(error: BaseException | None, error_id: str = "") -> Problem:
    """The one place where an exception becomes an answer."""
    if isinstance(error, Refused):
        refusal = error.refusal
        return Problem(refusal.status, refusal.code, refusal.sentence, refusal.retry_after)
    if isinstance(error, HTTPError) and error.status_code in PLAIN:
        return Problem(error.status_code, *PLAIN[error.status_code])
    if not isinstance(error, CellgateError) or error.code not in ANSWERS:
        return Problem(500, "internal", _OURS.format(error_id=error_id), fault=Fault.OURS)
    status, instead = ANSWERS[error.code]
    retry_after = getattr(error, "retry_seconds", RETRY_SECONDS) if status in (429, 503) else None
    if instead is not None:  # its facts are for the log, too
        return Problem(status, error.code, instead.format(error_id=error_id), retry_after, error.fault)
    return Problem(status, error.code, one_line(error.text()), retry_after, error.fault, plain_facts(error))


def plain_facts(error: CellgateError) -> dict[str, object]:
    """What an error carries, as JSON and of bounded length. What stands in its text need not stand here again."""
    return {name: _plain(value) for name, value in error.facts().items() if name not in ("problem", "retry_seconds")}


def _plain(value: object) -> object:
    """A value that somebody may have sent, or one of ours."""
    if value is None or (isinstance(value, (int, float)) and abs(value) < MAX_FACT_NUMBER):
        return value
    if isinstance(value, tuple):  # of names
        return [one_line(str(item)[:MAX_FACT_CHARS]) for item in value[:MAX_FACT_ITEMS]]
    if (to_json := getattr(value, "to_json", None)) is not None:  # a certificate
        return to_json()
    return one_line((value if isinstance(value, str) else repr(value))[:MAX_FACT_CHARS])


def timestamp(moment: datetime) -> str:
    """As Jupyter writes it."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def log_request(handler: RequestHandler) -> None:
    """One line for each request: without its query, which may hold the token, and nothing that breaks a line."""
    request = handler.request
    status = handler.get_status()
    level = logging.WARNING if status >= 500 else logging.INFO
    path = one_line(request.path[:MAX_PATH_CHARS])
    milliseconds = 1000 * request.request_time()
    remote, method = request.remote_ip, request.method
    facts = {"remote": remote, "method": method, "path": path, "status": status, "milliseconds": round(milliseconds, 1)}
    if (caller := getattr(handler, "caller", None)) is not None:
        facts["principal"] = caller.name
    if about := _OF_SESSION.match(path):
        facts["session"] = about[1]
    if isinstance(handler, Handler) and (traces := handler.services.traces) is not None:
        traces.end(handler.asked_as, status, str(facts.get("principal", "")))
    access_log.log(level, "%s %s %s %d %.1f ms", remote, method, path, status, milliseconds, extra={"facts": facts})


class Handler(RequestHandler):
    """Base of every handler, those of websockets too: the Guard comes before anything else, unless `is_anonymous`."""

    is_anonymous: ClassVar[bool] = False
    is_shared: ClassVar[bool] = False  # whether who watches a session by a link may ask this of it
    caller: Principal  # who asks; not there for anonymous routes

    _error_id = ""

    @cached_property
    def asked_as(self) -> trail.Request:
        """This request as the logs name it."""
        return trail.begin(self.request.headers.get("X-Request-Id"))

    def on_finish(self) -> None:
        """It is answered. Websockets override this, whose request is over when they end."""
        self.asked_as.is_over = True

    @property
    def services(self) -> Services:
        return cast(Services, self.application.settings["services"])

    @property
    def manager(self) -> Manager:
        return self.services.manager

    @property
    def principal(self) -> str:
        """Whose sessions are meant."""
        return self.caller.name

    @property
    def way(self) -> Way:
        return self.caller.way

    def asked(self) -> Asked:
        """What the Guard wants to know of this request."""
        headers, guard = self.request.headers, self.services.guard
        tokens = self.request.query_arguments.get("token", [])
        return Asked(
            method=self.request.method or "",
            remote=self.request.remote_ip or "",
            host=headers.get("Host", ""),
            origin=headers.get("Origin"),
            authorization=headers.get("Authorization"),
            query_token=tokens[-1].decode("utf-8", "replace") if tokens else None,
            proxy_user=headers.get(guard.proxy_header) if guard.proxy_header else None,
            cookie=self.get_cookie(guard.cookie_name),
            content_type=headers.get("Content-Type", ""),
            fetch_site=headers.get("Sec-Fetch-Site"),
            fetch_mode=headers.get("Sec-Fetch-Mode"),
            is_websocket="websocket" in headers.get("Upgrade", "").lower(),
        )

    def prepare(self) -> None:
        if (traces := self.services.traces) is not None:
            path = self.services.paths.get(type(self), "")
            traces.begin(self.asked_as, self.request.headers, self.request.method or "", path)
        if self.request.method == "OPTIONS" and "Access-Control-Request-Method" in self.request.headers:
            self._answer_preflight()
        elif not self.is_anonymous:
            answer = self.services.guard.admit(self.asked(), time.time())
            if isinstance(answer, Refusal):
                self.services.visitors.refuse(answer, self.request.remote_ip or "")
                raise Refused(answer)
            self.caller = answer
            self.services.visitors.enter(self, self.request.remote_ip or "", time.time())
            if not self._is_within(answer.scopes) or (answer.session and not self._is_of(answer.session)):
                raise Refused(Refusal("missing_scope"))

    def _is_of(self, session_id: str) -> bool:
        """Whether this is about one session, and nothing that a link keeps from who comes by it."""
        return self.is_shared and self.path_args[:1] == [session_id]

    def _is_within(self, scopes: Collection[Scope]) -> bool:
        """Whether the table of routes opens this to one who has these. What the table does not name is open to nobody;
        what this path does not do is answered so to everybody."""
        method = "GET" if self.request.method == "HEAD" else self.request.method or ""
        return method not in self.methods() or self.services.scopes.get((type(self), method)) in scopes

    def show_out(self) -> None:
        """Its caller's token is no longer good: an answer that is still on its way ends here. Websockets override
        this."""
        stream = cast(HTTP1Connection, self.request.connection).stream
        if stream is not None and not self._finished:  # the connection may be another's by now, behind a proxy
            stream.close()

    def is_allowed_origin(self, origin: str) -> bool:
        """For websockets: the Guard has decided that, with all else."""
        return True

    @classmethod
    def methods(cls) -> list[str]:
        """Those that this path answers."""
        missing = RequestHandler._unimplemented_method
        given = [method for method in cls.SUPPORTED_METHODS if getattr(cls, method.lower(), missing) is not missing]
        return [method for method in given if method != "HEAD" or "GET" in given]  # HEAD is made of GET

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Request-Id", self.asked_as.id)
        # A page of an allowed origin may read answers to requests that carry the token; never with the cookie, as
        # Access-Control-Allow-Credentials is not among these.
        origin = self.request.headers.get("Origin")
        if self.services.settings.allowed_origins:
            self.set_header("Vary", "Origin")
        if origin is not None and self.services.guard.allows_origin(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", "Location, Retry-After, X-Request-Id")

    def compute_etag(self) -> None:
        """No answer is kept, so that none need be compared."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else HTTPError(status_code)
        problem = problem_of(error, self._error_id)
        self.set_problem(problem)
        self.finish(json.dumps(problem.to_json()))

    def set_problem(self, problem: Problem) -> None:
        """The status, and the headers that belong to it."""
        self.set_status(problem.status)
        if problem.retry_after is not None:
            self.set_header("Retry-After", str(problem.retry_after))
        if problem.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if problem.status == 405:
            self.set_header("Allow", ", ".join(self.methods()))

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Faults of ours, once, under the id that the answer names. What a client did wrong is in the access log."""
        problem = problem_of(value)
        if problem.status < 500 or ANSWERS[problem.code][1] is None:
            return
        self._error_id = secrets.token_hex(4)
        path = one_line(self.request.path[:MAX_PATH_CHARS])
        is_known = isinstance(value, CellgateError)
        log.error(
            "error %s: %s %s: %s", self._error_id, self.request.method, path, one_line(str(value)),
            exc_info=None if is_known or value is None else (type(value), value, tb),
        )  # fmt: skip

    def problem_of(self, error: Exception) -> Problem:
        """An error that is told within an answer; one of ours is in the log, under the id that it names."""
        self.log_exception(type(error), error, error.__traceback__)
        return problem_of(error, self._error_id)

    def _answer_preflight(self) -> None:
        """Whether a page of another origin may send this. A browser asks without credentials, so that it is answered
        to anybody, from the table of routes alone."""
        origin = self.request.headers.get("Origin", "")
        if not self.services.guard.allows_origin(origin):
            raise Refused(Refusal("foreign_origin"))
        self.set_header("Access-Control-Allow-Methods", ", ".join(self.methods()))
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id")
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)
        self.finish()


@stream_request_body
class RestHandler(Handler):
    """Base of handlers that answer with JSON. A body is read only of those who were let in, and up to a limit."""

    max_body_bytes: ClassVar[int] = MAX_BODY_BYTES

    def initialize(self) -> None:
        self._body = bytearray()

    def prepare(self) -> None:
        super().prepare()
        # One that is too long is read to its end all the same, and dropped: a connection that is cut off while its
        # sender still writes delivers no answer.
        cast(HTTP1Connection, self.request.connection).set_max_body_size(MAX_DRAINED_BYTES)
        length = self.request.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > MAX_DRAINED_BYTES:
            raise TooLarge(self.max_body_bytes)

    def data_received(self, chunk: bytes) -> None:
        if len(self._body) <= self.max_body_bytes:  # a chunked body has not said its length
            self._body += chunk

    @property
    def body(self) -> bytes:
        """Raises TooLarge."""
        if len(self._body) > self.max_body_bytes:
            raise TooLarge(self.max_body_bytes)
        return bytes(self._body)

    def fields(self) -> dict[str, object]:
        """The members of the JSON object that was sent. Raises BadJson, TooLarge."""
        return read_object(self.body)

    def answer(self, model: Mapping[str, object] | list[Any], status: int = 200) -> None:
        self.set_status(status)
        self.finish(json.dumps(model))

    def answer_nothing(self) -> None:
        self.set_status(204)
        self.clear_header("Content-Type")
        self.finish()

    async def head(self, *args: str, **kwargs: str) -> None:
        """As GET; tornado leaves out the body."""
        result = self.get(*args, **kwargs)
        if result is not None:
            await result


class Nowhere(RestHandler):
    """Any path that is not in the table. Whoever is not let in is not told so."""

    def prepare(self) -> None:
        super().prepare()
        if not self._finished:
            raise HTTPError(404)
