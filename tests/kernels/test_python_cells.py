"""What user code sees of the Python kernel: no difference to a stock ipykernel."""

from __future__ import annotations

import re

import IPython
import pytest

from cellgate_kernel.message import Channel
from tests.kernels.kernelrig import Zygote


def test_a_cell_is_answered_in_the_order_of_the_specification(client):
    answer = client.execute("print('a'); 1 + 1")
    assert answer.types == ["status", "execute_input", "stream", "execute_result", "execute_reply", "status"]
    assert (answer.text(), answer.result) == ("a\n", "2")
    assert answer.reply == {"status": "ok", "execution_count": 1, "user_expressions": {}, "payload": []}


def test_stdout_and_stderr_keep_the_order_in_which_they_were_written(client):
    answer = client.execute("import sys\nfor i in range(3): print(i); print(i, file=sys.stderr)")
    assert [c["text"] for c in answer.contents("stream")] == ["0\n"] * 2 + ["1\n"] * 2 + ["2\n"] * 2


def test_a_flushed_line_is_a_message_of_its_own(client):
    answer = client.execute("for i in range(50): print(i, flush=True)")
    assert [c["text"] for c in answer.contents("stream")] == [f"{i}\n" for i in range(50)]


def test_what_is_not_flushed_is_joined(client):
    answer = client.execute("for i in range(1000): print(i)")
    assert answer.text() == "".join(f"{i}\n" for i in range(1000))
    assert len(answer.contents("stream")) < 20


def test_unflushed_output_is_seen_while_the_cell_runs(client):
    message_id = client.start("print('now'); import time; time.sleep(60)")
    client.await_text("now")
    client.interrupt()
    assert client.finish(message_id).reply["ename"] == "KeyboardInterrupt"


def test_an_error_has_a_coloured_traceback(client):
    answer = client.execute("def f(n):\n    return 1 / n\n\nf(0)")
    (error,) = answer.contents("error")
    assert error["ename"] == answer.reply["ename"] == "ZeroDivisionError"
    text = "\n".join(error["traceback"])
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "----> 2     return 1 / n" in plain
    assert "f(0)" in plain


def test_a_syntax_error_is_an_error(client):
    assert client.execute("1 +").reply["ename"] == "SyntaxError"


def test_the_session_survives_an_error_and_keeps_its_state(client):
    client.execute("x = 41")
    client.execute("1/0")
    assert client.execute("x + 1").result == "42"


def test_last_results_and_inputs_are_kept(client):
    client.execute("6 * 7")
    assert client.execute("_ + 1").result == "43"
    assert client.execute("Out[1], In[1]").result == "(42, '6 * 7')"


def test_a_fresh_kernel_knows_nothing_of_the_rehearsal(client):
    assert client.execute("len(In), Out, sorted(n for n in dir() if n in 'fCx')").result == "(2, {}, [])"
    assert client.execute("import sys; hasattr(sys, 'last_value'), hasattr(sys, 'last_exc')").result == "(False, False)"


# -- displays ---------------------------------------------------------------------------------------


def test_rich_results(client):
    answer = client.execute("class C:\n    def _repr_html_(self): return '<b>c</b>'\nC()")
    assert answer.contents("execute_result")[0]["data"]["text/html"] == "<b>c</b>"


def test_a_display_is_updated_in_place(client):
    answer = client.execute("h = display(1, display_id=True); h.update(2)")
    (shown,), (updated,) = answer.contents("display_data"), answer.contents("update_display_data")
    assert shown["transient"] == updated["transient"]
    assert (shown["data"]["text/plain"], updated["data"]["text/plain"]) == ("1", "2")


def test_clear_output(client):
    answer = client.execute("from IPython.display import clear_output\nprint('a'); clear_output(wait=True); print('b')")
    assert answer.types[2:5] == ["stream", "clear_output", "stream"]
    assert answer.contents("clear_output") == [{"wait": True}]


