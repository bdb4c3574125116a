"""Where a command's code and its other words come from: the command line, a file, standard input."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from cellgate.errors import LimitError, UsageError

__all__ = ["MAX_CODE_BYTES", "add_code_arguments", "read_code", "read_file", "read_input", "read_timeout"]

MAX_CODE_BYTES = 8 << 20  # a message of the link takes 16 MiB, and JSON may double the size of what it quotes
MAX_TIMEOUT_SECONDS = 365 * 24 * 3600  # a year is as good as no limit, and fits every clock


def add_code_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-c", dest="code", metavar="CODE", help="the code itself")
    what.add_argument("file", nargs="?", metavar="FILE", help="a file of code, in UTF-8; - for standard input")


def read_timeout(text: str | None) -> float | None:
    """Seconds, or None where no limit was asked for. Raises LimitError."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:  # false for NaN too
        raise LimitError("timeout", text, f"a number of seconds above 0 and up to {MAX_TIMEOUT_SECONDS}")
    return seconds


def read_code(code: str | None, file: str | None) -> str:
    """The code that was named. Raises UsageError."""
    if code is not None:
        data, name = os.fsencode(code), "-c"
    else:
        data, name = read_file(file or "-"), "standard input" if file == "-" else repr(file)
    if len(data) > MAX_CODE_BYTES:
        raise UsageError(f"the code in {name} is longer than {MAX_CODE_BYTES >> 20} MiB; up to that would pass")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 (byte {error.start}); code in UTF-8 would pass") from error


def read_input(text: str | None) -> Any:
    """Raises UsageError."""
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise UsageError(f"this input is no JSON ({error}); a value like '{{\"n\": 3}}' would pass") from error


def read_file(file: str) -> bytes:
    """At most one byte more than may be run. Raises UsageError."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(MAX_CODE_BYTES + 1)
        with Path(file).open("rb") as source:
            return source.read(MAX_CODE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {file!r}: {reason}; the name of a readable file would pass") from error
