"""Measures, in the environment that `__main__.py` has made: tells each figure as it comes, and keeps them all."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import re
import resource
import sys
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.bench.compare.contenders import WORDS, assembled
from tests.bench.compare.environment import PLACE, ROOT
from tests.bench.compare.figures import Comparison, as_markdown, as_text, listed
from tests.bench.compare.measures import FULL, MEASURES, QUICK, Effort, Field
from tests.bench.compare.pictures import draw
from tests.bench.harness import conditions

PUBLISHED = Path(__file__).with_name("results")
PACKAGES = ("cellgate", "jupyter_server", "jupyter_kernel_gateway", "jupyter_client", "ipykernel", "pyzmq", "tornado")


async def measure(names: list[str], effort: Effort) -> Comparison:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for all who are started from here
    before = conditions()
    begin = time.monotonic()
    async with AsyncExitStack() as stack:
        contenders, pooled, absent = await assembled(stack)
        comparison = Comparison(
            {"on": f"{datetime.date.today()}", **before, "processor": processor(), "memory_gb": memory()},
            {name: version(name) for name in PACKAGES},
            {name: WORDS[name] for name in contenders},
            absent,
        )
        print("\n".join(listed(comparison)), flush=True)
        for name in names:
            try:
                figures = await MEASURES[name](Field(contenders, pooled), effort)
            except Exception as error:  # what the others tell is worth keeping
                comparison.absent[name] = f"{type(error).__name__}: {error}"
                print(f"\n{name} failed: {comparison.absent[name]}", flush=True)
                continue
            comparison.figures += figures
            print("\n".join(map(as_text, figures)), flush=True)
    comparison.made |= {"load_after": conditions()["load"], "seconds": round(time.monotonic() - begin)}
    return comparison


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown"


def memory() -> int:
    return round(psutil.virtual_memory().total / 1e9)


def publish(comparison: Comparison) -> None:
    """The table in the README, between its marks."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split("<!-- comparison: ")
    mark, rest = rest.split("-->\n", 1)
    _, after = rest.split("<!-- end of comparison", 1)
    table = as_markdown(comparison)
    readme.write_text(f"{before}<!-- comparison: {mark}-->\n{table}<!-- end of comparison{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench.compare")
    parser.add_argument("figures", nargs="*", metavar="FIGURE")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.figures) - set(MEASURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    comparison = asyncio.run(measure(given.figures or list(MEASURES), QUICK if given.quick else FULL))
    comparison.made["how"] = " ".join(["python3 -m tests.bench.compare", *sys.argv[1:]])
    place = PUBLISHED if given.publish else PLACE / f"{datetime.datetime.now():%Y-%m-%d-%H-%M-%S}"
    os.makedirs(place, exist_ok=True)
    comparison.save(place / "comparison.json")
    draw(comparison, place)
    if given.publish:
        publish(comparison)
    print(f"\nIn {place}: {', '.join(sorted(path.name for path in place.iterdir()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
