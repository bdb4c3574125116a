"""How a kernel begins, forks and ends."""

from __future__ import annotations

import signal
import textwrap
import time
from pathlib import Path

import pytest

from cellgate_kernel.message import Channel, Status, Tag
from tests.kernels.kernelrig import cold

# -- beginning -------------------------------------------------------------------------------------------


def test_a_cold_kernel_serves_and_a_setup_is_honoured(tmp_path):
    setup = {
        "env": {"GREETING": "hello", "HOME": str(tmp_path)},
        "cwd": str(tmp_path),
        "startup": "answer = 42",
    }
    with cold(setup) as rig:
        result = rig.client.execute("import os; os.environ['GREETING'], os.getcwd(), answer, os.path.expanduser('~')")
        assert eval(result.result) == (("hello", str(tmp_path), 42, str(tmp_path)))
        assert result.reply["execution_count"] == 1
        assert rig.client.execute("%history -n").reply["status"] == "ok"
        assert list(tmp_path.iterdir()) == []  # no profile, no history, no cache


def test_a_forked_kernel_takes_its_setup_too(zygote, tmp_path):
    with zygote.kernel({"env": {"A": "b"}, "cwd": str(tmp_path), "startup": "print('hi')"}) as rig:
        assert rig.client.execute("import os; print(os.environ['A'], os.getcwd())").text() == f"b {tmp_path}\n"
        assert rig.client.await_text("hi").parent == {}


def test_the_first_status_is_starting(client):
    message = client.await_message(lambda m: m.type == "status")
    assert (message.content["execution_state"], message.tag.status) == ("starting", Status.STARTING)


def test_a_later_setup_is_not_honoured(client):
    client.execute("1")
    client.setup = b"\x81\xa7startup\xa5x = 1"
    client.attach()
    assert client.execute("x").reply["ename"] == "NameError"


def test_a_ping_that_came_with_a_silent_cell_is_answered_while_it_runs(client):
    client.execute("import time")
    client.ahead = client.link.ping(7)
    cell = client.start("time.sleep(2)")
    while not client.pongs:
        client.step()
    assert client.pongs == [7]
    assert "execute_reply" not in [message.type for message in client.received]
    assert client.finish(cell).reply["status"] == "ok"


def test_forked_kernels_differ_in_their_entropy(zygote):
    code = "import os, random, uuid, secrets\n"
    code += "(random.random(), uuid.uuid4(), uuid.uuid1(), secrets.token_hex(), os.urandom(8).hex())"
    seen = set()
    for _ in range(3):
        with zygote.kernel() as rig:
            answer = rig.client.execute(code)
            values = [part.strip(" ()") for part in answer.result.split(",")]
            seen.update(values)
            seen.add(answer.messages[0].header["session"])
    assert len(seen) == 3 * 6


def test_a_kernel_has_two_threads_and_few_descriptors(client):
    assert client.execute("import os; len(os.listdir('/proc/self/task'))").result == "2"
    assert int(client.execute("len(os.listdir('/proc/self/fd'))").result) <= 16


# -- messages that are none ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        [b"{", b"{}", b"{}", b"{}"],
        [b"[]", b"{}", b"{}", b"{}"],
        [b'{"msg_id": 1, "msg_type": "execute_request"}', b"{}", b"{}", b"{}"],
        [b"[" * 100_000, b"{}", b"{}", b"{}"],
        [b"\xff", b"{}", b"{}", b"{}"],
    ],
)
def test_what_is_no_message_is_ignored(client, parts):
    client.execute("")
    client.send_parts(Tag(Channel.SHELL, "execute_request", Status.NONE, b"x"), parts)
    assert client.execute("1").result == "1"


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_broken_content_is_answered_with_an_error(client, content):
    client.execute("")
    header = b'{"msg_id": "m1", "msg_type": "execute_request"}'
    client.send_parts(Tag(Channel.SHELL, "execute_request", Status.NONE, b"m1"), [header, b"{}", b"{}", content])
    assert client.finish("m1").reply["status"] == "error"
    assert client.execute("1").result == "1"


# -- user code that forks ---------------------------------------------------------------------------------------


def test_a_forked_child_prints_and_speaks_no_word_as_the_kernel(client):
    code = """
    import os
    pid = os.fork()
    if pid == 0:
        print("child")
        display("not shown")
    else:
        os.waitpid(pid, 0)
        print("parent")
    """
    answer = client.execute(textwrap.dedent(code))
    assert sorted(answer.text().split()) == ["child", "parent"]
    assert answer.contents("display_data") == []
    assert answer.types.count("execute_reply") == 1
    assert client.execute("1").result == "1"


