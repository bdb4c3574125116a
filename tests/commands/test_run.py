"""`cellgate run` as people and scripts meet it: a process, its streams, its exit status.

The driver is `process`, which starts sooner; what might differ runs with `native` too.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager

import psutil
import pytest

from cellgate.cli import main, make_parser
from cellgate.commands.run import read_limits
from cellgate.commands.sources import MAX_CODE_BYTES, read_code, read_timeout
from cellgate.errors import LimitError, UsageError
from cellgate.sandbox.limits import LIMIT_ROWS, Limits
from tests.support.native import skip_without_native

SECONDS = 60  # a bound on waiting for what takes one or two on an idle host


WARNING = "cellgate: warning: the process driver contains nothing"


def cellgate(
    *words: str, stdin: str | bytes | None = None, driver: str = "process"
) -> subprocess.CompletedProcess[str]:
    """What became of one call, but for the warning that this driver owes."""
    run = subprocess.run(
        [sys.executable, "-m", "cellgate", "run", "--driver", driver, *words],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    said = [line for line in run.stderr.decode().splitlines(keepends=True) if not line.startswith(WARNING)]
    return subprocess.CompletedProcess(run.args, run.returncode, run.stdout.decode(), "".join(said))


@pytest.fixture(params=["process", pytest.param("native", marks=pytest.mark.native)])
def driver(request):
    if request.param == "native":
        skip_without_native()
    return request.param


@contextmanager
def running(code: str, driver: str = "process", **pipes):
    """A call that goes on meanwhile, with a pipe from its standard output; ended at the latest when the test ends."""
    command = [sys.executable, "-m", "cellgate", "run", "--driver", driver, "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, **pipes}
    with subprocess.Popen(command, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


class Terminal:
    """`cellgate run` on a terminal of its own."""

    def __init__(self, *words: str, driver: str = "process") -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cellgate", "run", "--driver", driver, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        os.close(self.master)

    def wait_for(self, text: bytes) -> bytes:
        """What was shown, once `text` is in it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            assert select.select([self.master], [], [], deadline - time.monotonic())[0], self.seen
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:
                raise AssertionError(f"ended without {text!r}: {self.seen!r}") from None
        return self.seen

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> tuple[int, bytes]:
        """The exit status, and all that was shown."""
        while True:
            assert select.select([self.master], [], [], SECONDS)[0], self.seen
            try:
                data = os.read(self.master, 4096)
            except OSError:
                break
            if not data:
                break
            self.seen += data
        return self.process.wait(SECONDS), self.seen


# -- what runs well ---------------------------------------------------------------------------------


def test_what_is_printed_goes_to_standard_output(driver):
    run = cellgate("-c", "print(1+1)", driver=driver)
    assert (run.returncode, run.stdout, run.stderr) == (0, "2\n", "")


def test_the_value_of_the_last_line_is_printed_as_plain_text():
    assert cellgate("-c", "x = 6\nx * 7").stdout == "42\n"


def test_standard_error_goes_to_standard_error():
    run = cellgate("-c", "import sys; print('no', file=sys.stderr)")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "no\n")


def test_code_comes_from_a_file(tmp_path):
    (tmp_path / "code.py").write_text("print('grüße')\n", encoding="utf-8-sig")
    assert cellgate(str(tmp_path / "code.py")).stdout == "grüße\n"


def test_code_comes_from_standard_input():
    assert cellgate("-", stdin="print('from a pipe')").stdout == "from a pipe\n"


def test_no_code_at_all_is_code_that_ran():
    assert cellgate("-c", "").returncode == 0


def test_input_reads_standard_input_line_by_line(driver):
    run = cellgate("-c", "print([input('? '), input()])", stdin="one\ntwo\nthree\n", driver=driver)
    assert run.stdout == "? ['one', 'two']\n"


def test_input_at_the_end_of_standard_input_is_an_eof_error():
    run = cellgate("-c", "input()", stdin="")
    assert run.returncode == 1
    assert "EOFError" in run.stderr


