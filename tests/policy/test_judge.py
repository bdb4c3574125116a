"""Verdicts: what policies make of what was seen, in cells and in messages, and how it is told."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellgate.errors import PolicyError
from cellgate.policy import python
from cellgate.policy.facts import LANGUAGES
from cellgate.policy.judge import CODELESS, READERS, judge, judge_message
from cellgate.policy.policies import OFF, STANDARD, STRICT, Limits, Policy, read_policy
from cellgate.policy.quick import is_silent
from cellgate.policy.rules import rules_of
from cellgate.policy.verdicts import MAX_FINDINGS, Severity, as_compiler_output, as_traceback
from tests.policy.evasions import EVASIONS


def denied(code: str, policy: Policy = STRICT, language: str = "python") -> set[str]:
    return {finding.rule for finding in judge(code, language, policy).of(Severity.DENY)}


def message(kind: str, policy: Policy = STRICT, **content: object):
    return judge_message(kind, content, policy)


# -- cells


def test_off_reads_nothing():
    assert judge("(" * 10**6, "python", OFF).allowed


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_a_reader(language):
    if language == "r" and language not in READERS:
        pytest.skip("the grammar of R is an extra")
    assert judge("", language, STRICT).allowed and language in READERS


def test_strict_allows_what_computes():
    code = """
from dataclasses import dataclass
import numpy as np, pandas as pd, matplotlib.pyplot as plt

@dataclass
class Point:
    x: float
    def __add__(self, other): return Point(self.x + other.x)

def mean(values: list[float]) -> float:
    return sum(values) / len(values)

frame = pd.DataFrame({"a": np.arange(10)})
frame["b"] = frame["a"].apply(lambda v: v ** 2)
print(f"{mean(frame['b']):.2f}", frame.describe())
plt.plot(frame["a"]); plt.show()
"""
    assert denied(code) == set()


def test_standard_warns_of_what_will_fail_and_lets_it_be():
    verdict = judge("import requests\nrequests.get(url)", "python", STANDARD)
    assert verdict.allowed
    assert [(f.rule, f.severity.value, f.line) for f in verdict.findings] == [
        ("network", "warn", 1),
        ("network", "warn", 2),
    ]


def test_what_does_not_parse_is_allowed_by_every_policy():
    for policy in (STANDARD, STRICT):
        verdict = judge("x = ", "python", policy)
        assert verdict.allowed and [f.rule for f in verdict.findings] == ["unparsed"]


def test_a_size_is_judged_before_anything_is_read():
    policy = replace(STANDARD, limits=Limits(code_bytes=10))
    assert denied("x = (((((((((((((((", policy) == {"code_bytes"}
    assert denied("é" * 5, policy) == set() and denied("é" * 6, policy) == {"code_bytes"}, "bytes, not characters"


def test_a_language_that_nobody_reads_is_denied_by_strict_alone():
    assert denied("x", STRICT, "julia") == {"unread"} and denied("x", STANDARD, "julia") == set()


def test_lists_of_a_policy_deny_by_name():
    policy = read_policy({"deny_names": ["pandas.read_csv", ".plot"], "deny_modules": ["os"]}, "mine")
    assert denied("import pandas as p\np.read_csv('x')", policy) == {"name"}
    assert denied("x.plot()", policy) == {"name"}
    assert denied("import os.path", policy) == {"module"}
    assert denied("import pandas\nx.plots()", policy) == set()


def test_a_rule_is_told_once_for_a_line():
    assert len(judge("eval(eval(eval(1)))", "python", STRICT).findings) == 1


def test_when_there_are_too_many_findings_the_severest_are_told():
    code = "x._y\n" * (2 * MAX_FINDINGS) + "eval(1)"
    policy = Policy("p", {"private_attribute": Severity.NOTE, "dynamic_code": Severity.DENY})
    verdict = judge(code, "python", policy)
    assert not verdict.allowed and verdict.findings[-1].rule == "dynamic_code"
    assert (len(verdict.findings), verdict.more) == (MAX_FINDINGS, MAX_FINDINGS + 1)


def test_nothing_of_a_cell_is_executed(tmp_path):
    """What Langflow's validator did: decorators, defaults, annotations and class bodies ran."""
    there = tmp_path / "executed"
    touch = f"__import__('pathlib').Path({str(there)!r}).touch()"
    code = f"""
@{touch}
def f(x: {touch} = {touch}) -> {touch}: pass
class A(metaclass={touch}): x = {touch}
y = f"{{{touch}}}"; (z := {touch}); x: {touch} = [{touch} for _ in [1]]
"""
    for text in (
        code,
        f"%time {touch}",
        f"%precision {{{touch}}}",
        f"exec({touch!r})",
        f"!touch {there}",
        f"x?\n{touch}",
    ):
        judge(text, "python", STRICT)
    assert not there.exists()


