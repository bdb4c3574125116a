"""The operator's page: everybody's sessions, how they fare, and an end to any."""

from __future__ import annotations

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.support.browser import BOUND_MS

pytestmark = pytest.mark.native


async def test_an_operator_sees_sessions_and_plots_and_ends_one(notebook, server):
    await notebook.finished(await notebook.run("1 + 1"))
    session = (await server.fetch("GET", "/v1/sessions")).json()["sessions"][0]["id"]
    page = await notebook.page.context.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    await page.goto(f"{server.url}/admin")
    row = page.locator(f"tr[data-session='{session}']")
    await expect(row).to_contain_text("owner", timeout=BOUND_MS)
    await expect(page.locator(".plot")).to_have_count(10)
    await expect(page.locator(".plot path.area").first).to_be_attached(timeout=BOUND_MS)
    found = (await Axe().run(page)).response["violations"]
    assert not [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")]
    await row.get_by_text("Details").click()
    await expect(page.locator("#facts")).to_contain_text("limit memory bytes")
    await page.get_by_role("button", name="Close").click()
    await row.get_by_role("button", name="End").click()
    await expect(row).to_have_count(0, timeout=BOUND_MS)
    await expect(page.locator("#deaths")).to_contain_text("session deleted", timeout=BOUND_MS)
    await expect(notebook.page.locator("#connection")).to_have_text("This session has ended.", timeout=BOUND_MS)


async def test_who_is_no_operator_is_told_so(notebook, server):
    stranger = await notebook.page.context.browser.new_context()
    page = await stranger.new_page()
    await page.goto(f"{server.url}/admin")
    assert "/login" in page.url
    await stranger.close()
