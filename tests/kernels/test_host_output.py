"""Output of every kind and size arrives whole, in order, as valid JSON, in the name of its cell."""

from __future__ import annotations

import hashlib
import textwrap

import pytest

from cellgate_kernel.host import MAX_MESSAGE_BYTES
from cellgate_kernel.link import LinkLimits
from cellgate_kernel.outbox import MAX_TEXT

# -- below Python's streams ---------------------------------------------------------------------------


def test_what_is_written_to_the_descriptors_is_shown_before_the_reply(client):
    answer = client.execute("import os\n_ = os.write(1, b'out'), os.write(2, b'err')")
    assert (answer.text("stdout"), answer.text("stderr")) == ("out", "err")
    assert answer.types[-2:] == ["execute_reply", "status"]


def test_children_write_in_the_name_of_the_running_cell(client):
    client.execute("import subprocess")
    for word in ("one", "two"):
        assert client.execute(f"_ = subprocess.run(['echo', '{word}'])").text() == f"{word}\n"


def test_c_code_writes_too(client):
    assert (
        client.execute("import ctypes; l = ctypes.CDLL(None); l.puts(b'from C'); l.fflush(None)").text() == "from C\n"
    )


def test_a_child_that_outlives_its_cell_goes_on_writing(client):
    first = client.execute("import subprocess; _ = subprocess.Popen(['sh', '-c', 'sleep 0.3; echo late'])")
    assert client.await_text("late").parent["msg_id"] == first.id


def test_bytes_that_are_no_text_are_replaced(client):
    answer = client.execute("import os; _ = os.write(1, b'a\\xffb\\x00\\xe2\\x82')")
    assert answer.text() == "a\ufffdb\x00\ufffd"


def test_a_character_that_arrives_in_halves_is_whole(client):
    code = "import os, time; os.write(1, b'\\xe2\\x82'); time.sleep(0.1); _ = os.write(1, b'\\xac')"
    assert client.execute(code).text() == "\u20ac"


def test_a_flood_from_a_child_is_complete(client):
    answer = client.execute("import subprocess; _ = subprocess.run(['seq', '300000'])", timeout=60)
    assert answer.text() == "".join(f"{i}\n" for i in range(1, 300001))


def test_sys_stdout_buffer_writes_bytes(client):
    assert client.execute("import sys; _ = sys.stdout.buffer.write(b'raw')").text() == "raw"


def test_stdin_reads_nothing(client):
    assert client.execute("import sys; sys.stdin.read()").result == "''"


# -- floods ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2_000, 20_000])
def test_every_flushed_line_arrives(client, count):
    answer = client.execute(f"for i in range({count}): print(i, flush=True)", timeout=90)
    assert [c["text"] for c in answer.contents("stream")] == [f"{i}\n" for i in range(count)]


def test_every_printed_line_arrives(client):
    answer = client.execute("for i in range(200000): print(i)", timeout=90)
    assert answer.text() == "".join(f"{i}\n" for i in range(200000))


def test_every_display_arrives_and_the_error_after_them(client):
    answer = client.execute("for i in range(20000): display(i)\n1/0", timeout=90)
    assert [c["data"]["text/plain"] for c in answer.contents("display_data")] == [str(i) for i in range(20000)]
    assert answer.reply["ename"] == "ZeroDivisionError"


def test_threads_that_print_at_once_lose_nothing(client):
    code = """
    import sys, threading
    def f(k):
        for i in range(2000): sys.stdout.write(f"{k}-{i}\\n"); sys.stdout.flush()
    ts = [threading.Thread(target=f, args=(k,)) for k in range(8)]
    for t in ts: t.start()
    for t in ts: t.join()
    """
    answer = client.execute(textwrap.dedent(code), timeout=90)
    assert set(answer.text().split()) == {f"{k}-{i}" for k in range(8) for i in range(2000)}


def test_a_signal_handler_may_print_in_the_middle_of_a_print(client):
    code = """
    import signal, sys
    rings = 0
    def ring(*_):
        global rings
        rings += 1
        sys.stdout.write("ring\\n")
    _ = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    while rings < 500: sys.stdout.write("line\\n")
    signal.setitimer(signal.ITIMER_REAL, 0)
    rings
    """
    answer = client.execute(textwrap.dedent(code), timeout=60)
    assert answer.text().split().count("ring") == int(answer.result)


