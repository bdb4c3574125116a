"""Every rule holds its own examples: code in which it is found, and code alike in which it is not."""

from __future__ import annotations

import pytest

from cellgate.policy.judge import READERS, judge
from cellgate.policy.names import MAGICS
from cellgate.policy.policies import POLICIES, STRICT, Policy
from cellgate.policy.rules import CATEGORIES, RULES, WORDS
from cellgate.policy.verdicts import Severity

# Notes of everything, with the lists of `strict`, so that no rule hides another.
EVERYTHING = Policy(
    "everything",
    dict.fromkeys(RULES, Severity.NOTE),
    allow_modules=STRICT.allow_modules,
    allow_magics=STRICT.allow_magics,
    message_types=STRICT.message_types,
)
FIRES = [
    (rule.id, language, code) for rule in RULES.values() for language, codes in rule.fires.items() for code in codes
]
SILENT = [
    (rule.id, language, code) for rule in RULES.values() for language, codes in rule.silent.items() for code in codes
]
BY_LISTS_ALONE = {"name", "message_type"}  # shown in test_judge.py


def named(value: object) -> str:
    return str(value)[:40].encode("unicode_escape").decode()


def found(code: str, language: str) -> set[str]:
    return {finding.rule for finding in judge(code, language, EVERYTHING).findings}


@pytest.mark.parametrize("rule, language, code", FIRES, ids=named)
def test_a_rule_fires_on_its_examples(rule, language, code):
    assert rule in found(code, language)


@pytest.mark.parametrize("rule, language, code", SILENT, ids=named)
def test_a_rule_is_silent_on_what_only_looks_like_them(rule, language, code):
    assert rule not in found(code, language)


def test_every_rule_has_examples_of_both_kinds():
    assert {rule.id for rule in RULES.values() if not rule.fires or not rule.silent} == BY_LISTS_ALONE


def test_every_rule_has_a_known_category_and_every_category_a_rule():
    assert {rule.category for rule in RULES.values()} == set(CATEGORIES)
    assert not set(CATEGORIES) & set(RULES), "a policy names both in one list"


def test_whatever_names_a_rule_names_one_there_is():
    named = {magic.rule for magic in MAGICS.values()}
    for words in WORDS.values():
        named |= {*words.names.values(), *words.attributes.values(), *words.commands.values()}
    for policy in POLICIES.values():
        named |= set(policy.severities)
    assert named - {None} <= set(RULES)


def test_every_language_with_words_has_a_reader():
    assert set(WORDS) - set(READERS) <= {"r"}, "whose grammar is an extra"
