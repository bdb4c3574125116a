"""Quotas over real sessions: cells wait for their turn, spent time lets no cell begin, and nothing is forgotten."""

from __future__ import annotations

import pytest

from cellgate.errors import QuotaUsedUp
from cellgate.live.accounts import Accounts
from cellgate.live.happenings import CellFinished, LimitHit, UsageSampled, Who
from cellgate.live.wish import Wish
from cellgate_kernel.message import Channel
from tests.support.live import OWNER, Client
from tests.support.server import until

MiB = 1 << 20
NOW = 1_800_000_000.0


async def test_cells_of_one_principal_wait_for_each_other_and_not_for_anothers(open_one):
    manager = await open_one(cells_per_principal=1)
    first, second = [Client(await manager.create(OWNER, Wish())) for _ in range(2)]
    other = Client(await manager.create("ada", Wish()))
    asking = first.ask("input()", allow_stdin=True)
    await first.until(lambda: any(m["msg_type"] == "input_request" for m in first.messages))
    waiting = second.ask("1 + 1")
    assert (await other.run("6 * 7")).value == "42"
    assert second.of(waiting) == []
    first.send_request("input_reply", {"value": ""}, Channel.STDIN)
    assert (await first.outcome(asking)).status == "ok"
    assert (await second.outcome(waiting)).value == "2"


async def test_many_sessions_behind_one_turn_all_get_theirs(open_one):
    manager = await open_one(cells_per_principal=1)
    clients = [Client(await manager.create(OWNER, Wish())) for _ in range(3)]
    asked = [(client, client.ask(f"{n} + {m}")) for m in range(3) for n, client in enumerate(clients)]
    for client, message_id in asked:
        assert (await client.outcome(message_id)).status == "ok"
    assert not manager._held_back
    assert not manager._running


async def test_who_ends_a_session_gives_its_turn_away(open_one):
    manager = await open_one(cells_per_principal=1)
    first, second = [Client(await manager.create(OWNER, Wish())) for _ in range(2)]
    first.ask("input()", allow_stdin=True)
    await until(lambda: first.live.is_running)
    waiting = second.ask("1 + 1")
    await first.live.delete()
    assert (await second.outcome(waiting)).value == "2"


async def test_who_waits_and_is_ended_leaves_its_turn_to_the_next(open_one):
    manager = await open_one(cells_per_principal=1)
    first, second, third = [Client(await manager.create(OWNER, Wish())) for _ in range(3)]
    asking = first.ask("input()", allow_stdin=True)
    await first.until(lambda: any(m["msg_type"] == "input_request" for m in first.messages))
    second.ask("1 + 1")
    waiting = third.ask("1 + 2")
    await until(lambda: len(manager._held_back.get(OWNER, ())) == 2)
    await second.live.delete()
    first.send_request("input_reply", {"value": ""}, Channel.STDIN)
    await first.outcome(asking)
    assert (await third.outcome(waiting)).value == "3"
    assert not manager._held_back


async def test_who_has_used_todays_time_is_told_and_others_go_on(open_one):
    manager = await open_one(wall_seconds_per_day=100)
    client, other = Client(await manager.create(OWNER, Wish())), Client(await manager.create("ada", Wish()))
    manager.happenings.tell(CellFinished(Who(OWNER, client.live.id), 1, "ok", 100.0, 0, 0))
    await until(lambda: client.live.session.withheld)
    outcome = await client.run("1 + 1")
    assert outcome.reason == "quota_used_up"
    assert "wall_seconds_per_day leaves you 0" in outcome.reply["content"]["evalue"]
    with pytest.raises(QuotaUsedUp, match="the day ends in"):
        await manager.create(OWNER, Wish())
    assert (await other.run("6 * 7")).value == "42"


async def test_a_session_too_many_for_the_memory_is_refused_and_told(open_one):
    manager = await open_one(memory_bytes_per_principal="300M")
    told = []
    manager.happenings.listen(lambda h: told.append(h) if isinstance(h, LimitHit) else None)
    live = await manager.create(OWNER, Wish())  # the profile gives it 256 MiB
    with pytest.raises(QuotaUsedUp) as caught:
        await manager.create(OWNER, Wish())
    assert (caught.value.asked, caught.value.left) == (256 * MiB, 44 * MiB)
    assert told == [LimitHit(OWNER, "memory_bytes_per_principal", str(caught.value))]
    small = await manager.create(OWNER, Wish(limits={"memory_bytes": 40 * MiB, "workspace_bytes": 8 * MiB}))
    await small.delete()
    await live.delete()
    await until(lambda: not manager._sessions)
    await manager.create(OWNER, Wish())


async def test_what_was_used_is_known_to_the_next_gateway(open_one):
    manager = await open_one()
    live = await manager.create(OWNER, Wish())
    before = manager.accounts.used(OWNER).cpu_seconds
    manager.happenings.tell(UsageSampled(Who(OWNER, live.id), 7, 50.0, None))
    await manager.close(end_sessions=False)
    again = await open_one()
    assert again.accounts.used(OWNER).cpu_seconds >= before + 50.0
    again.happenings.tell(UsageSampled(Who(OWNER, live.id), 7, 51.0, None))
    assert again.accounts.used(OWNER).cpu_seconds < before + 60.0


def test_accounts_that_cannot_be_read_begin_anew(tmp_path, caplog):
    path = tmp_path / "used.json"
    path.write_text("{")
    assert Accounts.open(path, NOW).used("ada").cpu_seconds == 0
    assert "what was used today is not known" in caplog.text


def test_a_disk_that_refuses_costs_no_accounts(tmp_path, caplog):
    accounts = Accounts.open(tmp_path / "none" / "used.json", NOW)
    accounts.look_after(NOW)
    accounts.hear(CellFinished(Who("ada", "s"), 1, "ok", 5.0, 0, 0))
    accounts.look_after(NOW + 20)
    assert "cannot be kept" in caplog.text
    assert accounts.used("ada").wall_seconds == 5.0
