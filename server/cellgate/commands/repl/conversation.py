"""What goes to and fro between somebody at a terminal and a session: code and answers one way, events the other. Shows
what others do in the same session, too."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.application import get_app_or_none, run_in_terminal
from prompt_toolkit.history import FileHistory
from prompt_toolkit.lexers import Lexer

from cellgate.client import AsyncCell, AsyncSession, CellgateError, SessionOver
from cellgate.client.events import Display, Event, Finished, InputRequested, ResultShown, Started, UpdateDisplay
from cellgate.commands.exits import ExitStatus
from cellgate.commands.output import Printer, printing, render_event
from cellgate.commands.repl import history_file
from cellgate.commands.repl.pictures import Pictures
from cellgate.commands.repl.prompt import Prompt
from cellgate.commands.signals import Signals
from cellgate.terminal import one_line

__all__ = ["COMMANDS", "Conversation"]

INTERRUPTS = 3  # by Ctrl-C, before the kernel is restarted: code that does not heed the first may heed the second

COMMANDS = {  # what is typed, and is no code
    ":detach": "leave; the session lives on",
    ":end": "leave, and end the session",
    ":restart": "lose all variables, keep the session",
    ":help": "show this",
}


class Conversation:
    def __init__(self, session: AsyncSession, *, keeps: bool, images: Path | None) -> None:
        self._keeps = keeps  # whether the session lives on when it is left
        self._session = session
        self._pictures = Pictures(images)
        self._ours: set[str] = set()  # cells that were sent from here
        self._count = 1
        self._is_left = False
        self._is_over = False  # the session ended, by whatever
        self._presses = [*[session.interrupt] * INTERRUPTS, session.restart]

    @property
    def lives_on(self) -> bool:
        """Whether the session does, after this."""
        return self._keeps and not self._is_over

    async def run(self) -> ExitStatus:
        """Until it is left, or the session is over. Raises the SDK's errors."""
        with printing() as printer:
            self._printer: Printer = printer
            async with Signals(printer.broken) as signals:
                self._signals = signals
                watching = asyncio.create_task(self._watch())
                try:
                    await self._session.open()
                    self._prompt = Prompt(self._session, FileHistory(str(history_file())), await self._lexer())
                    self._say(f"session {self._session.id[:8]}; Tab completes, Ctrl-D leaves, :help tells more")
                    await self._wait_for_running()
                    while not self._is_left and not self._is_over:
                        await self._turn()
                except SessionOver:
                    self._is_over = True
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
                if self._is_over:
                    self._say("the session is over")
                    return ExitStatus.ENDED
        return ExitStatus.OK

    # -- one turn ----------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        try:
            code = await self._prompt.code(self._count)
        except KeyboardInterrupt:  # throws away what was typed
            return
        except EOFError:
            self._is_left = True
            return
        if code.strip() in COMMANDS:
            await self._command(code.strip())
        elif code.strip():
            await self._run(code)

    async def _command(self, word: str) -> None:
        if word == ":restart":
            await self._session.restart()
            self._say("all variables are lost")
        elif word == ":help":
            for name, what in COMMANDS.items():
                self._say(f"{name:10} {what}")
        else:
            self._is_left = True
            self._keeps = word == ":detach"

    async def _run(self, code: str) -> None:
        name = os.urandom(12).hex()
        self._ours.add(name)  # before it is sent, so that nobody takes its events for another's
        with self._signals.given_to(*self._presses):
            cell = await self._session.submit(code, stdin=True, id=name)
            async for event in cell:
                await self._show_ours(cell, event)
        self._printer.flush()

    async def _show_ours(self, cell: AsyncCell, event: Event) -> None:
        if isinstance(event, InputRequested):
            try:
                await cell.answer(await self._prompt.answer(event.prompt, is_password=event.password))
            except KeyboardInterrupt:
                await self._session.interrupt()
            except EOFError:
                await cell.answer("\x04")
            return
        if isinstance(event, Started):
            self._count = (event.count or self._count) + 1
        if isinstance(event, Finished):
            self._printer.write("stderr", render_event(event.raw))
        self._show(event)

    # -- what is shown -----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """What others do, also while somebody types; until the session is over, which ends the typing."""
        with suppress(CellgateError):
            async for event in self._session.events():
                if event.cell not in self._ours:
                    await self._above_the_prompt(event)
            self._is_over = True
            app = get_app_or_none()
            if app is not None and app.is_running:
                app.exit(exception=EOFError())

    async def _above_the_prompt(self, event: Event) -> None:
        def show() -> None:
            self._printer.write("stdout", render_event(event.raw))
            self._show(event)
            self._printer.flush()

        app = get_app_or_none()
        if app is not None and app.is_running:
            await run_in_terminal(show)
        else:
            show()

    def _show(self, event: Event) -> None:
        if isinstance(event, (Display, ResultShown, UpdateDisplay)):
            path = self._pictures.keep(f"{self._session.id[:8]}-{event.seq}", event.data)
            if path is not None:
                self._printer.write("stdout", f"[picture: {one_line(str(path))}]\n")
                if "text/plain" not in event.data:
                    return
        self._printer.show(event.raw)

    def _say(self, text: str) -> None:
        self._printer.write("stderr", f"[{one_line(text)}]\n")
        self._printer.flush()

    # -- how it begins -----------------------------------------------------------------------------------

    async def _wait_for_running(self) -> None:
        """A cell that was left running is seen to its end before anything else is typed."""
        if self._session.running is not None:
            self._say("a cell is running; Ctrl-C interrupts it")
            with self._signals.given_to(*self._presses):
                await self._session.idle()

    async def _lexer(self) -> Lexer | None:
        info = await self._session.info()
        if info.get("language") != "python":
            return None
        from prompt_toolkit.lexers import PygmentsLexer
        from pygments.lexers.python import PythonLexer

        return PygmentsLexer(PythonLexer)
