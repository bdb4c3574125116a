"""The line that is typed at: editing, history, completion by the kernel, and more lines until the code is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import Lexer

from cellgate.client import AsyncSession, CellgateError
from cellgate.terminal import one_line

__all__ = ["Prompt", "kernel_completions"]

ENTER_SECONDS = 2.0  # that the key waits to hear whether code is complete: the kernel may be busy with somebody else's
TAB_SECONDS = 10.0  # that typing goes on before it is no use any more; a kernel's first completion takes a second
MAX_COMPLETIONS = 500  # that a person looks through


class Prompt:
    def __init__(self, session: AsyncSession, history: History, lexer: Lexer | None) -> None:
        self._session = session
        self._is_asking = False  # whether what is typed is complete
        self._typing: PromptSession[str] = PromptSession(
            history=history,
            lexer=lexer,
            completer=_KernelCompleter(session),
            complete_while_typing=False,
            enable_history_search=True,
            multiline=True,
            key_bindings=self._keys(),
            prompt_continuation=lambda width, number, is_soft: " " * (width - 5) + "...: ",
        )

    async def code(self, count: int) -> str:
        """What is to be run. Raises EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C."""
        return await self._typing.prompt_async(f"In [{count}]: ", handle_sigint=False)

    async def answer(self, question: str, *, is_password: bool) -> str:
        """To `input()`. Raises EOFError, KeyboardInterrupt."""
        asking: PromptSession[str] = PromptSession()
        return await asking.prompt_async(one_line(question), is_password=is_password, handle_sigint=False)

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @Condition
        def is_at_end() -> bool:
            return not self._typing.default_buffer.document.text_after_cursor.strip()

        @keys.add("enter", filter=is_at_end)
        def run_or_go_on(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.complete_state:
                buffer.complete_state = None
            elif self._is_asking:  # keys that came together with the first one
                buffer.insert_text("\n")
            else:
                event.app.create_background_task(self._run_or_go_on(event.app, buffer))

        @keys.add("escape", "enter")
        def run(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        return keys

    async def _run_or_go_on(self, app: Application[str], buffer: Buffer) -> None:
        """By what the kernel says of the code. What is typed meanwhile waits."""
        text = buffer.text
        self._is_asking = True
        try:
            with app.input.detach():
                indent = await self._indent(text)
        finally:
            self._is_asking = False
        if buffer.text == text:
            if indent is None:
                buffer.validate_and_handle()
            else:
                buffer.insert_text("\n" + indent)

    async def _indent(self, text: str) -> str | None:
        """Of the next line; None for code that is complete, or that nobody can say more of."""
        if not text.strip() or text.startswith(":") or text.endswith("\n"):
            return None
        try:
            said = await asyncio.wait_for(self._session.is_complete(text), ENTER_SECONDS)
        except (CellgateError, asyncio.TimeoutError):
            return None
        return str(said.get("indent", "")) if said.get("status") == "incomplete" else None


class _KernelCompleter(Completer):
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> list[Completion]:
        return []  # only those who wait get any

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        if not document.current_line_before_cursor.strip():
            yield Completion("    ")
            return
        for completion in await kernel_completions(self._session, document.text, document.cursor_position):
            yield completion


async def kernel_completions(session: AsyncSession, text: str, cursor: int) -> list[Completion]:
    """What the kernel knows that could stand there; nothing when it does not say soon. Names are hostile code's."""
    try:
        said = await asyncio.wait_for(session.complete(text, cursor), TAB_SECONDS)
    except (CellgateError, asyncio.TimeoutError):
        return []
    start = said.get("start")
    if type(start) is not int or not 0 <= start <= cursor:
        return []
    matches = [match for match in said.get("matches", ()) if isinstance(match, str) and match.isprintable()]
    return [Completion(match, start_position=start - cursor) for match in matches[:MAX_COMPLETIONS]]
