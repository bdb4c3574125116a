"""Makes the pictures of the page that the README shows, in `static/pictures/`: python -m tests.browser.pictures

Not part of the suite: run it, and look at what it made, when the page looks different.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

from PIL import Image
from playwright.async_api import Page, expect

from tests.support.browser import BOUND_MS, Notebook, opened
from tests.support.server import Server, served

PLACE = Path(__file__).parents[2] / "static" / "pictures"
MAX_BYTES = 60_000  # of one picture: a README is loaded often
COLOURS = 96  # a page has few; with all of them a picture is three times as large

PLOT = (
    "import numpy as np, matplotlib.pyplot as plt\nx = np.linspace(0, 6, 200)\n"
    "plt.figure(figsize=(6, 1.9)); plt.plot(x, np.sin(x) * np.exp(-x / 4)); plt.show()"
)
TABLE = "import pandas as pd\npd.DataFrame({'city': ['Oslo', 'Rome'], 'people': [709_000, 2_748_000]})"
ERROR = "def share(cake, guests):\n    return cake / guests\n\nshare(1, 0)"
DENIED = "import math\nimport socket"


async def tell_a_story(notebook: Notebook, *codes: str) -> None:
    for code in codes:
        await notebook.finished(await notebook.run(code))
    await notebook.page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    await notebook.page.wait_for_timeout(500)  # frames find their height


async def keep(page: Page, name: str) -> None:
    picture = Image.open(io.BytesIO(await page.screenshot())).convert("RGB").quantize(COLOURS)
    picture.save(PLACE / f"{name}.png", optimize=True)
    size = (PLACE / f"{name}.png").stat().st_size
    print(f"{name}: {size} bytes")
    assert size <= MAX_BYTES


async def take(server: Server, name: str, *codes: str, policy: str = "standard", **context: object) -> None:
    session = (await server.fetch("POST", "/v1/sessions", {"name": name, "policy": policy})).json()["id"]
    async with opened(server, **context) as page:
        await page.goto(f"{server.url}/?session={session}")
        await page.locator(".cell .cm-content").first.wait_for()
        await tell_a_story(Notebook(page), *codes)
        await expect(page.locator("#memory")).to_be_visible(timeout=BOUND_MS) if "is_mobile" not in context else None
        await keep(page, name)


async def main() -> None:
    PLACE.mkdir(exist_ok=True)
    async with served() as server:
        size = {"width": 1000, "height": 720}
        await take(server, "light", PLOT, TABLE, ERROR, viewport=size)
        await take(server, "dark", PLOT, TABLE, ERROR, viewport=size, color_scheme="dark")
        await take(server, "denied", "x = 40 + 2\nx", DENIED, policy="strict", viewport={"width": 1000, "height": 420})
        phone = {"width": 390, "height": 720}
        await take(server, "phone", TABLE, ERROR, viewport=phone, is_mobile=True, has_touch=True)
        async with opened(server, viewport=size) as page:
            await page.goto(f"{server.url}/admin")
            await expect(page.locator(".plot path.area").first).to_be_attached(timeout=BOUND_MS)
            await page.wait_for_timeout(11_000)  # two samples more: lines, and the CPU of sessions
            await keep(page, "operator")


if __name__ == "__main__":
    asyncio.run(main())
