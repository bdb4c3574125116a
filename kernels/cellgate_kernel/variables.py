"""What is in a namespace, told without running any code of the user's.

A `__repr__` may hang, lie, raise or print, a `__len__` too, and a subclass of dict may do all of it while it is looked
at. So values are read by the methods of the builtin types alone, and of numpy, pandas, polars and torch if somebody
has imported those; of any other object its attributes are shown. All answers are bounded, however large the values.
Knows nothing of messages.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from itertools import islice
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, ModuleType
from typing import Any
from uuid import UUID

__all__ = ["Seen", "changes", "describe", "detail", "look", "names"]

MAX_ROWS = 500  # variables in one answer; a host reads no more than 512 KiB of that
MAX_REPR = 120  # characters in a list of variables: a line
MAX_LONG_REPR = 4000  # of one variable in detail: a page
MAX_NAMES = 200  # in each list of a diff
MAX_LABEL = 100  # characters of the name of a type, an attribute or a column
MAX_TABLE_ROWS = 1000
VALUE_COST = 8  # characters that a value takes beside its text
MAX_TABLE_COLUMNS = 100
MAX_TEXT = 1000  # characters of a text in data
MAX_ITEMS = 1000  # of a list or dict in data
MAX_DATA = 100_000  # characters of data, about, in all
MAX_LEVELS = 5  # of lists in lists
MAX_BITS = 4096  # of an integer that is written out: Python takes the square of its length
SHOWN_NUMBERS = 20  # of an array

# What has a shape, if it was imported.
_SHAPED = (
    ("numpy", "ndarray"),
    ("pandas", "DataFrame"),
    ("pandas", "Series"),
    ("pandas", "Index"),
    ("polars", "DataFrame"),
    ("polars", "Series"),
    ("torch", "Tensor"),
)
_SCALARS: tuple[Any, ...] = (bool, int, float, complex, str, bytes, bytearray, range, type(None))
_CONTAINERS: tuple[Any, ...] = (list, tuple, set, frozenset, dict)
_SIZED: tuple[Any, ...] = (str, bytes, bytearray, range, *_CONTAINERS)
_TOLD_BY_TEXT: tuple[type, ...] = (date, datetime, time_of_day, timedelta, Decimal, UUID)  # themselves, no subclass
_MISSING = ("NaTType", "NAType")  # pandas'
_NUMBERS = "biufcmMSU"  # kinds of numpy's values that are nobody's objects

Seen = Mapping[str, tuple[int, int]]  # where a value lies, and its type


# -- namespaces -------------------------------------------------------------------------------------------


def names(namespace: Mapping[str, Any], hidden: Mapping[str, Any]) -> dict[str, Any]:
    """The user's own variables: neither what the shell put there nor what begins with an underscore."""
    nothing = object()
    return {
        name: value
        for name, value in list(namespace.items())
        if type(name) is str and name[:1] != "_" and hidden.get(name, nothing) is not value
    }


def look(variables: Mapping[str, Any]) -> Seen:
    """To be compared with what is there later. Keeps nothing alive."""
    return {name: (id(value), id(type(value))) for name, value in variables.items()}


def changes(before: Seen, after: Seen) -> dict[str, list[str]]:
    """The names that came, that were bound anew, and that went. What an object has become inside is not seen."""
    diff = {
        "added": [name for name in after if name not in before],
        "changed": [name for name, seen in after.items() if name in before and before[name] != seen],
        "removed": [name for name in before if name not in after],
    }
    return {kind: [_label(name) for name in found[:MAX_NAMES]] for kind, found in diff.items()}


def describe(variables: Mapping[str, Any], count: int = MAX_ROWS) -> dict[str, Any]:
    """A row for each variable, in the order in which they came to be, and how many were left out."""
    count = max(0, min(count, MAX_ROWS))
    rows = [_row(name, value, MAX_REPR) for name, value in islice(variables.items(), count)]
    return {"variables": rows, "more": len(variables) - len(rows)}


