"""`cellgate repl` as somebody at a terminal meets it."""

from __future__ import annotations

import asyncio
import getpass
import io
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path

import pexpect
import pytest
import pytest_asyncio

from cellgate.client import AsyncClient
from cellgate.commands import repl
from cellgate.commands.repl.pictures import Pictures
from cellgate.commands.repl.prompt import kernel_completions
from tests.support.server import BOUND, Server, served

one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with served() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Server):
    async with AsyncClient(server.url, server.token) as client:
        yield client


class Terminal:
    """Each method waits in a thread, with a bound."""

    def __init__(self, server: Server, home: Path, *words: str) -> None:
        environ = {
            **server._env,
            "CELLGATE_STATE_DIR": str(server.state_dir),
            "XDG_STATE_HOME": str(home),
            "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody answers where its cursor is
            "TERM": "xterm",
        }
        words = ("-m", "cellgate", "repl", "--images", str(home / "images"), *words)
        self._child = pexpect.spawn(
            sys.executable, list(words), env=environ, timeout=BOUND, encoding="utf-8", dimensions=(40, 100)
        )

    async def sees(self, pattern: str) -> str:
        await asyncio.to_thread(self._child.expect, pattern)
        return self._child.match[0]

    async def types(self, text: str) -> None:
        await asyncio.to_thread(self._child.send, text)

    async def runs(self, code: str) -> None:
        """At the next prompt."""
        await self.sees(r"In \[\d+\]:")
        await self.types(code + "\r")

    async def ends(self) -> int:
        """Its exit status."""
        await asyncio.to_thread(self._child.expect, pexpect.EOF)
        await asyncio.to_thread(self._child.close)
        return self._child.exitstatus

    def end(self) -> None:
        """In any case."""
        self._child.close(force=True)


@pytest.fixture
def begin(server: Server, tmp_path: Path):
    """Begins terminals, with the words of the command."""
    with ExitStack() as stack:

        def begin(*words: str) -> Terminal:
            terminal = Terminal(server, tmp_path, *words)
            stack.callback(terminal.end)
            return terminal

        yield begin


@pytest.mark.native
@one_loop
async def test_a_conversation(begin, client: AsyncClient, tmp_path: Path):
    terminal = begin()
    await terminal.runs("x = 41")
    await terminal.runs("x + 1")
    await terminal.sees(r"\n?42\r\n")
    await terminal.runs("def f():")  # is not complete, and the kernel says how far to indent
    await terminal.sees(r"\.\.\.:")
    await terminal.types("return x * 100\r")
    await terminal.sees(r"\.\.\.:[^\n]*\.\.\.:|\.\.\.:")
    await terminal.types("\r")
    await terminal.runs("f()")
    await terminal.sees("4100")
    await terminal.sees(r"In \[\d+\]:")
    await terminal.types("imp\t")
    await terminal.sees("ort")
    await terminal.types("\x03")  # throws the line away
    await terminal.runs("input('who? ')")
    await terminal.sees(r"who\? ")
    await terminal.types("Ada\r")
    await terminal.sees("'Ada'")
    await terminal.runs("print('it', 'runs', flush=True); import time; time.sleep(999)")
    await terminal.sees("it runs\r\n")
    await terminal.types("\x03")
    await terminal.sees("KeyboardInterrupt")
    await terminal.runs("import base64; display({'image/png': base64.b64encode(b'PNG').decode()}, raw=True)")
    path = re.search(r"/\S+\.png", await terminal.sees(r"picture: \S+\.png"))
    assert path and Path(path[0]).read_bytes() == b"PNG"
    await terminal.sees(r"In \[\d+\]:")
    await terminal.types("\x04")
    assert await terminal.ends() == 0
    assert await client.sessions() == []  # it was begun here, and ends here
    assert "x = 41" in (tmp_path / "cellgate/repl-history").read_text()


@pytest.mark.native
@one_loop
async def test_a_session_that_is_left_runs_on_and_is_found_as_it_was(begin, client: AsyncClient):
    terminal = begin("--name", "long")
    await terminal.runs("y = 7")
    await terminal.runs(":detach")
    assert await terminal.ends() == 0
    (session,) = await client.sessions()
    async with await client.attach(session["id"], client="bob") as other:
        await other.submit("import time\nfor i in range(30): print('tick', i, flush=True); time.sleep(0.1)")
        again = begin("--attach", "long")
        await again.sees("a cell is running")
        await again.sees("tick 29")
        await again.runs("y * 6")
        await again.sees("42")
        await again.sees(r"In \[\d+\]:")
        await other.run("print('hello from', 'bob')")
        await again.sees("bob> print")  # above the line that is typed at
        await again.sees("hello from bob")
    await again.types(":end\r")
    assert await again.ends() == 0
    assert await client.sessions() == []


@pytest.mark.native
@one_loop
async def test_the_end_of_the_session_is_told(begin, client: AsyncClient):
    terminal = begin("--name", "short")
    await terminal.sees(r"In \[\d+\]:")
    (session,) = await client.sessions()
    await client.delete(session["id"])
    await terminal.sees("the session is over")  # without another key
    assert await terminal.ends() == 3


def test_a_user_whose_number_has_no_name_is_that_number(monkeypatch):
    """In a container that is run as any uid, the command ended with a traceback."""

    def nobody():
        raise KeyError("uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert repl._user() == f"uid{os.getuid()}"


def test_what_is_no_terminal_is_told_what_would_pass(capsys, monkeypatch):
    from cellgate.cli import main

    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["repl"]) == 2
    assert "`cellgate exec` would pass" in capsys.readouterr().err


# -- decisions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"image/png": "UE5H", "text/plain": "<Figure>"}, ("a-1.png", b"PNG")),
        ({"image/svg+xml": "<svg/>"}, ("a-1.svg", b"<svg/>")),
        ({"image/jpeg": "UE5H", "text/html": "x"}, ("a-1.jpg", b"PNG")),
        ({"image/png": "not base64!"}, None),
        ({"image/png": ["UE5H"]}, None),
        ({"text/plain": "no picture"}, None),
    ],
)
def test_a_picture_becomes_a_file(tmp_path, data, kept):
    path = Pictures(tmp_path / "new").keep("a-1", data)
    assert (path and (path.name, path.read_bytes())) == kept


class FakeSession:
    def __init__(self, said) -> None:
        self._said = said

    async def complete(self, text, cursor):
        return self._said


@pytest.mark.parametrize(
    ("said", "completions"),
    [
        ({"matches": ["import", "imp\x1b[2J", 5], "start": 0, "end": 3}, [("import", -3)]),
        ({"matches": ["x"], "start": -4}, []),
        ({"matches": ["x"], "start": "0"}, []),
        ({"matches": ["x"] * 9999, "start": 3}, [("x", 0)] * 500),
        ({}, []),
    ],
)
async def test_completions_are_text_that_fits_where_it_stands(said, completions):
    found = await kernel_completions(FakeSession(said), "imp", 3)
    assert [(one.text, one.start_position) for one in found] == completions
