"""How a run ended decides the exit status, and nothing else does."""

import pytest

from cellgate.client.errors import ConnectionLost, NotFound, SessionOver
from cellgate.commands.exits import (
    ExitStatus,
    exits_as_markdown,
    exits_as_text,
    status_of_error,
    status_of_result,
    status_of_run,
)
from cellgate.errors import DriverUnavailable, LimitError, SandboxGone, SandboxStartFailed, UnknownTemplate, UsageError
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.wire.result import Result


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"status": "ok"}, ExitStatus.OK),
        ({"status": "error", "ename": "ValueError", "evalue": "0"}, ExitStatus.RAISED),
        ({"status": "error", "ename": "KeyboardInterrupt", "evalue": ""}, ExitStatus.RAISED),
        ({"status": "error", "ename": "SystemExit", "evalue": "0"}, ExitStatus.OK),
        ({"status": "error", "ename": "SystemExit", "evalue": "None"}, ExitStatus.OK),
        ({"status": "error", "ename": "SystemExit", "evalue": ""}, ExitStatus.OK),
        ({"status": "error", "ename": "SystemExit", "evalue": "3"}, ExitStatus.RAISED),
        ({"status": "error", "ename": "SystemExit", "evalue": "no such thing"}, ExitStatus.RAISED),
        ({"status": "aborted"}, ExitStatus.RAISED),
        ({}, ExitStatus.RAISED),
    ],
)
def test_a_reply_says_whether_the_code_raised(reply, expected):
    assert status_of_run(reply, None) is expected


@pytest.mark.parametrize("reason", Reason)
def test_an_end_of_the_sandbox_is_the_codes_or_ours(reason):
    ours = reason in (Reason.BACKEND_ERROR, Reason.SUPERVISOR_LOST)
    assert status_of_run({}, DeathCertificate(reason)) is (ExitStatus.FAILED if ours else ExitStatus.ENDED)


def test_a_time_limit_counts_whatever_the_code_made_of_the_interrupt():
    assert status_of_run({"status": "ok"}, None, timed_out=True) is ExitStatus.ENDED


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("no"), ExitStatus.USAGE),
        (LimitError("pids", 0, "more"), ExitStatus.USAGE),
        (UnknownTemplate("x", ()), ExitStatus.USAGE),
        (SandboxGone("1"), ExitStatus.ENDED),
        (DriverUnavailable("native", "x", "y"), ExitStatus.FAILED),
        (SandboxStartFailed("native", "x", "y"), ExitStatus.FAILED),
        (RuntimeError("a bug"), ExitStatus.FAILED),
        (NotFound("no such session"), ExitStatus.USAGE),
        (SessionOver("it has expired"), ExitStatus.ENDED),
        (ConnectionLost("it did not answer"), ExitStatus.FAILED),
    ],
)
def test_an_error_ends_a_command_by_whose_fault_it_was(error, expected):
    assert status_of_error(error) is expected


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Result(status="ok", reason="ok"), ExitStatus.OK),
        (Result(status="error", reason="error", error={"name": "SystemExit", "value": "0"}), ExitStatus.OK),
        (Result(status="error", reason="error", error={"name": "ValueError", "value": "0"}), ExitStatus.RAISED),
        (Result(status="error", reason="interrupted"), ExitStatus.RAISED),
        (Result(status="error", reason="policy_denied"), ExitStatus.USAGE),
        (Result(status="error", reason="timeout_wall"), ExitStatus.ENDED),
        (Result(status="error", reason="oom"), ExitStatus.ENDED),
        (Result(status="error", reason="supervisor_lost"), ExitStatus.FAILED),
    ],
)
def test_a_cell_on_a_server_ends_a_command_as_one_in_a_sandbox_does(result, expected):
    assert status_of_result(result) is expected


def test_every_status_is_in_both_tables():
    for status in ExitStatus:
        assert f"| {status.value} | {status.meaning} |" in exits_as_markdown()
        assert f"  {status.value}  {status.meaning}" in exits_as_text()