def test_output_comes_as_it_is_printed_not_at_the_end():
    code = "print('first', flush=True); input(); print('second')"
    with running(code, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"first\n"
        process.stdin.write(b"go on\n")
        process.stdin.close()
        assert process.stdout.read() == b"second\n"
        assert process.wait(SECONDS) == 0


def test_all_of_a_long_output_arrives(driver):
    run = cellgate("-c", "for i in range(50_000): print(i)", driver=driver)
    assert run.stdout == "".join(f"{i}\n" for i in range(50_000))


def test_the_driver_that_contains_nothing_says_so():
    command = [sys.executable, "-m", "cellgate", "run", "--driver", "process", "-c", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert run.stderr.startswith(WARNING)
    assert len(run.stderr.splitlines()) == 1


# -- exit statuses ----------------------------------------------------------------------------------


def test_code_that_raises_ends_with_one_and_a_traceback_without_colours(driver):
    run = cellgate("-c", "1/0", driver=driver)
    assert run.returncode == 1
    assert "ZeroDivisionError: division by zero" in run.stderr
    assert "\x1b" not in run.stderr


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [("sys.exit()", 0, ""), ("sys.exit(0)", 0, ""), ("sys.exit(7)", 1, ""), ("sys.exit('no luck')", 1, "no luck")],
)
def test_a_script_that_exits_means_what_it_does_elsewhere(call, status, words):
    run = cellgate("-c", f"import sys; {call}")
    assert run.returncode == status
    assert words in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "usage"),
        (["-c"], "usage"),
        (["-c", "1", "--no-such-flag"], "usage"),
        (["-c", "1", "FILE"], "usage"),
        (["/no/such/file.py"], "usage"),
        (["/"], "usage"),
        (["-c", "1", "--template", "../../etc"], "unknown_template"),
        (["-c", "1", "--memory", "0"], "bad_limit"),
        (["-c", "1", "--memory", "900T"], "bad_limit"),
        (["-c", "1", "--timeout", "nan"], "bad_limit"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_ends_with_two_and_a_stable_code(words, code):
    run = cellgate(*words)
    assert run.returncode == 2
    assert run.stderr.startswith(f"cellgate: error[{code}]: ")
    assert run.stdout == ""


def test_an_unknown_driver_is_a_usage_error():
    assert cellgate("-c", "1", driver="vm").returncode == 2


def test_a_file_that_is_not_utf8_is_a_usage_error(tmp_path):
    (tmp_path / "latin.py").write_bytes("print('grüße')".encode("latin-1"))
    run = cellgate(str(tmp_path / "latin.py"))
    assert run.returncode == 2
    assert "not UTF-8 (byte 9)" in run.stderr


def test_a_kernel_that_dies_ends_with_three_and_says_how(driver):
    run = cellgate("-c", "print('last words', flush=True)\nimport os; os._exit(9)", driver=driver)
    assert run.returncode == 3
    assert run.stdout == "last words\n"
    assert run.stderr.splitlines()[-1].startswith("cellgate: kernel_exit: the kernel exited with status 9")


def test_a_kernel_that_is_killed_ends_with_three_and_names_the_signal(driver):
    run = cellgate("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", driver=driver)
    assert run.returncode == 3
    assert "cellgate: kernel_signal: the kernel was ended by SIGSEGV" in run.stderr


def test_code_that_runs_too_long_is_interrupted_and_ends_with_three(driver):
    run = cellgate(
        "-c", "import time\ntry: time.sleep(60)\nfinally: print('tidied')", "--timeout", "0.5", driver=driver
    )
    assert run.returncode == 3
    assert run.stdout == "tidied\n"
    assert "KeyboardInterrupt" in run.stderr
    assert run.stderr.splitlines()[-1].startswith("cellgate: timeout_wall: ")


def test_code_that_ignores_the_interrupt_is_killed_and_ends_with_three(driver):
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    run = cellgate("-c", code, "--timeout", "0.5", driver=driver)
    assert run.returncode == 3
    assert run.stderr.splitlines()[-1].startswith("cellgate: timeout_wall: ")


@pytest.mark.native
def test_code_that_takes_too_much_memory_ends_with_three_and_says_how_much_it_had():
    skip_without_native()
    run = cellgate("-c", "x = bytearray(300 << 20)", "--memory", "128M", driver="native")
    assert run.returncode == 3
    assert run.stderr.startswith("cellgate: oom: the kernel was killed for memory: limit 128.0 MiB, peak 12")


@pytest.mark.native
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--memory", "1023G"], "bad_limit"),
        (["--cpus", "1024"], "bad_limit"),
        (["--template", "x"], "unknown_template"),
    ],
)
def test_what_this_host_does_not_have_ends_with_two(words, code):
    skip_without_native()
    run = cellgate("-c", "1", *words, driver="native")
    assert run.returncode == 2
    assert run.stderr.startswith(f"cellgate: error[{code}]: ")


