"""Rounds in which all is struck that can be: clients, gateways, wardens, kernels, the disk, and cells by their owners.

A round is a server of its own, sessions under load, and faults that are drawn from a seed before it begins: the same
seed draws the same ones at the same times. What they meet depends on the machine as well. Each session has an owner,
who asks for cells and names on its return what it saw last; an agent that reads its events; and every other one a
client that only keeps its identity. What all of them were told is judged by `verdicts.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from cellgate.sessions.records import Kind, Record
from cellgate.wire.strict import load_plainly
from tests.faults import agent as agents
from tests.faults.history import Tally, check_companion, print_lines
from tests.faults.roamer import RETRY_SECONDS, Asked, Place, Roamer
from tests.faults.stage import (
    at_rest_of,
    create,
    fill,
    journals,
    left_behind,
    read_journal,
    sandbox_of,
    served_on,
    spread,
)
from tests.faults.verdicts import History, Strike, Told, check_history, recoveries
from tests.faults.websocket import Message
from tests.native.seen import GONE_SECONDS, is_gone, names_of_groups, pid_inside, pids_in
from tests.support.server import BOUND, Server, served, until

__all__ = ["FAULTS", "Draw", "Plan", "Report", "as_text", "check_saved", "draw", "run_round"]

SETTLE_SECONDS = 60.0  # for the cells that are under way when the faults end, and for everybody to see them
STATE_SIZE = "256M"  # of the file system that is filled; a round's journals take some tens of MB
FAILED_SECONDS = 0.05  # that an owner waits when a cell of its failed: a full disk refuses thousands in a second
READY_SECONDS = 1.1  # for a second /readyz repeats its answer, which may be from before the disk was full
KERNEL_SECONDS = 5.0  # for a session to have a kernel that can be killed


@dataclass(frozen=True)
class Plan:
    seed: int
    seconds: float = 90.0  # in which faults strike
    sessions: int = 8
    every: float = 0.35  # seconds from one to the next, on average


@dataclass(frozen=True)
class Draw:
    """A fault that is going to strike."""

    at: float
    what: str
    session: int
    seconds: float  # that it lasts, if it does
    seed: int  # for what it chooses


def draw(plan: Plan) -> list[Draw]:
    """The faults of a round, in order."""
    dice = random.Random(plan.seed)
    names, weights = [*FAULTS], [fault.weight for fault in FAULTS.values()]
    drawn, at = [], 0.0
    while (at := at + dice.uniform(0, 2 * plan.every)) < plan.seconds:
        (what,) = dice.choices(names, weights)
        session, seconds = dice.randrange(plan.sessions), dice.uniform(0.1, FAULTS[what].up_to_seconds)
        drawn.append(Draw(at, what, session, seconds, dice.randrange(1 << 32)))
    return drawn


class Trial:
    """One session, whoever is connected to it, and its cells."""

    def __init__(self, place: Place, number: int, nonce: str, dice: random.Random, clock: Callable[[], float]) -> None:
        self.place = place
        self.nonce = nonce
        self.owner = Roamer(place, f"{nonce}-owner")
        self.owner.on_message = self._note
        self.watcher = agents.Agent(place, f"{nonce}-watcher", role="observer")
        self.companion = Roamer(place, f"{nonce}-companion", names_last=False) if number % 2 == 0 else None
        self.clients: list[Roamer | agents.Agent] = [self.owner, self.watcher]
        if self.companion:
            self.clients.append(self.companion)
        self.last_well = -1.0  # when the last cell was asked for that ended well
        self._has_failed = False
        self._dice = dice
        self._clock = clock
        self._cells: list[tuple[Asked, int]] = []  # with the number of its lines
        self._asked_at: dict[str, float] = {}
        self._ended_at: dict[str, float] = {}

    async def work(self, is_over: asyncio.Event) -> None:
        """Cells, some at a time, until it is over and all have ended."""
        for number in count():
            if is_over.is_set():
                break
            lines, pause = self._dice.randint(0, 40), self._dice.choice((0.0, 0.0, 0.002, 0.005))
            code = print_lines(self.nonce, number, lines, pause=pause, flush=self._dice.random() < 0.5)
            name = f"{self.nonce}-cell-{number}"
            self._asked_at[name] = self._clock()
            self._cells.append((self.owner.ask(code, name), lines))
            behind = self._dice.randint(0, 4)  # how many may wait: the queue is tried too
            while len(waiting := [asked for asked, _ in self._cells[-6:] if not asked.done.is_set()]) > behind:
                await waiting[0].done.wait()
            if self._has_failed:
                self._has_failed = False
                await asyncio.sleep(FAILED_SECONDS)
        for asked, _ in self._cells:
            await asked.done.wait()

    def _note(self, message: Message) -> None:
        """When its cells end, and how."""
        if asked := self.owner.asked.get(message.parent):
            if message.type == "execute_reply" and message.content["status"] == "ok":
                self.last_well = max(self.last_well, self._asked_at[asked.id])
            elif message.type == "execute_reply":
                self._has_failed = True
            if asked.done.is_set():
                self._ended_at.setdefault(asked.id, self._clock())

    def unfinished(self) -> list[str]:
        return [asked.id for asked, _ in self._cells if not asked.done.is_set()]

    def is_finished_for_watcher(self) -> bool:
        """Cells end in their order: whoever has seen the end of the last has seen those of the others."""
        last = self._cells[-1][0].id
        return any(e["event"] == "finished" and e["cell"] == last for e in reversed(self.watcher.seen[-100:]))

    def history(self, journal: Path) -> History:
        records = list(read_journal(journal))
        ends = {record.tag.parent_id.decode(): record for record in records if record.kind is Kind.TERMINAL}
        by_parent: dict[str, list[Message]] = {}
        for _, message in self.owner.seen:
            by_parent.setdefault(message.parent, []).append(message)
        numbers = {asked.id: number for number, (asked, _) in enumerate(self._cells)}
        public = Counter(message.id for _, message in self.owner.seen)
        return History(
            self.nonce,
            [self._told(asked, lines, by_parent.get(asked.id, []), ends.get(asked.id)) for asked, lines in self._cells],
            [numbers[m.parent] for _, m in self.owner.seen if m.type == "execute_input" and m.parent in numbers],
            [name for name, times in public.items() if times > 1],
            _counted(records, Kind.REQUEST),
            _counted(records, Kind.TERMINAL),
            self._watchers(journal, ends),
        )

    def _told(self, asked: Asked, lines: int, said: Sequence[Message], end: Record | None) -> Told:
        """The reason is the journal's; of what was refused, and stands in none, the answer's. A cell that an interrupt
        met which was meant for the one before, or was asked of a gateway that is gone, has an error like others."""
        replies = [message for message in said if message.type == "execute_reply"]
        content, facts = (replies[-1].content, replies[-1].facts) if replies else ({}, {})
        reason = load_plainly(memoryview(end.body))["reason"] if end else str(facts.get("reason", ""))
        if reason == "error" and content.get("ename") == "KeyboardInterrupt":
            reason = "interrupted"
        return Told(
            asked.id,
            int(asked.id.rpartition("-")[2]),
            lines,
            self._asked_at[asked.id],
            self._ended_at.get(asked.id),
            sum(message.type == "execute_input" for message in said),
            len(replies),
            sum(message.state == "idle" for message in said),
            str(content.get("status", "")),
            reason,
            "".join(str(m.content["text"]) for m in said if m.type == "stream" and m.content["name"] == "stdout"),
        )

    def _watchers(self, journal: Path, ends: Container[str]) -> list[str]:
        """Of a cell that was refused its owner alone is told."""
        found = agents.Report(agents.Plan(0))
        agents.check([self.watcher], journal, found)
        if self.companion:
            refused = {asked.id for asked, _ in self._cells if asked.id not in ends}
            told = [seen for seen in self.owner.seen if seen.message.parent not in refused]
            found.faults += check_companion(self.nonce, told, self.companion.seen)[1].faults
        return found.faults


def _counted(records: Sequence[Record], kind: Kind) -> dict[str, int]:
    return dict(Counter(record.tag.parent_id.decode() for record in records if record.kind is kind))


# -- what strikes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stroke:
    """A fault as it strikes."""

    server: Server
    trial: Trial
    seconds: float
    dice: random.Random


@dataclass(frozen=True)
class Fault:
    """`weight`: how often, beside the others. What meets all sessions strikes by turns: it waits for the one before."""

    weight: int
    strike: Callable[[Stroke], Awaitable[None]]
    meets_all: bool = False
    up_to_seconds: float = 0.1
    needs: Callable[[], bool] = lambda: True


async def _drop(stroke: Stroke) -> None:
    client = stroke.dice.choice(stroke.trial.clients)
    if client.websocket is not None:
        client.drop(stroke.dice)


async def _stall(stroke: Stroke) -> None:
    client = stroke.dice.choice(stroke.trial.clients)
    if (websocket := client.websocket) is not None and not websocket.transport.is_closing():
        websocket.transport.pause_reading()
        await asyncio.sleep(stroke.seconds)
        if not websocket.transport.is_closing():
            websocket.transport.resume_reading()


async def _interrupt(stroke: Stroke) -> None:
    await stroke.server.fetch("POST", f"/api/kernels/{stroke.trial.place.kernel_id}/interrupt")


async def _restart(stroke: Stroke) -> None:
    await stroke.server.fetch("POST", f"/api/kernels/{stroke.trial.place.kernel_id}/restart")


async def _kill_kernel(stroke: Stroke) -> None:
    """From outside, once there is one."""
    deadline = asyncio.get_running_loop().time() + KERNEL_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        name = await asyncio.to_thread(sandbox_of, stroke.server, stroke.trial.place.kernel_id)
        inside = {pid: pid_inside(pid) for pid in (pids_in(name) if name else ())}
        for pid in sorted(pid for pid, number in inside.items() if number > 1):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return
        await asyncio.sleep(RETRY_SECONDS)


async def _kill_gateway(stroke: Stroke) -> None:
    await stroke.server.kill_gateway()
    await stroke.server.wait_ready()


async def _stop_gateway(stroke: Stroke) -> None:
    if pid := stroke.server.gateway_pid():
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(stroke.seconds)
        os.kill(pid, signal.SIGCONT)


async def _hang_up(stroke: Stroke) -> None:
    former = stroke.server.gateway_pid()
    os.kill(stroke.server.keeper_pid, signal.SIGHUP)
    await until(lambda: stroke.server.gateway_pid() not in (0, former))
    await stroke.server.wait_ready()


async def _kill_warden(stroke: Stroke) -> None:
    if pid := stroke.server.warden_pid():
        groups = names_of_groups(pid)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: is_gone(pid) and not names_of_groups(pid) & groups, GONE_SECONDS + BOUND)


async def _fill_disk(stroke: Stroke) -> None:
    """Over when all is written that was held in memory meanwhile: a gateway that is killed before loses that, as
    PROTOCOL.md ("A disk that refuses") says."""
    filling = await asyncio.to_thread(fill, stroke.server.state_dir)
    try:
        await asyncio.sleep(stroke.seconds)
    finally:
        filling.unlink()
    await asyncio.sleep(READY_SECONDS)
    deadline = asyncio.get_running_loop().time() + BOUND
    while (await stroke.server.fetch("GET", "/readyz")).status != 200:
        assert asyncio.get_running_loop().time() < deadline, "a disk with room is not written to again"
        await asyncio.sleep(RETRY_SECONDS)


def _has_no_terminal() -> bool:
    """SIGHUP is the end of one."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return True
    return False