def test_judging_warns_nobody_and_leaves_the_interpreter_as_it_was():
    before = (sys.getrecursionlimit(), list(warnings.filters))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge("x = '\\d'; 1 is 1; assert (1, 2)", "python", STRICT)
    assert before == (sys.getrecursionlimit(), list(warnings.filters))


# -- the short way

LINES = [line for code in EVASIONS.values() if len(code) < 500 for line in code.split("\n")]
HARMLESS = [
    "x = 1",
    "import numpy as np",
    "def f(x):",
    "    return x",
    "for i in range(3):",
    "    pass",
    "y = {'a': [1, 2]}",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(HARMLESS) | st.sampled_from(LINES), min_size=2, max_size=6).map("\n".join))
def test_a_cell_that_need_not_be_walked_has_nothing_in_it(code):
    """But for texts put together of harmless pieces, of which `quick` says that it loses them."""
    for policy in (STANDARD, STRICT):
        if is_silent(code, policy, python.nesting(code)):
            found = {rule for seen in python.read(code, policy.limits.bounds).facts for rule in rules_of(seen)}
            assert not {rule for rule in found if policy.severity(rule)} - {"host_door", "metadata_address", "browser"}


def test_an_ordinary_cell_need_not_be_walked():
    code = "import numpy as np\nx = np.arange(10)\nprint(f'{x.sum():.2f}', [a for a in x if a > 2])\n"
    assert judge(code, "python", STRICT).metrics.nodes == judge(code, "python", STANDARD).metrics.nodes == 0


# -- hostile text


WORDS = r"""eval ( ) [ ] { } . , : = ; ! % %% ? ' " \ # @ lambda def class import from as * ** os getattr 'x' + - ~
    not await f' $ | & > < é 𝐞 1 0x 1e9999 __class__ %time !ls %%bash ?? >>>"""
PIECES = [*WORDS.split(), "'''", *"\n\r\t\x0c\0\ud800\u202e\u2028"]
CODE = st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join)


@settings(max_examples=300)
@given(CODE, st.sampled_from((STANDARD, STRICT)), st.sampled_from(LANGUAGES))
def test_any_text_in_any_language_gets_a_verdict_or_a_policy_error(code, policy, language):
    try:
        verdict = judge(code, language, policy)
    except PolicyError:
        return
    assert verdict.allowed == (not verdict.of(Severity.DENY))
    json.dumps(verdict.to_json())
    as_compiler_output(verdict, code, "x")
    as_traceback(verdict, code)


@pytest.mark.parametrize(
    "code",
    [
        *(
            "(" * 100_000,
            "[" * 100_000 + "]" * 100_000,
            "-" * 200_000 + "1",
            "+".join("1" * 200_000),
            "a" + ".a" * 100_000,
        ),
        *(
            "\0" * 1000,
            "\ufeffx = 1",
            "# coding: nonsense\nx",
            "\x0c" * 1000,
            "'" * 100_001,
            '"""' * 30_001,
            "\\\n" * 50_000,
        ),
        *("x = f'" + "{" * 500, "lambda: " * 5000 + "1", "x[" * 99 + "1" + "]" * 99, "@" * 10_000, "\ud800" * 1000),
        *("a = " * 5000 + "1", "a = b; " * 20_000, "getattr(x, y)\n" * 5000, "%%time\n" * 500, "'a' + " * 900 + "'a'"),
        *(
            "not " * 50_000 + "x",
            "a if b else " * 2000 + "c",
            "x = " + "a(" * 90 + ")" * 90,
            "case " * 1000,
            "\u202e" * 300_000,
            "𝐞" * 10_000,
        ),
    ],
    ids=lambda code: ascii(code[:12]),
)
def test_hostile_text_gets_a_verdict(code):
    try:
        judge(code, "python", STRICT)
    except PolicyError:
        pass