@pytest.mark.native
def test_the_data_template_has_its_libraries_loaded():
    skip_without_native()
    run = cellgate("-c", "import sys; 'pandas' in sys.modules", "--template", "python-data", driver="native")
    assert run.stdout == "True\n"


# -- the result object ------------------------------------------------------------------------------


def test_json_is_one_object_with_everything():
    run = cellgate("-c", "print('a'); print('b')\n6*7", "--json", "--memory", "256M")
    result = json.loads(run.stdout)
    assert run.stderr == ""
    assert result["status"] == "ok"
    assert result["exit_status"] == run.returncode == 0
    assert (result["reason"], result["count"], result["stdout"]) == ("ok", 1, "a\nb\n")
    assert result["result"] == result["outputs"][0]["data"] == {"text/plain": "42"}
    assert result["certificate"] is None and result["error"] is None and result["truncated"] is None
    assert result["sandbox"]["driver"] == "process"
    assert result["sandbox"]["limits"]["memory_bytes"] == 256 << 20
    assert set(result["timings"]) == {"driver_seconds", "start_seconds", "run_seconds"}


def test_json_of_code_that_raised_has_the_error():
    run = cellgate("-c", "1/0", "--json")
    result = json.loads(run.stdout)
    assert (run.returncode, result["exit_status"], result["status"]) == (1, 1, "error")
    assert (result["error"]["name"], result["error"]["value"]) == ("ZeroDivisionError", "division by zero")


def test_json_of_a_death_carries_the_certificate():
    result = json.loads(cellgate("-c", "import os; os._exit(9)", "--json").stdout)
    assert (result["status"], result["reason"], result["exit_status"]) == ("error", "kernel_exit", 3)
    assert result["certificate"]["reason"] == "kernel_exit"
    assert result["certificate"]["exit_code"] == 9


def test_json_of_a_usage_error_is_an_object_too():
    run = cellgate("-c", "1", "--pids", "-1", "--json")
    assert json.loads(run.stdout)["error"]["code"] == "bad_limit"
    assert run.returncode == json.loads(run.stdout)["exit_status"] == 2


# -- terminals and signals --------------------------------------------------------------------------


def test_a_sandbox_cannot_steer_the_terminal_but_may_colour_it():
    code = r"print('\x1b]0;owned\x07\x1b[2J\x1b[31mred')"
    with Terminal("-c", code) as terminal:
        status, seen = terminal.end()
    assert status == 0
    assert seen.endswith(b"\r\n\x1b[31mred\r\n\x1b[0m") and b"owned" not in seen


def test_what_is_no_terminal_gets_every_byte():
    assert cellgate("-c", r"print('\x1b]0;title\x07')").stdout == "\x1b]0;title\x07\n"


def test_one_ctrl_c_interrupts_the_code(driver):
    with Terminal("-c", "print('running', flush=True)\nwhile True: pass", driver=driver) as terminal:
        terminal.wait_for(b"running")
        terminal.type(b"\x03")
        status, seen = terminal.end()
    assert status == 1
    assert b"KeyboardInterrupt" in seen


