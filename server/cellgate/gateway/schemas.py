"""The words that schemas in the OpenAPI document are made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellgate.sandbox.limits import LimitTable
from cellgate.settings import Settings

__all__ = ["COUNT", "DATE", "TEXT", "Schema", "limits_of", "list_of", "maybe", "object_of", "ref", "words_of"]

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
DATE: Schema = {"type": "string", "format": "date-time"}


def ref(name: str) -> Schema:
    """Another schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}, **more}


def list_of(item: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": item, **more}


def words_of(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def maybe(schema: Schema) -> Schema:
    """The same, or null, which says nothing."""
    return {**schema, "type": [schema["type"], "null"]}


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
