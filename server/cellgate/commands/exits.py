"""The exit statuses of the command line: one closed table, and who decides which of them it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from cellgate.errors import Fault

if TYPE_CHECKING:
    from cellgate.sandbox.certificate import DeathCertificate
    from cellgate.wire.result import Result

__all__ = [
    "EndedBySignal",
    "ExitStatus",
    "exits_as_markdown",
    "exits_as_text",
    "is_clean_exit",
    "is_known",
    "status_of_error",
    "status_of_result",
    "status_of_run",
]


class EndedBySignal(Exception):
    """The command itself was told to end, and has cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class ExitStatus(IntEnum):
    """How a command ended, for scripts. The value is the promise; the text is for documents and people."""

    OK = 0
    RAISED = 1
    USAGE = 2
    ENDED = 3
    FAILED = 4

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitStatus.OK: "the code ran to its end",
    ExitStatus.RAISED: "the code raised",
    ExitStatus.USAGE: (
        "usage: a flag, a file, a template or a limit that cannot be; "
        "one line on standard error names the error's stable code"
    ),
    ExitStatus.ENDED: "the sandbox ended, or a time limit did: one line on standard error says how",
    ExitStatus.FAILED: "Cellgate failed, through no fault of the code",
}
_OUR_FAILURES = ("backend_error", "supervisor_lost")  # of the reasons that a sandbox or a cell can end for
_RAISED = ("error", "interrupted")
_REFUSED = ("policy_denied", "queue_full", "quota_used_up")


def status_of_run(
    reply: Mapping[str, object], certificate: DeathCertificate | None, *, timed_out: bool = False
) -> ExitStatus:
    """Of code that was run: from its `execute_reply`, or the certificate when the sandbox ended first."""
    if certificate is not None:
        return ExitStatus.FAILED if certificate.reason.value in _OUR_FAILURES else ExitStatus.ENDED
    if timed_out:
        return ExitStatus.ENDED
    if reply.get("status") == "ok" or is_clean_exit({"name": reply.get("ename"), "value": reply.get("evalue")}):
        return ExitStatus.OK
    return ExitStatus.RAISED


def is_clean_exit(error: Mapping[str, object]) -> bool:
    """Whether an error is `sys.exit()` or `sys.exit(0)`: how a script says that all went well."""
    return error.get("name") == "SystemExit" and error.get("value") in ("", "0", "None")


def status_of_result(result: Result) -> ExitStatus:
    """Of a cell that ran on a server."""
    if result.is_ok or is_clean_exit(result.error or {}):
        return ExitStatus.OK
    if result.reason in _RAISED:
        return ExitStatus.RAISED
    if result.reason in _REFUSED:
        return ExitStatus.USAGE
    return ExitStatus.FAILED if result.reason in _OUR_FAILURES else ExitStatus.ENDED


def is_known(error: Exception) -> bool:
    """Whether it says whose fault it is, as our errors and those of the SDK do."""
    return getattr(error, "fault", None) in set(Fault)


def status_of_error(error: Exception) -> ExitStatus:
    """Of an error that ended a command: by whose fault it was."""
    fault = Fault(getattr(error, "fault", None)) if is_known(error) else Fault.OURS
    return {Fault.YOURS: ExitStatus.USAGE, Fault.THEIRS: ExitStatus.ENDED, Fault.OURS: ExitStatus.FAILED}[fault]


def exits_as_markdown() -> str:
    """The table for people, as the documents hold it."""
    rows = [f"| {status.value} | {status.meaning} |" for status in ExitStatus]
    return "\n".join(["| exit status | means |", "|---|---|", *rows]) + "\n"


def exits_as_text() -> str:
    """The table as `--help` prints it."""
    return "\n".join(["exit status:", *(f"  {status.value}  {status.meaning}" for status in ExitStatus)])
