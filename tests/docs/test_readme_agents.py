"""The README's program for agents runs as it stands, over the server of this host."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.support.server import BOUND, served

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.native
@pytest.mark.parametrize("program", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
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
