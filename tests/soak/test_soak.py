"""The soak in small, and the rule by which it judges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.__main__ import Plan, soak
from tests.soak.attacks import ACTS
from tests.soak.curve import COUNTS, MEMORIES, Sample, not_flat, not_given_back

MiB = 1 << 20
SAMPLE = Sample(0.0, 0, **dict.fromkeys(MEMORIES, 50 * MiB), **dict.fromkeys(COUNTS, 7))


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.timeout(600)  # each act twice; some wait for limits, and all for a busy machine
async def test_a_server_that_is_used_and_misused_for_a_while_gives_everything_back():
    """Of memory twenty seconds tell no trend: one client that is deaf makes the last third of them."""
    report = await soak(Plan(seed=1, seconds=20, look_every=1))
    assert [*not_given_back(*report.rest), *report.faults] == [], str(report)
    assert set(report.ends) == set(ACTS)
    assert report.curve


@pytest.mark.parametrize("name", COUNTS)
def test_one_more_at_the_end_than_when_it_was_warm_is_told(name: str):
    after = replace(SAMPLE, **{name: getattr(SAMPLE, name) + 1})
    assert [line.partition(":")[0] for line in not_given_back(SAMPLE, after)] == [name]
    assert not_given_back(after, SAMPLE) == not_given_back(SAMPLE, SAMPLE) == []


def grown(each: int, count: int = 180) -> list[Sample]:
    return [replace(SAMPLE, seconds=10.0 * n, gateway=SAMPLE.gateway + n * each) for n in range(count)]


def test_memory_that_grows_slowly_is_found_in_half_an_hour_and_what_comes_and_goes_is_not():
    assert not_flat(grown(200 << 10)) == ["memory of gateway: 67.5 MiB, then 79.2 MiB"]
    assert not_flat(grown(50 << 10)) == []
    waves = [replace(SAMPLE, judges=(100 + 50 * (n % 2)) * MiB) for n in range(180)]
    assert not_flat(waves) == []


def test_what_a_server_takes_at_first_is_no_growth():
    assert not_flat([SAMPLE] * 40 + [replace(SAMPLE, warden=500 * MiB)] * 140) == []


def test_of_a_few_samples_nothing_is_told():
    assert not_flat(grown(MiB << 4, count=8)) == []
