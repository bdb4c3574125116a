"""SPECIFICATION.md as data: its promises, what shows each, and the targets of the benches as their code says them.

`python -m tests.docs.specification` writes the targets into the document.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.__main__ import FIGURES

__all__ = ["BEGIN", "DOCUMENT", "END", "NOT_YET", "Promise", "promises", "targets", "targets_as_markdown"]

DOCUMENT = Path(__file__).parents[2] / "SPECIFICATION.md"
BEGIN = "<!-- targets: rendered from tests/bench by tests/docs/specification.py; a test compares -->\n"
END = "<!-- end of targets -->"
NOT_YET = "**not yet shown**"


@dataclass(frozen=True)
class Promise:
    section: str
    sentence: str
    shown_by: tuple[str, ...]  # tests by path and name, benches, rows; or NOT_YET alone


def promises(text: str) -> Iterator[Promise]:
    """Each item of a list, with the items beneath it."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        for item in re.split(r"^- ", body, flags=re.MULTILINE)[1:]:
            sentence, *shown = re.split(r"^  - ", item.partition("\n\n")[0], flags=re.MULTILINE)
            yield Promise(title, " ".join(sentence.split()), tuple(word.strip().strip("`") for word in shown))


@dataclass(frozen=True)
class Target:
    figure: str
    row: str
    unit: str
    wanted: str


def targets() -> Iterator[Target]:
    """Of every figure, read from its module's code: what depends on a run stands there as `…`."""
    for figure, how in FIGURES.items():
        source = Path(inspect.getfile(inspect.unwrap(how.measure)))
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and node.args:
                for keyword in node.keywords:
                    if keyword.arg == "target":
                        row, unit = (_text(argument).lstrip("- ") for argument in node.args[:2])
                        yield Target(figure, row, unit, _wanted(keyword.value, source.name))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"


def _wanted(node: ast.expr, module: str) -> str:
    try:
        wanted: Mapping[str, float] = ast.literal_eval(node)
    except ValueError:
        return f"as `{module}` has it for each"
    return ", ".join(f"{name} {value:g}" for name, value in wanted.items())


def targets_as_markdown() -> str:
    rows = sorted({(f"`{target.figure}`", target.row, target.unit, target.wanted) for target in targets()})
    lines = ["| bench | row | unit | target |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + targets_as_markdown() + END + rest.partition(END)[2])
