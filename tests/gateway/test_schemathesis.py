"""Whatever can be made of the document that the gateway serves is answered as it says there, and never with a 5xx."""

from __future__ import annotations

import asyncio
import sys

import pytest

from cellgate.errors import NoSuchFile
from cellgate.gateway import auth
from cellgate.live import oneshots
from cellgate.live.files import SessionFiles
from tests.support.gateway import TOKEN, gateway

SECONDS = 300.0  # for all of it; some 60 on an idle machine, and more on one with other things to do
EXAMPLES = 10  # of each operation, beside those that its schema's every edge gets
# HTTP cannot say what is said there; a fake kernel has no files; a server that drains has no more to say.
EXCLUDED = "/channels$|/ws$|/files|/archive|/drain$"
CONFIG = """
[checks]
# What a schema cannot say (a name that can be shown, one limit within another) is refused with 422.
positive_data_acceptance.expected-statuses = ["2xx", "3xx", "401", "403", "404", "422", "429"]
"""


async def there_is_none(_: SessionFiles, path: str, *__: object) -> None:
    """As a fake kernel should say."""
    raise NoSuchFile(path)


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
async def test_no_request_that_can_be_made_of_the_document_meets_what_is_not_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "MAX_GUESSES", 10**6)  # each operation is tried with wrong tokens too
    monkeypatch.setattr(oneshots, "ROOM_SECONDS", 0.1)  # it makes sessions until there may be no more
    monkeypatch.setattr(SessionFiles, "write_whole", there_is_none)
    monkeypatch.setattr(SessionFiles, "read_whole", there_is_none)
    (tmp_path / "config.toml").write_text(CONFIG)
    async with gateway(tmp_path / "state", sessions_per_principal="20") as here:
        words = (
            *("--config-file", "config.toml", "run", f"{here.origin}/v1/openapi.json"),
            *("--header", f"Authorization: token {TOKEN}", "--seed", "1", "--max-examples", str(EXAMPLES)),
            *("--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--generation-database", "none"),
            *("--exclude-path-regex", EXCLUDED),
        )
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", *words),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(program.communicate(), SECONDS)
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
    report = said.decode()
    assert program.returncode == 0, report[-20_000:]
    assert f"Tested: {report.partition('Selected: ')[2].partition('/')[0]}" in report, report[-2000:]
