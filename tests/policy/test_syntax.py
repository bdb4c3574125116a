"""The readers of other languages: for each, code that a rule finds and code alike that it does not, and what is known
to get past them."""

from __future__ import annotations

import pytest

from cellgate.policy import trees
from cellgate.policy.facts import Bounds, Kind, Seen
from cellgate.policy.grammars import GRAMMARS
from cellgate.policy.judge import READERS, judge
from cellgate.policy.policies import POLICIES, STRICT, Policy
from cellgate.policy.rules import RULES
from cellgate.policy.verdicts import Severity
from tests.policy.languages import FIRES, MISSED, SILENT

BOUNDS = Bounds(nesting=100, literal_bytes=1 << 20)
EVERYTHING = Policy("everything", dict.fromkeys(RULES, Severity.NOTE))

SUSPECT = {"programs", "remote", "files", "dynamic", "introspection", "native", "host"}


def found(code: str, language: str) -> set[str]:
    return {finding.rule for finding in judge(code, language, EVERYTHING).findings}


def rows(table: dict[str, dict[str, list[str]]]) -> list[tuple[str, str, str]]:
    return [
        (language, rule, code) for language, rules in table.items() for rule, codes in rules.items() for code in codes
    ]


@pytest.mark.parametrize("language, rule, code", rows(FIRES))
def test_a_rule_is_found(language, rule, code):
    assert rule in found(code, language)


@pytest.mark.parametrize("language, code", [(language, code) for language, codes in SILENT.items() for code in codes])
def test_what_only_looks_like_it_is_not_found(language, code):
    assert not {rule for rule in found(code, language) if RULES[rule].category in SUSPECT}


@pytest.mark.parametrize("language, rule, code", rows(MISSED))
def test_what_is_listed_as_missed_is_missed(language, rule, code):
    """So that the list stays true; when this fails, a reader has learned something."""
    assert rule not in found(code, language)


def test_every_language_has_examples_of_each_kind():
    assert {"python", *FIRES} == set(READERS)
    assert set(FIRES) == set(SILENT) == set(MISSED) == {"bash", *GRAMMARS} == set(trees.LANGUAGES)


@pytest.mark.parametrize("language", sorted(FIRES))
def test_ordinary_code_passes_the_standard_policy(language):
    codes = [code for codes in (SILENT[language], *FIRES[language].values()) for code in codes]
    harmless = [
        c for c in codes if not found(c, language) & {"host_door", "metadata_address", "privileged", "fork_loop"}
    ]
    assert all(judge(code, language, POLICIES["standard"]).allowed for code in harmless)


COMPUTES = {
    "bash": "x=1\nfor i in 1 2; do x=$((x + i)); done\necho $x",
    "c": '#include <stdio.h>\n#include <math.h>\nint main(void) { printf("%f", sqrt(2)); return 0; }',
    "cpp": "#include <vector>\n#include <iostream>\nint main() { std::vector<int> v{1}; std::cout << v.size(); }",
    "go": 'package main\nimport ("fmt"; "math/rand"; "encoding/json")\nfunc main() { fmt.Println(rand.Int()) }',
    "java": "import java.util.List;\nclass A { int f(List<Integer> l) { return l.stream().mapToInt(i -> i).sum(); } }",
    "javascript": "import assert from 'node:assert'\nconst f = xs => xs.map(x => x ** 2)\nconsole.log(f([1, 2]))",
    "r": "library(stats)\nx <- rnorm(10)\nmean(x[x > 0])\nsapply(x, function(y) y + 1)",
    "ruby": "require 'set'\nx = Set.new([1, 2])\nputs x.map { |y| y * 2 }.sum",
    "rust": 'use std::collections::HashMap;\nfn main() { let m = HashMap::<u8, u8>::new(); println!("{}", m.len()); }',
    "typescript": "const f = (xs: number[]): number => xs.reduce((a, b) => a + b, 0)\nconsole.log(f([1, 2]))",
}


@pytest.mark.parametrize("language", sorted(FIRES))
def test_code_that_computes_passes_the_strict_policy(language):
    assert not judge(COMPUTES[language], language, STRICT).findings


def test_a_module_covers_what_its_language_writes_below_it():
    policy = Policy("p", {"module": Severity.DENY}, deny_modules=frozenset(("fs", "std::net", "golang.org/x")))
    for language, code in {
        "javascript": "import 'fs/promises'",
        "rust": "use std::net::TcpStream;",
        "go": 'import "golang.org/x/net"',
    }.items():
        assert not judge(code, language, policy).allowed