def test_finalizers_may_print_wherever_the_collector_runs(client):
    code = """
    import gc, sys
    class C:
        def __del__(self): sys.stdout.write("gone\\n" * 100)
    before = gc.get_threshold()
    gc.set_threshold(5)
    for _ in range(2000):
        c = C(); c.c = c; del c
        sys.stdout.write("x\\n"); sys.stdout.flush()
    gc.set_threshold(*before); _ = gc.collect()
    """
    assert client.execute(textwrap.dedent(code), timeout=60).text().count("gone") == 200_000


# -- large ------------------------------------------------------------------------------------------------


def test_one_long_line_comes_in_bounded_messages(client):
    answer = client.execute("import sys; _ = sys.stdout.write('0123456789' * 3_000_000)", timeout=90)
    texts = [c["text"] for c in answer.contents("stream")]
    assert "".join(texts) == "0123456789" * 3_000_000
    assert max(map(len, texts)) <= MAX_TEXT


def test_a_display_that_is_too_large_is_told_with_size_and_hash(client):
    size = MAX_MESSAGE_BYTES + 1
    answer = client.execute(f"display({{'text/plain': 'x' * {size}}}, raw=True)", timeout=60)
    (shown,) = answer.contents("display_data")
    assert "8388608 bytes" in shown["data"]["text/plain"]
    assert "sha256 " in shown["data"]["text/plain"]
    assert "not shown" in answer.text("stderr")
    assert answer.reply["status"] == "ok"
    content = b'{"data":{"text/plain":"' + b"x" * size + b'"},"metadata":{},"transient":{}}'
    assert hashlib.sha256(content).hexdigest() in shown["data"]["text/plain"]


def test_a_result_that_is_too_large_keeps_its_count(client):
    answer = client.execute(f"class C:\n    def __repr__(self): return 'x' * {MAX_MESSAGE_BYTES + 1}\nC()", timeout=60)
    (result,) = answer.contents("execute_result")
    assert result["execution_count"] == 1
    assert "not shown" in result["data"]["text/plain"]


def test_buffers_that_are_too_large_are_told(client):
    code = f"from comm import create_comm\ncreate_comm(target_name='t', buffers=[bytes({MAX_MESSAGE_BYTES})])"
    answer = client.execute(code, timeout=60)
    assert "comm_open" in answer.text("stderr")
    assert client.execute("1").result == "1"


def test_an_enormous_error_still_ends_the_cell(client):
    answer = client.execute(f"raise ValueError('x' * {2 * MAX_MESSAGE_BYTES})", timeout=60)
    assert answer.reply["status"] == "error"
    assert answer.reply["ename"] == "ValueError"
    assert client.execute("1").result == "1"


def test_what_this_peer_does_not_take_is_told(zygote):
    with zygote.kernel(limits=LinkLimits(max_body_bytes=1 << 20)) as rig:
        answer = rig.client.execute("display({'text/plain': 'x' * (2 << 20)}, raw=True)")
        assert "display_data not shown" in answer.text("stderr")
        assert answer.reply["status"] == "ok"


# -- hostile values -------------------------------------------------------------------------------------------

VALUES = {
    "lone surrogates": ("'a\\ud800b'", "a\ufffdb"),
    "a pair of surrogates": ("'\\ud83d\\ude00'", "\U0001f600"),
    "nul and controls": ("'\\x00\\x01\\x1b[31m'", "\x00\x01\x1b[31m"),
    "not a number": ("float('nan')", "nan"),
    "infinity": ("[float('inf'), 1.5]", ["inf", 1.5]),
    "bytes": ("b'abc'", "YWJj"),
    "a set": ("{1}", [1]),
    "a tuple key": ("{(1, 2): 3}", {"(1, 2)": 3}),
    "a huge integer": ("10 ** 5000", "<integer of 16610 bits>"),
    "an unknown object": ("object", "<class 'object'>"),
}


@pytest.mark.parametrize(("expression", "shown"), VALUES.values(), ids=VALUES)
def test_what_json_cannot_say_is_made_to_fit(client, expression, shown):
    answer = client.execute(f"display({{'application/json': {expression}}}, raw=True)")
    assert answer.contents("display_data")[0]["data"]["application/json"] == shown


