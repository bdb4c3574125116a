"""`cellgate doctor` over real sandboxes: one that holds, one that does not, and none at all."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

import cellgate.doctor as command
from cellgate.cli import main
from cellgate.doctor.examine import LAST, TELLING, examine, read_answer
from cellgate.doctor.probes import PROBES, judge
from cellgate.doctor.report import Mark, Report, Standing, Tier
from cellgate.errors import DriverUnavailable, SandboxStartFailed
from cellgate.sandbox.base import Driver, SandboxSpec
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.client import ExecuteResult
from cellgate.sandbox.process import ContainsNothingWarning, ProcessDriver, ProcessSandbox
from tests.server.doctor.recorded import native_facts
from tests.support.native import skip_without_native


class Boaster(ProcessDriver):
    """Promises what `native` promises, and contains nothing."""

    name = "native"


async def report_of(driver: Driver) -> Report:
    try:
        return await examine(driver)
    finally:
        await driver.close()


async def open_boaster(name: str, *, runtime: str) -> Driver:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ContainsNothingWarning)
        return Boaster()


def left_in_tmp() -> set[str]:
    return {str(path) for path in Path(tempfile.gettempdir()).glob("cellgate-doctor-*")}


@pytest.mark.native
def test_all_that_the_native_driver_promises_holds_here():
    """On a host without something the status says which; a promised layer is never missing in silence."""
    skip_without_native()
    run = subprocess.run(
        [sys.executable, "-m", "cellgate", "doctor", "--json"], capture_output=True, text=True, timeout=100, check=False
    )
    spoken = json.loads(run.stdout)
    (report,) = spoken["reports"]
    bad = [entry for entry in report["findings"] if entry["promised"] and entry["mark"] in ("missing", "unknown")]
    assert bad == []
    assert (run.returncode, spoken["exit_status"], report["tier"]) == (0, 0, "untrusted")
    assert [entry["id"] for entry in report["findings"]] == [probe.id for probe in PROBES]
    assert run.stderr == ""


def test_a_sandbox_that_contains_nothing_is_caught_when_it_claims_to(monkeypatch, capsys):
    """The real thing, broken: a plain subprocess that goes by the name of the native driver."""
    monkeypatch.setattr(command, "open_driver", open_boaster)
    before = left_in_tmp()
    assert main(["doctor", "--json"]) == 3
    spoken = json.loads(capsys.readouterr().out)
    marks = {entry["id"]: entry["mark"] for entry in spoken["reports"][0]["findings"]}
    for probe_id in (
        *("namespaces.user", "namespaces.network", "user.own_uid", "privileges.no_new_privs", "seccomp.filter"),
        *("filesystem.host_files", "filesystem.neighbour", "network.host", "limits.pids", "limits.workspace"),
    ):
        assert marks[probe_id] == "missing", probe_id
    assert spoken["exit_status"] == 3
    assert left_in_tmp() == before


def test_the_process_driver_keeps_its_few_promises_and_the_table_says_how_few(capsys):
    assert main(["doctor", "--driver", "process"]) == 0
    shown = capsys.readouterr()
    assert "Tier trusted: it limits some of what trusted code may use up, and contains nothing." in " ".join(
        shown.out.split()
    )
    assert "not promised: containment of any kind" in shown.out
    assert "contains nothing" in shown.err


def test_a_driver_that_cannot_run_here_says_why_and_what_to_do(monkeypatch, capsys):
    async def refuse(name: str, *, runtime: str) -> Driver:
        raise DriverUnavailable(name, "this is not root, and user namespaces fail", "use the docker driver")

    monkeypatch.setattr(command, "open_driver", refuse)
    assert main(["doctor"]) == 4
    shown = " ".join(capsys.readouterr().out.split())
    assert "native: cannot run here: this is not root, and user namespaces fail; use the docker driver." in shown
    assert "Linux 5.12 or newer" in shown  # what the host has is told all the same


def test_a_driver_whose_sandboxes_do_not_start_is_unmeasured(monkeypatch, capsys):
    class Stillborn(Boaster):
        async def create(self, spec: SandboxSpec) -> ProcessSandbox:
            raise SandboxStartFailed("native", "forking", "out of luck")

    async def open_stillborn(name: str, *, runtime: str) -> Driver:
        return Stillborn()

    monkeypatch.setattr(command, "open_driver", open_stillborn)
    assert main(["doctor", "--json"]) == 4
    spoken = json.loads(capsys.readouterr().out)
    assert spoken["reports"][0]["unavailable"]["code"] == "sandbox_start_failed"
    assert "out of luck" in spoken["reports"][0]["verdict"]


def test_a_sandbox_with_small_limits_that_does_not_start_leaves_them_unknown(monkeypatch):
    class Fussy(Boaster):
        async def create(self, spec: SandboxSpec) -> ProcessSandbox:
            if spec.limits.pids < 100:
                raise SandboxStartFailed("native", "forking", "too small")
            return await super().create(spec)

    async def open_fussy() -> Report:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ContainsNothingWarning)
            return await report_of(Fussy())

    marks = {finding.id: finding for finding in asyncio.run(open_fussy()).findings}
    assert marks["limits.pids"].mark is Mark.UNKNOWN
    assert "too small" in marks["limits.pids"].seen
    assert marks["versions.python"].mark is Mark.HOLDS


def test_an_unknown_driver_is_a_usage_error(capsys):
    assert main(["doctor", "--driver", "magic"]) == 2
    assert "error[usage]" in capsys.readouterr().err


# -- what a cell answered --------------------------------------------------------------------------------


def answer(data: object) -> ExecuteResult:
    content = {"data": {"application/vnd.cellgate.facts+json": data}}
    return ExecuteResult("ok", {}, [{"channel": "iopub", "msg_type": "display_data", "content": content}])  # type: ignore[typeddict-item]


def test_facts_that_nobody_asked_for_are_not_taken():
    said = read_answer(answer({"namespaces": {"found": 1}, "hit_cpu": {"found": 1}, "status": "junk"}), TELLING)
    assert set(said.facts) == {"namespaces"}


@pytest.mark.parametrize("data", [None, 1, "facts", []], ids=repr)
def test_an_answer_without_facts_leaves_all_unknown(data):
    facts = native_facts(inside=read_answer(answer(data), TELLING))
    assert Report("native", Tier.UNTRUSTED, judge("native", facts)).standing is Standing.UNMEASURED


def test_the_end_of_a_sandbox_is_told_and_is_an_answer_where_it_may_be_the_limits():
    ended = ExecuteResult(certificate=DeathCertificate(Reason.OOM))
    assert read_answer(ended, LAST)["hit_memory"] == {"sandbox": "oom"}
    assert read_answer(ended, TELLING).facts == {}
    assert "ended" in read_answer(ended, TELLING).silent_because


def test_what_is_run_inside_needs_only_the_standard_library():
    import ast

    source = Path(command.__file__).with_name("inside.py").read_text()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= sys.stdlib_module_names | {"__future__"}
