"""How the gateway writes its log, to standard error: a line of text for people, or an object for programs.

Who logs says what happened in words; what a program would look for stands beside, in `extra={"facts": {...}}`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

__all__ = ["FORMATS", "JsonFormatter", "set_up_logs"]

FORMATS = ("text", "json")


class JsonFormatter(logging.Formatter):
    """One object a line: `at`, `level`, `logger`, `message`, then the facts, and `traceback` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        told: dict[str, Any] = {
            "at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = getattr(record, "facts", {})
        told |= {name: value for name, value in facts.items() if name not in told}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def set_up_logs(log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter("cellgate: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