def test_what_fails_in_the_judge_itself_denies(monkeypatch):
    """A reader that trips over hostile text must not let it pass as what does not parse."""
    monkeypatch.setattr(python._Reader, "_raw_place", lambda *_: int("x"))
    with pytest.raises(PolicyError):
        judge("eval(1)", "python", STANDARD)


# -- messages


@pytest.mark.parametrize("kind", sorted(CODELESS))
def test_messages_without_code_are_always_allowed(kind):
    assert message(kind, code="eval(1)").allowed


def test_code_and_every_user_expression_are_judged():
    verdict = message("execute_request", code="x = 1", user_expressions={"a": "1", "b": "eval(x)"})
    assert [(f.rule, f.part) for f in verdict.findings] == [("dynamic_code", "user_expressions.b")]
    assert not message("execute_request", code="eval(1)").allowed
    assert message("execute_request", code="1", user_expressions={}).allowed


@pytest.mark.parametrize("kind", ["complete_request", "inspect_request"])
def test_requests_that_look_at_code_are_judged(kind):
    assert not message(kind, code="__import__('os').sys", cursor_pos=20).allowed
    assert message(kind, code="x.re", cursor_pos=4).allowed


@pytest.mark.parametrize("kind", ["comm_open", "comm_msg", "debug_request", "unheard_of"])
def test_other_messages_are_allowed_by_the_policys_list(kind):
    assert not message(kind).allowed and message(kind, STANDARD).allowed


def test_expressions_of_a_debugger_are_judged():
    policy = replace(STRICT, message_types=frozenset(["debug_request"]))
    assert not message("debug_request", policy, command="evaluate", arguments={"expression": "eval(1)"}).allowed
    assert not message("debug_request", policy, arguments={"breakpoints": [{"condition": "eval(1)"}]}).allowed
    assert message("debug_request", policy, command="threads").allowed


@pytest.mark.parametrize(
    "content",
    [{"code": 1}, {"code": None}, {"code": "", "user_expressions": 1}, {"code": "", "user_expressions": {"a": 1}}],
)
def test_content_without_a_shape_is_a_policy_error(content):
    with pytest.raises(PolicyError):
        judge_message("execute_request", content, STANDARD)


# -- how it is told


def test_a_traceback_says_rule_line_caret_and_hint():
    code = "x = 1\ny = eval(x)"
    assert as_traceback(judge(code, "python", STRICT), code) == [
        "This cell was not run: 1 finding of the policy 'strict'.",
        "",
        "deny[dynamic_code] line 2: eval runs code that is made while it runs",
        "    y = eval(x)",
        "        ^^^^",
        "    write the code itself; ast.literal_eval reads data",
        "",
    ]


def test_what_is_told_holds_no_control_characters():
    code = "eval('\x1b]0;x\x07')\teval(1)\x0c\n__import__('\x1b[2J')"
    verdict = judge(code, "python", STRICT)
    told = "\n".join(as_traceback(verdict, code)) + as_compiler_output(verdict, code, "a\x1b[0mb")
    assert "\x1b" not in told and "\x07" not in told


def test_a_long_line_is_shown_around_what_is_meant():
    code = "x = '" + "a" * 5000 + "' + eval(y) + '" + "b" * 5000 + "'"
    lines = as_traceback(judge(code, "python", STRICT), code)
    shown = next(line for line in lines if "eval(y)" in line)
    assert len(shown) < 200
    assert lines[lines.index(shown) + 1].index("^") == shown.index("eval")