def detail(name: str, value: Any, rows: int = 20) -> dict[str, Any]:
    """One variable, with its data as JSON has it: of a table so many rows, as records."""
    row = _row(name, value, MAX_LONG_REPR)
    data = _Data()
    rows = max(0, min(rows, MAX_TABLE_ROWS))
    try:
        if frame := _plain(value, "pandas", "DataFrame"):
            row |= _table(frame[0], rows, data)
        elif series := _plain(value, "pandas", "Series") or _plain(value, "pandas", "Index"):
            part = getattr(series[0], "iloc", series[0])[:rows]  # before pandas 3 a plain slice is by labels, if floats
            row["data"] = data.of(part.tolist())
            data.is_cut |= len(series[0]) > rows
        elif array := _plain(value, "numpy", "ndarray"):
            row["data"] = _numbers(array[0], data)
        elif is_a(value, (*_SCALARS, *_CONTAINERS)):
            row["data"] = data.of(value)
        row["is_whole"] = "data" in row and not data.is_cut
    except Exception as error:  # what a library says of an odd table
        row |= {"is_whole": False, "problem": f"{type(error).__name__}: {str(error)[:MAX_TEXT]}"}
    return row


def _row(name: str, value: Any, room: int) -> dict[str, Any]:
    row: dict[str, Any] = {"name": _label(name), "type": type_name(type(value))}
    try:
        if kind := is_a(value, _SIZED):
            row["size"] = kind.__len__(value)
        if (shape := _shape(value)) is not None:
            row["shape"] = shape
        row["repr"] = show(value, room)
    except Exception as error:
        row["repr"] = f"<{row['type']}: {type(error).__name__} while looking at it>"
    return row


# -- what a value is --------------------------------------------------------------------------------------


def _mro(kind: type) -> tuple[type, ...]:
    mro: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return mro


def is_a(value: Any, kinds: Iterable[Any]) -> Any:
    """The first of these types that it is an instance of, or None; not by its `__class__`, which may lie."""
    mro = set(map(id, _mro(type(value))))  # not by `==`, which a metaclass may have made its own
    return next((kind for kind in kinds if id(kind) in mro), None)


def type_name(kind: type) -> str:
    """Also of a class whose metaclass says otherwise."""
    return _label(type.__dict__["__name__"].__get__(kind))


def _label(name: Any) -> str:
    return str.__getitem__(name, slice(0, MAX_LABEL)) if is_a(name, (str,)) else show(name, MAX_LABEL)


def _known(value: Any, module: str, name: str) -> Any:
    """That class of a library, if somebody imported it and this is an instance."""
    kind = vars(sys.modules[module]).get(name) if module in sys.modules else None
    return kind if kind is not None and is_a(value, (kind,)) else None


def _plain(value: Any, module: str, name: str) -> tuple[Any] | None:
    """The same data without what a subclass makes of it; in a tuple, as some of these have no truth value."""
    kind = _known(value, module, name)
    if kind is None:
        return None
    if type(value) is kind:
        return (value,)
    return (kind.view(value, kind) if name == "ndarray" else kind(value),)


def _shape(value: Any) -> list[int] | None:
    for module, name in _SHAPED:
        if kind := _known(value, module, name):
            return [int(size) for size in inspect.getattr_static(kind, "shape").__get__(value)]
    return None


def _is_of_numpy(value: Any) -> bool:
    """Whether it is a number of numpy's own types, no subclass."""
    kind = type(value)
    is_plain = _known(value, "numpy", "generic") and vars(sys.modules["numpy"]).get(type_name(kind)) is kind
    return bool(is_plain) and value.dtype.kind in _NUMBERS


def _is_told_by_text(value: Any) -> bool:
    """Whether its own `str` and `repr` are a library's."""
    kind = type(value)
    return any(kind is one for one in (*_TOLD_BY_TEXT, _known(value, "pandas", "Timestamp")))


