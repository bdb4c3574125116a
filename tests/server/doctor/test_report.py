"""What a report says of its findings: standing, tier, verdict, JSON and table."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from cellgate.doctor.probes import PROBES, judge
from cellgate.doctor.report import (
    MAX_WIDTH,
    MIN_WIDTH,
    Finding,
    Mark,
    Report,
    Standing,
    Tier,
    Unavailable,
    render,
    to_json,
    worst,
)
from tests.server.doctor.recorded import native_facts


def finding(mark: Mark, *, promised: bool = True, probe_id: str = "network.routes") -> Finding:
    return Finding(probe_id, "no route to anywhere", promised, mark, "routes to 192.0.2.1", "pull the cable")


def report(*findings: Finding, **changed) -> Report:
    return replace(Report("native", Tier.UNTRUSTED, findings, {"Linux": "6.18"}, ("silence",)), **changed)


GOOD = report(*judge("native", native_facts()))
BAD = report(finding(Mark.MISSING), finding(Mark.HOLDS, probe_id="network.names"))
UNSURE = report(finding(Mark.UNKNOWN))
NOWHERE = report(
    finding(Mark.MISSING, probe_id="host.kernel", promised=False),
    unavailable=Unavailable("driver_unavailable", "this is not root", "start it as root"),
)


@pytest.mark.parametrize(
    "findings, standing, tier",
    [
        ([finding(Mark.HOLDS)], Standing.OK, Tier.UNTRUSTED),
        ([finding(Mark.WEAKER)], Standing.OK, Tier.UNTRUSTED),
        ([finding(Mark.MISSING)], Standing.MISSING, Tier.NONE),
        ([finding(Mark.UNKNOWN)], Standing.UNMEASURED, Tier.NONE),
        ([finding(Mark.UNKNOWN), finding(Mark.MISSING)], Standing.MISSING, Tier.NONE),
        ([finding(Mark.MISSING, promised=False)], Standing.OK, Tier.UNTRUSTED),
        ([finding(Mark.UNKNOWN, promised=False)], Standing.OK, Tier.UNTRUSTED),
    ],
)
def test_a_report_stands_as_its_promised_findings_do(findings, standing, tier):
    assert (report(*findings).standing, report(*findings).tier) == (standing, tier)


def test_a_driver_that_cannot_run_here_is_unmeasured():
    assert NOWHERE.standing is Standing.UNMEASURED
    assert NOWHERE.tier is Tier.NONE
    assert NOWHERE.verdict == "native: cannot run here: this is not root; start it as root."


def test_what_is_surely_missing_comes_before_what_could_not_be_measured():
    assert worst([GOOD, UNSURE, BAD]) is Standing.MISSING
    assert worst([GOOD, UNSURE]) is Standing.UNMEASURED
    assert worst([GOOD]) is Standing.OK


def test_the_verdict_says_in_words_what_the_tier_promises():
    assert GOOD.verdict.startswith("native: all that it promises holds.")
    assert Tier.UNTRUSTED.promise in GOOD.verdict
    assert "1 of 2 promised layers missing" in BAD.verdict
    assert "do not run untrusted code in it" in BAD.verdict


def test_the_json_has_stable_names():
    spoken = json.loads(json.dumps(to_json([GOOD])))
    assert set(spoken) == {"standing", "reports"}
    assert set(spoken["reports"][0]) == {
        *("driver", "standing", "tier", "tier_promise", "verdict", "unavailable", "facts", "findings", "caveats"),
        *("runtime", "seconds"),
    }
    findings = spoken["reports"][0]["findings"]
    assert [entry["id"] for entry in findings] == [probe.id for probe in PROBES]
    assert set(findings[0]) == {"id", "layer", "title", "promised", "mark", "seen", "remedy"}
    assert {entry["mark"] for entry in findings if entry["promised"]} == {"holds"}


def test_the_json_holds_nothing_of_the_hosts_environment():
    assert "secret of the host" not in json.dumps(to_json([GOOD]))


@pytest.mark.parametrize("width", [20, MIN_WIDTH, 93, MAX_WIDTH, 400])
@pytest.mark.parametrize("reports", [[GOOD], [GOOD, BAD], [NOWHERE]], ids=["one", "two", "unavailable"])
def test_the_table_fits_the_terminal(reports, width):
    most = max(MIN_WIDTH, min(width, MAX_WIDTH))
    assert max(map(len, render(reports, width=width).splitlines())) <= most


def test_a_row_stands_beneath_its_layer_with_a_mark_for_each_driver():
    weak = report(finding(Mark.MISSING, promised=False), driver="process")
    lines = render([BAD, weak]).splitlines()
    assert lines[1].split() == ["native", "process"]
    assert lines[2] == "network"
    assert lines[3].split() == ["no", "route", "to", "anywhere", "MISSING", "-"]
    assert lines[4].split() == ["no", "route", "to", "anywhere", "ok"]


def test_containers_of_two_runtimes_have_a_column_each_and_what_cannot_run_here_has_none():
    runtimes = [report(finding(Mark.HOLDS), driver="docker", runtime=runtime) for runtime in ("runc", "runsc")]
    text = render([GOOD, *runtimes, NOWHERE])
    assert text.splitlines()[1].split() == ["native", "runc", "runsc"]
    assert "native: cannot run here: this is not root" in text


def test_what_is_missing_is_told_with_its_remedy():
    text = render([BAD])
    assert "missing in native: no route to anywhere (network.routes)" in text
    assert re.search(r"remedy: pull the cable", text)


def test_colours_come_only_when_asked_for():
    assert "\x1b" not in render([BAD])
    assert "\x1b[1;31mMISSING\x1b[0m" in render([BAD], colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", render([BAD], colour=True)) == render([BAD])
