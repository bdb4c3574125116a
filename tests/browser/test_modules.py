"""The page's modules that touch no page: their own tests, in Node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_in_node(path):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    done = subprocess.run(["node", "--test", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-4000:]


def test_every_module_can_be_read():
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    for path in sorted((HERE.parents[1] / "static" / "js").glob("*.js")):
        done = subprocess.run(["node", "--check", str(path)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
