"""What the kinds of nodes mean in each language's syntax tree: which is a name, a call, an assignment, an import.

Tables over the grammars of tree-sitter, and a function for each way to write imports. Knows nothing of what names mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from tree_sitter import Node

__all__ = ["GRAMMARS", "Grammar", "Import", "Link", "text"]

MAX_LEAVES = 1000  # names in one import or pattern; people write some ten


class Link(NamedTuple):
    """How a node takes one thing of another: `object.name`."""

    object: str  # the field of the node; the first child where the grammar names none
    name: str  # likewise, the last child
    sign: str = "."
    is_call: bool = False  # and calls it


class Import(NamedTuple):
    """One module that an import names ("": none is loaded), and what it binds: local name -> full name."""

    module: str
    binds: Mapping[str, str]
    takes_all: bool = False


@dataclass(frozen=True)
class Grammar:
    """One language's."""

    names: frozenset[str]  # kinds that are a plain name
    calls: Mapping[str, str] = field(default_factory=dict)  # kind -> the field of what is called
    links: Mapping[str, Link] = field(default_factory=dict)
    subscripts: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # kind -> fields of object and index
    wraps: Mapping[str, int] = field(default_factory=dict)  # kind -> which of its named children it stands for
    strings: frozenset[str] = frozenset()  # kinds of literals
    sums: frozenset[str] = frozenset()  # kinds that join literals
    binds: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # kind -> fields of pattern and value ("": none)
    holders: frozenset[str] = frozenset()  # kinds whose child names are bound: lists of parameters
    definitions: Mapping[str, str] = field(default_factory=dict)  # kind -> the field of the name
    imports: Mapping[str, Callable[[Node], Iterator[Import]]] = field(default_factory=dict)
    signs: Mapping[str, str] = field(default_factory=dict)  # kind -> the name that it is a use of
    raw: frozenset[str] = frozenset()  # kinds of which the grammar keeps tokens or text only
    takes: Mapping[str, str] = field(default_factory=dict)  # callee -> what its first argument is: see `syntax`
    implied: tuple[str, ...] = ()  # what names may begin with that says nothing
    attributes: bool = False  # whether names behind a sign tell something whatever they are taken of

    @cached_property
    def kinds(self) -> frozenset[str]:
        """All that is looked at."""
        return frozenset().union(
            *(self.names, self.calls, self.links, self.subscripts, self.strings, self.binds, self.holders),
            *(self.definitions, self.imports, self.signs, self.raw),
        )

    @cached_property
    def takers(self) -> frozenset[str]:
        """The last names of all that `takes` speaks of."""
        return frozenset(self.takes) | {re.split(r"[.:]", name)[-1] for name in self.takes}


def text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _set(kinds: str) -> frozenset[str]:
    return frozenset(kinds.split())


def _all(value: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), value)


def _each(value: int, kinds: str) -> dict[str, int]:
    return dict.fromkeys(kinds.split(), value)


def _child(node: Node, field_name: str) -> str:
    child = node.child_by_field_name(field_name)
    return text(child) if child else ""


# -- JavaScript and TypeScript ---------------------------------------------------------------------------


def module_of_javascript(name: str) -> str:
    return name.removeprefix("node:")


def _javascript_imports(node: Node) -> Iterator[Import]:
    if any(child.type == "type" for child in node.children):
        return  # only types, of which nothing is left when it runs
    source = node.child_by_field_name("source")
    clause = next((child for child in node.named_children if child.type.endswith("_clause")), None)
    if source is None and clause is not None:
        source = clause.child_by_field_name("source")
    if source is None:
        return
    module, binds = module_of_javascript(text(source)[1:-1]), {}
    for part in (clause.named_children if clause else ())[:MAX_LEAVES]:
        if part.type == "identifier":
            binds[text(part)] = module
        elif part.type == "namespace_import":
            binds[text(part.named_children[-1])] = module
        for item in part.named_children[:MAX_LEAVES] if part.type == "named_imports" else ():
            name = _child(item, "name")
            binds[_child(item, "alias") or name] = module if name == "default" else f"{module}.{name}"
    yield Import(module, binds)


