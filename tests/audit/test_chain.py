"""A change of any byte of an audit log is found, and located."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.audit.chain import BEGINNING, Checker, facts_of, make_line, split_line


def a_log(count: int = 6) -> list[bytes]:
    lines, link = [], BEGINNING
    for n in range(count):
        line, link = make_line(link, {"what": "cell_accepted", "principal": "ada", "cell": n, "code": 'x = "é"\n'})
        lines.append(line)
    return lines


LOG = a_log()


def damage(lines) -> list[tuple[int, str]]:
    whole = b"".join(lines)
    return [(found.line, found.problem) for found in Checker().check("1", whole.splitlines(keepends=True))]


def test_a_log_is_whole_as_it_was_written():
    checker = Checker()
    assert list(checker.check("1", LOG)) == []
    assert (checker.lines, checker.first, checker.last.number) == (6, 1, 6)


def test_a_line_is_an_object_with_its_number_and_the_hash_of_what_stands_before():
    first = facts_of(LOG[0])
    body = LOG[0][: LOG[0].rindex(b',"hash"')]
    assert (first["n"], first["principal"]) == (1, "ada")
    assert first["hash"] == hashlib.sha256(b"0" * 64 + body).hexdigest()
    assert split_line(LOG[1][:-1])[1].number == 2


@given(st.data())
def test_any_changed_byte_is_found_where_it_is(data):
    whole = b"".join(LOG)
    at = data.draw(st.integers(0, len(whole) - 1))
    put = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    changed = whole[:at] + bytes([put]) + whole[at + 1 :]
    number = whole.count(b"\n", 0, at) + 1
    found = [line for line, _ in damage([changed])]
    assert found, "it was not found"
    assert found[0] == number


@given(st.data())
def test_any_byte_that_is_missing_or_too_much_is_found_where_it_is(data):
    whole = b"".join(LOG)
    at = data.draw(st.integers(0, len(whole) - 1))
    number = whole.count(b"\n", 0, at) + 1
    assert damage([whole[:at] + whole[at + 1 :]])[0][0] == number
    put = data.draw(st.binary(min_size=1, max_size=3))
    if whole[:at] + put + whole[at:] != whole:
        assert abs(damage([whole[:at] + put + whole[at:]])[0][0] - number) <= 1


def test_lines_that_are_removed_added_or_moved_are_found():
    assert damage([*LOG[:2], *LOG[4:]]) == [(3, "before it 2 lines are missing, from number 3 on")]
    assert damage([*LOG[:2], LOG[1], *LOG[2:]]) == [(3, "it has the number 2, and stands behind 2")]
    assert [line for line, _ in damage([LOG[0], LOG[2], LOG[1], *LOG[3:]])] == [2, 3, 4]
    assert damage([*LOG[:2], b"what is this?\n", *LOG[2:]])[0] == (3, "this is no whole line of the log")


def test_only_the_line_that_was_changed_is_named():
    for old, new in ((b"ada", b"eve"), (b'"hash":"', b'"hash":"0')):
        changed = LOG[2].replace(old, new)[: len(LOG[2])]
        assert next(line for line, _ in damage([*LOG[:2], changed.rstrip(b"\n") + b"\n", *LOG[3:]])) == 3
    hash_at = LOG[2].rindex(b'"hash":"') + len(b'"hash":"')
    other = b"0" if LOG[2][hash_at : hash_at + 1] != b"0" else b"1"
    changed = LOG[2][:hash_at] + other + LOG[2][hash_at + 1 :]
    assert damage([*LOG[:2], changed, *LOG[3:]]) == [(3, "it was changed")]


def test_a_log_may_begin_where_older_files_end():
    assert damage(LOG[3:]) == []
    assert [line for line, _ in damage([LOG[3], LOG[4].replace(b"ada", b"eve"), LOG[5]])] == [2]


def test_a_line_forged_anew_without_those_behind_it_is_found():
    before = split_line(LOG[1][:-1])[1]
    forged, _ = make_line(before, {"what": "cell_accepted", "principal": "eve"})
    assert [line for line, _ in damage([*LOG[:2], forged, *LOG[3:]])] == [4]


@pytest.mark.parametrize("line", [b"", b"{}", b"\n", b'{"n":0,"hash":"x"}', b'{"n":1,"hash":"' + b"g" * 64 + b'"}'])
def test_what_is_no_line_is_none(line):
    assert split_line(line) is None


def test_what_is_said_is_json_whatever_it_holds():
    line, _ = make_line(BEGINNING, {"code": '\ud800 "\\ \n,"hash":"' + "0" * 64 + '"}'})
    assert line.count(b"\n") == 1
    assert json.loads(line)["n"] == 1
    assert damage([line]) == []
