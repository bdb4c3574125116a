"""The log on disk: it goes on after a crash, counts what a full disk cost, and lets go of whole files."""

from __future__ import annotations

import errno
import os

import pytest

from cellgate.audit import writer
from cellgate.audit.chain import Link
from cellgate.audit.lines import KINDS, facts_for
from cellgate.audit.reading import find, verify
from cellgate.audit.writer import AuditLog
from cellgate.live.happenings import (
    CellAccepted,
    CellFinished,
    Direction,
    FileMoved,
    TokenMade,
    UsageSampled,
    VerdictGiven,
    Who,
)
from tests.support.server import until

NOW = 1_800_000_000.0
ADA, EVE = Who("ada", "s1"), Who("eve", "s2")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "audit"


def opened(directory, **more) -> AuditLog:
    return AuditLog.open(directory, **{"keep_bytes": 1 << 30, "now": lambda: NOW, **more})


async def said(directory, *happenings, **more) -> None:
    """By one gateway, from its start to its end."""
    audit = opened(directory, **more)
    for happening in happenings:
        audit.hear(happening)
    audit.close()


async def test_what_happens_is_found_by_who_and_what_and_when(directory):
    await said(
        directory, CellAccepted(ADA, 3, "1 + 1"), CellAccepted(EVE, 3, "2"), CellFinished(ADA, 3, "ok", 0.5, 1, 90)
    )
    first, last = find(directory, where={"principal": "ada"})
    assert (first["what"], first["session"], first["cell"], first["code_bytes"]) == ("cell_accepted", "s1", 3, 5)
    assert (last["reason"], last["wall_seconds"], last["output_bytes"]) == ("ok", 0.5, 90)
    assert first["at"] == "2027-01-15T08:00:00.000Z"
    assert len(list(find(directory, where={"what": "cell_accepted", "session": "s2"}))) == 1
    assert list(find(directory, where={}, since="2027-01-16")) == []
    assert len(list(find(directory, where={}, since="2027-01-15", until="2027-01-15T09"))) == 3
    assert verify(directory).damage == ()


async def test_code_is_told_by_its_hash_unless_it_is_wanted(directory):
    await said(directory, CellAccepted(ADA, 1, "password = 7"))
    assert b"password" not in b"".join(path.read_bytes() for path in directory.iterdir())
    await said(directory, CellAccepted(ADA, 2, "print('é')"), with_code=True)
    assert [facts.get("code") for facts in find(directory, where={})] == [None, "print('é')"]


def test_samples_and_what_was_allowed_are_left_out():
    assert facts_for(UsageSampled(ADA, 1, 2.0, 3), NOW, with_code=True) is None
    assert facts_for(VerdictGiven(ADA, "execute_request", (), 0.1), NOW, with_code=True) is None
    denied = facts_for(VerdictGiven(ADA, "execute_request", ("network",), 0.1), NOW, with_code=True)
    assert (denied["what"], denied["denied_by"]) == ("verdict_given", ("network",))
    assert facts_for(FileMoved(ADA, Direction.IN, "a.csv", 7), NOW, with_code=True)["direction"] == "in"
    assert "files" in facts_for(TokenMade("ada", "x", ("files",)), NOW, with_code=True)["scopes"]
    assert len(set(KINDS.values())) == len(KINDS)


async def test_the_next_gateway_goes_on_in_the_chain(directory):
    for n in range(3):
        await said(directory, CellAccepted(ADA, n, ""))
    report = verify(directory)
    assert (report.files, report.lines, report.last.number, report.damage) == (1, 3, 3, ())


async def test_a_line_that_a_crash_cut_off_is_told_of(directory):
    await said(directory, CellAccepted(ADA, 1, "1"), CellAccepted(ADA, 2, "2"))
    path = directory / "000001.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    await said(directory)
    torn = list(find(directory, where={}))[-1]
    assert (torn["what"], torn["n"]) == ("line_torn", 2)
    assert torn["held"].startswith('{"n":2,')
    assert verify(directory).damage == ()


async def test_a_log_that_was_cut_off_whole_lines_is_found_out(directory):
    await said(directory, *(CellAccepted(ADA, n, "") for n in range(5)))
    kept = verify(directory).last
    path = directory / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    assert [found.problem for found in verify(directory).damage] == ["the log ends with number 3; number 5 was written"]
    (directory / "head").unlink()  # the head is the gateway's, as the log is
    assert verify(directory).damage == ()
    assert verify(directory, kept).damage[0].problem.startswith("the log ends with number 3")