@pytest.mark.parametrize("value", ["x = []\nfor _ in range(100_000): x = [x]", "x = []; x.append(x)"])
def test_nesting_without_end_becomes_a_note(client, value):
    answer = client.execute(f"{value}\ndisplay({{'application/json': x}}, raw=True)")
    assert answer.reply["status"] == "ok" or answer.reply["ename"] == "RecursionError"
    assert client.execute("1").result == "1"


@pytest.mark.parametrize("text", ["'a\\ud800b\\n'", "'\\x00\\r' * 100_000", "'\\u2028\\ufeff\\U0010ffff'"])
def test_any_text_can_be_printed(client, text):
    answer = client.execute(f"import sys; _ = sys.stdout.write({text})")
    assert answer.text() == eval(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_a_message_of_the_users_own_making_is_valid(client):
    code = """
    k = get_ipython().kernel
    k.session.send(k.iopub_socket, 'odd "type"', {'x': 1}, parent=k.get_parent())
    """
    answer = client.execute(textwrap.dedent(code))
    assert 'odd "type"' in answer.types


def is_ended(stream):
    """Wait for the other end to close it."""
    stream.settimeout(5)
    try:
        while stream.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


# -- back-pressure and resuming ----------------------------------------------------------------------------------


def test_a_peer_that_does_not_acknowledge_stops_print_and_loses_nothing(zygote):
    with zygote.kernel(limits=LinkLimits(window_bytes=1 << 16, window_frames=64)) as rig:
        client = rig.client
        client.execute("n = 0")
        client.auto_ack = False
        message_id = client.start("for i in range(3000): n = i; print('x' * 1000, i, flush=True)")
        with pytest.raises(TimeoutError):
            while True:
                client.step(timeout=0.5)
        assert sum(m.type == "stream" for m in client.received) <= 64
        assert client.link.received  # control still passes
        client.stream.sendall(client.link.ping(1))
        client.step()
        assert client.pongs == [1]
        client.auto_ack = True
        client.acknowledge()
        numbers = [int(c["text"].split()[1]) for c in client.finish(message_id).contents("stream")]
        assert numbers == list(range(3000))


def test_a_cell_held_by_a_full_window_can_be_interrupted(zygote):
    with zygote.kernel(limits=LinkLimits(window_bytes=1 << 16, window_frames=64)) as rig:
        client = rig.client
        client.execute("")
        client.auto_ack = False
        message_id = client.start("while True: print('x' * 1000, flush=True)")
        with pytest.raises(TimeoutError):
            while True:
                client.step(timeout=0.3)
        client.send("interrupt_request", {})
        client.auto_ack = True
        client.acknowledge()
        assert client.finish(message_id).reply["ename"] == "KeyboardInterrupt"


def test_a_new_stream_goes_on_where_the_old_one_broke(client):
    message_id = client.start("for i in range(5000): print(i, flush=True)")
    client.read_bytes = 5000
    for _ in range(10):
        for _ in range(3):
            client.step()
        client.attach()
    texts = [c["text"] for c in client.finish(message_id).contents("stream")]
    assert texts == [f"{i}\n" for i in range(5000)]


def test_a_kernel_without_a_gateway_runs_on_and_keeps_its_output(rig, client):
    message_id = client.start("print('begun', flush=True); import time; time.sleep(0.3)\nfor i in range(100): print(i)")
    client.await_text("begun")
    client.detach()
    import time

    time.sleep(0.6)
    client.attach()
    assert client.finish(message_id).text().endswith("".join(f"{i}\n" for i in range(100)))


def test_the_newest_stream_replaces_the_one_before(client):
    old = client.stream
    client.stream = None
    client.attach()
    assert client.execute("1").result == "1"
    assert is_ended(old)
    old.close()


def test_a_broken_frame_drops_the_stream_and_not_the_kernel(client):
    client.execute("x = 3")
    client.stream.sendall(b"\xff" * 64)
    assert is_ended(client.stream)
    client.attach()
    assert client.execute("x").result == "3"


def test_what_was_printed_is_not_kept(client):
    """IPython 9 keeps a copy of every stream's text for `%notebook`: some cells of output ended a sandbox."""
    client.execute("for _ in range(20): print('x' * 1_000_000)", timeout=60)
    code = "sum(len(str(kept)) for kept in getattr(get_ipython().history_manager, 'outputs', {}).values()) < 100_000"
    assert client.execute(code).result == "True"