_JAVASCRIPT = Grammar(
    names=_set("identifier shorthand_property_identifier import"),
    calls={"call_expression": "function", "new_expression": "constructor"},
    links={"member_expression": Link("object", "property")},
    subscripts={"subscript_expression": ("object", "index")},
    wraps={
        **_each(-1, "parenthesized_expression sequence_expression await_expression type_assertion"),
        **_each(0, "as_expression satisfies_expression non_null_expression instantiation_expression"),
    },
    strings=_set("string template_string"),
    sums=_set("binary_expression"),
    binds={
        "variable_declarator": ("name", "value"),
        "assignment_expression": ("left", "right"),
        "augmented_assignment_expression": ("left", "right"),
        "assignment_pattern": ("left", "right"),
        "arrow_function": ("parameter", ""),
        "catch_clause": ("parameter", ""),
        "for_in_statement": ("left", ""),
    },
    holders=_set("formal_parameters"),
    definitions={"function_declaration": "name", "generator_function_declaration": "name", "class_declaration": "name"},
    imports={"import_statement": _javascript_imports, "export_statement": _javascript_imports},
    takes={
        **_all("module", "require import importScripts module.require process.getBuiltinModule jest.requireActual"),
        **_all("shell", "child_process.exec child_process.execSync execa.command"),
        **_all("argv", "child_process.spawn child_process.spawnSync child_process.execFile child_process.execFileSync"),
        **_all("code", "eval setTimeout setInterval vm.runInThisContext vm.runInNewContext vm.Script"),
        **_all("attribute", "Reflect.get"),
    },
    implied=("globalThis.", "window.", "global.", "self.", "top.", "frames.", "parent."),
    attributes=True,
)
_TYPESCRIPT = replace(
    _JAVASCRIPT,
    binds={**_JAVASCRIPT.binds, "required_parameter": ("pattern", ""), "optional_parameter": ("pattern", "")},
)


# -- Ruby --------------------------------------------------------------------------------------------------

_RUBY = Grammar(
    names=_set("identifier constant instance_variable class_variable global_variable"),
    links={
        "call": Link("receiver", "method", ".", is_call=True),
        "scope_resolution": Link("scope", "name", "::"),
    },
    wraps=_each(-1, "parenthesized_statements"),
    strings=_set("string simple_symbol delimited_symbol chained_string heredoc_body string_array"),
    sums=_set("binary chained_string"),
    binds={
        "assignment": ("left", "right"),
        "operator_assignment": ("left", "right"),
        "optional_parameter": ("name", ""),
        "keyword_parameter": ("name", ""),
        "exception_variable": ("", ""),
        "alias": ("name", "alias"),
    },
    holders=_set("method_parameters block_parameters lambda_parameters"),
    definitions={"method": "name", "class": "name", "module": "name"},
    signs={"subshell": "`"},
    takes={
        **_all("module", "require require_relative load autoload"),
        **_all("argv", "system exec spawn ` IO.popen Process.spawn Process.exec Open3.popen3 Open3.capture2"),
        **_all("argv", "Open3.capture3 Open3.capture2e Open3.popen2 PTY.spawn"),
        **_all("code", "eval instance_eval class_eval module_eval"),
        **_all("name", ".send .public_send .__send__ .method .instance_method .const_get .public_method"),
        **_all("name", "send public_send __send__ method const_get instance_method"),
    },
    implied=("Kernel.", "Object.", "::", "self.", "Kernel::", "Object::"),
    attributes=True,
)

# -- Go ----------------------------------------------------------------------------------------------------


def _go_imports(node: Node) -> Iterator[Import]:
    path = node.child_by_field_name("path")
    if path is None:
        return
    module = text(path)[1:-1]
    name = _child(node, "name")
    last = [part for part in module.split("/") if not (part[:1] == "v" and part[1:].isdigit())][-1:] or [module]
    yield Import(module, {} if name in (".", "_") else {name or last[0]: module}, takes_all=name == ".")


_GO = Grammar(
    names=_set("identifier package_identifier type_identifier"),
    calls={"call_expression": "function", "composite_literal": "type"},
    links={"selector_expression": Link("operand", "field"), "qualified_type": Link("package", "name")},
    wraps=_each(-1, "parenthesized_expression unary_expression expression_list"),
    strings=_set("interpreted_string_literal raw_string_literal"),
    sums=_set("binary_expression"),
    binds={
        "short_var_declaration": ("left", "right"),
        "assignment_statement": ("left", "right"),
        "var_spec": ("name", "value"),
        "const_spec": ("name", "value"),
        "range_clause": ("left", ""),
        "parameter_declaration": ("name", ""),
    },
    definitions={"function_declaration": "name"},
    imports={"import_spec": _go_imports},
    takes=_all("argv", "os/exec.Command os.StartProcess syscall.Exec syscall.ForkExec"),
)

