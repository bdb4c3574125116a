"""The commands that talk to a server, over a real one: as processes, as people and scripts start them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import pytest
import pytest_asyncio

from cellgate.client import AsyncClient
from cellgate.client.events import Started
from cellgate.commands.batch import read_lines
from cellgate.commands.output import render_event
from cellgate.commands.remote import choose_session
from cellgate.commands.sessions import render_sessions, since
from cellgate.commands.sources import MAX_CODE_BYTES
from cellgate.errors import UsageError
from tests.support.server import BOUND, Server, served, until

pytestmark = pytest.mark.native
one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with served() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Server):
    async with AsyncClient(server.url, server.token) as client:
        yield client


class Done:
    def __init__(self, status: int | None, out: bytes, err: bytes) -> None:
        self.status, self.out, self.err = status, out.decode(), err.decode()

    def json(self):
        return json.loads(self.out)


async def cellgate(server: Server, *words: str, stdin: bytes = b"", cwd=None) -> Done:
    """One call, told of this server by its state directory, as on the same host."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cellgate", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**server._env, "CELLGATE_STATE_DIR": str(server.state_dir)},
        cwd=cwd,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), BOUND)
    return Done(process.returncode, out, err)


# -- run and exec --------------------------------------------------------------------------------------


@one_loop
async def test_run_uses_the_server_of_this_host_and_leaves_nothing_there(server: Server, client: AsyncClient):
    done = await cellgate(server, "run", "-c", "print(input('name? '))\n6*7", stdin=b"Ada\n")
    assert (done.out, done.err, done.status) == ("name? Ada\n42\n", "", 0)
    assert await client.sessions() == []


@one_loop
@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("1/0", 1, "ZeroDivisionError"),
        ("import os; os._exit(9)", 3, "kernel_exit"),
        ("import sys; sys.exit(0)", 0, ""),
    ],
)
async def test_the_exit_status_of_a_run_on_a_server_is_that_of_one_without(server, code, status, said):
    done = await cellgate(server, "run", "-c", code)
    assert done.status == status and said in done.err


@one_loop
async def test_a_timeout_on_a_server_stops_the_code(server: Server):
    done = await cellgate(server, "run", "-c", "while True: pass", "--timeout", "0.5")
    assert done.status == 3 and "timeout_wall" in done.err


def test_inputs_beyond_what_is_read_are_refused_and_not_cut(tmp_path):
    """The rest was left out without a word, and the line at the cut could be another number."""
    (tmp_path / "inputs").write_bytes(b"12345678\n" * (MAX_CODE_BYTES // 9 + 1))
    with pytest.raises(UsageError, match="longer than 8 MiB"):
        read_lines(str(tmp_path / "inputs"))
    (tmp_path / "inputs").write_text('1\r\n\n[2]\n"a\u2028b"', encoding="utf-8")
    assert read_lines(str(tmp_path / "inputs")) == [1, [2], "a\u2028b"]


@one_loop
async def test_a_second_ctrl_c_ends_the_session_and_the_exit_status_says_so(server: Server, client: AsyncClient):
    """The command let go of the session to delete it, and told of a connection that was lost: a fault of ours."""
    code = "import signal\nsignal.signal(signal.SIGINT, lambda *_: print('not yet', flush=True))\n"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cellgate", "run", "-c", code + "print('running', flush=True)\nwhile True: pass"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**server._env, "CELLGATE_STATE_DIR": str(server.state_dir)},
    )
    assert process.stdout is not None
    for line in (b"running\n", b"not yet\n"):
        assert await asyncio.wait_for(process.stdout.readline(), BOUND) == line
        process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), BOUND)
    assert process.returncode == 3 and b"cellgate: session_deleted: " in err
    assert await client.sessions() == []


@one_loop
async def test_run_brings_files_along_and_calculates(server: Server, tmp_path):
    (tmp_path / "data.txt").write_text("7")
    read = await cellgate(
        server, "run", "-c", "print(open('n.txt').read())", "--file", f"{tmp_path / 'data.txt'}=n.txt"
    )
    assert (read.out, read.status) == ("7\n", 0)
    code = "def calculate(inputs): return {'twice': inputs['n'] * 2}"
    calculated = await cellgate(server, "run", "-c", code, "--input", '{"n": 21}')
    assert (json.loads(calculated.out), calculated.status) == ({"twice": 42}, 0), calculated.err


@one_loop
async def test_exec_runs_in_a_session_and_leaves_what_it_made(server: Server, client: AsyncClient):
    async with client.session(name="mine") as session:
        first = await cellgate(server, "exec", "mine", "-c", "x = 20")
        second = await cellgate(server, "exec", session.id[:10], "-c", "x + 1", "--json")
        third = await cellgate(server, "run", "--session", session.id, "-c", "print(x)")
        assert (first.status, third.out) == (0, "20\n"), first.err + third.err
        assert second.json()["result"] == {"text/plain": "21"} and second.json()["exit_status"] == 0


