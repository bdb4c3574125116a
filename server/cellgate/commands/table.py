"""Rows of text under each other, for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

__all__ = ["columns", "line_width"]

MAX_WIDTH = 120  # of what is printed where there is no terminal


def line_width() -> int:
    return shutil.get_terminal_size((MAX_WIDTH, 24)).columns


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A line for each row, each column as wide as its widest cell, but the last, which ends where it ends."""
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n" for row in rows)
