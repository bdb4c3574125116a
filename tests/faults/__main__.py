"""`python -m tests.faults smoke|long|replay|check`: see README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.nemesis import Plan, Report, as_text, check_saved, run_round

MINUTES = 60.0  # of `long`


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Strike all that can be struck.")
    parser.add_argument("--keep", type=Path, default=Path(), metavar="DIR", help="where rounds that failed are kept")
    parser.add_argument("--json", action="store_true", help="print the figures as an object")
    commands = parser.add_subparsers(dest="command", required=True)
    smoke = commands.add_parser("smoke", help="one round, some two minutes")
    long = commands.add_parser("long", help="round after round, each with the seed behind that of the one before")
    for command in (smoke, long):
        command.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    long.add_argument("--minutes", type=float, default=MINUTES)
    commands.add_parser("replay", help="the round of this seed again").add_argument("seed", type=int)
    commands.add_parser("check", help="the verdict on a round that was kept").add_argument("file", type=Path)
    given = parser.parse_args(words)

    if given.command == "check":
        figures = [check_saved(given.file).figures]
    else:
        figures = []
        end = time.monotonic() + 60 * getattr(given, "minutes", 0.0)
        while not figures or time.monotonic() < end:
            report = asyncio.run(run_round(Plan(given.seed + len(figures))))
            figures.append(report.figures)
            tell(report.figures, given.json)
            keep(report, given.keep)
    if len(figures) > 1 or given.command == "check":
        tell(together(figures), given.json)
    return 1 if any(one["faults"] for one in figures) else 0


def tell(figures: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(figures) if as_json else as_text(figures), flush=True)


def keep(report: Report, directory: Path) -> None:
    """A round in which a fault was found: `check` judges it again, `replay` runs it again."""
    if report.figures["faults"]:
        path = directory / f"nemesis-{report.plan.seed}.json"
        path.write_text(json.dumps(report.as_json()))
        print(f"  kept as {path}", flush=True)


def together(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One object of many rounds; the seed is the first."""
    whole = dict(figures[0])
    for one in figures[1:]:
        for name in ("seconds", "sessions", "cells", "lines", "lost", "doubled", "orphans"):
            whole[name] += one[name]
        for name in ("struck", "ended"):
            whole[name] = dict(sorted((Counter(whole[name]) + Counter(one[name])).items()))
        whole["faults"] = [*whole["faults"], *one["faults"]]
        whole["recovered"] = {
            what: [*whole["recovered"].get(what, ()), *one["recovered"].get(what, ())]
            for what in sorted({*whole["recovered"], *one["recovered"]})
        }
    return whole


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
