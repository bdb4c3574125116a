"""The engine's profile says what the native driver's filter does, as far as a profile can."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from cellgate.sandbox.docker.seccomp import MORE, profile
from cellgate.sandbox.native.seccomp import ALLOW, CHECKED, REFUSE, Action, Condition, Rule, Verdict, policy
from cellgate.sandbox.native.syscalls import MACHINES, numbers

EPERM = REFUSE


def native(action: Action, arguments: tuple[int, ...]) -> Verdict:
    while isinstance(action, Rule):
        if any(all(meets(one, arguments) for one in case) for case in action.cases):
            return action.verdict
        action = action.otherwise
    return action


def meets(condition: Condition, arguments: tuple[int, ...]) -> bool:
    return arguments[condition.argument] & condition.mask in condition.values


def of_profile(found: dict[str, Any], name: str, arguments: tuple[int, ...]) -> set[str]:
    """The actions of all rules that are met; what is met by none has the default."""
    met = {
        f"{rule['action']} {rule.get('errnoRet', '')}".strip()
        for rule in found["syscalls"]
        if name in rule["names"]
        and all(arguments[test["index"]] & test["value"] == test["valueTwo"] for test in rule["args"])
    }
    return met or {found["defaultAction"]}


def told(verdict: Verdict) -> str:
    return "SCMP_ACT_ALLOW" if verdict == ALLOW else f"SCMP_ACT_ERRNO {verdict.value & 0xFFFF}"


def interesting(rule: Action) -> set[int]:
    """Each value that a rule names, its neighbours, and others that differ where the kernel does not look."""
    values = {0, 1, 2, 3, 7, 0xFFFFFFFF, 1 << 32}
    while isinstance(rule, Rule):
        named = {value for case in rule.cases for one in case for value in one.values}
        masks = {one.mask for case in rule.cases for one in case if one.mask != 0xFFFFFFFF}
        values |= named | masks | {value + 1 for value in named} | {value | 1 << 40 for value in named}
        rule = rule.otherwise
    return values


@pytest.mark.parametrize("name", sorted(CHECKED))
def test_a_call_that_is_judged_by_its_arguments_is_judged_alike(name):
    found = profile("x86_64")
    rule = CHECKED[name]
    places = sorted({one.argument for case in rule.cases for one in case} | {0})
    for chosen in product(sorted(interesting(rule)), repeat=len(places)):
        arguments = [0] * 6
        for place, value in zip(places, chosen, strict=True):
            arguments[place] = value
        more = (verdict for case, verdict in MORE.get(name, ()) if all(meets(one, tuple(arguments)) for one in case))
        verdict = next(more, native(rule, tuple(arguments)))
        (action,) = of_profile(found, name, tuple(arguments))  # no two rules ever meet
        if verdict == ALLOW:
            assert action == "SCMP_ACT_ALLOW"
        else:
            assert action in (told(verdict), "SCMP_ACT_ERRNO"), f"{name}{arguments}"


def test_the_sizes_of_sockets_stay_as_they_are():
    found = profile("x86_64")
    for option in (7, 8):
        assert of_profile(found, "setsockopt", (3, 1, option, 0, 4, 0)) == {"SCMP_ACT_ERRNO 0"}


@pytest.mark.parametrize("machine", MACHINES)
def test_every_other_call_has_the_verdict_of_the_table(machine):
    found = profile(machine)
    names = {number: name for name, number in numbers(machine).items()}
    for number, action in policy(machine).items():
        if isinstance(action, Verdict):
            expected = "SCMP_ACT_ERRNO" if action == EPERM else told(action)
            assert of_profile(found, names[number], (0,) * 6) == {expected}, names[number]


def test_no_rule_looks_twice_at_one_argument():
    """Or runc takes them for alternatives."""
    for rule in profile("x86_64")["syscalls"]:
        places = [test["index"] for test in rule["args"]]
        assert len(set(places)) == len(places)
