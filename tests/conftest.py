"""What holds for the whole suite: nothing is left behind, and CI skips nothing in silence."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support import leftovers

# A busy machine is no finding.
hypothesis.settings.register_profile("cellgate", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("cellgate")

# Reasons for which a test may be skipped even in CI: what no package can bring to the machine.
SKIPS_ALLOWED_IN_CI = (
    "cgroup v2 is not mounted here",
    "user namespaces are not allowed here",
    "needs Python ",
    "driver does not promise this",
    "x32 and int 0x80 are of x86-64",
    "this kernel's Landlock",
    "there is no lower hard limit here",
    "rootless mode is tried here with cgroup version 1 alone",
)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that was called, not one of xdist's workers
        config.pluginmanager.register(leftovers.Watch(), "leftovers")


@pytest.fixture(scope="session", autouse=True)
def signals_reach_what_tests_start() -> Iterator[None]:
    """Also where the suite was started by nohup, or behind an `&`: that a signal is ignored is inherited, and a server
    that is told to end by it then never ends. Caught here, so that the suite itself goes on all the same."""
    ignored = [number for number in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return fail_if_ci_must_not_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return fail_if_ci_must_not_skip((yield))


def fail_if_ci_must_not_skip(report):
    """With CI=true a skip is a failure, unless its reason is one that CI cannot mend."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in SKIPS_ALLOWED_IN_CI):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}; install what it needs, or list the reason in tests/conftest.py"
    return report