# -- a value as text --------------------------------------------------------------------------------------


def show(value: Any, room: int) -> str:
    """As `repr` would have it, in so many characters at most."""
    text = "".join(_Shower(room).parts(value, MAX_LEVELS))
    return text if len(text) <= room else text[: room - 1] + "…"


@dataclass
class _Shower:
    left: int  # characters that are still wanted

    def parts(self, value: Any, levels: int) -> Iterator[str]:
        for text in self._parts(value, levels):
            self.left -= len(text)
            yield text

    def _parts(self, value: Any, levels: int) -> Iterator[str]:
        if kind := is_a(value, _SCALARS):
            yield _scalar(value, kind, max(self.left, 8))
        elif kind := is_a(value, _CONTAINERS):
            yield from self._container(value, kind, levels)
        elif frame := _plain(value, "pandas", "DataFrame"):
            yield from self._columns(frame[0])
        elif series := _plain(value, "pandas", "Series") or _plain(value, "pandas", "Index"):
            yield f"<{len(series[0])} × {str(series[0].dtype)[:MAX_LABEL]}>"
        elif array := _plain(value, "numpy", "ndarray"):
            yield from self._array(array[0])
        elif _is_of_numpy(value):
            yield repr(value.item())
        elif _is_told_by_text(value):
            yield repr(value)
        else:
            yield from self._object(value, levels)

    def _container(self, value: Any, kind: Any, levels: int) -> Iterator[str]:
        if kind in (set, frozenset) and not kind.__len__(value):
            yield f"{kind.__name__}()"
            return
        yield {list: "[", tuple: "("}.get(kind, "{")
        at = 0
        for at, item in enumerate(dict.items(value) if kind is dict else kind.__iter__(value), 1):
            if at > 1:
                yield ", "
            if self.left <= 0 or not levels:
                yield "…"
                break
            if kind is dict:
                yield from self.parts(item[0], levels - 1)
                yield ": "
            yield from self.parts(item[1] if kind is dict else item, levels - 1)
        yield {list: "]", tuple: ",)" if at == 1 else ")"}.get(kind, "}")

    def _columns(self, frame: Any) -> Iterator[str]:
        yield f"<{len(frame)} rows"
        for at, (name, dtype) in enumerate(zip(frame.columns[:MAX_TABLE_COLUMNS], frame.dtypes, strict=False)):
            if self.left <= 0:
                break
            yield f"{', ' if at else ': '}{_label(name)} {str(dtype)[:MAX_LABEL]}"
        yield ">"

    def _array(self, array: Any) -> Iterator[str]:
        yield f"<{str(array.dtype)[:MAX_LABEL]}"
        if array.dtype.kind in _NUMBERS:
            for at, item in enumerate(array.flat[:SHOWN_NUMBERS].tolist()):
                yield f"{', ' if at else ': '}{repr(item)[:MAX_LABEL]}"
            if array.size > SHOWN_NUMBERS:
                yield ", …"
        yield ">"

    def _object(self, value: Any, levels: int) -> Iterator[str]:
        kind = type(value)
        if is_a(value, (type,)):
            yield f"<class {type_name(value)}>"
        elif kind is FunctionType or kind is BuiltinFunctionType:
            yield f"<function {_label(value.__name__)}>"
        elif kind is ModuleType:
            yield f"<module {_label(vars(value).get('__name__'))}>"
        elif not levels or not (attributes := _attributes(value)):
            yield f"<{type_name(kind)}>"
        else:
            yield f"{type_name(kind)}("
            for at, (name, item) in enumerate(attributes.items()):
                if self.left <= 0:
                    yield ", …"
                    break
                yield f"{', ' if at else ''}{name[:MAX_LABEL]}="
                yield from self.parts(item, levels - 1)
            yield ")"


