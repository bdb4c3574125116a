"""What a client may ask for: less than the server's limits, and nothing that is no limit."""

from __future__ import annotations

import json

import pytest

from cellgate.errors import LimitError, UsageError
from cellgate.live.wish import Wish, lowered
from cellgate.sandbox.limits import Limits
from cellgate.sessions.limits import SessionLimits

SANDBOX, SESSION = Limits(), SessionLimits()


def test_a_wish_without_limits_gets_the_servers_own():
    assert lowered(Wish(), SANDBOX, SESSION) == (SANDBOX, SESSION)


def test_limits_can_be_lowered_one_by_one():
    sandbox, session = lowered(Wish(limits={"pids": 32, "cell_seconds": 2.5}), SANDBOX, SESSION)
    assert (sandbox.pids, session.cell_seconds) == (32, 2.5)
    assert {**sandbox.to_mapping(), "pids": SANDBOX.pids} == SANDBOX.to_mapping()
    assert {**session.to_mapping(), "cell_seconds": SESSION.cell_seconds} == SESSION.to_mapping()


def test_the_servers_own_value_passes():
    assert lowered(Wish(limits={"pids": SANDBOX.pids}), SANDBOX, SESSION) == (SANDBOX, SESSION)


@pytest.mark.parametrize("name", [*SANDBOX.to_mapping(), *SESSION.to_mapping()])
def test_no_limit_can_be_raised(name: str):
    most = {**SANDBOX.to_mapping(), **SESSION.to_mapping()}[name]
    with pytest.raises(LimitError) as raised:
        lowered(Wish(limits={name: most + 1}), SANDBOX, SESSION)
    assert raised.value.name == name
    assert str(most) in str(raised.value)


@pytest.mark.parametrize("value", [0, -1, True, None, "10", [], {}, float("nan"), float("inf"), float("-inf"), 1e308])
@pytest.mark.parametrize("name", ["pids", "cell_seconds", "memory_bytes"])
def test_no_value_means_no_limit(name: str, value: object):
    with pytest.raises(LimitError):
        lowered(Wish(limits={name: value}), SANDBOX, SESSION)


@pytest.mark.parametrize("name", ["", "Pids", "sessions_total", "token", "privileged", "x" * 1000, "pids\n"])
def test_what_is_no_limit_of_a_session_is_refused(name: str):
    with pytest.raises(UsageError) as raised:
        lowered(Wish(limits={name: 1}), SANDBOX, SESSION)
    assert len(str(raised.value)) < 250


def test_a_profile_lowers_what_it_has_lower_and_raises_nothing():
    sandbox, session = lowered(Wish(profile="testing"), SANDBOX, SessionLimits(idle_seconds=70))
    assert (sandbox.pids, session.cell_seconds, session.idle_seconds) == (64, 10.0, 60.0)
    assert lowered(Wish(profile="testing"), SANDBOX, SessionLimits(idle_seconds=65))[1].idle_seconds == 60.0
    assert lowered(Wish(profile="development"), sandbox, session) == (sandbox, session)


def test_a_limit_that_is_named_counts_before_that_of_the_profile():
    assert lowered(Wish(profile="testing", limits={"pids": 100}), SANDBOX, SESSION)[0].pids == 100


def test_a_profile_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="development, testing, production"):
        lowered(Wish(profile="none"), SANDBOX, SESSION)


def test_limits_that_do_not_fit_each_other_are_refused():
    with pytest.raises(LimitError) as raised:
        lowered(Wish(limits={"message_bytes": 1024}), SANDBOX, SESSION)
    assert raised.value.name == "code_bytes"
    lowered(Wish(limits={"message_bytes": 1024, "code_bytes": 1000}), SANDBOX, SESSION)


def test_a_wish_comes_back_from_the_registry_as_it_was():
    wish = Wish(
        "bash",
        {"pids": 32},
        {"A": "b"},
        {"path": "x.ipynb"},
        "mine",
        {"a": [1]},
        "testing",
        "key",
        {"deny": ["network"]},
        True,
    )
    assert Wish.from_json(json.loads(json.dumps(wish.to_json()))) == wish
    assert Wish.from_json(Wish().to_json()) == Wish()


@pytest.mark.parametrize(
    "spec", [{"kernel": 7}, {"limits": []}, {"env": "x", "labels": None}, {"of another": "version"}, {"policy": "x"}]
)
def test_what_makes_no_sense_in_the_registry_is_left_out(spec: dict[str, object]):
    assert Wish.from_json(spec) == Wish()