def test_a_language_whose_grammar_is_not_installed_is_unread(monkeypatch):
    monkeypatch.delitem(READERS, "r")
    assert found("system('ls')", "r") == {"unread"}


def test_what_is_not_installed_is_known_as_that(monkeypatch):
    for module in ("tree_sitter_none", "tree_sitter_language_pack.bindings.none", "no_such_pack.bindings.r"):
        monkeypatch.setitem(trees.LANGUAGES, "r", (module, "language"))
        assert not trees.is_installed("r")


# -- places ------------------------------------------------------------------------------------------------


def place_of(code: str, language: str, name: str) -> tuple[int, ...]:
    return next(tuple(seen.place) for seen in READERS[language](code, BOUNDS).facts if seen.name == name)


def test_places_are_in_characters_and_not_in_bytes():
    assert place_of("x = 'äö😀';\ns = '😀'; eval(x)", "javascript", "eval") == (2, 9, 2, 13)
    assert place_of("echo 'é😀'; curl x", "bash", "curl") == (1, 11, 1, 15)


def test_lone_surrogates_keep_the_columns():
    assert place_of("'\ud800\udfff'; eval(x)", "javascript", "eval") == (1, 6, 1, 10)


def test_the_place_of_a_call_is_what_is_called_and_not_its_arguments():
    code = "cp = require('child_process')\ncp.exec(\n'ls')"
    assert place_of(code, "javascript", "child_process.exec") == (2, 0, 2, 7)


def test_what_stands_in_a_string_has_the_place_of_the_string():
    facts = READERS["c"]('int main() { system("curl x"); }', BOUNDS).facts
    seen = next(seen for seen in facts if seen.kind is Kind.COMMAND)
    assert (seen.name, seen.language, tuple(seen.place)) == ("curl", "bash", (1, 20, 1, 28))


def test_facts_come_in_the_order_of_the_text():
    facts = READERS["javascript"]("b(1)\na(2)\nimport 'fs'\nc('x/y')", BOUNDS).facts
    assert [seen.place.line for seen in facts] == sorted(seen.place.line for seen in facts)


def test_what_is_no_code_is_said_to_be_none():
    for language in FIRES:
        assert Kind.UNPARSED in {seen.kind for seen in READERS[language](") ) if ((", BOUNDS).facts}, language


# -- sizes ---------------------------------------------------------------------------------------------------


def large(code: str, language: str, bounds: Bounds) -> list[Seen]:
    return [seen for seen in READERS[language](code, bounds).facts if seen.kind is Kind.LARGE]


@pytest.mark.parametrize("language", sorted({*FIRES} - {"bash"}))
def test_nesting_is_counted_in_brackets(language):
    seen = large("x = " + "(" * 60 + "1" + ")" * 60, language, Bounds(50, 1000))
    assert [(one.name, int(one.text) >= 60) for one in seen] == [("nesting", True)]


def test_brackets_in_strings_and_comments_are_none():
    code = f"x = '{'(' * 200}' // {'(' * 200}"
    assert not large(code, "javascript", Bounds(50, 1000))


def test_a_long_literal_is_seen():
    assert [one.name for one in large(f"x = '{'y' * 2000}'", "javascript", Bounds(50, 1000))] == ["literal_bytes"]
    assert [one.name for one in large(f"echo '{'y' * 2000}'", "bash", Bounds(50, 1000))] == ["literal_bytes"]


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.system('sudo ls')",
        "import os as o\nrun = o.popen\nrun('ls; ' + 'sudo x')",
        "import subprocess\nsubprocess.run(['sudo', 'ls', x])",
        "from subprocess import check_output as c\nc('ls | sudo x', shell=True)",
        "get_ipython().system('sudo ls')",
        "!sudo ls",
        "%%bash\nls\nsudo x",
        "%%ruby\n`sudo x`",
        "%%javascript\nrequire('child_process').exec('sudo x')",
    ],
)
def test_a_shell_line_in_python_is_read_as_one(code):
    assert "privileged" in found(code, "python")


@pytest.mark.parametrize("code", ["import os\nos.getenv('sudo x')", "print('sudo x')", "x = ['sudo', 'x']"])
def test_a_string_that_no_shell_is_given_is_none(code):
    assert "privileged" not in found(code, "python")
