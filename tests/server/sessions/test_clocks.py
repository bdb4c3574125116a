"""Time: what a session lives through counts, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cellgate.sessions.clocks import LONGEST_STEP_SECONDS, Life, SteadyClock, Urge, urge_of, urges_at
from tests.support.stage import LIMITS, with_limits


def test_a_suspended_host_ages_nobody():
    clock = SteadyClock(100.0)
    assert clock.look(101.0) == 101.0
    assert clock.look(101.0 + 3600) == 101.0 + LONGEST_STEP_SECONDS
    assert clock.look(101.0 + 3601) == 102.0 + LONGEST_STEP_SECONDS


@given(st.lists(st.floats(-1e9, 1e9)))
def test_a_steady_clock_never_goes_back_nor_jumps(readings):
    clock, before = SteadyClock(0.0), 0.0
    for reading in readings:
        now = clock.look(reading)
        assert before <= now <= before + LONGEST_STEP_SECONDS
        before = now


@given(st.floats(0, 1e6), st.none() | st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_urge_is_due_exactly_from_when_it_is_said_to_be(sent_at, interrupted_at, now):
    is_due = urge_of(10, 2, sent_at, interrupted_at, now) is not Urge.NONE
    assert is_due == (now >= urges_at(10, 2, sent_at, interrupted_at))


def test_a_notice_comes_no_earlier_than_half_of_a_short_span():
    life = Life(born_at=0.0, active_at=0.0)
    limits = with_limits(idle_seconds=10, notice_seconds=60)
    assert life.notice_due(limits, 4.9) is None
    assert life.notice_due(limits, 5.0) is not None


@given(st.floats(0, 2000), st.floats(0, 2000), st.booleans())
def test_a_session_is_looked_at_before_it_ends(born_at, idle, is_working):
    life = Life(born_at=born_at, active_at=born_at + idle)
    first = life.looks_at(LIMITS, is_working)
    if not is_working:
        assert first <= life.expiry(LIMITS).at
        life.notice_due(LIMITS, first)
        assert life.looks_at(LIMITS, is_working) == life.expiry(LIMITS).at
    assert first <= born_at + LIMITS.lifetime_seconds
