"""Makes the environment that the comparison runs in. Uses the standard library alone, for it comes before all else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["PLACE", "ROOT", "prepare"]

ROOT = Path(__file__).parents[3]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")

# Of root's not below its home: a sandbox's user may not enter a directory that only root may.
PLACE = Path("/var/cache" if os.getuid() == 0 else Path.home() / ".cache", "cellgate-bench")


def prepare() -> Path:
    """The Python of an environment with the peers, made when it is first asked for, and this checkout as it is now.
    Raises CalledProcessError, after pip has said why. Ends the program on a Python that is too old for the peers."""
    if sys.version_info < (3, 11):
        sys.exit("the peers, in the versions of requirements.txt, need Python 3.11 or newer")
    pinned = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = PLACE / pinned
    python, is_whole = home / "bin" / "python", home / "is-whole"
    if not is_whole.exists():
        print(f"installing the peers into {home}", flush=True)
        venv.create(home, with_pip=True, clear=True)
        _pip(python, "-r", str(REQUIREMENTS))
        is_whole.touch()
    print(f"installing {ROOT}", flush=True)
    _pip(python, "--no-build-isolation", f"{ROOT}[docker]")
    return python


def _pip(python: Path, *words: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True)
