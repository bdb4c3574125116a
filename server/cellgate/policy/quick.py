"""Says of most Python cells, by their words alone, that no rule of a policy has anything to say of them.

Walking a tree in Python takes thrice the time of the parser that makes it, and most cells are harmless. A rule speaks
of names, and a name that is in no table stands in no finding; so a cell that holds no word of any table need not be
walked, only parsed. In doubt it is. The one thing that gets lost is a suspicious text that is put together of
harmless pieces.
"""

from __future__ import annotations

import ast
import re
import warnings

from cellgate.policy.ipython import is_plain_python
from cellgate.policy.names import ALIASES, HARMLESS_DUNDERS, MODULES, PYTHON, words
from cellgate.policy.policies import Policy

__all__ = ["is_silent", "vocabulary"]

_WORD = re.compile(r"\w+")
_ESCAPE = re.compile(r"\\[xuUN0-7]")  # in a string: its characters are not those that stand there
_LONE_UNDERSCORE = re.compile("""['"]_+['"]""")  # a text of which names with underscores can be made
_IMPORT = re.compile(r"^[ \t]*(?:import ([\w.]+)(?: as \w+)?|from ([\w.]+) import [\w, ]+)[ \t]*$", re.MULTILINE)
# By these, anything can be reached by a string.
_BY_STRINGS = words(
    """eval exec compile timeit cProfile profile code get_ipython getattr setattr delattr hasattr vars globals locals
    builtins importlib import_module pydoc pkgutil sys modules inspect __import__ __builtins__ __dict__ __getattribute__
    __self__ __call__ __getitem__ _repr_html_ _repr_javascript_ _repr_svg_ _repr_mimebundle_"""
)
# What every text has that a rule speaks of, in small letters.
_PIECES = (
    *(".sock", "/dev/", "/proc/", "/sys/", "/etc/", "release_agent", "169.254", "metadata.", "fd00:", "100.100"),
    *("<script", "<iframe", "javascript", "text/html", "module://"),
)
_UNDERSCORED = ("introspection", "private_attribute", "underscore_name", "format_attribute", "native_code")


def is_silent(code: str, policy: Policy, nesting: int) -> bool:
    """Whether a cell certainly is plain Python, and no rule that the policy has speaks of anything in it. `nesting` is
    that of its brackets."""
    if nesting > policy.limits.nesting or len(code) > policy.limits.literal_bytes or "\n" not in code.strip():
        return False  # a single line may be a magic without its sign
    if not code.isascii() or _ESCAPE.search(code) or not is_plain_python(code):
        return False
    found = set(_WORD.findall(code))
    if not found.isdisjoint(vocabulary(policy)):
        return False
    lower = code.lower()
    if any(piece in lower for piece in _PIECES):
        return False
    if any(policy.severity(rule) for rule in _UNDERSCORED) and not _are_harmless(found, code):
        return False
    if "import" in found and not _are_allowed_imports(code, policy):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def vocabulary(policy: Policy) -> frozenset[str]:
    """The words without which no rule of this policy fires. Made once for each policy."""
    return policy.remember("vocabulary", _vocabulary)


def _vocabulary(policy: Policy) -> frozenset[str]:
    tables = (*PYTHON.names.items(), *PYTHON.attributes.items())
    told = {_last(name) for name, rule in tables if rule is not None and policy.severity(rule)}
    told |= {_last(name) for name in policy.deny_names}
    told |= {part for name in policy.deny_modules for part in name.split(".")}
    if policy.allow_modules is not None:
        told |= {name for name in MODULES if not policy.allows_module(name)}
    if policy.severity("fork_loop"):
        told |= {"fork", "forkpty"}
    if policy.severity("format_attribute"):
        told |= {"format", "format_map"}
    told |= {alias for alias, name in ALIASES.items() if told & set(name.split("."))}
    return frozenset(told) | _BY_STRINGS


def _last(name: str) -> str:
    return name.rpartition(".")[2].removesuffix("()")


def _are_harmless(found: set[str], code: str) -> bool:
    if "_" not in code:
        return True
    if _LONE_UNDERSCORE.search(code):
        return False
    return all(word[0] != "_" or not word.strip("_") or word in HARMLESS_DUNDERS for word in found)


def _are_allowed_imports(code: str, policy: Policy) -> bool:
    """Whether every import statement is a simple one, of what the policy allows."""
    imports = _IMPORT.findall(code)
    if len(imports) != code.count("import"):
        return False
    return all(policy.allows_module(module or origin) for module, origin in imports)
