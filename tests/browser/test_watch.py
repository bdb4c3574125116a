"""A link to watch: somebody without a token sees what is done in one session, and can do nothing."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.support.browser import BOUND_MS, Notebook

pytestmark = pytest.mark.native


async def link_of(notebook: Notebook) -> str:
    page = notebook.page
    await page.locator("summary[aria-label=More]").click()
    await page.get_by_text("Share to watch").click()
    said = page.locator(".news span", has_text="/watch#")
    await expect(said).to_be_visible(timeout=BOUND_MS)
    return next(word for word in (await said.inner_text()).split() if "/watch#" in word)


async def test_whoever_has_the_link_watches_and_can_do_nothing(notebook):
    await notebook.finished(await notebook.run("print('seen')"))
    link = await link_of(notebook)
    stranger = await notebook.page.context.browser.new_context()  # another browser, which has no cookie
    watcher = await stranger.new_page()
    await watcher.goto(link)
    await expect(watcher.locator(".outputs .text").first).to_have_text("seen\n", timeout=BOUND_MS)
    assert "share" not in watcher.url, "the token left the address"
    await expect(watcher.locator(".cm-content").first).to_have_attribute("contenteditable", "false")
    shown = watcher.locator("button:visible:not(:disabled)")
    assert await shown.all_inner_texts() == [], "no button that does nothing"
    await notebook.finished(await notebook.run("print('and what comes')"))
    await expect(watcher.locator(".outputs .text").nth(1)).to_have_text("and what comes\n", timeout=BOUND_MS)
    await watcher.reload()
    await expect(watcher.locator(".outputs .text").nth(1)).to_have_text("and what comes\n", timeout=BOUND_MS)
    tried = (
        "id => fetch('/v1/sessions', {headers: {Authorization: 'token ' + sessionStorage.share}}).then(r => r.status)"
    )
    assert await watcher.evaluate(tried) == 403
    await stranger.close()


async def test_a_link_that_was_not_copied_whole_says_so(notebook):
    link = await link_of(notebook)
    stranger = await notebook.page.context.browser.new_context()
    watcher = await stranger.new_page()
    await watcher.goto(link[:-7])
    await expect(watcher.locator("#progress")).to_contain_text("not copied whole", timeout=BOUND_MS)
    await stranger.close()
