"""What CLIENTS.md sends by HTTP is answered as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.gateway import gateway

CLIENTS = (Path(__file__).parents[2] / "server/CLIENTS.md").read_text()
SECTION = CLIENTS.partition("\n## Use it by HTTP alone\n")[2].partition("\n## ")[0]


async def test_the_calls_in_the_manual_are_answered(tmp_path):
    calls = re.findall(r"curl -s \"?http://127\.0\.0\.1:8890(\S+?)\"? -H .*? -d '(.*?)'", SECTION, re.DOTALL)
    assert len(calls) == 2
    async with gateway(tmp_path) as here:
        first, second = [(await here.ask("POST", path, json.loads(body))).json() for path, body in calls]
    assert first["value"] == 6
    assert "ZeroDivisionError" in second["text"]
