"""The cap of a cell's output: head, count, tail, and what is essential."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.sessions import output_cap
from cellgate.sessions.output_cap import MAX_ESSENTIAL, CapLimits, OutputCap, Truncated

SMALL = CapLimits(head_bytes=100, head_messages=5, tail_bytes=30, tail_messages=3)


def run(cap, sizes, essential=()):
    """What passes of items that are named by their place."""
    passed = []
    for at, size in enumerate(sizes):
        passed += cap.take(at, size, essential=at in essential)
    return [*passed, *cap.finish()]


def test_output_within_the_head_passes_as_it_comes():
    cap = OutputCap(SMALL)
    assert [list(cap.take(at, 10)) for at in range(5)] == [[0], [1], [2], [3], [4]]
    assert not cap.is_cutting
    assert list(cap.finish()) == []


def test_beyond_the_head_the_newest_are_kept_and_the_rest_is_counted():
    assert run(OutputCap(SMALL), [10] * 20) == [0, 1, 2, 3, 4, Truncated(12, 120, 12, 120), 17, 18, 19]


def test_a_tail_that_holds_all_loses_nothing_and_says_nothing():
    assert run(OutputCap(SMALL), [10] * 8) == list(range(8))


def test_an_essential_passes_at_once_behind_what_came_before_it():
    cap = OutputCap(SMALL)
    for at in range(10):
        cap.take(at, 10)
    assert list(cap.take("result", 10, essential=True)) == [Truncated(2, 20, 2, 20), 7, 8, 9, "result"]
    assert list(cap.finish()) == []


def test_each_count_says_what_is_missing_at_its_place_and_in_all():
    passed = run(OutputCap(SMALL), [10] * 25, essential={14})
    assert [item for item in passed if isinstance(item, Truncated)] == [
        Truncated(6, 60, 6, 60),
        Truncated(7, 70, 13, 130),
    ]


def test_a_kernel_that_calls_everything_a_result_is_cut_too():
    count = 10 * MAX_ESSENTIAL
    passed = run(OutputCap(SMALL), [1] * count, essential=range(count))
    assert len(passed) <= SMALL.head_messages + MAX_ESSENTIAL + 1 + SMALL.tail_messages
    assert passed[-1] == count - 1  # the last error of a cell is seen whatever came before


def test_huge_essentials_come_to_an_end():
    size = output_cap.MAX_ESSENTIAL_BYTES // 2
    passed = run(OutputCap(SMALL), [size] * 10, essential=range(10))
    assert len([item for item in passed if isinstance(item, int)]) == 3  # two, and the newest as the tail


def test_the_newest_is_kept_however_large():
    assert run(OutputCap(SMALL), [10] * 10 + [10_000])[-1] == 10


def test_a_small_message_does_not_overtake_a_large_one():
    assert run(OutputCap(SMALL), [10, 1000, 1]) == [0, Truncated(1, 1000, 1, 1000), 2]


def test_the_tail_is_bounded_whatever_the_limits():
    limits = CapLimits.of(1 << 40, 1 << 30)
    assert limits.tail_bytes == output_cap.MAX_TAIL_BYTES and limits.tail_messages == output_cap.MAX_TAIL_MESSAGES
    assert limits.head_bytes + limits.tail_bytes == 1 << 40
    assert limits.head_messages + limits.tail_messages == 1 << 30


def test_foreign_state_is_refused():
    with pytest.raises(ValueError, match="state of an output cap"):
        OutputCap(SMALL, b"nonsense")


limits_of_any_size = st.builds(
    CapLimits, st.integers(0, 200), st.integers(0, 20), st.integers(0, 50), st.integers(0, 6)
)
messages = st.lists(st.tuples(st.integers(0, 60), st.sampled_from([False] * 9 + [True])), max_size=120)


@given(messages, limits_of_any_size)
def test_whatever_comes_passes_once_in_order_or_is_counted_at_its_place(sizes, limits):
    cap = OutputCap(limits)
    passed = run(cap, [size for size, _ in sizes], {at for at, (_, essential) in enumerate(sizes) if essential})
    expected = 0
    lost = lost_bytes = 0
    for item in passed:
        if isinstance(item, Truncated):
            missing = [size for size, _ in sizes[expected : expected + item.messages]]
            assert (len(missing), sum(missing)) == (item.messages, item.bytes)
            expected += item.messages
            lost, lost_bytes = lost + item.messages, lost_bytes + item.bytes
            assert (item.messages_in_all, item.bytes_in_all) == (lost, lost_bytes)
        else:
            assert item == expected
            expected += 1
    assert expected == len(sizes)


@given(messages, st.integers(0, 119))
def test_an_heir_counts_on_and_takes_what_was_held_for_dropped(sizes, crash_at):
    limits = CapLimits(100, 10, 40, 4)
    cap, seen, lost = OutputCap(limits), 0, 0
    for at, (size, essential) in enumerate(sizes):
        if at == crash_at:
            cap = OutputCap(limits, cap.state())
        for item in cap.take(at, size, essential=essential):
            if not isinstance(item, Truncated):
                seen += 1
            else:
                lost = item.messages_in_all
    for item in cap.finish():
        if not isinstance(item, Truncated):
            seen += 1
        else:
            lost = item.messages_in_all
    assert seen + lost == len(sizes)
