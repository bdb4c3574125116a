"""The programs for agents in README.md and CLIENTS.md run as they stand, over the server of this host."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.support.server import BOUND, served

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    program
    for name in ("README.md", "server/CLIENTS.md")
    for program in re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
]


@pytest.mark.native
@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_program_runs(program: str):
    async with served() as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program),
            env={**server._env, "CELLGATE_STATE_DIR": str(server.state_dir)},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), BOUND)
        assert (out, process.returncode) == (b"0\n1\n2\n", 0)
        assert (await server.fetch("GET", "/v1/sessions")).json() == {"sessions": []}
