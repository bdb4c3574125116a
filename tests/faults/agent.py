"""An agent that holds a session, is cut off, and whose gateways are killed: it sees every event once, in order.

    python -m tests.faults.agent --seed 7 --cells 10000 --drops 20 --kills 5

What it does about a break is what PROTOCOL.md offers to any agent: it comes back with the number of the last event that
it saw, and asks again, under the same id, for each cell of which it has seen nothing. Beside it an observer reads the
same, with breaks of its own. Both are held against the journal, event by event.
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
from pathlib import Path
from typing import Any

from cellgate.sessions.agents import event_of
from cellgate.wire.agent import Execute, Form, Request, read_event, request_of, write
from tests.bench.gateway.client import BINARY, frame_head
from tests.faults.roamer import RETRY_SECONDS, Place
from tests.faults.stage import create, read_journal
from tests.faults.websocket import Websocket
from tests.support.server import Server, served, until

Event = dict[str, Any]
SETTLE_SECONDS = 60.0
WAYS = ("abort", "half_close", "close", "turn_away")


@dataclass
class Cell:
    id: str
    code: str
    text: str  # that it prints
    times_sent: int = 0
    is_taken: bool = False
    events: list[Event] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Agent:
    """`run` is a task of its maker's."""

    def __init__(self, place: Place, name: str, *, role: str = "driver") -> None:
        self.place = place
        self.name = name
        self.role = role
        self.seen: list[Event] = []  # those with a number
        self.cells: dict[str, Cell] = {}
        self.breaks = 0
        self.websocket: Websocket | None = None
        self._is_caught_up = False
        self._is_over = False

    async def run(self) -> None:
        """Until `leave`."""
        while not self._is_over:
            since = self.seen[-1]["seq"] if self.seen else 0
            try:
                websocket = await Websocket.open(
                    *self.place,
                    self._hear,
                    query={"client": self.name, "since": str(since), "role": self.role},
                    path="/v1/sessions/{}/ws",
                    subprotocol=Form.MSGPACK.value,
                    read=lambda payload: read_event(payload, Form.MSGPACK),
                )
            except (OSError, asyncio.TimeoutError):
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.websocket = websocket
            self._ask_again()  # it may have caught up with the very bytes that opened it
            await websocket.closed
            self.websocket, self._is_caught_up = None, False
            self.breaks += 1

    def leave(self) -> None:
        self._is_over = True
        if self.websocket is not None:
            self.websocket.abort()

    def drop(self, dice: random.Random) -> bool:
        """Break the connection in one of the ways there are, if there is one."""
        if self.websocket is not None:
            getattr(self.websocket, dice.choice(WAYS))()
        return self.websocket is not None

    def ask(self, cell: Cell) -> None:
        self.cells[cell.id] = cell
        if self._is_caught_up:
            self._send(cell)

    def _send(self, cell: Cell) -> None:
        if self.websocket is not None:
            cell.times_sent += 1
            self.websocket.send(_frame(Execute(cell.id, cell.code)))

    def _ask_again(self) -> None:
        for cell in self.cells.values():
            if self._is_caught_up and not cell.is_taken:
                self._send(cell)

    def _hear(self, event: Event) -> None:
        if event["event"] == "caught_up":
            self._is_caught_up = True
            self._ask_again()
            return
        if "seq" not in event:
            return
        self.seen.append(event)
        if cell := self.cells.get(event.get("cell", "")):
            cell.is_taken = True
            cell.events.append(event)
            if event["event"] == "finished":
                cell.done.set()


def _frame(request: Request) -> bytes:
    payload = write(request_of(request), Form.MSGPACK).data
    return frame_head(BINARY, len(payload), masked=True) + bytes(payload)


@dataclass(frozen=True)
class Plan:
    seed: int
    cells: int = 10_000
    drops: int = 20
    kills: int = 5


@dataclass
class Report:
    plan: Plan
    drops: int = 0
    kills: int = 0
    again: int = 0
    events: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {name}" for name, count in sorted(self.events.items()))
        return (
            f"seed {self.plan.seed}: {self.plan.cells} cells, {self.seconds:.0f} s\n"
            f"  faults  {self.drops} drops, {self.kills} kills of the gateway\n"
            f"  cells   {self.again} of them sent again\n"
            f"  events  {told}\n"
            f"  found   {len(self.faults)} faults\n" + "".join(f"    {fault}\n" for fault in self.faults[:20])
        )


