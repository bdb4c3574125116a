"""Somebody at the page, from the first cell to the end of a session: real Chromium, real kernels."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.support.browser import Notebook

pytestmark = pytest.mark.native
SECOND = 1000
BOUND = 30 * SECOND


async def test_a_cell_is_run_and_its_result_shown(notebook, server):
    cell = await notebook.finished(await notebook.run("print('hello')\n1 + 1"))
    assert await notebook.text(cell) == "hello\n2"
    assert await cell.locator(".count").inner_text() == "1"
    assert server.token not in notebook.page.url, "the token left the address"
    assert "session=" in notebook.page.url
    assert not [line for line in notebook.page.said if line.startswith("error") and "404" not in line]


async def test_pictures_tables_markdown_and_json_are_shown(notebook):
    plot = "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"
    cell = await notebook.finished(await notebook.run(plot))
    await expect(cell.locator("img.picture")).to_be_visible()
    cell = await notebook.finished(await notebook.run("import pandas\npandas.DataFrame({'a': [1, 2]})"))
    await expect(notebook.frame(cell).locator("td")).to_have_text(["1", "2"])
    await expect(cell.locator("iframe.frame")).to_have_css("height", re.compile(r"[5-9]\dpx|1\d\dpx"))
    shown = "from IPython.display import Markdown, JSON\ndisplay(Markdown('**b** $x^2$'), JSON({'k': [1]}))"
    cell = await notebook.finished(await notebook.run(shown))
    await expect(notebook.frame(cell).locator("strong")).to_have_text("b")
    await expect(notebook.frame(cell).locator(".katex-html")).to_be_visible()
    await expect(cell.locator(".tree > summary").first).to_have_text("{1}")
    cell = await notebook.finished(
        await notebook.run(
            'from IPython.display import SVG\nSVG(\'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>\')'
        )
    )
    await expect(cell.locator("img.picture")).to_be_visible()


async def test_a_progress_bar_is_one_line(notebook):
    bar = (
        "import sys, time\nfor n in range(0, 101, 20):\n    sys.stderr.write(f'\\r{n}%|{\"#\" * n}'); time.sleep(0.02)"
    )
    cell = await notebook.finished(await notebook.run(bar))
    assert await notebook.text(cell) == "100%|" + "#" * 100


async def test_a_display_is_changed_where_it_stands(notebook):
    code = "from IPython.display import display\nh = display('first', display_id=True)"
    cell = await notebook.finished(await notebook.run(code))
    await notebook.finished(await notebook.run("h.update('second')"))
    assert await notebook.text(cell) == "'second'"


async def test_a_cell_asks_and_is_answered(notebook):
    cell = await notebook.run(
        "import getpass\nname = input('name? ')\nsecret = getpass.getpass('secret? ')\nprint(name, len(secret))"
    )
    await expect(cell.locator(".input label")).to_have_text("name? ")
    await notebook.page.keyboard.type("ada")
    await notebook.page.keyboard.press("Enter")
    await expect(cell.locator(".input input[type=password]")).to_be_visible()
    await notebook.page.keyboard.type("hidden")
    await notebook.page.keyboard.press("Enter")
    await notebook.finished(cell)
    assert "ada 6" in await notebook.text(cell)


async def test_an_endless_loop_is_interrupted_by_one_key(notebook):
    cell = await notebook.run("while True: pass")
    await notebook.phase(cell, "running")
    await notebook.page.keyboard.press("F8")
    await notebook.finished(cell)
    assert "KeyboardInterrupt" in await notebook.text(cell)
    await expect(cell.locator(".status")).to_contain_text("Interrupted")


async def test_completion_and_help_come_from_the_kernel(notebook):
    await notebook.finished(await notebook.run("elephant = 3"))
    page = notebook.page
    await page.locator(".cm-content").last.click()
    await page.keyboard.type("elep")
    await page.keyboard.press("Tab")
    await expect(page.locator(".cm-tooltip-autocomplete li").first).to_contain_text("elephant", timeout=BOUND)
    await page.keyboard.press("Enter")
    await expect(page.locator(".cm-content").last).to_have_text("elephant")
    await page.keyboard.press("Control+a")
    await page.keyboard.insert_text("len")
    await page.keyboard.press("Shift+Tab")
    await expect(page.locator(".tip")).to_contain_text("Return the number of items", timeout=BOUND)


async def test_cells_are_added_moved_deleted_and_brought_back_by_keys(notebook):
    page = notebook.page
    for text in ("one", "two"):
        await page.locator(".cm-content").last.click()
        await page.keyboard.insert_text(f"'{text}'")
        await page.keyboard.press("Shift+Enter")
    codes = page.locator(".cell .cm-content")
    await codes.nth(1).click()
    await page.keyboard.press("Alt+ArrowUp")
    await expect(codes.nth(0)).to_have_text("'two'")
    await page.keyboard.press("Escape")
    await page.keyboard.press("d")
    await expect(codes.nth(0)).to_have_text("'one'")
    await page.keyboard.press("Escape")
    await page.keyboard.press("z")
    await expect(codes.nth(0)).to_have_text("'two'")


async def test_html_is_shown_again_when_its_cell_was_moved(notebook):
    """A frame that is moved on the page begins anew, and was once taken for one that its output had led away."""
    page = notebook.page
    await notebook.finished(await notebook.run("'above'"))
    cell = await notebook.finished(await notebook.run("from IPython.display import HTML\nHTML('<b>bold</b>')"))
    await expect(notebook.frame(cell).locator("b")).to_have_text("bold", timeout=BOUND)
    await cell.locator(".cm-content").click()
    await page.keyboard.press("Alt+ArrowUp")
    await expect(page.locator(".cell .cm-content").nth(1)).to_have_text("'above'")
    await expect(notebook.frame(cell).locator("b")).to_have_text("bold", timeout=BOUND)


LINES = "import time\nfor n in range(60):\n    print('line', n); time.sleep(0.05)"
ALL = "\n".join(f"line {n}" for n in range(60))


async def test_a_reload_in_mid_cell_loses_and_doubles_nothing(notebook):
    await notebook.finished(await notebook.run("x = 'from before'"))
    cell = await notebook.run(LINES)
    await expect(cell.locator(".text")).to_contain_text("line 5")
    await notebook.page.reload()
    await notebook.finished(cell)
    assert (await notebook.text(cell)).strip() == ALL
    await expect(notebook.page.locator(".cm-content").first).to_have_text("x = 'from before'")
    await notebook.finished(last := await notebook.run("x"))
    assert await notebook.text(last) == "'from before'"


async def test_the_death_of_the_gateway_in_mid_cell_loses_and_doubles_nothing(notebook, server):
    cell = await notebook.run(LINES)
    await expect(cell.locator(".text")).to_contain_text("line 5")
    await server.kill_gateway()
    await notebook.finished(cell)
    assert (await notebook.text(cell)).strip() == ALL


async def test_another_tab_sees_the_same_cells_and_what_comes(notebook):
    await notebook.finished(await notebook.run("print('said before')"))
    other = Notebook(await notebook.page.context.new_page())
    await other.page.goto(notebook.page.url)
    await expect(other.page.locator(".outputs .text").first).to_have_text("said before\n", timeout=BOUND)
    await notebook.finished(await notebook.run("print('said after')"))
    await expect(other.page.locator(".outputs .text").nth(1)).to_have_text("said after\n", timeout=BOUND)


async def test_who_watches_changes_nothing(notebook):
    await notebook.finished(await notebook.run("print('seen')"))
    watcher = await notebook.page.context.new_page()
    await watcher.goto(notebook.page.url + "&role=observer")
    await expect(watcher.locator(".outputs .text").first).to_have_text("seen\n", timeout=BOUND)
    editor = watcher.locator(".cm-content").first
    await expect(editor).to_have_attribute("contenteditable", "false")


async def test_a_kernel_that_takes_too_much_memory_is_told_of_in_words_and_replaced(notebook):
    cell = await notebook.finished(await notebook.run("x = bytearray(3 << 30)"))
    await expect(cell.locator(".status")).to_contain_text("used more memory")
    await expect(notebook.page.locator(".news").first).to_contain_text("it used more than 512 MiB")
    again = await notebook.finished(await notebook.run("'alive'"))
    assert await notebook.text(again) == "'alive'"


async def test_a_long_output_is_folded_and_opened(notebook):
    cell = await notebook.finished(await notebook.run("for n in range(12431): print(n)"))
    button = cell.locator(".more button").first
    await expect(button).to_have_text("Show all (12,431 lines)")
    assert (await notebook.text(cell)).split()[-1] == "12430"
    await button.click()
    assert len((await notebook.text(cell)).split()) < 300, "only what is in sight is in the page"
    await cell.locator("pre.window").evaluate("node => node.scrollTo(0, 0)")
    await expect(cell.locator("pre.window")).to_contain_text("0\n1\n2\n")


async def test_a_file_is_brought_used_looked_at_and_taken_away(notebook, tmp_path):
    page = notebook.page
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    await page.locator("#toggle-files").click()
    await page.locator("#files input[type=file]").set_input_files(tmp_path / "data.csv")
    await expect(page.locator(".files .name", has_text="data.csv")).to_be_visible(timeout=BOUND)
    code = "from pathlib import Path\nPath('out').mkdir()\nPath('out/copy.txt').write_text(open('data.csv').read())"
    await notebook.finished(await notebook.run(code))
    await page.get_by_label("Read again").click()
    await page.locator(".files .name", has_text="out").click()
    await page.locator(".files .name", has_text="copy.txt").click()
    await expect(page.locator(".preview pre")).to_have_text("a,b\n1,2\n")
    async with page.expect_download() as saving:
        await page.get_by_label("Download copy.txt").click()
    await (await saving.value).save_as(tmp_path / "back.txt")
    assert (tmp_path / "back.txt").read_text() == "a,b\n1,2\n"
    await page.get_by_label("Delete copy.txt").click()
    await expect(page.locator(".files")).to_have_text("Nothing here yet.", timeout=BOUND)


async def test_findings_stand_under_the_line_they_concern_and_a_denied_cell_says_why(notebook):
    page = notebook.page
    await page.locator(".cm-content").last.click()
    await page.keyboard.insert_text("import socket\nsocket.create_connection(('example.org', 80))")
    await expect(page.locator(".cm-lintRange-warning, .cm-lintRange-error").first).to_be_visible(timeout=BOUND)


async def test_a_notebook_is_saved_and_opened(notebook, tmp_path):
    page = notebook.page
    await notebook.finished(await notebook.run("print('kept')\n6 * 7"))
    await page.locator("summary[aria-label=More]").click()
    async with page.expect_download() as saving:
        await page.get_by_text("Download as .ipynb").click()
    path = tmp_path / "saved.ipynb"
    await (await saving.value).save_as(path)
    import nbformat

    saved = nbformat.read(path, as_version=4)
    nbformat.validate(saved)
    assert [cell.source for cell in saved.cells] == ["print('kept')\n6 * 7", ""]
    assert saved.cells[0].outputs[1].data["text/plain"] == "42"
    await page.locator("#pick").set_input_files(path)
    await expect(page.locator(".outputs .text").last).to_have_text("42")
