"""Reads Python cells: what IPython makes of them, then the syntax tree, then the names, followed through imports,
assignments and expressions of literals to what they stand for.

It follows names without regard to when and where they are bound: a name that stands for `os.system` anywhere in a
cell may be it everywhere. A builtin is something else only where that is certain. Knows no rules. What it cannot see
is what only running tells: what a function returns, what earlier cells left behind, what an object is.
"""

from __future__ import annotations

import ast
import builtins
import re
import shlex
import string
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, takewhile
from operator import attrgetter
from typing import Any, TypeAlias

from cellgate.policy import shell, syntax
from cellgate.policy.facts import MAX_TEXT_CHARS, Bounds, Kind, Place, Reading, Seen
from cellgate.policy.folding import Folder
from cellgate.policy.ipython import CellMagic, Transformed, is_plain_python, transform
from cellgate.policy.names import ALIASES, CODE_TAKERS, LEADING_OUT, MAGICS, MODULES, ROOTS, SHELL_TAKERS

__all__ = ["nesting", "read"]

MAX_LEVELS = 5  # of code in strings in code; people write one
MAX_MEANINGS = 16  # of one expression; a name bound to more things is noted as one that cannot be followed
MAX_DOTTED_CHARS = 200  # of a name in full
MAX_RESOLVING = 40  # expressions within expressions while one name is followed
INSIDE_FACTOR = 4  # code in strings may be so many times as long as the cell: one string may be run more than once

MAX_HIDDEN = 100  # characters that are told; to find a place takes reading all before it
MAX_OPTIONS = 12  # of a magic, with their values

_BUILTINS = frozenset(dir(builtins)) | {"get_ipython"}
_SPECIAL = _BUILTINS | ALIASES.keys() | ROOTS  # names that mean something unless the cell says otherwise
_USE, _ATTRIBUTE = Kind.USE, Kind.ATTRIBUTE
_HIDDEN = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DOLLAR = re.compile(r"\$([A-Za-z_][\w.]*)")
_BRACKETS = re.compile(r"""[()\[\]{}#]|'''|\"""|['"]""")
_NO_BRACKETS = re.compile(r"[^()\[\]{}]+")
_STRING_ENDS = {
    quote: re.compile(rf"\\.|{quote}" if len(quote) == 3 else rf"\\.|{quote}|\n", re.DOTALL)
    for quote in ("'", '"', "'''", '"""')
}
# A lone line that IPython takes for a magic without its `%`: a magic's name, and no assignment. What looks like a call
# or like an attribute is more likely one, of a variable with that name, but for the shell's.
_AUTOMAGIC = re.compile(r"\s*(system\b|sx\b|sc\b|\w+(?![\w.(\[]))(?!\s*[=,])\s*(.*?)\s*\Z")


_IMPORTERS = frozenset(
    ("__import__", "importlib.import_module", "importlib.__import__", "pydoc.locate", "pkgutil.resolve_name")
)
_GETTERS = ("getattr", "object.__getattribute__")
_ATTRIBUTE_TAKERS = frozenset(
    ("getattr", "setattr", "delattr", "hasattr", "object.__getattribute__", "inspect.getattr_static")
)
_BY_KEY = (".get", ".__getitem__", ".pop", ".setdefault")
_MAGIC_CALLS = {  # the sign of it in a cell, and how many arguments are strings
    **{f"get_ipython().{name}": ("!", 1) for name in ("system", "getoutput", "system_raw", "system_piped")},
    "get_ipython().run_line_magic": ("%", 2),
    "get_ipython().magic": ("%", 1),
    "get_ipython().run_cell_magic": ("%%", 3),
}
_FORKS = frozenset(("os.fork", "os.forkpty", "posix.fork", "posix.forkpty"))

_LEAVES = frozenset(
    ("ctx", "op", "ops", "id", "attr", "kind", "type_comment", "level", "conversion", "simple", "module", "rest")
)
_FIELDS: dict[type, tuple[str, ...]] = {}
_Work: TypeAlias = "list[Any]"  # nodes, and what else lists of a tree hold
Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda"