@one_loop
async def test_what_cannot_be_is_a_usage_error(server: Server):
    nobody = await cellgate(server, "exec", "nobody", "-c", "1")
    assert nobody.status == 2 and "there is no session 'nobody'" in nobody.err
    both = await cellgate(server, "run", "-c", "1", "--driver", "process", "--session", "x")
    assert both.status == 2 and "--driver" in both.err
    stranger = await cellgate(server, "sessions", "--server", f"{server.url}/?token=wrong-token-of-someone")
    assert stranger.status == 2 and "error[wrong_token]" in stranger.err
    away = await cellgate(server, "sessions", "--server", "http://127.0.0.1:9", "--json")
    assert away.status == 4 and away.json()["error"]["code"] == "connection_lost"


# -- sessions ------------------------------------------------------------------------------------------


@one_loop
async def test_sessions_are_listed_shown_interrupted_restarted_and_ended(server: Server, client: AsyncClient):
    session = await client.create(name="work")
    listed = await cellgate(server, "sessions")
    assert session.id[:8] in listed.out and "work" in listed.out
    assert [one["id"] for one in (await cellgate(server, "sessions", "ls", "--json")).json()["sessions"]] == [
        session.id
    ]
    assert session.id in (await cellgate(server, "sessions", "show", "work")).out
    running = await session.submit("import time\nwhile True: time.sleep(0.01)")
    async for event in running:
        if isinstance(event, Started):
            break
    assert (await cellgate(server, "sessions", "interrupt", "work")).status == 0
    assert (await running.result()).reason == "interrupted"
    assert (await cellgate(server, "sessions", "restart", "work")).status == 0
    await until(lambda: session.incarnation == 2)
    assert (await cellgate(server, "sessions", "rm", "work")).status == 0
    assert await client.sessions() == []


@one_loop
async def test_logs_tell_what_was_said_and_by_whom_and_follow_what_comes(server: Server, client: AsyncClient):
    async with client.session(name="talk", client="ada") as session:
        await session.run("print('one')\n2")
        past = await cellgate(server, "sessions", "logs", "talk")
        assert "ada> print('one')\nada> 2\none\n2\n" in past.out
        lines = [
            json.loads(line) for line in (await cellgate(server, "sessions", "logs", "talk", "--json")).out.splitlines()
        ]
        assert [line["event"] for line in lines][-1] == "finished" and lines[0]["seq"] < lines[-1]["seq"]
        behind = await cellgate(server, "sessions", "logs", "talk", "--since", str(lines[-1]["seq"]))
        assert behind.out == ""
        following = asyncio.create_task(cellgate(server, "sessions", "logs", "talk", "-f"))
        watched = client.sessions
        while (await watched())[0]["clients"] < 2:
            assert not following.done(), await following
    assert "one\n" in (await following).out  # it ends when the session does


# -- files ---------------------------------------------------------------------------------------------


@one_loop
async def test_files_are_copied_into_a_session_and_out(server: Server, client: AsyncClient, tmp_path):
    (tmp_path / "here.bin").write_bytes(bytes(range(256)) * 4096)
    async with client.session(name="disk") as session:
        assert (await cellgate(server, "cp", "here.bin", "disk:", cwd=tmp_path)).status == 0
        assert (await cellgate(server, "cp", "here.bin", "disk:deep/er/", cwd=tmp_path)).status == 0
        there = await session.run("import os; sorted(os.listdir()), os.path.getsize('deep/er/here.bin')")
        assert there.result is not None and "1048576" in there.result["text/plain"], there
        (tmp_path / "back").mkdir()
        assert (await cellgate(server, "cp", "disk:deep/er/here.bin", "back", cwd=tmp_path)).status == 0
        assert (tmp_path / "back/here.bin").read_bytes() == (tmp_path / "here.bin").read_bytes()
        packed = await cellgate(server, "cp", "-r", "disk:deep", "deep.tar", "--json", cwd=tmp_path)
        assert packed.json()["bytes"] == (tmp_path / "deep.tar").stat().st_size
        assert (await cellgate(server, "cp", "-r", "deep.tar", "disk:copy", cwd=tmp_path)).status == 0
        missing = await cellgate(server, "cp", "disk:nothing", "x", cwd=tmp_path)
        assert missing.status == 2 and "no_such_file" in missing.err and list(tmp_path.glob(".x*")) == []
        absent = await cellgate(server, "cp", "absent", "disk:", cwd=tmp_path)
        assert absent.status == 2 and "absent" in absent.err


