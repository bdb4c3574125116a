"""What a server can hold: memory and CPU time of a session's start, of a session that waits, and of a cell, counted
over all its processes; and from that, sessions for each GiB, starts and cells for each core.

    python -m tests.bench.capacity [--count 50]

CPU time counts, and not the clock: it is the same on a machine that does much else. What code does comes on top, and is
the code's.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.support.server import Server, served, until

CELLS = 20  # of each session
IDLE_SECONDS = 10.0


def processes(server: Server) -> list[psutil.Process]:
    """The keeper and the gateway, the warden, and all that it has started."""
    roots = [psutil.Process(server.keeper_pid), psutil.Process(server.warden_pid())]
    return [one for root in roots for one in (root, *root.children(recursive=True))]


def own_bytes(found: Sequence[psutil.Process]) -> int:
    """What they hold together; a page that several share counts once."""
    return sum(_pss(one.pid) for one in found)


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def cpu_seconds(found: Sequence[psutil.Process]) -> float:
    """Of all, those that have ended and were waited for included."""
    return sum(sum(one.cpu_times()[:4]) for one in found if one.is_running())


async def cell(server: Server, session_id: str) -> None:
    reply = await server.fetch("POST", f"/v1/sessions/{session_id}/execute", {"code": "1+1"})
    assert reply.status == 200, reply.body


async def measure(count: int) -> dict[str, float]:
    limits = ("--sessions-per-principal", str(count + 1), "--cells-per-principal", str(count + 1))
    async with served("--profile", "production", *limits, "--memory-bytes-per-principal", "1T") as server:
        await cell_of_first(server)
        found = processes(server)
        alone, before = own_bytes(found), cpu_seconds(found)
        ids = [(await server.fetch("POST", "/v1/sessions", {})).json()["id"] for _ in range(count)]
        for session_id in ids:
            await cell(server, session_id)
        found = processes(server)
        started, held = cpu_seconds(found), own_bytes(found)
        for session_id in ids:
            for _ in range(CELLS):
                await cell(server, session_id)
        ran = cpu_seconds(found)
        await asyncio.sleep(IDLE_SECONDS)
        idle = cpu_seconds(found)
        stored = sum(path.stat().st_size for path in (server.state_dir / "gateway").rglob("*") if path.is_file())
        return {
            "with none, MiB": alone / 2**20,
            "each session, MiB": (held - alone) / count / 2**20,
            "start with a first cell, CPU ms": (started - before) / count * 1e3,
            "warm cell by REST, CPU ms": (ran - started) / count / CELLS * 1e3,
            "session that waits, CPU us a second": (idle - ran) / count / IDLE_SECONDS * 1e6,
            "each session on disk, KiB": stored / count / 2**10,
        }


async def cell_of_first(server: Server) -> None:
    """So that what is made once is made."""
    session_id = (await server.fetch("POST", "/v1/sessions", {})).json()["id"]
    await cell(server, session_id)
    await server.fetch("DELETE", f"/v1/sessions/{session_id}")
    await until(lambda: not any((server.state_dir / "gateway" / "sessions").iterdir()))


def model(measured: dict[str, float]) -> dict[str, float]:
    """What follows for a host."""
    return {
        "sessions that wait, for each GiB": 1024 / measured["each session, MiB"],
        "starts a second, for each core": 1e3 / measured["start with a first cell, CPU ms"],
        "warm cells by REST a second, for each core": 1e3 / measured["warm cell by REST, CPU ms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="sessions")
    measured = asyncio.run(measure(parser.parse_args().count))
    for name, value in {**measured, **model(measured)}.items():
        print(f"{name:45}{value:10.1f}")


if __name__ == "__main__":
    main()
