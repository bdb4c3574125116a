"""What the page says of a cell and of its session: findings, refusals, the end that nears, a line that is dead."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import expect

from tests.support.browser import BOUND_MS, Notebook, opened
from tests.support.server import served

pytestmark = pytest.mark.native


async def strict(server) -> str:
    """The id of a session whose policy is stricter than the server's."""
    return (await server.fetch("POST", "/v1/sessions", {"policy": "strict", "name": "class"})).json()["id"]


async def test_a_denied_cell_says_why_under_its_code_and_typing_is_judged_by_the_sessions_policy(server):
    session = await strict(server)
    async with opened(server) as page:
        await page.goto(f"{server.url}/?session={session}")
        await page.locator(".cell .cm-content").first.wait_for()
        notebook = Notebook(page)
        cell = await notebook.finished(await notebook.run("x = 1\nimport socket"))
        await expect(cell.locator(".status")).to_contain_text("denies it")
        await expect(cell.locator(".findings .deny").first).to_contain_text("line 2")
        await expect(cell.locator(".findings .deny").first).to_contain_text("socket")
        await expect(cell.locator(".error")).to_have_count(0)
        await cell.locator(".findings button").first.click()
        await page.keyboard.press("Control+a")
        await page.keyboard.insert_text("import os")  # which the server's own policy allows
        await expect(cell.locator(".findings li")).to_have_count(0)
        await expect(cell.locator(".cm-lintRange-error").first).to_be_visible(timeout=BOUND_MS)


async def test_a_cell_that_may_run_is_warned_of_and_runs(notebook):
    cell = await notebook.finished(await notebook.run("import socket\nsocket.socket\nprint('ran')"))
    await expect(cell.locator(".findings .warn").first).to_contain_text("line")
    assert "ran" in await notebook.text(cell)


LACKING = {
    "application/vnd.plotly.v1+json": "Plotly is not installed",
    "application/vnd.vegalite.v5+json": "Vega is not installed",
    "application/vnd.jupyter.widget-view+json": "Widgets are not installed",
    "application/javascript": "does not run in this page",
}


async def test_what_wants_a_library_is_shown_as_text_and_said_to_be_lacking(notebook):
    for mime, said in LACKING.items():
        bundle = json.dumps({mime: "{}", "text/html": "<b>blank</b>", "text/plain": "its text"})
        cell = await notebook.finished(
            await notebook.run(f"from IPython.display import display\ndisplay({bundle}, raw=True)")
        )
        await expect(cell.locator(".notice")).to_contain_text(said)
        assert await notebook.text(cell) == "its text"


async def test_a_session_that_is_about_to_end_can_be_kept():
    flags, env = ("--idle-seconds", "100"), {"CELLGATE_TOKEN": "a-token-for-this-test"}
    async with served(*flags, env=env) as server, opened(server) as page:
        await expect(page.locator("#keep")).to_be_visible(timeout=BOUND_MS)
        await expect(page.locator("#left")).to_contain_text("ends in")
        before = (await server.fetch("GET", "/v1/sessions")).json()["sessions"][0]
        await page.locator("#keep").click()
        for _ in range(100):
            after = (await server.fetch("GET", f"/v1/sessions/{before['id']}")).json()
            if after["last_activity"] > before["last_activity"]:
                break
        assert after["last_activity"] > before["last_activity"]


async def test_a_line_that_went_dead_without_a_word_is_noticed_and_replaced(server):
    """As after a laptop slept: the browser still calls it open."""
    async with opened(server) as page:
        await page.locator(".cell .cm-content").first.wait_for()
        dead: list[object] = []

        def carry(route):
            beyond = route.connect_to_server()
            beyond.on_message(lambda data: None if dead[:1] == [route] else route.send(data))
            route.on_message(lambda data: None if dead[:1] == [route] else beyond.send(data))
            lines.append(route)

        lines: list[object] = []
        await page.route_web_socket("**/ws?*", carry)
        await page.reload()
        notebook = Notebook(page)
        await page.locator(".cell .cm-content").first.wait_for()
        await notebook.finished(await notebook.run("1"))
        dead.append(lines[0])
        await page.evaluate("dispatchEvent(new Event('online'))")
        cell = await notebook.finished(await notebook.run("'carried'"))
        assert await notebook.text(cell) == "'carried'"
        assert len(lines) > 1


async def test_a_tab_that_was_duplicated_leaves_the_first_one_alive(notebook):
    """Both have the same name then, and a session has one connection under each."""
    page = notebook.page
    await notebook.finished(await notebook.run("print('before')"))
    name = await page.evaluate("sessionStorage.client")
    other = await page.context.new_page()
    await other.add_init_script(f"sessionStorage.client ??= {json.dumps(name)}")
    await other.goto(page.url)
    await expect(other.locator(".outputs .text").first).to_have_text("before\n", timeout=BOUND_MS)
    await notebook.finished(await notebook.run("print('after')"))
    await expect(other.locator(".outputs .text").nth(1)).to_have_text("after\n", timeout=BOUND_MS)


async def test_places_are_right_behind_characters_of_two_units(notebook):
    await notebook.finished(await notebook.run("elephant = 3"))
    page = notebook.page
    await page.locator(".cm-content").last.click()
    await page.keyboard.insert_text("s = '🐘🐘'; elep")
    await page.keyboard.press("Tab")
    await expect(page.locator(".cm-tooltip-autocomplete li").first).to_contain_text("elephant", timeout=BOUND_MS)
    await page.keyboard.press("Enter")
    await expect(page.locator(".cm-content").last).to_have_text("s = '🐘🐘'; elephant")


async def test_completion_tells_signatures(notebook):
    await notebook.finished(await notebook.run("def trumpet(loud, times=3): pass"))
    page = notebook.page
    await page.locator(".cm-content").last.click()
    await page.keyboard.insert_text("trump")
    await page.keyboard.press("Tab")
    await expect(page.locator(".cm-tooltip-autocomplete li").first).to_contain_text("loud, times=3", timeout=BOUND_MS)
