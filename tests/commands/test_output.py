"""What a person sees of each kind of output, and how a program gets them."""

from __future__ import annotations

import asyncio
import io

import pytest

from cellgate.commands.output import Printer, as_event, as_text
from cellgate.terminal import one_line


def message(msg_type, **content):
    return {"msg_type": msg_type, "content": content}


def show(printer, output):
    printer.show(as_event(output))


def text_of(output):
    event = as_event(output)
    return event and as_text(event)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (message("stream", name="stdout", text="a"), ("stdout", "a")),
        (message("stream", name="stderr", text="b\n"), ("stderr", "b\n")),
        (message("execute_result", data={"text/plain": "42", "text/html": "<b>42</b>"}), ("stdout", "42\n")),
        (message("display_data", data={"text/plain": "<Figure>", "image/png": "iVBO"}), ("stdout", "<Figure>\n")),
        (message("display_data", data={"image/png": "iVBO"}), ("stdout", "[image/png]\n")),
        (message("update_display_data", data={"text/plain": "50 %"}), ("stdout", "50 %\n")),
        (message("error", ename="E", evalue="v", traceback=["one", "two"]), ("stderr", "one\ntwo\n")),
        (message("error", ename="E", evalue="v", traceback=[]), ("stderr", "E: v\n")),
        (message("clear_output", wait=True), None),
        (message("comm_open", comm_id="1"), None),
        (message("status", execution_state="idle"), None),
    ],
)
def test_each_kind_of_output_has_its_stream_and_text(output, expected):
    assert text_of(output) == expected


@pytest.mark.parametrize(
    "output",
    [
        message("stream"),
        message("stream", name=["stdout"], text={"not": "text"}),
        message("display_data", data="no mapping"),
        message("display_data", data={"text/plain": ["a", 1]}),
        message("error", traceback="no list"),
        message("error", traceback=[None, 1]),
        message("error", ename="SystemExit", evalue=["3"]),
    ],
)
def test_what_a_hostile_kernel_puts_in_an_output_is_only_text(output):
    name, text = text_of(output)
    assert name in ("stdout", "stderr")
    assert isinstance(text, str)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"event": "notice", "note": "n", "text": "it ends\x07 soon", "facts": {}}, "cellgate: it ends\\x07 soon\n"),
        ({"event": "gap", "first": 1, "last": 9, "count": 9}, "cellgate: 9 events are not kept any more\n"),
    ],
)
def test_what_a_server_says_beside_is_one_line_on_standard_error(event, expected):
    assert as_text(event) == ("stderr", expected)


class Stream(io.TextIOWrapper):
    """A stream of a command, that may be a terminal, or have lost its reader."""

    def __init__(self, *, is_terminal=False, is_broken=False):
        super().__init__(io.BytesIO())
        self._is_terminal = is_terminal
        self.is_broken = is_broken

    def isatty(self):
        return self._is_terminal

    def flush(self):
        super().flush()
        if getattr(self, "is_broken", False):
            raise BrokenPipeError

    @property
    def text(self):
        return self.buffer.getvalue().decode()


async def test_only_a_terminal_is_protected_and_only_its_tracebacks_have_colours():
    terminal, file = Stream(is_terminal=True), Stream()
    printer = Printer(out=terminal, err=file)
    show(printer, message("stream", name="stdout", text="\x1b]0;t\x07\x1b[31ma"))
    show(printer, message("stream", name="stderr", text="\x1b[31mb\n"))
    show(printer, message("error", ename="E", evalue="", traceback=["\x1b[0;31mE\x1b[0m"]))
    printer.close()
    assert terminal.text == "\x1b[31ma\x1b[0m"
    assert file.text == "\x1b[31mb\nE\n"


async def test_lone_surrogates_are_shown_as_something():
    stream = Stream()
    printer = Printer(stream, Stream())
    show(printer, message("stream", name="stdout", text="a\ud800b"))
    printer.close()
    assert stream.text == "a?b"


async def test_a_stream_without_a_reader_is_told_once_and_written_no_more():
    stream = Stream(is_broken=True)
    printer = Printer(stream, Stream())
    show(printer, message("stream", name="stdout", text="a"))
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(printer.broken, 5)
    show(printer, message("stream", name="stdout", text="b"))
    printer.close()
    assert stream.text == "a"
    stream.is_broken = False


def test_words_of_hostile_code_in_a_message_stay_on_one_line():
    assert one_line("a\nb\x1b[2J\u202ec ü") == "a\\nb\\x1b[2J\\u202ec ü"
