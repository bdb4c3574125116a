"""Kernels that lie to a whole server, break what they speak over, or end themselves, and what their clients see."""

from __future__ import annotations

import time

import pytest

from cellgate_kernel.message import Channel, MessageError
from tests.hostile.house import House, Line, Outcome, Tenant
from tests.hostile.test_protocol import GRAB, INJECT

TOLD_SECONDS = 5.0  # from a cell's start; 2 are promised from its kernel's end, and memory is slow to fill
UNRESPONSIVE_SECONDS = 10.0


async def grab(line: Line) -> None:
    assert (await line.run(GRAB + INJECT)).status == "ok"


async def works_again(line: Line) -> None:
    """In a fresh kernel, and the client was told."""
    assert (await line.run("'link' in globals(), 1 + 1")).value == "(False, 2)"
    states = [m["content"] for m in line.messages if m["msg_type"] == "status"]
    assert any(state["execution_state"] == "restarting" for state in states)


# -- lies -------------------------------------------------------------------------------------------------


async def test_a_forged_end_is_shown_once_and_stops_no_clock_of_the_session(house: House):
    """It answers for itself and runs on; whoever comes behind it waits no longer than a cell may take."""
    async with house.tenant(limits={"cell_seconds": 1.0}) as tenant:
        line = await tenant.connect()
        await grab(line)
        outcome = await line.run(
            """
say("execute_reply", {"status": "ok", "execution_count": 99, "payload": [], "user_expressions": {}}, "SHELL")
for _ in range(100):
    say("status", {"execution_state": "idle"})
    say("execute_reply", {"status": "error", "ename": "x", "evalue": "", "traceback": []}, "SHELL")
while True:
    try: time.sleep(1)
    except KeyboardInterrupt: pass
"""
        )
        outcome.check_complete()
        assert outcome.content["execution_count"] == 99
        behind = await line.run("1+1")
        assert behind.reason == "timeout_wall"
        assert (await line.run("1+1")).value == "2"
        assert sum(m["msg_type"] == "execute_reply" for m in line.messages) == 4, "the forged ones were dropped"


async def test_messages_in_anothers_name_reach_no_other_session_and_answer_nobody(house: House, tenant: Tenant):
    mine, others = await tenant.connect("mine"), await tenant.connect("others")
    neighbour = await house.neighbour.connect()
    await grab(mine)
    waiting = await others.cell("'the true answer'", stop_on_error=False)
    await others.outcome(waiting)
    before = len(neighbour.messages)
    forge = f"""
class Other:
    def __init__(self, id): self.id, self.key = id, id.encode(); self.header_json = json.dumps(
        {{"msg_id": id, "session": "others", "username": "x", "msg_type": "execute_request",
         "date": "", "version": "5.3"}}).encode()
for id in ("", "x", {waiting!r}, "a" * 200, "../../x"):
    say("execute_reply", {{"status": "ok", "forged": 1}}, "SHELL", parent=Other(id))
    say("status", {{"execution_state": "idle"}}, parent=Other(id))
    say("input_request", {{"prompt": "forged", "password": True}}, "STDIN", parent=Other(id))
"""
    assert (await mine.run(forge)).status == "ok"
    assert (await others.run("1+1")).value == "2"
    for line in (mine, others):
        assert not any("forged" in str(m["content"]) and m["msg_type"] != "execute_input" for m in line.messages)
    assert len(others.of(waiting)) == len({m["header"]["msg_id"] for m in others.of(waiting)}) == 4 + 1
    assert (await neighbour.run("1+1")).value == "2"
    assert not any(m["parent_header"].get("session") == "others" for m in neighbour.messages[before:])


async def test_a_kernel_says_nothing_of_its_own_life_that_anybody_believes(tenant: Tenant, line: Line):
    await grab(line)
    states = ("dead", "restarting", "terminating", "starting", "busy", "x")
    outcome = await line.run(f"for state in {states}: say('status', {{'execution_state': state}})")
    outcome.check_complete()
    assert (await tenant.model())["execution_state"] == "idle"
    shown = {m["content"]["execution_state"] for m in line.messages if m["msg_type"] == "status"}
    assert shown <= {"starting", "busy", "idle"}


