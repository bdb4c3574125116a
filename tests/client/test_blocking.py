"""The two ways of the SDK are one: names, arguments and words are the same."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import cellgate.client as sdk
from cellgate.client import AsyncCell, AsyncClient, AsyncSession
from cellgate.client.files import AsyncFiles
from cellgate.client.scripts import AsyncScripts


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [
        (sdk.Client, AsyncClient),
        (sdk.Session, AsyncSession),
        (sdk.Cell, AsyncCell),
        (sdk.Files, AsyncFiles),
        (sdk.Scripts, AsyncScripts),
    ],
)
def test_both_ways_have_the_same_names_and_arguments(blocking, asynchronous):
    theirs = {name for name in vars(asynchronous) if not name.startswith("_")} - {"take", "fail"}  # the ledger's
    ours = {name for name in vars(blocking) if not name.startswith("_")}
    assert ours >= theirs
    for name in theirs:
        ours_, theirs_ = getattr(blocking, name), getattr(asynchronous, name)
        if inspect.isfunction(theirs_):
            assert inspect.signature(ours_) == inspect.signature(theirs_) and ours_.__doc__


def test_importing_it_imports_nothing_that_is_needed_only_later():
    """What takes its time comes with the first connection, the first request, the first event that is read."""
    code = "import sys; from cellgate.client import Client; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"websockets", "msgpack", "http.client", "cellgate.client.events", "cellgate.wire.agent"}
    assert heavy & set(run.stdout.split()) == set()


LEFT = """
import asyncio, os, signal, threading
from cellgate.client.blocking import Loop, _Blocking, iterating

class Events:
    async def follow(self):
        end = asyncio.ensure_future(asyncio.sleep(60))
        try:
            yield threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(60)
        finally:
            end.cancel()
            await asyncio.gather(end, return_exceptions=True)
            print("closed", end=" ")

class Blocking(_Blocking):
    follow = iterating(Events.follow)

loop = Loop()
try:
    for _ in Blocking(loop, Events()).follow():
        pass
except KeyboardInterrupt:
    print("stopped")
loop.close()
"""


def test_ctrl_c_in_a_loop_over_events_is_that_and_ends_them():
    """An iterator that still ran could not be closed: what the program saw was a RuntimeError."""
    run = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, check=False, timeout=60)
    assert (run.stdout, run.returncode) == ("closed stopped\n", 0), run.stderr


def test_a_client_that_finds_no_server_leaves_no_thread(monkeypatch, tmp_path):
    """A program that tried again until there was one had a thread and an event loop more each time."""
    monkeypatch.delenv("CELLGATE_URL", raising=False)
    monkeypatch.setenv("CELLGATE_STATE_DIR", str(tmp_path))
    before = {*threading.enumerate()}
    with pytest.raises(sdk.NoServer), sdk.Client(starts=False):
        pass
    assert {*threading.enumerate()} <= before


if TYPE_CHECKING:  # a type checker proves this, with all other files
    from typing_extensions import assert_type

    from cellgate.client.events import Event

    def types_are_those_of_the_asynchronous_way(client: sdk.Client) -> None:
        with client.session(name="typed") as session:
            assert_type(session, sdk.Session)
            assert_type(session.run("1", timeout=3), sdk.Result)
            assert_type(session.submit("1"), sdk.Cell)
            assert_type([*session.stream("1")], list[Event])
            assert_type(session.files.read("name"), bytes)
            assert_type(session.id, str)
            session.run("1", tiemout=3)  # type: ignore[call-arg]
            session.run(1)  # type: ignore[arg-type]
