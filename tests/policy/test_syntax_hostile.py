"""Text that was made to break readers: each gives a reading or a PolicyError, and takes no more than in proportion,
parsing apart. How long a parser may take is shown in `tests/live/test_judging.py`."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellgate.errors import PolicyError
from cellgate.policy import trees
from cellgate.policy.facts import Bounds, Kind, Reading
from cellgate.policy.judge import READERS

BOUNDS = Bounds(nesting=100, literal_bytes=1 << 20)
LANGUAGES = sorted(set(READERS) - {"python"})
N = 3000
BOMBS = {
    "opened": "(" * N,
    "closed": ")" * N,
    "both": "f(" * N + ")" * N,
    "braces": "{" * N + "}" * N,
    "members": "a" + ".b" * N,
    "calls": "f" + "(1)" * N,
    "methods": "a" + ".b(1)" * N,
    "subscripts": "a" + '["x"]' * N,
    "sums": "x = " + '"a" + ' * N + '"a"',
    "minuses": "-" * N + "1",
    "assignments": "a = b;" * N,
    "aliases": "".join(f"a{i} = a{i + 1};" for i in range(N)) + "a0()",
    "circle": "a = b; b = c; c = a; a();" * 100,
    "itself": "eval = eval; eval(eval)",
    "meanings": "".join(f"a = b{i};" for i in range(N)) + "a();" * N,
    "inside": "".join(f'eval("{"a" * i}"); system("eval {"b" * i}");' for i in range(100)),
    "requires": 'require("fs").x;' * N,
    "substitutions": "$(" * N,
    "backticks": "`${" * N,
    "heredocs": "cat <<A\n" * 300,
    "words": "a " * N,
    "variables": "".join(f"x=a{i};" for i in range(100)) + "$x$x$x$x$x$x",
    "doubled": "a=aaaaaaaa\n" + "".join(f"{b}={f'${a}' * 60}\n" for a, b in zip("abcdefgh", "bcdefghi")) + "$i",
    "long_line": 'f("' + "é" * 100_000 + '");' + 'g("é");' * 300,
    "nul": "\0" * N,
    "surrogates": "\ud800" * N,
    "escapes": "\\" * N,
    "odd_escapes": '"\\u{ffffff}\\777\\x"; \\u{ffffff}();',
    "blank": "\n" * N,
    "nothing": "",
    "bom": "\ufeff x",
    "returns": "a\r\nb\rc\u2028d\x0be",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_gives_a_reading(language, bomb):
    try:
        assert isinstance(READERS[language](BOMBS[bomb], BOUNDS), Reading)
    except PolicyError:
        pass


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "bash"])  # where parsing hides all else
@pytest.mark.parametrize(
    "bomb", ["members", "calls", "methods", "subscripts", "sums", "aliases", "meanings", "requires"]
)
def test_reading_takes_time_in_proportion(language, bomb):
    """Ten times as much takes some ten times as long, not a hundred: chains were once followed anew from each link.
    What is bounded is CPU time in all; the parser's own, which is not ours, is taken off."""
    code = BOMBS[bomb] * 3
    began = time.process_time()
    trees.parse(code, language)
    parsed = time.process_time()
    READERS[language](code, BOUNDS)
    assert time.process_time() - parsed < 10 * (parsed - began) + 5


def test_variables_that_hold_each_other_are_not_written_out():
    """Each held the one before sixty times: five lines took a gigabyte and ten seconds, and each further one sixty
    times that."""
    began = time.process_time()
    reading = READERS["bash"](BOMBS["doubled"], BOUNDS)
    assert time.process_time() - began < 5
    assert [seen.kind for seen in reading.facts] == [Kind.COMPUTED]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LANGUAGES), st.text(max_size=300))
def test_any_text_gives_a_reading(language, code):
    assert isinstance(READERS[language](code, BOUNDS), Reading)


WORDS = st.sampled_from(
    [
        *"(){}[]<>;:=+-*&|$#@!?.,\\\"'`\n ",
        "eval",
        "a",
        "b",
        "fn",
        "if",
        "import",
        "require",
        "=>",
        "<<E\n",
        "::",
        "->",
        "<-",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LANGUAGES), st.lists(WORDS, max_size=80).map("".join))
def test_any_mix_of_words_gives_a_reading(language, code):
    reading = READERS[language](code, BOUNDS)
    lines = code.split("\n")
    for seen in reading.facts:
        assert 1 <= seen.place.line <= seen.place.end_line <= len(lines) + 1
        assert 0 <= seen.place.column <= len([*lines, ""][seen.place.line - 1])
