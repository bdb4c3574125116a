"""Cells that take over the kernel's own voice: its link, its birth socket, its process.

All that speaks in a sandbox is hostile from the first cell on, so what is held here is not that a kernel cannot lie,
but whom it can lie to, how much, and that it ends when it is told to.
"""

from __future__ import annotations

import ast
import asyncio
import signal
import time
from pathlib import Path

import pytest

import cellgate
from cellgate.sandbox.certificate import Reason
from cellgate_kernel.message import Channel
from tests.hostile.arena import ANSWER_SECONDS, Session, text_of

UNRESPONSIVE_SECONDS = 10.0

# The host object of the kernel, the link's descriptor and the birth socket's, as hostile code finds them.
GRAB = """
import ctypes, gc, json, os, select, signal, socket, struct, sys, threading, time
host = next(o for o in gc.get_objects() if type(o).__name__ == "Host")
link, birth = host._stream.fileno(), host._birth.fileno()
def say(kind, content, channel="IOPUB", parent=None):
    from cellgate_kernel.message import Channel
    host.post(Channel[channel], kind, content, parent or get_ipython().kernel.get_parent() and current())
from cellgate_kernel.shell import current
def frame(kind, number, body): return struct.pack("<IIQ", len(body), kind, number) + body
"""


async def grab(session: Session) -> None:
    assert (await session.run(GRAB)).status == "ok"


async def test_a_forged_ending_is_believed_of_this_session_alone_and_stops_no_clock(session: Session):
    """It replies to its own cell and goes on running: whoever asked has the answer that this kernel gave, what comes
    after it is dropped, and the sandbox is still ended from outside."""
    await grab(session)
    forged = """
        say("execute_reply", {"status": "ok", "execution_count": 99, "payload": [], "user_expressions": {}}, "SHELL")
        say("status", {"execution_state": "idle"})
        for _ in range(100):
            say("execute_reply", {"status": "error", "ename": "again", "evalue": "", "traceback": []}, "SHELL")
            say("status", {"execution_state": "idle"})
        while True: pass
        """
    result = await session.run(forged)
    assert (result.status, result.reply["execution_count"]) == ("ok", 99)
    behind = await session.run("1+1", wall=0.5)  # the loop runs on, and this waits for it
    assert behind.timed_out
    if behind.certificate is not None:
        session.died(behind, Reason.TIMEOUT_WALL)
    else:
        assert behind.status == "aborted"


async def test_messages_in_anothers_name_go_nowhere(session: Session):
    """Which session a message belongs to is told by the stream it came on, never by what it says."""
    await grab(session)
    forge = """
        class Other:
            def __init__(self, id): self.id, self.key = id, id.encode(); self.header_json = json.dumps(
                {"msg_id": id, "session": "of another", "username": "x", "msg_type": "execute_request",
                 "date": "", "version": "5.3"}).encode()
        for id in ("", "x", "a" * 200, "../../x"):
            say("stream", {"name": "stdout", "text": "forged"}, parent=Other(id))
            say("execute_reply", {"status": "ok"}, "SHELL", parent=Other(id))
            say("input_request", {"prompt": "?", "password": False}, "STDIN", parent=Other(id))
        """
    result = await session.run(forge)
    assert result.status == "ok", result.reply
    assert "forged" not in result.text()
    assert await text_of(session.arena.neighbour, "print('undisturbed')") == "undisturbed\n"


RUBBISH = {
    "noise": "os.write(link, b'\\xff' * 4096)",
    "a huge length": "os.write(link, struct.pack('<IIQ', 0xffffffff, 2, 10**6))",
    "an unknown kind": "os.write(link, frame(77, 0, b''))",
    "a gap in the numbers": "os.write(link, frame(2, 10**6, b'x'))",
    "a number again": "os.write(link, frame(2, 1, b'x'))",
    "an acknowledgement of nothing": "os.write(link, frame(3, 10**9, b''))",
    "a second greeting": "os.write(link, frame(1, 0, struct.pack('<IIIIQ', 1, 1 << 20, 1 << 20, 1000, 0)))",
    "no body": "inject(b'')",
    "a tag alone": "inject(b'', with_tag=True)",
    "an unknown channel": "inject(b'\\xc8\\x01\\x00\\x00' + bytes(100))",
    "a table of a million offsets": "inject(struct.pack('<Q', 1 << 20) + bytes(64), with_tag=True)",
    "offsets that point back": "inject(struct.pack('<8Q', 7, 64, 70, 60, 80, 90, 10, 20), with_tag=True)",
    "offsets beyond the end": "inject(struct.pack('<8Q', 7, 64, *[1 << 62] * 6), with_tag=True)",
}
INJECT = """
from cellgate_kernel.message import Channel, Status, Tag
def inject(body, with_tag=False):
    tag = Tag(Channel.IOPUB, "stream", Status.NONE, current().key).pack() if with_tag else b""
    os.write(link, frame(2, host._link.sent + 1, tag + body))
"""


