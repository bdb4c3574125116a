"""Other kernels behind the link: bash_kernel and a stock ipykernel, each in its own process beside the host."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.drivers import open_driver
from cellgate_kernel.bridge import EX_NO_KERNEL
from cellgate_kernel.host import MAX_MESSAGE_BYTES
from cellgate_kernel.message import Channel, Status
from tests.support import native
from tests.support.linked_kernel import TIMEOUT_SECONDS, LinkedKernel, text_of

# A kernel that speaks only enough to be joined, and then sends what no kernel should.
BROKEN_KERNEL = """
import json, sys, zmq
where = json.load(open(sys.argv[1]))
def bind(kind, name):
    socket = zmq.Context.instance().socket(kind)
    socket.bind(f"ipc://{where['ip']}-{where[name + '_port']}")
    return socket
shell, control, iopub = bind(zmq.ROUTER, "shell"), bind(zmq.ROUTER, "control"), bind(zmq.PUB, "iopub")
def message(kind, parent, content):
    header = {"msg_id": "1", "msg_type": kind, "session": "s", "username": "u", "date": "", "version": "5.3"}
    return [b"<IDS|MSG>", b"", json.dumps(header).encode(), parent, b"{}", json.dumps(content).encode()]
while True:
    client, _, _, parent, _, _, content = shell.recv_multipart()
    iopub.send_multipart([b"status", *message("status", parent, {"execution_state": "busy"})])
    if b"execute" in parent:
        good = message("stream", parent, {"name": "stdout", "text": "still here"})
        for junk in ([b"x"], [b""] * 9, good[:3], [*good[:2], b"\\xff", *good[3:]], [*good[:2], b"[]", *good[3:]],
                     [*good[:3], b"[]", *good[4:]], [*good[:3], b'{"msg_id": 1}', *good[4:]],
                     [*good[:2], b'{"msg_type": 7}', *good[3:]], [*good[:2], b"[" * 100000, *good[3:]],
                     [*good, *[b""] * 5000]):
            iopub.send_multipart(junk)
        iopub.send_multipart(good)
    kind = json.loads(parent)["msg_type"].replace("request", "reply")
    shell.send_multipart([client, *message(kind, parent, {"status": "ok", "implementation": "broken"})])
    iopub.send_multipart([b"status", *message("status", parent, {"execution_state": "idle"})])
"""


@pytest.fixture(scope="module")
def specs(tmp_path_factory) -> dict[str, str]:
    """Kernelspecs in a folder of their own; the environment that finds them."""
    root = tmp_path_factory.mktemp("specs")
    install = [sys.executable, "-m", "bash_kernel.install", "--prefix", str(root)]
    subprocess.run(install, check=True, capture_output=True)
    script = root / "broken.py"
    script.write_text(BROKEN_KERNEL)
    ipykernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    made: dict[str, dict[str, Any]] = {
        "by-message": {"argv": ipykernel, "interrupt_mode": "message", "env": {"GREETING": "hello ${WHOM}"}},
        "broken": {"argv": ["python", str(script), "{connection_file}"]},
        "dies": {"argv": [sys.executable, "-c", "raise SystemExit(7)"]},
        "absent": {"argv": [str(root / "no-such-program"), "{connection_file}"]},
    }
    for name, spec in made.items():
        folder = root / "share" / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps({"display_name": name, "language": "x", **spec}))
    return {"JUPYTER_PATH": str(root / "share" / "jupyter")}


def wait_for_output(kernel: LinkedKernel, text: str) -> None:
    kernel.pump_until(lambda: text in text_of(list(kernel.waiting[Channel.IOPUB])), repr(text))


def kernel_process(kernel: LinkedKernel) -> psutil.Process:
    (child,) = psutil.Process(kernel.process.pid).children()
    return child


def ended_with(kernel: LinkedKernel) -> int:
    """The status of the host's process, after everything it still sent has been read."""
    while kernel.pump(TIMEOUT_SECONDS) and kernel.socket:
        pass
    return kernel.process.wait(TIMEOUT_SECONDS)


# -- bash ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bash(specs):
    with LinkedKernel("--kernel", "bash", env=specs) as kernel:
        yield kernel


