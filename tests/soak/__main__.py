"""Uses a server for as long as is wanted, well and badly, and tells whether it stays as it was.

    python -m tests.soak --minutes 30 --seed 7

Some at a time do what `attacks.py` lists, in an order that the seed decides; every ten seconds a line tells what the
host sees of the server. At the end stands a verdict, by the rule in `curve.py`; the exit status is 0 when it is flat.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.soak.attacks import ACTS
from tests.soak.curve import HEADER, Sample, ends_as_text, look, not_flat, not_given_back
from tests.support.server import Server, served

__all__ = ["Plan", "Report", "soak"]

MAX_FAULTS = 50  # that are told: what comes after is of the same kind
REST_LOOKS = 60  # a second apart, until what was used is given back; a sandbox's memory may be much
# What one user may have in a day is no matter here, and a client that takes nothing should not take all our time.
FLAGS = (
    *("--profile", "testing", "--cpu-seconds-per-day", "10000000", "--wall-seconds-per-day", "10000000"),
    *("--client-stall-seconds", "2", "--interrupt-grace-seconds", "1", "--cell-seconds", "60"),
)


@dataclass(frozen=True)
class Plan:
    seed: int
    seconds: float
    at_a_time: int = 4
    look_every: float = 10.0


@dataclass
class Report:
    """What came of it."""

    plan: Plan
    curve: list[Sample] = field(default_factory=list)
    rest: list[Sample] = field(default_factory=list)  # when all was warm, and at the end
    sessions: int = 0  # that the server has made, as it says
    ends: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = field(default_factory=list)

    @property
    def acts(self) -> int:
        return sum(ends.total() for ends in self.ends.values())

    def fault(self, text: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(text)

    def verdict(self) -> list[str]:
        """What is not as it was, and what went otherwise than it must. Nothing: the server is flat."""
        return [*not_given_back(*self.rest), *not_flat(self.curve), *self.faults]

    def __str__(self) -> str:
        found = self.verdict()
        return "\n".join(
            (
                "how they ended:",
                ends_as_text(self.ends),
                "at rest, warm and at the end:",
                HEADER,
                *(sample.line(None) for sample in self.rest),
                f"seed {self.plan.seed}, {self.acts} acts, {self.sessions} sessions: {'not flat' if found else 'flat'}",
                *(f"  {line}" for line in found),
            )
        )


async def soak(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> Report:
    """On a server of its own. It goes on until the time is over and each act has been."""
    report = Report(plan)
    dice = random.Random(plan.seed)
    async with served(*FLAGS, env={"CELLGATE_DRIVER": "native"}) as server:
        began = asyncio.get_running_loop().time()
        tell(HEADER)

        def now() -> float:
            return asyncio.get_running_loop().time() - began

        def sample() -> Sample:
            return look(server, now(), report.sessions)

        await play(server, plan, report, dice, lambda: False)  # one deck, so that all is warm
        report.sessions = await sessions_made(server)
        report.rest.append(await at_rest(sample))
        watching = asyncio.create_task(watch(server, report, sample, tell))
        try:
            await play(server, plan, report, dice, lambda: now() < plan.seconds)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        report.sessions = await sessions_made(server)
        report.rest.append(await at_rest(sample, report.rest[0]))
        for line in server.log().splitlines():
            if "Traceback" in line or "takes its place" in line:
                report.fault(f"the log: {line}")
    return report


async def play(server: Server, plan: Plan, report: Report, dice: random.Random, goes_on: Callable[[], bool]) -> None:
    """Some at a time, deal out all acts; and again as long as it goes on."""
    deck: list[str] = []

    def deal() -> str | None:
        if not deck and (goes_on() or not has_begun):
            deck.extend(dice.sample(sorted(ACTS), len(ACTS)))
            has_begun.append(True)
        return deck.pop() if deck else None

    async def act() -> None:
        while name := deal():
            try:
                report.ends[name][await ACTS[name](server)] += 1
            except Exception as error:  # whatever it is, it is told
                report.ends[name]["FAULT"] += 1
                report.fault(f"{name}: {type(error).__name__}: {str(error)[:300]}")

    has_begun: list[bool] = []
    await asyncio.gather(*(act() for _ in range(plan.at_a_time)))


async def at_rest(sample: Callable[[], Sample], warm: Sample | None = None) -> Sample:
    """When nothing is left of anybody's, and no count changes any more, or is more than when it was warm. As it is when
    it does not come to that."""
    now = sample()
    for _ in range(REST_LOOKS):
        await asyncio.sleep(1.0)
        before, now = now, sample()
        is_still = not (now.cgroups or now.stored or not_given_back(before, now) or not_given_back(now, before))
        if is_still and (warm is None or not not_given_back(warm, now)):
            break
    return now


async def watch(server: Server, report: Report, sample: Callable[[], Sample], tell: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(report.plan.look_every)
        report.sessions = await sessions_made(server)
        report.curve.append(sample())
        tell(report.curve[-1].line(report.curve[-2] if len(report.curve) > 1 else None))


async def sessions_made(server: Server) -> int:
    counts = (await server.fetch("GET", "/v1/stats")).json()["counts"]["sessions_created"]
    return sum(int(row["count"]) for row in counts)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (%(default)g)")
    parser.add_argument("--seed", type=int, default=7, help="decides the order (%(default)s)")
    parser.add_argument("--at-a-time", type=int, default=4, help="how many use it at once (%(default)s)")
    given = parser.parse_args()
    plan = Plan(given.seed, 60 * given.minutes, given.at_a_time)
    report = asyncio.run(soak(plan, lambda line: print(line, flush=True)))
    print(report)
    return 1 if report.verdict() else 0


if __name__ == "__main__":
    sys.exit(main())
