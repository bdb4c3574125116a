"""All sessions of a gateway: who may have one, what is left of a failure, and what an heir makes of what it finds."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cellgate.errors import (
    CellgateError,
    Draining,
    DriverUnavailable,
    LimitError,
    SandboxStartFailed,
    ServerFull,
    StateDirectoryInUse,
    StorageFull,
    TooManySessions,
    UnknownKernel,
    UnknownSession,
    UsageError,
)
from cellgate.live.accounts import Accounts
from cellgate.live.happenings import Happening, KernelEnded
from cellgate.live.kernelspecs import find_kernelspecs
from cellgate.live.manager import Manager
from cellgate.live.session import LiveSession
from cellgate.live.wish import Wish
from cellgate.sandbox.base import Driver, Sandbox, SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.native.driver import NativeDriver
from cellgate.sessions.journal import Budget, Journal
from cellgate.sessions.registry import Registry
from cellgate.sessions.states import State
from cellgate.settings import read_settings
from cellgate_kernel.message import Channel
from tests.live.conftest import OpenManager
from tests.support.live import BOUND, OWNER, Client, Lasting, create, open_manager, opener, text_of
from tests.support.native import skip_without_native
from tests.support.server import until


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def nothing_is_left(manager: Manager, driver: Lasting, state: Path) -> None:
    """Of any session."""
    await until(lambda: not manager._sessions, BOUND)
    assert await driver.sandboxes() == []
    assert list((state / "sessions").iterdir()) == []
    assert manager.registry.rows() == []


# -- making and finding -----------------------------------------------------------------------------------


async def test_a_session_is_found_by_whoever_owns_it_and_by_nobody_else(manager: Manager):
    one, two = await create(manager, OWNER, Wish()), await create(manager, "other", Wish())
    assert (manager.find(OWNER, one.id), manager.find("other", two.id)) == (one, two)
    for principal, session_id in ((OWNER, two.id), ("other", one.id), (OWNER, ""), (OWNER, "../" + one.id)):
        with pytest.raises(UnknownSession):
            manager.find(principal, session_id)
    assert (manager.sessions(OWNER), manager.sessions("other"), manager.sessions("third")) == ([one], [two], [])
    assert (one.execution_state, one.connections, one.kernel_name) == ("idle", 0, "python3")
    await one.delete()
    assert manager.sessions(OWNER) == []
    with pytest.raises(UnknownSession):
        manager.find(OWNER, one.id)


async def test_what_was_wished_is_what_is_had(manager: Manager):
    live = await create(manager, OWNER, Wish("PYTHON3", {"cell_seconds": 0.5}, {"GREETING": "hello"}))
    client = Client(live)
    assert (await client.run("import os; os.environ['GREETING']")).value == "'hello'"
    outcome = await client.run("while True: pass")
    assert (outcome.status, outcome.reply["content"]["ename"]) == ("error", "KeyboardInterrupt")


async def test_a_journal_is_kept_as_short_as_was_wished_by_an_heir_too(open_one: OpenManager):
    manager, most = await open_one(), 1 << 20
    live = await create(manager, OWNER, Wish(limits={"journal_bytes_per_session": most}))
    for _ in range(2):
        client = Client(manager.find(OWNER, live.id))
        for _ in range(3):
            await client.run("print('x' * 500_000)")
        assert client.live.journal.size_bytes <= most
        await manager.close(end_sessions=False)
        manager = await open_one()


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (Wish("julia"), UnknownKernel),
        (Wish("../../x"), UnknownKernel),
        (Wish(limits={"privileged": 1}), UsageError),
        (Wish(limits={"cell_seconds": 1e6}), LimitError),
        (Wish(limits={"cell_seconds": 0}), LimitError),
    ],
    ids=["no such kernel", "a path", "no limit", "too much", "zero"],
)
async def test_what_cannot_be_had_leaves_nothing(
    manager: Manager, driver: Lasting, state: Path, wish: Wish, error: type[CellgateError]
):
    with pytest.raises(error):
        await create(manager, OWNER, wish)
    await nothing_is_left(manager, driver, state)


async def test_a_deleted_session_leaves_nothing(manager: Manager, driver: Lasting, state: Path):
    for _ in range(3):
        live = await create(manager, OWNER, Wish())
        await Client(live).run("1")
        await live.delete()
    await nothing_is_left(manager, driver, state)


async def test_a_deleted_session_leaves_the_budget_of_all_journals_in_the_loop(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
):
    """Only its files are removed beside: two threads in the budget count wrongly, and one finds it changed under it."""
    threads = []
    leave = Budget.leave

    def noted(budget: Budget, journal: Journal) -> None:
        threads.append(threading.current_thread())
        leave(budget, journal)

    monkeypatch.setattr(Budget, "leave", noted)
    live = await create(manager)
    await live.delete()
    await until(lambda: not manager.all_sessions())
    assert threads == [threading.current_thread()]
    assert manager._budget.used_bytes == 0


# -- admission --------------------------------------------------------------------------------------------


async def test_one_principal_gets_its_share_and_others_theirs(open_one: OpenManager):
    manager = await open_one(sessions_per_principal=2, sessions_total=3)
    first = await manager.create(OWNER, Wish())
    await create(manager, OWNER, Wish())
    with pytest.raises(TooManySessions) as raised:
        await create(manager, OWNER, Wish())
    assert raised.value.retry_seconds > 0
    await create(manager, "other", Wish())
    with pytest.raises(ServerFull):
        await create(manager, "third", Wish())
    await first.delete()
    await until(lambda: first.id not in manager._sessions, BOUND)
    await create(manager, "third", Wish())


async def test_whoever_deletes_a_session_may_have_another_at_once(open_one: OpenManager):
    """However long the clients of the old one take to read its end."""
    manager = await open_one(sessions_per_principal=1)
    first = await manager.create(OWNER, Wish())
    slow = Client(first)
    slow.is_deaf = True
    slow.ask("1")
    await first.delete()
    await create(manager, OWNER, Wish())
    slow.hear()


async def test_a_storm_of_creations_gets_what_there_is_and_not_one_more(open_one: OpenManager):
    manager = await open_one(sessions_per_principal=5)
    results = await asyncio.gather(*(create(manager, OWNER, Wish()) for _ in range(20)), return_exceptions=True)
    made = [result for result in results if isinstance(result, LiveSession)]
    assert len(made) == 5
    assert {type(result) for result in results} == {LiveSession, TooManySessions}
    outcomes = await asyncio.gather(*(Client(live).run("1+1") for live in made))
    assert [outcome.value for outcome in outcomes] == ["2"] * 5


async def test_a_server_that_is_about_to_stop_takes_no_new_sessions_and_serves_the_others(
    manager: Manager, live: LiveSession
):
    manager.drain()
    with pytest.raises(Draining):
        await create(manager, OWNER, Wish())
    assert (await Client(live).run("1+1")).value == "2"


async def test_without_room_for_a_journal_there_is_no_session(manager: Manager, driver: Lasting, state: Path):
    (state / "sessions").rmdir()
    (state / "sessions").write_text("in its place")
    with pytest.raises(StorageFull):
        await create(manager, OWNER, Wish())
    assert not manager._sessions
    assert manager.registry.rows() == []
    assert await driver.sandboxes() == []
    (state / "sessions").unlink()
    (state / "sessions").mkdir()
    assert (await Client(await create(manager, OWNER, Wish())).run("1+1")).value == "2"


async def test_without_room_in_the_registry_there_is_no_session(manager: Manager, driver: Lasting, state: Path):
    manager.registry._connection.execute("PRAGMA query_only=ON")
    with pytest.raises(StorageFull):
        await create(manager, OWNER, Wish())
    manager.registry._connection.execute("PRAGMA query_only=OFF")
    await nothing_is_left(manager, driver, state)


async def test_a_registry_that_refuses_for_a_while_is_told_later(manager: Manager, live: LiveSession):
    manager.registry._connection.execute("PRAGMA query_only=ON")
    await live.restart()
    (row,) = manager.registry.rows()
    assert row.incarnation == 1
    assert (await Client(live).run("1+1")).value == "2"
    manager.registry._connection.execute("PRAGMA query_only=OFF")
    live.look_after(manager.now())
    (row,) = manager.registry.rows()
    assert (row.incarnation, row.state) == (2, State.READY)


# -- failures of the driver -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [SandboxStartFailed("test", "step", "detail"), DriverUnavailable("test", "missing", "remedy")],
    ids=lambda error: error.code,
)
async def test_a_kernel_that_cannot_be_started_is_told_to_whoever_comes_and_may_be_asked_for_again(
    manager: Manager, driver: Lasting, state: Path, error: CellgateError
):
    driver.failing = error
    live = await manager.create(OWNER, Wish())
    early = Client(live)
    cell = early.ask("1+1")
    with pytest.raises(type(error)):
        await live.started()
    assert live.execution_state == "dead"
    assert (await early.outcome(cell)).reason == "cancelled"
    late = Client(live, b"late")
    await late.until(lambda: ("status", "dead") in late.shown())
    for client in (early, late):
        (news,) = [m for m in client.messages if m["content"].get("execution_state") == "dead"]
        assert news["metadata"]["cellgate"]["reason"] == "backend_error"
        assert error.code in news["metadata"]["cellgate"]["sentence"]
    assert await driver.sandboxes() == []
    driver.failing = None
    await live.restart()
    assert (await late.run("1+1")).value == "2"
    await live.delete()
    await nothing_is_left(manager, driver, state)


async def test_without_a_driver_there_is_no_session(tmp_path: Path, driver: Lasting):
    """And whoever asks is told so: the first who finds it gone makes the session that tells it."""
    lost = Lasting(driver)
    drivers: list[Driver] = [driver, lost]

    async def open_driver() -> Driver:
        if not drivers:
            raise DriverUnavailable("test", "missing", "remedy")
        return drivers.pop()

    manager = await open_manager(tmp_path / "state", open_driver)
    drivers.clear()
    lost.failing = DriverUnavailable("test", "the supervisor is gone", "none")
    first = await manager.create(OWNER, Wish())
    with pytest.raises(DriverUnavailable):
        await first.started()
    with pytest.raises(DriverUnavailable):
        await create(manager, OWNER, Wish())
    assert manager.sessions(OWNER) == [first]
    drivers.append(driver)
    assert (await Client(await create(manager, OWNER, Wish())).run("1+1")).value == "2"
    await manager.close(end_sessions=True)


async def test_a_fault_of_ours_while_a_kernel_starts_keeps_nobody_waiting(
    manager: Manager, driver: Lasting, state: Path, monkeypatch: pytest.MonkeyPatch
):
    """Found by the fault tests: a link could not be received, for want of descriptors, and a POST hung for ever."""

    async def fail(_spec: SandboxSpec) -> Sandbox:
        raise RuntimeError("seen")

    monkeypatch.setattr(driver, "create", fail)
    live = await manager.create(OWNER, Wish())
    with pytest.raises(SandboxStartFailed):
        await asyncio.wait_for(live.started(), BOUND)
    await live.delete()
    await nothing_is_left(manager, driver, state)


async def test_a_sandbox_that_its_driver_lost_at_once_keeps_nobody_waiting(
    manager: Manager, driver: Lasting, monkeypatch: pytest.MonkeyPatch
):
    """A warden let its driver go in the same breath in which it handed a sandbox out: a POST hung for ever."""
    make, made = driver.create, []

    async def lose() -> None:
        raise DriverUnavailable("test", "another driver has taken its place", "none")

    async def create_and_lose(spec: SandboxSpec) -> Sandbox:
        sandbox = await make(spec)
        made.append(sandbox.destroy)
        monkeypatch.setattr(sandbox, "attach", lose)
        monkeypatch.setattr(sandbox, "destroy", lose)
        return sandbox

    monkeypatch.setattr(driver, "create", create_and_lose)
    with pytest.raises(DriverUnavailable):
        await asyncio.wait_for((await manager.create(OWNER, Wish())).started(), BOUND)
    await asyncio.gather(*(destroy() for destroy in made))


async def test_a_session_that_cannot_be_taken_over_is_left_as_it_is_for_the_next_gateway(
    open_one: OpenManager, monkeypatch: pytest.MonkeyPatch
):
    former = await open_one()
    bad, good = [await create(former, OWNER, Wish()) for _ in range(2)]
    for live in (bad, good):
        await Client(live).run("kept = 7")
    await former.close(end_sessions=False)

    adopt = LiveSession.adopt

    async def fail(live: LiveSession, sandbox: Sandbox) -> None:
        if live.id == bad.id:
            raise RuntimeError("seen")
        await adopt(live, sandbox)

    with monkeypatch.context() as patch:
        patch.setattr(LiveSession, "adopt", fail)
        heir = await open_one()
        assert [live.id for live in heir.sessions(OWNER)] == [good.id]
        await heir.close(end_sessions=False)
    last = await open_one()
    for live in last.sessions(OWNER):
        assert (await Client(live).run("kept")).value == "7"
    assert len(last.sessions(OWNER)) == 2


async def test_a_session_that_is_deleted_while_its_kernel_starts_leaves_nothing(
    manager: Manager, driver: Lasting, state: Path
):
    driver.may_create.clear()
    live = await manager.create(OWNER, Wish())
    await live.delete()
    driver.may_create.set()
    await live.started()
    assert live.is_gone
    await nothing_is_left(manager, driver, state)


async def test_a_driver_that_is_gone_is_replaced_when_a_kernel_is_wanted(tmp_path: Path, driver: Lasting):
    opened = itertools.count(1)
    lost = Lasting(driver)
    drivers = iter([lost, driver])

    async def open_driver() -> Driver:
        next(opened)
        return next(drivers)

    manager = await open_manager(tmp_path / "state", open_driver)
    lost.failing = DriverUnavailable("test", "the supervisor is gone", "none")
    lives = await asyncio.gather(*(create(manager, OWNER, Wish()) for _ in range(3)))
    assert next(opened) == 3, "one for all of them"
    assert [(await Client(live).run("1+1")).value for live in lives] == ["2"] * 3
    await manager.close(end_sessions=True)


# -- the heartbeat ----------------------------------------------------------------------------------------


async def test_a_session_that_fails_a_look_takes_no_other_with_it(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    bad, good = await create(manager, OWNER, Wish()), await create(manager, OWNER, Wish())
    looks: list[float] = []

    def fail(_now: float) -> None:
        raise RuntimeError("seen")

    monkeypatch.setattr(bad, "look_after", fail)
    monkeypatch.setattr(good, "look_after", looks.append)
    with caplog.at_level(logging.ERROR):
        await until(lambda: len(looks) > 1, BOUND)
    assert "seen" in caplog.text


async def test_an_idle_session_is_told_of_its_end_and_ends(open_one: OpenManager):
    manager = await open_one(idle_seconds=1.0, notice_seconds=0.5)
    live = await create(manager, OWNER, Wish())
    client = Client(live)
    await client.run("1")
    await client.until(lambda: client.parted)
    notes = [m["metadata"]["cellgate"] for m in client.messages if "note" in m["metadata"].get("cellgate", {})]
    assert [note["note"] for note in notes] == ["session_expiring"]
    assert client.messages[-1]["metadata"]["cellgate"]["reason"] == "session_expired"
    assert manager.sessions(OWNER) == []


async def test_a_clock_that_somebody_sets_ends_no_session(open_one: OpenManager, monkeypatch: pytest.MonkeyPatch):
    manager = await open_one(idle_seconds=30, lifetime_seconds=60)
    live = await create(manager, OWNER, Wish())
    now = time.time()
    for years in (10, -10):
        monkeypatch.setattr(time, "time", lambda years=years: now + years * 31_536_000)
        assert (await Client(live).run("1+1")).value == "2"
        live.look_after(manager.now())
    monkeypatch.undo()
    assert manager.sessions(OWNER) == [live]


# -- after another gateway --------------------------------------------------------------------------------


async def test_two_do_not_serve_from_one_directory(open_one: OpenManager):
    await open_one()
    with pytest.raises(StateDirectoryInUse):
        await open_one()


async def test_an_heir_goes_on_with_every_session_and_its_variables(open_one: OpenManager):
    manager = await open_one()
    lives = [await create(manager, OWNER, Wish(labels={"path": f"{n}.ipynb"})) for n in range(3)]
    for n, live in enumerate(lives):
        await Client(live).run(f"kept = {n}")
    await manager.close(end_sessions=False)
    heir = await open_one()
    assert [live.wish for live in heir.sessions(OWNER)] == [live.wish for live in lives]
    for n, live in enumerate(lives):
        client = Client(heir.find(OWNER, live.id), b"new")
        assert (await client.run("kept")).value == str(n)
        assert client.live.session.incarnation == 1


async def test_what_was_said_while_nobody_served_is_delivered_once(open_one: OpenManager):
    manager = await open_one()
    live = await create(manager, OWNER, Wish())
    client = Client(live)
    cell = client.ask("for i in range(100):\n    print(i, flush=True)\n    if i == 50: input()", allow_stdin=True)
    await client.until(lambda: any(m["msg_type"] == "input_request" for m in client.messages))
    await until(lambda: client.reader.delivered == live.journal.next_seq, BOUND)
    await manager.close(end_sessions=False)
    heir = Client((await open_one()).find(OWNER, live.id))
    heir.send_request("input_reply", {"value": ""}, Channel.STDIN)
    await heir.outcome(cell)
    assert text_of(client.messages) + text_of(heir.messages) == "".join(f"{i}\n" for i in range(100))


async def test_cells_that_wait_are_run_by_the_heir_in_their_turn(open_one: OpenManager):
    manager = await open_one()
    live = await create(manager, OWNER, Wish())
    client = Client(live)
    running = client.ask("import time; time.sleep(0.5); order = [1]")
    waiting = [client.ask(f"order.append({n}); print(order)") for n in (2, 3)]
    await client.until(lambda: live.execution_state == "busy")
    await manager.close(end_sessions=False)
    heir = Client((await open_one()).find(OWNER, live.id))
    assert (await heir.outcome(running)).status == "ok"
    assert [(await heir.outcome(cell)).text for cell in waiting] == ["[1, 2]\n", "[1, 2, 3]\n"]


async def test_a_kernel_that_does_not_greet_the_heir_has_no_more_time_than_others(
    open_one: OpenManager, driver: Lasting
):
    """C code that held the interpreter's lock was neither interrupted nor ended after a gateway's death."""
    if driver.name == "fake":
        pytest.skip("driver does not promise this")  # its kernels have the test's own lock
    flags = {"cell_seconds": 1}
    manager = await open_one(**flags)
    live = await create(manager, OWNER, Wish())
    client = Client(live)
    cell = client.ask("import ctypes; print(1, flush=True); ctypes.PyDLL(None).sleep(100)")
    await client.until(lambda: text_of(client.messages) == "1\n")
    await manager.close(end_sessions=False)
    heir = Client((await open_one(**flags)).find(OWNER, live.id))
    assert (await heir.outcome(cell)).reply["content"]["ename"] == "KeyboardInterrupt"
    assert (await heir.run("1+1")).value == "2"


@pytest.mark.parametrize("is_wanted", [True, False], ids=["kept", "fleeting"])
async def test_what_a_kernel_used_that_ended_meanwhile_is_told(
    open_one: OpenManager, driver: Lasting, monkeypatch: pytest.MonkeyPatch, is_wanted: bool
):
    """It counts for its principal's quota, and stands in the audit log, as when a gateway is there."""
    manager = await open_one()
    live = await create(manager, OWNER, Wish(is_fleeting=not is_wanted))
    (sandbox,) = await driver.sandboxes()
    await manager.close(end_sessions=False)
    if is_wanted:
        await sandbox.kill(Reason.OOM, "as a test wants it")
        await sandbox.wait()
    told: list[Happening] = []
    monkeypatch.setattr(Accounts, "hear", lambda _, happening: told.append(happening))
    is_known = sandbox.id in {one.id for one in (*await driver.ended(), *await driver.sandboxes())}
    await open_one()
    ends = [(h.who.session, h.incarnation) for h in told if isinstance(h, KernelEnded)]
    assert ends == ([(live.id, 1)] if is_known else [])


