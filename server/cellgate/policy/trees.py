"""Syntax trees by tree-sitter: grammars loaded when a language is first asked for, places in characters, and what is
seen in a tree of any language (nesting, long literals, where parsing failed).

Nothing here recurses: nodes come from a query in the order of the text, however deep the tree is. How long a parser
takes over text that is no code is for whoever calls to bound, from outside: some thousand quotes cost seconds.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tree_sitter import Language, Node, Parser, Query, QueryCursor

from cellgate.errors import PolicyError
from cellgate.policy.facts import Bounds, Kind, Place, Seen

__all__ = ["LANGUAGES", "Tree", "is_installed", "parse", "unescaped"]

# Where each grammar is: a module, and the function in it that gives the grammar.
LANGUAGES = {
    "bash": ("tree_sitter_bash", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "r": ("tree_sitter_language_pack.bindings.r", "language"),  # there is none by itself; the extra `r` brings it
    "ruby": ("tree_sitter_ruby", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
}
_CLOSING = frozenset(")]}")
_BRACKETS = '["(" ")" "[" "]" "{" "}"] @seen'
_BROKEN = "[(ERROR) (MISSING)] @seen"


def is_installed(language: str) -> bool:
    """Whether its grammar is; nothing is loaded for the answer."""
    package, *within = LANGUAGES[language][0].split(".")
    spec = find_spec(package)
    places = (spec and spec.submodule_search_locations) or ()
    return spec is not None and (not within or any(any(Path(place).glob("/".join(within) + ".*")) for place in places))


@dataclass
class Tree:
    """One piece of code, parsed."""

    root: Node
    source: bytes
    _late: list[int]  # where in `source` bytes stand that are no character's first
    depth: int = 0  # brackets within brackets

    def nodes(self, language: str, kinds: frozenset[str]) -> list[Node]:
        """Those of these kinds, in the order of the text, the outer before the inner."""
        found = QueryCursor(_query(language, kinds)).captures(self.root).get("seen", [])
        return sorted(found, key=lambda node: (node.start_byte, -node.end_byte))

    def place(self, node: Node, end: Node | None = None) -> Place:
        """Where a node stands, or all from it to the end of another."""
        (line, column), (end_line, end_column) = node.start_point, (end or node).end_point
        if self._late:
            column = self._characters(node.start_byte, column)
            end_column = self._characters((end or node).end_byte, end_column)
        return Place(line + 1, column, end_line + 1, end_column)

    def _characters(self, offset: int, column: int) -> int:
        return column - (bisect_left(self._late, offset) - bisect_left(self._late, offset - column))

    def sizes(self, language: str, strings: Iterable[Node], bounds: Bounds) -> Iterator[Seen]:
        """What is too large, and where the text is no code. Notes how deep the brackets are."""
        depth, deepest = 0, self.root
        for node in self.nodes(language, frozenset((_BRACKETS,))):
            if node.type in _CLOSING:
                depth -= depth > 0
            else:
                depth += 1
                if depth > self.depth:
                    self.depth, deepest = depth, node
        if self.depth > bounds.nesting:
            yield Seen(Kind.LARGE, "nesting", self.place(deepest), str(self.depth), language)
        for node in strings:
            if (size := node.end_byte - node.start_byte) > bounds.literal_bytes:
                yield Seen(Kind.LARGE, "literal_bytes", self.place(node), str(size), language)
        if self.root.has_error:
            for node in self.nodes(language, frozenset((_BROKEN,)))[:1]:
                yield Seen(Kind.UNPARSED, "syntax", self.place(node), "this", language)


def parse(code: str, language: str) -> Tree:
    """The tree of a piece of code; text that is no code has one too. Raises PolicyError."""
    source = code.encode("utf-8", "replace")  # a lone surrogate becomes one `?`, so that columns stay
    try:
        root = _parser(language).parse(source).root_node
    except ValueError as error:
        raise PolicyError(f"the {language} parser gave it up") from error
    late = [] if code.isascii() else [match.start() for match in _LATE.finditer(source)]
    return Tree(root, source, late)


_LATE = re.compile(rb"[\x80-\xbf]")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|([0-7]{1,3})|(.))", re.DOTALL)


def unescaped(text: str) -> str:
    """What a literal says whose characters may be written by their numbers, as most languages write them."""
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(escape: re.Match[str]) -> str:
    x, u, braced, octal, other = escape.groups()
    if other is not None:
        return str(other)
    number = int(octal, 8) if octal else int(x or u or braced, 16)
    return chr(number) if number < 0x110000 else "?"


@cache
def _language(language: str) -> Language:
    module, function = LANGUAGES[language]
    return Language(getattr(import_module(module), function)())


@cache
def _parser(language: str) -> Parser:
    return Parser(_language(language))


@cache
def _query(language: str, kinds: frozenset[str]) -> Query:
    """A query for kinds of nodes, or for what is a query already."""
    plain = " ".join(f"({kind})" for kind in sorted(kinds) if kind.isidentifier())
    others = " ".join(kind for kind in kinds if not kind.isidentifier())
    query: Query = Query(_language(language), f"[{plain}] @seen {others}" if plain else others)
    return query
