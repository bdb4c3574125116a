"""The checks that need no running: lint, layout, types, and words that do not belong in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "--no-cache"], id="ruff check"),
        pytest.param(["ruff", "format", "--check", "--no-cache"], id="ruff format"),
        pytest.param(["mypy"], id="mypy strict"),
    ],
)
def test_the_checker_finds_nothing(command):
    run = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


# The repository stands alone. The patterns are spelled so that this file does not match itself.
FOREIGN = {
    "a folder beside the repository": r"\.\./sha[r]ed|/wo[r]k/(main|sha[r]ed)",
    "a document of that folder": r"DESI[G]N\.md|HOST[I]LE\.md|FAC[T]S\.md|STY[L]E\.md",
    "somebody's home or scratch directory": r"/ro[o]t/\.(pyenv|cache)|/op[t]/pypi|/tm[p]/(v|brief)\b",
    "a package registry by host": r"pyp[i]\.org|pythonh[o]sted|registry\.npm[j]s|deb[.]debian\.org",
    "the tools of whoever wrote it": r"cl[a]ude|anth[r]opic|open[a]i|ch[a]tgpt|co-auth[o]red-by",
}


def tracked_texts():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # an unpacked source distribution
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file() and ".venv" not in p.parts]
    else:
        names = listed.stdout.split("\0")[:-1]
    for name in names:
        try:
            yield name, (ROOT / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a binary; a file removed and not yet committed


@pytest.mark.parametrize("what", FOREIGN)
def test_the_repository_stands_alone(what):
    seen = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(FOREIGN[what], line, re.IGNORECASE)
    ]
    assert not seen, f"mentions {what}: {seen}"
