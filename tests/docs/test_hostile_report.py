"""The report of the hostile suite says of each row what its tests said, and the one that is kept is of this table."""

from __future__ import annotations

import re
from pathlib import Path

from tests.hostile.differences import DOCKER
from tests.hostile.report import Case, driver_of, render, told_of
from tests.hostile.rows import ROWS, Row

KEPT = Path(__file__).parents[1] / "hostile" / "REPORT.md"
ROW = Row("Z1", "trying", ("test_one", "test_two"))


def test_a_case_belongs_to_the_driver_in_its_name():
    for name, driver in (
        ("test_one", "native"),
        ("test_one[native]", "native"),
        ("test_one[docker-a: b]", "docker"),
        ("test_one[docker-runsc]", "docker-runsc"),
        ("test_one[an odd - parameter]", "native"),
    ):
        assert driver_of(name) == driver


def test_a_row_passes_when_all_its_cases_do_and_names_those_that_do_not():
    cases = [Case("test_one[native-1]", "native", "passed"), Case("test_two", "native", "passed")]
    assert str(told_of(ROW, "native", cases)) == "pass (2)"
    assert str(told_of(ROW, "docker", cases)) == "-"
    cases.append(Case("test_two", "native", "failed"))
    assert str(told_of(ROW, "native", cases)) == "FAIL: `test_two`"


def test_what_does_not_apply_is_told_with_its_reason():
    name, reason = next((name, reason) for name, reason in DOCKER.items() if "[" not in name)
    assert str(told_of(Row("Z1", "trying", (name,)), "docker", [])) == f"n/a: {reason}"
    skipped = [Case("test_one[docker]", "docker", "skipped", "no engine")]
    assert str(told_of(ROW, "docker", skipped)) == "n/a: no engine"


def test_every_row_is_in_the_report_with_what_is_not_shown():
    text = render([ROW, Row("Z2", "waiting", left_out="nobody waits")], ["native"], [], {"made": "today"})
    assert "| Z1 | trying | - |" in text
    assert "- **Z2**, waiting: nobody waits." in text


def test_the_readme_counts_the_rows_as_the_kept_report_does():
    counts = re.findall(r"^- .* rows failed, .*$", KEPT.read_text(), re.MULTILINE)
    told = re.findall(r"^- .* rows failed, .*$", (KEPT.parents[2] / "README.md").read_text(), re.MULTILINE)
    assert len(counts) == 3
    assert told == counts


def test_no_row_of_the_kept_report_failed():
    """A run that did not pass is mended, and not kept."""
    rows = re.findall(r"^\| ([A-Z]\d+) \| .*$", KEPT.read_text(), re.MULTILINE)
    assert set(rows) <= {row.id for row in ROWS}
    assert len(rows) == len(set(rows)) > 90
    assert "FAIL" not in KEPT.read_text()