@pytest.mark.parametrize("what", RUBBISH)
async def test_what_is_no_message_ends_the_sandbox_for_breaking_the_protocol(session: Session, what: str):
    await grab(session)
    await session.run(INJECT)
    result = await session.run(f"{RUBBISH[what]}\ntime.sleep(20)")
    assert session.died(result, Reason.PROTOCOL_VIOLATION).detail


CONTENTS = {
    "not json": "b'{'",
    "not an object": "b'[]'",
    "not utf-8": "b'\\xff\\xff'",
    "deep": "b'[' * 100000 + b']' * 100000",
}


@pytest.mark.parametrize("what", CONTENTS)
async def test_a_message_of_ones_own_cell_that_is_no_json_ends_the_sandbox(session: Session, what: str):
    await grab(session)
    code = (
        "from cellgate_kernel.message import Channel, Status\nparent = current()\n"
        f"parts = [host.composer.header('stream'), parent.header_json, b'{{}}', {CONTENTS[what]}]\n"
        "host.send(Channel.IOPUB, 'stream', Status.NONE, parent.key, parts)\ntime.sleep(20)"
    )
    session.died(await session.run(code), Reason.PROTOCOL_VIOLATION)


async def test_odd_but_lawful_contents_harm_nobody(session: Session):
    await grab(session)
    result = await session.run(
        """
        say("stream", {"name": 7, "text": ["not", "text"]})
        say("execute_result", {"data": "not an object", "metadata": None, "execution_count": "x"})
        say("../../x", {"a": 1}); say("x" * 200, {}); say("shutdown_reply", {"status": "ok"}, "CONTROL")
        say("comm_open", {"comm_id": 7}); say("error", {"ename": None, "evalue": 10**4000, "traceback": "x"})
        "over"
        """
    )
    assert result.certificate is None
    result.text()


async def test_a_lying_kernel_info_is_the_callers_to_read_and_ends_nothing(session: Session):
    await grab(session)
    lie = """
        kernel = get_ipython().kernel
        kernel.info = lambda: {"status": "ok", "protocol_version": "abc", "banner": "x" * 10**6, "language_info": 7,
                               "help_links": [{"text": "x", "url": "javascript:alert(1)"}]}
        """
    await session.run(lie)
    reply = await session.kernel.request("kernel_info_request", timeout=ANSWER_SECONDS)
    assert reply["content"]["protocol_version"] == "abc"


async def test_states_that_it_claims_change_nothing(session: Session):
    """`dead`, `restarting`, busy for ever: the host goes by what it sees of the process."""
    await grab(session)
    await session.run(
        "for state in ('dead', 'restarting', 'starting', 'busy'): say('status', {'execution_state': state})"
    )
    assert [sandbox.id for sandbox in await session.arena.driver.sandboxes()].count(session.sandbox.id) == 1


async def test_a_cell_that_is_never_idle_ends_with_its_time(session: Session):
    await grab(session)
    mute = "host.post = host.send = host.status = lambda *a, **k: None"
    result = await session.run(mute + "\ntype(host).status = lambda *a, **k: None", wall=1)
    if result.certificate is None and not result.timed_out:
        result = await session.run("1", wall=1)
    assert result.timed_out
    session.died(result, Reason.TIMEOUT_WALL)