def test_bash_runs_behind_the_link(bash):
    reply, outputs = bash.run("x=42; echo the answer is $x")
    assert reply["content"]["status"] == "ok"
    assert text_of(outputs) == "the answer is 42\n"
    assert [message["msg_type"] for message in outputs] == ["status", "execute_input", "stream", "status"]


def test_bash_keeps_its_state_and_says_what_it_is(bash):
    bash.run("y=kept")
    assert text_of(bash.run("echo $y")[1]) == "kept\n"
    bash.request("kernel_info_request", {})
    info = bash.next(Channel.SHELL)
    assert info["content"]["language_info"]["name"] == "bash"
    assert info["content"]["status"] == "ok"


def test_bash_reports_a_command_that_failed(bash):
    reply, _ = bash.run("false")
    assert reply["content"]["status"] == "error"
    assert reply["tag"].status is Status.ERROR


@pytest.mark.parametrize("way", ["signal", "message"])
def test_bash_is_interrupted(bash, way):
    cell = bash.execute("sleep 600; echo not reached")
    host = psutil.Process(bash.process.pid)  # wait for its grandchild: while bash forks, it forgets a Ctrl-C
    bash.pump_until(lambda: any(p.name() == "sleep" for p in host.children(recursive=True)), "sleep")
    if way == "signal":
        bash.interrupt()
    else:
        bash.request("interrupt_request", {}, Channel.CONTROL)
    _, outputs = bash.finish(cell)
    assert "not reached" not in text_of(outputs)
    assert text_of(bash.run("echo alive")[1]) == "alive\n"


# -- a stock ipykernel --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock():
    with LinkedKernel("--kernel", "python3") as kernel:
        yield kernel


def test_tags_say_what_the_messages_say(stock):
    code = "import sys; print(1); print(2, file=sys.stderr); display(3); 1/0"
    cell = stock.execute(code)
    reply, outputs = stock.finish(cell)
    seen = [(message["tag"].message_type, message["tag"].status.name) for message in [*outputs, reply]]
    assert seen[0] == ("status", "BUSY") and seen[-2] == ("status", "IDLE") and seen[-1] == ("execute_reply", "ERROR")
    assert {name for name, _ in seen} >= {"execute_input", "stream", "display_data", "error"}
    for message in [*outputs, reply]:
        assert message["tag"].message_type == message["msg_type"]
        assert message["tag"].parent_id.decode() == message["parent_header"]["msg_id"] == cell


def test_questions_of_the_bridge_itself_do_not_reach_the_client(stock):
    with LinkedKernel("--kernel", "python3") as fresh:
        fresh.run("1")
        asked = [m for queue in fresh.waiting.values() for m in queue if m["tag"].parent_id]
    assert asked == []


def test_input_is_asked_for_and_answered(stock):
    cell = stock.execute("print('got', input('name? '))", allow_stdin=True)
    question = stock.next(Channel.STDIN)
    assert question["content"]["prompt"] == "name? "
    assert question["tag"].parent_id.decode() == cell
    stock.send(stock.session.msg("input_reply", {"value": "Ada"}, parent=question["header"]), Channel.STDIN)
    assert text_of(stock.finish(cell)[1]) == "got Ada\n"


def test_kernel_info_and_ping_are_answered_while_a_cell_runs(stock):
    cell = stock.execute("print('begun', flush=True); import time; time.sleep(600)")
    wait_for_output(stock, "begun")
    asked = stock.request("kernel_info_request", {})
    reply = stock.next(Channel.SHELL, timeout=5)
    assert reply["parent_header"]["msg_id"] == asked
    stock.ping()
    stock.interrupt()
    reply, _ = stock.finish(cell)
    assert reply["content"]["ename"] == "KeyboardInterrupt"


def test_an_interrupt_while_nothing_runs_is_ignored(stock):
    stock.interrupt()
    stock.request("interrupt_request", {}, Channel.CONTROL)
    assert stock.next(Channel.CONTROL)["content"]["status"] == "ok"
    assert stock.run("2+2")[0]["content"]["status"] == "ok"


def test_every_flushed_line_arrives_in_order(stock):
    _, outputs = stock.run("for i in range(5000): print(i, flush=True)")
    assert text_of(outputs).split() == [str(i) for i in range(5000)]


