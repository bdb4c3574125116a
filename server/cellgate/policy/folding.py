"""Works out what an expression of literals comes to: `"sys" + "tem"`, `chr(111)`, `"metsys"[::-1]`,
`bytes.fromhex("6f73")`.

A small interpreter of its own over strings, bytes, whole numbers and lists of those: nothing of the code is run, what
is not in a table here comes to nothing, and results and steps are bounded.
"""

from __future__ import annotations

import ast
import base64
import binascii
import codecs
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["Folder"]

MAX_CHARS = 10_000  # of a result, or in a list and all that is in it: names and payloads are shorter
MAX_STEPS = 50_000  # of all foldings in one cell: some 50 ms
MAX_DEPTH = 50  # of expressions within expressions
_MAX_INT = 1 << 64

Value = Any  # str, bytes, int, or a list of them; None: no idea
_TYPES = (str, bytes, int, list)


def _times(a: Value, b: Value) -> Value:
    size, count = (len(a), b) if not isinstance(a, int) else (len(b), a) if not isinstance(b, int) else (0, 0)
    return a * b if isinstance(count, int) and size * count <= MAX_CHARS else None


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Mod: lambda a, b: _percent(a, b) if isinstance(a, str) else a % b if isinstance(a, int) else None,
    ast.FloorDiv: operator.floordiv,
    ast.Mult: _times,
}
_CODECS = frozenset(  # whose results are in proportion to what they are given
    (
        *("utf-8", "utf8", "utf_8", "ascii", "latin-1", "latin1", "latin_1", "utf-16", "utf-16-le", "utf-32"),
        *("rot13", "rot_13", "hex", "hex_codec", "base64", "base64_codec", "unicode_escape", "raw_unicode_escape"),
    )
)


def _percent(text: str, values: Value) -> Value:
    """`%s`, `%d` and `%c` without widths: with one, a short string asks for a long result."""
    parts = iter(values if isinstance(values, list) else [values])
    if re.search(r"%(?![sdc])", text):
        return None
    return re.sub(
        r"%([sdc])", lambda m: chr(value) if isinstance(value := next(parts), int) and m[1] == "c" else str(value), text
    )


def _format(text: str, *values: Value) -> Value:
    """`{}` and `{0}` without specifications, for the same reason."""
    parts = iter(values)
    if re.search(r"\{[^{}]*[^{}\d][^{}]*\}|\{\{|\}\}", text) or text.count("{") * _size([*values]) > MAX_CHARS * 10:
        return None
    return re.sub(r"\{(\d*)\}", lambda m: str(values[int(m[1])] if m[1] else next(parts)), text)


def _decode(data: Value, encoding: str = "utf-8", *_: Value) -> Value:
    return codecs.decode(data, encoding) if encoding.lower() in _CODECS else None


def _encode(data: Value, encoding: str = "utf-8", *_: Value) -> Value:
    return codecs.encode(data, encoding) if encoding.lower() in _CODECS else None


def _replace(text: Value, old: Value, new: Value, *count: Value) -> Value:
    return text.replace(old, new, *count) if (len(text) + 1) * (len(new) + 1) <= MAX_CHARS * 10 else None


def _join(separator: Value, items: Value) -> Value:
    parts = list(items)
    total = sum(len(part) for part in parts) + len(separator) * len(parts)
    return separator.join(parts) if total <= MAX_CHARS else None


def _method(name: str) -> Callable[..., Value]:
    return lambda text, *arguments: getattr(text, name)(*arguments)


_METHODS: dict[str, Callable[..., Value]] = {
    "join": _join,
    "replace": _replace,
    "format": _format,
    "encode": _encode,
    "decode": _decode,
    **{
        name: operator.methodcaller(name)
        for name in ("lower", "upper", "swapcase", "casefold", "title", "capitalize", "hex", "copy", "__str__")
    },
    **{
        name: _method(name)
        for name in ("strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "split", "__add__", "__getitem__")
    },
}
_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "chr": chr,
    "ord": ord,
    "str": lambda value="", *encoding: _decode(value, *encoding) if encoding else str(value),
    "bytes": lambda value=b"", *encoding: _encode(value, *encoding) if encoding else _as_bytes(value),
    "bytearray": lambda value=b"", *encoding: _encode(value, *encoding) if encoding else _as_bytes(value),
    "int": lambda value=0, base=10: int(value, base) if isinstance(value, str) and len(value) < 30 else value,
    "list": list,
    "tuple": list,
    "reversed": lambda value: list(value)[::-1],
    "sorted": sorted,
    "str.join": _join,
    "str.lower": str.lower,
    "bytes.decode": _decode,
    "bytes.fromhex": bytes.fromhex,
    "bytearray.fromhex": bytes.fromhex,
    "binascii.unhexlify": binascii.unhexlify,
    "base64.b64decode": lambda data, *_: base64.b64decode(data),
    "base64.urlsafe_b64decode": base64.urlsafe_b64decode,
    "base64.b32decode": lambda data, *_: base64.b32decode(data),
    "base64.b16decode": lambda data, *_: base64.b16decode(data),
    "codecs.decode": _decode,
    "codecs.encode": _encode,
}


def _as_bytes(value: Value) -> Value:
    return bytes(value) if isinstance(value, (list, bytes)) else None


def _size(value: Value) -> int:
    """Characters and numbers in all: of a list that holds another many times, so many times what that has. What is
    beyond MAX_CHARS is not counted on."""
    if not isinstance(value, list):
        return 1 if isinstance(value, int) else len(value)
    size = 0
    for item in value:
        size += max(1, _size(item))
        if size > MAX_CHARS:
            break
    return size