async def test_a_cell_whose_kernel_falls_silent_is_answered_when_its_time_is_over(house: House):
    async with house.tenant(limits={"cell_seconds": 1.0}) as tenant:
        line = await tenant.connect()
        await grab(line)
        mute = "host.post = host.send = host.status = lambda *a, **k: None\ntype(host).status = lambda *a, **k: None"
        outcome = await line.run(mute)
        outcome.check_complete()
        assert outcome.reason == "timeout_wall"
        await works_again(line)


async def test_a_lying_kernel_info_is_cleaned_for_everybody(line: Line):
    await grab(line)
    await line.run(
        "get_ipython().kernel.info = lambda: {'status': 'ok', 'protocol_version': '99', 'implementation': ['x'],"
        "'banner': '\\x1b]0;x\\7' + 'x' * 10**6, 'language_info': 7, 'more': 1,"
        "'help_links': [{'text': 'x', 'url': 'javascript:alert(1)'}]}"
    )
    outcome = await line.request("kernel_info_request", {})
    outcome.check_complete()
    info = outcome.content
    assert (info["status"], info["protocol_version"][:2], info["help_links"]) == ("ok", "5.", [])
    assert len(info["banner"]) < 5000
    assert "\x1b" not in info["banner"]
    assert "more" not in info


@pytest.mark.parametrize("channel", [Channel.SHELL, Channel.CONTROL])
@pytest.mark.parametrize("kind", ["debug_request", "create_subshell_request", "usage_request", "no_such_request"])
async def test_requests_of_kinds_that_are_not_offered_get_an_answer(line: Line, kind: str, channel: Channel):
    outcome = await line.request(kind, {"command": "initialize", "type": "request", "seq": 1, "arguments": {}}, channel)
    assert outcome.status == "error"
    assert (await line.run("1+1")).value == "2"


# -- what is spoken over ----------------------------------------------------------------------------------

RUBBISH = {
    "noise": "os.write(link, b'\\xff' * 4096)",
    "a huge length": "os.write(link, struct.pack('<IIQ', 0xffffffff, 2, 10**6))",
    "a gap in the numbers": "os.write(link, frame(2, 10**6, b'x'))",
    "a number again": "os.write(link, frame(2, 1, b'x'))",
    "an acknowledgement of nothing": "os.write(link, frame(3, 10**9, b''))",
    "offsets beyond the end": "inject(struct.pack('<8Q', 7, 64, *[1 << 62] * 6), with_tag=True)",
}


@pytest.mark.parametrize("what", RUBBISH)
async def test_what_is_no_message_costs_the_kernel_and_its_client_is_told(line: Line, what: str):
    await grab(line)
    outcome = await line.run(f"{RUBBISH[what]}\ntime.sleep(20)", seconds=TOLD_SECONDS)
    outcome.check_complete()
    assert outcome.reason == "protocol_violation"
    await works_again(line)


CONTENTS = ("b'{'", "b'[]'", "b'\\xff\\xff'", "b'[' * 100000 + b']' * 100000", "b'{\"a\":NaN}'", 'b\'{"a":1,"a":2}\'')


@pytest.mark.parametrize("legacy", [False, True], ids=["v1", "legacy"])
async def test_contents_that_are_no_json_are_framed_like_others_and_cost_nobody_another_message(
    tenant: Tenant, legacy: bool
):
    """The gateway reads no contents of output. A client that does finds whole frames, UTF-8 where they are text, and
    what is no JSON in the one message alone that a hostile kernel made so."""
    line = await tenant.connect(legacy=legacy)
    await grab(line)
    cells = [
        await line.cell(
            "from cellgate_kernel.message import Channel, Status\nparent = current()\n"
            f"parts = [host.composer.header('stream'), parent.header_json, b'{{}}', {content}]\n"
            "host.send(Channel.IOPUB, 'stream', Status.NONE, parent.key, parts)"
        )
        for content in CONTENTS
    ]
    unreadable = 0
    while not line.is_over(cells[-1]):
        try:
            await line.receive()
        except (MessageError, ValueError, RecursionError):
            unreadable += 1
    assert 3 <= unreadable <= len(CONTENTS), "Python's own reader takes NaN, and a key twice"
    for cell in cells:
        Outcome(line.of(cell)).check_complete()


