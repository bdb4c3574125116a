"""The limits a sandbox enforces itself: one table of default, range, unit and reason.

The fields of `Limits` are the table; documents are rendered from it. Says what is acceptable; how each
limit is enforced is the drivers' business. Limits on cells, time and output are made of the same rows, in
`cellgate.sessions.limits`.
Needs nothing but the standard library, because the warden imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from cellgate.errors import LimitError

if TYPE_CHECKING:
    from dataclasses import Field

__all__ = ["LIMIT_ROWS", "LimitRow", "LimitTable", "Limits", "check_fits_host", "limit", "limits_as_markdown", "size"]

Number = TypeVar("Number", int, float)
Table = TypeVar("Table", bound="LimitTable")
KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@dataclass(frozen=True)
class LimitRow:
    """One limit: what it is called, counts in, defaults to, may be, and why."""

    name: str
    unit: str
    default: int | float
    minimum: int | float
    maximum: int | float
    reason: str

    @property
    def is_whole(self) -> bool:
        return isinstance(self.default, int)

    def check(self, value: object) -> None:
        """Raises LimitError unless `value` is a finite number of the right kind in the range."""
        right_type = type(value) is int or (type(value) is float and not self.is_whole)  # True is an int to isinstance
        if right_type and self.minimum <= cast("int | float", value) <= self.maximum:  # false for NaN
            return
        kind = "a whole number" if self.is_whole else "a number"
        raise LimitError(self.name, value, f"{kind} from {self.minimum} to {self.maximum} ({self.unit})")

    def read(self, text: str) -> int | float | str:
        """What a text says, sizes also as 512M; or the text itself when it says no number, for `check` to refuse."""
        if self.unit.startswith("bytes") and (found := _SIZE.fullmatch(text)):
            return int(found[1]) * _SCALE[found[2].upper()]
        if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            return int(text)
        return float(text) if re.fullmatch(r"[+-]?[0-9]{1,18}\.[0-9]{1,18}", text) else text


_SIZE = re.compile(r"([0-9]{1,15})([KMGT])(?:i?B)?", re.IGNORECASE)
_SCALE = {"K": KiB, "M": MiB, "G": GiB, "T": TiB}


def limit(default: Number, unit: str, minimum: Number, maximum: Number, reason: str) -> Number:
    """A field of a LimitTable that carries its row."""
    row = {"unit": unit, "minimum": minimum, "maximum": maximum, "reason": reason}
    return field(default=default, metadata=row)


class LimitTable:
    """Base of frozen dataclasses whose every field is a `limit`: what is made of one has passed its rows."""

    __dataclass_fields__: ClassVar[dict[str, Field[int | float]]]

    def __post_init__(self) -> None:
        for row in self.rows():
            row.check(getattr(self, row.name))

    @classmethod
    @cache
    def rows(cls) -> tuple[LimitRow, ...]:
        return tuple(
            LimitRow(name=f.name, default=cast("int | float", f.default), **f.metadata)
            for f in cls.__dataclass_fields__.values()
        )

    @classmethod
    def from_mapping(cls: type[Table], values: Mapping[str, object]) -> Table:
        """Limits from names and numbers that somebody sent; what is not named has its default.
        Raises LimitError for an unknown name too."""
        known = {row.name: row for row in cls.rows()}
        for name, value in values.items():
            if name not in known:
                raise LimitError(str(name)[:80], value, f"one of {', '.join(known)}")
            known[name].check(value)
        return cls(**cast("dict[str, int]", dict(values)))  # every name and type was checked just above

    def to_mapping(self) -> dict[str, int | float]:
        """By name, as `from_mapping` and JSON take them."""
        return {row.name: getattr(self, row.name) for row in self.rows()}


@dataclass(frozen=True)
class Limits(LimitTable):
    """What one sandbox may use at most. Raises LimitError when a value makes no sense; there is no way to
    say "unlimited": zero, negative, NaN, infinite, text and truth values are all refused."""

    memory_bytes: int = limit(
        512 * MiB, "bytes", 32 * MiB, TiB,
        "all processes, tmpfs and shm together, swap included; a kernel needs some 20 MiB to answer at all",
    )  # fmt: skip
    cpu_cores: float = limit(
        1.0, "cores", 0.01, 1024.0,
        "share of CPU time over each 100 ms; the kernel's scheduler takes no less than 1 ms of it",
    )  # fmt: skip
    pids: int = limit(
        128, "processes and threads", 16, 65536,
        "stops fork bombs; a kernel and its init hold about six, and some must be left to tell of an error",
    )  # fmt: skip
    open_files: int = limit(
        1024, "descriptors of one process", 64, MiB,
        "select() ends at 1024; a kernel holds about twenty; Linux itself stops at 1048576",
    )  # fmt: skip
    file_bytes: int = limit(
        GiB, "bytes of one file", 64 * KiB, TiB,
        "a write beyond it fails with EFBIG; the workspace usually ends first",
    )  # fmt: skip
    workspace_bytes: int = limit(
        256 * MiB, "bytes in home, work and tmp", MiB, TiB,
        "lives in memory and counts there too, so half of it leaves a full disk short of an out-of-memory kill",
    )  # fmt: skip
    workspace_inodes: int = limit(
        65536, "files and directories", 64, 16 * MiB,
        "each costs the host about 1 KiB of kernel memory, even when empty",
    )  # fmt: skip
    shm_bytes: int = limit(
        64 * MiB, "bytes in /dev/shm", 64 * KiB, TiB,
        "shared memory of multiprocessing; lives in memory and counts there too; Docker's default",
    )  # fmt: skip


LIMIT_ROWS = Limits.rows()


def check_fits_host(limits: Limits, *, host_memory_bytes: int, host_cpu_cores: int) -> None:
    """Raises LimitError for a limit that this host could never reach, so that a sandbox is not promised it."""
    if limits.memory_bytes > host_memory_bytes:
        raise LimitError("memory_bytes", limits.memory_bytes, f"at most {host_memory_bytes}, all this host has,")
    if limits.cpu_cores > host_cpu_cores:
        raise LimitError("cpu_cores", limits.cpu_cores, f"at most {host_cpu_cores}, all this host has,")


def limits_as_markdown() -> str:
    """The table for people, as the documents hold it."""
    lines = ["| limit | default | from | to | unit | why |", "|---|---|---|---|---|---|"]
    for row in LIMIT_ROWS:
        numbers = " | ".join(size(number, row.unit) for number in (row.default, row.minimum, row.maximum))
        lines.append(f"| `{row.name}` | {numbers} | {row.unit} | {row.reason} |")
    return "\n".join(lines) + "\n"


def size(number: int | float, unit: str) -> str:
    """A number as people read it beside its unit."""
    if not unit.startswith("bytes"):
        return str(number)
    for scale, name in ((TiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if number % scale == 0:
            return f"{number // scale} {name}"
    return str(number)
