from __future__ import annotations

import pytest

from tests.support.browser import Notebook, opened
from tests.support.server import served

TOKEN = {"CELLGATE_TOKEN": "the-token-of-the-page-tests"}


@pytest.fixture
async def server():
    async with served(env=TOKEN) as server:
        yield server


@pytest.fixture
async def notebook(server):
    """On a page whose session has begun."""
    async with opened(server, viewport={"width": 1100, "height": 900}) as page:
        await page.locator(".cell .cm-content").first.wait_for()
        yield Notebook(page)
