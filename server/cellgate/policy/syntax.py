"""Reads every language but Python and the shell: one interpreter over the tables of `grammars`.

Names are followed through imports, assignments and constant strings, in the whole text and not line by line: what a
name was bound to anywhere, it may mean everywhere. Text inside strings and comments is no code, except where a string
is handed to a shell or an evaluator. Knows neither rules nor policies.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from tree_sitter import Node

from cellgate.policy import shell, trees
from cellgate.policy.facts import MAX_TEXT_CHARS, Bounds, Kind, Place, Reading, Seen
from cellgate.policy.grammars import GRAMMARS, MAX_LEAVES, Link, module_of_javascript, text

__all__ = ["READERS", "read"]

MAX_LINKS: Final = 64  # of one chain `a.b().c` make its name, those next to its root
MAX_CALLEE_BYTES: Final = 100  # what loads modules has a short name
MAX_STEPS: Final = 8  # from a name to what it was bound to, and on; people go one or two
MAX_MEANINGS: Final = 16  # of one name
MAX_WORDS: Final = 64  # of one command in a list of strings, and of one sum of strings
MAX_INSIDE: Final = 3  # code in a string in code in a string
_SELF: Final = frozenset(("this", "self"))
_LISTS: Final = frozenset(("expression_list", "left_assignment_list", "right_assignment_list"))
_ASSIGNS_RIGHT: Final = frozenset(("<-", "<<-", "=", ":="))  # in R, where assignments are operators
_ASSIGNS_LEFT: Final = frozenset(("->", "->>"))
_CLOSED: Final = frozenset(("parameter_list", "parameters", "formal_parameters", "argument_list", "arguments"))
_INTERPOLATED: Final = frozenset(("interpolation", "template_substitution"))


class _Target(NamedTuple):
    """What a name was bound to: a full name, or the meaning of an expression and something of it."""

    value: str | Node
    behind: str = ""


class _Segment(NamedTuple):
    """One part of a chain behind its root."""

    name: str
    sign: str
    node: Node | None  # None for a call alone


def read(code: str, bounds: Bounds, language: str) -> Reading:
    """All that is seen in a piece of code. Raises PolicyError."""
    return _Reader(code, bounds, language, MAX_INSIDE).read()


class _Reader:
    """Reads one text once."""

    def __init__(self, code: str, bounds: Bounds, language: str, inside: int) -> None:
        self._bounds = bounds
        self._language = language
        self._inside_left = inside
        self._grammar = GRAMMARS[language]
        self._tree = trees.parse(code, language)
        self._nodes = self._tree.nodes(language, self._grammar.kinds)
        self._facts: list[Seen] = []
        self._bound: dict[str, list[_Target]] = {}
        self._defined: set[str] = set()  # at the top of the text: nothing else can be meant
        self._modules: set[str] = set()
        self._meant: dict[str, tuple[str, ...]] = {}
        self._mentioned: dict[str, tuple[str, ...]] = {}
        self._told: set[int] = set()  # where nodes begin that were read with another

    def read(self) -> Reading:
        strings = [node for node in self._nodes if node.type in self._grammar.strings]
        self._facts.extend(self._tree.sizes(self._language, strings, self._bounds))
        self._learn()
        skip = 0  # to the end of an import
        for node in self._nodes:
            if node.start_byte >= skip:
                if node.type in self._grammar.imports:
                    skip = self._tell_imports(node)
                else:
                    self._tell(node)
        facts = sorted(self._facts, key=lambda seen: seen.place[:2])
        return Reading(tuple(facts), self._tree.root.descendant_count, self._tree.depth)

    def _say(self, kind: Kind, name: str, place: Place, said: str = "") -> None:
        self._facts.append(Seen(kind, name, place, said[:MAX_TEXT_CHARS], self._language))

    # -- what names are bound to -----------------------------------------------------------------------

    def _learn(self) -> None:
        grammar = self._grammar
        for child in self._tree.root.named_children:
            if child.type in grammar.definitions:
                self._defined.update(
                    text(leaf) for leaf, _ in self._leaves(_field(child, grammar.definitions[child.type]))
                )
        for node in self._nodes:
            kind = node.type
            if kind in grammar.imports:
                for found in grammar.imports[kind](node):
                    self._modules.add(found.module)
                    for name, full in found.binds.items():
                        self._bound.setdefault(name, []).append(_Target(full))
            elif kind in grammar.binds:
                self._bind(node, *grammar.binds[kind])
            elif kind in grammar.definitions:
                self._bind_all(_field(node, grammar.definitions[kind]), None)
            elif kind in grammar.holders:
                for child in node.named_children:
                    self._bind_all(child, None)

    def _bind(self, node: Node, pattern_field: str, value_field: str) -> None:
        value = _field(node, value_field) if value_field else None
        patterns = node.children_by_field_name(pattern_field) if pattern_field else [node]
        if self._language == "r" and node.type == "binary_operator":
            operator = _field(node, "operator")
            sign = text(operator) if operator else ""
            if sign in _ASSIGNS_LEFT and patterns and value is not None:
                patterns, value = [value], patterns[0]
            elif sign not in _ASSIGNS_RIGHT:
                return
        for pattern in patterns:
            if pattern.type == "variable_declarator" and value_field == "type":
                pattern = _field(pattern, "name") or pattern
            if pattern.type in _LISTS and value is not None and value.type in _LISTS:
                for one, other in zip(pattern.named_children, value.named_children):
                    self._bind_all(one, other)
            elif pattern.type not in self._grammar.binds:  # or it binds by itself
                self._bind_all(pattern, value)

    def _bind_all(self, pattern: Node | None, value: Node | None) -> None:
        if pattern is None or pattern.type in self._grammar.links or pattern.type in self._grammar.subscripts:
            return  # an attribute of something is bound, and no name
        leaves = list(self._leaves(pattern))
        for leaf, behind in leaves:
            self._told.add(leaf.start_byte)
            targets = self._bound.setdefault(self._name(leaf), [])
            if value is not None and (len(leaves) == 1 or behind):
                targets.append(_Target(value, behind))

    def _leaves(self, pattern: Node | None) -> Iterator[tuple[Node, str]]:
        """The names that a pattern binds, and of each what of the value it takes."""
        waiting = [(pattern, "")] if pattern else []
        for _ in range(MAX_LEAVES):
            if not waiting:
                return
            node, behind = waiting.pop()
            if node.type == "shorthand_property_identifier_pattern":
                yield node, f"{behind}.{text(node)}"
            elif node.type in self._grammar.names or node.type == "type_identifier":
                yield node, behind
            elif node.type == "pair_pattern":
                key, value = _field(node, "key"), _field(node, "value")
                if key is not None and value is not None:
                    waiting.append((value, f"{behind}.{text(key)}"))
            elif node.type == "assignment_pattern" and (left := _field(node, "left")):
                waiting.append((left, behind))
            elif node.type not in _CLOSED:
                waiting.extend((child, behind) for child in reversed(node.named_children[:MAX_LEAVES]))

    # -- what a name, or a chain, means ----------------------------------------------------------------

    def _name(self, node: Node) -> str:
        name = text(node)
        return trees.unescaped(name) if "\\" in name else name.strip("`")

    def _chain(
        self, node: Node, *, gives: bool, told: set[int] | None = None
    ) -> tuple[Node | str | None, list[_Segment]]:
        """The root of a chain, and what is taken of it, the last first; None for a root that cannot be seen. A call
        means what it gives, or what is called. With `told` all of the chain is followed, and where its parts begin is
        added there; else only its last part, because every part of it may be asked for."""
        grammar, segments = self._grammar, list[_Segment]()
        while told is not None or len(segments) < MAX_LINKS:
            kind = node.type
            if told is not None:
                told.add(node.start_byte)
            below: Node | None = None
            if kind in grammar.links:
                link = grammar.links[kind]
                below, name = _ends(node, link)
                if link.is_call and (segments or gives):
                    segments.append(_Segment("()", "", None))
                if name is not None:
                    if told is not None:
                        told.add(name.start_byte)
                    if below is None:  # `system "ls"`, `::system`
                        return self._name(name), segments
                    segments.append(_Segment(self._name(name), link.sign, name))
            elif kind in grammar.calls:
                if segments or gives:
                    if module := self._loaded(node):
                        return module, segments
                    segments.append(_Segment("()", "", None))
                below = _field(node, grammar.calls[kind])
            elif kind in grammar.subscripts:
                object_field, index_field = grammar.subscripts[kind]
                index = _field(node, index_field)
                literal = self._literal(index) if index else None
                if literal is None:
                    return None, segments
                segments.append(_Segment(literal, ".", index))
                below = _field(node, object_field)
            elif kind in grammar.wraps and node.named_child_count:
                below = node.named_children[grammar.wraps[kind]]
            else:
                return node, segments
            if below is None:
                return None, segments
            node = below
        return None, segments

    def _names(self, node: Node, *, called: bool, steps: int = 0) -> tuple[str, ...]:
        """What an expression may mean. A name that is bound to what nobody knows means itself where it is called:
        a parameter that is called like a builtin somewhere says nothing of elsewhere."""
        return self._names_of(*self._chain(node, gives=True), called=called, steps=steps)

    def _names_of(
        self, root: Node | str | None, segments: list[_Segment], *, called: bool, steps: int = 0
    ) -> tuple[str, ...]:
        segments = segments[-MAX_LINKS:]
        if isinstance(root, Node):
            if root.type in _SELF and segments and segments[-1].node is not None:
                root = segments.pop().name
            elif root.type in self._grammar.names:
                root = self._name(root)
            elif called and root.type in self._grammar.strings and not segments:
                root = self._literal(root)  # in R: "system"("ls")
            else:
                return ()
        if root is None:
            return ()
        behind = "".join(segment.sign + segment.name for segment in reversed(segments))
        meanings = self._meanings(root, steps) or (
            (root,) if called and not behind and root not in self._defined else ()
        )
        return tuple(dict.fromkeys(self._plain(meaning + behind) for meaning in meanings))

    def _meanings(self, name: str, steps: int) -> tuple[str, ...]:
        if name in self._meant:
            return self._meant[name]
        if name in self._defined or steps > MAX_STEPS:
            return ()
        targets = self._bound.get(name)
        if targets is None:
            return (name,)
        self._meant[name] = (name,)  # what is bound to itself
        found: dict[str, None] = {}
        for value, behind in targets:
            meanings = (value,) if isinstance(value, str) else self._names(value, called=False, steps=steps + 1)
            found.update((meaning + behind, None) for meaning in meanings)
            if len(found) >= MAX_MEANINGS:
                break
        self._meant[name] = tuple(found)
        return self._meant[name]

    def _plain(self, name: str) -> str:
        """Without what may be said before it and means nothing, or may be left out."""
        implied = self._grammar.implied
        while name.startswith(implied) and name not in implied:
            name = name[next(len(one) for one in implied if name.startswith(one)) :]
        if self._language == "java" and name.startswith(("java.", "javax.", "jdk.", "sun.")):
            parts = name.split(".")
            first = next((index for index, part in enumerate(parts) if part[:1].isupper()), 0)
            name = ".".join(parts[first:])
        return name

    def _literal(self, node: Node) -> str | None:
        """What a string says, or a sum of strings, when only constants are in it."""
        parts, waiting = list[str](), [node]
        for _ in range(MAX_WORDS):
            if not waiting:
                return "".join(parts)
            one = waiting.pop()
            if one.type in self._grammar.sums and text(_field(one, "operator") or one)[:1] in ("+", '"', "'"):
                waiting.extend(reversed(one.named_children))
            elif one.type in self._grammar.wraps and one.named_child_count:
                waiting.append(one.named_children[self._grammar.wraps[one.type]])
            elif one.type in self._grammar.strings or one.type in self._grammar.signs:
                if any(child.type in _INTERPOLATED for child in one.named_children):
                    return None
                parts.append(self._said(one))
            else:
                return None
        return None

    def _said(self, string: Node) -> str:
        inner = string.named_children
        if not inner:
            return text(string).strip("\"'`:")
        said = self._tree.source[inner[0].start_byte : inner[-1].end_byte].decode("utf-8", "replace")
        return said if "raw" in string.type else trees.unescaped(said)

    # -- what is told ------------------------------------------------------------------------------------

    def _tell_imports(self, node: Node) -> int:
        """Where the import ends, if it is one. Which names it brings when it takes all, nobody knows here."""
        end = 0
        for found in self._grammar.imports[node.type](node):
            end = node.end_byte
            if found.module:
                kind = Kind.STAR_IMPORT if found.takes_all else Kind.IMPORT
                self._say(kind, self._plain_module(found.module), self._tree.place(node))
        return end

    def _tell(self, node: Node) -> None:
        grammar, kind = self._grammar, node.type
        if kind in grammar.strings:
            self._tell_text(node)
        if kind in grammar.signs:
            self._say(
                Kind.USE, grammar.signs[kind], self._tree.place(node, node.children[0] if node.children else None)
            )
            if grammar.signs[kind] in grammar.takes:
                self._tell_shell(self._literal(node), node)
        elif kind in grammar.raw:
            self._tell_raw(node)
        elif kind in grammar.names:
            if node.start_byte not in self._told:
                self._tell_name(node)
        elif kind in grammar.links or kind in grammar.calls or kind in grammar.subscripts:
            if kind in grammar.subscripts:
                self._tell_subscript(node)
            if self._is_call(node) and grammar.takes:
                self._tell_taken(node)
            if node.start_byte not in self._told:
                self._tell_chain(node)

    def _tell_name(self, node: Node) -> None:
        """One that stands alone, as most do."""
        name = self._name(node)
        meanings = self._mentioned.get(name)
        if meanings is None:
            found = (self._plain(meaning) for meaning in self._meanings(name, 0))
            meanings = self._mentioned[name] = tuple(dict.fromkeys(found))
        if meanings:
            place = self._tree.place(node)
            for meaning in meanings:
                self._say(Kind.USE, meaning, place)

    def _tell_chain(self, node: Node) -> None:
        grammar = self._grammar
        called = self._is_call(node)
        root, segments = self._chain(node, gives=False, told=self._told)
        names = self._names_of(root, segments, called=called)
        place = self._tree.place(node, self._end(node))
        for name in names:
            self._say(Kind.USE, name, place)
        if grammar.attributes:
            for segment in segments:
                if segment.node is not None:
                    self._say(Kind.ATTRIBUTE, segment.name, self._tree.place(segment.node))

    def _is_call(self, node: Node) -> bool:
        link = self._grammar.links.get(node.type)
        return node.type in self._grammar.calls or (link is not None and link.is_call)

    def _end(self, node: Node) -> Node:
        """The last of what is called or named, before any arguments."""
        if node.type in self._grammar.calls:
            return _field(node, self._grammar.calls[node.type]) or node
        link = self._grammar.links.get(node.type)
        return (link and _ends(node, link)[1]) or node

    def _tell_taken(self, call: Node) -> None:
        """What a call's arguments say, where they say what is loaded, called or run."""
        takes = self._grammar.takes
        end_node = self._end(call)
        link = self._grammar.links.get(end_node.type)
        end_node = (link and _ends(end_node, link)[1]) or end_node
        end = self._name(end_node) if end_node.end_byte - end_node.start_byte <= MAX_CALLEE_BYTES else ""
        if end not in self._grammar.takers and not self._bound.get(end):
            return
        names = self._names_of(*self._chain(call, gives=False), called=True)
        how = next((takes[name] for name in (*names, "." + end) if name in takes), None)
        first = next(iter(self._arguments(call)), None)
        if how is None or first is None:
            return
        literal, place = self._literal(first), self._tree.place(first)
        if how in ("module", "package"):
            if literal is None and how == "package" and first.type in self._grammar.names:
                literal = self._name(first)
            if literal is None:
                return self._say(Kind.COMPUTED, "import", place)
            self._modules.add(literal)
            self._say(Kind.IMPORT, self._plain_module(literal), place)
        elif how in ("name", "function", "attribute"):
            if literal is not None:
                self._say(Kind.ATTRIBUTE if how == "attribute" else Kind.USE, self._plain(literal), place)
            elif how != "function" or first.type in self._grammar.calls:
                self._say(Kind.COMPUTED, "getattr", place)
        elif how == "code":
            if literal is not None and self._inside_left:
                inner = _Reader(literal, self._bounds, self._language, self._inside_left - 1).read()
                self._facts.extend(seen._replace(place=place) for seen in inner.facts if seen.kind is not Kind.UNPARSED)
        elif how == "argv":
            words = list(self._words(call))
            self._tell_shell(shlex.join(words) if len(words) > 1 else literal, first)
        elif how == "program":
            self._tell_shell(literal and shlex.quote(literal), first)
        else:
            self._tell_shell(literal, first)

    def _tell_shell(self, line: str | None, node: Node) -> None:
        if line is not None:
            place = self._tree.place(node)
            inner = shell.read(line, self._bounds)
            self._facts.extend(seen._replace(place=place) for seen in inner.facts if seen.kind is not Kind.UNPARSED)

    def _tell_text(self, node: Node) -> None:
        end = min(node.end_byte, node.start_byte + MAX_TEXT_CHARS)
        said = self._tree.source[node.start_byte : end].decode("utf-8", "replace")
        if "/" in said or "." in said:
            self._say(Kind.TEXT, "", self._tree.place(node), trees.unescaped(said.strip("\"'`")))

    def _tell_subscript(self, node: Node) -> None:
        """Something of a module, or of what holds all names, that only running tells."""
        object_field, index_field = self._grammar.subscripts[node.type]
        owner, index = _field(node, object_field), _field(node, index_field)
        if owner is None or index is None or self._literal(index) is not None:
            return
        owners = {*self._names(owner, called=False), text(owner)}
        if owners & self._modules or any(f"{one}." in self._grammar.implied or one == "process" for one in owners):
            self._say(Kind.COMPUTED, "getattr", self._tree.place(node))

    def _tell_raw(self, node: Node) -> None:
        """Of the tokens of a Rust macro the paths among them; of the text of a C macro all that is in it."""
        if node.type == "preproc_arg":
            if self._inside_left:
                inner = _Reader(text(node), self._bounds, self._language, self._inside_left - 1).read()
                place = self._tree.place(node)
                self._facts.extend(seen._replace(place=place) for seen in inner.facts if seen.kind is not Kind.UNPARSED)
            return
        path: list[Node] = []
        before = ""
        for token in [*node.children, None]:
            if token is not None and token.type in self._grammar.names and before != ".":
                path.append(token)
                self._told.add(token.start_byte)
            elif path and (token is None or token.type != "::"):
                root, *rest = (self._name(part) for part in path)
                place = self._tree.place(path[0], path[-1])
                for meaning in self._meanings(root, 0):
                    self._say(Kind.USE, self._plain("::".join((meaning, *rest))), place)
                path = []
            before = token.type if token is not None else ""

    # -- arguments -----------------------------------------------------------------------------------------

    def _arguments(self, call: Node) -> Iterator[Node]:
        for child in (_field(call, "arguments") or call).named_children[:MAX_WORDS]:
            if child.type == "argument":  # in R, where they may have names
                if value := _field(child, "value"):
                    yield value
            elif child.type != "comment":
                yield child

    def _words(self, call: Node) -> Iterator[str]:
        """Of a command that is given as a list of strings, those before the first that is none."""
        for argument in self._arguments(call):
            for part in argument.named_children[:MAX_WORDS] if argument.type == "array" else [argument]:
                word = self._literal(part)
                if word is None:
                    return
                yield word

    def _loaded(self, call: Node) -> str | None:
        """The module that a call gives: `require("x")`."""
        callee = _field(call, self._grammar.calls[call.type])
        if callee is None or callee.end_byte - callee.start_byte > MAX_CALLEE_BYTES:
            return None
        if self._grammar.takes.get(self._plain(text(callee))) != "module":
            return None
        first = next(iter(self._arguments(call)), None)
        literal = self._literal(first) if first else None
        return literal and self._plain_module(literal)

    def _plain_module(self, name: str) -> str:
        return module_of_javascript(name) if self._language in ("javascript", "typescript") else name


def _field(node: Node, name: str) -> Node | None:
    return node.child_by_field_name(name)


def _ends(node: Node, link: Link) -> tuple[Node | None, Node | None]:
    """The object and the name of a link."""
    if link.object:
        return _field(node, link.object), _field(node, link.name)
    children = node.named_children
    return (children[0], children[-1]) if len(children) > 1 else (None, children[0] if children else None)


# By language; one whose grammar is not installed is not among them.
READERS: dict[str, Callable[[str, Bounds], Reading]] = {
    language: partial(read, language=language) for language in GRAMMARS if trees.is_installed(language)
}
