"""What IPython makes of a cell before it is Python: magics, `!`, `?` and prompts become calls, by its own
transformers.

Each change is watched, so that every place in the result can be traced to where it stood in the cell as typed. The
only module here that imports IPython: its transformers cannot be had without all of it, some 70 ms and 66 modules
once, so it is done when the first cell comes that is not plain Python.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import Any

from cellgate.policy.facts import Place

__all__ = ["CellMagic", "Transformed", "is_plain_python", "transform"]

MAX_CHANGES = 500  # then IPython gives up too, and the cell does not run

# Lines that IPython may change though Python reads them: pasted prompts, stripped from strings and code alike. And
# lines that begin like magics: nearly always they are, and Python need not try.
_CHANGED = re.compile(r"^\s*(?:>>>|\.{3,}:|\[(?:nav|ins)\] In \[|In \[\d|[%!])", re.MULTILINE)
_LINE_END = re.compile(r"\r\n|\r|\n")
# A magic that is alone on its line, or assigned: the indent, and no `\\` at the end, which would go on.
_SIGN = re.compile(r"([ \t]*)(?:[\w.\[\], ]+=[ \t]*)?[!%](?!.*\\\r?\n)")
_CELL_MAGIC = re.compile(r"%%(?!\w+\?)")


@dataclass(frozen=True)
class Origin:
    """Where a line of the result comes from: a line of the cell, and what of it is still the same."""

    line: int  # of the cell, from 0
    shift: int  # columns taken away at its beginning
    kept: int | None = None  # columns of the result that are as typed; None for all
    end_line: int = 0  # of what was replaced
    end_column: int = 0


@dataclass(frozen=True)
class CellMagic:
    """A cell whose first line begins with `%%`: the rest is not Python, or not yet."""

    name: str  # with its signs
    line: str  # behind the name
    body: str
    at: Origin


@dataclass(frozen=True)
class Transformed:
    """The cell as Python."""

    source: str
    lines: tuple[str, ...]  # of the cell, as IPython splits them
    count: int  # of the cell's lines, as Python does
    origins: tuple[Origin, ...]  # of each line of `source`
    magic: CellMagic | None = None

    def place(self, place: Place) -> Place:
        """Where something in `source` stood in the cell."""
        if not self.origins:
            return Place(1, 0, 1, 0)
        begin = self._point(place.line, place.column, at_end=False)
        end = self._point(place.end_line, place.end_column, at_end=True)
        return Place(*begin, *max(begin, end))

    def changed(self, place: Place) -> tuple[int, int, str] | None:
        """Of something that the transformers made: line and column in the cell from where on, and what stood there."""
        origin = self.origins[min(place.line, len(self.origins)) - 1] if self.origins else None
        if origin is None or origin.kept is None:
            return None
        column = origin.kept + origin.shift
        text = "".join(self.lines[origin.line : origin.end_line + 1])
        return min(origin.line, self.count - 1) + 1, column, text[column:].rstrip("\n")

    def _point(self, line: int, column: int, *, at_end: bool) -> tuple[int, int]:
        origin = self.origins[max(0, min(line, len(self.origins)) - 1)]
        if origin.kept is None or column < origin.kept or (column == origin.kept and not at_end):
            line, column = origin.line, column + origin.shift
        else:
            line, column = (origin.end_line, origin.end_column) if at_end else (origin.line, origin.kept + origin.shift)
        # IPython also splits at form feeds and their like, and Python does not: behind one, places are near.
        line = min(line, self.count - 1)
        return line + 1, min(column, len(self.lines[line].rstrip("\r\n")))


def is_plain_python(code: str) -> bool:
    """Whether IPython leaves code that parses as Python what it is. All else that it changes does not parse."""
    return not _CHANGED.search(code)


def transform(code: str) -> Transformed:
    """What IPython would run. Raises SyntaxError for what it does not run itself."""
    typed = (code if code.endswith("\n") else code + "\n").splitlines(keepends=True)
    count = len(_LINE_END.findall(code)) + 1
    manager = _manager()
    lines, origins = typed, [Origin(number, 0) for number in range(len(typed))]
    for clean in manager.cleanup_transforms:
        before, lines = lines, clean(lines)
        origins = origins[len(before) - len(lines) :]
        before = before[len(before) - len(lines) :]
        origins = [
            Origin(origin.line, origin.shift + max(0, len(old) - len(new)))
            for origin, old, new in zip(origins, before, lines)
        ]
    if lines and _CELL_MAGIC.match(lines[0]):
        name, _, line = lines[0][2:].rstrip().partition(" ")
        return Transformed(
            "", tuple(typed), count, tuple(origins), CellMagic("%%" + name, line, "".join(lines[1:]), origins[0])
        )
    alone = _changed_alone(lines)
    if alone is not None:
        origins = [_changed_line(old, new, at, at, typed) for old, new, at in zip(lines, alone, origins)]
        return Transformed("".join(alone), tuple(typed), count, tuple(origins))
    for _ in range(MAX_CHANGES):
        before = lines
        changed, lines = manager.do_one_token_transform(lines)
        if not changed:
            return Transformed("".join(lines), tuple(typed), count, tuple(origins))
        origins = _after_change(before, lines, origins, typed)
    raise SyntaxError(f"more than {MAX_CHANGES} magics in one cell")


def _changed_alone(lines: list[str]) -> list[str] | None:
    """The same for an ordinary cell, in which each magic is a statement on a line of its own: IPython reads the whole
    cell anew for each, at 2 ms for 50 lines. When the cell parses with `pass` in their places, and is a `pass` there
    and no string, they can be changed one by one. None for all other cells."""
    signs = {number: found[1] for number, line in enumerate(lines, 1) if (found := _SIGN.match(line))}
    masked = [f"{signs[number]}pass\n" if number in signs else line for number, line in enumerate(lines, 1)]
    if not all(line.endswith("\n") for line in lines):  # lines that Python does not count
        return None
    try:
        tree = ast.parse("".join(masked))
    except (SyntaxError, ValueError):
        return None
    passes = {(node.lineno, node.col_offset) for node in _statements(tree) if isinstance(node, ast.Pass)}
    if not all((number, len(indent)) in passes for number, indent in signs.items()):
        return None
    changed = [_manager().do_token_transforms([line]) if n in signs else [line] for n, line in enumerate(lines, 1)]
    return [line for (line,) in changed] if all(len(made) == 1 for made in changed) else None


def _statements(tree: ast.Module) -> Iterator[Any]:
    work: list[Any] = [tree]
    while work:
        node = work.pop()
        yield node
        for inside in ("body", "orelse", "finalbody", "handlers", "cases"):
            work.extend(getattr(node, inside, ()))


def _after_change(before: list[str], after: list[str], origins: list[Origin], typed: list[str]) -> list[Origin]:
    """One change makes one line out of one or more; all lines before and behind stay."""
    at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after)))
    if at >= len(after):
        return origins[: len(after)]
    count = len(before) - len(after) + 1  # lines that became one
    begin, last = origins[at], origins[min(at + count, len(origins)) - 1]
    return [*origins[:at], _changed_line(before[at], after[at], begin, last, typed), *origins[at + count :]]


def _changed_line(before: str, after: str, begin: Origin, last: Origin, typed: list[str]) -> Origin:
    if before == after:
        return begin
    kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after)))
    return Origin(begin.line, begin.shift, kept, last.line, len(typed[last.line].rstrip("\n")))


@cache
def _manager() -> Any:  # IPython types it in part only
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager()  # type: ignore[no-untyped-call]  # its own stub has no type
