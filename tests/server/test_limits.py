"""The limits of a sandbox: one table, and nothing that is no limit passes for one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.errors import LimitError
from cellgate.sandbox.limits import LIMIT_ROWS, Limits, check_fits_host, limits_as_markdown

NAMES = [row.name for row in LIMIT_ROWS]
NO_LIMITS = [0, -1, math.nan, math.inf, -math.inf, 1e308, 2**63, 10**400, "10", "", None, True, [], {}, 1j]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", NO_LIMITS, ids=lambda value: repr(value)[:20])
def test_what_is_no_limit_is_refused(name, value):
    with pytest.raises(LimitError) as refused:
        Limits(**{name: value})
    assert refused.value.name == name
    with pytest.raises(LimitError):
        Limits.from_mapping({name: value})


@pytest.mark.parametrize("row", LIMIT_ROWS, ids=lambda row: row.name)
def test_each_limit_may_be_its_bounds_and_nothing_beyond(row):
    for number in (row.minimum, row.default, row.maximum):
        assert getattr(Limits(**{row.name: number}), row.name) == number
    step = 1 if row.is_whole else 0.001
    for number in (row.minimum - step, row.maximum + step):
        with pytest.raises(LimitError):
            Limits(**{row.name: number})


@pytest.mark.parametrize("row", [row for row in LIMIT_ROWS if row.is_whole], ids=lambda row: row.name)
def test_a_count_is_whole(row):
    with pytest.raises(LimitError):
        Limits(**{row.name: float(row.default)})


def test_every_limit_has_a_unit_and_a_reason():
    assert all(row.unit and row.reason for row in LIMIT_ROWS)


def test_names_that_are_not_in_the_table_are_refused():
    with pytest.raises(LimitError) as refused:
        Limits.from_mapping({"memory": 1 << 30})
    assert "memory_bytes" in str(refused.value)


def test_limits_go_through_a_mapping_unchanged():
    limits = Limits(pids=64, cpu_cores=0.5)
    assert Limits.from_mapping(limits.to_mapping()) == limits
    assert Limits.from_mapping({}) == Limits()


@given(st.dictionaries(st.sampled_from([*NAMES, "x"]), st.one_of(st.integers(), st.floats(), st.text(), st.none())))
def test_a_mapping_gives_limits_or_a_limit_error_and_no_third_result(values):
    try:
        limits = Limits.from_mapping(values)
    except LimitError as error:
        assert str(error)
    else:
        assert limits.to_mapping() == Limits().to_mapping() | values


def test_more_than_the_host_has_is_refused():
    host = {"host_memory_bytes": 1 << 30, "host_cpu_cores": 2}
    check_fits_host(Limits(memory_bytes=1 << 30, cpu_cores=2), **host)
    for limits in (Limits(memory_bytes=(1 << 30) + 1), Limits(cpu_cores=2.5)):
        with pytest.raises(LimitError):
            check_fits_host(limits, **host)


def test_the_table_for_people_has_a_row_for_each_limit():
    lines = limits_as_markdown().splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == NAMES
    assert len({line.count("|") for line in lines}) == 1
