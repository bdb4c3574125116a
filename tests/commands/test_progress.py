"""How far something has come, on a terminal and nowhere else."""

from __future__ import annotations

import io

import pytest

from cellgate.commands.progress import Progress, bar


@pytest.mark.parametrize(
    ("done", "total", "is_bytes", "shown"),
    [
        (512 << 10, 1 << 20, True, "f  [############............]  50%  512.0 KiB of 1.0 MiB  256.0 KiB/s"),
        (2 << 20, 1 << 20, True, "f  [########################] 100%  2.0 MiB of 1.0 MiB  1.0 MiB/s"),
        (100, None, True, "f  100 B  50 B/s"),
        (3, 12, False, "f  [######..................]  25%  3 of 12"),
        (0, 0, False, "f  0"),
    ],
)
def test_a_line_says_how_much_of_how_much(done, total, is_bytes, shown):
    assert bar("f", done, total, 2.0, is_bytes=is_bytes) == shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_only_a_terminal_is_told_and_no_line_is_longer_than_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    clock = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with Progress("a-file-with-a-long-name.bin", 1000, stream=stream) as progress:
            progress.add(500)
            progress.add(500)
    assert file.getvalue() == ""
    lines = terminal.getvalue().rstrip("\n").split("\r")[1:]
    assert len(lines) == 3 and all(len(line.removesuffix("\x1b[K")) < 40 for line in lines)
