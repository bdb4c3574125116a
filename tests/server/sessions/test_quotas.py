"""What one principal may hold and spend: refusals that say what is left and when there is more, and sums that count
everything once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.errors import QuotaUsedUp, TooManySessions
from cellgate.sessions.limits import ServerLimits
from cellgate.sessions.quotas import DAY_SECONDS, Holding, Ledger, Used, refusal, spent_refusal

MIDNIGHT = 20_000.0 * DAY_SECONDS
NOON = MIDNIGHT + DAY_SECONDS / 2
MiB = 1 << 20
LIMITS = ServerLimits(
    sessions_per_principal=3,
    memory_bytes_per_principal=100 * MiB,
    stored_bytes_per_principal=10 * MiB,
    cpu_seconds_per_day=60,
    wall_seconds_per_day=600,
)


def refused(holding: Holding | None = None, used: Used | None = None):
    """A session of 40 MiB, to who holds and has used this."""
    return refusal(LIMITS, holding or Holding(), used or Used(), memory_bytes=40 * MiB, now=NOON)


def test_who_has_room_gets_a_session():
    assert refused() is None
    assert refused(Holding(2, 60 * MiB, 10 * MiB - 1), Used(59.9, 599.9)) is None


@pytest.mark.parametrize(
    ("holding", "used", "quota", "left", "retry"),
    [
        (Holding(memory_bytes=61 * MiB), Used(), "memory_bytes_per_principal", 39 * MiB, 10),
        (Holding(memory_bytes=200 * MiB), Used(), "memory_bytes_per_principal", 0, 10),
        (Holding(stored_bytes=10 * MiB), Used(), "stored_bytes_per_principal", 0, 10),
        (Holding(), Used(60.0, 0.0), "cpu_seconds_per_day", 0, DAY_SECONDS // 2),
        (Holding(), Used(0.0, 600.0), "wall_seconds_per_day", 0, DAY_SECONDS // 2),
    ],
)
def test_who_has_none_is_told_what_was_asked_what_is_left_and_when(holding, used, quota, left, retry):
    error = refused(holding, used)
    assert isinstance(error, QuotaUsedUp)
    assert (error.quota, error.left, error.retry_seconds) == (quota, left, retry)
    assert error.asked > error.left


def test_too_many_sessions_are_told_first():
    assert isinstance(refused(Holding(3, 200 * MiB)), TooManySessions)


def test_what_is_spent_comes_back_at_midnight():
    ledger = Ledger()
    ledger.count_wall("ada", 600.0, NOON)
    assert spent_refusal(LIMITS, ledger.used("ada", NOON), NOON).retry_seconds == DAY_SECONDS / 2
    assert spent_refusal(LIMITS, ledger.used("eve", NOON), NOON) is None
    assert spent_refusal(LIMITS, ledger.used("ada", MIDNIGHT + DAY_SECONDS), MIDNIGHT + DAY_SECONDS) is None


def test_a_clock_that_is_set_back_gives_nothing_back():
    ledger = Ledger()
    ledger.count_wall("ada", 600.0, NOON)
    assert ledger.used("ada", NOON - 2 * DAY_SECONDS).wall_seconds == 600.0


@given(st.lists(st.tuples(st.sampled_from(["s/1", "s/2", "t/1"]), st.floats(0, 1e6)), max_size=50))
def test_a_kernels_time_counts_once_whatever_is_told_how_often(told):
    ledger, most = Ledger(), {}
    for kernel, total in told:
        ledger.count_cpu("ada", kernel, total, NOON)
        most[kernel] = max(most.get(kernel, 0.0), total)
    assert ledger.used("ada", NOON).cpu_seconds == pytest.approx(sum(most.values()))


def test_a_kernels_time_before_midnight_is_not_counted_again_after():
    ledger = Ledger()
    ledger.count_cpu("ada", "s/1", 50.0, NOON)
    ledger.count_cpu("ada", "s/1", 55.0, NOON + DAY_SECONDS)
    assert ledger.used("ada", NOON + DAY_SECONDS).cpu_seconds == 5.0


def test_a_ledger_is_the_same_after_it_was_written_and_read():
    ledger = Ledger()
    ledger.count_cpu("ada", "s/1", 50.0, NOON)
    ledger.count_wall("eve", 7.0, NOON)
    again = Ledger.from_json(json.loads(json.dumps(ledger.to_json())))
    again.count_cpu("ada", "s/1", 51.0, NOON)
    assert again.used("ada", NOON) == Used(51.0, 0.0)
    assert again.used("eve", NOON) == Used(0.0, 7.0)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"day": "7", "used": {}, "kernels": {}},
        {"day": 20_000, "used": {"ada": [1]}, "kernels": {}},
        {"day": 20_000, "used": {"ada": [-1, 0]}, "kernels": {"s/1": "x"}},
        {"day": 20_000, "used": {"ada": [float("nan"), 0]}, "kernels": {}},
        {"day": 20_000, "used": {"ada": {"cpu": 7}}, "kernels": []},
    ],
)
def test_what_makes_no_sense_counts_as_not_used(data):
    assert Ledger.from_json(data).used("ada", NOON) == Used()


def test_the_defaults_of_every_profile_fit_together():
    """As `check_together` has it; and they leave room for what a profile gives each session."""
    from cellgate.settings import PROFILES, read_settings

    for profile in PROFILES:
        settings = read_settings(flags={"profile": profile}, environ={}, file={})
        holding = Holding(1, settings.sandbox.memory_bytes, settings.session.journal_bytes_per_session)
        memory = settings.sandbox.memory_bytes
        assert refusal(settings.server, holding, Used(), memory_bytes=memory, now=NOON) is None
