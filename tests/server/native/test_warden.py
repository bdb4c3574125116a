"""How the warden sees whether a process lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellgate.sandbox.native.warden import state_in


def stat(state: str, flags: int = 0x400000, signals: int = 0) -> bytes:
    """As in /proc/pid/stat, of a program with a bad name."""
    fields = [state, "1", "7", "7", "0", "-1", str(flags), *["0"] * 21, str(signals), *["0"] * 21]
    return f"7 (x) R ) {' '.join(fields)}\n".encode()


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (stat("S"), "S"),
        (stat("T"), "T"),
        (stat("Z", flags=0x400004), "X"),
        (stat("D", flags=0x400004), "X"),
        (stat("R", signals=1 << 8), "X"),
        (stat("R", signals=1 << 14), "R"),
        (b"", ""),
        (b"7 (x", ""),
    ],
)
def test_a_process_that_was_killed_is_dead_also_while_it_gives_back_its_memory(line: bytes, state: str):
    """Found by the fault tests: a kernel was looked at between its kill for memory and its end, counted as one that had
    outlived it, and its end was told as `kernel_signal`."""
    assert state_in(line) == state


def test_how_this_process_stands():
    assert state_in(Path("/proc/self/stat").read_bytes()) == "R"
