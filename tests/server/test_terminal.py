"""What a sandbox prints can colour a terminal, and nothing more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.terminal import MAX_PENDING_CHARACTERS, TerminalFilter


def shown(text: str) -> str:
    return TerminalFilter().feed(text)


@pytest.mark.parametrize(
    "text",
    [
        "plain, with tab\tand\nlines\r\n",
        "\x1b[31mred\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[m \x1b[4:3mcurly\x1b[24m",
        "progress 10%\r\x1b[Kprogress 20%\b",
        "übergrößen 你好 🎉 عربي",
    ],
)
def test_text_and_colours_pass_untouched(text):
    assert shown(text) == text


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("window title", "\x1b]0;owned\x07"),
        ("window title, other end", "\x1b]2;owned\x1b\\"),
        ("clipboard", "\x1b]52;c;ZXZpbA==\x07"),
        ("hyperlink", "\x1b]8;;https://example.org\x1b\\"),
        ("device control string", '\x1bP$q"p\x1b\\'),
        ("application command", "\x1b_Gf=100;AAAA\x1b\\"),
        ("privacy message", "\x1b^secret\x1b\\"),
        ("answer-back", "\x1b[c\x1b[6n\x1b[21t\x05"),
        ("clear screen", "\x1b[2J\x1b[H\x1b[3J"),
        ("cursor up", "\x1b[5A\x1b[10;10H"),
        ("alternate screen", "\x1b[?1049h"),
        ("bracketed paste off", "\x1b[?2004l"),
        ("full reset", "\x1bc"),
        ("character set", "\x1b(0\x0e"),
        ("eight-bit CSI", "\x9b2J"),
        ("eight-bit OSC", "\x9d0;owned\x9c"),
        ("private SGR", "\x1b[>4;2m"),
        ("repeated escape", "\x1b\x1b]0;owned\x07"),
        ("bidirectional override", "\u202e\u2066\u2069"),
        ("bell and other controls", "\x00\x07\x0b\x0c\x7f"),
    ],
)
def test_what_steers_a_terminal_is_dropped(name, sequence):
    assert shown(f"a{sequence}b") == "ab"


def test_a_sequence_cut_between_two_chunks_is_still_whole():
    whole = "a\x1b[31mb\x1b]0;title\x1b\\c\x1b[2Jd"
    for cut in range(len(whole)):
        filter_ = TerminalFilter()
        assert filter_.feed(whole[:cut]) + filter_.feed(whole[cut:]) == "a\x1b[31mbcd"


def test_a_string_without_an_end_is_swallowed_without_being_kept():
    filter_ = TerminalFilter()
    assert filter_.feed("a\x1b]0;") == "a"
    for _ in range(100):
        assert filter_.feed("x" * 10_000) == ""
    assert len(filter_._pending) <= 1
    assert filter_.feed("\x07b") == "b"


def test_a_sequence_that_never_ends_is_given_up():
    filter_ = TerminalFilter()
    for _ in range(10):
        filter_.feed("\x1b[" + "1;" * MAX_PENDING_CHARACTERS)
        assert len(filter_._pending) <= MAX_PENDING_CHARACTERS


def test_colours_are_reset_at_the_end_if_any_were_set():
    filter_ = TerminalFilter()
    assert filter_.close() == ""
    filter_.feed("\x1b[31mred")
    assert filter_.close() == "\x1b[0m"


@given(
    st.lists(st.text(alphabet=st.sampled_from("ab;0123[]m\\KJPX^_?>\x1b\x07\x9b\x9d\x9c\x18\n\r\u202e"), max_size=20))
)
def test_no_escape_but_a_colour_comes_out_of_any_text_in_any_chunks(chunks):
    filter_ = TerminalFilter()
    out = "".join(filter_.feed(chunk) for chunk in chunks)
    import re

    rest = re.sub(r"\x1b\[[0-9;:]*[mK]", "", out)
    assert not re.search(r"[\x00-\x07\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", rest)
