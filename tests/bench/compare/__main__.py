"""The whole comparison in one command, which needs a checkout, Python 3.11 or newer, and nothing else:

    python3 -m tests.bench.compare             # some twenty minutes on two idle cores
    python3 -m tests.bench.compare --quick     # less than five
    python3 -m tests.bench.compare --publish   # and keep what came of it beside this file, and in the README

It makes an environment of its own (`environment.py`), installs the peers there in pinned versions and this checkout as
users would, and measures in that (`run.py`). It is no command of `cellgate`, because what is installed to serve should
carry neither the peers nor the clients that measure.
"""

from __future__ import annotations

import argparse
import os

from tests.bench.compare.environment import ROOT, prepare


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench.compare", description="Cellgate beside its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer samples, for a first look")
    parser.add_argument("--publish", action="store_true", help="keep what comes of it in the checkout")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="of those that run.py lists; all if none is named")
    given = parser.parse_args()
    if given.publish and given.figures:
        parser.error("what is published is whole: leave out either --publish or the figures")
    python = prepare()
    flags = [flag for flag, is_on in (("--quick", given.quick), ("--publish", given.publish)) if is_on]
    os.chdir(ROOT)  # from where `tests` is imported
    os.execv(python, [str(python), "-m", "tests.bench.compare.run", *flags, *given.figures])


if __name__ == "__main__":
    main()