async def test_a_sandbox_that_died_meanwhile_is_told_and_replaced(open_one: OpenManager, driver: Lasting):
    manager = await open_one()
    live = await create(manager, OWNER, Wish())
    client = Client(live)
    cell = client.ask("while True: pass")
    await client.until(lambda: live.execution_state == "busy")
    (sandbox,) = await driver.sandboxes()
    await manager.close(end_sessions=False)
    await sandbox.kill(Reason.BACKEND_ERROR, "as a test wants it")
    await sandbox.wait()
    keeps_certificates = any(ended.id == sandbox.id for ended in await driver.ended())
    heir = Client((await open_one()).find(OWNER, live.id))
    assert (await heir.outcome(cell)).reason == ("backend_error" if keeps_certificates else "supervisor_lost")
    assert (await heir.run("1+1")).value == "2"
    assert heir.live.session.incarnation == 2
    assert await driver.ended() == []


async def test_a_deletion_under_way_is_finished_and_orphans_and_strays_are_cleared_away(
    open_one: OpenManager, driver: Lasting, state: Path
):
    manager = await open_one()
    gone, unasked, kept = [await create(manager) for _ in range(3)]
    manager.registry.update(gone.id, state=State.GONE, incarnation=1, sandbox_id=gone.session.sandbox_id)
    manager.registry.update(unasked.id, state=State.STARTING, incarnation=0, sandbox_id="")
    await manager.close(end_sessions=False)
    (state / "sessions" / "of-nobody").mkdir()
    assert len(await driver.sandboxes()) == 3
    heir = await open_one()
    assert [live.id for live in heir.sessions(OWNER)] == [kept.id]
    assert [row.id for row in heir.registry.rows()] == [kept.id]
    assert [path.name for path in (state / "sessions").iterdir()] == [kept.id]
    assert [sandbox.id for sandbox in await driver.sandboxes()] == [kept.session.sandbox_id]


