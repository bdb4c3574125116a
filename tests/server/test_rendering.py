"""What a language model reads of a cell."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.wire.rendering import MIN_CHARS, PARTS, clean, images_of, part_of, render
from cellgate.wire.result import Result

PNG = b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x02\x80\x00\x00\x01\xe0" + bytes(40)).decode()


def ok(**more: Any) -> Result:
    return Result(cell="c", status="ok", reason="ok", **more)


def shown(*bundles: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple({"data": data, "metadata": {}} for data in bundles)


def test_what_is_short_is_shown_as_it_is():
    result = ok(stdout="printed\n", stderr="warned\n", outputs=shown({"text/plain": "42"}))
    assert render(result) == "42\nprinted\nstderr:\nwarned"
    assert render(ok()) == "(no output)"


def test_the_end_is_told_when_it_was_not_well_or_took_long():
    assert render(ok(metrics={"wall": 12.345})) == "[ok after 12.3 s]"
    result = Result(status="error", reason="timeout_wall", sentence="It ran longer than 10 s.", metrics={"wall": 10.0})
    assert render(result) == "[error timeout_wall after 10 s: It ran longer than 10 s.]"
    assert render(Result(stdout="so far")) == "[still running]\nso far"


def test_an_error_begins_with_the_users_own_frames():
    traceback = [
        "\x1b[31m------------\x1b[0m",
        "\x1b[31mKeyError\x1b[0m        Traceback (most recent call last)",
        "\x1b[36mCell In[3], line 2\x1b[0m\n      1 def f():\n----> 2     frame['x']",
        "File /work/own.py:3, in g()\n----> 3 h()",
        "File ~/.venv/lib/python3.11/site-packages/pandas/core/frame.py:4378, in get(self, key)\n   4377 a\n-> 4378 b",
        "\x1b[31mKeyError\x1b[0m: 'x'",
    ]
    text = render(
        Result(status="error", reason="error", error={"name": "KeyError", "value": "'x'", "traceback": traceback})
    )
    assert text == (
        "[error]\nKeyError: 'x'\nCell In[3], line 2\n      1 def f():\n----> 2     frame['x']\n"
        "File /work/own.py:3, in g()\n----> 3 h()\n"
        "raised in libraries, innermost last:\n"
        "  File ~/.venv/lib/python3.11/site-packages/pandas/core/frame.py:4378, in get(self, key)"
    )


def test_what_is_long_keeps_its_ends_and_says_how_to_get_the_rest():
    lines = [f"line {number}" for number in range(10_000)]
    text = render(ok(stdout="\n".join(lines)), max_chars=2000, rest="read_output(part='{part}')")
    assert len(text) <= 2000
    assert text.startswith("line 0\nline 1\n") and text.endswith("line 9998\nline 9999")
    assert f"{len(chr(10).join(lines))} characters in all" in text
    assert "read_output(part='stdout') has all" in text
    assert part_of(ok(stdout="\n".join(lines)), "stdout").count("\n") == 9999


def test_no_part_crowds_out_another():
    result = Result(
        status="error", reason="error", stdout="o" * 50_000, stderr="e" * 50_000, outputs=shown({"text/plain": "42"}),
        error={"name": "E", "value": "the cause", "traceback": ["Cell In[1], line 1\n----> 1 f()"]},
    )  # fmt: skip
    text = render(result, max_chars=1000)
    assert len(text) <= 1000
    assert "E: the cause\nCell In[1]" in text and "42" in text
    assert text.count("o") > 200 and text.count("e") > 200


def test_images_are_placeholders_and_can_be_had():
    result = ok(outputs=shown({"image/png": PNG, "text/plain": "<Figure size 640x480>"}, {"image/jpeg": "AAAA"}))
    assert render(result) == "[image 1: image/png, 640 × 480 pixels, 64 bytes]\n[image 2: image/jpeg, 3 bytes]"
    assert [image.mime for image in images_of(result)] == ["image/png", "image/jpeg"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"text/plain": "   a\n0  1", "text/html": "<table>"}, "   a\n0  1"),
        ({"text/plain": "<IPython.core.display.Markdown object>", "text/markdown": "# Title"}, "# Title"),
        ({"text/plain": "<IPython.core.display.JSON object>", "application/json": {"a": [1]}}, '{"a": [1]}'),
        ({"text/plain": "<IPython.core.display.HTML object>", "text/html": "<b>x</b> &amp;<script>z</script>"}, "x  &"),
        ({"application/x-own": 1}, "[application/x-own]"),
        ({}, "[nothing]"),
    ],
)  # fmt: skip
def test_a_rich_output_is_shown_by_its_plainest_form(data, text):
    assert render(ok(outputs=shown(data))) == text


def test_what_a_terminal_obeys_is_taken_out_and_of_a_progress_bar_the_end_is_left():
    assert clean("\x1b]0;title\x07\x1b[1mbold\x1b[0m \x9b31mred\u202e") == "bold 31mred"
    assert clean("0%\r50%\r100%\ndone\r\nnext\r") == "100%\ndone\nnext"
    assert clean("\x1b]never ended\nvisible") == "\nvisible"


def test_notices_and_names_are_told_in_brackets():
    result = ok(
        notices=({"note": "disk_full", "text": "[the disk is full]", "facts": {}},),
        truncated={"messages": 3, "bytes": 100},
        diff={"added": [f"v{number}" for number in range(30)], "changed": ["x"], "removed": []},
    )
    text = render(result)
    assert "[the disk is full]\n[3 messages, 100 bytes of output are missing]" in text
    assert "[names: added v0, " in text and "and 10 more; changed x]" in text


@pytest.mark.parametrize("page", ["<" * 300_000, "<script" * 50_000, "<script>" * 50_000, "\x1b]" * 200_000])
def test_hostile_text_takes_no_long_time(page):
    begin = time.process_time()
    render(ok(stdout=page, outputs=shown({"text/html": page})))
    assert time.process_time() - begin < 2


anything = st.text(max_size=400) | st.sampled_from(["\r", "\x1b[31m", "line\n" * 50, "x" * 2000])


@given(
    texts=st.tuples(anything, anything, anything),
    traceback=st.lists(anything, max_size=6),
    outputs=st.lists(st.dictionaries(st.sampled_from(["text/plain", "text/html", "image/png"]), anything), max_size=4),
    room=st.integers(MIN_CHARS, 3000),
)
def test_no_text_is_longer_than_asked_for(texts, traceback, outputs, room):
    result = Result(
        status="error", reason="error", stdout=texts[0], stderr=texts[1], outputs=shown(*outputs),
        error={"name": "E", "value": texts[2], "traceback": traceback},
    )  # fmt: skip
    assert len(render(result, max_chars=room, rest="get('{part}')")) <= room
    for part in PARTS:
        part_of(result, part)
