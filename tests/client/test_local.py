"""Finding the server of this host."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from cellgate.client import AsyncClient
from cellgate.client.errors import NoServer
from cellgate.client.local import find_server, start_server
from cellgate.wire.local import FILE_NAME, LocalServer
from tests.support.server import served, until

HERE = LocalServer.of_this_process("http://127.0.0.1:1/", "secret")


def test_a_server_that_is_alive_is_found_and_only_its_user_can_read_how(tmp_path):
    HERE.write(tmp_path)
    assert find_server(tmp_path) == HERE
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert "secret" not in repr(HERE)


@pytest.mark.parametrize("claim", [{"pid": 2**22 + 1}, {"started": "1"}, {"pid": 0, "started": ""}, {"pid": -1}])
def test_one_that_is_gone_is_not_believed(tmp_path, claim):
    replace(HERE, **claim).write(tmp_path)
    assert find_server(tmp_path) is None


def test_a_process_that_ended_and_is_not_reaped_is_gone(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        told = LocalServer("http://127.0.0.1:1/", "secret", process.pid, HERE.started)
        told.write(tmp_path)
        assert find_server(tmp_path) is None


def test_a_process_that_has_the_number_now_may_be_called_anything(tmp_path):
    """The kernel cuts names at a byte: of one that is no ASCII there may be half a letter."""
    rename = "import sys; open('/proc/self/comm', 'wb').write(b'caf\\xc3'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", rename]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        replace(HERE, pid=process.pid).write(tmp_path)
        assert find_server(tmp_path) is None
        process.stdin.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"url": "x"}', json.dumps({"pid": "many"}), "9" * 20000])
def test_a_file_that_makes_no_sense_is_none(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    assert find_server(tmp_path) is None


def test_a_server_removes_its_own_file_and_no_other(tmp_path):
    HERE.write(tmp_path)
    replace(HERE, url="http://127.0.0.1:2/").remove(tmp_path)
    assert find_server(tmp_path) == HERE
    HERE.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.native
async def test_a_server_says_where_it_is_while_it_serves():
    async with served() as server:
        found = find_server(server.state_dir)
        assert found and (found.url, found.token, found.pid) == (f"{server.url}/", server.token, server.keeper_pid)
        await server.end()
        assert not (server.state_dir / FILE_NAME).exists()


@pytest.mark.native
async def test_a_server_can_end_with_whoever_started_it(tmp_path, monkeypatch):
    async with served(start=False) as server:
        monkeypatch.setenv("CELLGATE_STATE_DIR", str(server.state_dir))
        started = start_server()
        assert find_server() == started.server
        started.end()
        assert find_server() is None
        started = start_server()
        started._process.stdin.close()  # as when its holder is killed
        await until(lambda: find_server() is None)
        started._process.wait()


def test_a_server_that_is_started_is_told_where_it_is_looked_for(monkeypatch, tmp_path):
    """A settings file that names another state directory had it serve from there, and nobody found it."""
    monkeypatch.setenv("CELLGATE_STATE_DIR", str(tmp_path))

    class Started(Exception):
        pass

    def popen(words, **_):
        raise Started(words)

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Started) as caught:
        start_server()
    words = caught.value.args[0]
    assert words[words.index("--state-dir") + 1] == str(tmp_path)


@pytest.mark.native
async def test_a_client_that_finds_no_server_starts_one_for_itself(monkeypatch):
    async with served(start=False) as server:
        monkeypatch.setenv("CELLGATE_STATE_DIR", str(server.state_dir))
        with pytest.raises(NoServer, match="`cellgate serve` starts one"):
            async with AsyncClient(starts=False):
                pass
        async with AsyncClient() as client, client.session() as session:
            assert (await session.run("6*7")).result == {"text/plain": "42"}
            async with AsyncClient(starts=False) as neighbour:  # finds it meanwhile
                assert len(await neighbour.sessions()) == 1
        assert find_server() is None


def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    (tmp_path / "state").write_text("no directory")
    monkeypatch.setenv("CELLGATE_STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(NoServer, match="no directory"):
        start_server()