def _may_mount() -> bool:
    return os.geteuid() == 0


FAULTS: Mapping[str, Fault] = {
    "drop": Fault(30, _drop),
    "stall": Fault(6, _stall, up_to_seconds=3.0),
    "interrupt": Fault(10, _interrupt),
    "restart": Fault(4, _restart),
    "kernel_kill": Fault(5, _kill_kernel),
    "gateway_kill": Fault(4, _kill_gateway, meets_all=True),
    "gateway_stop": Fault(2, _stop_gateway, meets_all=True, up_to_seconds=3.0),
    "hangup": Fault(1, _hang_up, meets_all=True, needs=_has_no_terminal),
    "warden_kill": Fault(1, _kill_warden, meets_all=True),
    "disk_full": Fault(1, _fill_disk, meets_all=True, up_to_seconds=2.0, needs=_may_mount),
}


# -- a round ---------------------------------------------------------------------------------------------


@dataclass
class Report:
    plan: Plan
    strikes: list[Strike] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)  # what was left behind
    others: list[str] = field(default_factory=list)  # faults of no session: tracebacks, no recovery
    seconds: float = 0.0

    @property
    def tally(self) -> Tally:
        tally = Tally()
        for history in self.histories:
            tally.add(check_history(history, self.strikes))
        tally.faults += [*self.others, *(f"left behind: {name}" for name in self.orphans)]
        return tally

    @property
    def figures(self) -> dict[str, Any]:
        tally = self.tally
        return {
            "seed": self.plan.seed,
            "seconds": round(self.seconds, 1),
            "sessions": len(self.histories),
            "struck": dict(sorted(Counter(strike.what for strike in self.strikes).items())),
            "cells": tally.cells,
            "ended": dict(sorted(Counter(cell.reason for h in self.histories for cell in h.cells).items())),
            "lines": tally.lines,
            "lost": tally.lost,
            "doubled": tally.doubled,
            "orphans": len(self.orphans),
            "faults": tally.faults,
            "recovered": recoveries(self.histories, self.strikes),
        }

    def as_json(self) -> dict[str, Any]:
        """All that a verdict needs, and the figures."""
        return {
            "plan": asdict(self.plan),
            "strikes": [asdict(strike) for strike in self.strikes],
            "histories": [history.as_json() for history in self.histories],
            "orphans": self.orphans,
            "others": self.others,
            "seconds": self.seconds,
            "figures": self.figures,
        }

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Report:
        return Report(
            Plan(**given["plan"]),
            [Strike(**strike) for strike in given["strikes"]],
            [History.from_json(history) for history in given["histories"]],
            *(given["orphans"], given["others"], given["seconds"]),
        )