def read(code: str, bounds: Bounds) -> Reading:
    """All that is seen in a cell. What does not parse is one fact that says so. Raises nothing of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel tells of them
        return _read(code, _Context(bounds, INSIDE_FACTOR * len(code) + MAX_TEXT_CHARS), lambda place: place)


@dataclass
class _Context:
    """What the readers of one cell, and of the code in its strings, share."""

    bounds: Bounds
    chars_left: int  # that code in strings may still have
    level: int = 0
    read: set[tuple[str, str]] = field(default_factory=set)  # code in strings; one that is run twice is read once


def _read(code: str, context: _Context, place: Callable[[Place], Place]) -> Reading:
    facts: list[Seen] = []
    lines = _lines(code)
    facts.extend(
        Seen(Kind.PATTERN, "hidden_text", place(_place_at(lines, code, found.start())), f"U+{ord(found[0]):04X}")
        for found in islice(_HIDDEN.finditer(code), MAX_HIDDEN)
    )
    depth = nesting(code)
    if depth > context.bounds.nesting:
        depth, where = _nesting_of_code(code)
        if depth > context.bounds.nesting:
            facts.append(Seen(Kind.LARGE, "nesting", place(_place_at(lines, code, where)), str(depth)))
            return Reading(tuple(facts), depth=depth)
    try:
        nodes, found = _read_cell(code, context, place)
    except SyntaxError as error:
        nodes, found = 0, [Seen(Kind.UNPARSED, "syntax", place(_place_of_error(error, lines)), str(error.msg))]
        found.extend(_automagic(code, context, place))
    except (RecursionError, MemoryError):  # the parser's own bounds, met by chains of operators
        nodes, found = 0, [Seen(Kind.LARGE, "nesting", place(Place(1, 0, len(lines), len(lines[-1]))), "too many")]
    return Reading((*facts, *sorted(found, key=attrgetter("place"))), nodes, depth)


def _read_cell(code: str, context: _Context, place: Callable[[Place], Place]) -> tuple[int, list[Seen]]:
    """Nodes and facts. Raises what the parser raises."""
    if is_plain_python(code):
        try:
            tree = _parse(code)
        except SyntaxError:
            pass
        else:
            seen = _Reader(tree, _lines(code), context, place).facts()
            return seen[0], [*seen[1], *_automagic(code, context, place)]
    try:
        cell = transform(code)
    except ValueError as error:
        raise SyntaxError(str(error)) from error
    if cell.magic is not None:
        return 0, list(_read_cell_magic(cell, cell.magic, context, place))
    return _Reader(
        _parse(cell.source), _lines(cell.source), context, lambda p: place(cell.place(p)), cell, place
    ).facts()


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except ValueError as error:  # a NUL, a lone surrogate; all other errors of this kind are ours, and deny
        raise SyntaxError(str(error)) from error


def _read_cell_magic(
    cell: Transformed, magic: CellMagic, context: _Context, place: Callable[[Place], Place]
) -> Iterator[Seen]:
    first = cell.lines[magic.at.line].rstrip("\n")
    line = magic.at.line + 1
    column = len(first) - len(magic.line)
    yield Seen(Kind.MAGIC, magic.name, place(Place(line, magic.at.shift, line, len(first))), magic.line)
    yield from _read_magic(magic.name, magic.line, context, lambda p: place(_shifted(p, line, column)))
    language = MAGICS[magic.name].body if magic.name in MAGICS else None
    yield from _read_inside(magic.body, language, context, lambda p: place(cell.place(_shifted(p, 2, 0))))


def _automagic(code: str, context: _Context, place: Callable[[Place], Place]) -> Iterator[Seen]:
    """A lone line that begins with the name of a magic is that magic, unless a variable has the name."""
    if len(code) > MAX_TEXT_CHARS or "\n" in code.strip():
        return
    found = _AUTOMAGIC.match(code)
    if found and "%" + found[1] in MAGICS:
        whole = place(Place(1, 0, 1, len(code.rstrip())))
        yield Seen(Kind.MAGIC, "%" + found[1], whole, found[2])
        yield from _read_magic("%" + found[1], found[2], context, lambda _: whole)


def _read_magic(name: str, line: str, context: _Context, place: Callable[[Place], Place]) -> Iterator[Seen]:
    """What stands behind a magic's name. Whatever magic that is, IPython first puts values in for `{…}` and `$…`, and
    for that runs what stands in the braces."""
    begin = place(Place(1, 0, 1, 0))
    for expression in _expanded(line):
        yield from _read_inside(expression, "python", context, lambda _: begin)
    language = MAGICS[name].line if name in MAGICS else None
    code = _without_options(line) if language == "python" else line
    at = len(line) - len(code)
    yield from _read_inside(code, language, context, lambda p: place(_shifted(p, 1, at)))


def _expanded(line: str) -> Iterator[str]:
    try:
        for _, name, specification, _ in string.Formatter().parse(line) if "{" in line else ():
            if name:
                yield f"{name}:{specification}" if specification else name
    except ValueError:  # then IPython lets it be
        return
    yield from _DOLLAR.findall(line)


def _without_options(line: str) -> str:
    """The code behind a magic's options: from the first word on from which it is code."""
    rest = line
    for _ in range(MAX_OPTIONS if line.startswith("-") else 0):
        try:
            ast.parse(rest)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            rest = rest.partition(" ")[2].lstrip()
        else:
            return rest
    return line


def _read_inside(code: str, language: str | None, context: _Context, place: Callable[[Place], Place]) -> Iterator[Seen]:
    """Code within code: a magic's, or that of a string which is run."""
    if language is None or not code.strip() or (language, code) in context.read:
        return
    context.read.add((language, code))
    context.chars_left -= len(code)
    if context.level >= MAX_LEVELS or context.chars_left < 0:
        yield Seen(Kind.LARGE, "nesting", place(Place(1, 0, 1, 0)), f"more than {MAX_LEVELS}")
        return
    context.level += 1
    if language == "python":
        yield from _read(code, context, place).facts
    else:
        read = shell.read if language == "bash" else partial(syntax.read, language=language)
        yield from (seen._replace(place=place(seen.place)) for seen in read(code, context.bounds).facts)
    context.level -= 1