def _attributes(value: Any) -> dict[str, Any]:
    """Those in the object itself that have no underscore; read past whatever its class makes of them."""
    spaces: Iterator[Any] = (type.__dict__["__dict__"].__get__(kind) for kind in _mro(type(value)))
    held = next((space["__dict__"] for space in spaces if "__dict__" in space), None)
    attributes = held.__get__(value) if type(held) is GetSetDescriptorType else None
    if type(attributes) is not dict:
        return {}
    return {name: item for name, item in list(attributes.items()) if type(name) is str and name[:1] != "_"}


def _scalar(value: Any, kind: Any, room: int) -> str:
    if kind in (str, bytes, bytearray):
        part = kind.__getitem__(value, slice(0, room))  # a plain one, of a subclass too
        return repr(part) + ("…" if kind.__len__(value) > room else "")
    if kind is int and int.bit_length(value) > MAX_BITS:
        return f"<integer of {int.bit_length(value)} bits>"
    return str(kind.__repr__(value))


# -- a value as JSON has it -------------------------------------------------------------------------------


@dataclass
class _Data:
    """Makes values JSON, until there are too many."""

    left: int = MAX_DATA
    is_cut: bool = False

    def of(self, value: Any, levels: int = MAX_LEVELS) -> Any:
        self.left -= VALUE_COST
        kind = is_a(value, (bool, type(None), int, float, str, list, tuple, dict))
        if kind in (bool, type(None)):
            return value
        if kind is int and int.bit_length(value) <= 63:
            return int.__index__(value)
        if kind is float:
            return _finite(float.__add__(value, 0.0))
        if kind is str:
            self.is_cut |= str.__len__(value) > MAX_TEXT
            self.left -= min(str.__len__(value), MAX_TEXT)
            return str.__getitem__(value, slice(0, MAX_TEXT))
        if kind is dict and levels:
            return {self._key(name): self.of(item, levels - 1) for name, item in self._some(dict.items(value))}
        if kind in (list, tuple) and levels:
            return [self.of(item, levels - 1) for item in self._some(kind.__iter__(value))]
        if _is_of_numpy(value):
            return self.of(value.item())
        if _is_told_by_text(value):
            return str(value)
        if type_name(type(value)) in _MISSING:
            return None
        self.is_cut = True
        self.left -= MAX_REPR
        return show(value, MAX_REPR)

    def _key(self, name: Any) -> str:
        self.left -= MAX_LABEL
        return _label(name)

    def _some(self, items: Iterable[Any]) -> Iterator[Any]:
        for at, item in enumerate(items):
            if at >= MAX_ITEMS or self.left <= 0:
                self.is_cut = True
                return
            yield item


def _finite(number: float) -> float | str | None:
    """JSON has no others: what is missing is null, as tables have it."""
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else repr(number)


def _numbers(array: Any, data: _Data) -> Any:
    sizes = list(array.shape)
    while math.prod(sizes) > MAX_DATA // VALUE_COST:
        sizes[sizes.index(max(sizes))] //= 2
    data.is_cut |= sizes != list(array.shape)
    return data.of(array[tuple(slice(0, size) for size in sizes)].tolist())


def _table(frame: Any, rows: int, data: _Data) -> dict[str, Any]:
    """The columns, and the first rows as records."""
    part = frame.iloc[:rows, :MAX_TABLE_COLUMNS]
    labels: list[str] = []
    for label in map(_label, part.columns):  # two may be alike
        labels.append(label if label not in labels else f"{label}.{len(labels)}")
    columns = [part.iloc[:, at].tolist() for at in range(len(labels))]
    records = [
        {label: data.of(column[at]) for label, column in zip(labels, columns, strict=True)}
        for at in range(len(part))
        if data.left > 0
    ]
    data.is_cut |= len(records) < len(frame) or len(labels) < frame.shape[1]
    types = [{"name": label, "type": str(dtype)[:MAX_LABEL]} for label, dtype in zip(labels, part.dtypes, strict=True)]
    return {"columns": types, "data": records}
