"""Runs code in a session of a server, for somebody at a terminal or a script: output as it comes, `input()` from
standard input, and Ctrl-C for the code."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

from cellgate.client import AsyncSession, Result
from cellgate.client.session import CellOptions
from cellgate.commands.exits import ExitStatus, status_of_result
from cellgate.commands.output import Printer
from cellgate.commands.signals import Press, Signals
from cellgate.commands.typed import LineReader
from cellgate.terminal import one_line

__all__ = ["Answers", "run_in", "tell_end"]

Work = Callable[[Printer, Signals], Awaitable[Result]]


class Answers:
    """Asks the question on standard output, as Python does, and reads the answer from standard input."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._lines = LineReader(0)

    async def answer(self, prompt: str, is_password: bool) -> str:
        with self._lines.hidden() if is_password else nullcontext():
            self._printer.write("stdout", prompt)
            return await self._lines.read_line()


async def run_in(
    session: AsyncSession,
    code: str,
    *,
    printer: Printer,
    signals: Signals,
    shows: bool = True,
    timeout: float | None = None,
    answers: Answers | None = None,
    give_up: Press | None = None,
) -> Result:
    """The first Ctrl-C interrupts the code, the second does `give_up`. `shows`: print what it prints. Raises the SDK's
    errors."""
    presses = [session.interrupt, *([give_up] if give_up else [])]
    options: CellOptions = {} if timeout is None else {"timeout": timeout}
    await session.open()
    with signals.given_to(*presses):
        return await session.run(
            code,
            on_event=(lambda event: printer.show_event(event.raw)) if shows else None,
            on_input=answers.answer if answers else None,
            **options,
        )


def tell_end(result: Result) -> ExitStatus:
    """Say how a cell ended that did not end by itself; the exit status."""
    status = status_of_result(result)
    if status not in (ExitStatus.OK, ExitStatus.RAISED):
        print(f"cellgate: {one_line(f'{result.reason}: {result.sentence}')}", file=sys.stderr)
    return status
