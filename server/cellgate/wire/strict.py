"""JSON as the wire has it: read strictly from clients, tolerantly from kernels, and written without what is no JSON.

Pure. Knows nothing of messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, NoReturn

from cellgate_kernel.message import MessageError

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "as_object",
    "count_values",
    "dump",
    "dump_again",
    "is_deeper",
    "load",
    "load_plainly",
    "read_object",
]

MAX_DEPTH = 200  # Python's parsers end near 1000, less what is already on their stack; the kernel must get by too
MAX_VALUES = 1 << 18  # three bytes of JSON can take 200 once parsed, so that 16 MiB would take 1 GiB


# Made once: each `dumps` with arguments makes another.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dump(value: Mapping[str, Any]) -> bytes:
    # allow_nan: NaN is not JSON, and a strict reader would refuse the whole message.
    # errors: a lone surrogate in code is the user's to hear about from the compiler, not ours to die of.
    return _ENCODER.encode(value).encode("utf-8", "replace")


def load(data: memoryview, name: str) -> dict[str, Any]:
    try:
        text = str(data, "utf-8")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # an int of more than 4300 digits is JSON too, and not worth its message
            value = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise MessageError("bad_json", f"{name}: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise MessageError("bad_json", f"{name} must be an object")
    return value


def load_plainly(data: memoryview) -> dict[str, Any]:
    """What a kernel says, for whoever writes it in another form than JSON: no number but a finite one of 64 bits or a
    double, and of a bounded depth. What is no finite number is null. Raises MessageError."""
    try:
        text = str(data, "utf-8")
        value = _PLAIN.decode(text)
        if text.count("[") + text.count("{") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
            raise RecursionError
    except (ValueError, RecursionError) as error:
        raise MessageError("bad_json", str(error)[:200]) from error
    return as_object(value, "a part of a message")


def read_object(data: memoryview, name: str) -> dict[str, Any]:
    """Strictly: what two parsers might read differently is refused, for then a policy might judge one thing and the
    kernel run another. An empty part is an empty object. Raises MessageError."""
    if bytes(data[:3]) in (b"", b"{}"):
        return {}
    try:
        text = str(data, "utf-8")
        values = count_values(text)
        if values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")
        value = _STRICT.decode(text)
        if values > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
            raise RecursionError
    except RecursionError as error:
        raise MessageError("bad_json", f"{name} nests too deep; {MAX_DEPTH} levels would pass") from error
    except ValueError as error:
        raise MessageError("bad_json", f"{name}: {str(error)[:200]}") from error
    return as_object(value, name)


def count_values(text: str, most: int = MAX_VALUES) -> int:
    """At least how many values the JSON has, and no fewer than its levels; found without a loop in Python. Exact, as
    far as that is needed to know whether they are more than `most`."""
    values = sum(map(text.count, "[{,"))
    if values > most:  # many of them may stand in strings: code is full of commas
        bare = text.replace("\\\\", "").replace('\\"', "")
        if bare.count('"') <= 4 * most:  # a key and a text for each value; more are too many anyway
            values = sum(map("".join(bare.split('"')[::2]).count, "[{,"))
    return values


def dump_again(value: Mapping[str, Any]) -> bytes:
    try:
        return dump(value)
    except ValueError as error:  # 1e999 was read as infinity
        raise MessageError("bad_json", "a number beyond what a double can hold") from error


def as_object(value: object, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MessageError("bad_json", f"{name} must be an object")
    return value


def is_deeper(value: object, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, (dict, list))
        ]
        if not layer:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _whole(text: str) -> int | float:
    return int(text) if len(text) < 4000 else float(text)  # int() refuses more than 4300 digits


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if isfinite(number) else None


def _of_64_bits(text: str) -> int | float | None:
    if len(text) < 19 or (len(text) < 21 and -(1 << 63) <= int(text) < 1 << 64):
        return int(text)
    return _finite(text)


_PLAIN = json.JSONDecoder(parse_constant=lambda name: None, parse_float=_finite, parse_int=_of_64_bits)