SILENCERS = {
    "closes all": ("os.closerange(3, 65536)\nwhile True: pass", (Reason.KERNEL_EXIT, Reason.KERNEL_UNRESPONSIVE)),
    "puts null over all": (
        "null = os.open('/dev/null', 2)\nfor fd in range(3, 60):\n  if fd != null: os.dup2(null, fd)\nwhile True: pass",
        (Reason.KERNEL_EXIT, Reason.KERNEL_UNRESPONSIVE, Reason.PROTOCOL_VIOLATION),
    ),
    "shuts its link": ("os.close(link)\nwhile True: pass", (Reason.KERNEL_EXIT, Reason.KERNEL_UNRESPONSIVE)),
    "stops itself": ("os.kill(os.getpid(), signal.SIGSTOP)", (Reason.KERNEL_UNRESPONSIVE,)),
    "stops its group": ("os.killpg(0, signal.SIGSTOP)", (Reason.KERNEL_UNRESPONSIVE,)),
}


@pytest.mark.parametrize("how", SILENCERS)
async def test_a_kernel_that_makes_itself_deaf_is_ended(session: Session, how: str):
    code, reasons = SILENCERS[how]
    await grab(session)
    task = asyncio.create_task(session.run(code, wall=30))
    begin = time.monotonic()
    end = await session.expect_death(*reasons, seconds=UNRESPONSIVE_SECONDS)
    assert time.monotonic() - begin < UNRESPONSIVE_SECONDS
    assert (await task).certificate == end


async def test_standard_descriptors_belong_to_the_cell(session: Session):
    """Closing or replacing 0 to 2 silences the cell and nobody else."""
    result = await session.run("import os\nfor fd in (0, 1, 2): os.close(fd)\n'replied'")
    assert result.value == "'replied'"
    assert await session.text("print('by python')") == "by python\n"


ENDS = {
    "SIGKILL": (Reason.KERNEL_SIGNAL, "os.kill(os.getpid(), 9)"),
    "SIGSEGV": (Reason.KERNEL_SIGNAL, "os.kill(os.getpid(), 11)"),
    "SIGABRT": (Reason.KERNEL_SIGNAL, "os.abort()"),
    "a signal without a name": (Reason.KERNEL_SIGNAL, "os.kill(os.getpid(), 40)"),
    "_exit": (Reason.KERNEL_EXIT, "os._exit(0)"),
    "exit, by libc": (Reason.KERNEL_EXIT, "__import__('ctypes').CDLL(None).exit(5)"),
    "exec": (Reason.KERNEL_EXIT, "os.execv('/bin/true', ['true'])"),
    "its group": (Reason.KERNEL_SIGNAL, "os.killpg(0, 9)"),
    "its parent, which is nobody": (Reason.KERNEL_SIGNAL, "os.kill(os.getppid(), 9)"),
}


@pytest.mark.parametrize("how", ENDS)
async def test_however_it_ends_itself_the_reason_is_told_in_time(session: Session, how: str):
    reason, code = ENDS[how]
    begin = time.monotonic()
    session.died(await session.run(f"import os; {code}"), reason)
    assert time.monotonic() - begin < ANSWER_SECONDS


async def test_process_1_does_not_end_before_the_kernel_and_the_warden_does_not_care(session: Session):
    outcomes = await session.attempts({"kill": "os.kill(1, 9)", "parent": "os.getppid()"})
    assert outcomes == {"kill": "EPERM", "parent": "did: 0"} or outcomes["kill"] == "did: None"


@pytest.mark.parametrize("code", ["exit()", "quit()", "%quit", "raise SystemExit", "import sys; sys.exit(3)"])
async def test_leaving_has_a_defined_meaning(session: Session, code: str):
    """The cell ends; whether the kernel does is said by its certificate, and then it is an exit."""
    result = await session.run(code)
    if result.certificate is None:
        try:
            session.certificate = await asyncio.wait_for(session.sandbox.wait(), 0.5)
        except asyncio.TimeoutError:
            return  # it goes on
        assert session.certificate.reason is Reason.KERNEL_EXIT
    else:
        session.died(result, Reason.KERNEL_EXIT)


async def test_a_shutdown_by_its_own_hand_is_an_exit(session: Session):
    await session.run("get_ipython().kernel.do_shutdown(False)")
    try:
        session.certificate = await asyncio.wait_for(session.sandbox.wait(), 0.5)
    except asyncio.TimeoutError:
        return
    assert session.certificate.reason is Reason.KERNEL_EXIT


