"""Cells that take time or the processor, and never give them back."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from cellgate.errors import LimitError
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.limits import LIMIT_ROWS, Limits
from tests.hostile.arena import Session

WALL = 0.5
LATE_SECONDS = 1.0  # after the limit, at most, a cell that heeds its interrupt is over
GRACE_SECONDS = 2.0  # and one that does not is killed after these, which the client gives


async def test_an_endless_loop_is_interrupted_and_the_session_lives(session: Session):
    begin = time.monotonic()
    result = await session.run("kept = 1\nwhile True: pass", wall=WALL)
    assert session.timed_out(result)
    assert time.monotonic() - begin < WALL + LATE_SECONDS
    assert await session.value("kept") == "1"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(  # in functions: what strikes at a loop's backward jump is not within the try (CPython 3.11)
            "def spin():\n  while True: pass\ndef f():\n  try: spin()\n  except KeyboardInterrupt: f()\nf()",
            id="caught",
        ),
        pytest.param("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", id="ignored"),
        pytest.param(
            "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nwhile True: pass", id="blocked"
        ),
    ],
)
async def test_a_loop_that_does_not_heed_its_interrupt_is_killed(session: Session, code: str):
    begin = time.monotonic()
    result = await session.run(code, wall=WALL)
    assert not session.timed_out(result)
    assert time.monotonic() - begin < WALL + GRACE_SECONDS + LATE_SECONDS


@pytest.mark.parametrize("code", ["10**10**8", "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')", "sum(range(10**12))"])
async def test_c_code_that_keeps_the_interpreter_is_interrupted_or_killed(session: Session, code: str):
    begin = time.monotonic()
    session.timed_out(await session.run(code, wall=WALL))
    assert time.monotonic() - begin < WALL + GRACE_SECONDS + LATE_SECONDS


SPINNERS = {
    "processes": "import subprocess\nspin = [subprocess.Popen(['sh', '-c', 'while :; do :; done']) for _ in range(40)]",
    # no more: each has its turn of 5 ms with the interpreter before the next cell has one
    "threads": (
        "import threading\ndef spin():\n  while True: pass\n"
        "for _ in range(6): threading.Thread(target=spin, daemon=True).start()"
    ),
}


@pytest.mark.parametrize("what", SPINNERS)
async def test_many_that_spin_share_one_core_and_leave_the_neighbour_its_own(session: Session, what: str):
    assert (await session.run(SPINNERS[what], wall=30)).status == "ok"
    before, begin = (await session.sandbox.usage()).cpu_seconds, time.monotonic()
    await asyncio.sleep(2)
    used = (await session.sandbox.usage()).cpu_seconds - before
    cores = used / (time.monotonic() - begin)
    assert cores < session.sandbox.limits.cpu_cores * 1.25, f"it used {cores:.2f} cores"


async def test_a_thread_that_spins_after_its_cell_is_seen_in_the_usage(session: Session):
    code = "import threading\ndef spin():\n  while True: pass\nthreading.Thread(target=spin, daemon=True).start()"
    assert (await session.run(code)).status == "ok"
    before = (await session.sandbox.usage()).cpu_seconds

    async def spins() -> None:
        while (await session.sandbox.usage()).cpu_seconds - before <= 0.05:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(spins(), 30)  # on a machine with much else to do it gets little in half a second


async def test_sleeping_takes_wall_time_and_no_cpu_time(session: Session):
    before = (await session.sandbox.usage()).cpu_seconds
    assert session.timed_out(await session.run("import time; time.sleep(1e9)", wall=WALL))
    assert (await session.sandbox.usage()).cpu_seconds - before < 0.2


@pytest.mark.parametrize(
    "code",
    [
        "eval('[' * 10**5 + ']' * 10**5)",
        "exec('-' * 10**6 + '1')",
        "exec('x = ' + '1+' * (25 << 20) + '1')",
        "compile('(' * 10**5, 'x', 'eval')",
    ],
)
async def test_a_bomb_for_the_compiler_is_an_error_or_an_end_with_a_reason(session: Session, code: str):
    result = await session.run(code, wall=5)
    if result.certificate is not None:
        session.died(result, Reason.OOM, Reason.KERNEL_SIGNAL, Reason.TIMEOUT_WALL)
    else:
        assert result.status == "error"


@pytest.mark.parametrize("row", LIMIT_ROWS, ids=lambda row: row.name)
async def test_no_value_of_a_limit_means_no_limit(row):
    for value in (0, -1, math.nan, math.inf, 1e308, "10", None, True, 2**63, [], row.maximum * 2):
        with pytest.raises(LimitError):
            Limits.from_mapping({row.name: value})
