"""`cellgate validate`: lines as a compiler's, an object for programs, an exit status."""

from __future__ import annotations

import json

import pytest

from cellgate.cli import main
from cellgate.commands.validate import SUFFIXES, language_of
from cellgate.policy import judge as judging
from cellgate.policy.facts import LANGUAGES


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "cell.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_what_is_allowed_ends_with_0_and_what_is_denied_with_1(file, capsys):
    assert main(["validate", file("x = 1")]) == 0
    assert capsys.readouterr().out == ""
    assert main(["validate", file("import os\nos.setuid(0)")]) == 1


def test_a_finding_is_a_line_as_compilers_write_it(file, capsys):
    name = file("x = 1\ny = eval(x)")
    assert main(["validate", "--policy", "strict", name]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{name}:2:5: deny[dynamic_code]: eval runs code that is made while it runs",
        "    y = eval(x)",
        "        ^^^^",
        "    write the code itself; ast.literal_eval reads data",
    ]


def test_json_is_one_object_for_all_files(file, capsys):
    names = [file("x = 1", "a.py"), file("sudo ls", "b.sh")]
    assert main(["validate", "--json", *names]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["exit_status"] == 1
    assert [(one["file"], one["allowed"]) for one in told["files"]] == [(names[0], True), (names[1], False)]
    assert told["files"][1]["findings"][0]["rule"] == "privileged"


def test_a_policy_may_be_a_file(file, capsys):
    policy = file('deny_modules = ["json"]', "mine.toml")
    assert main(["validate", "--policy", policy, file("import json")]) == 1
    assert "deny[module]: json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["--policy", "strcit", "{file}"], "did you mean 'strict'?"),
        (["--policy", "./none.toml", "{file}"], "cannot read './none.toml'"),
        (["--policy", "{file}", "{file}"], "is not TOML"),
        (["none.py"], "cannot read 'none.py'"),
        (["--language", "cobol", "{file}"], "invalid choice"),
        ([], "required"),
    ],
)
def test_a_usage_error_ends_with_2_and_says_what_would_pass(words, said, file, capsys):
    name = file("x = (")
    assert main(["validate", *(word.format(file=name) for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_what_cannot_be_judged_is_denied(file, capsys, monkeypatch):
    def fail(code, bounds):
        raise KeyError(code)

    monkeypatch.setitem(judging.READERS, "python", fail)
    assert main(["validate", file("x")]) == 1
    assert "error[policy_error]" in capsys.readouterr().out


def test_the_language_is_told_by_the_files_name():
    assert {language_of(f"a{suffix}") for suffix in SUFFIXES} == set(LANGUAGES)
    assert language_of("-") == language_of("script") == "python"
