"""Ways around a validator: how many of those that have a name `strict` denies. Which it misses stands in POLICY.md."""

from __future__ import annotations

import pytest

from cellgate.policy.judge import judge
from cellgate.policy.policies import STRICT
from tests.policy.evasions import EVASIONS
from tests.policy.test_documents import PATH, table

MISSED = set(table("evasions", PATH.read_text())[2].rstrip(".\n").split("\n\n")[1].split("; "))


def test_there_are_enough_of_them():
    assert len(EVASIONS) == len(set(EVASIONS.values())) >= 150


def test_the_share_that_strict_denies(capsys):
    denied = sum(not judge(code, "python", STRICT).allowed for code in EVASIONS.values())
    with capsys.disabled():
        print(f"\nstrict denies {denied} of {len(EVASIONS)} ways around; misses: {', '.join(sorted(MISSED))}")
    assert denied == len(EVASIONS) - len(MISSED)


@pytest.mark.parametrize("name", [name for name in EVASIONS if name not in MISSED])
def test_strict_denies(name):
    assert not judge(EVASIONS[name], "python", STRICT).allowed
