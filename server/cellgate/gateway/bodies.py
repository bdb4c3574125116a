"""Reads the JSON that a client sends with a request: strictly, and with a sentence for whatever is refused. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cellgate.errors import CellgateError, Fault, UsageError
from cellgate.wire.strict import count_values

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "BadJson",
    "TooLarge",
    "check_names",
    "code_of",
    "flag_of",
    "list_of",
    "number_of",
    "policy_of",
    "read_object",
    "table_of",
    "text_of",
    "whole_of",
]

MAX_DEPTH = 16  # what we read has three levels, and inputs of code some more
MAX_VALUES = 1 << 16  # numbers, texts and what holds them: reading so many takes 0.2 s, in which nobody else is heard


@dataclass(eq=False)
class BadJson(CellgateError):
    """A body that is no JSON object, or one that two readers could read differently."""

    code = "bad_json"
    fault = Fault.YOURS
    problem: str

    def text(self) -> str:
        return f"the body cannot be read: {self.problem}; a JSON object in UTF-8, or no body at all, would pass"


@dataclass(eq=False)
class TooLarge(CellgateError):
    """A body that is longer than what is read."""

    code = "too_large"
    fault = Fault.YOURS
    accepted_bytes: int

    def text(self) -> str:
        return f"the body is too long; up to {self.accepted_bytes} bytes would pass"


def read_object(body: bytes) -> dict[str, object]:
    """The members of the object in a body; none for an empty one, which asks for the defaults. Raises BadJson."""
    if not body.strip(b" \t\r\n"):  # what JSON calls white space
        return {}
    try:
        text = body.decode()
        if count_values(text, MAX_VALUES) > MAX_VALUES:
            raise BadJson(f"it holds more than {MAX_VALUES} values")
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_no_number, parse_float=_number)
    except UnicodeDecodeError as error:
        raise BadJson(f"byte {error.start} is no UTF-8") from error
    except json.JSONDecodeError as error:
        raise BadJson(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise BadJson(f"it is nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # a number of too many digits
        raise BadJson("it has a number that is none, or too long") from error
    if not isinstance(value, dict):
        raise BadJson(f"it holds {_kind(value)}")
    if _is_deeper(value, MAX_DEPTH):
        raise BadJson(f"it is nested deeper than {MAX_DEPTH} levels")
    return value


def text_of(
    fields: Mapping[str, object], name: str, *, max_chars: int, default: str = "", may_be_null: bool = True
) -> str:
    """The text in a field: one line of characters that can be shown. Raises UsageError."""
    value = fields.get(name, default)
    if value is None and may_be_null:
        return default
    if not isinstance(value, str):
        raise UsageError(f"{name} is {_kind(value)}; text would pass")
    if len(value) > max_chars:
        raise UsageError(f"{name} has {len(value)} characters; up to {max_chars} would pass")
    if not all(char.isprintable() for char in value):  # false for lone surrogates too
        raise UsageError(f"{name} has characters that cannot be shown; a line of printable text would pass")
    return value


def table_of(fields: Mapping[str, object], name: str) -> dict[str, object]:
    """The members of the object in a field; none when it is not there. Raises UsageError."""
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{name} is {_kind(value)}; an object would pass")
    return value


def list_of(fields: Mapping[str, object], name: str, *, most: int) -> list[object]:
    """The items of the list in a field; none when it is not there. Raises UsageError."""
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UsageError(f"{name} is {_kind(value)}; a list would pass")
    if len(value) > most:
        raise UsageError(f"{name} has {len(value)} items; up to {most} would pass")
    return value


def code_of(fields: Mapping[str, object], name: str, *, max_bytes: int) -> str:
    """The text of as many lines as it has that must be there: code, or what a program reads. Raises UsageError."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{name} is {_kind(value) if name in fields else 'missing'}; text would pass")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} has half a character at {error.start}; what UTF-8 can say would pass") from error
    if size > max_bytes:
        raise UsageError(f"{name} has {size} bytes; up to {max_bytes} would pass")
    return value


def flag_of(fields: Mapping[str, object], name: str, *, default: bool = False) -> bool:
    """Raises UsageError."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {_kind(value)}; true or false would pass")
    return value


def number_of(fields: Mapping[str, object], name: str, *, least: float, most: float) -> float | None:
    """None when it is not there. Raises UsageError."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{name} is {_kind(value)}; a number from {least:g} to {most:g} would pass")
    if not least <= value <= most:
        raise UsageError(f"{name} is {repr(value)[:40]}; a number from {least:g} to {most:g} would pass")
    return value


def whole_of(fields: Mapping[str, object], name: str, *, least: int, most: int) -> int | None:
    """The same, without a fraction. Raises UsageError."""
    value = number_of(fields, name, least=least, most=most)
    if value is not None and value != int(value):
        raise UsageError(f"{name} is {repr(value)[:40]}; a whole number from {least} to {most} would pass")
    return None if value is None else int(value)


def policy_of(fields: Mapping[str, object], name: str = "policy") -> dict[str, object]:
    """The keys of a policy file in a field; a policy's name stands for what extends it. Raises UsageError."""
    asked = fields.get(name)
    return {"extends": asked} if isinstance(asked, str) else table_of(fields, name)


def check_names(fields: Mapping[str, object], known: Collection[str]) -> None:
    """A name that nobody looks at is a spelling mistake, or meant for another version. Raises UsageError."""
    for name in fields:
        if name not in known:
            raise UsageError(f"{name[:80]!r} is not looked at here; of {', '.join(known)} any would pass")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # two readers of such an object would see two requests
        raise BadJson("a name stands twice in one object")
    return members


def _no_number(text: str) -> float:
    raise BadJson(f"{text} is no number of JSON")


def _number(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise BadJson("it has a number that is too large")
    return number


def _is_deeper(value: object, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(item, levels - 1) for item in inside)


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