def test_images_are_base64(client):
    code = "from IPython.display import Image, display\ndisplay(Image(data=b'\\x89PNG\\r\\n\\x1a\\n123', format='png'))"
    assert client.execute(code).contents("display_data")[0]["data"]["image/png"] == "iVBORw0KGgoxMjM="


def test_matplotlib_draws_inline(client):
    pytest.importorskip("matplotlib")
    answer = client.execute("import matplotlib.pyplot as plt\nplt.plot([1, 2]);", timeout=60)
    assert answer.reply["status"] == "ok"
    assert answer.contents("display_data")[0]["data"]["image/png"].startswith("iVBOR")


def test_hooks_of_display_publishers_are_honoured(client):
    code = """
    from IPython import get_ipython
    seen = []
    def hook(message):
        seen.append(message["msg_type"])
        return None
    pub = get_ipython().display_pub
    pub.register_hook(hook)
    display(1)
    pub.unregister_hook(hook)
    display(2)
    """
    answer = client.execute(code)
    assert [c["data"]["text/plain"] for c in answer.contents("display_data")] == ["2"]
    assert client.execute("seen").result == "['display_data']"


def test_capture_magic(client):
    client.execute("%%capture out\nprint('a'); display(1)")
    assert client.execute("out.stdout, len(out.outputs)").result == "('a\\n', 1)"


# -- the rest of an execute request -------------------------------------------------------------------


def test_user_expressions(client):
    reply = client.execute("x = 5", user_expressions={"good": "x * 2", "bad": "1/0"}).reply
    assert reply["user_expressions"]["good"]["data"]["text/plain"] == "10"
    assert reply["user_expressions"]["bad"]["ename"] == "ZeroDivisionError"


def test_silent_cells_leave_no_trace(client):
    answer = client.execute("5", silent=True, store_history=False)
    assert answer.types == ["status", "execute_reply", "status"]
    assert client.execute("In").result == "['', 'In']"


def test_store_history_false_does_not_count(client):
    client.execute("1", store_history=False)
    assert client.execute("1").reply["execution_count"] == 1


def test_an_error_aborts_what_is_queued(client):
    first = client.start("import time; time.sleep(0.3); 1/0")
    second, third = client.start("print('never')"), client.send("kernel_info_request")
    assert client.finish(first).reply["status"] == "error"
    assert client.finish(second).types == ["status", "execute_reply", "status"]
    client.finish(third)
    assert client.execute("2").result == "2"


def test_an_error_aborts_nothing_if_asked_so(client):
    first = client.start("import time; time.sleep(0.2); 1/0", stop_on_error=False)
    second = client.start("print('still')")
    assert client.finish(first).reply["status"] == "error"
    assert client.finish(second).text() == "still\n"


def test_payloads(client):
    (payload,) = client.execute("print?").reply["payload"]
    assert payload["source"] == "page"
    assert "text/plain" in payload["data"]
    (payload,) = client.execute("get_ipython().set_next_input('x')").reply["payload"]
    assert payload == {"source": "set_next_input", "text": "x", "replace": False}


# -- asynchronous cells, tasks, threads ----------------------------------------------------------------


def test_await_at_top_level(client):
    assert client.execute("import asyncio\nawait asyncio.sleep(0.01, 'done')").result == "'done'"


def test_context_variables_last_from_cell_to_cell(client):
    client.execute("import contextvars; v = contextvars.ContextVar('v'); _t = v.set(5)")
    assert client.execute("v.get()").result == "5"


def test_a_background_task_goes_on_between_cells_in_the_name_of_its_cell(client):
    code = "import asyncio\nasync def f():\n    await asyncio.sleep(0.1); print('late')\n_t = asyncio.create_task(f())"
    first = client.execute(code)
    client.execute("pass")
    message = client.await_text("late")
    assert message.parent["msg_id"] == first.id


def test_a_background_thread_prints_in_the_name_of_its_cell(client):
    code = "import threading\ne = threading.Event()\nthreading.Thread(target=lambda: (e.wait(), print('late'))).start()"
    first = client.execute(code)
    client.execute("e.set()")
    assert client.await_text("late").parent["msg_id"] == first.id