def _listed(values: Iterable[Value]) -> Value:
    """A list of these. None when one of them is None, or they are too many: then the rest is not made."""
    found: list[Value] = []
    size = 0
    for value in values:
        if value is None or (size := size + max(1, _size(value))) > MAX_CHARS:
            return None
        found.append(value)
    return found


class Folder:
    """Folds the expressions of one cell. Whoever knows its names is a subclass: it says what they mean."""

    def __init__(self) -> None:
        self._steps = 0
        self._folding: list[str] = []  # names; one may be bound to itself

    def meanings_of(self, node: ast.expr) -> tuple[str, ...]:
        """What a function is called in full."""
        raise NotImplementedError

    def expression_of(self, name: str) -> ast.expr | None:
        """What a name is bound to, if to one expression only."""
        raise NotImplementedError

    def fold(self, node: ast.expr | None, given: Mapping[str, Value] | None = None, depth: int = 0) -> Value:
        """What it comes to, or None."""
        self._steps += 1
        if node is None or depth > MAX_DEPTH or self._steps > MAX_STEPS:
            return None
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, _TYPES) else None
        fold = _FOLDS.get(type(node))
        if fold is None:
            return None
        try:
            value = fold(self, node, given or {}, depth + 1)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, StopIteration, binascii.Error):
            return None  # it would raise when it runs, too
        if isinstance(value, int):
            return value if abs(value) < _MAX_INT else None
        return value if isinstance(value, (str, bytes, list)) and _size(value) <= MAX_CHARS else None

    def fold_text(self, node: ast.expr | None) -> str | None:
        """The string it comes to, if it is one."""
        value = self.fold(node)
        return value if isinstance(value, str) else None

    def _name(self, node: ast.Name, given: Mapping[str, Value], depth: int) -> Value:
        if node.id in given:
            return given[node.id]
        if node.id in self._folding:
            return None
        self._folding.append(node.id)
        try:
            return self.fold(self.expression_of(node.id), None, depth)
        finally:
            self._folding.pop()

    def _binary(self, node: ast.BinOp, given: Mapping[str, Value], depth: int) -> Value:
        combine = _OPERATORS.get(type(node.op))
        left, right = self.fold(node.left, given, depth), self.fold(node.right, given, depth)
        return None if combine is None or left is None or right is None else combine(left, right)

    def _unary(self, node: ast.UnaryOp, given: Mapping[str, Value], depth: int) -> Value:
        value = self.fold(node.operand, given, depth)
        return -value if isinstance(node.op, ast.USub) and isinstance(value, int) else None

    def _f_string(self, node: ast.JoinedStr, given: Mapping[str, Value], depth: int) -> Value:
        parts = []
        for piece in node.values:
            if isinstance(piece, ast.FormattedValue) and (piece.format_spec or piece.conversion not in (-1, ord("s"))):
                return None
            value = self.fold(piece.value if isinstance(piece, ast.FormattedValue) else piece, given, depth)
            if not isinstance(value, (str, int)):
                return None
            parts.append(str(value))
        return "".join(parts)

    def _items(self, node: ast.List | ast.Tuple, given: Mapping[str, Value], depth: int) -> Value:
        return _listed(self.fold(item, given, depth) for item in node.elts)

    def _subscript(self, node: ast.Subscript, given: Mapping[str, Value], depth: int) -> Value:
        value = self.fold(node.value, given, depth)
        if value is None or isinstance(value, int):
            return None
        if not isinstance(node.slice, ast.Slice):
            return value[self.fold(node.slice, given, depth)]
        edges = (node.slice.lower, node.slice.upper, node.slice.step)
        bounds = [None if edge is None else self.fold(edge, given, depth) for edge in edges]
        if any(edge is not None and bound is None for edge, bound in zip(edges, bounds)):
            return None
        return value[slice(*bounds)]

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp, given: Mapping[str, Value], depth: int) -> Value:
        (loop,) = node.generators
        items = self.fold(loop.iter, given, depth)
        if loop.ifs or not isinstance(loop.target, ast.Name) or not isinstance(items, (str, bytes, list)):
            return None
        return _listed(self.fold(node.elt, {**given, loop.target.id: item}, depth) for item in items)

    def _call(self, node: ast.Call, given: Mapping[str, Value], depth: int) -> Value:
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            return None
        function = next((name for name in self.meanings_of(node.func) if name in _FUNCTIONS or name == "map"), None)
        if function == "map" and len(node.args) == 2:
            (mapped,) = self.meanings_of(node.args[0])
            return _listed(_FUNCTIONS[mapped](item) for item in self.fold(node.args[1], given, depth))
        arguments = [self.fold(argument, given, depth) for argument in node.args]
        if None in arguments:
            return None
        if function is not None and function != "map":
            return _FUNCTIONS[function](*arguments)
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            owner = self.fold(node.func.value, given, depth)
            return None if owner is None else _METHODS[node.func.attr](owner, *arguments)
        return None


_FOLDS: dict[type[ast.expr], Callable[[Folder, Any, Mapping[str, Value], int], Value]] = {
    ast.Name: Folder._name,
    ast.BinOp: Folder._binary,
    ast.UnaryOp: Folder._unary,
    ast.JoinedStr: Folder._f_string,
    ast.List: Folder._items,
    ast.Tuple: Folder._items,
    ast.Subscript: Folder._subscript,
    ast.ListComp: Folder._comprehension,
    ast.GeneratorExp: Folder._comprehension,
    ast.Call: Folder._call,
}
