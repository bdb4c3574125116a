"""Who may import whom, held against the import statements of every module. The tree shows the trust boundary;
this keeps it there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"cellgate": ROOT / "server", "cellgate_kernel": ROOT / "kernels"}
STANDARD_LIBRARY = sys.stdlib_module_names | {"__future__"}


@dataclass(frozen=True)
class Rule:
    """Modules that match `who` may import only what matches `allowed`, if given, and nothing of `forbidden`."""

    who: str
    why: str
    allowed: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    but: tuple[str, ...] = ()  # modules that match `who` and are free of this rule
    standard_library: bool = True  # may be imported, where `allowed` is given
    ours_only: bool = False  # `allowed` speaks of our own two packages; others are free


# `a` stands for the module a and all below it.
RULES = [
    Rule(
        "cellgate",
        "the host shares the framing with the kernel side, and none of its code",
        allowed=("cellgate", "cellgate_kernel.link", "cellgate_kernel.message"),
        ours_only=True,
        but=("cellgate.sandbox.native.zygote",),
    ),
    Rule("cellgate_kernel", "it runs beside hostile code and needs nothing of the host", forbidden=("cellgate",)),
    Rule(
        "cellgate_kernel",
        "what an image must install stays short",
        allowed=(
            "cellgate_kernel",
            "ipykernel",
            "IPython",
            *("pygments", "stack_data"),  # IPython's own, for its tracebacks
            "traitlets",
            "comm",
            "jupyter_client",
            "msgpack",
            *("matplotlib", "matplotlib_inline", "numpy", "pandas"),  # when they are there: templates, reseeding
            *("tornado", "zmq"),  # held by the rules below
        ),
    ),
    Rule("cellgate_kernel", "Python kernels use no ZMQ", forbidden=("zmq",), but=("cellgate_kernel.bridge",)),
    Rule(
        "cellgate_kernel",
        "only libraries that ask ipykernel for its loop need one",
        forbidden=("tornado",),
        but=("cellgate_kernel.shell",),
    ),
    Rule("cellgate", "one process speaks HTTP", forbidden=("tornado",), but=("cellgate.gateway",)),
    Rule(
        "cellgate.gateway",
        "what speaks HTTP asks for sessions, and knows neither drivers nor links",
        allowed=(
            *("cellgate.gateway", "cellgate.live", "cellgate.sessions", "cellgate.wire"),
            *("cellgate.settings", "cellgate.errors", "cellgate.terminal", "cellgate.sandbox.limits"),
            *("cellgate.policy.facts", "cellgate.policy.policies", "cellgate.policy.verdicts"),  # names, for schemas
            *("cellgate.access", "cellgate.metrics"),
        ),
        ours_only=True,
        but=("cellgate.gateway.server",),
    ),
    *(
        Rule(f"cellgate.gateway.{pure}", "a decision needs no HTTP library", forbidden=("tornado", "asyncio", "socket"))
        for pure in ("auth", "bodies")
    ),
    Rule("cellgate", "traces are off unless asked for", forbidden=("opentelemetry",), but=("cellgate.metrics.traces",)),
    Rule("cellgate", "one driver speaks to Docker", forbidden=("docker",), but=("cellgate.sandbox.docker",)),
    Rule(
        "cellgate",
        "a cell's syntax is all that is asked of it",
        forbidden=("IPython",),
        but=("cellgate.policy.ipython",),
    ),
    Rule(
        "cellgate.policy",
        "code is judged by itself: what judges it knows nothing of servers and sandboxes",
        allowed=("cellgate.policy", "cellgate.errors", "cellgate.terminal"),
        ours_only=True,
    ),
    Rule("cellgate", "there is no ZMQ between host and sandbox", forbidden=("zmq", "jupyter_client")),
    Rule(
        "cellgate.client",
        "the SDK must be small to install",
        allowed=("cellgate.client", "cellgate.wire"),
        ours_only=True,
    ),
    Rule(
        "cellgate.sandbox.native",
        "the privileged side is small enough to read",
        allowed=(
            "cellgate.sandbox.native",
            "cellgate.sandbox.limits",
            "cellgate.sandbox.certificate",
            "cellgate.errors",
            "cellgate_kernel",
        ),
        but=("cellgate.sandbox.native.driver",),
    ),
    *(
        Rule(pure, "a decision needs no descriptor", forbidden=("asyncio", "socket", "subprocess", "threading"))
        for pure in (
            "cellgate.policy",
            "cellgate.sessions",
            "cellgate.wire",
            "cellgate.errors",
            "cellgate.terminal",
            "cellgate.sandbox.limits",
            "cellgate.sandbox.certificate",
            "cellgate.sessions",
            "cellgate_kernel.link",
            "cellgate_kernel.message",
        )
    ),
]


def within(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def imports_of(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module that an import statement names, wherever it stands. Of `from a import b`, `a.b` when b may
    be a module of ours, else `a`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}" if is_module_of_ours(f"{base}.{alias.name}") else base


def is_module_of_ours(name: str) -> bool:
    package = name.partition(".")[0]
    if package not in SOURCES:
        return False
    path = SOURCES[package].joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def breaches(rule: Rule, module: str, imported: str) -> bool:
    if not within(module, (rule.who,)) or within(module, rule.but) or any(fnmatch(module, but) for but in rule.but):
        return False
    if within(imported, rule.forbidden):
        return True
    if not rule.allowed or within(imported, rule.allowed):
        return False
    top = imported.partition(".")[0]
    if rule.ours_only:
        return top in SOURCES
    return not (rule.standard_library and top in STANDARD_LIBRARY)


def modules() -> Iterator[tuple[str, Path]]:
    for root in SOURCES.values():
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.who}: {rule.why}")
def test_no_module_imports_across_its_layer(rule):
    seen = [
        f"{module} imports {imported}"
        for module, path in modules()
        for imported in imports_of(path.read_text(), module, path.name == "__init__.py")
        if breaches(rule, module, imported)
    ]
    assert not seen, f"{rule.why}: {seen}"


def test_the_reader_of_imports_sees_every_form():
    top = "import a.b\nfrom cellgate.sandbox import limits, Limits\n"
    inside = "def f():\n    from .limits import X\n    from . import base"
    assert set(imports_of(top + inside, "cellgate.sandbox.client", False)) == {
        "a.b",
        "cellgate.sandbox",
        "cellgate.sandbox.limits",
        "cellgate.sandbox.base",
    }
    assert set(imports_of("from . import sandbox\nfrom .wire import jupyter", "cellgate", True)) >= {"cellgate.sandbox"}


def test_a_rule_catches_its_breach():
    rule = RULES[0]
    assert breaches(rule, "cellgate.cli", "cellgate_kernel.host")
    assert not breaches(rule, "cellgate.cli", "cellgate_kernel.link")
    assert not breaches(rule, "cellgate.cli", "msgpack")
