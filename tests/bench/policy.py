"""What a verdict costs: an ordinary cell of 50 lines, magics, and cells of 100 kB.

    python tests/bench/policy.py

CPU of this process for each call, nothing cached. `of it ast.parse` is what CPython's own parser takes: no reader that
uses it is faster. `IPython` is its import, once per process, when the first cell comes that is not plain Python.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from statistics import quantiles
from time import process_time_ns

from cellgate.policy.judge import judge
from cellgate.policy.policies import STANDARD, STRICT

CELL = '''\
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
from dataclasses import dataclass, field
from collections import defaultdict

rng = np.random.default_rng(42)
RATES = {"low": 0.05, "middle": 0.12, "high": 0.3}


@dataclass
class Account:
    """One customer's account."""

    name: str
    balance: float = 0.0
    history: list[tuple[str, float]] = field(default_factory=list)

    def deposit(self, amount: float) -> None:
        if amount <= 0:
            raise ValueError(f"cannot deposit {amount:.2f}")
        self.balance += amount
        self.history.append(("deposit", amount))

    def grow(self, kind: str, years: int = 1) -> float:
        for year in range(years):
            self.balance *= 1 + RATES[kind]
            self.history.append((f"year {year}", self.balance))
        return self.balance


accounts = [Account(f"customer {i}") for i in range(100)]
for account in accounts:
    account.deposit(float(rng.uniform(10, 1000)))
    account.grow(rng.choice(list(RATES)), years=5)

frame = pd.DataFrame({"name": [a.name for a in accounts], "balance": [a.balance for a in accounts]})
frame["log"] = np.log1p(frame["balance"])
by_size = defaultdict(list)
for row in frame.itertuples():
    by_size[int(row.log)].append(row.name)

summary = frame.groupby(frame["log"].round()).agg({"balance": ["mean", "sum", "count"]})
print(summary.head(10))
print({size: len(names) for size, names in sorted(by_size.items())})

figure, axes = plt.subplots(1, 2, figsize=(10, 4))
axes[0].hist(frame["balance"], bins=20)
axes[1].scatter(frame["log"], frame["balance"], alpha=0.5)
plt.show()
'''
WALKED = CELL + "requests.get(url)\n"  # one word of a rule
MAGICS = CELL + "%matplotlib inline\n!ls -l\nfiles = !cat x\n"
LARGE = CELL * (100_000 // len(CELL))  # 100 kB of ordinary code
TEXT = "x = '" + "y" * 100_000 + "'\n"
EXPRESSION = "x = [" + "f(1), " * 16_000 + "]\n"


def milliseconds(work: Callable[[], object], rounds: int) -> list[float]:
    """CPU of this process for each round, sorted."""
    taken = []
    for _ in range(rounds):
        begin = process_time_ns()
        work()
        taken.append((process_time_ns() - begin) / 1e6)
    return sorted(taken)


def main() -> None:
    begin = process_time_ns()
    judge("!ls", "python", STANDARD)
    print(
        f"IPython: {(process_time_ns() - begin) / 1e6:.0f} ms, {sum('IPython' in name for name in sys.modules)} modules"
    )
    print(f"{'cell':>14} {'lines':>6} {'policy':>9} {'p50 ms':>8} {'p99 ms':>8}   of it ast.parse p50")
    for name, code, rounds in (
        ("ordinary", CELL, 1000),
        ("one finding", WALKED, 500),
        ("3 magics", MAGICS, 300),
        ("100 kB code", LARGE, 20),
        ("100 kB string", TEXT, 100),
        ("100 kB list", EXPRESSION, 20),
    ):
        for policy in (STANDARD, STRICT):
            taken = milliseconds(lambda code=code, policy=policy: judge(code, "python", policy), rounds)  # type: ignore[misc]
            parsing = milliseconds(lambda code=code: ast.parse(code), rounds) if name != "3 magics" else [0.0]  # type: ignore[misc]
            p99 = quantiles(taken, n=100)[98]
            half, parse_half = taken[len(taken) // 2], parsing[len(parsing) // 2]
            lines = code.count("\n")
            print(f"{name:>14} {lines:6} {policy.name:>9} {half:8.2f} {p99:8.2f}   {parse_half:.2f}")


if __name__ == "__main__":
    main()
