"""The words that schemas in the OpenAPI document are made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellgate.policy.policies import LIMITS, MAX_NAMES, POLICIES
from cellgate.sandbox.limits import LimitTable
from cellgate.settings import Settings

__all__ = ["COUNT", "DATE", "POLICY", "TEXT", "Schema", "limits_of", "list_of", "object_of", "ref", "words_of"]

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
DATE: Schema = {"type": "string", "format": "date-time"}


_NAMES: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MAX_NAMES}
_LISTS = ("allow", "note", "warn", "deny")
_MORE_LISTS = ("allow_modules", "deny_modules", "deny_names", "allow_magics", "message_types")
POLICY: Schema = {
    "description": "what is judged by beside the server's own policy: only what is tighter passes",
    "oneOf": [
        {"type": "string", "enum": list(POLICIES)},
        {
            "type": "object",
            "properties": {
                "extends": {"type": "string", "enum": list(POLICIES)},
                **dict.fromkeys((*_LISTS, *_MORE_LISTS), _NAMES),
                "limits": {
                    "type": "object",
                    "properties": {
                        name: {"type": "integer", "minimum": row.least, "maximum": row.most, "description": row.why}
                        for name, row in LIMITS.items()
                    },
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
        {"type": "null"},
    ],
}


def ref(name: str) -> Schema:
    """Another schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}, **more}


def list_of(item: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": item, **more}


def words_of(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def limits_of(settings: Settings, *names: str) -> Schema:
    """What limits a client may ask for: as low as the server's or lower. Those that are named, or all."""
    tables: tuple[LimitTable, ...] = (settings.sandbox, settings.session)
    limits = {
        row.name: {
            "type": "integer" if row.is_whole else "number",
            "minimum": row.minimum,
            "maximum": getattr(table, row.name),
            "description": f"{row.unit}: {row.reason}",
        }
        for table in tables
        for row in table.rows()
        if not names or row.name in names
    }
    return {"type": ["object", "null"], "properties": limits, "additionalProperties": False}