def test_buffers_pass_both_ways(stock):
    stock.run(
        "from ipykernel.comm import Comm\n"
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda m: comm.send({}, buffers=[bytes(m['buffers'][0])[::-1]]))\n"
        "get_ipython().kernel.comm_manager.register_target('echo', opened)"
    )
    stock.request("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}})
    message = stock.session.msg("comm_msg", {"comm_id": "c", "data": {}})
    message["buffers"] = [b"abc"]
    sent = stock.send(message)
    while True:
        got = stock.next(Channel.IOPUB)
        if got["msg_type"] == "comm_msg" and got["parent_header"]["msg_id"] == sent:
            break
    assert got["buffers"] == [b"cba"]


def test_a_message_that_is_too_large_is_cut_and_a_note_says_so(stock):
    reply, outputs = stock.run(f"display({{'text/plain': 'x' * {MAX_MESSAGE_BYTES + 1}}}, raw=True); 'after'")
    assert reply["content"]["status"] == "ok"
    assert "not shown" in text_of(outputs, "stderr")
    assert any(message["msg_type"] == "execute_result" for message in outputs)


# -- windows and streams ------------------------------------------------------------------------------


def pump_until_stopped(kernel: LinkedKernel) -> psutil.Process:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (children := psutil.Process(kernel.process.pid).children()) or not is_stopped(children[0]):
        assert time.monotonic() < deadline, "it was not stopped"
        kernel.pump(0.02)
    return children[0]


def is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def test_files_are_there_beside_any_kernel_and_variables_are_refused(stock):
    cell = stock.execute("print('begun', flush=True); import time; time.sleep(600)")
    wait_for_output(stock, "begun")
    asked = stock.request("files_request", {"op": "stat", "path": ""}, Channel.CONTROL)
    reply = stock.next(Channel.CONTROL)
    assert (reply["parent_header"]["msg_id"], reply["content"]["type"]) == (asked, "directory")
    stock.interrupt()
    stock.finish(cell)
    reply, _ = stock.finish(stock.request("variables_request", {}))
    assert reply["content"]["ename"] == "NotSupported"
    assert stock.run("2+2")[0]["content"]["status"] == "ok"


def test_a_kernel_whose_output_nobody_takes_is_stopped_and_loses_nothing():
    """It stands still, instead of filling memory or dropping beyond ZMQ's mark, until there is room."""
    with LinkedKernel("--kernel", "python3", auto_ack=False) as kernel:
        lines, line = 20_000, "x" * 1000
        cell = kernel.execute(f"for i in range({lines}): print(i, '{line}', flush=True)")
        pump_until_stopped(kernel)
        assert psutil.Process(kernel.process.pid).memory_info().rss < 200 << 20
        kernel.ping()
        kernel.auto_ack = True
        kernel._out += kernel.link.acknowledge()
        reply, outputs = kernel.finish(cell)
        assert reply["content"]["status"] == "ok"
        numbers = [row.split()[0] for row in text_of(outputs).splitlines()]
        assert numbers == [str(i) for i in range(lines)]


def test_a_kernel_that_dies_while_it_is_stopped_is_noticed():
    with LinkedKernel("--kernel", "python3", auto_ack=False) as kernel:
        kernel.execute("while True: print('x' * 1000, flush=True)")
        pump_until_stopped(kernel).kill()
        assert ended_with(kernel) == -signal.SIGKILL


def test_a_stream_that_breaks_in_mid_cell_loses_and_repeats_nothing(stock):
    cell = stock.execute("import time\nfor i in range(200): print(i, flush=True); time.sleep(0.002)")
    for _ in range(5):
        before = stock.link.received
        stock.pump_until(lambda before=before: stock.link.received > before + 10, "output")
        stock.attach()
    _, outputs = stock.finish(cell)
    assert text_of(outputs).split() == [str(i) for i in range(200)]


# -- setup, and how it ends ---------------------------------------------------------------------------


def test_the_setup_chooses_the_kernel_and_comes_before_any_code(specs, tmp_path):
    setup = {
        "kernel": "by-message",
        "env": {"WHOM": "Ada"},
        "cwd": str(tmp_path),
        "startup": "import os; told = os.environ['GREETING']",
    }
    with LinkedKernel(setup=setup, env=specs) as kernel:
        _, outputs = kernel.run("print(told, os.getcwd())")
        assert text_of(outputs) == f"hello Ada {tmp_path}\n"
        assert kernel.run("1")[0]["content"]["execution_count"] == 2


def test_a_kernelspec_that_asks_for_messages_is_interrupted_by_one(specs):
    with LinkedKernel("--kernel", "by-message", env=specs) as kernel:
        cell = kernel.execute("print('begun', flush=True); import time; time.sleep(600)")
        wait_for_output(kernel, "begun")
        kernel.interrupt()
        assert kernel.finish(cell)[0]["content"]["ename"] == "KeyboardInterrupt"


def test_junk_from_a_kernel_is_passed_over(specs):
    with LinkedKernel("--kernel", "broken", env=specs) as kernel:
        reply, outputs = kernel.run("anything")
        assert reply["content"]["status"] == "ok"
        assert "still here" in text_of(outputs)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("import os; os._exit(3)", 3),
        ("import os; os._exit(0)", 0),
    ],
)
def test_the_host_ends_as_its_kernel_did(code, status):
    with LinkedKernel("--kernel", "python3") as kernel:
        kernel.execute(f"print('last words', flush=True); import time; time.sleep(0.1); {code}")
        assert ended_with(kernel) == status
        assert "last words" in text_of(list(kernel.waiting[Channel.IOPUB]))