async def run_agent(plan: Plan) -> Report:
    report, dice = Report(plan), random.Random(plan.seed)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with served(env={"CELLGATE_DRIVER": "native"}) as server:
        place = await create(server)
        agents = [Agent(place, "agent"), Agent(place, "watcher", role="observer")]
        tasks = [asyncio.create_task(agent.run()) for agent in agents]
        strikes = sorted(
            [(dice.randrange(plan.cells), "drop") for _ in range(plan.drops)]
            + [(dice.randrange(plan.cells), "kill") for _ in range(plan.kills)]
        )
        try:
            await asyncio.wait_for(_work(agents, plan, dice, strikes, report, server), 3600)
            last = agents[0].seen[-1]["seq"]
            with suppress(AssertionError):  # whoever has not is found below
                await until(
                    lambda: all(agent.seen and agent.seen[-1]["seq"] >= last for agent in agents), SETTLE_SECONDS
                )
        finally:
            for agent in agents:
                agent.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        check(agents, server.state_dir / "gateway" / "sessions" / place.kernel_id, report)
        report.faults += [line for line in server.log().splitlines() if "Traceback" in line or "Error" in line]
    report.seconds = loop.time() - began
    return report


async def _work(
    agents: Sequence[Agent],
    plan: Plan,
    dice: random.Random,
    strikes: list[tuple[int, str]],
    report: Report,
    server: Server,
) -> None:
    """Some cells of the first at a time, and what strikes them."""
    agent = agents[0]
    for number in range(plan.cells):
        lines = dice.choice((0, 1, 1, 2, 30))
        text = "".join(f"{number} {line}\n" for line in range(lines))
        code = f"for i in range({lines}): print({number}, i)\nmade = globals().get('made', 0) + 1"
        agent.ask(Cell(f"cell-{number}", code, text))
        while strikes and strikes[0][0] <= number:
            _, what = strikes.pop(0)
            if what == "kill":
                await server.kill_gateway()
                report.kills += 1
            else:
                victim = dice.choice((agent, agent, agents[1]))
                while not victim.drop(dice):
                    await asyncio.sleep(RETRY_SECONDS)
                report.drops += 1
        while sum(not cell.done.is_set() for cell in agent.cells.values()) > dice.randint(0, 4):
            await next(cell for cell in agent.cells.values() if not cell.done.is_set()).done.wait()
        for done in [name for name, cell in agent.cells.items() if cell.done.is_set()]:
            _judge(agent.cells.pop(done), report)
    for cell in list(agent.cells.values()):
        await cell.done.wait()
        _judge(agent.cells.pop(cell.id), report)
    final = Cell("final", "print(made)", f"{plan.cells}\n")
    agent.ask(final)
    await final.done.wait()
    _judge(final, report)


def _judge(cell: Cell, report: Report) -> None:
    """Its events are those of a cell that ran once and printed what it should."""
    report.again += cell.times_sent > 1
    text = "".join(event["text"] for event in cell.events if event["event"] == "stdout")
    names = [event["event"] for event in cell.events]
    expected = ["accepted", "started", *["stdout"] * (len(names) - 3), "finished"]
    if names != expected or text != cell.text or cell.events[-1]["status"] != "ok":
        report.faults.append(f"{cell.id}: {names}, {text[:60]!r}")


def check(agents: Sequence[Agent], journal: Path, report: Report) -> None:
    """Everybody saw what the journal holds: all of it, once, in order."""
    kept = [event for record in read_journal(journal) if (event := event_of(record, record.seq))]
    report.events = Counter(event["event"] for event in kept)
    for agent in agents:
        numbers = [event["seq"] for event in agent.seen]
        if numbers != sorted(set(numbers)):
            report.faults.append(f"{agent.name} saw events twice, or out of order")
        if agent.seen != kept:
            missed = {event["seq"] for event in kept} - set(numbers)
            report.faults.append(f"{agent.name} missed {sorted(missed)[:10]}, {len(missed)} in all, or saw others")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.agent", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    for name in ("cells", "drops", "kills"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    report = asyncio.run(run_agent(Plan(**vars(parser.parse_args(words)))))
    print(report)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
