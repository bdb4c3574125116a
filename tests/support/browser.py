"""A real Chromium for tests, on a page of a real server.

async with served() as server, opened(server) as page:
    await page.locator(".cm-content").first.click()
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.server import BOUND, Server

__all__ = ["BOUND_MS", "Notebook", "chromium", "opened"]

BOUND_MS = BOUND * 1000  # for Playwright

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not installed")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(server: Server, **context):
    """The server's page, logged in by the address that the server printed. What the page's console says is in
    `page.said`."""
    async with chromium() as browser:
        page = await (await browser.new_context(**context)).new_page()
        page.said = []
        page.on("console", lambda message: page.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.said.append(f"error: {error}"))
        await page.goto(f"{server.url}/?token={server.token}")
        yield page


class Notebook:
    """The cells on a page, as somebody at the keyboard has them."""

    def __init__(self, page: Any) -> None:
        self.page = page

    async def run(self, code: str) -> Any:
        """Type into the last cell and run it. Returns the cell, at once."""
        empty = self.page.locator(".cell").last
        name = await empty.get_attribute("data-cell")
        await empty.locator(".cm-content").click()
        await self.page.keyboard.insert_text(code)
        await self.page.keyboard.press("Shift+Enter")
        return self.page.locator(f'[data-cell="{name}"]')

    async def finished(self, cell: Any) -> Any:
        await self.phase(cell, "finished")
        return cell

    async def phase(self, cell: Any, phase: str) -> None:
        from playwright.async_api import expect

        await expect(cell).to_have_attribute("data-phase", phase, timeout=BOUND_MS)

    async def text(self, cell: Any) -> str:
        """Of its outputs that stand in the page itself."""
        return "\n".join(await cell.locator(".outputs .text").all_inner_texts())

    def frame(self, cell: Any) -> Any:
        return cell.frame_locator("iframe.frame").locator("#output")
