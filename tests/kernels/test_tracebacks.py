"""Tracebacks that are made faster say the same."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="Linux")
if sys.argv[1] == "quick":
    from cellgate_kernel.tracebacks import quicken
    quicken(shell.compile._filename_map)
for code in (
    "1/0",
    "def f(n):\\n    return f(n - 1) if n else json.loads('{')\\nimport json\\nf(3)",
    "1 +",
    "def g(): g()\\ng()",
):
    for _ in range(2):
        shell.run_cell(code, store_history=True)
import inspect, json
print(inspect.getmodule(sys._getframe()), inspect.getmodule(json.loads), inspect.getmodule(shell.user_ns["f"]))
"""


def test_a_quick_traceback_is_the_same_to_the_letter():
    slow, quick = (
        subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=60, check=True)
        for how in ("slow", "quick")
    )
    assert "ZeroDivisionError" in slow.stdout and "JSONDecodeError" in slow.stdout and "\x1b[" in slow.stdout
    assert quick.stdout == slow.stdout