async def test_a_flood_of_lawful_frames_is_no_more_than_other_floods(house: House, tenant: Tenant, line: Line):
    await grab(line)
    flood = """
end = time.monotonic() + 1.5
host._stream.setblocking(True)
while time.monotonic() < end: os.write(link, frame(4, 0, b""))
"""
    cell = await line.cell(flood)
    neighbour = await house.neighbour.connect()
    waits = []
    while not line.is_over(cell):
        begin = time.monotonic()
        assert (await neighbour.run("1+1")).value == "2"
        waits.append(time.monotonic() - begin)
        await line.receive()
    assert max(waits) < 1.0
    assert (await line.run("1+1")).value == "2"


# -- ends -------------------------------------------------------------------------------------------------

ENDS = {
    "SIGKILL": ("kernel_signal", "os.kill(os.getpid(), 9)"),
    "SIGSEGV": ("kernel_signal", "os.kill(os.getpid(), 11)"),
    "SIGABRT": ("kernel_signal", "os.abort()"),
    "_exit": ("kernel_exit", "os._exit(0)"),
    "exit, by libc": ("kernel_exit", "__import__('ctypes').CDLL(None).exit(5)"),
    "exec": ("kernel_exit", "os.execv('/bin/true', ['true'])"),
    "its group": ("kernel_signal", "os.killpg(0, 9)"),
    "too much memory": ("oom", "x = bytearray(1 << 30)"),
}


@pytest.mark.parametrize("how", ENDS)
async def test_however_a_kernel_ends_its_client_is_told_why_in_time(line: Line, how: str):
    reason, code = ENDS[how]
    await line.run("import os; link = 1")
    outcome = await line.run(code, seconds=TOLD_SECONDS)
    outcome.check_complete()
    assert outcome.reason == reason
    assert "error" in outcome.kinds
    await works_again(line)


SILENCERS = {
    "closes all": "os.closerange(3, 65536)\nwhile True: pass",
    "shuts its link": "os.close(link)\nwhile True: pass",
    "stops itself": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.parametrize("how", SILENCERS)
async def test_a_kernel_that_makes_itself_deaf_is_ended_and_replaced(line: Line, how: str):
    await grab(line)
    outcome = await line.run(SILENCERS[how], seconds=UNRESPONSIVE_SECONDS)
    outcome.check_complete()
    assert outcome.reason in ("kernel_exit", "kernel_unresponsive")
    await works_again(line)


@pytest.mark.parametrize(
    "code",
    [
        *("exit()", "quit()", "%quit", "raise SystemExit", "import sys; sys.exit(3)"),
        "get_ipython().kernel.do_shutdown(False)",
    ],
)
async def test_leaving_by_any_door_is_answered_and_leaves_a_session_that_works(line: Line, code: str):
    outcome = await line.run(code)
    outcome.check_complete()
    assert outcome.reason in ("", "kernel_exit")
    behind = await line.run("1+1")  # which the leaving kernel may still have been given
    assert behind.value == "2" or behind.reason in ("kernel_exit", "cancelled")
    assert (await line.run("1+1")).value == "2"


async def test_journals_and_the_wardens_socket_are_out_of_reach(house: House, line: Line):
    state = house.server.state_dir
    paths = [str(path) for path in (state, *state.parents, *state.rglob("*")) if str(path) not in ("/", "/tmp")]
    outcome = await line.run(f"import os; [path for path in {paths!r} if os.path.lexists(path)]")
    assert outcome.value == "[]"