async def test_a_kernel_that_was_on_its_way_is_started_by_the_heir(open_one: OpenManager, driver: Lasting):
    """Whoever asked for it was answered, and may have asked the session something."""
    manager = await open_one()
    driver.may_create.clear()
    live = await manager.create(OWNER, Wish())
    client = Client(live)
    cell = client.ask("1+1")
    await manager.close(end_sessions=False)
    driver.may_create.set()
    heir = Client((await open_one()).find(OWNER, live.id), client.name)
    assert (await heir.outcome(cell)).value == "2"
    assert len(await driver.sandboxes()) == 1


async def test_a_session_whose_kernel_cannot_be_had_any_more_leaves_nothing(state: Path, driver: Lasting):
    settings = read_settings(flags={"profile": "testing"}, environ={}, file={})
    specs = find_kernelspecs(driver.templates)
    more = {**specs, "more": replace(specs["python3"], name="more")}
    manager = await Manager.open(settings, opener(driver), directory=state, kernelspecs=more)
    await create(manager, OWNER, Wish("more"))
    await manager.close(end_sessions=False)
    heir = await Manager.open(settings, opener(driver), directory=state, kernelspecs=specs)
    await nothing_is_left(heir, driver, state)
    await heir.close(end_sessions=True)


async def test_a_registry_that_cannot_be_read_keeps_no_gateway_from_starting(
    open_one: OpenManager, driver: Lasting, state: Path
):
    manager = await open_one()
    await create(manager, OWNER, Wish())
    await manager.close(end_sessions=False)
    for path in state.glob("sessions.sqlite*"):
        path.write_bytes(b"no database at all")
    heir = await open_one()
    assert heir.registry.quarantined is not None
    await nothing_is_left(heir, driver, state)
    assert (await Client(await heir.create(OWNER, Wish())).run("1+1")).value == "2"