# -- one tree ------------------------------------------------------------------------------------------------


@dataclass
class _Scope:
    """A function, or the cell: which names it binds."""

    parent: _Scope | None = None
    bound: set[str] = field(default_factory=set)  # by a function: its own everywhere in it
    not_bound: set[str] = field(default_factory=set)  # said to be global or nonlocal


class _Reader(Folder):
    """Reads one tree: once to see what is bound and what is looked at, then each of the latter by what it means."""

    def __init__(
        self,
        tree: ast.Module,
        lines: list[str],
        context: _Context,
        place: Callable[[Place], Place],
        cell: Transformed | None = None,
        cell_place: Callable[[Place], Place] | None = None,
    ) -> None:
        super().__init__()
        self._lines = lines
        self._context = context
        self._map = place
        self._cell = cell
        self._cell_place = cell_place or place
        self._is_ascii = all(line.isascii() for line in lines)
        self._bindings: dict[str, list[ast.expr | str]] = {}  # an expression, or a meaning
        self._unsure: set[str] = set()  # bound to what cannot be followed, too
        self._settled: dict[str, int] = {}  # names that the cell's own statements bind for certain: from which line on
        self._deleted: set[str] = set()
        self._waiting: list[tuple[_Work, _Scope]] = []
        self._noted: list[ast.AST] = []
        self._endless: list[ast.While] = []
        self._called: set[int] = set()  # functions of calls that are understood: not told once more
        self._made: set[int] = set()  # what IPython's transformers wrote: not in the cell at all
        self._meanings: dict[int, tuple[str, ...]] = {}
        self._of_names: dict[str, tuple[str, ...]] = {}
        self._scopes: dict[int, _Scope] = {}  # of names, by node
        self._depth = 0
        self._nodes = 0
        self._found: list[Seen] = []
        self._collect(tree)

    def facts(self) -> tuple[int, list[Seen]]:
        for node in self._noted:
            if id(node) not in self._made:
                _EMITTERS[type(node)](self, node)
        self._find_endless_forks()
        return self._nodes, self._found

    # -- what is bound

    def _collect(self, tree: ast.Module) -> None:
        """Every node once, scope by scope. This loop is half of what a verdict costs beside the parser."""
        for statement in tree.body:
            self._settle(statement)
        self._waiting.append(([tree], _Scope()))
        count = 0
        while self._waiting:
            work, scope = self._waiting.pop()
            while work:
                node = work.pop()
                count += 1
                kind: type[ast.AST] = node.__class__
                collect = _COLLECTORS.get(kind)
                if collect is not None and collect(self, node, scope, work):
                    continue
                fields = _FIELDS.get(kind)
                if fields is None:
                    fields = _FIELDS[kind] = tuple(name for name in kind._fields if name not in _LEAVES)
                for name in fields:
                    value = getattr(node, name)
                    if value.__class__ is list:
                        work.extend(value)
                    elif value is not None:
                        work.append(value)
        self._nodes += count

    def _settle(self, statement: ast.stmt) -> None:
        """Names that a statement of the cell itself binds whenever it is reached."""
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value:
            targets = [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            names = [statement.name]
        for name in names:
            self._settled.setdefault(name, statement.end_lineno or statement.lineno)

    def _bind(self, target: ast.AST | None, value: ast.expr | None) -> None:
        """An assignment, taken apart as far as both sides are written out."""
        if isinstance(target, ast.Name):
            if value is None:
                self._unsure.add(target.id)
            else:
                self._bindings.setdefault(target.id, []).append(value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
            same = len(parts) == len(target.elts) and not any(
                isinstance(part, ast.Starred) for part in (*parts, *target.elts)
            )
            for number, part in enumerate(target.elts):
                self._bind(part, parts[number] if same else None)
                if not same and parts:  # `a, *b = os, sys`: any of them
                    for one in parts[:MAX_MEANINGS]:
                        self._bind(part, one)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, value)

    def _collect_name(self, node: ast.Name, scope: _Scope, work: _Work) -> bool:
        name = node.id
        if node.ctx.__class__ is ast.Store:
            scope.bound.add(name)
        elif node.ctx.__class__ is ast.Del:
            self._deleted.add(name)
        elif name in _SPECIAL:
            self._scopes[id(node)] = scope
        self._noted.append(node)
        return True

    def _collect_attribute(self, node: ast.Attribute, scope: _Scope, work: _Work) -> bool:
        """A chain is noted once, at its head; what it hangs on is looked at by itself, unless it is a name."""
        self._noted.append(node)
        base: ast.expr = node.value
        while base.__class__ is ast.Attribute:
            base = base.value
        if isinstance(base, ast.Name):
            if base.id in _SPECIAL:
                self._scopes[id(base)] = scope
        else:
            work.append(base)
        return True

    def _collect_constant(self, node: ast.Constant, scope: _Scope, work: _Work) -> bool:
        if node.value.__class__ in (str, bytes):
            self._noted.append(node)
        return True

    def _note(self, node: ast.AST, scope: _Scope, work: _Work) -> bool:
        self._noted.append(node)
        return False

    def _is_unknown(self, node: ast.AST | None, scope: _Scope, work: _Work) -> bool:
        """What trees hold beside nodes: names of keywords, None where `**` stands, True in a pattern."""
        return True

    def _collect_function(self, node: Function, scope: _Scope, work: _Work) -> bool:
        """The body is a scope of its own; defaults, decorators and annotations belong to the one around."""
        arguments = node.args
        inner = _Scope(scope)
        work.extend([*arguments.defaults, *arguments.kw_defaults])
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in (*every, *(extra for extra in (arguments.vararg, arguments.kwarg) if extra)):
            inner.bound.add(argument.arg)
            self._unsure.add(argument.arg)
            work.append(argument.annotation)
        positional = [*arguments.posonlyargs, *arguments.args]
        pairs = [
            *zip(reversed(positional), reversed(arguments.defaults)),
            *zip(arguments.kwonlyargs, arguments.kw_defaults),
        ]
        for argument, default in pairs:
            if default is not None:
                self._bindings.setdefault(argument.arg, []).append(default)
        if isinstance(node, ast.Lambda):
            self._waiting.append(([node.body], inner))
            return True
        scope.bound.add(node.name)
        self._unsure.add(node.name)
        work.extend([*node.decorator_list, node.returns, *getattr(node, "type_params", ())])
        self._waiting.append((list(node.body), inner))
        return True

    def _collect_class(self, node: ast.ClassDef, scope: _Scope, work: _Work) -> bool:
        """What a class body binds is seen by that body alone; as it may be anything by then, it settles nothing."""
        scope.bound.add(node.name)
        self._unsure.add(node.name)
        work.extend([*node.decorator_list, *node.bases, *node.keywords, *getattr(node, "type_params", ())])
        self._waiting.append((list(node.body), _Scope(scope, bound=_Nothing())))
        return True

    def _collect_comprehension(self, node: ast.comprehension, scope: _Scope, work: _Work) -> bool:
        self._bind_loop(node.target, node.iter)
        work.extend([node.iter, *node.ifs])
        self._waiting.append(([node.target], _Scope(scope, bound=_Nothing())))  # its names are gone behind it
        return True

    def _collect_for(self, node: ast.For | ast.AsyncFor, scope: _Scope, work: _Work) -> bool:
        self._bind_loop(node.target, node.iter)
        return False

    def _bind_loop(self, target: ast.expr, items: ast.expr) -> None:
        for item in items.elts if isinstance(items, (ast.List, ast.Tuple, ast.Set)) else ():
            self._bind(target, item)
        self._bind(target, None)

    def _collect_assign(self, node: ast.Assign, scope: _Scope, work: _Work) -> bool:
        for target in node.targets:
            self._bind(target, node.value)
        return False

    def _collect_one(self, node: ast.AnnAssign | ast.NamedExpr, scope: _Scope, work: _Work) -> bool:
        if node.value is not None:
            self._bind(node.target, node.value)
        return False

    def _collect_augmented(self, node: ast.AugAssign, scope: _Scope, work: _Work) -> bool:
        if isinstance(node.target, ast.Name):
            self._unsure.add(node.target.id)
        return False

    def _collect_with(self, node: ast.withitem, scope: _Scope, work: _Work) -> bool:
        self._bind(node.optional_vars, node.context_expr)
        return False

    def _collect_global(self, node: ast.Global | ast.Nonlocal, scope: _Scope, work: _Work) -> bool:
        scope.not_bound.update(node.names)
        return True

    def _collect_named(self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar, scope: _Scope, work: _Work) -> bool:
        if node.name:
            scope.bound.add(node.name)
            self._unsure.add(node.name)
        return False

    def _collect_while(self, node: ast.While, scope: _Scope, work: _Work) -> bool:
        if isinstance(node.test, ast.Constant) and node.test.value:
            self._endless.append(node)
        return False

    def _collect_import(self, node: ast.Import, scope: _Scope, work: _Work) -> bool:
        self._noted.append(node)
        for alias in node.names:
            bound, meaning = (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
            scope.bound.add(bound)
            self._bindings.setdefault(bound, []).append(meaning)
        return True

    def _collect_import_from(self, node: ast.ImportFrom, scope: _Scope, work: _Work) -> bool:
        self._noted.append(node)
        for alias in node.names:
            if alias.name != "*":
                scope.bound.add(alias.asname or alias.name)
                meaning = _joined(_module_of(node), alias.name)
                self._bindings.setdefault(alias.asname or alias.name, []).append(meaning)
        return True

    # -- what it means

    def expression_of(self, name: str) -> ast.expr | None:
        bound = self._bindings.get(name, ())
        if name in self._unsure or len(bound) != 1 or isinstance(bound[0], str):
            return None
        return bound[0]

    def meanings_of(self, node: ast.expr) -> tuple[str, ...]:
        """The full names that an expression may stand for; none where only running tells."""
        if node.__class__ is ast.Name and node.id not in _SPECIAL:
            return self._of_bound(node.id)
        known = self._meanings.get(id(node))
        if known is not None:
            return known
        resolve = _RESOLVERS.get(node.__class__)
        if resolve is None or self._depth > MAX_RESOLVING:
            return ()
        self._meanings[id(node)] = ()  # of what stands for itself, nothing is known
        self._depth += 1
        found = tuple(resolve(self, node))
        self._depth -= 1
        if len(found) > 1 or (found and len(found[0]) > MAX_DOTTED_CHARS):
            found = tuple(dict.fromkeys(name for name in found if len(name) <= MAX_DOTTED_CHARS))[:MAX_MEANINGS]
        self._meanings[id(node)] = found
        return found

    def _of_name(self, node: ast.Name) -> Iterator[str]:
        """Of a name that is a builtin's or a module's, if nothing else."""
        yield from self._of_bound(node.id)
        scope = self._scopes.get(id(node))
        if scope is None or not self._is_something_else(node, scope):
            yield _canonical(ALIASES.get(node.id, node.id) if node.id not in self._bindings else node.id)

    def _of_bound(self, name: str) -> tuple[str, ...]:
        known = self._of_names.get(name)
        if known is None:
            values = self._bindings.get(name)
            if values is None:
                return ()
            self._of_names[name] = ()
            found: dict[str, None] = {}
            for value in values:
                found.update(dict.fromkeys((value,) if isinstance(value, str) else self.meanings_of(value)))
            self._of_names[name] = known = tuple(found)
        return known

    def _is_something_else(self, node: ast.Name, scope: _Scope) -> bool:
        """Whether a builtin's name is certainly bound to another thing where it is read."""
        function: _Scope | None = scope
        while function is not None and function.parent is not None:
            if node.id in function.bound and node.id not in function.not_bound:
                return True
            function = function.parent
        settled = self._settled.get(node.id)
        return settled is not None and node.lineno > settled and node.id not in self._deleted

    def _of_attribute(self, node: ast.Attribute) -> Iterator[str]:
        for base in self.meanings_of(node.value):
            yield from _attribute(base, node.attr)

    def _of_call(self, node: ast.Call) -> Iterator[str]:
        if isinstance(node.func, ast.Lambda):
            yield from self.meanings_of(node.func.body)
        for function in self.meanings_of(node.func):
            first = node.args[0] if node.args else None
            if function in _IMPORTERS:
                name = self.fold_text(first)
                if name:
                    yield name.partition(".")[0] if function == "__import__" else name
            elif function in _GETTERS and len(node.args) > 1:
                name = self.fold_text(node.args[1])
                for base in self.meanings_of(node.args[0]):
                    yield from _attribute(base, name) if name else ()
            elif function == "vars" and first is not None:
                yield from (base + ".__dict__" for base in self.meanings_of(first))
            elif function.endswith(_BY_KEY) and _is_dict(function.rpartition(".")[0]):
                yield from self._by_key(function.rpartition(".")[0], first)
            elif function in ("globals", "locals", "vars"):
                yield "globals()"
            else:
                yield function + "()"

    def _of_subscript(self, node: ast.Subscript) -> Iterator[str]:
        for base in self.meanings_of(node.value):
            if _is_dict(base):
                yield from self._by_key(base, node.slice)
        for display in self._displays(node.value):
            yield from self._of_item(display, node.slice)

    def _by_key(self, base: str, key: ast.expr | None) -> Iterator[str]:
        name = self.fold_text(key)
        if name is None:
            return
        if base == "sys.modules":
            yield name
        elif base == "globals()":
            yield from self._of_bound(name)
            yield _canonical(name)
        else:
            yield from _attribute(base.removesuffix(".__dict__"), name)

    def _displays(self, node: ast.expr) -> list[ast.expr]:
        if isinstance(node, ast.Name):
            return [value for value in self._bindings.get(node.id, ()) if not isinstance(value, str)][:MAX_MEANINGS]
        return [node]

    def _of_item(self, display: ast.expr, key: ast.expr) -> Iterator[str]:
        """An item of a list or dict that is written out: the one that is asked for, or any."""
        wanted = self.fold(key)
        if isinstance(display, ast.Dict):
            for name, value in zip(display.keys, display.values):
                if wanted is None or name is None or self.fold(name) == wanted:
                    yield from self.meanings_of(value)
        elif isinstance(display, (ast.List, ast.Tuple)):
            items = display.elts
            if isinstance(wanted, int) and -len(items) <= wanted < len(items):
                items = [items[wanted]]
            for item in items[:MAX_MEANINGS]:
                yield from self.meanings_of(item)

    def _of_either(self, node: ast.IfExp | ast.BoolOp) -> Iterator[str]:
        for value in node.values if isinstance(node, ast.BoolOp) else (node.body, node.orelse):
            yield from self.meanings_of(value)

    def _of_inner(self, node: ast.NamedExpr | ast.Await | ast.Starred) -> Iterator[str]:
        yield from self.meanings_of(node.value)

    # -- what is told

    def _emit(self, kind: Kind, name: str, place: Place, text: str = "") -> None:
        self._found.append(Seen(kind, name, place, text))

    def _emit_name(self, node: ast.Name) -> None:
        name = node.id
        if name[0] == "_":
            self._emit(Kind.NAME, name, self._place(node))
        if node.ctx.__class__ is ast.Load and (name in self._bindings or name in _SPECIAL):
            meanings = self.meanings_of(node)
            if meanings and id(node) not in self._called:
                self._emit_uses(meanings, node)

    def _emit_uses(self, meanings: tuple[str, ...], node: ast.expr) -> None:
        place = self._place(node)
        for meaning in meanings:
            self._found.append(Seen(_USE, meaning, place))
            if meaning in _GETTERS:
                self._emit(Kind.COMPUTED, "getattr", place)
        if len(meanings) >= MAX_MEANINGS:
            self._emit(Kind.COMPUTED, "name", place)

    def _emit_attribute(self, node: ast.Attribute) -> None:
        meanings = self.meanings_of(node)
        if meanings and id(node) not in self._called:
            self._emit_uses(meanings, node)
        link: ast.expr = node
        while isinstance(link, ast.Attribute):
            name = link.attr
            base = self.meanings_of(link.value)
            if name[0] == "_" or not base or any(map(_is_no_module, base)):
                place = self._place(link)
                start = max(place.end_column - len(name), 0)
                self._found.append(
                    Seen(_ATTRIBUTE, name, Place(place.end_line, start, place.end_line, place.end_column))
                )
            link = link.value
        if link.__class__ is ast.Name and link.id[0] == "_":
            self._emit(Kind.NAME, link.id, self._place(link))

    def _emit_import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._emit(Kind.IMPORT, alias.name, self._place(alias))

    def _emit_import_from(self, node: ast.ImportFrom) -> None:
        module = _module_of(node)
        place = self._place(node)
        if node.names[0].name == "*":
            self._emit(Kind.STAR_IMPORT, module, place)
            return
        self._emit(Kind.IMPORT, module, place)
        for alias in node.names:
            self._emit(Kind.USE, _joined(module, alias.name), self._place(alias))
            if alias.name.startswith("_"):
                self._emit(Kind.ATTRIBUTE, alias.name, self._place(alias))

    def _emit_call(self, node: ast.Call) -> None:
        """What the call of a known function says beside its name. Calls come before the names in them."""
        for function in self.meanings_of(node.func):
            emit = _CALLS.get(function)
            if emit is not None:
                emit(self, node, function)
            elif function.endswith(_BY_KEY) and _is_dict(function.rpartition(".")[0]):
                self._emit_key(node, node.args[0] if node.args else None)
        if node.func.__class__ is ast.Attribute and node.func.attr in ("join", "format"):
            self._emit_folded(node)

    def _emit_dynamic_import(self, node: ast.Call, function: str) -> None:
        name = self.fold_text(node.args[0]) if node.args else None
        if name is None:
            self._emit(Kind.COMPUTED, "import", self._place(node))
        else:
            self._emit(Kind.IMPORT, name, self._place(node))

    def _emit_taken_attribute(self, node: ast.Call, function: str) -> None:
        if function == "getattr":
            self._called.add(id(node.func))
        name = self.fold_text(node.args[1]) if len(node.args) > 1 else None
        place = self._place(node)
        if name is None:
            self._emit(Kind.COMPUTED, "getattr", place)
            return
        self._emit(Kind.ATTRIBUTE, name, place)
        for meaning in self.meanings_of(node):
            self._emit(Kind.USE, meaning, place)

    def _emit_inside(self, node: ast.Call, function: str) -> None:
        code = self.fold_text(node.args[0]) if node.args else None
        if code is not None:
            place = self._place(node.args[0])
            self._found.extend(_read_inside(code, "python", self._context, lambda _: place))

    def _emit_shell_line(self, node: ast.Call, function: str) -> None:
        first = node.args[0] if node.args else None
        line = self.fold_text(first)
        if line is None and isinstance(first, (ast.List, ast.Tuple)):
            words = list(takewhile(lambda word: word is not None, map(self.fold_text, first.elts)))
            line = shlex.join(word for word in words if word is not None)
        if line and first is not None:
            place = self._place(first)
            self._found.extend(_read_inside(line, "bash", self._context, lambda _: place))

    def _emit_magic(self, node: ast.Call, function: str) -> None:
        """One of IPython's own calls, whether its transformers wrote it or the cell did."""
        place = self._place(node)
        made = self._cell.changed(self._raw_place(node)) if self._cell is not None else None
        if made is not None:  # the cell has a sign there, and no call
            self._made.update(id(part) for part in ast.walk(node))
        sign, count = _MAGIC_CALLS[function]
        texts = [self.fold_text(argument) for argument in node.args[:count]]
        if None in texts or not texts:
            self._emit(Kind.COMPUTED, "command", place)
            return
        first, *rest = [text for text in texts if text is not None]
        if sign == "!":
            name, line, body = "!", first, ""
        else:
            name, line, body = sign + first, rest[0] if rest else "", rest[1] if len(rest) > 1 else ""
            if not rest and " " in first:  # get_ipython().magic("time x")
                name, line = sign + first.partition(" ")[0], first.partition(" ")[2]
        self._emit(Kind.MAGIC, name, place, line)
        self._found.extend(_read_magic(name, line, self._context, self._within(place, made, line)))
        language = MAGICS[name].body if name in MAGICS else None
        self._found.extend(_read_inside(body, language, self._context, lambda _: place))

    def _within(self, place: Place, made: tuple[int, int, str] | None, line: str) -> Callable[[Place], Place]:
        """Where things in the line of a magic stand; all at one place when the line is not found as it was typed."""
        at = made[2].find(line) if made is not None else -1
        if made is None or at < 0:
            return lambda _: place
        number, column, _ = made
        return lambda p: self._cell_place(_shifted(p, number, column + at))

    def _emit_subscript(self, node: ast.Subscript) -> None:
        meanings = self.meanings_of(node)
        if meanings:
            self._emit_uses(meanings, node)
        if any(_is_dict(base) for base in self.meanings_of(node.value)):
            self._emit_key(node, node.slice)

    def _emit_key(self, node: ast.expr, key: ast.expr | None) -> None:
        """What is taken out of a module's or an object's names, by a string."""
        name = self.fold_text(key)
        if name is None:
            self._emit(Kind.COMPUTED, "getattr", self._place(node))
        else:
            self._emit(Kind.ATTRIBUTE, name, self._place(node))

    def _emit_constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str):
            self._emit_text(value, node)

    def _emit_text(self, value: str, node: ast.expr) -> None:
        if len(value) > self._context.bounds.literal_bytes // 4:
            size = len(value.encode("utf-8", "surrogatepass"))
            if size > self._context.bounds.literal_bytes:
                self._emit(Kind.LARGE, "literal_bytes", self._place(node), str(size))
        if "/" in value or "<" in value or "{" in value or "." in value or ":" in value or value == "release_agent":
            self._emit(Kind.TEXT, "", self._place(node), value[:MAX_TEXT_CHARS])

    def _emit_folded(self, node: ast.expr) -> None:
        """A string that is put together: its parts are seen by themselves, and the whole here."""
        text = self.fold_text(node)
        if text is not None:
            self._emit_text(text, node)

    def _emit_pattern(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            self._emit(Kind.ATTRIBUTE, name, self._place(node))

    def _find_endless_forks(self) -> None:
        """`while True` with nothing but forks in it: what waits, breaks or works in it is a server."""
        for loop in self._endless:
            inside = [node for statement in loop.body for node in ast.walk(statement)]
            calls = [node for node in inside if isinstance(node, ast.Call)]
            leaves = any(isinstance(node, (ast.Break, ast.Return, ast.Raise, ast.Yield)) for node in inside)
            if calls and not leaves and all(_FORKS.intersection(self.meanings_of(call.func)) for call in calls):
                self._emit(Kind.PATTERN, "fork_loop", self._place(calls[0]))

    # -- where it stands

    def _raw_place(self, node: Any) -> Place:
        """Columns of the tree are bytes; ours are characters."""
        line, end_line = node.lineno, node.end_lineno or node.lineno
        column, end_column = node.col_offset, node.end_col_offset or 0
        if not self._is_ascii:
            column, end_column = self._characters(line, column), self._characters(end_line, end_column)
        return Place(line, column, end_line, end_column)

    def _place(self, node: Any) -> Place:
        return self._map(self._raw_place(node))

    def _characters(self, line: int, column: int) -> int:
        text = self._lines[line - 1] if line <= len(self._lines) else ""
        return column if text.isascii() else len(text.encode()[:column].decode("utf-8", "ignore"))


class _Nothing(set[str]):
    """A set that keeps nothing."""

    def add(self, _: str) -> None:
        pass


_COLLECTORS: dict[type, Callable[[_Reader, Any, _Scope, _Work], bool]] = {  # True: what is in it is looked after
    ast.Name: _Reader._collect_name,
    ast.Attribute: _Reader._collect_attribute,
    ast.Call: _Reader._note,
    ast.Constant: _Reader._collect_constant,
    ast.Subscript: _Reader._note,
    ast.BinOp: _Reader._note,
    ast.JoinedStr: _Reader._note,
    ast.MatchClass: _Reader._note,
    ast.Import: _Reader._collect_import,
    ast.ImportFrom: _Reader._collect_import_from,
    ast.FunctionDef: _Reader._collect_function,
    ast.AsyncFunctionDef: _Reader._collect_function,
    ast.Lambda: _Reader._collect_function,
    ast.ClassDef: _Reader._collect_class,
    ast.comprehension: _Reader._collect_comprehension,
    ast.For: _Reader._collect_for,
    ast.AsyncFor: _Reader._collect_for,
    ast.Assign: _Reader._collect_assign,
    ast.AnnAssign: _Reader._collect_one,
    ast.NamedExpr: _Reader._collect_one,
    ast.AugAssign: _Reader._collect_augmented,
    ast.withitem: _Reader._collect_with,
    ast.Global: _Reader._collect_global,
    ast.Nonlocal: _Reader._collect_global,
    ast.ExceptHandler: _Reader._collect_named,
    ast.MatchAs: _Reader._collect_named,
    ast.MatchStar: _Reader._collect_named,
    ast.While: _Reader._collect_while,
    str: _Reader._is_unknown,
    bool: _Reader._is_unknown,
    int: _Reader._is_unknown,
    type(None): _Reader._is_unknown,
}
_RESOLVERS: dict[type[ast.AST], Callable[[_Reader, Any], Iterator[str]]] = {
    ast.Name: _Reader._of_name,
    ast.Attribute: _Reader._of_attribute,
    ast.Call: _Reader._of_call,
    ast.Subscript: _Reader._of_subscript,
    ast.IfExp: _Reader._of_either,
    ast.BoolOp: _Reader._of_either,
    ast.NamedExpr: _Reader._of_inner,
    ast.Await: _Reader._of_inner,
    ast.Starred: _Reader._of_inner,
}
_EMITTERS: dict[type[ast.AST], Callable[[_Reader, Any], None]] = {
    ast.Name: _Reader._emit_name,
    ast.Attribute: _Reader._emit_attribute,
    ast.Call: _Reader._emit_call,
    ast.Constant: _Reader._emit_constant,
    ast.Subscript: _Reader._emit_subscript,
    ast.BinOp: _Reader._emit_folded,
    ast.JoinedStr: _Reader._emit_folded,
    ast.MatchClass: _Reader._emit_pattern,
    ast.Import: _Reader._emit_import,
    ast.ImportFrom: _Reader._emit_import_from,
}


_CALLS: dict[str, Callable[[_Reader, ast.Call, str], None]] = {
    **dict.fromkeys(_IMPORTERS, _Reader._emit_dynamic_import),
    **dict.fromkeys(_ATTRIBUTE_TAKERS, _Reader._emit_taken_attribute),
    **dict.fromkeys(CODE_TAKERS, _Reader._emit_inside),
    **dict.fromkeys(SHELL_TAKERS, _Reader._emit_shell_line),
    **dict.fromkeys(_MAGIC_CALLS, _Reader._emit_magic),
}


# -- names ---------------------------------------------------------------------------------------------------


def _canonical(name: str) -> str:
    return "builtins" if name in ("__builtins__", "__builtin__") else name


def _attribute(base: str, name: str) -> Iterator[str]:
    """What an attribute of something known is called in full."""
    if base in ("builtins", "builtins.__dict__"):
        yield _canonical(name)
        return
    if name == "__call__":
        yield base
        return
    if name == "__self__" and base in _BUILTINS:
        yield "builtins"
        return
    if "()" not in base and base not in _BUILTINS:
        module = name.lstrip("_")
        if module in LEADING_OUT:
            yield module
            return
        if module in MODULES and base.partition(".")[0] in MODULES:  # `csv.io`; `os.stat` may be either
            yield module
    yield f"{base}.{name}"


def _is_dict(name: str) -> bool:
    return name in ("globals()", "sys.modules", "builtins") or name.endswith(".__dict__")


def _is_no_module(name: str) -> bool:
    """Whether a name may stand for an object whose attributes are told by their bare names."""
    return "()" in name or name.partition(".")[0] not in MODULES


def _module_of(node: ast.ImportFrom) -> str:
    return "." * node.level + (node.module or "")


def _joined(module: str, name: str) -> str:
    if module in ("builtins", "__builtin__"):
        return name
    return module + name if module.endswith(".") else f"{module}.{name}"


# -- text ----------------------------------------------------------------------------------------------------


def _lines(code: str) -> list[str]:
    """As Python counts them."""
    return re.split(r"\r\n|\r|\n", code) if "\r" in code else code.split("\n")


def _place_at(lines: list[str], code: str, index: int) -> Place:
    before = _lines(code[:index])
    line = min(len(before), len(lines))
    return Place(line, len(before[-1]), line, len(before[-1]) + 1)


def _place_of_error(error: SyntaxError, lines: list[str]) -> Place:
    line = min(max(error.lineno or 1, 1), len(lines))
    column = min(max((error.offset or 1) - 1, 0), len(lines[line - 1]))
    return Place(line, column, line, column)


def _shifted(place: Place, line: int, column: int) -> Place:
    """Of something within a line, the place in the whole."""
    return Place(
        place.line + line - 1,
        place.column + (column if place.line == 1 else 0),
        place.end_line + line - 1,
        place.end_column + (column if place.end_line == 1 else 0),
    )


def nesting(code: str) -> int:
    """How deep brackets are within brackets, those in strings taken for code: quick, and seldom wrong."""
    depth = deepest = 0
    for sign in _NO_BRACKETS.sub("", code):
        if sign in "([{":
            depth += 1
            deepest = max(depth, deepest)
        elif depth:
            depth -= 1
    return deepest


def _nesting_of_code(code: str) -> tuple[int, int]:
    """How deep brackets are within brackets, and where; strings and comments aside. In one go, before any parser."""
    depth = deepest = where = at = 0
    while found := _BRACKETS.search(code, at):
        at = found.end()
        sign = found[0]
        if sign in "([{":
            depth += 1
            if depth > deepest:
                deepest, where = depth, found.start()
        elif sign in ")]}":
            depth = max(0, depth - 1)
        elif sign == "#":
            end = code.find("\n", at)
            at = len(code) if end < 0 else end
        else:
            at = _end_of_string(code, at, sign)
    return deepest, where


def _end_of_string(code: str, at: int, quote: str) -> int:
    for found in _STRING_ENDS[quote].finditer(code, at):
        if found[0][0] != "\\":
            return found.end()
    return len(code)
