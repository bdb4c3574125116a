"""Policies: read from files, and tightened but never loosened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.errors import LimitError, UsageError
from cellgate.policy.judge import judge, judge_message
from cellgate.policy.policies import (
    LIMITS,
    OFF,
    POLICIES,
    STANDARD,
    STRICT,
    Limits,
    Policy,
    find_policy,
    parse_policy,
    read_policy,
    tightened,
    wished,
)
from cellgate.policy.rules import CATEGORIES, RULES
from cellgate.policy.verdicts import Severity


def test_a_file_extends_allows_and_denies():
    policy = read_policy(
        {"extends": "strict", "allow": ["files"], "warn": ["file_change"], "allow_modules": ["os"]}, "mine"
    )
    assert policy.severity("file_access") is None and policy.severity("file_change") is Severity.WARN
    assert policy.severity("dynamic_code") is Severity.DENY
    assert policy.allows_module("os.path") and policy.allows_module("math") and not policy.allows_module("ossaudiodev")


def test_a_file_that_extends_nothing_begins_with_nothing():
    assert read_policy({}, "mine").severities == OFF.severities == {}


def test_a_list_denies_what_is_not_in_it_unless_told_otherwise():
    assert read_policy({"allow_modules": ["math"]}, "a").severity("module") is Severity.DENY
    assert read_policy({"allow_modules": ["math"], "warn": ["module"]}, "a").severity("module") is Severity.WARN


@pytest.mark.parametrize(
    "text, said",
    [
        ("alow = []", "did you mean 'allow'?"),
        ("deny = ['netwrk']", "did you mean 'network'?"),
        ("extends = 'strikt'", "did you mean 'strict'?"),
        ("[limits]\ncode_byte = 1", "did you mean 'code_bytes'?"),
        ("deny = 'network'", "no list of names"),
        ("deny = [1]", "no list of names"),
        ("extends = 1", "no string"),
        ("limits = 1", "no table"),
        ("deny = ['network']\nallow = ['network']", "in both allow and deny"),
        ("deny = [", "not TOML"),
        ("extends = 'strict'\nwarn = ['nesting']", "nothing but denied"),
    ],
)
def test_a_mistake_in_a_file_is_an_error_that_says_what_was_meant(text, said):
    with pytest.raises(UsageError, match=r"would pass|known|may have|mean") as error:
        parse_policy(text, "mine")
    assert said in str(error.value)


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "1", 1 << 40])
def test_a_limit_that_cannot_be_is_an_error(number):
    with pytest.raises(LimitError):
        read_policy({"limits": {"code_bytes": number}}, "mine")


def test_policies_are_found_by_name():
    assert find_policy("strict") is STRICT
    with pytest.raises(UsageError, match="did you mean 'standard'"):
        find_policy("standart")


def test_the_defaults_of_the_limits_are_those_of_their_table():
    assert STANDARD.limits == Limits() == Limits(**{name: row.default for name, row in LIMITS.items()})
    assert all(row.least <= row.strict <= row.default <= row.most for row in LIMITS.values())


def test_only_off_is_off():
    assert [policy.name for policy in POLICIES.values() if policy.is_off] == ["off"]


@pytest.mark.parametrize("more", [{}, {"extends": "off"}, {"allow": ["size"]}])
def test_a_policy_that_says_nothing_but_a_size_denies_what_is_beyond_it(more):
    """It was taken for `off`, as no rule had a severity, and judged nothing."""
    policy = read_policy({"limits": {"code_bytes": 5}, **more}, "mine")
    assert judge("x = 1", "python", policy).allowed and not judge("x = 10", "python", policy).allowed
    session = wished(POLICIES["off"], {"limits": {"code_bytes": 5}})
    assert not judge("x = 10", "python", session).allowed


# -- tightening

NAMES = st.sampled_from(["math", "os", "os.path", "numpy", "numpy.random", "json"])
MAPPINGS = st.fixed_dictionaries(
    {},
    optional={
        "extends": st.sampled_from(list(POLICIES)),
        "deny": st.lists(st.sampled_from(["network", "files", "dynamic", "unparsed"]), unique=True, max_size=2),
        "allow": st.lists(st.sampled_from(["process", "introspection", "modules", "size"]), unique=True, max_size=2),
        "warn": st.lists(st.sampled_from(["shell", "magic", "native"]), unique=True, max_size=2),
        "allow_modules": st.lists(NAMES, max_size=3),
        "deny_modules": st.lists(NAMES, max_size=2),
        "deny_names": st.lists(st.sampled_from(["os.system", ".x", "print"]), max_size=2),
        "allow_magics": st.lists(st.sampled_from(["%time", "%sx", "%%bash"]), max_size=2),
        "message_types": st.lists(st.sampled_from(["execute_request", "comm_msg"]), max_size=2),
        "limits": st.fixed_dictionaries(
            {}, optional={"code_bytes": st.integers(1, 100), "nesting": st.integers(5, 20)}
        ),
    },
)
CELLS = [
    "import os\nos.system('x')",
    "import numpy.random, json",
    "eval('1')",
    "%time 1",
    "!ls",
    "x.x",
    "print(open('a'))",
    "((((((((1))))))))",
    "import requests",
    "1",
]


@given(MAPPINGS, MAPPINGS)
def test_tightened_never_allows_what_either_denies(one, other):
    base, wish = read_policy(one, "base"), read_policy(other, "wish")
    both = tightened(base, wish)
    for cell in CELLS:
        if judge(cell, "python", both).allowed:
            assert judge(cell, "python", base).allowed and judge(cell, "python", wish).allowed
    for kind in ("execute_request", "comm_msg", "debug_request"):
        if judge_message(kind, {"code": ""}, both).allowed:
            assert judge_message(kind, {"code": ""}, base).allowed and judge_message(kind, {"code": ""}, wish).allowed


def test_a_size_that_a_session_asks_for_lets_nothing_pass_unread():
    """Found by the test above: beyond a size nothing is read, so a tiny size hid all else, when it was no finding."""
    both = tightened(read_policy({"deny": ["network"]}, "base"), read_policy({"limits": {"code_bytes": 1}}, "wish"))
    assert not judge("import requests", "python", both).allowed


@given(MAPPINGS)
def test_tightening_by_the_same_or_by_nothing_changes_nothing(mapping):
    policy = read_policy(mapping, "p")
    nothing = Policy("p", limits=Limits(**{name: row.most for name, row in LIMITS.items()}))
    assert tightened(policy, policy) == tightened(policy, nothing) == policy


def test_rules_and_categories_have_names_of_their_own():
    assert not set(RULES) & set(CATEGORIES)
