"""The errors: each says its code, its side and one sentence; facts are fields."""

from __future__ import annotations

import pickle
import re

import pytest

from cellgate import errors
from cellgate.errors import (
    AlreadyThere,
    BadArchive,
    BadCertificate,
    BadPath,
    BadRange,
    CellgateError,
    DiskFull,
    Draining,
    DriverUnavailable,
    Fault,
    FileError,
    FilesFailed,
    FileTooLarge,
    LimitError,
    LinkClosed,
    NewerState,
    NoSubprotocol,
    NoSuchFile,
    NotADirectory,
    NotAFile,
    NotAnswered,
    NotEmpty,
    NotPermitted,
    PolicyError,
    QuotaUsedUp,
    SandboxGone,
    SandboxStartFailed,
    ServerFull,
    StateDirectoryInUse,
    StorageFull,
    TooManyClients,
    TooManySessions,
    TooManyWaiting,
    UnknownKernel,
    UnknownScript,
    UnknownSession,
    UnknownTemplate,
    UsageError,
    WorkspaceGone,
)
from cellgate.sandbox.certificate import DeathCertificate, Reason

EXAMPLES = [
    CellgateError(),
    UsageError("code.py does not exist; a file that can be read would pass"),
    LimitError("pids", 0, "a whole number from 16 to 65536"),
    PolicyError("ValueError while reading code"),
    UnknownTemplate("r", ("python",)),
    UnknownSession("5b0c"),
    UnknownKernel("julia", ("python3",)),
    UnknownScript("daily"),
    TooManySessions(20),
    QuotaUsedUp("cpu_seconds_per_day", 1, 0, "the day ends in 3600 s, when it passes", 3600),
    TooManyClients(64),
    TooManyWaiting(1000),
    FileError("a"),
    BadPath("../a"),
    NoSuchFile("a"),
    NotAFile("a"),
    NotADirectory("a"),
    AlreadyThere("a"),
    NotEmpty("a"),
    NotPermitted("a"),
    WorkspaceGone("a"),
    FileTooLarge("a", 1 << 30),
    BadRange("a", 7),
    BadArchive("a", "../b", "its name leads out"),
    DiskFull("a", 1 << 28, 65536, 0, 9),
    FilesFailed("a", "no answer in 30 s"),
    StateDirectoryInUse("/var/lib/cellgate"),
    NewerState("/var/lib/cellgate/gateway/sessions.sqlite", 2, 1),
    ServerFull(500),
    Draining(),
    StorageFull("No space left on device"),
    NoSubprotocol(("a", "b")),
    NotAnswered("oom", "it reached its memory limit"),
    LinkClosed("the link to sandbox 7"),
    SandboxGone("7", DeathCertificate(Reason.OOM)),
    SandboxGone("7"),
    BadCertificate("reason", "is missing"),
    DriverUnavailable("native", "no user namespaces", "name the docker driver"),
    SandboxStartFailed("process", "starting the interpreter", "exec failed", "Traceback\n"),
]


def subclasses(of: type[CellgateError]) -> set[type[CellgateError]]:
    return {of}.union(*(subclasses(sub) for sub in of.__subclasses__()))


def test_every_error_has_an_example_here_and_is_exported():
    assert {type(example) for example in EXAMPLES} == {
        error for error in subclasses(CellgateError) if error.__module__ == "cellgate.errors"
    }
    assert {type(example).__name__ for example in EXAMPLES} <= set(errors.__all__)


def test_every_code_is_its_own():
    codes = [error.code for error in subclasses(CellgateError)]
    assert len(codes) == len(set(codes))


def test_the_tree_at_the_top_names_every_code_and_side():
    rows = re.findall(r"[├└]── (\w+) +(yours|theirs|ours) +(\w+) ", errors.__doc__ or "")
    assert {row[0]: row[1:] for row in rows} == {
        type(e).__name__: (e.fault.value, e.code) for e in EXAMPLES if type(e) is not CellgateError
    }


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.code)
def test_an_error_says_one_sentence_and_survives_pickling(error: CellgateError):
    assert str(error) == error.text() != ""
    assert isinstance(error.fault, Fault)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.facts()) == (type(error), error.facts())


def test_a_long_value_does_not_make_a_long_text():
    assert len(str(LimitError("pids", "9" * 10_000, "a whole number"))) < 200
