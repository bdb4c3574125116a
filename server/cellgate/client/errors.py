"""What can go wrong for whoever uses a server, as one tree. Each error has a stable `code`, a `message` that says what
would have passed, and its `facts`.

    CellgateError            any code that is not known here
    ├── InvalidRequest       what was asked for makes no sense, or is more than may be asked for
    ├── Unauthorized         not with this token, or not from here
    ├── NotFound             no such session, kernelspec, file or script, or it is somebody else's
    ├── Unavailable          not now: `retry_after` says when it may pass
    ├── ServerFault          a fault of the server's own
    ├── NoServer             none was named, none was found, and none could be started
    ├── ConnectionLost       the server did not answer for longer than the client's patience
    ├── SessionOver          the session was deleted or has expired
    ├── Replaced             the same client name speaks on another connection
    ├── OutcomeLost          how a cell ended is not known any more: its records had to be let go of
    └── CellFailed           a cell that was run with `check=True` did not end well

The first five are answers of a server, chosen by their code; the others are the client's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from cellgate.wire.result import Result

__all__ = [
    "CODES",
    "CellFailed",
    "CellgateError",
    "ConnectionLost",
    "InvalidRequest",
    "NoServer",
    "NotFound",
    "OutcomeLost",
    "Replaced",
    "ServerFault",
    "SessionOver",
    "Unauthorized",
    "Unavailable",
    "error_of",
]


class CellgateError(Exception):
    """The root."""

    default_code: ClassVar[str] = "internal"
    default_fault: ClassVar[str] = "ours"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        facts: Mapping[str, Any] | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        fault: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.fault = fault or self.default_fault  # whose it is: yours, theirs (the code's), ours (the server's)
        self.facts = dict(facts or {})
        self.status = status  # of HTTP, where it was an answer over HTTP
        self.retry_after = retry_after  # seconds

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class InvalidRequest(CellgateError):
    default_code = "usage"
    default_fault = "yours"


class Unauthorized(CellgateError):
    default_code = "unauthorized"
    default_fault = "yours"


class NotFound(CellgateError):
    default_code = "not_found"
    default_fault = "yours"


class Unavailable(CellgateError):
    default_code = "unavailable"


class ServerFault(CellgateError):
    pass


class NoServer(CellgateError):
    default_code = "no_server"
    default_fault = "yours"


class ConnectionLost(CellgateError):
    default_code = "connection_lost"


class SessionOver(CellgateError):
    default_code = "session_over"
    default_fault = "theirs"


class Replaced(CellgateError):
    default_code = "replaced"
    default_fault = "yours"


class OutcomeLost(CellgateError):
    default_code = "outcome_lost"


class CellFailed(CellgateError):
    """`result` is what a call without `check` would have returned."""

    default_code = "cell_failed"
    default_fault = "theirs"

    def __init__(self, result: Result) -> None:
        error = result.error or {}
        told = f"{error['name']}: {error['value']}" if error else result.sentence or result.reason or result.status
        super().__init__(told, code=result.reason, facts=result.facts)
        self.result = result


_KINDS: dict[type[CellgateError], tuple[str, ...]] = {
    InvalidRequest: (
        *("bad_field", "bad_json", "bad_limit", "bad_request", "id_taken", "input_unasked", "method_not_allowed"),
        *("no_subprotocol", "observer", "policy_error", "too_large", "unknown_op", "usage"),
        *("already_there", "bad_archive", "bad_path", "bad_range", "disk_full", "file_too_large"),  # of files
        *("not_a_directory", "not_a_file", "not_empty", "not_permitted"),
    ),
    Unauthorized: (
        *("foreign_host", "foreign_origin", "missing_scope", "no_origin", "simple_form", "too_many_guesses"),
        *("unauthorized", "wrong_token"),
    ),
    NotFound: ("no_such_file", "not_found", "unknown_cell", "unknown_kernel", "unknown_script", "unknown_session"),
    Unavailable: (
        *("draining", "driver_unavailable", "link_closed", "not_answered", "quota_used_up", "sandbox_gone"),
        *("sandbox_start_failed", "server_full", "storage_full", "too_many_clients", "too_many_sessions"),
        *("too_many_waiting", "workspace_gone"),
    ),
    ServerFault: ("files_failed", "internal"),
}
# A code that is not here belongs to a newer server, and is a plain CellgateError.
CODES = {code: kind for kind, codes in _KINDS.items() for code in codes}


def error_of(said: Mapping[str, Any], *, status: int | None = None, retry_after: float | None = None) -> CellgateError:
    """The error that an answer tells. `said` came from a server: any part of it may be missing or odd."""
    code = str(said.get("code") or "")
    facts = said.get("facts")
    return CODES.get(code, CellgateError)(
        str(said.get("message") or f"the server answered {status}, and did not say why"),
        code=code or "unknown",
        facts=facts if isinstance(facts, Mapping) else None,
        status=status,
        retry_after=retry_after,
        fault=str(said.get("fault") or ""),
    )
