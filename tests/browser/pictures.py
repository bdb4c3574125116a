"""Makes the pictures of the page and of a terminal that the documents show, in `static/pictures/`:

    python -m tests.browser.pictures

Not part of the suite: run it, and look at what it made, when the page or a command looks different. `architecture.svg`
is drawn by hand.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import pexpect
from PIL import Image
from playwright.async_api import Page, expect
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

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


# What the terminal shows: a result, an error with its status, a limit that was hit, what a policy says.
COLUMNS = 96
COMMANDS = (
    "cellgate run -c 'sum(range(10))'",
    "cellgate run -c 'share = 1 / 0'; echo status $?",
    "cellgate run -c 'x = bytearray(10**9)' --memory 256M; echo status $?",
    "cellgate validate analysis.py",
)
ANALYSIS = "import os\nprint(os.environ)\nos.system('pip install requests')\n"


def take_terminal() -> None:
    """Each command is run at a terminal, and what it says is drawn as it came."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "analysis.py").write_text(ANALYSIS)
        Path(directory, "cellgate").write_text(f'#!/bin/sh\nexec {sys.executable} -m cellgate "$@"\n')
        Path(directory, "cellgate").chmod(0o755)
        env = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "TERM": "xterm-256color"}
        env["CELLGATE_STATE_DIR"] = directory  # so that no server of this host is found
        for command in COMMANDS:
            said = pexpect.spawn("/bin/sh", ["-c", command], env=env, cwd=directory, timeout=60).read().decode()
            said = said.replace("cellgate: starting a sandbox\r\n", "")  # said on a busy machine alone
            console.print(Text(f"$ {command}", style="bold"))
            console.print(Text.from_ansi(said.replace("\r\n", "\n").rstrip()), "", sep="\n")
    drawn = console.export_svg(title="cellgate", theme=MONOKAI)
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # nothing is fetched from elsewhere
    drawn = re.sub(r"terminal-\d+-", "terminal-", drawn)
    (PLACE / "terminal.svg").write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE))


async def main() -> None:
    PLACE.mkdir(exist_ok=True)
    take_terminal()
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
