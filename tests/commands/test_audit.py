"""`cellgate audit` over the log of a server that really ran."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys

import pytest

from tests.support.live import BOUND
from tests.support.server import served, until

pytestmark = pytest.mark.native


async def cellgate(server, *words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cellgate", "audit", *words, "--state-dir", str(server.state_dir),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), BOUND)
    return process.returncode, said.decode()


async def test_what_was_done_is_told_and_what_was_changed_is_found():
    async with served("--profile", "testing") as server:
        kernel_id = (await server.fetch("POST", "/api/kernels")).json()["id"]
        path = server.state_dir / "gateway" / "audit" / "000001.jsonl"
        await until(lambda: b"kernel_started" in path.read_bytes())
        await server.fetch("DELETE", f"/api/kernels/{kernel_id}")
        await until(lambda: b"kernel_ended" in path.read_bytes())
        assert (await server.fetch("GET", "/api", Authorization="")).status == 200
        await server.fetch("GET", "/api/kernels", Authorization="token wrong")
        await server.end()

        status, said = await cellgate(server, "query", "--session", kernel_id)
        assert status == 0
        whats = [line.split()[1] for line in said.splitlines()]
        assert whats == ["session_created", "kernel_started", "session_ended", "kernel_ended"]
        assert "token_refused" in (await cellgate(server, "query"))[1]
        assert server.token not in (await cellgate(server, "export"))[1]

        status, said = await cellgate(server, "export", "--format", "csv", "--what", "session_created")
        rows = list(csv.DictReader(io.StringIO(said)))
        assert (rows[0]["principal"], rows[0]["session"]) == ("owner", kernel_id)

        status, said = await cellgate(server, "verify")
        assert (status, "whole" in said) == (0, True)
        kept = said.split()[-1]
        assert (await cellgate(server, "verify", "--expect", kept))[0] == 0

        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"principal":"owner"', b'"principal":"nobdy"', 1))
        status, said = await cellgate(server, "verify", "--json")
        told = json.loads(said)
        assert (status, told["damage"][0]["problem"]) == (1, "it was changed")
        offset = told["damage"][0]["offset"]
        assert b"nobdy" in path.read_bytes()[offset:].split(b"\n")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "--expect", "7"], "a colon and 64 hexadecimal digits"),
        (["query", "--since", "yesterday"], "2026-11-20T10:15 would pass"),
        (["query", "--what", "everything"], "invalid choice"),
    ],
)
async def test_what_cannot_be_is_refused(words, said):
    async with served(start=False) as server:
        status, text = await cellgate(server, *words)
        assert status == 2
        assert said in text