def test_shutdown_is_answered_and_ends_all():
    with LinkedKernel("--kernel", "python3") as kernel:
        kernel.run("1")
        child = kernel_process(kernel)
        kernel.request("shutdown_request", {"restart": False}, Channel.CONTROL)
        assert kernel.next(Channel.CONTROL)["content"] == {"status": "ok", "restart": False}
        assert ended_with(kernel) == 0
        assert not child.is_running()


def test_nothing_outlives_a_host_that_was_killed(tmp_path):
    with LinkedKernel("--kernel", "python3") as kernel:
        kernel.run("1")
        child = kernel_process(kernel)
        kernel.process.kill()
        child.wait(TIMEOUT_SECONDS)


def test_its_folder_is_private_and_goes_with_it(tmp_path):
    with LinkedKernel("--kernel", "python3", env={"TMPDIR": str(tmp_path)}) as kernel:
        kernel.run("1")
        (folder,) = tmp_path.glob("cellgate-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        kernel.execute("import os; os._exit(1)")
        ended_with(kernel)
        assert not folder.exists()


@pytest.mark.parametrize(("name", "status"), [("nobody-has-this", EX_NO_KERNEL), ("absent", EX_NO_KERNEL), ("dies", 7)])
def test_a_kernel_that_does_not_start_ends_the_host_with_a_status_that_tells(specs, name, status):
    with LinkedKernel("--kernel", name, env=specs) as kernel:
        assert ended_with(kernel) == status
        assert not any(kernel.waiting.values())


# -- in a sandbox -------------------------------------------------------------------------------------


def test_a_bridged_kernel_runs_and_dies_in_a_native_sandbox():
    """Its seccomp filter once made libzmq abort: every ipykernel binds a TCP port at its start."""
    native.skip_without_native()

    async def cells() -> tuple[str, str, DeathCertificate]:
        driver = await open_driver("native")
        try:
            sandbox = await driver.create(SandboxSpec(use_pool=False))
            async with KernelClient(sandbox, setup={"kernel": "python3"}) as kernel:
                printed = await kernel.execute("for i in range(1000): print(i, flush=True)", timeout=TIMEOUT_SECONDS)
                begun = asyncio.Event()
                code = "print(flush=True); import time; time.sleep(600)"
                cell = asyncio.create_task(kernel.execute(code, timeout=60, on_output=lambda _: begun.set()))
                await asyncio.wait_for(begun.wait(), TIMEOUT_SECONDS)
                await sandbox.interrupt()
                interrupted = await cell
                await kernel.execute("import os; os.kill(os.getpid(), 11)", timeout=TIMEOUT_SECONDS)
            text = "".join(m["content"]["text"] for m in printed.outputs if m["msg_type"] == "stream")
            assert text.split() == [str(i) for i in range(1000)]
            return printed.status, interrupted.reply["ename"], await sandbox.wait()
        finally:
            await driver.close()

    status, name, certificate = asyncio.run(cells())
    assert (status, name) == ("ok", "KeyboardInterrupt")
    assert (certificate.reason, certificate.signal) == (Reason.KERNEL_SIGNAL, signal.SIGSEGV)
