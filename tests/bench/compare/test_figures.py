"""What is kept of a comparison, and how it is told."""

from __future__ import annotations

import pytest

from tests.bench.compare.figures import OURS, Comparison, Figure, Spread, as_markdown, as_text

MADE = {
    "on": "2026-11-20", "cores": 2, "processor": "a processor", "memory_gb": 8, "kernel": "6.18", "python": "3.11",
    "load": 0.1, "load_after": 0.2, "how": "python3 -m tests.bench.compare",
}  # fmt: skip


def comparison(*figures: Figure) -> Comparison:
    return Comparison(MADE, {"cellgate": "0.1.0"}, {OURS: "ours", "peer": "theirs"}, figures=list(figures))


@pytest.mark.parametrize(
    ("samples", "spread"), [([2.0], (2, 2, 2)), ([1.0, 2.0, 3.0, 4.0, 5.0], (2, 3, 4)), ([9.0, 1.0], (3, 5, 7))]
)
def test_a_spread_is_the_median_and_the_quartiles(samples, spread):
    found = Spread.of(samples)
    assert (found.low, found.median, found.high, found.count) == (*spread, len(samples))


@pytest.mark.parametrize(("more_is_better", "ratio"), [(False, 4), (True, 0.25)])
def test_a_ratio_says_how_many_times_better_ours_is(more_is_better, ratio):
    figure = Figure("start", "A start", "ms", more_is_better=more_is_better)
    figure.add(OURS, 10)
    figure.add("peer", 40)
    assert figure.ratio("peer") == ratio
    assert figure.ratio(OURS) is None


def test_there_is_no_ratio_to_what_was_not_measured_at_that_size():
    figure = Figure("memory", "Memory", "MB", "sessions")
    figure.add(OURS, 7, at=1000)
    figure.add("peer", 35, at=100)
    assert figure.ratio("peer", 100) is None


def test_a_comparison_that_was_saved_is_read_as_it_was(tmp_path):
    figure = Figure("memory", "Memory", "MB", "sessions", notes={"peer": "ended at 100"})
    figure.add(OURS, 7, 8, at=1000)
    comparison(figure).save(tmp_path / "comparison.json")
    assert Comparison.load(tmp_path / "comparison.json") == comparison(figure)


def test_the_readmes_table_tells_medians_ratios_and_what_never_came():
    start, told = Figure("start", "A start", "ms"), Figure("kernel_killed_told", "An end", "ms")
    start.add(OURS, 10)
    start.add("peer", 400)
    told.add(OURS, 20)
    told.notes["peer"] = "never, within 10 s"
    lines = as_markdown(comparison(start, told)).splitlines()
    assert lines[2] == "| | unit | Cellgate | peer |"
    assert lines[4].endswith("| ms | **10** | 400 (40x) |")
    assert lines[5].endswith("| ms | **20** | never |")


def test_the_text_names_every_contender_and_size():
    figure = Figure("memory", "Memory", "MB", "sessions")
    figure.add(OURS, 7, at=1000)
    figure.add("peer", 35, at=1000)
    assert "5x" in as_text(figure) and as_text(figure).count("1,000") == 2
