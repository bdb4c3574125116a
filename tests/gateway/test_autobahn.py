"""Autobahn's test suite itself, against our websocket: its fuzzing client, all cases.

The suite runs on Python 2.7 alone, so that it cannot come with the other test dependencies. Where there is one,
`python2.7 -m pip install autobahntestsuite` brings a command `wstest`; this test runs when that is on the PATH, or is
named by CELLGATE_WSTEST. Everywhere else `test_autobahn_cases.py` goes through the same cases.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil

import pytest

from tests.support.websocket import Echo, serve

WSTEST = os.environ.get("CELLGATE_WSTEST") or shutil.which("wstest")

# The suite has no opinion on these, and tells what it saw.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
COMPRESSION = ("12.", "13.")  # sections; compression is never agreed on


class LargeEcho(Echo):
    max_message_size = 64 << 20  # the suite's largest message has 16 MiB


@pytest.mark.slow
@pytest.mark.skipif(WSTEST is None, reason="needs Python 2.7 with Autobahn's wstest")
async def test_the_suite_finds_every_case_ok(tmp_path):
    async with serve(LargeEcho) as stage:
        server = {"agent": "cellgate", "url": f"ws://127.0.0.1:{stage.port}"}
        spec = {"outdir": str(tmp_path / "report"), "servers": [server], "cases": ["*"], "exclude-cases": []}
        (tmp_path / "spec.json").write_text(json.dumps({**spec, "exclude-agent-cases": {}}))
        assert WSTEST is not None
        wstest = await asyncio.create_subprocess_exec(
            *(WSTEST, "-m", "fuzzingclient", "-s", str(tmp_path / "spec.json")),
            stdout=asyncio.subprocess.DEVNULL,
            cwd=tmp_path,
        )
        try:
            assert await wstest.wait() == 0
        finally:
            if wstest.returncode is None:
                wstest.kill()
    cases = json.loads((tmp_path / "report" / "index.json").read_text())["cellgate"]
    seen = {case: (outcome["behavior"], outcome["behaviorClose"]) for case, outcome in cases.items()}
    told = dict.fromkeys(INFORMATIONAL, ("INFORMATIONAL", "INFORMATIONAL"))
    unimplemented = {case: ("UNIMPLEMENTED", "OK") for case in seen if case.startswith(COMPRESSION)}
    assert seen == dict.fromkeys(seen, ("OK", "OK")) | told | unimplemented
    assert len(seen) - len(unimplemented) == 301