def test_a_thread_displays_in_the_name_of_its_cell(client):
    code = "import threading\ne = threading.Event()\nthreading.Thread(target=lambda: (e.wait(), display(7))).start()"
    first = client.execute(code)
    client.execute("e.set()")
    assert client.await_message(lambda m: m.type == "display_data").parent["msg_id"] == first.id


def test_an_asynchronous_generator_and_a_timer_survive_cells(client):
    client.execute(
        "import asyncio\nasync def g():\n    for i in range(3):\n        yield i\n        await asyncio.sleep(0)"
    )
    assert client.execute("[i async for i in g()]").result == "[0, 1, 2]"


# -- requests beside execute -----------------------------------------------------------------------------


def test_complete(client):
    client.execute("some_name = 1")
    reply = client.request("complete_request", {"code": "some_n", "cursor_pos": 6}).reply
    assert "some_name" in reply["matches"]
    assert (reply["cursor_start"], reply["cursor_end"]) == (0, 6)


def test_inspect(client):
    client.execute("def documented():\n    'says what it does'")
    content = {"code": "documented", "cursor_pos": 4, "detail_level": 0}
    reply = client.request("inspect_request", content).reply
    assert reply["found"]
    assert "says what it does" in reply["data"]["text/plain"]
    assert not client.request("inspect_request", {**content, "code": "nothing_such"}).reply["found"]


def test_is_complete(client):
    for code, status in (("x = 1", "complete"), ("for i in x:", "incomplete"), ("1 + ]", "invalid")):
        assert client.request("is_complete_request", {"code": code}).reply["status"] == status


def test_history(client):
    for code in ("a = 1", "b = 2", "a + b"):
        client.execute(code)
    ask = {"hist_access_type": "tail", "n": 2, "output": False, "raw": True}
    assert [entry[2] for entry in client.request("history_request", ask).reply["history"]] == ["b = 2", "a + b"]
    ask = {"hist_access_type": "range", "session": 0, "start": 1, "stop": 3, "output": False, "raw": True}
    assert [entry[2] for entry in client.request("history_request", ask).reply["history"]] == ["a = 1", "b = 2"]
    ask = {"hist_access_type": "search", "pattern": "*2*", "n": 5, "output": False, "raw": True}
    assert [entry[2] for entry in client.request("history_request", ask).reply["history"]] == ["b = 2"]
    assert "b = 2" in client.execute("%history").text()


def test_kernel_info_claims_what_is_there(client):
    reply = client.request("kernel_info_request").reply
    assert reply["implementation"] == "ipython"
    assert reply["language_info"]["name"] == "python"
    assert reply["supported_features"] == []
    assert reply["protocol_version"] == "5.3"


def test_debugging_is_refused(client):
    content = {"type": "request", "command": "initialize", "seq": 1, "arguments": {}}
    reply = client.request("debug_request", content, Channel.CONTROL).reply
    assert (reply["status"], reply["ename"]) == ("error", "NotSupported")


def test_an_unknown_request_is_answered_with_an_error(client):
    assert client.request("dance_request", {}).reply["status"] == "error"
    assert client.execute("1").result == "1"


def test_a_request_without_its_content_is_answered_with_an_error(client):
    assert client.request("complete_request", {}).reply["status"] == "error"
    assert client.request("execute_request", {}).reply["status"] == "error"
    assert client.execute("1").result == "1"


# -- input ------------------------------------------------------------------------------------------------


def test_input_and_getpass(client):
    asked = []

    def answer(content):
        asked.append((content["prompt"], content["password"]))
        return "Ada"

    client.on_input = answer
    assert client.execute("input('name? ') + '!'").result == "'Ada!'"
    assert client.execute("import getpass; getpass.getpass('secret? ')").result == "'Ada'"
    assert asked == [("name? ", False), ("secret? ", True)]


def test_input_is_refused_where_nobody_answers(client):
    assert client.execute("input()").reply["ename"] == "StdinNotImplementedError"