# -- scripts -------------------------------------------------------------------------------------------


@one_loop
async def test_scripts_are_kept_shown_compared_run_and_removed(server: Server, tmp_path):
    script = tmp_path / "double.py"
    script.write_text('"""Doubles."""\ndef calculate(inputs):\n    return inputs * 2\n')
    assert (await cellgate(server, "scripts", "save", "double", str(script))).out == "double, version 1\n"
    script.write_text('"""Triples."""\ndef calculate(inputs):\n    return inputs * 3\n')
    assert (await cellgate(server, "scripts", "save", "double", str(script), "--json")).json()["version"] == 2
    assert "Triples." in (await cellgate(server, "scripts")).out
    assert "inputs * 2" in (await cellgate(server, "scripts", "show", "double", "--version", "1")).out
    assert "+    return inputs * 3" in (await cellgate(server, "scripts", "diff", "double")).out
    assert (await cellgate(server, "scripts", "run", "double", "--input", "14")).out == "42\n"
    assert (await cellgate(server, "scripts", "rm", "double")).status == 0
    assert (await cellgate(server, "scripts", "ls")).out.startswith("there are none")
    missing = await cellgate(server, "scripts", "show", "double")
    assert missing.status == 2 and "unknown_script" in missing.err


@one_loop
async def test_a_batch_calculates_each_line_and_keeps_their_order(server: Server, client: AsyncClient, tmp_path):
    (tmp_path / "f.py").write_text("def calculate(inputs):\n    return 12 // inputs['n']\n")
    inputs = "".join(json.dumps({"n": n}) + "\n" for n in (1, 2, 0, 3)).encode()
    done = await cellgate(server, "batch", "f.py", "-", stdin=inputs, cwd=tmp_path)
    items = [json.loads(line) for line in done.out.splitlines()]
    assert items[:2] + items[3:] == [{"value": 12}, {"value": 6}, {"value": 4}]
    assert items[2]["error"]["name"] == "ZeroDivisionError" and done.status == 1
    stopped = await cellgate(server, "batch", "f.py", "-", "--stop", "--json", stdin=inputs, cwd=tmp_path)
    assert (stopped.json()["done"], stopped.json()["failed"]) == (3, 1)
    nothing = await cellgate(server, "batch", "f.py", "-", stdin=b"no json", cwd=tmp_path)
    assert nothing.status == 2 and "would pass" in nothing.err
    assert await client.sessions() == []


# -- decisions -----------------------------------------------------------------------------------------

SESSIONS = [
    {"id": "aaaa1111-x", "name": "one", "kernel": "python3", "state": "ready", "clients": 0,
     "last_activity": "2026-01-01T00:00:00.000000Z"},
    {"id": "aaaa1111-y", "name": "two\x1b[2J", "kernel": "bash", "state": "busy", "clients": 2,
     "last_activity": "2026-01-01T01:00:00.000000Z"},
]  # fmt: skip


def test_a_session_is_known_by_its_id_its_name_or_how_its_id_begins():
    assert choose_session(SESSIONS, "aaaa1111-x") is SESSIONS[0]
    assert choose_session(SESSIONS, "one") is SESSIONS[0]
    assert choose_session(SESSIONS, "aaaa1111-y") is SESSIONS[1]
    with pytest.raises(UsageError, match="2 sessions are 'aaaa'; one of the ids would pass"):
        choose_session(SESSIONS, "aaaa")
    for nothing in ("", "three"):
        with pytest.raises(UsageError, match="there is no session"):
            choose_session(SESSIONS, nothing)


def test_the_table_of_sessions_fits_the_terminal_and_cannot_steer_it():
    text = render_sessions(SESSIONS, 1767232860.0, 60)  # two hours and a minute after the first
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60 and "\x1b" not in text
    assert "aaaa1111-y" in lines[1] and "1 h ago" in lines[1] and "2 h ago" in lines[2]
    assert render_sessions([], 0, 80) == "there are none; `cellgate repl` begins one\n"


@pytest.mark.parametrize(
    ("seconds", "said"), [(-5, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7200, "2 h ago"), (1e6, "11 d ago")]
)
def test_how_long_ago_is_said_in_one_unit(seconds, said):
    assert since(seconds) == said


def test_what_others_run_cannot_steer_the_terminal_either():
    assert render_event({"event": "accepted", "client": "eve", "code": "a\nb\x1b[2J"}) == "eve> a\neve> b\\x1b[2J\n"
    assert render_event({"event": "finished", "reason": "oom", "sentence": "too much"}) == "[oom: too much]\n"
