"""What happens is counted once, under labels of ours, and told as Prometheus reads it."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cellgate.live.happenings import (
    CellFinished,
    ClientJoined,
    ClientLeft,
    Direction,
    FileMoved,
    KernelEnded,
    KernelStarted,
    UsageSampled,
    VerdictGiven,
    Who,
)
from cellgate.metrics.gauges import Gauges
from cellgate.metrics.history import History
from cellgate.metrics.prometheus import GAUGES, Exposition
from cellgate.metrics.tally import COUNTERS, HISTOGRAMS, Tally

ADA = Who("ada", "s1")
SEEN = Gauges(Counter({("ready", "python3"): 3}), 2, 1, 0, 0, 5000, 7 << 20, 0.001)


@pytest.fixture
def tally():
    return Tally()


def read(tally: Tally) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = Exposition(tally, lambda: SEEN).render().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_cells_are_counted_by_their_reason_and_measured(tally):
    for reason, seconds in (("ok", 0.5), ("ok", 0.002), ("oom", 100_000.0)):
        tally.hear(CellFinished(ADA, 1, reason, seconds, 2, 100))
    told = read(tally)
    assert told["cellgate_cells_finished_total", (("reason", "ok"),)] == 2
    assert told["cellgate_output_bytes_total", ()] == 300
    assert told["cellgate_cell_seconds_bucket", (("le", "0.002"),)] == 1  # its end belongs to a bucket
    assert told["cellgate_cell_seconds_bucket", (("le", "0.5"),)] == 2
    assert told["cellgate_cell_seconds_bucket", (("le", "+Inf"),)] == told["cellgate_cell_seconds_count", ()] == 3
    assert told["cellgate_cell_seconds_sum", ()] == pytest.approx(100_000.502)


def test_cpu_time_counts_once_and_memory_as_long_as_there_is_a_kernel(tally):
    for seconds in (1.0, 1.0, 4.0):
        tally.hear(UsageSampled(ADA, 1, seconds, 9 << 20))
    assert (tally.total("cpu_seconds"), tally.memory) == (4.0, {"s1": 9 << 20})
    tally.hear(KernelEnded(ADA, 1, "oom", 5.0, None, 2))
    assert (tally.total("cpu_seconds"), tally.memory, tally.total("oom_kills")) == (5.0, {}, 2)
    tally.hear(UsageSampled(ADA, 2, 1.0, None))
    assert tally.total("cpu_seconds") == 6.0


def test_verdicts_denials_files_and_clients_are_counted(tally):
    tally.hear(VerdictGiven(ADA, "execute_request", (), 0.001))
    tally.hear(VerdictGiven(ADA, "execute_request", ("network", "process"), 0.001))
    tally.hear(FileMoved(ADA, Direction.IN, "a", 70))
    for _ in range(3):
        tally.hear(ClientJoined(ADA, "v1"))
    tally.hear(ClientLeft(ADA))
    told = read(tally)
    assert told["cellgate_verdicts_total", (("allowed", "no"),)] == 1
    assert told["cellgate_denials_total", (("rule", "network"),)] == 1
    assert told["cellgate_file_bytes_total", (("direction", "in"),)] == 70
    assert tally.clients == 2


def test_everything_in_the_tables_is_told_from_the_start(tally):
    text = Exposition(tally, lambda: SEEN).render().decode()
    families = {family.name for family in text_string_to_metric_families(text)}
    assert families >= {f"cellgate_{name}" for name in (*COUNTERS, *HISTOGRAMS, *GAUGES)}
    told = read(tally)
    assert told["cellgate_sessions", (("kernel", "python3"), ("state", "ready"))] == 3
    assert told["cellgate_cells_accepted_total", ()] == 0


def test_every_gauge_is_seen():
    assert GAUGES.keys() == vars(SEEN).keys()


def test_history_tells_rates_since_the_sample_before(tally):
    history = History()
    history.take(tally, SEEN, 1000.0)
    for _ in range(20):
        tally.hear(CellFinished(ADA, 1, "ok", 0.1, 1, 500))
    tally.hear(CellFinished(ADA, 1, "oom", 0.1, 0, 0))
    tally.hear(KernelStarted(ADA, 1, "native", "python", 0.01))
    history.take(tally, SEEN, 1010.0)
    told = history.to_json()
    assert told["at"] == [1000.0, 1010.0]
    assert told["cells_per_second"] == [0.0, 2.1]
    assert (told["failures_per_second"][1], told["starts_per_second"][1]) == (0.1, 0.1)
    assert told["output_bytes_per_second"][1] == 1000.0
    assert told["sessions"] == [3, 3]


def test_an_empty_history_has_its_columns():
    assert set(History().to_json()) >= {"at", "sessions", "loop_lag_seconds"}


def test_what_a_cell_costs_to_count_is_little(tally):
    """Some microseconds; the bound is for a machine that does much else."""
    cell = CellFinished(ADA, 1, "ok", 0.1, 1, 500)
    began = time.process_time()
    for _ in range(10_000):
        tally.hear(cell)
    assert (time.process_time() - began) / 10_000 < 100e-6