# -- Rust --------------------------------------------------------------------------------------------------


def _rust_imports(node: Node) -> Iterator[Import]:
    argument = node.child_by_field_name("argument")
    waiting = [("", argument)] if argument else []
    for _ in range(MAX_LEAVES):
        if not waiting:
            return
        before, item = waiting.pop()
        if item.type == "scoped_use_list":
            path = _joined(before, _child(item, "path"))
            items = item.child_by_field_name("list")
            waiting.extend((path, child) for child in reversed(items.named_children[:MAX_LEAVES] if items else []))
        elif item.type == "use_list":
            waiting.extend((before, child) for child in reversed(item.named_children[:MAX_LEAVES]))
        elif item.type == "use_wildcard":
            inner = text(item).replace(" ", "").removesuffix("::*").removesuffix("*")
            yield Import(_joined(before, inner), {}, takes_all=True)
        else:
            path = _child(item, "path") if item.type == "use_as_clause" else text(item)
            full = before if path == "self" else _joined(before, "".join(path.split()))
            yield Import(full, {_child(item, "alias") or full.rpartition("::")[2]: full})


def _rust_crate(node: Node) -> Iterator[Import]:
    name = _child(node, "name")
    yield Import(name, {_child(node, "alias") or name: name})


def _joined(before: str, name: str) -> str:
    return f"{before}::{name}" if before and name else before or name.removeprefix("::")


_RUST = Grammar(
    names=_set("identifier type_identifier"),
    calls={"call_expression": "function", "macro_invocation": "macro", "struct_expression": "name"},
    links={
        "scoped_identifier": Link("path", "name", "::"),
        "scoped_type_identifier": Link("path", "name", "::"),
        "field_expression": Link("value", "field"),
    },
    wraps={
        **_each(-1, "parenthesized_expression bracketed_type reference_expression unsafe_block block"),
        **_each(0, "await_expression try_expression generic_function generic_type expression_statement"),
    },
    strings=_set("string_literal raw_string_literal"),
    binds={
        "let_declaration": ("pattern", "value"),
        "assignment_expression": ("left", "right"),
        "const_item": ("name", "value"),
        "static_item": ("name", "value"),
        "type_item": ("name", "type"),
        "parameter": ("pattern", ""),
    },
    definitions={"function_item": "name", "struct_item": "name"},
    imports={"use_declaration": _rust_imports, "extern_crate_declaration": _rust_crate},
    signs={"foreign_mod_item": "extern", "unsafe_block": "unsafe"},
    raw=_set("token_tree"),
    takes=_all("argv", "std::process::Command::new"),
    implied=("::",),
)

# -- Java --------------------------------------------------------------------------------------------------


def _java_imports(node: Node) -> Iterator[Import]:
    path = next((child for child in node.named_children if child.type in ("scoped_identifier", "identifier")), None)
    if path is None:
        return
    full = "".join(text(path).split())
    takes_all = any(child.type == "asterisk" for child in node.named_children)
    yield Import(full, {} if takes_all else {full.rpartition(".")[2]: full}, takes_all)


_JAVA = Grammar(
    names=_set("identifier type_identifier"),
    calls={"object_creation_expression": "type"},
    links={
        "method_invocation": Link("object", "name", ".", is_call=True),
        "field_access": Link("object", "field"),
        "scoped_type_identifier": Link("", ""),
        "scoped_identifier": Link("scope", "name"),
        "method_reference": Link("", ""),
    },
    wraps={**_each(-1, "parenthesized_expression cast_expression"), **_each(0, "generic_type class_literal")},
    strings=_set("string_literal"),
    sums=_set("binary_expression"),
    binds={
        "variable_declarator": ("name", "value"),
        "assignment_expression": ("left", "right"),
        "local_variable_declaration": ("declarator", "type"),
        "field_declaration": ("declarator", "type"),
        "formal_parameter": ("name", "type"),
        "resource": ("name", "value"),
        "enhanced_for_statement": ("name", "type"),
        "catch_formal_parameter": ("name", ""),
    },
    holders=_set("inferred_parameters"),
    definitions={"class_declaration": "name", "record_declaration": "name", "enum_declaration": "name"},
    imports={"import_declaration": _java_imports},
    takes={
        **_all("shell", "Runtime.getRuntime().exec Runtime.exec"),
        **_all("argv", "ProcessBuilder"),
        **_all("attribute", ".getMethod .getDeclaredMethod .getField .getDeclaredField"),
        **_all("name", "Class.forName .loadClass"),
    },
    attributes=True,
)

