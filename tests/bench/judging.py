"""How long verdicts take by way of a worker, and how long they hold up the event loop that asks for them.

    python tests/bench/judging.py [CELLS]

No verdict is remembered: each cell is another one. `held up` is the longest that a turn of the loop came late while
cells of 100 kB were judged, two at a time; `without` is the same while nothing was, which is the machine's own noise.
`on CPU` is the longest that the loop's own thread computed in a turn: no noise, and no system call that waits.
"""

from __future__ import annotations

import asyncio
import sys
import time

from cellgate.live.judging import Judges, preload
from cellgate.policy.policies import STANDARD

CELLS = 300
LARGE_CELLS = 10
LARGE_BYTES = 100_000
TICK_SECONDS = 0.001
PARTS = {
    "python": "for i in range(10):\n    total = compute(i, 'a/b')\n    if total > limit: print(f'{total:.2f}')\n",
    "bash": 'for f in a b; do\n  echo "$f" | grep -v x > /dev/null\ndone\n[ -f x ] && ls -la "$HOME"\n',
    "javascript": "for (const i of range(10)) {\n  const t = compute(i, 'a/b');\n  if (t > limit) log(`${t}`);\n}\n",
    "r": "for (i in 1:10) {\n  total <- compute(i, 'a/b')\n  if (total > limit) print(total)\n}\n",
    "cpp": 'for (int i = 0; i < 10; i++) {\n  auto t = compute(i, "a/b");\n  if (t > limit) cout << t;\n}\n',
    "java": 'for (int i = 0; i < 10; i++) {\n  var t = compute(i, "a/b");\n  if (t > limit) print(t);\n}\n',
}


def cell(language: str, part: str, size: int, number: int) -> str:
    """One that was never seen before."""
    comment = "#" if language in ("python", "bash", "r") else "//"
    return f"{comment} {number}\n" + part * (size // len(part))


def quantile(samples: list[float], q: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * q))]


class Ticks:
    """Watches the turns of the loop while it lasts."""

    def __enter__(self) -> Ticks:
        self.late = self.computed = 0.0
        self._before, self._cpu = time.monotonic(), time.thread_time()
        self._handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()

    def _tick(self) -> None:
        now, cpu = time.monotonic(), time.thread_time()
        self.late = max(self.late, now - self._before - TICK_SECONDS)
        self.computed = max(self.computed, cpu - self._cpu)
        self._before, self._cpu = now, cpu
        self._handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)


async def measure(judges: Judges, cells: int) -> None:
    print(f"{'':12} {'50 lines, ms':>20} {'100 kB, ms':>12}   loop at 100 kB, ms")
    print(f"{'language':12} {'p50':>9} {'p99':>10} {'p50':>12} {'held up':>10} {'without':>9} {'on CPU':>8}")
    for language, part in PARTS.items():
        small = [cell(language, part, len(part) * 50 // part.count("\n"), number) for number in range(cells)]
        samples = []
        for code in small:
            began = time.perf_counter()
            await judges.judge(code, language, STANDARD)
            samples.append((time.perf_counter() - began) * 1e3)
        took = []

        async def one(number: int, language: str = language, part: str = part, took: list[float] = took) -> None:
            code = cell(language, part, LARGE_BYTES, number)
            began = time.perf_counter()
            await judges.judge(code, language, STANDARD)
            took.append((time.perf_counter() - began) * 1e3)

        with Ticks() as idle:
            await asyncio.sleep(0.5)
        with Ticks() as busy:
            for number in range(0, LARGE_CELLS, 2):
                await asyncio.gather(one(number), one(number + 1))
        print(
            f"{language:12} {quantile(samples, 0.5):9.2f} {quantile(samples, 0.99):10.2f} {quantile(took, 0.5):12.0f}"
            f" {busy.late * 1e3:10.2f} {idle.late * 1e3:9.2f} {busy.computed * 1e3:8.2f}"
        )


async def main(cells: int) -> None:
    judges = Judges(verdict_seconds=30)
    judges.start()
    try:
        await measure(judges, cells)
    finally:
        await judges.close()


if __name__ == "__main__":
    preload()
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else CELLS))
