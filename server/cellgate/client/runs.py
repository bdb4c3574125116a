"""Code that is run once, and what came of it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cellgate.client.errors import error_of
from cellgate.wire.result import Result

__all__ = ["CELL_SECONDS", "Run", "patience_of", "read_run", "run_wish"]

CELL_SECONDS = 60.0  # that each cell of a run may take where nobody says so: the server's own, as a test compares
MAX_CELLS = 2  # the code, and the call of its `calculate`
MARGIN_SECONDS = 30.0  # for a session to begin, and for code to heed that its time is up


@dataclass(frozen=True)
class Run:
    result: Result
    value: Any = None  # what `calculate` returned
    files: dict[str, bytes] = field(default_factory=dict)  # those that were asked for


def patience_of(timeout: float | None) -> float:
    """Seconds that a server may be silent over a run whose cells may take so long each."""
    return MAX_CELLS * (CELL_SECONDS if timeout is None else timeout) + MARGIN_SECONDS


def run_wish(files: Mapping[str, bytes] | None, **said: Any) -> dict[str, Any]:
    """As it is sent; None says nothing."""
    wish = {name: value for name, value in said.items() if value is not None}
    if files:
        wish["files"] = {name: {"base64": b64encode(data).decode()} for name, data in files.items()}
    return wish


def read_run(said: Mapping[str, Any]) -> Run:
    """What was answered. Raises CellgateError for a file that was asked for and could not be had."""
    files = {}
    for name, file in (said.get("files") or {}).items():
        if error := file.get("error"):
            raise error_of(error)
        files[name] = b64decode(file["base64"]) if "base64" in file else file["text"].encode()
    return Run(Result.from_json(said), said.get("value"), files)
