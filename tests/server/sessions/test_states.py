"""The tables: an illegal move changes nothing, and every state leads to the end."""

from __future__ import annotations

import itertools

import pytest

from cellgate.sessions.states import (
    CELL_MOVES,
    CELL_REASONS,
    SESSION_MOVES,
    STATE_MEANINGS,
    CellMove,
    CellReason,
    IllegalMove,
    Move,
    Phase,
    State,
    moved,
)
from cellgate.wire.jupyter import ERROR_NAMES

TABLES = [(SESSION_MOVES, State, Move), (CELL_MOVES, Phase, CellMove)]


@pytest.mark.parametrize("table, states, moves", TABLES)
def test_what_is_not_in_the_table_is_refused(table, states, moves):
    for state, move in itertools.product(states, moves):
        if move in table[state]:
            assert moved(table, state, move) is table[state][move]
        else:
            with pytest.raises(IllegalMove):
                moved(table, state, move)


@pytest.mark.parametrize("table, states, moves", TABLES)
def test_every_state_is_reached_and_leads_to_the_only_end(table, states, moves):
    first = next(iter(table))
    reached = {first}
    for _ in states:
        reached |= {after for state in reached for after in table[state].values()}
    assert reached == set(states)
    ends = {state for state in states if not table[state]}
    assert len(ends) == 1
    for _ in states:
        ends |= {state for state in states if ends & set(table[state].values())}
    assert ends == set(states)


def test_every_state_and_reason_has_its_sentence():
    assert set(STATE_MEANINGS) == set(State)
    assert set(CELL_REASONS) == set(CellReason)


def test_the_wire_has_a_name_for_every_reason_that_a_kernel_does_not_tell_itself():
    assert {reason.value for reason in CellReason} - set(ERROR_NAMES) == {"ok", "error"}
