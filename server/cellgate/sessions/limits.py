"""The limits of a session, and of a server for all its sessions: default, range, unit and reason, in one table each.

Says what is acceptable and which limits must fit each other; what happens at a limit is decided where it is met.
What a sandbox enforces itself is in `cellgate.sandbox.limits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cellgate.errors import LimitError
from cellgate.sandbox.limits import GiB, KiB, LimitTable, MiB, TiB, limit

__all__ = ["NO_MORE_THAN", "ServerLimits", "SessionLimits", "check_together"]

HOUR, DAY = 3600.0, 86400.0
YEAR = 365 * DAY  # as good as no limit, and fits every clock


@dataclass(frozen=True)
class SessionLimits(LimitTable):
    """What one session may use at most. Raises LimitError when a value makes no sense; as for a sandbox, there is no
    way to say "unlimited"."""

    cell_seconds: float = limit(
        12 * HOUR, "seconds of wall time", 0.1, YEAR,
        "then the cell is interrupted; nobody waits longer for one without looking",
    )  # fmt: skip
    interrupt_grace_seconds: float = limit(
        5.0, "seconds", 0.1, HOUR,
        "from the interrupt until the kernel is killed: time to close files in a `finally`",
    )  # fmt: skip
    idle_seconds: float = limit(
        4 * HOUR, "seconds", 1.0, YEAR,
        "without a cell, CPU use or a pending input(); connected clients alone keep no session",
    )  # fmt: skip
    lifetime_seconds: float = limit(
        7 * DAY, "seconds", 1.0, YEAR,
        "whatever it does: what is meant to last is not kept in a kernel's memory",
    )  # fmt: skip
    notice_seconds: float = limit(
        60.0, "seconds", 0.1, DAY,
        "between the notice that a session will end and its end: time to save",
    )  # fmt: skip
    output_bytes_per_cell: int = limit(
        128 * MiB, "bytes", KiB, TiB,
        "more is cut in the middle and counted; a browser that shows as much is long out of breath",
    )  # fmt: skip
    output_messages_per_cell: int = limit(
        1_000_000, "messages", 10, 10**9,
        "the same for many small ones; each costs a client some ten times what it costs us",
    )  # fmt: skip
    message_bytes: int = limit(
        8 * MiB, "bytes", KiB, 15 * MiB,
        "of one message from a client; the link to the kernel carries 16 MiB, headers included",
    )  # fmt: skip
    code_bytes: int = limit(
        MiB, "bytes of one cell's code", 16, 15 * MiB,
        "30,000 lines; what is longer is data, and belongs in a file",
    )  # fmt: skip
    queue_cells: int = limit(
        1000, "cells", 1, 100_000,
        "that wait for the one that runs; Run All of a long notebook has some hundreds",
    )  # fmt: skip
    journal_bytes_per_session: int = limit(
        256 * MiB, "bytes on disk", MiB, TiB,
        "what a client that comes back can read on from; beyond it the oldest goes, and the gap is told",
    )  # fmt: skip
    clients_per_session: int = limit(
        32, "connections", 1, 1000,
        "each gets all output; a person has some tabs, a class has a session each",
    )  # fmt: skip
    client_outbox_bytes: int = limit(
        MiB, "bytes of memory", 64 * KiB, GiB,
        "written to a connection and not yet taken by it; beyond it the client is served from the journal",
    )  # fmt: skip
    client_stall_seconds: float = limit(
        60.0, "seconds", 1.0, DAY,
        "that a client may take nothing of what waits for it before its connection is closed; it can resume",
    )  # fmt: skip


@dataclass(frozen=True)
class ServerLimits(LimitTable):
    """What all sessions of one server, or of one principal, may use together."""

    sessions_per_principal: int = limit(
        1000, "sessions", 1, 100_000,
        "so that one user's loop leaves room for the others",
    )  # fmt: skip
    cells_per_principal: int = limit(
        1000, "cells", 1, 100_000,
        "of one user's that run at a time, in all sessions; others wait for their turn",
    )  # fmt: skip
    memory_bytes_per_principal: int = limit(
        TiB, "bytes", 32 * MiB, 1024 * TiB,
        "the sum of what one user's sessions may come to use",
    )  # fmt: skip
    stored_bytes_per_principal: int = limit(
        16 * GiB, "bytes on disk", MiB, 1024 * TiB,
        "of one user's journals; beyond it there is no further session",
    )  # fmt: skip
    cpu_seconds_per_day: float = limit(
        1000 * DAY, "seconds", 1.0, 100_000 * DAY,
        "of one user's, from midnight to midnight in UTC; then no cell is accepted, and what runs goes on",
    )  # fmt: skip
    wall_seconds_per_day: float = limit(
        1000 * DAY, "seconds", 1.0, 100_000 * DAY,
        "that one user's cells ran, each for itself; the same",
    )  # fmt: skip
    sessions_total: int = limit(
        1000, "sessions", 1, 100_000,
        "each idle one takes some 8 MiB of the host's memory; more are answered with 503 until one ends",
    )  # fmt: skip
    journal_bytes_total: int = limit(
        16 * GiB, "bytes on disk", MiB, 1024 * TiB,
        "of all journals; beyond it the largest lose their oldest part first",
    )  # fmt: skip
    audit_bytes_total: int = limit(
        GiB, "bytes on disk", 128 * MiB, 1024 * TiB,
        "of the audit log, some 3 million lines; beyond it the oldest go, a file of 64 MiB at a time",
    )  # fmt: skip


# What is above the other cannot be kept: code that no message carries, a notice before anything began, output of a
# running cell that is gone before it can be replayed. Checked for a whole configuration and not for one table: code
# that makes limits for one purpose need not think of those it does not use.
NO_MORE_THAN: tuple[tuple[str, str], ...] = (
    ("code_bytes", "message_bytes"),
    ("notice_seconds", "idle_seconds"),
    ("notice_seconds", "lifetime_seconds"),
    ("output_bytes_per_cell", "journal_bytes_per_session"),
    ("journal_bytes_per_session", "journal_bytes_total"),
    ("journal_bytes_per_session", "stored_bytes_per_principal"),
    ("memory_bytes", "memory_bytes_per_principal"),
)


def check_together(values: Mapping[str, object]) -> None:
    """Raises LimitError for a limit that exceeds the one it must lie within, of those that are given."""
    for inner, outer in NO_MORE_THAN:
        if inner in values and outer in values and values[inner] > values[outer]:  # type: ignore[operator]  # each has passed its row
            raise LimitError(inner, values[inner], f"at most {outer}, which is {values[outer]},")
