"""Writes the audit log: listens to what happens, and appends its lines some milliseconds later, in one write.

    audit/        the gateway's, 0700
    ├── 000001.jsonl, 000002.jsonl ...   the lines, each file continues the chain of the one before
    └── head                             number and hash of the last line: a log that was cut off is shorter than that

What was appended survives the death of this process, which may take the lines of the last milliseconds along; a power
failure may take more. A disk that refuses costs lines: they are counted, and the count is the next line that can be
written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cellgate.audit.chain import BEGINNING, Link, make_line, split_line
from cellgate.audit.lines import facts_for
from cellgate.live.happenings import Happening
from cellgate.live.trail import request_id

__all__ = ["HEAD_NAME", "AuditLog", "file_names", "read_head"]

log = logging.getLogger("cellgate.audit")

FILE_BYTES = 64 << 20  # then another begins: some 200,000 lines, verified in a second
HEAD_NAME = "head"
_TORN_BYTES = 4096  # of a line that was cut off by a crash, kept in the line that tells of it
_TAIL_READ = 2 << 20  # of a file, to find its last line in: a line may hold a cell's code
_WRITE_SECONDS = 0.02  # that lines are collected: a write and a turn of the loop for each would cost more than itself
_HEAD_SECONDS = 1.0  # the head may be so much behind: more would cost a write a turn
_HOPE_SECONDS = 1.0  # until a disk that refused is tried again for the count alone
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

_Told = tuple[Happening, float, str] | dict[str, object]  # what happened, when, for which request; or the log's own


class AuditLog:
    """Made by `open`, in the loop that it belongs to; whoever did owes a `close`."""

    def __init__(self, directory: Path, *, keep_bytes: int, with_code: bool, now: Callable[[], float]) -> None:
        self._directory = directory
        self._keep_bytes = keep_bytes
        self._with_code = with_code
        self._now = now
        self._link = BEGINNING  # of the last line that was written
        self._number = 0  # of the file
        self._size = 0
        self._file = self._head = -1
        self._waiting: list[_Told] = []
        self._has_turn = self._has_appointment = self._has_hope = False
        self._lost = 0
        self._counted = 0  # of those: by a line that waits

    @staticmethod
    def open(
        directory: Path, *, keep_bytes: int, with_code: bool = False, now: Callable[[], float] = time.time
    ) -> AuditLog:
        """Goes on where the last one stopped. Raises OSError."""
        audit = AuditLog(directory, keep_bytes=keep_bytes, with_code=with_code, now=now)
        directory.mkdir(mode=0o700, exist_ok=True)
        torn = audit._find_end()
        audit._begin(max(audit._number, 1))
        audit._head = os.open(directory / HEAD_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if torn:
            audit._wait({"what": "line_torn", "bytes": len(torn), "held": torn[:_TORN_BYTES].decode("latin-1")})
        return audit

    def hear(self, happening: Happening) -> None:
        """A listener. Lines are made when they are written: nobody waits for that, and somebody for this."""
        self._wait((happening, self._now(), request_id()))

    def flush(self) -> None:
        """All that waits, in one write."""
        self._has_turn = False
        told, self._waiting = self._waiting, []
        lines, link = self._lines(told)
        if not lines or self._file < 0:
            return
        data = b"".join(lines)
        try:
            written = os.write(self._file, data)
            if written < len(data):
                os.ftruncate(self._file, self._size)
                raise OSError("the disk is full")
        except OSError as error:
            self._lose(len(lines), error)
            return
        self._size += written
        self._link = link
        self._lost, self._counted = self._lost - self._counted, 0
        if not self._has_appointment:
            self._has_appointment = True
            asyncio.get_running_loop().call_later(_HEAD_SECONDS, self._point)
        if self._size >= FILE_BYTES:
            self._rotate()

    def close(self) -> None:
        self._tell_lost()
        self.flush()
        self._point()
        for descriptor in (self._file, self._head):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._head = -1

    def _wait(self, told: _Told) -> None:
        self._waiting.append(told)
        if not self._has_turn:
            self._has_turn = True
            asyncio.get_running_loop().call_later(_WRITE_SECONDS, self.flush)

    def _lines(self, told: Sequence[_Told]) -> tuple[list[bytes], Link]:
        """Those that go on behind the last one, and where the chain stands then."""
        lines: list[bytes] = []
        link = self._link
        for one in told:
            facts = one if isinstance(one, dict) else facts_for(*one, with_code=self._with_code)
            if facts:
                line, link = make_line(link, facts)
                lines.append(line)
        return lines, link

    def _lose(self, lines: int, error: OSError) -> None:
        """The chain goes on behind what stands in the file, with the count of what does not."""
        if not self._lost:
            log.error("the audit log cannot be written: %s", error)
        self._lost += lines - bool(self._counted)  # a count that is lost is no fact
        self._counted = 0
        if not self._has_hope:
            self._has_hope = True
            asyncio.get_running_loop().call_later(_HOPE_SECONDS, self._tell_lost)

    def _tell_lost(self) -> None:
        self._has_hope = False
        if self._file >= 0 and self._lost and not self._counted:
            self._counted = self._lost
            self._wait({"what": "lines_lost", "lines": self._lost})

    def _point(self) -> None:
        """To the last line."""
        self._has_appointment = False
        if self._head < 0:
            return
        try:
            os.pwrite(self._head, b"%016d %s\n" % (self._link.number, self._link.hash.encode()), 0)
        except OSError as error:
            log.error("the head of the audit log cannot be written: %s", error)

    def _begin(self, number: int) -> None:
        path = self._directory / f"{number:06}.jsonl"
        self._file = os.open(path, _APPEND, 0o600)
        self._number, self._size = number, os.fstat(self._file).st_size

    def _rotate(self) -> None:
        former = self._file
        try:
            self._begin(self._number + 1)
        except OSError as error:  # then this one grows
            log.error("another file of the audit log cannot be begun: %s", error)
            return
        os.close(former)
        try:
            names = file_names(self._directory)
            sizes = {name: (self._directory / name).stat().st_size for name in names}
            while len(names) > 1 and sum(sizes[name] for name in names) > self._keep_bytes:
                (self._directory / names.pop(0)).unlink()
        except OSError as error:  # tried again with the next file
            log.error("files of the audit log cannot be let go of: %s", error)

    def _find_end(self) -> bytes:
        """Where the chain stands. Returns, and cuts off, what is no whole line at its end."""
        torn = b""
        for name in reversed(file_names(self._directory)):
            path = self._directory / name
            self._number = self._number or int(name.partition(".")[0])
            with path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_READ))
                tail = file.read()
                whole, _, rest = tail.rpartition(b"\n")
                if rest:
                    file.truncate(size - len(rest))
                    torn = rest + torn
            last = whole.rpartition(b"\n")[2]
            if found := split_line(last):
                self._link = found[1]
                break
            if last:  # somebody else wrote there: what follows begins anew, and is found out by whoever verifies
                break
        return torn


def file_names(directory: Path) -> list[str]:
    """The files of a log, in order."""
    return sorted(path.name for path in directory.glob("[0-9]*.jsonl"))


def read_head(directory: Path) -> Link | None:
    """The last line that was written; None when nobody knows."""
    try:
        number, _, found = (directory / HEAD_NAME).read_text().strip().partition(" ")
        return Link(int(number), found)
    except (OSError, ValueError):
        return None
