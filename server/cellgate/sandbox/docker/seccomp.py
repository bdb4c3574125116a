"""Our seccomp policy in the engine's words: the tables of the native driver, as a profile that runc reads.

An engine's profile says less than a filter of our own: a call is allowed when any of its rules allows it, a rule
compares an argument once, and what no rule meets fails with EPERM, whatever our table would say. So a rule here is a
test of bits, and "any value but these" is written as the blocks of bits between them. Pure.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Final

from cellgate.sandbox.native.seccomp import ALLOW, REFUSE, Action, Condition, Errno, Rule, Verdict, policy
from cellgate.sandbox.native.syscalls import numbers

__all__ = ["MACHINES", "MORE", "profile"]

# What the engine calls the machines whose system calls we know. Calls in any other convention end the process.
MACHINES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

Test = tuple[int, int, int]  # an argument, a mask, and what is left of the one under the other
Clause = tuple[tuple[Condition, ...], Verdict]  # the first whose conditions are all met counts

# What an engine needs beside the native driver's table. SO_SNDBUF and SO_RCVBUF do nothing: they could raise a socket's
# buffers above the bounds of `container._SYSCTLS`.
MORE: Final[dict[str, Sequence[Clause]]] = {
    "setsockopt": [((Condition(1, (1,)), Condition(2, (7, 8))), Errno(0))],
}


@cache
def profile(machine: str | None = None) -> dict[str, Any]:
    """The profile as JSON holds it, for `machine` or this one. Raises KeyError for a machine without a table."""
    machine = machine or platform.machine()
    names = {number: name for name, number in numbers(machine).items()}
    actions = sorted((names[number], action) for number, action in policy(machine).items())
    plain = [(action.value, name) for name, action in actions if isinstance(action, Verdict) and action != REFUSE]
    rules = [
        _rule([name for _, name in found], Verdict(value), ()) for value, found in groupby(sorted(plain), _verdict_of)
    ]
    for name, action in actions:
        if isinstance(action, Rule):
            clauses = [*MORE.get(name, ()), *_clauses(action)]
            rules += [_rule([name], verdict, tests) for tests, verdict in _partition(clauses)]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": MACHINES[machine], "subArchitectures": []}],
        "syscalls": rules,
    }


def _verdict_of(found: tuple[int, str]) -> int:
    return found[0]


def _rule(names: list[str], verdict: Verdict, tests: Sequence[Test]) -> dict[str, Any]:
    args = [
        {"index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        for argument, mask, value in tests
    ]
    if verdict == ALLOW:
        return {"names": names, "action": "SCMP_ACT_ALLOW", "args": args}
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": verdict.value & 0xFFFF, "args": args}


def _clauses(action: Action) -> list[Clause]:
    if isinstance(action, Verdict):
        return [((), action)]
    return [*((case, action.verdict) for case in action.cases), *_clauses(action.otherwise)]


def _partition(clauses: Sequence[Clause]) -> Iterator[tuple[tuple[Test, ...], Verdict]]:
    """Rules that say the same, of which no two meet the same call and none looks twice at one argument. Refusals are
    among them only for values that are named: all else is refused anyway."""
    conditions, verdict = clauses[0]
    if not conditions:
        yield (), verdict
        return
    argument, mask = conditions[0].argument, conditions[0].mask
    here = [_on(argument, found) for found, _ in clauses]
    assert all(one is None or one.mask == mask for one in here), "one mask for each argument of a call"
    values = sorted({value for one in here if one is not None for value in one.values})
    for value in values:
        left = [
            (tuple(c for c in found if c is not one), what)
            for (found, what), one in zip(clauses, here, strict=True)
            if one is None or value in one.values
        ]
        for tests, what in _partition(left):
            yield ((argument, mask, value), *tests), what
    left = [clause for clause, one in zip(clauses, here, strict=True) if one is None]
    for tests, what in _partition(left):
        if what == ALLOW:
            for bits, value in _between(values, mask):
                yield ((argument, bits, value), *tests), what


def _on(argument: int, conditions: Sequence[Condition]) -> Condition | None:
    return next((one for one in conditions if one.argument == argument), None)


def _between(values: Sequence[int], mask: int) -> Iterator[tuple[int, int]]:
    """(bits, value) of blocks that hold every value under the mask but these, once."""
    if not values:
        yield 0, 0
        return
    if not mask:
        return
    top = 1 << (mask.bit_length() - 1)
    for bit in (0, top):
        for bits, value in _between([value for value in values if value & top == bit], mask ^ top):
            yield bits | top, value | bit
