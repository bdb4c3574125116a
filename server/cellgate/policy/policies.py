"""Policies: how severe each rule is, what may be loaded, and how large code may be.

Three come with Cellgate; a file extends one of them. Whoever is given a policy may ask for a tighter one, and gets
what both allow. Knows which rules there are, and nothing of code. Pure.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from cellgate.errors import LimitError, UsageError
from cellgate.policy.facts import Bounds
from cellgate.policy.names import words
from cellgate.policy.rules import CATEGORIES, RULES
from cellgate.policy.verdicts import Severity
from cellgate.policy.words import COMPUTING

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "LIMITS",
    "OFF",
    "POLICIES",
    "STANDARD",
    "STRICT",
    "Limits",
    "Policy",
    "find_policy",
    "limits_as_markdown",
    "lists_as_markdown",
    "parse_policy",
    "policies_as_markdown",
    "read_policy",
    "tightened",
    "wished",
]

_T = TypeVar("_T")

KiB, MiB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class LimitRow:
    """One size that a policy bounds, and why nobody may ask for more."""

    default: int
    strict: int
    least: int
    most: int
    why: str


LIMITS = {
    "code_bytes": LimitRow(MiB, 100_000, 1, 8 * MiB, "of a cell; 30,000 lines. Judging takes time in proportion"),
    "nesting": LimitRow(100, 50, 5, 100, "brackets within brackets; CPython's own reader takes no more than 200"),
    "literal_bytes": LimitRow(
        512 * KiB, 20_000, 100, 8 * MiB, "of one literal; pictures in notebooks come near 400 KiB"
    ),
}


# Beyond these nothing is read. So what is beyond is denied by every policy but `off`: it would pass unjudged.
UNREAD_BEYOND = frozenset(("code_bytes", "nesting"))


@dataclass(frozen=True)
class Limits:
    """The sizes of one policy. The defaults are those of `standard`."""

    code_bytes: int = LIMITS["code_bytes"].default
    nesting: int = LIMITS["nesting"].default
    literal_bytes: int = LIMITS["literal_bytes"].default

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.nesting, self.literal_bytes)


@dataclass(frozen=True)
class Policy:
    """What one policy thinks. A rule without a severity is off; None for a list is: all are allowed."""

    name: str
    severities: Mapping[str, Severity] = field(default_factory=dict)
    allow_modules: frozenset[str] | None = None  # and all below each
    deny_modules: frozenset[str] = frozenset()  # and all below each; counts before `allow_modules`
    deny_names: frozenset[str] = frozenset()  # dotted names, and all below each; ".x" is the attribute x of anything
    allow_magics: frozenset[str] | None = None  # with their signs: "%time", "%%time"
    message_types: frozenset[str] | None = None  # beside those that carry no code
    limits: Limits = field(default_factory=Limits)
    _remembered: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def is_off(self) -> bool:
        """Whether nothing is judged at all: no code is parsed for such a policy."""
        return not self.severities and self.message_types is None

    def remember(self, what: str, make: Callable[[Policy], _T]) -> _T:
        """Something that follows from this policy alone: made when it is first asked for."""
        known = self._remembered
        if what not in known:
            known[what] = make(self)
        value: _T = known[what]
        return value

    def severity(self, rule: str) -> Severity | None:
        return Severity.DENY if rule in UNREAD_BEYOND else self.severities.get(rule)

    def allows_module(self, name: str) -> bool:
        if _covers(self.deny_modules, name):
            return False
        return self.allow_modules is None or _covers(self.allow_modules, name)

    def denies_name(self, name: str) -> bool:
        return bool(self.deny_names) and _covers(self.deny_names, name)

    def allows_magic(self, name: str) -> bool:
        return self.allow_magics is None or name in self.allow_magics


_LAST_PART = re.compile(r"(?:\.|::|/)[^.:/]*$")  # as languages write what is in something


def _covers(names: frozenset[str], name: str) -> bool:
    """Whether a name or one above it is among `names`."""
    while name:
        if name in names:
            return True
        cut = _LAST_PART.search(name)
        name = name[: cut.start()] if cut else ""
    return False


# -- those that come with Cellgate -----------------------------------------------------------------------

OFF = Policy("off")

# Denies what is of no use in any sandbox and says what will fail in one. Programs do run in a sandbox: they are noted.
STANDARD = Policy(
    "standard",
    {
        **dict.fromkeys(("host_door", "metadata_address", "privileged", "fork_loop"), Severity.DENY),
        **dict.fromkeys(("code_bytes", "nesting", "literal_bytes"), Severity.DENY),
        **dict.fromkeys(("module", "name", "magic", "message_type"), Severity.DENY),  # by lists, which are empty here
        **dict.fromkeys(("network", "ends_kernel", "hidden_text"), Severity.WARN),
        **dict.fromkeys(("process", "shell", "unparsed", "unread"), Severity.NOTE),
    },
)

# Modules that compute, of which no attribute that passes the other rules leads to files, programs or other code. Those
# not of the standard library are what the template `python-data` imports.
_COMPUTING = words(
    """__future__ abc array base64 binascii bisect calendar cmath collections colorsys contextlib copy csv dataclasses
    datetime decimal difflib enum fractions functools graphlib hashlib heapq hmac html io itertools json keyword
    math numbers operator pprint queue random re secrets stat statistics string struct textwrap time types
    typing typing_extensions unicodedata uuid warnings zlib zoneinfo numpy pandas matplotlib mpl_toolkits
    IPython.display"""
)

STRICT = Policy(
    "strict",
    {
        # All but RestrictedPython's own, which is no danger: a loop may well count with `_i`.
        **dict.fromkeys((rule for rule in RULES if rule != "underscore_name"), Severity.DENY),
        "unparsed": Severity.NOTE,  # what does not parse does not run
    },
    allow_modules=_COMPUTING | COMPUTING,
    allow_magics=words(
        """%time %timeit %%time %%timeit %%capture %matplotlib %precision %pprint %pinfo %pinfo2 %pdoc %who %whos
        %who_ls         %xmode %colors %%latex %%markdown"""
    ),
    message_types=frozenset(("execute_request", "complete_request", "inspect_request")),
    limits=Limits(**{name: row.strict for name, row in LIMITS.items()}),
)

POLICIES = {policy.name: policy for policy in (OFF, STANDARD, STRICT)}


# -- reading -----------------------------------------------------------------------------------------------

_SEVERITY_KEYS: dict[str, Severity | None] = {
    "allow": None,
    "note": Severity.NOTE,
    "warn": Severity.WARN,
    "deny": Severity.DENY,
}
_LIST_KEYS = ("allow_modules", "deny_modules", "deny_names", "allow_magics", "message_types")
_KEYS = ("extends", *_SEVERITY_KEYS, *_LIST_KEYS, "limits")
# What a list is for is denied when the list is given; so is what is beyond a limit, when nothing else is said of it.
_RULE_OF_LIST = {
    "allow_modules": "module",
    "deny_modules": "module",
    "deny_names": "name",
    "allow_magics": "magic",
    "message_types": "message_type",
}
MAX_NAMES = 10_000  # of one list; longer ones are data


def find_policy(name: str, known: Mapping[str, Policy] = POLICIES) -> Policy:
    """A policy by its name. Raises UsageError."""
    if name not in known:
        raise UsageError(f"there is no policy {name[:80]!r}{_suggested(name, known)}; known: {', '.join(known)}")
    return known[name]


def parse_policy(text: str, name: str, known: Mapping[str, Policy] = POLICIES) -> Policy:
    """A policy from the text of its TOML file. Raises UsageError and LimitError."""
    try:
        mapping = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f'the policy {name!r} is not TOML: {error}; lines like `extends = "strict"` would pass'
        ) from error
    return read_policy(mapping, name, known)


def read_policy(
    mapping: Mapping[str, object], name: str, known: Mapping[str, Policy] = POLICIES, *, begin: Policy = OFF
) -> Policy:
    """A policy from the keys of its file. Without `extends` it begins with `begin`. `allow`, `note`, `warn` and `deny`
    name rules or categories, a rule before the category it is in; the other lists add to what is extended. Raises
    LimitError, and UsageError for an unknown key or rule, with what was probably meant."""
    for key in mapping:
        if key not in _KEYS:
            raise UsageError(
                f"a policy has no key {str(key)[:80]!r}{_suggested(key, _KEYS)}; it may have {', '.join(_KEYS)}"
            )
    base = find_policy(_string(mapping["extends"], "extends"), known) if "extends" in mapping else begin
    lists = {key: frozenset(_strings(mapping[key], key)) for key in _LIST_KEYS if key in mapping}
    limits = _limits(mapping.get("limits", {}))
    return Policy(
        name=name,
        severities=_severities(mapping, base, given=lists, limits=limits),
        limits=replace(base.limits, **limits),
        **{key: (getattr(base, key) or frozenset()) | names for key, names in lists.items()},
        **{key: getattr(base, key) for key in _LIST_KEYS if key not in lists},
    )


def _severities(
    mapping: Mapping[str, object], base: Policy, given: Iterable[str], limits: Iterable[str]
) -> dict[str, Severity]:
    chosen: dict[str, Severity | None] = {**dict.fromkeys(limits, Severity.DENY), **base.severities}
    for key in given:
        chosen[_RULE_OF_LIST[key]] = Severity.DENY
    named: dict[str, str] = {}
    for key, severity in _SEVERITY_KEYS.items():
        for word in _strings(mapping.get(key, ()), key):
            if word not in RULES and word not in CATEGORIES:
                meant = _suggested(word, [*RULES, *CATEGORIES])
                raise UsageError(f"{key} names {word[:80]!r}, which is no rule and no category{meant}")
            if word in UNREAD_BEYOND and severity is not Severity.DENY:
                raise UsageError(
                    f"{word!r} can be nothing but denied, as nothing is read beyond; a higher limit would pass"
                )
            if named.setdefault(word, key) != key:
                raise UsageError(f"{word!r} is in both {named[word]} and {key}; one of them would pass")
            if word in CATEGORIES:
                chosen.update({rule.id: severity for rule in RULES.values() if rule.category == word})
    chosen.update({word: _SEVERITY_KEYS[key] for word, key in named.items() if word in RULES})
    chosen.update(dict.fromkeys(UNREAD_BEYOND.intersection(limits), Severity.DENY))  # `allow = ["size"]` or not
    return {rule: severity for rule, severity in chosen.items() if severity is not None}


def _limits(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise UsageError("limits is no table; lines like `code_bytes = 100000` below `[limits]` would pass")
    for key, number in value.items():
        if key not in LIMITS:
            raise UsageError(
                f"there is no limit {str(key)[:80]!r}{_suggested(key, LIMITS)}; known: {', '.join(LIMITS)}"
            )
        row = LIMITS[key]
        if type(number) is not int or not row.least <= number <= row.most:
            raise LimitError(key, number, f"a whole number from {row.least} to {row.most}")
    return dict(value)


def _string(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f'{key} is no string; {key} = "strict" would pass')
    return value


def _strings(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item for item in value):
        raise UsageError(f'{key} is no list of names; {key} = ["…"] would pass')
    if len(value) > MAX_NAMES:
        raise UsageError(f"{key} has {len(value)} names; {MAX_NAMES} would pass")
    return tuple(value)


def _suggested(word: object, known: Iterable[str]) -> str:
    close = get_close_matches(str(word)[:80], list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


# -- tightening --------------------------------------------------------------------------------------------


def tightened(base: Policy, wish: Policy) -> Policy:
    """What both allow: each rule as severe as in the severer of the two, only what both lists have, the smaller sizes.
    So a session may add to what it was given, and take nothing away."""
    severities = {
        rule: max((s for s in (base.severity(rule), wish.severity(rule)) if s), key=_rank)
        for rule in {*base.severities, *wish.severities}
    }
    return Policy(
        name=base.name if base.name == wish.name else f"{base.name}+{wish.name}",
        severities=severities,
        allow_modules=_either(base.allow_modules, wish.allow_modules, _common_modules),
        deny_modules=base.deny_modules | wish.deny_modules,
        deny_names=base.deny_names | wish.deny_names,
        allow_magics=_either(base.allow_magics, wish.allow_magics, frozenset.__and__),
        message_types=_either(base.message_types, wish.message_types, frozenset.__and__),
        limits=Limits(*(min(getattr(base.limits, f.name), getattr(wish.limits, f.name)) for f in fields(Limits))),
    )


_ALLOWING = {"allow_modules": "module", "allow_magics": "magic", "message_types": "message type"}


def wished(given: Policy, wish: Mapping[str, object]) -> Policy:
    """The policy of a session that was given one, and asks for this, in the keys of a policy file, on top: without
    `extends` the wish begins with what is given, and its lists are those of what it would do with. Raises UsageError
    and LimitError for one that cannot be read, or is looser in anything that it says."""
    name = str(wish.get("extends", given.name)) + ("" if set(wish) <= {"extends"} else "+session")
    begin = replace(given, allow_modules=None, allow_magics=None, message_types=None)
    asked = read_policy(wish, name, begin=begin)
    for rule in RULES:
        had, wants = given.severity(rule), asked.severity(rule)
        if had is not None and (wants is None or wants.rank < had.rank):
            looser = f"{rule!r} is {had.value!r} here, and would be {wants.value if wants else 'allow'!r}"
            raise UsageError(f"a session's policy may only be tighter than the server's: {looser}")
    for key, what in _ALLOWING.items():
        has: frozenset[str] | None = getattr(given, key)
        if has is not None and (beyond := [n for n in _strings(wish.get(key, ()), key) if not _covers(has, n)]):
            raise UsageError(
                f"a session's policy may only be tighter than the server's, which allows no {what} {beyond[0][:80]!r}"
            )
    said = wish.get("limits")
    for key in said if isinstance(said, Mapping) else ():
        if (number := getattr(asked.limits, key)) > (most := getattr(given.limits, key)):
            raise LimitError(key, number, f"at most the server's own, {most},")
    return replace(tightened(given, asked), name=name)


def _either(a: _T | None, b: _T | None, both: Callable[[_T, _T], _T]) -> _T | None:
    if a is None or b is None:
        return b if a is None else a
    return both(a, b)


def _common_modules(a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
    return frozenset({*(name for name in a if _covers(b, name)), *(name for name in b if _covers(a, name))})


def _rank(severity: Severity) -> int:
    return severity.rank


# -- for documents -----------------------------------------------------------------------------------------


def policies_as_markdown() -> str:
    """What each policy that comes with Cellgate makes of each rule. `off` makes nothing of any."""
    shown = [policy for policy in POLICIES.values() if not policy.is_off]
    rows = [f"| rule | category | {' | '.join(policy.name for policy in shown)} |", "|---|---|" + "---|" * len(shown)]
    for rule in RULES.values():
        told = (policy.severity(rule.id) for policy in shown)
        cells = " | ".join(severity.value if severity else "" for severity in told)
        rows.append(f"| `{rule.id}` | {rule.category} | {cells} |")
    return "\n".join(rows) + "\n"


def limits_as_markdown() -> str:
    rows = ["| limit | standard | strict | from | to | why |", "|---|---|---|---|---|---|"]
    for name, row in LIMITS.items():
        rows.append(f"| `{name}` | {row.default} | {row.strict} | {row.least} | {row.most} | {row.why} |")
    return "\n".join(rows) + "\n"


def lists_as_markdown() -> str:
    """What `strict` has in its lists."""
    lists = (("modules, and all below each", STRICT.allow_modules), ("magics", STRICT.allow_magics))
    rows = [f"- {what}: {', '.join(f'`{name}`' for name in sorted(names or ()))}" for what, names in lists]
    rows.append(
        f"- messages, beside those without code: {', '.join(f'`{n}`' for n in sorted(STRICT.message_types or ()))}"
    )
    return "\n".join(rows) + "\n"