def test_a_second_ctrl_c_ends_the_sandbox(driver):
    code = "import signal\nsignal.signal(signal.SIGINT, lambda *_: print('not yet', flush=True))\n"
    with Terminal("-c", code + "print('running', flush=True)\nwhile True: pass", driver=driver) as terminal:
        terminal.wait_for(b"running")
        terminal.type(b"\x03")
        terminal.wait_for(b"not yet")
        terminal.type(b"\x03")
        status, seen = terminal.end()
    assert status == 3
    assert b"cellgate: session_deleted: " in seen
    assert b"a second Ctrl-C" in seen


def test_a_password_is_asked_for_and_not_shown():
    code = "import getpass; print(len(getpass.getpass('secret: ')))"
    with Terminal("-c", code) as terminal:
        terminal.wait_for(b"secret: ")
        terminal.type(b"hunter2\n")
        status, seen = terminal.end()
    assert status == 0
    assert b"hunter2" not in seen
    assert b"7\r\n" in seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_to_the_command_ends_it_and_leaves_nothing(number, driver):
    code = "print('running', flush=True)\nwhile True: pass"
    with running(code, driver) as process:
        assert process.stdout.readline() == b"running\n"
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        status = process.wait(SECONDS)
    assert status == (1 if number == signal.SIGINT else -number)  # an interrupt goes to the code
    assert children
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_ctrl_c_while_the_code_is_still_awaited_ends_the_command_without_a_word():
    command = [sys.executable, "-m", "cellgate", "run", "--driver", "process", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"#")
        process.stdin.flush()
        while fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)) != bytes(4):  # until it has come to reading
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait(SECONDS) == -signal.SIGINT


def test_a_kill_of_the_command_leaves_no_process(driver, tmp_path):
    """The directory of a `process` sandbox stays, as nobody is left to remove it; here it is pytest's to remove."""
    code = "print('running', flush=True)\nwhile True: pass"
    with running(code, driver, env={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        assert process.stdout.readline() == b"running\n"
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_a_reader_that_goes_away_ends_the_command_as_any_other():
    code = "while True: print('x' * 1000)"
    with running(code, stderr=subprocess.PIPE) as process:
        process.stdout.read(1000)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(SECONDS) == -signal.SIGPIPE
    assert b"Traceback" not in said


# -- the words of the command line ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("67108864", 64 << 20), ("512M", 512 << 20), ("512MiB", 512 << 20), ("1g", 1 << 30), ("65536K", 64 << 20)],
)
def test_a_size_may_be_written_short(text, size):
    assert read_limits({"memory_bytes": text}).memory_bytes == size


@pytest.mark.parametrize("row", LIMIT_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "nan",
        "inf",
        "-inf",
        "1e308",
        "",
        " ",
        "ten",
        "0x10",
        "1e",
        "99999999999999999999",
        "1_000",
        "٣",
        "True",
    ],
)
def test_no_limit_can_be_switched_off_or_made_of_nonsense(row, text):
    with pytest.raises(LimitError) as caught:
        read_limits({row.name: text})
    assert caught.value.name == row.name


def test_limits_not_named_have_their_defaults():
    assert read_limits({"pids": "64", "memory_bytes": None}) == Limits(pids=64)


def test_every_limit_has_a_flag_that_reads_it():
    for row in LIMIT_ROWS:
        args = make_parser().parse_args(["run", "-c", "1", "--" + row.name.replace("_", "-"), str(row.maximum)])
        assert getattr(read_limits(vars(args)), row.name) == row.maximum


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e308", "soon", ""])
def test_a_timeout_is_a_positive_number_of_seconds(text):
    with pytest.raises(LimitError):
        read_timeout(text)


def test_code_of_any_length_is_read_no_further_than_may_be_run(tmp_path):
    with pytest.raises(UsageError, match="longer than 8 MiB"):
        read_code(None, "/dev/zero")
    with pytest.raises(UsageError, match="longer than 8 MiB"):
        read_code("#" * (MAX_CODE_BYTES + 1), None)


def test_our_own_failure_ends_with_four(monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("a bug\x1b[2J")

    monkeypatch.setattr("cellgate.commands.run.execute", broken)
    assert main(["run", "-c", "1"]) == 4
    assert "cellgate: error[internal]: a bug\\x1b[2J" in capsys.readouterr().err
