"""How the page behaves: to assistive technology, on small screens, under floods, and while it loads."""

from __future__ import annotations

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.support.browser import Notebook, opened

pytestmark = pytest.mark.native
MAX_FIRST_LOAD = 400_000  # bytes, compressed
MAX_LONG_TASK = 200  # milliseconds of one piece of work, beyond which a page feels stuck; thrice that on a busy machine

OBSERVE = """() => {
  window.longTasks = [];
  new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((entry) => entry.duration)))
    .observe({ type: "longtask", buffered: true });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(server, scheme):
    async with opened(server, color_scheme=scheme) as page:
        await page.locator(".cell .cm-content").first.wait_for()
        notebook = Notebook(page)
        await notebook.finished(await notebook.run("import pandas\nprint('x')\npandas.DataFrame({'a': [1]})"))
        await notebook.finished(await notebook.run("1/0"))
        await page.locator("#toggle-files").click()
        for _ in range(2):
            found = (await Axe().run(page, options={"iframes": False})).response["violations"]
            serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
            assert not serious, [(rule["id"], [node["html"] for node in rule["nodes"]][:3]) for rule in serious]
            await page.keyboard.press("Escape")
            await page.locator("[data-do=new]").click()


async def test_it_works_at_phone_width(server):
    async with opened(server, viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True) as page:
        await page.locator(".cell .cm-content").first.wait_for()
        notebook = Notebook(page)
        await notebook.finished(await notebook.run("print('x' * 300)"))
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out"
        await expect(page.get_by_role("button", name="Run all")).to_be_visible()


async def test_the_first_load_is_small_and_soon_usable(server, capsys):
    async with opened(server) as page:
        await page.locator(".cell .cm-content").first.wait_for()
        await page.context.clear_cookies()
    async with opened(server) as page:
        await page.locator(".cell .cm-content").first.wait_for()
        sizes = "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        sent = await page.evaluate(f"{sizes}.reduce((sum, one) => sum + one.transferSize, 0)")
        ready = await page.evaluate("performance.getEntriesByName('interactive')[0].startTime")
        with capsys.disabled():
            print(f"\nfirst load {sent / 1000:.0f} kB, a cell to type into after {ready:.0f} ms")
        assert sent <= MAX_FIRST_LOAD


async def test_200_000_lines_keep_the_page_responsive(notebook, capsys):
    page = notebook.page
    await page.evaluate(OBSERVE)
    cell = await notebook.finished(await notebook.run("for n in range(200_000): print('line', n)"))
    await expect(cell.locator(".more button").first).to_have_text("Show all (200,000 lines)")
    await cell.locator(".more button").first.click()
    window = cell.locator("pre.window")
    for part in (0, 0.5, 1):
        await window.evaluate("(node, part) => node.scrollTo(0, part * node.scrollHeight)", part)
        await expect(window).to_contain_text(f"line {min(199_990, int(part * 200_000))}")
    tasks = await page.evaluate("window.longTasks")
    with capsys.disabled():
        print(f"\n200,000 lines: {len(tasks)} long tasks, the longest {max(tasks, default=0):.0f} ms")
    assert max(tasks, default=0) < 3 * MAX_LONG_TASK
    assert len((await notebook.text(cell)).split("\n")) < 300