def test_a_waiting_input_can_be_interrupted(client):
    client.on_input = lambda content: None
    message_id = client.start("input('?')")
    client.await_message(lambda m: m.type == "input_request")
    client.interrupt()
    assert client.finish(message_id).reply["ename"] == "KeyboardInterrupt"
    client.on_input = lambda content: "later"
    assert client.execute("input()").result == "'later'"


def test_the_debugger_of_the_standard_library_asks_through_input(client):
    commands = iter(["p x", "c"])
    client.on_input = lambda content: next(commands)
    answer = client.execute("x = 321\nimport pdb; pdb.set_trace()\ny = 2")
    assert "321" in answer.text()
    assert answer.reply["status"] == "ok"


# -- comms and widgets --------------------------------------------------------------------------------------


def test_a_widget_slides_both_ways(client):
    pytest.importorskip("ipywidgets")
    answer = client.execute("import ipywidgets as w\ns = w.IntSlider(value=3)\ns", timeout=60)
    opened = [m for m in answer.messages if m.type == "comm_open"]
    slider = next(m for m in opened if m.content["data"]["state"].get("_model_name") == "IntSliderModel")
    comm_id = slider.content["comm_id"]
    data = {"method": "update", "state": {"value": 42}, "buffer_paths": []}
    client.send("comm_msg", {"comm_id": comm_id, "data": data})
    assert client.execute("s.value").result == "42"
    answer = client.execute("s.value = 7")
    assert answer.contents("comm_msg")[-1]["data"]["state"] == {"value": 7}
    comms = client.request("comm_info_request", {"target_name": "jupyter.widget"}).reply["comms"]
    assert comm_id in comms


def test_an_asynchronous_cell_may_wait_for_a_comm(client):
    code = """
    import asyncio
    from comm import create_comm
    c = create_comm(target_name="t")
    got = asyncio.Event()
    c.on_msg(lambda message: got.set())
    print("waiting")
    await asyncio.wait_for(got.wait(), 20)
    """
    message_id = client.start(code)
    opened = client.await_message(lambda m: m.type == "comm_open")
    client.start("queued = 1")
    client.send("comm_msg", {"comm_id": opened.content["comm_id"], "data": {}})
    assert client.finish(message_id).reply["status"] == "ok"


def test_buffers_come_and_go(client):
    code = """
    from comm import create_comm
    c = create_comm(target_name="t")
    got = []
    c.on_msg(lambda message: got.append([bytes(b) for b in message["buffers"]]))
    b = bytearray(b"abc")
    c.send({}, buffers=[b, memoryview(b)[1:]])
    b[0] = 0
    """
    answer = client.execute(code)
    (message,) = [m for m in answer.messages if m.type == "comm_msg"]
    assert message.buffers == [b"abc", b"bc"]
    client.send("comm_msg", {"comm_id": message.content["comm_id"], "data": {}}, buffers=[b"x", b""])
    assert client.execute("got").result == "[[b'x', b'']]"


def test_a_comm_to_an_unknown_target_is_closed(client):
    message_id = client.send("comm_open", {"comm_id": "c", "target_name": "nobody", "data": {}})
    message = client.await_message(lambda m: m.type == "comm_close")
    assert message.parent["msg_id"] == message_id


# -- magics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["%pip install nothing", "%conda install nothing", "!pip install nothing"])
def test_installing_says_that_there_is_no_network(client, code):
    answer = client.execute(code, timeout=5)
    assert "no network" in answer.text("stderr") + str(answer.reply)


def test_magics(client, tmp_path):
    assert " per loop " in client.execute("%timeit -n1 -r1 pass").text()
    assert client.execute("%%time\n1+1").result == "2"
    assert client.execute("x = !echo one two\nx.n").result == "'one two'"
    assert client.execute("!echo hello").text().strip() == "hello"
    assert client.execute("%%bash\necho from bash").text() == "from bash\n"
    assert client.execute(f"%%writefile {tmp_path}/written\nabc").reply["status"] == "ok"
    assert (tmp_path / "written").read_text() == "abc\n"


