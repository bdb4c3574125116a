"""Sessions under load while clients are cut off and gateways killed, and a check of all that was promised about it.

    python -m tests.faults.chaos --seed 7 --drops 200 --kills 50 --sessions 20

Each session has an owner, who asks for cells and names on its return what it saw last (`roamer.py`). Every other one
has a companion too, who keeps its identity and names nothing, as unmodified clients do, and a visitor, who has a new
identity each time it comes. Beside them somebody makes sessions and deletes them. The seed decides what is done, and
when; what it strikes depends on the machine as well.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.faults.history import (
    Expected,
    Tally,
    check_companion,
    check_journal,
    check_owner,
    check_visitor,
    print_lines,
    public_ids,
)
from tests.faults.roamer import Place, Roamer
from tests.faults.stage import at_rest_of, create, left_behind, read_journal, spread
from tests.support.server import Server, served, until

__all__ = ["Plan", "Report", "run_chaos"]

SERVES_SECONDS = 3.0  # from a kill until clients are answered
ATTACHED_SECONDS = 5.0  # and until each has its websocket again
SETTLE_SECONDS = 60.0  # for the cells that are under way when the faults end


@dataclass(frozen=True)
class Plan:
    seed: int
    sessions: int = 20
    drops: int = 200
    kills: int = 50
    drop_every: float = 0.4  # seconds, on average
    kill_every: float = 1.5  # after the gateway serves again; one kill of eight strikes its successor's start
    patience: float = 1.0  # how many times as long recoveries may take, on a machine that does other things beside


@dataclass
class Report:
    plan: Plan
    tally: Tally = field(default_factory=Tally)
    drops: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    serves: list[float] = field(default_factory=list)  # seconds, from each kill
    absences: list[float] = field(default_factory=list)  # of owners after kills and drops
    sent_again: int = 0  # cells that nobody had taken
    companions_saw: int = 0
    companions_saw_twice: int = 0
    visits: int = 0
    churned: int = 0  # sessions made and deleted beside the others
    seconds: float = 0.0

    def __str__(self) -> str:
        tally, ways = self.tally, ", ".join(f"{n} {way}" for way, n in sorted(self.drops.items()))
        return f"""\
