"""Scripts are kept with their versions, described by what they say of themselves, and never executed for it."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellgate.errors import StorageFull, UnknownScript, UsageError
from cellgate.live import scripts as module
from cellgate.live.scripts import Scripts, describe, diff_of

ME = "me"


@pytest.fixture
def scripts(tmp_path):
    made = Scripts.open(tmp_path / "scripts.sqlite")
    yield made
    made.close()


def save(scripts, name="a", code="1", principal=ME, kernel="python3", now=1.5):
    return scripts.save(principal, name, code, kernel=kernel, now=now)


def test_a_script_has_a_version_for_each_change_and_none_for_the_same_again(scripts):
    first, is_new = save(scripts, code='"""Adds."""\n1+1')
    assert (first.version, first.description, first.created, is_new) == (1, "Adds.", 1.5, True)
    assert save(scripts, code='"""Adds."""\n1+1', now=9) == (first, False)
    second, _ = save(scripts, code="2")
    assert (second.version, save(scripts, code="2", kernel="bash")[0].version) == (2, 3)
    assert [script.version for script in scripts.versions(ME, "a")] == [3, 2, 1]
    assert (scripts.get(ME, "a").version, scripts.get(ME, "a", 1)) == (3, first)


def test_a_list_has_the_newest_of_each_without_its_code(scripts):
    for name, code in (("b", "1"), ("a", "1"), ("a", '"two"')):
        save(scripts, name, code)
    listed = [(script.name, script.version, script.description, script.code) for script in scripts.newest(ME)]
    assert listed == [("a", 2, "two", ""), ("b", 1, "", "")]


def test_nobody_sees_or_changes_the_scripts_of_others(scripts):
    save(scripts)
    assert scripts.newest("you") == []
    for ask in (scripts.get, scripts.versions, scripts.delete):
        with pytest.raises(UnknownScript):
            ask("you", "a")
    assert save(scripts, principal="you", code="2")[0].version == 1
    scripts.delete("you", "a")
    assert scripts.get(ME, "a").code == "1"


def test_what_is_deleted_is_gone_with_its_versions(scripts):
    save(scripts)
    scripts.delete(ME, "a")
    for version in (None, 1):
        with pytest.raises(UnknownScript):
            scripts.get(ME, "a", version)
    assert save(scripts, code="2")[0].version == 1


def test_history_and_room_are_bounded(scripts, monkeypatch):
    monkeypatch.setattr(module, "MAX_VERSIONS", 3)
    for number in range(5):
        save(scripts, code=str(number))
    assert [script.version for script in scripts.versions(ME, "a")] == [5, 4, 3]
    monkeypatch.setattr(module, "MAX_SCRIPTS", 1)
    with pytest.raises(UsageError, match="makes room"):
        save(scripts, "b")
    save(scripts, "b", principal="you")
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(UsageError, match="up to 10 would pass"):
        save(scripts, code="ä" * 4)


def test_they_are_there_for_the_next_server(tmp_path):
    for _ in range(2):
        scripts = Scripts.open(tmp_path / "s")
        script, _ = save(scripts, code="x = 'ä\U0001f600'")
        scripts.close()
    assert (script.version, script.code) == (1, "x = 'ä\U0001f600'")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("rubbish", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_cannot_be_read_is_put_aside(tmp_path, rubbish, caplog):
    for number in (1, 2):
        (tmp_path / "s").write_bytes(rubbish)
        scripts = Scripts.open(tmp_path / "s")
        assert scripts.newest(ME) == []
        save(scripts)
        scripts.close()
        assert (tmp_path / f"s.corrupt-{number}").read_bytes() == rubbish
    assert "put aside" in caplog.text


def test_a_file_that_is_locked_or_on_a_full_disk_is_left_as_it_is(scripts, tmp_path, monkeypatch):
    save(scripts)
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.01)
    scripts._connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFull, match="locked"):
        Scripts.open(tmp_path / "scripts.sqlite")
    scripts._connection.execute("ROLLBACK")
    again = Scripts.open(tmp_path / "scripts.sqlite")
    assert again.get(ME, "a").code == "1"
    again.close()


def test_a_disk_that_cannot_be_read_is_told(scripts):
    save(scripts)
    scripts._connection.execute("DROP TABLE versions")
    for ask in (scripts.newest, lambda who: scripts.get(who, "a"), lambda who: scripts.versions(who, "a")):
        with pytest.raises(StorageFull):
            ask(ME)


def test_a_disk_that_refuses_is_told(scripts):
    scripts._connection.execute("PRAGMA query_only=1")
    with pytest.raises(StorageFull):
        save(scripts)
    scripts._connection.execute("PRAGMA query_only=0")


# -- what a script says of itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("", ""),
        ("1 + 1", ""),
        ('"""Adds."""', "Adds."),
        (
            '#!/usr/bin/env python\n# coding: utf-8\n\n"""Adds.\n\n    Numbers, that is.\n"""\nx = 1',
            "Adds.\n\nNumbers, that is.",
        ),
        ("'one' 'two'; x = 1", "onetwo"),
        ("'a' + f()", ""),
        ("'a'.join(f())", ""),
        ("('a')", ""),
        ("f'{f()}'", ""),
        ("b'bytes'", ""),
        ("'\\x1b[31mred'", "[31mred"),
        ('"""open', ""),
        ("'\\N{no such name}'", ""),
        ("(" * 5000, ""),
        ("x = 1\n'no docstring'", ""),
        ("  'indented'", ""),
        ("%%bash\nls", ""),
        ("'" + "x" * 5000 + "'", "x" * module.MAX_DESCRIPTION_CHARS),
        ("\x00'a'", ""),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_a_docstring_is_read_and_never_executed(code, told):
    assert describe(code) == told


@given(st.text(max_size=200))
@settings(max_examples=300)
def test_whatever_stands_there_is_described_or_not(code):
    assert isinstance(describe(code), str)


# -- how two versions differ ---------------------------------------------------------------------------

NAMES = ("a 1", "a 2")
LINES = st.lists(st.sampled_from(["a", "b", "c", "", "x = 1"]), max_size=30)


@given(LINES, LINES)
@settings(max_examples=300)
def test_a_diff_is_one_that_patch_understands(before, after):
    assert apply(before, diff_of(before, after, NAMES)) == after


def test_a_small_change_in_a_long_script_is_shown_alone():
    lines = [str(number) for number in range(5000)]
    told = diff_of(lines, [*lines[:2500], "new", *lines[2500:]], NAMES).splitlines()
    assert told == list(difflib.unified_diff(lines, [*lines[:2500], "new", *lines[2500:]], *NAMES, lineterm=""))
    assert len(told) == 10


def test_what_is_too_long_to_compare_is_replaced_in_one_piece():
    before, after = ["a"] * 600, ["b"] * 10
    told = diff_of(before, after, NAMES)
    assert told.count("\n-a") == 600
    assert apply(before, told) == after


def apply(before: list[str], diff: str) -> list[str]:
    """As `patch` would."""
    if not diff:
        return before
    result, at = [], 0
    for line in diff.splitlines()[2:]:
        if line.startswith("@@ "):
            first, _, count = line.split()[1][1:].partition(",")
            begin = int(first) - (count != "0")
            result += before[at:begin]
            at = begin
        elif line[0] == "+":
            result.append(line[1:])
        else:
            assert before[at] == line[1:]
            at += 1
            if line[0] == " ":
                result.append(line[1:])
    return result + before[at:]
