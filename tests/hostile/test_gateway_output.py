"""Cells that drown, confuse or starve a whole server by their output, and clients that do not take it."""

from __future__ import annotations

import asyncio
import json

import pytest

from cellgate_kernel.message import Channel
from tests.hostile.house import House, Line, MiB, Outcome, Tenant, house_of
from tests.support.server import BOUND, served

OUTPUT_BYTES, OUTPUT_MESSAGES = MiB, 5000  # of a cell, in the profile `testing`


def dropped(outcome: Outcome) -> tuple[int, int]:
    """Messages and bytes that are told to be missing in all; it is told again when more are."""
    note = [note for note in outcome.notes if note["note"] == "output_truncated"][-1]
    return note["dropped_messages_in_all"], note["dropped_bytes_in_all"]


async def test_of_endless_printing_head_and_tail_are_kept_and_the_rest_is_counted(house: House):
    async with house.tenant(limits={"cell_seconds": 1.5}) as tenant:
        line = await tenant.connect()
        outcome = await line.run("i = 0\nwhile True: print(i, 'x' * 1000, flush=True); i += 1")
        outcome.check_complete()
        assert outcome.content["ename"] == "KeyboardInterrupt"
        shown = outcome.text().split()[::2]
        assert shown[:3] == ["0", "1", "2"]
        last = int((await line.run("i")).value or 0)
        assert last - int(shown[-1]) <= 1
        assert len(outcome.text()) < OUTPUT_BYTES
        assert dropped(outcome)[1] > OUTPUT_BYTES


async def test_every_line_comes_in_order_or_is_counted(line: Line):
    few = await line.run("for i in range(1000): print(i, flush=True)")
    assert (few.text(), few.notes) == ("".join(f"{i}\n" for i in range(1000)), [])
    many = await line.run("for i in range(20000): print(i, flush=True)")
    shown = list(map(int, many.text().split()))
    assert shown == sorted(set(shown)), "in order, none twice"
    assert (shown[0], shown[-1]) == (0, 19_999)
    streams = sum(m["msg_type"] == "stream" and not m["metadata"].get("cellgate") for m in many.messages)
    gap = [(a, b) for a, b in zip(shown, shown[1:]) if b != a + 1]
    assert len(gap) == 1, "the head and the tail are whole"
    assert streams <= OUTPUT_MESSAGES
    assert dropped(many)[0] > 0


@pytest.mark.parametrize("last", ["raise ValueError('seen')", "42", "input()"])
async def test_what_matters_comes_after_any_flood(line: Line, last: str):
    outcome = await line.run(f"for i in range(50000): print('x' * 100)\n{last}")
    outcome.check_complete()
    if last == "42":
        assert outcome.value == "42"
    else:
        assert outcome.kinds.count("error") == 1
        assert outcome.content["ename"] in ("ValueError", "StdinNotImplementedError")


async def test_displays_that_are_too_large_or_too_many_are_left_out_and_counted(line: Line):
    show = "from IPython.display import display\n"
    many = await line.run(show + "for i in range(50): display({'text/plain': str(i) + 'x' * (1 << 20)}, raw=True)")
    assert (many.status, dropped(many)[0] >= 48) == ("ok", True)
    huge = await line.run(show + "display({'text/plain': 'x' * (20 << 20)}, raw=True)\n'after'")
    assert huge.value == "'after'"
    assert sum(len(json.dumps(m["content"])) for m in huge.messages) < 100_000
    assert "not shown" in huge.text("stderr")


async def test_storms_of_updates_clearings_and_comms_are_capped_and_told(line: Line):
    storm = """
from IPython.display import clear_output, display
from comm import create_comm
handle = display("x", display_id=True)
for i in range(4000): handle.update(i); clear_output()
for i in range(4000): create_comm(target_name="nobody", data={"i": i})
create_comm(target_name="nobody").send({}, buffers=[bytes(100 << 20)])
"over"
"""
    outcome = await line.run(storm)
    outcome.check_complete()
    assert outcome.value == "'over'"
    assert len(outcome.messages) < OUTPUT_MESSAGES + 20
    assert dropped(outcome)[0] > 0


async def test_output_of_threads_that_outlive_their_cell_is_capped_too(line: Line):
    flood = """
import threading
def flood():
    for i in range(200_000): print("x" * 100)
    done.set()
done = threading.Event()
threading.Thread(target=flood).start()
"""
    cell = await line.cell(flood)
    await line.outcome(cell)
    outcome = await line.run("done.wait(20)")
    assert outcome.status == "ok"
    said = sum(len(m["content"].get("text", "")) for m in line.messages)
    assert said < 3 * OUTPUT_BYTES, "of the cell that began it, and behind it"


async def test_messages_of_clients_to_nobody_harm_nobody(line: Line):
    for content in (
        {"comm_id": "x", "target_name": "nobody", "data": {}},
        {"comm_id": 7},
        {},
        {"comm_id": "x" * 100_000},
    ):
        for kind in ("comm_open", "comm_msg", "comm_close", "no_such_message"):
            await line.ask(kind, content)
    assert (await line.run("1+1")).value == "2"