def as_text(figures: Mapping[str, Any]) -> str:
    def told(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{number} {name}" for name, number in counts.items())

    lines = [
        f"seed {figures['seed']}: {figures['sessions']} sessions, {figures['seconds']:.0f} s",
        f"  faults     {sum(figures['struck'].values())} ({told(figures['struck'])})",
        f"  cells      {figures['cells']} ({told(figures['ended'])})",
        f"  lines      {figures['lines']}, {figures['lost']} lost, {figures['doubled']} doubled",
        f"  orphans    {figures['orphans']}",
        *(f"  {f'after {what}':<19} {spread(seconds)}" for what, seconds in sorted(figures["recovered"].items())),
        f"  recovered  {spread([seconds for times in figures['recovered'].values() for seconds in times])}",
        f"  faults found: {len(figures['faults'])}",
    ]
    return "\n".join([*lines, *(f"    {fault}" for fault in figures["faults"][:20])])


async def run_round(plan: Plan) -> Report:
    report, loop = Report(plan), asyncio.get_running_loop()
    began = loop.time()
    async with served_on(STATE_SIZE) if _may_mount() else served() as server:
        at_rest = await at_rest_of(server)
        dice = random.Random(plan.seed)
        trials = [
            Trial(
                *(await create(server), number, f"s{number}x{dice.randrange(1 << 32):08x}"),
                *(random.Random(dice.random()), lambda: loop.time() - began),
            )
            for number in range(plan.sessions)
        ]
        is_over = asyncio.Event()
        roaming = [asyncio.create_task(client.run()) for trial in trials for client in trial.clients]
        await until(lambda: all(client.websocket for trial in trials for client in trial.clients))
        working = [asyncio.create_task(trial.work(is_over)) for trial in trials]
        try:
            await _strike(server, trials, draw(plan), report, lambda: loop.time() - began)
            await _settle(trials, working, is_over, report, lambda: loop.time() - began)
        finally:
            for trial in trials:
                for client in trial.clients:
                    client.leave()
            for task in (*roaming, *working):
                task.cancel()
            await asyncio.gather(*roaming, *working, return_exceptions=True)
        report.histories = [trial.history(journals(server) / trial.place.kernel_id) for trial in trials]
        report.orphans = await left_behind(server, at_rest)
        report.others += [line for line in server.log().splitlines() if "Traceback" in line]
    report.seconds = loop.time() - began
    return report


async def _strike(
    server: Server, trials: Sequence[Trial], draws: Sequence[Draw], report: Report, clock: Callable[[], float]
) -> None:
    """Each at its time; what meets all sessions by turns."""
    turn, begin = asyncio.Lock(), clock()

    async def strike(drawn: Draw) -> None:
        fault, trial = FAULTS[drawn.what], trials[drawn.session]
        stroke = Stroke(server, trial, drawn.seconds, random.Random(drawn.seed))
        at = clock()
        with suppress(OSError):  # the gateway was killed that was asked
            await fault.strike(stroke)
        report.strikes.append(Strike(drawn.what, "" if fault.meets_all else trial.nonce, at, clock()))

    async def strike_in_turn(drawn: Draw) -> None:
        async with turn:
            await strike(drawn)

    tasks = []
    try:
        for drawn in draws:
            if FAULTS[drawn.what].needs():
                await asyncio.sleep(max(0.0, begin + drawn.at - clock()))
                act = strike_in_turn if FAULTS[drawn.what].meets_all else strike
                tasks.append(asyncio.create_task(act(drawn)))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    report.strikes.sort(key=lambda strike: strike.at)


async def _settle(
    trials: Sequence[Trial],
    working: Sequence[asyncio.Task[None]],
    is_over: asyncio.Event,
    report: Report,
    clock: Callable[[], float],
) -> None:
    """Every session has ended a cell well behind the last fault, all cells have ended, and everybody has seen it."""
    last = clock()
    with suppress(AssertionError):
        await until(lambda: all(trial.last_well > last for trial in trials), SETTLE_SECONDS)
    report.others += [
        f"{trial.nonce} ended no cell well within {SETTLE_SECONDS:g} s of the last fault"
        for trial in trials
        if trial.last_well <= last
    ]
    is_over.set()
    done, late = await asyncio.wait(working, timeout=SETTLE_SECONDS)
    for task in done:
        task.result()
    if late:
        report.others.append(f"without an end after {SETTLE_SECONDS:g} s: {[t.unfinished() for t in trials]}")

    def have_seen_all() -> bool:
        return all(
            trial.is_finished_for_watcher() and (not trial.companion or _last(trial.owner) == _last(trial.companion))
            for trial in trials
        )

    with suppress(AssertionError):  # whoever has not is found by the checks
        await until(have_seen_all, SETTLE_SECONDS)


def _last(client: Roamer) -> str:
    return next((seen.message.id for seen in reversed(client.seen) if seen.message.channel == "iopub"), "")


def check_saved(path: Path) -> Report:
    """The report of a round that was saved, whose verdict is made anew."""
    return Report.from_json(json.loads(path.read_text()))
