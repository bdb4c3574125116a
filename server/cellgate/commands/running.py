"""Runs code in a session of a server, for somebody at a terminal or a script: output as it comes, `input()` from
standard input, and Ctrl-C for the code."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from cellgate.client.session import AsyncSession, CellOptions
from cellgate.commands.exits import ExitStatus, status_of_result
from cellgate.commands.output import Printer
from cellgate.commands.signals import Press, Signals
from cellgate.commands.typed import Answers
from cellgate.terminal import one_line
from cellgate.wire.result import Result

if TYPE_CHECKING:
    from cellgate.client.runs import Run

__all__ = ["run_in", "show_run", "tell_end"]


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
            on_message=printer.show if shows else None,
            on_input=answers.answer if answers else None,
            **options,
        )


def show_run(run: Run, printer: Printer, *, has_value: bool) -> None:
    """What came of code that was run once, when all is over; `has_value`: what it returned, too."""
    for name in ("stdout", "stderr"):
        printer.show({"event": name, "text": getattr(run.result, name)})
    if run.result.error:
        printer.show({"event": "error", **run.result.error})
    elif has_value:
        printer.show({"event": "stdout", "text": json.dumps(run.value) + "\n"})
    elif run.result.result:
        printer.show({"event": "result", "data": run.result.result})


def tell_end(result: Result) -> ExitStatus:
    """Say how a cell ended that did not end by itself; the exit status."""
    status = status_of_result(result)
    if status not in (ExitStatus.OK, ExitStatus.RAISED):
        print(f"cellgate: {one_line(f'{result.reason}: {result.sentence}')}", file=sys.stderr)
    return status