def test_shell_output_is_in_order_with_prints(client):
    answer = client.execute("print('a'); get_ipython().system('echo b'); print('c')")
    assert answer.text().replace("\r", "") == "a\nb\nc\n"


# -- the process that user code finds ------------------------------------------------------------------------


def test_modules_in_the_working_directory_can_be_imported(zygote, tmp_path):
    (tmp_path / "beside.py").write_text("x = 'found'")
    with zygote.kernel({"cwd": str(tmp_path)}) as rig:
        assert rig.client.execute("import beside; beside.x").result == "'found'"


def test_classes_made_in_a_cell_can_be_pickled(client):
    client.execute("class C: pass\nimport pickle")
    assert client.execute("type(pickle.loads(pickle.dumps(C()))) is C, __name__").result == "(True, '__main__')"


def test_nothing_of_the_host_is_in_the_way(client):
    code = "import sys, threading, signal\n"
    code += "(sys.argv, threading.enumerate(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert client.execute(code).result.startswith("([''], [<_MainThread(MainThread")
    assert client.execute("signal.getsignal(signal.SIGINT) is signal.default_int_handler").result == "True"


def test_an_output_widget_can_be_entered(client):
    pytest.importorskip("ipywidgets")
    answer = client.execute("import ipywidgets as w\no = w.Output()\nwith o: print('inside')", timeout=60)
    assert answer.reply["status"] == "ok"
    ids = [c["data"]["state"].get("msg_id") for c in answer.contents("comm_msg")]
    assert ids == [answer.id, ""]


def test_logging_goes_to_stderr(client):
    answer = client.execute("import logging; logging.warning('careful'); logging.getLogger().handlers.clear()")
    assert "careful" in answer.text("stderr")


def test_an_unhandled_error_in_a_thread_is_shown(client):
    answer = client.execute("import threading\nt = threading.Thread(target=lambda: 1/0); t.start(); t.join()")
    assert "ZeroDivisionError" in answer.text("stderr")


@pytest.mark.skipif(IPython.version_info < (9,), reason="needs Python 3.11: IPython 8 leaves %store to a package")
def test_stored_values_go_to_the_profile_of_the_home_directory(zygote, tmp_path):
    with zygote.kernel({"env": {"HOME": str(tmp_path)}}) as rig:
        rig.client.execute("x = 5")
        assert list(tmp_path.iterdir()) == []
        assert rig.client.execute("%store x").reply["status"] == "ok"
        assert (tmp_path / ".ipython" / "profile_default" / "db").is_dir()


# -- the template with data libraries --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_zygote():
    for name in ("numpy", "pandas", "matplotlib"):
        pytest.importorskip(name)
    zygote = Zygote("python-data")
    yield zygote
    zygote.close()


def test_data_libraries_are_there_and_draw(data_zygote):
    with data_zygote.kernel() as rig:
        assert rig.client.execute("import sys; {'numpy', 'pandas', 'matplotlib'} <= set(sys.modules)").result == "True"
        code = "import matplotlib.pyplot as plt\nplt.get_fignums(), plt.plot([1, 2])[0].axes.figure.number"
        answer = rig.client.execute(code)
        assert answer.result == "([], 1)"
        assert len(answer.contents("display_data")) == 1
        assert rig.client.execute("%matplotlib inline\nplt.plot([3]);").contents("display_data")
        frame = rig.client.execute("import pandas\npandas.DataFrame({'a': [1]})").contents("execute_result")[0]
        assert "<table" in frame["data"]["text/html"]


def test_forked_generators_of_numpy_differ(data_zygote):
    seen = set()
    for _ in range(3):
        with data_zygote.kernel() as rig:
            seen.add(rig.client.execute("import numpy; numpy.random.random()").result)
            seen.add(rig.client.execute("numpy.random.default_rng().random()").result)
    assert len(seen) == 6
