"""What a gateway does about the sessions of the one before, wherever that one died."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.sessions.journal import Recovery
from cellgate.sessions.records import Kind, Record
from cellgate.sessions.recovery import Fate, born_at, decide, newest_incarnation
from cellgate.sessions.registry import SessionRow
from cellgate.sessions.states import State


def row(state: State, incarnation: int = 2, sandbox_id: str = "box") -> SessionRow:
    return SessionRow("s", "ada", {}, state, incarnation, sandbox_id)


def fate(state: State, told: int | None = 2, living: tuple[str, ...] = ("box",), **columns) -> Fate:
    (decision,) = decide([row(state, **columns)], {"s": told}, living).decisions
    return decision.fate


@pytest.mark.parametrize("state", [State.READY, State.BUSY, State.PAUSED])
def test_a_session_whose_kernel_lives_is_adopted(state):
    assert fate(state) is Fate.ADOPT


@pytest.mark.parametrize("living, told", [((), 2), (("other",), 2), (("box",), 3), (("box",), 1), (("box",), None)])
def test_without_its_sandbox_or_its_journal_it_goes_on_without_a_kernel(living, told):
    """A journal of another incarnation does not know how far this one's link had come."""
    assert fate(State.READY, told, living) is Fate.WITHOUT_KERNEL


@pytest.mark.parametrize(("state", "incarnation"), [(State.STARTING, 0), (State.GONE, 2)])
def test_what_was_to_go_or_was_never_answered_is_cleared_away(state, incarnation):
    assert fate(state, incarnation=incarnation) is Fate.CLEAR_AWAY


def test_a_first_kernel_that_was_on_its_way_is_started_anew():
    """Nobody knows which sandbox was to be its own."""
    assert fate(State.STARTING, told=1, incarnation=1) is Fate.WITHOUT_KERNEL


def test_a_restart_that_the_journal_tells_of_and_the_registry_does_not_is_finished():
    plan = decide([row(State.BUSY, incarnation=2)], {"s": 3}, ["box"])
    (decision,) = plan.decisions
    assert (decision.row.state, decision.row.incarnation) == (State.RESTARTING, 3)
    assert plan.orphans == ("box",), "the kernel before is of no use any more"


def test_what_no_session_adopts_is_an_orphan_and_a_journal_without_a_row_a_stray():
    plan = decide([row(State.READY), ], {"s": 2, "t": 1}, ["box", "nobody's"])  # fmt: skip
    assert plan.orphans == ("nobody's",)
    assert plan.stray_journals == ("t",)


rows = st.lists(
    st.builds(
        SessionRow,
        id=st.sampled_from("stuv"),
        principal=st.just("ada"),
        state=st.sampled_from(State),
        incarnation=st.integers(0, 3),
        sandbox_id=st.sampled_from(["", "a", "b", "c"]),
    ),
    unique_by=(lambda row: row.id, lambda row: row.sandbox_id or row.id),
)
journals = st.dictionaries(st.sampled_from("stuvw"), st.none() | st.integers(1, 4))


@given(rows, journals, st.sets(st.sampled_from("abcd")))
def test_each_session_has_one_fate_and_each_sandbox_one_owner_or_none(rows, journals, living):
    plan = decide(rows, journals, living)
    assert [decision.row.id for decision in plan.decisions] == [row.id for row in rows]
    adopted = [decision.row.sandbox_id for decision in plan.decisions if decision.fate is Fate.ADOPT]
    assert sorted([*adopted, *plan.orphans]) == sorted(living)
    again = decide([d.row for d in plan.decisions], journals, set(living) - set(plan.orphans))
    assert [d.fate for d in again.decisions] == [d.fate for d in plan.decisions], "a second death changes nothing"


@pytest.mark.parametrize(
    "body, number",
    [(b'{"incarnation":3}', 3), (b"[]", None), (b"{", None), (b'{"incarnation":"3"}', None)],
)
def test_the_incarnation_a_journal_tells_of(body, number):
    assert newest_incarnation(Recovery(Record(Kind.INCARNATION, body=body), 0, (), (), ())) == number


def test_a_journal_may_tell_of_none():
    assert newest_incarnation(Recovery(None, 0, (), (), ())) is None


def test_a_sessions_age_is_kept_whatever_somebody_does_to_the_clock():
    row = SessionRow("s", "ada", created=5000.0, created_monotonic=100.0, boot_id="this")
    for wall in (0.0, 1e9):
        assert born_at(row, boot_id="this", monotonic=160.0, wall=wall, now=7.0) == 7.0 - 60.0
    assert born_at(row, boot_id="another", monotonic=1.0, wall=5030.0, now=7.0) == 7.0 - 30.0
    assert born_at(row, boot_id="another", monotonic=1.0, wall=4000.0, now=7.0) == 7.0, "never in the future"


def test_every_pair_of_state_and_journal_has_a_fate():
    for state, told, living in itertools.product(State, (None, 1, 2, 3), ((), ("box",))):
        assert fate(state, told, living) in Fate
