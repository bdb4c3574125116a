"""Rows of text under each other, for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["columns"]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A line for each row, each column as wide as its widest cell, but the last, which ends where it ends."""
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n" for row in rows)