# -- C and C++ ---------------------------------------------------------------------------------------------


def _c_imports(node: Node) -> Iterator[Import]:
    path = node.child_by_field_name("path")
    if path is not None:
        yield Import(text(path).strip('<>" \t'), {})


def _cpp_using(node: Node) -> Iterator[Import]:
    name = "".join(text(node.named_children[-1]).split()) if node.named_children else ""
    if name and not any(child.type == "namespace" for child in node.children):  # that one is read as a use of it
        yield Import("", {name.rpartition("::")[2]: name})


def _cpp_alias(node: Node) -> Iterator[Import]:
    if node.named_children:
        yield Import("", {_child(node, "name"): "".join(text(node.named_children[-1]).split())})


_C = Grammar(
    names=_set("identifier"),
    calls={"call_expression": "function"},
    links={"field_expression": Link("argument", "field")},
    wraps=_each(-1, "parenthesized_expression pointer_expression cast_expression comma_expression"),
    strings=_set("string_literal concatenated_string"),
    sums=_set("concatenated_string"),
    binds={
        "init_declarator": ("declarator", "value"),
        "assignment_expression": ("left", "right"),
        "declaration": ("declarator", ""),
        "parameter_declaration": ("declarator", ""),
        "preproc_def": ("name", ""),
    },
    holders=_set("preproc_params"),
    definitions={"function_definition": "declarator"},
    imports={"preproc_include": _c_imports},
    signs={"gnu_asm_expression": "asm"},
    raw=_set("preproc_arg"),
    takes={
        **_all("shell", "system popen wordexp"),
        **_all("program", "execl execlp execle execv execvp execve execvpe"),
    },
)
_CPP = replace(
    _C,
    names=_C.names | _set("type_identifier namespace_identifier"),
    calls={"call_expression": "function", "new_expression": "type"},
    links={**_C.links, "qualified_identifier": Link("scope", "name", "::")},
    wraps={**_C.wraps, **_each(0, "template_function template_type")},
    strings=_C.strings | _set("raw_string_literal"),
    binds={**_C.binds, "optional_parameter_declaration": ("declarator", ""), "for_range_loop": ("declarator", "")},
    definitions={**_C.definitions, "class_specifier": "name", "struct_specifier": "name"},
    imports={**_C.imports, "using_declaration": _cpp_using, "namespace_alias_definition": _cpp_alias},
    implied=("std::", "::"),
)

# -- R -----------------------------------------------------------------------------------------------------

_R = Grammar(
    names=_set("identifier"),
    calls={"call": "function"},
    links={
        "namespace_operator": Link("lhs", "rhs", "::"),
        "extract_operator": Link("lhs", "rhs", "$"),
    },
    wraps=_each(-1, "parenthesized_expression braced_expression"),
    strings=_set("string"),
    binds={"binary_operator": ("lhs", "rhs"), "parameter": ("name", "")},
    takes={
        **_all("package", "library require requireNamespace loadNamespace attachNamespace"),
        **_all("shell", "system system2 shell pipe"),
        **_all("function", "do.call match.fun get get0 mget getFunction Reduce Map Filter"),
    },
    implied=("base::", "utils::", "stats::", "methods::", "grDevices::", "graphics::"),
)

GRAMMARS: dict[str, Grammar] = {
    "c": _C,
    "cpp": _CPP,
    "go": _GO,
    "java": _JAVA,
    "javascript": _JAVASCRIPT,
    "r": _R,
    "ruby": _RUBY,
    "rust": _RUST,
    "typescript": _TYPESCRIPT,
}