async def test_rubbish_on_the_birth_socket_reaches_nobody(session: Session):
    """The warden reads nothing there: what is written waits until it is thrown away, descriptors too."""
    await grab(session)
    flood = """
        sent = 0
        with socket.socket(fileno=os.dup(birth)) as s:
            s.setblocking(False)
            try:
                while True: socket.send_fds(s, [os.urandom(3000)], [0, 1, 2]); sent += 1
            except OSError as error: print(sent > 0)
        """
    assert await session.text(flood) == "True\n"
    link = await session.sandbox.attach()  # the way in still works
    link.close()
    session.certificate = await session.sandbox.destroy()


async def test_a_kernel_that_takes_no_links_is_ended_and_holds_nobody_up(session: Session):
    await grab(session)
    await session.run("time.sleep(0.1)\nthreading.Thread(target=lambda: None).start()")
    task = asyncio.create_task(session.run("os.kill(os.getpid(), signal.SIGSTOP)", wall=60))
    await asyncio.sleep(0.1)
    links = []
    for _ in range(2000):
        try:
            links.append(await asyncio.wait_for(session.sandbox.attach(), ANSWER_SECONDS))
        except Exception:
            break
    else:
        pytest.fail("two thousand links wait for a kernel that takes none")
    for link in links:
        link.close()
    await session.expect_death(Reason.KERNEL_UNRESPONSIVE)
    await task


async def test_a_shut_birth_socket_is_told_when_a_link_is_wanted(session: Session):
    await grab(session)
    await session.run("s = socket.socket(fileno=os.dup(birth)); s.shutdown(socket.SHUT_RDWR); time.sleep(0.3)", wall=3)
    await session.expect_death(Reason.KERNEL_EXIT, Reason.KERNEL_UNRESPONSIVE)


async def test_a_flood_of_lawful_frames_is_bounded_by_who_reads(session: Session):
    """Pings without end, straight into the link: the host answers one of each batch, and goes on serving others."""
    await grab(session)
    flood = """
        end = time.monotonic() + 1.5
        host._stream.setblocking(True)
        stop = frame(4, 0, b"") * 1000
        while time.monotonic() < end: os.write(link, stop[:16])
        """
    result = await session.run(flood, wall=10)
    if result.certificate is not None:  # it wrote into the middle of a frame of the kernel's own
        session.died(result, Reason.PROTOCOL_VIOLATION)


async def test_requests_of_kinds_that_are_not_offered_are_refused(session: Session):
    for kind in ("debug_request", "create_subshell_request", "../../x_request", "usage_request"):
        reply = await session.kernel.request(kind, {}, channel=Channel.CONTROL, timeout=ANSWER_SECONDS)
        assert reply["content"].get("status") == "error", kind


def test_nothing_on_the_host_unpickles_evaluates_or_marshals():
    """What a kernel sends is data: no module of the host's imports what would run it. What the gateway itself says to
    its own workers is pickled; what they say is not."""
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
    free = {"judging.py": {"pickle"}}
    for path in Path(cellgate.__file__ or "").parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if path.name == "fake.py":  # a kernel itself, in the process of whoever tests with it
                continue
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id} & {"eval", "exec"}
                assert not names, f"{path}:{node.lineno}"
                continue
            else:
                continue
            names -= free.get(path.name, set())
            assert not names & forbidden, f"{path}: {names & forbidden}"


async def test_the_wardens_socket_is_not_inside(session: Session):
    """Of two packet sockets a warden holds, the sandbox has its own birth socket alone, and it takes no command."""
    await grab(session)
    code = """
        kinds = []
        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                with socket.socket(fileno=os.dup(fd)) as s: kinds.append((fd, s.type))
            except OSError: pass
        print([fd for fd, kind in kinds if kind == socket.SOCK_SEQPACKET] == [birth])
        os.write(birth, b'{"do":"list","ref":1}')
        print(select.select([birth], [], [], 0.3)[0])
        """
    assert await session.text(code) == "True\n[]\n"


async def test_an_interrupt_while_nothing_runs_is_no_harm(session: Session):
    for _ in range(50):
        await session.sandbox.interrupt()
    first = await session.run("1+1")  # one of them may have come after it was sent
    assert first.status == "ok" or first.reply["ename"] == "KeyboardInterrupt"
    assert await session.value("1+1") == "2"
    await session.run("import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)")
    await session.sandbox.interrupt()
    try:
        session.certificate = await asyncio.wait_for(session.sandbox.wait(), 0.3)
    except asyncio.TimeoutError:
        return
    assert (session.certificate.reason, session.certificate.signal) == (Reason.KERNEL_SIGNAL, signal.SIGINT)