@pytest.mark.parametrize("damage", ["rubbish", "cut off", "gone", "a file in its place"])
async def test_a_damaged_journal_costs_its_own_session_something_and_others_nothing(
    open_one: OpenManager, driver: Lasting, state: Path, damage: str
):
    manager = await open_one()
    hurt, whole = [await create(manager, OWNER, Wish()) for _ in range(2)]
    for live in (hurt, whole):
        await Client(live).run("kept = 1; print('x' * 1000)")
    await manager.close(end_sessions=False)
    directory = state / "sessions" / hurt.id
    (segment,) = directory.glob("*.journal")
    if damage == "rubbish":
        segment.write_bytes(os.urandom(5000))
    elif damage == "cut off":
        os.truncate(segment, segment.stat().st_size // 2)
    else:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        if damage != "gone":
            directory.write_text("in its place")
    heir = await open_one()
    assert (await Client(heir.find(OWNER, whole.id), b"new").run("kept")).value == "1"
    with suppress(UnknownSession):
        client = Client(heir.find(OWNER, hurt.id), b"new")
        first = await client.run("1+1")  # its kernel may be one that knows of more than the journal
        assert first.value == "2" or first.reason in ("kernel_unresponsive", "cancelled")
        assert (await client.run("1+1")).value == "2"
    assert len(await driver.sandboxes()) == len(heir.sessions(OWNER))


async def test_a_row_of_the_registry_that_names_a_path_leads_nowhere(
    open_one: OpenManager, state: Path, tmp_path: Path
):
    manager = await open_one()
    live = await create(manager, OWNER, Wish())
    await manager.close(end_sessions=False)
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("kept")
    registry = Registry.open(state)
    registry.add(replace(registry.rows()[0], id="../../other", state=State.GONE))
    registry.add(replace(registry.rows()[0], id="../../other/", state=State.READY, sandbox_id=""))
    registry.close()
    heir = await open_one()
    assert [session.id for session in heir.sessions(OWNER)] == [live.id]
    assert (other / "file").read_text() == "kept"


# -- real wardens -----------------------------------------------------------------------------------------


@pytest.fixture
def warden_path() -> Iterator[str]:
    """Where a warden may listen, which outlives whoever drives it; one that does at the end is ended."""
    skip_without_native()
    with tempfile.TemporaryDirectory(prefix="cellgate-test-") as directory:  # short, and others may enter it
        os.chmod(directory, 0o755)
        yield f"{directory}/warden"


@pytest.mark.native
async def test_when_the_warden_is_killed_cells_are_told_and_another_takes_its_place(tmp_path: Path, warden_path: str):
    wardens: list[NativeDriver] = []

    async def open_driver() -> Driver:
        wardens.append(await NativeDriver.start())
        return wardens[-1]

    manager = await open_manager(tmp_path / "state", open_driver)
    try:
        busy, idle = [Client(await create(manager, OWNER, Wish())) for _ in range(2)]
        cell = busy.ask("import time; time.sleep(60)")
        await busy.until(lambda: busy.live.execution_state == "busy")
        assert wardens[0]._warden is not None
        wardens[0]._warden.kill()
        assert (await busy.outcome(cell)).reason == "supervisor_lost"
        for client in (busy, idle):
            assert (await client.run("1+1")).value == "2"
            assert client.live.session.incarnation == 2
        assert len(wardens) == 2
    finally:
        await manager.close(end_sessions=True)


@pytest.mark.native
async def test_after_a_kill_at_any_moment_the_heir_delivers_the_rest_once(warden_path: str, tmp_path: Path):
    notes = tmp_path / "notes"
    code = "import time\nkept = 41\nfor i in range(400):\n    print(i, flush=True)\n    time.sleep(0.003)"
    script = Path(__file__).with_name("manager_to_kill.py")
    words = [sys.executable, str(script), warden_path, str(tmp_path / "state"), str(notes), code]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    seen: list[list[str]] = []

    def look() -> int:
        if notes.exists():
            seen[:] = [json.loads(line) for line in notes.read_text().splitlines()]
        return len(seen)

    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True, env=env) as process:
        assert process.stdout is not None
        session_id, cell = process.stdout.readline().split()
        await until(lambda: look() > 60, BOUND)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    look()
    manager = await open_manager(tmp_path / "state", lambda: NativeDriver.connect(warden_path))
    try:
        client = Client(manager.find(OWNER, session_id), b"a", after=seen[-1][0])
        await client.outcome(cell)
        told = "".join(text for _, kind, text in seen if kind == "stream") + text_of(client.messages)
        assert told == "".join(f"{i}\n" for i in range(400))
        assert len(seen) < 400, "the cell was to be running still"
        assert (await client.run("kept + 1")).value == "42"
        assert client.live.session.incarnation == 1
    finally:
        await manager.close(end_sessions=True)
        driver = await NativeDriver.connect(warden_path)
        await driver.shut_down()