seed {self.plan.seed}: {self.plan.sessions} sessions, {self.seconds:.0f} s
  faults     {self.drops.total()} drops ({ways}), {self.kills} kills of the gateway
  cells      {tally.cells}, {self.sent_again} of them sent again
  lines      {tally.lines}, {tally.lost} lost, {tally.doubled} doubled
  serves     after {spread(self.serves)}
  attached   after {spread(self.absences)}
  companions {self.companions_saw} messages, {self.companions_saw_twice} of them twice
  visitors   {self.visits} visits
  beside     {self.churned} sessions made and deleted
  faults found: {len(tally.faults)}{"".join(f"{chr(10)}    {fault}" for fault in tally.faults)}"""


class Trial:
    """One session, whoever is connected to it, and its cells."""

    def __init__(self, place: Place, number: int, dice: random.Random) -> None:
        self.place = place
        self.nonce = f"s{number}x{dice.randrange(1 << 32):08x}"
        self.dice = dice
        self.owner = Roamer(place, f"{self.nonce}-owner")
        self.others: list[Roamer] = []
        self.companion: Roamer | None = None
        self.visitor: Visitor | None = None
        if number % 2 == 0:
            self.companion = Roamer(place, f"{self.nonce}-companion", names_last=False)
            self.visitor = Visitor(place, f"{self.nonce}-visitor")
            self.others = [self.companion, self.visitor]
        self.cells: list[Expected] = []

    async def work(self, is_over: asyncio.Event) -> None:
        """Cells, some at a time, until it is over and all have ended."""
        for number in count():
            if is_over.is_set():
                break
            lines, pause = self.dice.randint(0, 60), self.dice.choice((0.0, 0.0, 0.002, 0.01))
            code = print_lines(self.nonce, number, lines, pause=pause, flush=self.dice.random() < 0.5)
            asked = self.owner.ask(code, f"{self.nonce}-cell-{number}")
            self.cells.append(Expected(asked.id, number, lines))
            behind = self.dice.randint(0, 4)  # how many may wait: the queue is tried too
            while sum(not asked.done.is_set() for asked in self.owner.asked.values()) > behind:
                await next(asked for asked in self.owner.asked.values() if not asked.done.is_set()).done.wait()
        for asked in self.owner.asked.values():
            await asked.done.wait()

    def check(self, journal: Path, report: Report) -> None:
        tally = report.tally
        tally.add(check_owner(self.nonce, self.cells, self.owner.seen))
        tally.add(check_journal(self.nonce, self.cells, read_journal(journal)))
        report.absences += self.owner.absences
        report.sent_again += sum(asked.times_sent > 1 for asked in self.owner.asked.values())
        if self.companion is not None:
            twice, found = check_companion(self.nonce, self.owner.seen, self.companion.seen)
            tally.add(found)
            report.companions_saw += len(public_ids(self.companion.seen))
            report.companions_saw_twice += twice
        if self.visitor is not None:
            tally.add(check_visitor(self.nonce, self.owner.seen, self.visitor.seen))
            report.visits += self.visitor.breaks


class Visitor(Roamer):
    """Somebody else each time."""

    @property
    def session_id(self) -> str:
        return f"{self._name}-{self.breaks}"

    @session_id.setter
    def session_id(self, name: str) -> None:
        self._name = name

    def __init__(self, place: Place, name: str) -> None:
        super().__init__(place, name, names_last=False)


async def run_chaos(plan: Plan) -> Report:
    report = Report(plan)
    dice = random.Random(plan.seed)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with served(env={"CELLGATE_DRIVER": "native"}) as server:
        at_rest = await at_rest_of(server)
        warden = server.warden_pid()
        trials = [Trial(await create(server), number, random.Random(dice.random())) for number in range(plan.sessions)]
        over = asyncio.Event()
        roaming = [asyncio.create_task(client.run()) for trial in trials for client in (trial.owner, *trial.others)]
        await until(lambda: all(c.websocket for trial in trials for c in (trial.owner, *trial.others)))
        working = [asyncio.create_task(trial.work(over)) for trial in trials]
        churning = asyncio.create_task(_churn(server, report, over))
        try:
            await asyncio.gather(
                _drop(trials, plan, random.Random(dice.random()), report),
                _kill(server, plan, random.Random(dice.random()), report),
            )
            over.set()
            await _settled(trials, working, report)
            await churning
        finally:
            for trial in trials:
                for client in (trial.owner, *trial.others):
                    client.leave()
            for task in (*roaming, *working, churning):
                task.cancel()
            await asyncio.gather(*roaming, *working, churning, return_exceptions=True)
        for trial in trials:
            trial.check(server.state_dir / "gateway" / "sessions" / trial.place.kernel_id, report)
        if server.warden_pid() != warden:
            report.tally.fault("the warden is another")
        for sentence in await left_behind(server, at_rest):
            report.tally.fault(sentence)
        report.tally.faults += [line for line in server.log().splitlines() if "Traceback" in line or "Error" in line]
    report.seconds = loop.time() - began
    for what, times, bound in (("served", report.serves, SERVES_SECONDS), ("back", report.absences, ATTACHED_SECONDS)):
        if (slowest := max(times, default=0.0)) > bound * plan.patience:
            report.tally.fault(f"{what} only after {slowest:.2f} s")
    return report


# -- what is done to them ------------------------------------------------------------------------------


async def _drop(trials: Sequence[Trial], plan: Plan, dice: random.Random, report: Report) -> None:
    while report.drops.total() < plan.drops:
        await asyncio.sleep(dice.uniform(0, 2 * plan.drop_every))
        trial = dice.choice(trials)
        client = dice.choice((trial.owner, trial.owner, *trial.others))
        if client.websocket is not None:
            report.drops[client.drop(dice)] += 1


async def _kill(server: Server, plan: Plan, dice: random.Random, report: Report) -> None:
    loop = asyncio.get_running_loop()
    while report.kills < plan.kills:
        await asyncio.sleep(dice.uniform(0, 2 * plan.kill_every))
        killed_at = loop.time()
        await server.kill_gateway()
        report.kills += 1
        if report.kills < plan.kills and dice.random() < 0.125:
            await until(lambda: server.gateway_pid() != 0)
            await asyncio.sleep(dice.uniform(0, 0.3))
            await server.kill_gateway()
            report.kills += 1
            await server.wait_ready()
        else:
            await server.wait_ready()
            report.serves.append(loop.time() - killed_at)


async def _churn(server: Server, report: Report, over: asyncio.Event) -> None:
    """Sessions that come and go: a kill may strike a start or a deletion, and its client gets no answer."""
    while not over.is_set():
        with suppress(OSError):
            reply = await server.fetch("POST", "/api/kernels")
            if reply.status == 201:
                await server.fetch("DELETE", f"/api/kernels/{reply.json()['id']}")
                report.churned += 1
        await asyncio.sleep(0.2)


async def _settled(trials: Sequence[Trial], working: Sequence[asyncio.Task[None]], report: Report) -> None:
    """All cells have ended, and everybody has seen it."""
    done, late = await asyncio.wait(working, timeout=SETTLE_SECONDS)
    for task in done:
        task.result()
    if late:
        stuck = [asked.id for trial in trials for asked in trial.owner.asked.values() if not asked.done.is_set()]
        report.tally.fault(f"without an end after {SETTLE_SECONDS:g} s: {stuck}")

    def last(client: Roamer) -> str:
        return next(iter(reversed(public_ids(client.seen))), "")

    def all_have_seen_all() -> bool:
        # An owner says hello on each connection, and everybody sees the kernel answer.
        return all(last(trial.owner) == last(c) for trial in trials for c in trial.others if c is trial.companion)

    with suppress(AssertionError):  # whoever did not is found by the checks
        await until(all_have_seen_all, SETTLE_SECONDS)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    for name in ("sessions", "drops", "kills"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    parser.add_argument("--patience", type=float, default=Plan.patience)
    report = asyncio.run(run_chaos(Plan(**vars(parser.parse_args(words)))))
    print(report)
    return 1 if report.tally.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
