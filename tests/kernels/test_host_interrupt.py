"""Interrupts, and what is answered while a cell runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import pytest

from cellgate_kernel.message import Channel

DEAF_TO_NOTHING = {
    "python": "while True: pass",
    "sleep": "import time; time.sleep(1e6)",
    "select": "import select; select.select([], [], [])",
    "lock": "import threading; threading.Lock().acquire(); l = threading.Lock(); l.acquire(); l.acquire()",
    "child": "import subprocess; subprocess.run(['sleep', '1000'])",
    "shell": "!sleep 1000",
    "await": "import asyncio\nawait asyncio.sleep(1e6)",
    "await-python": "import asyncio\nawait asyncio.sleep(0)\nwhile True: pass",
    "print": "while True: print('x', flush=True)",
    "display": "while True: display(1)",
    "join": "import threading as T; t = T.Thread(target=T.Event().wait, daemon=True); t.start(); t.join()",
}


@pytest.mark.parametrize("code", DEAF_TO_NOTHING.values(), ids=DEAF_TO_NOTHING)
def test_an_interrupt_ends_the_cell_and_not_the_session(client, code):
    client.execute("x = 5")
    message_id = client.start(f"print('begun', flush=True)\n{code}")
    client.await_text("begun")
    time.sleep(0.05)  # well into it; any moment would do
    client.interrupt()
    answer = client.finish(message_id)
    if "!" not in code:  # a shell command that is interrupted is no error in IPython
        assert answer.reply["status"] == "error"
        assert answer.reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert client.execute("x").result == "5"


def test_an_interrupt_from_outside_does_the_same(rig, client):
    message_id = client.start("print('begun', flush=True)\nwhile True: pass")
    client.await_text("begun")
    os.kill(rig.pid, signal.SIGINT)
    assert client.finish(message_id).reply["ename"] == "KeyboardInterrupt"


def test_an_interrupt_while_nothing_runs_does_nothing(rig, client):
    client.execute("x = 1")
    client.interrupt()
    os.kill(rig.pid, signal.SIGINT)
    client.request("is_complete_request", {"code": "1"})  # so that the signal has been taken
    assert client.execute("x").result == "1"


def test_an_interrupt_hits_a_cell_that_was_sent_and_has_not_begun(client):
    client.execute("")
    for _ in range(20):
        message_id = client.start("while True: pass")
        client.interrupt()
        assert client.finish(message_id).reply["ename"] == "KeyboardInterrupt"


def test_a_cell_that_ignores_interrupts_can_and_the_next_cell_does_not(client):
    client.execute("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    message_id = client.start("print('begun', flush=True)\nwhile True: pass")
    client.await_text("begun")
    client.interrupt()
    assert client.finish(message_id).reply["ename"] == "KeyboardInterrupt"


def test_every_cell_has_one_reply_wherever_interrupts_strike(rig, client):
    """Signals by the thousand, between cells and in every part of them."""
    stop = threading.Event()

    def strike():
        while not stop.wait(0.0007):
            os.kill(rig.pid, signal.SIGINT)

    striker = threading.Thread(target=strike)
    striker.start()
    outcomes = Counter()
    try:
        for n in range(300):
            answer = client.execute(f"for i in range(20): print({n})\n{n}", stop_on_error=False)
            assert answer.types.count("execute_reply") == 1
            assert answer.types.count("status") == 2
            outcomes[answer.reply["status"]] += 1
    finally:
        stop.set()
        striker.join()
    assert outcomes["error"]
    client.request("is_complete_request", {"code": "1"})
    assert client.execute("1").result == "1"


def test_an_interrupt_ends_a_callback_of_a_widget(client):
    code = "from comm import create_comm\nc = create_comm(target_name='t')\n"
    code += "def spin(message):\n    print('begun', flush=True)\n    while True: pass\nc.on_msg(spin)"
    opened = next(m for m in client.execute(code).messages if m.type == "comm_open")
    message_id = client.send("comm_msg", {"comm_id": opened.content["comm_id"], "data": {}})
    client.await_text("begun")
    client.interrupt()
    client.await_status("idle", message_id)
    assert client.execute("1").result == "1"


def test_cancelling_every_task_leaves_the_kernel(client):
    code = "import asyncio\nfor t in asyncio.all_tasks(): t.cancel()"
    assert client.execute(code).reply["status"] == "ok"
    assert client.execute("1").result == "1"
    assert client.execute(f"{code}\nawait asyncio.sleep(0.1)").reply["status"] == "error"
    assert client.execute("1").result == "1"


def test_stopping_the_loop_leaves_the_kernel(client):
    client.execute("import asyncio; asyncio.get_event_loop().stop()")
    assert client.execute("1").result == "1"


def test_output_is_whole_after_many_interrupts(client):
    """No frame is torn and none is lost wherever an interrupt strikes."""
    client.execute("n = 0")
    code = "while True:\n    n += 1; print(n, flush=True)"
    texts = []
    for _ in range(40):
        message_id = client.start(code)
        client.await_text("\n")
        client.interrupt()
        texts.append(client.finish(message_id).text())
    assert client.execute("n").reply["status"] == "ok"


def test_alarms_that_raise_leave_output_whole(client):
    code = """
    import signal, sys
    class Alarm(Exception): pass
    def ring(*_): raise Alarm
    signal.signal(signal.SIGALRM, ring)
    rings = 0
    n = 0
    while rings < 300:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005)
            while True:
                sys.stdout.write(f'{n}\\n'); sys.stdout.flush(); n += 1
        except Alarm:
            rings += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    """
    answer = client.execute(code, timeout=60)
    assert answer.reply["status"] == "ok"
    seen = [int(line) for line in answer.text().split()]
    assert sorted(set(seen)) == list(range(max(seen) + 1))
    assert client.execute("n").reply["status"] == "ok"


def test_control_is_answered_while_a_cell_runs(client):
    message_id = client.start("print('begun', flush=True)\nwhile True: pass")
    client.await_text("begun")
    begin = time.monotonic()
    for channel in (Channel.SHELL, Channel.CONTROL):
        assert client.request("kernel_info_request", {}, channel).reply["status"] == "ok"
    client.stream.sendall(client.link.ping(77))
    while not client.pongs:
        client.step()
    assert client.pongs == [77]
    assert time.monotonic() - begin < 2
    client.interrupt()
    client.finish(message_id)


def test_shutdown_is_answered_and_ends_a_running_cell(rig, client):
    client.start("print('begun', flush=True)\nwhile True: pass")
    client.await_text("begun")
    assert client.request("shutdown_request", {"restart": False}, Channel.CONTROL).reply["restart"] is False
    assert rig.wait() == 0


def test_shutdown_ends_even_a_cell_that_ignores_interrupts(rig, client):
    client.start(
        "print('begun', flush=True)\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass"
    )
    client.await_text("begun")
    client.request("shutdown_request", {"restart": True}, Channel.CONTROL)
    assert rig.wait() == 0


def test_requests_beyond_the_queue_are_refused(client):
    message_id = client.start("print('begun', flush=True)\nimport time; time.sleep(1e6)")
    client.await_text("begun")
    queued = [client.start("1") for _ in range(1024)]
    refused = client.execute("1")
    assert refused.reply["ename"] == "queue_full"
    assert refused.types == ["status", "error", "execute_reply", "status"]
    client.interrupt()
    client.finish(message_id)
    for one in queued:
        assert client.finish(one).reply["status"] == "aborted"
    assert client.execute("1").result == "1"