def test_a_forked_child_that_was_interrupted_before_it_knew_speaks_no_word_as_the_kernel(client):
    """It was killed for words out of order, and the kernel with it: an interrupt of a fork bomb had done that."""
    client.execute("from cellgate_kernel.host import Host\nHost._forget.__code__ = (lambda self: 1 / 0).__code__")
    code = """
import os, sys
pid = os.fork()
if not pid:
    try:
        print("of the child", flush=True)
        display("of the child")
    finally:
        os._exit(7)
os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"""
    assert client.execute(code).result == "7"
    assert client.execute("1 + 1").result == "2"


def test_multiprocessing(client):
    code = """
    import multiprocessing
    def f(x):
        print("in", x)
        return x * x
    with multiprocessing.get_context("fork").Pool(2) as pool:
        r = pool.map(f, [1, 2, 3])
    r
    """
    answer = client.execute(textwrap.dedent(code), timeout=60)
    assert answer.result == "[1, 4, 9]"
    assert sorted(answer.text().split()) == ["1", "2", "3", "in", "in", "in"]


def test_the_link_ends_with_the_kernel_though_a_child_lives(rig, client):
    client.execute("import os, time\nif os.fork() == 0:\n    time.sleep(3)\n    os._exit(0)")
    client.start("import os; os._exit(7)")
    while client.step(timeout=2):
        pass
    assert rig.wait() == 7


# -- ending --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["exit()", "exit", "quit()", "get_ipython().kernel.do_shutdown(False)"])
def test_exit_answers_and_ends_the_kernel(rig, client, code):
    assert client.execute(code).reply["status"] == "ok"
    assert rig.wait() == 0


def test_sys_exit_is_an_error_and_the_kernel_goes_on(client):
    answer = client.execute("import sys; sys.exit(3)")
    assert answer.reply["ename"] == "SystemExit"
    assert client.execute("1").result == "1"


def test_what_is_printed_at_exit_is_seen(rig, client):
    client.execute("import atexit; atexit.register(print, 'last words')")
    client.execute("exit()")
    client.await_text("last words")
    assert rig.wait() == 0


def test_shutdown_ends_an_idle_kernel(rig, client):
    reply = client.request("shutdown_request", {"restart": True}, Channel.CONTROL).reply
    assert reply == {"status": "ok", "restart": True}
    assert rig.wait() == 0


def test_all_output_leaves_before_the_end(rig, client):
    answer = client.execute("for i in range(20000): print(i)\nexit()", timeout=60)
    assert answer.text() == "".join(f"{i}\n" for i in range(20000))
    assert rig.wait() == 0


def test_a_kernel_whose_supervisor_died_ends(rig, client):
    client.execute("1")
    rig.birth.close()
    assert rig.wait(timeout=5) == 69


def test_a_busy_kernel_whose_supervisor_died_ends_too(rig, client):
    client.start("print('begun', flush=True)\nwhile True: pass")
    client.await_text("begun")
    rig.birth.close()
    assert rig.wait(timeout=5) == 69


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import os; os._exit(5)", 5),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.abort()", -signal.SIGABRT),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    ],
)
def test_a_kernel_that_kills_itself_ends_as_it_did(rig, client, code, status):
    client.start(code)
    assert rig.wait() == status


def test_closing_the_kernels_descriptors_ends_only_the_kernel(rig, client):
    client.start("print('begun', flush=True)\nimport os; os.closerange(3, 65536)\nwhile True: pass")
    with pytest.raises(ConnectionError):
        while True:  # as the host side does now and then
            client.stream.sendall(client.link.ping(1))
            time.sleep(0.05)
    assert rig.wait(timeout=10) != 0


def test_output_goes_on_after_the_descriptors_run_out(client):
    code = "fs = []\ntry:\n    while True: fs.append(open('/dev/null'))\nexcept OSError as e: print(e.errno)"
    client.execute("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))")
    assert client.execute(code).text() == "24\n"
    assert client.execute("print('still')").text() == "still\n"
    assert client.execute("[f.close() for f in fs]; 1").result == "1"


def test_memory_that_runs_out_is_an_error(client):
    client.execute("import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))")
    assert client.execute("x = bytearray(1 << 33)").reply["ename"] == "MemoryError"
    assert client.execute("1").result == "1"


def test_the_modules_say_what_they_are_for():
    for path in (Path(__file__).parents[2] / "kernels" / "cellgate_kernel").glob("*.py"):
        assert path.read_text().startswith('"""'), path
