"""What is measured, a function each: it is given who takes part, and gives figures. Turns are interleaved, so that
whatever else the machine does meets all alike; who fails is left out from then on, and a note says why.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import psutil

from tests.bench.compare.contenders import Contender, Living, OfServer, Seat, own_bytes, peer
from tests.bench.compare.figures import OURS, Figure
from tests.bench.harness import cpu_seconds, interleave
from tests.bench.output import WRITE_BYTES, Flood, numbered_lines

__all__ = ["FULL", "MEASURES", "QUICK", "TINY", "Effort", "Field"]


@dataclass(frozen=True)
class Effort:
    """How much is done of each."""

    starts: int
    laps: int
    together: tuple[int, ...]  # sessions that ask at once
    lines: tuple[int, ...]  # flushed lines of a cell
    megabytes: tuple[int, ...]
    images: tuple[int, ...]
    floods: int  # of each size
    sessions: tuple[int, ...]  # that are alive
    growing_seconds: float  # for one contender to bring them to life
    interrupts: int
    deaths: int


FULL = Effort(
    starts=24,
    laps=20,
    together=(1, 10, 50),
    lines=(10, 100, 1_000, 10_000),
    megabytes=(1, 10, 100),
    images=(1, 10, 100),
    floods=4,
    sessions=(1, 100, 500, 1_000),
    growing_seconds=80,
    interrupts=24,
    deaths=5,
)
QUICK = Effort(6, 4, (1, 10), (10, 100, 1_000), (1, 10), (1, 10), 2, (1, 20, 100), 8, 6, 1)
TINY = Effort(2, 1, (1, 2), (10,), (1,), (1,), 1, (1, 2), 5, 1, 1)  # only to see that it runs


@dataclass(frozen=True)
class Field:
    """All who take part; the pooled are those of ours once more, each with a pool."""

    contenders: Mapping[str, Contender]
    pooled: Mapping[str, OfServer]

    def servers(self) -> dict[str, OfServer]:
        return {name: one for name, one in self.contenders.items() if isinstance(one, OfServer)}


LAP = 20  # requests of one seat: as in a session that is at work
TURN_SECONDS = 150.0  # for what takes seconds; what takes longer has failed
SEATED_AT_ONCE = 4
SETTLE_SECONDS = 0.3  # what was ended is gone, what was started has come to rest
REFILL_SECONDS = 2.5  # a pool is full again, of gVisor's containers too


async def by_turns(times: int, who: Iterable[str], turn: Callable[[str], Awaitable[None]]) -> dict[str, str]:
    """Who failed, and how."""
    failed: dict[str, str] = {}

    async def guarded(name: str) -> None:
        if name in failed:
            return
        try:
            await asyncio.wait_for(turn(name), TURN_SECONDS)
        except Exception as error:  # one's failure is no reason to leave out the others
            failed[name] = failure(error)

    await interleave(times, *(partial(guarded, name) for name in who))
    return failed


def failure(error: Exception) -> str:
    return f"failed: {type(error).__name__}: {error}"[:300]


@asynccontextmanager
async def seated(contenders: Mapping[str, Contender], figure: Figure, *, quick_acks: bool = True):
    """A seat with each that has one to give, by name; of others the figure notes why not."""
    seats: dict[str, Seat] = {}
    try:
        for name, contender in contenders.items():
            try:
                seats[name] = await contender.seat(quick_acks=quick_acks)
            except Exception as error:
                figure.notes[name] = failure(error)
        yield seats
    finally:
        await end_all(seats.values())


async def end_all(seats: Iterable[Seat]) -> None:
    """Several at a time, the last first: some take a second."""
    waiting = list(seats)

    async def end() -> None:
        while waiting:
            with suppress(Exception):  # else its server ends it
                await asyncio.wait_for(waiting.pop().close(), TURN_SECONDS)

    await asyncio.gather(*(end() for _ in range(SEATED_AT_ONCE * 2)))


# -- from nothing ----------------------------------------------------------------------------------------------------


async def start(field: Field, effort: Effort) -> list[Figure]:
    cold = Figure("start", "From nothing to the first answer: POST, websocket, 1+1", "ms")
    pooled = Figure("start_pooled", "The same out of a pool", "ms", notes={"": "who is not here has no pool"})

    async def one(figure: Figure, among: Mapping[str, Contender], settle_seconds: float, name: str) -> None:
        begin = perf_counter()
        seat = await among[name].seat()
        figure.add(name, (perf_counter() - begin) * 1e3)
        await seat.close()
        await asyncio.sleep(settle_seconds)

    kinds: tuple[tuple[Figure, Mapping[str, Contender], float, int], ...] = (
        (cold, field.contenders, SETTLE_SECONDS, effort.starts),
        (pooled, field.pooled, REFILL_SECONDS, effort.starts // 2),
    )
    for figure, among, settle_seconds, times in kinds:
        figure.notes.update(await by_turns(times + 1, among, partial(one, figure, among, settle_seconds)))
        for sizes in figure.samples.values():
            del sizes[0][:1]  # the first one's ways are cold
        forget_the_empty(figure)
    return [cold, pooled]


def forget_the_empty(figure: Figure) -> None:
    for name in [name for name, sizes in figure.samples.items() if not any(sizes.values())]:
        del figure.samples[name]


# -- a warm cell -----------------------------------------------------------------------------------------------------


async def warm(field: Field, effort: Effort) -> list[Figure]:
    """The peers leave Nagle's algorithm on and wait for the client's delayed acknowledgements: so once with a client as
    it is, and once with one that acknowledges at once."""
    as_it_is = Figure("warm", "A warm 1+1, by a client as it is", "ms")
    hasty = Figure("warm_quick", "A warm 1+1, by a client that acknowledges at once", "ms")
    for figure, quick_acks in ((as_it_is, False), (hasty, True)):
        async with seated(field.contenders, figure, quick_acks=quick_acks) as seats:

            async def lap(name: str, figure: Figure = figure, seats: Mapping[str, Seat] = seats) -> None:
                figure.add(name, *[(await seats[name].execute("1+1")).seconds * 1e3 for _ in range(LAP)])

            await by_turns(1, seats, lap)
            figure.samples.clear()
            figure.notes.update(await by_turns(effort.laps, seats, lap))
    return [as_it_is, hasty]


async def concurrency(field: Field, effort: Effort) -> list[Figure]:
    figure = Figure("concurrency", "1+1 in many sessions at once, in all", "/s", "sessions", more_is_better=True)
    seats: dict[str, list[Seat]] = {name: [] for name in field.servers()}
    try:
        for name, mine in seats.items():
            try:
                await fill(mine, field.contenders[name], max(effort.together), effort.growing_seconds)
                if len(mine) < max(effort.together):
                    figure.notes[name] = f"had {len(mine)} sessions within {effort.growing_seconds:g} s, and no more"
            except Exception as error:
                figure.notes[name] = failure(error)
        for count in effort.together:
            able = [name for name, mine in seats.items() if len(mine) >= count]

            async def lap(name: str, count: int = count) -> None:
                begin = perf_counter()
                await asyncio.gather(*(ask(seat) for seat in seats[name][:count]))
                figure.add(name, count * LAP / (perf_counter() - begin), at=count)

            await by_turns(1, able, lap)
            for sizes in figure.samples.values():
                sizes.pop(count, None)
            figure.notes.update(await by_turns(max(3, effort.laps // 4), able, lap))
    finally:
        await end_all([seat for mine in seats.values() for seat in mine])
    return [figure]


async def fill(seats: list[Seat], contender: Contender, count: int, seconds: float) -> None:
    """As many as there is time for."""
    deadline = perf_counter() + seconds
    while len(seats) < count and perf_counter() < deadline:
        seats += await asyncio.gather(*(contender.seat() for _ in range(min(SEATED_AT_ONCE, count - len(seats)))))


async def ask(seat: Seat) -> None:
    for _ in range(LAP):
        assert not (await seat.execute("1+1")).lost_idle


# -- output ----------------------------------------------------------------------------------------------------------

IMAGE_BYTES = 100_000
IMAGES = """\
import os
from IPython.display import Image, display
for _ in range({count}): display(Image(data=os.urandom({size}), format="png"))"""


def lines(count: int) -> Flood:
    code = f"for i in range({count}): print(i, flush=True)"
    return Flood(f"{count} lines", "/s", count, code, text=numbered_lines(count))


def megabytes(count: int) -> Flood:
    writes = count * 1_000_000 // WRITE_BYTES + 1
    code = f"import sys; x = 'x' * {WRITE_BYTES}\nfor i in range({writes}): sys.stdout.write(x); sys.stdout.flush()"
    return Flood(f"{count} MB", "MB/s", writes * WRITE_BYTES / 1e6, code, text="x" * writes * WRITE_BYTES)


def images(count: int) -> Flood:
    return Flood(f"{count} images", "/s", count, IMAGES.format(count=count, size=IMAGE_BYTES), displays=count)


async def output(field: Field, effort: Effort) -> list[Figure]:
    """Of ours all must come; of the peers it is told what did not. Their rate limits, beyond which they drop output,
    are off."""
    cpu = Figure("gateway_cpu", "The gateway's CPU time for each flushed line", "us", "lines")
    figures = [cpu]
    for name, title, axis, make, sizes in (
        ("lines", "A cell that prints lines, each flushed", "lines", lines, effort.lines),
        ("bytes", "A cell that writes text, 64 KB at a time", "MB", megabytes, effort.megabytes),
        ("images", f"A cell that shows images of {IMAGE_BYTES // 1000} KB", "images", images, effort.images),
    ):
        figure = Figure(name, title, "ms", axis)
        figures.append(figure)
        async with seated(field.contenders, figure) as seats:
            for size in sizes:
                await measure_flood(field, seats, figure, cpu if name == "lines" else None, make(size), size, effort)
    return figures


async def measure_flood(
    field: Field, seats: Mapping[str, Seat], figure: Figure, cpu: Figure | None, flood: Flood, size: int, effort: Effort
) -> None:
    lost: dict[str, float] = {}

    async def run(name: str) -> None:
        relays = field.contenders[name].relays
        before = cpu_seconds(relays)
        heard = await seats[name].execute(flood.code)
        spent = cpu_seconds(relays) - before
        came = flood.came(heard)
        if not flood.came_whole(heard):
            assert not name.startswith(OURS), f"of {flood.what} {came:g} came"
            lost[name] = max(lost.get(name, 0.0), 1 - came / flood.size)
        figure.add(name, heard.seconds * 1e3, at=size)
        if cpu is not None and relays and came:
            cpu.add(name, spent / came * 1e6, at=size)

    figure.notes.update(await by_turns(effort.floods, seats, run))
    for name, part in lost.items():
        figure.notes[name] = f"of {flood.what} up to {part:.0%} never came; the time is of the rest"


# -- many sessions ---------------------------------------------------------------------------------------------------

PART_OF_FREE = 0.5  # of the memory that is free; the machine is also somebody else's
PROBES = 5  # cells, at each number


async def sessions(field: Field, effort: Effort) -> list[Figure]:
    """One after the other, for pages that processes share are split among those that are alive."""
    each = Figure("memory", "Memory of all processes, for each idle session", "MB", "sessions")
    whole = Figure("memory_whole", "Memory of all processes, with so many idle sessions", "MB", "sessions")
    begun = Figure("start_beside", "From nothing to the first answer, beside so many idle sessions", "ms", "sessions")
    asked = Figure("warm_beside", "A warm 1+1, beside so many idle sessions", "ms", "sessions")

    async def grow(name: str) -> None:
        contender = field.contenders[name]
        await (await contender.seat()).close()  # what is made once is made
        await asyncio.sleep(SETTLE_SECONDS)
        gc.collect()
        alone = own_bytes(contender.processes())
        floor = psutil.virtual_memory().available * (1 - PART_OF_FREE)
        deadline = perf_counter() + effort.growing_seconds
        seats: list[Seat] = []
        try:
            for count in effort.sessions:
                took: list[float] = []
                while len(seats) < count and perf_counter() < deadline and psutil.virtual_memory().available > floor:
                    begin = perf_counter()
                    seats.append(await contender.seat())
                    took.append((perf_counter() - begin) * 1e3)
                    if len(seats) > 1:
                        await seats[-1].leave()  # who has an idle session mostly looks away
                alive = len(seats)
                begun.add(name, *took[-PROBES:], at=alive)
                asked.add(name, *[(await seats[0].execute("1+1")).seconds * 1e3 for _ in range(PROBES)], at=alive)
                now = own_bytes(contender.processes())
                whole.add(name, now / 1e6, at=alive)
                each.add(name, (now - alone) / alive / 1e6, at=alive)
                if alive < count:
                    each.notes[name] = f"ended at {alive:,}: more would take more time or memory than is given"
                    break
        finally:
            await end_all(seats)

    for name in field.contenders:
        try:
            await grow(name)
        except Exception as error:
            each.notes[name] = failure(error)
    return [each, whole, begun, asked]


# -- what goes wrong -------------------------------------------------------------------------------------------------


async def interrupt(field: Field, effort: Effort) -> list[Figure]:
    figure = Figure("interrupt", "From the interrupt of a busy loop to reply and idle", "ms")
    async with seated(field.contenders, figure) as seats:

        async def one(name: str) -> None:
            figure.add(name, await seats[name].interrupt())

        figure.notes.update(await by_turns(effort.interrupts + 1, seats, one))
    for sizes in figure.samples.values():
        del sizes[0][:1]
    return [figure]


ALIVE_SECONDS = 0.05  # between the cell's word and its end: its output is out
DIES = f"""\
import os, time
print("dies", flush=True)
time.sleep({ALIVE_SECONDS})
os.kill(os.getpid(), 9)"""
TOLD_SECONDS = 10.0
ASK_SECONDS = 0.25  # what is asked of a kernel that is not there may have no answer
COME_SECONDS = 10.0  # what is asked over a connection of its own has one, or that breaks
RETRY_SECONDS = 0.005
BACK_SECONDS = 60.0


async def recovery(field: Field, effort: Effort) -> list[Figure]:
    told = Figure("kernel_killed_told", "kill -9 of the kernel, until its cell has reply and idle", "ms")
    back = Figure("kernel_killed", "kill -9 of the kernel, until the next cell is answered", "ms")
    gateway = Figure("gateway_killed", "kill -9 of the gateway, until the next cell is answered", "ms")
    servers = field.servers()

    async def kill_kernel(name: str) -> None:
        server = servers[name].server
        async with server.kernel() as kernel:
            dying = await server.open(kernel, quick_acks=True)
            asking = await server.open(kernel, quick_acks=True)
            dying.ask(DIES)
            await dying.wait_for_output()
            begin = dying.heard_at + ALIVE_SECONDS
            await asyncio.sleep(ALIVE_SECONDS)
            end = asyncio.ensure_future(asyncio.wait_for(dying.collect(), TOLD_SECONDS))
            await until_answered(lambda: asking.execute("1+1"), ASK_SECONDS)
            back.add(name, (asking.heard_at - begin) * 1e3)
            try:
                await end
                told.add(name, (dying.heard_at - begin) * 1e3)
            except (TimeoutError, asyncio.TimeoutError):
                told.notes[name] = f"never, within {TOLD_SECONDS:g} s"
            for websocket in (dying, asking):
                await websocket.close()

    async def kill_gateway(name: str) -> None:
        server = servers[name].server
        if isinstance(server, Living):
            gateway.add(name, await ours_after_a_kill(server))
        else:
            gateway.add(name, await peers_after_a_kill(name))
            gateway.notes[name] = "started again by the bench, in a new kernel: its variables were gone"

    for figure, turn in ((back, kill_kernel), (gateway, kill_gateway)):
        figure.notes.update(await by_turns(effort.deaths, servers, turn))
    gateway.notes[""] = f"{OURS}'s comes back by itself, and the session with its variables"
    return [told, back, gateway]


async def until_answered(ask: Callable[[], Awaitable], seconds: float) -> None:
    end = perf_counter() + BACK_SECONDS
    while perf_counter() < end:
        with suppress(OSError, AssertionError, TimeoutError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            if (await asyncio.wait_for(ask(), seconds)).count("execute_result"):
                return
        await asyncio.sleep(RETRY_SECONDS)
    raise TimeoutError(f"no answer within {BACK_SECONDS:g} s")


async def ours_after_a_kill(server: Living) -> float:
    async with server.kernel() as kernel:
        before = await server.open(kernel)
        await before.execute("x = 41")

        async def ask_again():
            websocket = await server.open(kernel, quick_acks=True)
            try:
                heard = await websocket.execute("assert x == 41; x + 1")
                assert not heard.error, heard.error
                return heard
            finally:
                await websocket.close()

        begin = perf_counter()
        await server.kill()
        await until_answered(ask_again, COME_SECONDS)
        took = perf_counter() - begin
        await before.close()
        await server.find_gateway()
        return took * 1e3


async def peers_after_a_kill(name: str) -> float:
    """One of its own, for its kernels die with it."""
    async with peer(name) as first:
        seat = await first.seat()
        begin = perf_counter()
        os.kill(first.server.pids[0], 9)
        async with peer(name) as second:
            after = await second.seat()
            took = perf_counter() - begin
            await after.close()
        await seat.leave()
        return took * 1e3


MEASURES: dict[str, Callable[[Field, Effort], Awaitable[list[Figure]]]] = {
    "start": start,
    "warm": warm,
    "concurrency": concurrency,
    "output": output,
    "interrupt": interrupt,
    "recovery": recovery,
    "sessions": sessions,
}
