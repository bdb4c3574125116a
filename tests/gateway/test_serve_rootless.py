"""`cellgate serve` without root: started by a plain user, who becomes nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellgate.commands.exits import ExitStatus
from tests.native.test_rootless import as_nobody, delegated, nothing_lives_on

__all__ = ["delegated"]  # the fixture

pytestmark = [pytest.mark.native]

SCRIPT = Path(__file__).with_name("rootless_serve.py")


def test_a_user_who_is_not_root_serves_and_keeps_sessions_too(delegated: list[str]):
    report = as_nobody(delegated, SCRIPT)
    if report.get("failed") == ExitStatus.FAILED:
        pytest.skip("user namespaces are not allowed here")
    assert report == {
        "said": True,
        "sum": "2",
        "end": 0,
        "kept": "42",
        "modes": {**dict.fromkeys(("", "access", "gateway", "warden"), "700"), "server.json": "600"},
        "end again": 0,
        "trusted": ["2", True, 0],
    }
    nothing_lives_on()