async def test_a_log_that_was_written_anew_does_not_fit_what_was_kept(directory):
    await said(directory, CellAccepted(ADA, 1, "1"), CellAccepted(ADA, 2, "2"))
    kept = verify(directory).last
    for path in directory.iterdir():
        path.unlink()
    await said(directory, CellAccepted(EVE, 1, "1"), CellAccepted(EVE, 2, "2"))
    assert verify(directory).damage == ()
    assert "has another hash" in verify(directory, kept).damage[0].problem
    assert "has another hash" in verify(directory, Link(1, "0" * 64)).damage[0].problem


async def test_a_full_disk_costs_lines_that_are_counted(directory, monkeypatch, caplog):
    audit = opened(directory)
    audit.hear(CellAccepted(ADA, 1, ""))
    audit.flush()
    real, refusing = os.write, True

    def write(descriptor, data):
        if refusing and descriptor == audit._file:
            real(descriptor, data[:7])
            return 7
        return real(descriptor, data)

    monkeypatch.setattr(writer.os, "write", write)
    for n in (2, 3):
        audit.hear(CellAccepted(ADA, n, ""))
    audit.flush()
    refusing = False
    audit._tell_lost()
    audit.hear(CellAccepted(ADA, 4, ""))
    audit.close()
    assert [facts["what"] for facts in find(directory, where={})] == ["cell_accepted", "lines_lost", "cell_accepted"]
    assert next(find(directory, where={"what": "lines_lost"}))["lines"] == 2
    assert verify(directory).damage == ()
    assert "the audit log cannot be written" in caplog.text


async def test_a_disk_that_refuses_the_count_too_costs_no_line_uncounted(directory, monkeypatch):
    audit = opened(directory)
    real, refusing = os.write, True

    def write(descriptor, data):
        if refusing and descriptor == audit._file:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data)

    monkeypatch.setattr(writer.os, "write", write)
    for n in (1, 2, 3):
        audit.hear(CellAccepted(ADA, n, ""))
    audit.flush()
    for _ in range(3):  # it is still full when the count is to be told
        audit._tell_lost()
        audit.flush()
    audit.hear(CellAccepted(ADA, 4, ""))
    refusing = False
    audit._tell_lost()  # while a line waits
    audit.close()
    assert [facts["what"] for facts in find(directory, where={})] == ["cell_accepted", "lines_lost"]
    assert next(find(directory, where={"what": "lines_lost"}))["lines"] == 3
    assert verify(directory).damage == ()


async def test_lines_are_written_together_soon_after_they_were_told(directory):
    audit = opened(directory)
    audit.hear(CellAccepted(ADA, 1, ""))
    audit.hear(CellAccepted(ADA, 2, ""))
    assert verify(directory).lines == 0
    await until(lambda: verify(directory).lines > 0)
    assert verify(directory).lines == 2
    audit.close()


def fill(directory, lines, *, keep_bytes):
    """With so many lines, each in a write of its own."""
    audit = opened(directory, keep_bytes=keep_bytes)
    for n in range(lines):
        audit.hear(CellAccepted(ADA, n, ""))
        audit.flush()
    audit.close()


async def test_full_files_are_let_go_of_from_the_oldest_on(directory, monkeypatch):
    monkeypatch.setattr(writer, "FILE_BYTES", 2000)
    fill(directory, 60, keep_bytes=5000)
    report = verify(directory)
    assert (report.damage, report.last.number) == ((), 60)
    assert report.first > 30
    assert 1 < report.files < 5
    await said(directory, CellAccepted(ADA, 61, ""))
    assert verify(directory).damage == ()
    assert verify(directory).last.number == 61


async def test_files_that_cannot_be_let_go_of_stay_and_the_log_goes_on(directory, monkeypatch, caplog):
    """Somebody may have made them unremovable: what closes the log closes more behind it."""

    def unlink(path, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(writer, "FILE_BYTES", 500)
    monkeypatch.setattr(writer.Path, "unlink", unlink)
    fill(directory, 9, keep_bytes=1000)
    report = verify(directory)
    assert (report.first, report.last.number, report.damage) == (1, 9, ())
    assert "cannot be let go of: [Errno 1]" in caplog.text


async def test_no_link_leads_the_log_elsewhere(directory, tmp_path):
    directory.mkdir()
    (directory / "000001.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError) as caught:
        opened(directory)
    assert caught.value.errno in (errno.ELOOP, errno.ENOENT)
