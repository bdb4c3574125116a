"""What a session's journal costs: CPU per record appended and read again, and per journal opened.

    python tests/bench/journal.py [DIRECTORY]

The directory (a temporary one by default) decides which file system is measured.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time

from cellgate.sessions.journal import Cursor, Journal, Kind, Record
from cellgate_kernel.message import Channel, Status, Tag

TAG = Tag(Channel.IOPUB, "stream", Status.NONE, b"0123456789abcdef_1")
ROUNDS = 5
LIMIT_BYTES = 64 << 20
BATCHES = {(100, 100): 2000, (100, 1): 20_000, (1000, 100): 500, (64 << 10, 8): 200}  # bytes, records in a batch


def microseconds(work: Callable[[], object], count: int) -> float:
    """CPU of this process for one of `count`, the best of some rounds: the rest of the machine only adds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = process_time()
        work()
        best = min(best, process_time() - begin)
    return best / count * 1e6


def drain(journal: Journal) -> int:
    cursor = Cursor(journal, journal.first_seq)
    count = 0
    while not cursor.is_at_end:
        count += len(cursor.read(256 << 10).records)
    return count


def measure(directory: Path) -> None:
    print(f"{'body':>6} {'batch':>6} {'append':>8} {'read':>8}   microseconds of CPU per record")
    for (size, in_batch), batches in BATCHES.items():
        journal = Journal.open(directory / f"{size}-{in_batch}", limit_bytes=LIMIT_BYTES)
        body = memoryview(b"x" * size)
        numbers = iter(range(1, 1 << 40))

        def append(journal=journal, body=body, in_batch=in_batch, batches=batches, numbers=numbers) -> None:
            for _ in range(batches):  # making the records is part of it
                journal.append([Record(Kind.OUTPUT, 7, next(numbers), b"", TAG, body) for _ in range(in_batch)])

        appended = microseconds(append, in_batch * batches)
        count = drain(journal)
        read = microseconds(partial(drain, journal), count)
        print(f"{size:6} {in_batch:6} {appended:8.2f} {read:8.2f}   kept {journal.size_bytes / 1e6:.0f} MB")
        journal.close()
    full = directory / "100-100"
    print(f"open a full journal: {microseconds(lambda: Journal.open(full, limit_bytes=LIMIT_BYTES), 1) / 1e3:.1f} ms")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            measure(Path(temporary))
