"""How the gateway writes its log, to standard error: a line of text for people, or an object for programs.

Who logs says what happened in words; what a program would look for stands beside, in `extra={"facts": {...}}`. The id
of the request that it happened for, and that of the session in a line that begins with it, need not be said.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

from cellgate.live.trail import request_id

__all__ = ["FORMATS", "JsonFormatter", "TextFormatter", "set_up_logs"]

FORMATS = ("text", "json")
_OF_SESSION = "session %s"  # as a message begins that is about one


class JsonFormatter(logging.Formatter):
    """One object a line: `at`, `level`, `logger`, `message`, then `request`, `session` and the facts as far as there
    are any, and `traceback` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        told: dict[str, Any] = {
            "at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := request_id():
            told["request"] = request
        if str(record.msg).startswith(_OF_SESSION) and isinstance(record.args, tuple):
            told["session"] = record.args[0]
        facts = getattr(record, "facts", {})
        told |= {name: value for name, value in facts.items() if name not in told}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class TextFormatter(logging.Formatter):
    """A line, and the id of the request at its end."""

    def __init__(self) -> None:
        super().__init__("cellgate: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        line = super().formatMessage(record)
        return f"{line} [{request}]" if (request := request_id()) else line


def set_up_logs(log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