SHOW = "from IPython.display import display\n"
CELLS = {
    "one long line": "print('x' * (900 << 10))",
    "returns": "print('\\r' * 10**5)",
    "nul": "print('a\\0b')",
    "surrogate": "print('\\ud800 lone')",
    "not utf-8": "import os; os.write(1, b'\\xff\\xfe\\x80 end\\n')",
    "odd characters": "import sys; sys.stdout.write(chr(0x10ffff) * 1000 + '\\u202e\\x1b]0;x\\7')",
    "an error with surrogates": "raise ValueError('\\ud800' * 100)",
    "nan": SHOW + "display({'application/json': float('nan'), 'text/plain': 'x'}, raw=True)",
    "a huge int": SHOW + "display({'application/json': 10**5000, 'text/plain': 'x'}, raw=True)",
    "a loop": SHOW + "loop = {'text/plain': 'x'}; loop['a/b'] = loop\ndisplay(loop, raw=True)",
    "binary": "from comm import create_comm; create_comm(target_name='x', buffers=[bytes(range(256))])",
}


@pytest.mark.parametrize("what", CELLS)
async def test_whatever_is_written_reaches_clients_of_either_dialect_as_valid_messages(tenant: Tenant, what: str):
    """Each frame was decoded here, strictly: the client closes for text that is not UTF-8."""
    new, old = await tenant.connect("new"), await tenant.connect("old", legacy=True)
    for asker, other in ((new, old), (old, new)):
        cell = await asker.cell(CELLS[what])
        outcome = await asker.outcome(cell)
        outcome.check_complete()
        ids = [m["header"]["msg_id"] for m in outcome.messages if m["channel"] == "iopub"]
        await other.idle(cell)
        assert [m["header"]["msg_id"] for m in other.of(cell)] == ids


async def test_what_is_written_below_python_is_output_and_counted_too(line: Line):
    assert (await line.run("import os; os.write(1, b'by descriptor\\n'); None")).text() == "by descriptor\n"
    flood = await line.run("import subprocess; subprocess.run(['sh', '-c', 'yes | head -c 30000000 >&2']); 'over'")
    assert flood.value == "'over'"
    assert dropped(flood)[1] > 20_000_000


async def test_questions_end_with_the_time_of_their_cell(house: House):
    async with house.tenant(limits={"cell_seconds": 1.0}) as tenant:
        line = await tenant.connect()
        refused = await line.run("input('?')")
        assert refused.content["ename"] == "StdinNotImplementedError"
        unanswered = await line.run("input('?')", allow_stdin=True)
        assert unanswered.status == "error"
        assert "timeout_wall" in [note["note"] for note in unanswered.notes]
        for _ in range(10):  # answers to nothing
            await line.ask("input_reply", {"value": "x"}, Channel.STDIN)
        assert (await line.run("1+1")).value == "2"


@pytest.mark.slow
async def test_a_client_that_stops_reading_costs_the_gateway_nothing_and_is_told_the_gap():
    """300 MB, more than its journal keeps. It is let go after its time; what it reads when it comes again joins what it
    had read, but for the messages that are counted."""
    flags = (
        *("--output-bytes-per-cell", "128M", "--output-messages-per-cell", "1000000"),
        *("--journal-bytes-per-session", "128M", "--journal-bytes-total", "512M"),
        *("--client-stall-seconds", "2", "--cell-seconds", "100"),
    )
    flags = ("--profile", "testing", "--policy", "off", *flags)
    async with served(*flags) as server, house_of(server) as house, house.tenant() as tenant:
        slow, fast = await tenant.connect("slow", max_queue=1), await tenant.connect("fast")
        before = most = house.rss()
        for _ in range(3):
            cell = await fast.cell("for i in range(100): print(f'{i:06}' + 'x' * (1 << 20))")
            while not fast.is_over(cell):
                await fast.receive()
                most = max(most, house.rss())
        assert most - before < 16 * MiB, f"{(most - before) >> 20} MiB"

        await until_connections(tenant, 1)
        assert (await slow.closed())[0] in (4008, 1006), "it may have taken too little to be told"
        again = await tenant.connect("slow")
        await again.idle(cell)
        gaps = [
            m["metadata"]["cellgate"] for m in again.messages if m["metadata"].get("cellgate", {}).get("note") == "gap"
        ]
        assert len(gaps) == 1
        wanted = [m["header"]["msg_id"] for m in fast.messages if m["channel"] == "iopub"]
        had = dict.fromkeys(m["header"]["msg_id"] for m in [*slow.messages, *again.messages] if m["channel"] == "iopub")
        seen = [message_id for message_id in had if message_id in set(wanted)]
        missing = len(wanted) - len(seen)
        assert 0 < missing <= gaps[0]["records"]
        cut = next(i for i, (a, b) in enumerate(zip(wanted, seen)) if a != b)
        assert seen == wanted[:cut] + wanted[cut + missing :]


async def until_connections(tenant: Tenant, count: int) -> None:
    async def wait() -> None:
        while (await tenant.model())["connections"] != count:
            await asyncio.sleep(0.05)

    await asyncio.wait_for(wait(), BOUND)
