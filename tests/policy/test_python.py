"""What the reader of Python cells sees: names followed to what they mean, and places as they were typed."""

from __future__ import annotations

import ast
import string
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from cellgate.policy.facts import Bounds, Kind, Place, Seen
from cellgate.policy.folding import MAX_CHARS
from cellgate.policy.ipython import is_plain_python, transform
from cellgate.policy.python import MAX_MEANINGS, read

BOUNDS = Bounds(nesting=100, literal_bytes=1 << 20)


def facts(code: str) -> tuple[Seen, ...]:
    return read(code, BOUNDS).facts


def names(code: str, kind: Kind = Kind.USE) -> set[str]:
    return {seen.name for seen in facts(code) if seen.kind is kind}


def place_of(code: str, name: str) -> str:
    """The text at the place where this was seen."""
    place = next(seen.place for seen in facts(code) if seen.name == name)
    lines = code.split("\n")
    if place.line == place.end_line:
        return lines[place.line - 1][place.column : place.end_column]
    inner = lines[place.line : place.end_line - 1]
    return "\n".join([lines[place.line - 1][place.column :], *inner, lines[place.end_line - 1][: place.end_column]])


# -- names


@pytest.mark.parametrize(
    "code, name",
    [
        ("import os\nos.system", "os.system"),
        ("import os as o\no.system", "os.system"),
        ("import a.b.c\na.b.c.d", "a.b.c.d"),
        ("import a.b.c as d\nd.e", "a.b.c.e"),
        ("from a.b import c as d\nd.e", "a.b.c.e"),
        ("import os\np = os\nq = p\nq.system", "os.system"),
        ("import os\na, b = 1, os\nb.system", "os.system"),
        ("import os\nfor o in [os]: o.system", "os.system"),
        ("import os\ndef f(o=os): o.system", "os.system"),
        ("import os\nx = os if y else z\nx.system", "os.system"),
        ("import os\ngetattr(os, 'system')", "os.system"),
        ("import os\nvars(os)['system']", "os.system"),
        ("import os\nos.__dict__['system']", "os.system"),
        ("import sys\nsys.modules['os'].system", "os.system"),
        ("__import__('os').system", "os.system"),
        ("import importlib as i\ni.import_module('os.path').join", "os.path.join"),
        ("import random\nrandom._os.system", "os.system"),
        ("import pandas as p\np.DataFrame().eval", "pandas.DataFrame().eval"),
        ("import os\nglobals()['os'].system", "os.system"),
        ("os.system", "os.system"),
        ("np.load", "numpy.load"),
        ("__builtins__.eval", "eval"),
        ("import builtins as b\nb.open", "open"),
        ("print.__self__.eval", "eval"),
        ("ｅｖａｌ", "eval"),
    ],
)
def test_a_name_is_followed_to_what_it_means(code, name):
    assert name in names(code)


@pytest.mark.parametrize(
    "code",
    [
        "def f(eval): eval(1)",
        "def f():\n    eval = 1\n    eval",
        "eval = len\neval(x)",
        "def eval(): pass\neval()",
        "lambda eval: eval",
    ],
)
def test_a_builtin_that_certainly_is_something_else_is_not_the_builtin(code):
    assert "eval" not in names(code)


@pytest.mark.parametrize(
    "code",
    [
        "eval(1)\neval = 1",
        "if x:\n    eval = 1\neval",
        "eval = 1\ndel eval\neval",
        "class A:\n    eval = 1\n    def f(self): eval",
        "def f():\n    global eval\n    eval = 1\n    eval",
        "def f(): eval = 1\neval",
        "[eval for x in [eval] for eval in [1]]",
    ],
)
def test_a_builtin_that_may_still_be_itself_is_taken_for_it(code):
    assert "eval" in names(code)


@pytest.mark.parametrize(
    "expression",
    [
        "'sys' + 'tem'",
        "'metsys'[::-1]",
        "''.join(['sys', 'tem'])",
        "''.join(reversed('metsys'))",
        "''.join(chr(n) for n in [115, 121, 115, 116, 101, 109])",
        "'%s%s' % ('sys', 'tem')",
        "'{1}{0}'.format('tem', 'sys')",
        "f'sys{\"tem\"}'",
        "'SYSTEM'.lower()",
        "b'system'.decode()",
        "bytes([115, 121, 115, 116, 101, 109]).decode()",
        "bytes.fromhex('73797374656d').decode()",
        "__import__('codecs').decode('flfgrz', 'rot13')",
        "__import__('base64').b64decode('c3lzdGVt').decode()",
        "'xsystemx'.strip('x')",
        "('sys', 'other')[0] + 'tem'",
    ],
)
def test_an_expression_of_literals_is_worked_out(expression):
    assert "os.system" in names(f"import os\ngetattr(os, {expression})")


@pytest.mark.parametrize(
    "expression",
    [
        *("'a' * 10**9", "'%1000000000d' % 1", "f'{1:1000000000}'", "'a'.replace('', 'b' * 9999) * 9999", "9**9**9"),
        *(
            "(b'%300000000d' % 1).decode()",
            "str([['a' * 9999] * 9999] * 9999)",
            "('{0}' * 3000).format(['\\n'] * 9999)",
        ),
        *("str([['a'] * 9999 for _ in 'a' * 9999])", "str(list(map(list, ['a' * 9999] * 9999)))"),
    ],
)
def test_what_would_grow_is_not_worked_out(expression):
    """Nor held in memory on the way: lists within lists, and bytes with a width, once took gigabytes."""
    tracemalloc.start()
    try:
        found = facts(f"getattr(x, {expression})")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert any(seen.kind is Kind.COMPUTED for seen in found)
    assert all(len(seen.name) <= MAX_CHARS for seen in found)
    assert peak < 50 << 20


def test_a_name_with_too_many_meanings_is_said_to_be_beyond_following():
    code = "\n".join(f"x = math.f{n}" for n in range(MAX_MEANINGS + 5)) + "\nimport os\nx = os.system\nx()"
    assert "name" in names(code, Kind.COMPUTED)


def test_names_that_are_bound_in_circles_end():
    names("a = b\nb = a\na.x\nc = c.d\nc\n" + "x = x + 'a'\ngetattr(y, x)")


def test_code_in_a_string_is_read_once_and_no_deeper_than_bounds():
    assert "subprocess" in names("exec('import subprocess')", Kind.IMPORT)
    code = "1"
    for _ in range(8):
        code = f"exec({code!r})"
    assert "nesting" in names(code, Kind.LARGE)
    long = "x = '" + "a = 1;" * 1000 + "'\n" + "\n".join(f"exec(x + '{n}')" for n in range(100))
    assert read(long, BOUNDS).nodes < 2000


# -- IPython


@pytest.mark.parametrize(
    "code, name",
    [
        ("%time x = 1", "%time"),
        ("y = %time 1", "%time"),
        ("if x:\n    %time 1", "%time"),
        ("!ls", "!"),
        ("!!ls", "!"),
        ("x = !ls", "!"),
        ("x?", "%pinfo"),
        ("?x", "%pinfo"),
        ("x??", "%pinfo2"),
        ("%%bash\nls", "%%bash"),
        ("%%unheard of\nls", "%%unheard"),
        ("get_ipython().run_line_magic('sx', '')", "%sx"),
        ("get_ipython().magic('sx ls')", "%sx"),
        ("ls -l", "%ls"),
        ("sx('ls')", "%sx"),
    ],
)
def test_a_magic_is_seen_in_every_form(code, name):
    assert name in names(code, Kind.MAGIC)


@pytest.mark.parametrize("code", ["ls = 1", "run.fast", "load(x)", "time", "x = ls"])
def test_a_variable_that_is_called_like_a_magic_is_none(code):
    assert {name for name in names(code, Kind.MAGIC) if name != "%time"} == set()


@pytest.mark.parametrize(
    "code",
    [
        "%time import os",
        "%%time\nimport os",
        "%timeit -n 1 -r1 import os",
        "%%capture out\nimport os",
        "%%time\n%%timeit\nimport os",
        "%precision {__import__('os')}",
        "!echo {__import__('os')}",
        "get_ipython().run_cell('import os')",
        ">>> import os",
        "In [1]: import os",
        "  import os\n  os",
    ],
)
def test_code_in_ipythons_syntax_is_read(code):
    assert "os" in names(code, Kind.IMPORT)


def test_shell_lines_are_read_as_shell():
    assert {"curl", "sh"} <= {seen.name for seen in facts("!curl x | sh") if seen.language == "bash"}
    assert "rm" in {seen.name for seen in facts("%%bash\nrm x") if seen.language == "bash"}


# -- places


@pytest.mark.parametrize(
    "code, name, text",
    [
        ("x = 1; eval(x)", "eval", "eval"),
        ("é = 'ü'; eval(x)", "eval", "eval"),
        ("x.__class__", "__class__", "__class__"),
        ("f(\n  eval)", "eval", "eval"),
        ("!ls\neval(x)", "eval", "eval"),
        ("é = 1\n%time y\nü = eval(x)", "eval", "eval"),
        ("\n\n\neval(x)", "eval", "eval"),
        ("    y = 1\n    eval(x)", "eval", "eval"),
        (">>> y = 1\n>>> eval(x)", "eval", "eval"),
        ("%%time\ny = 1\neval(x)", "eval", "eval"),
        ("y = 1\n%time eval(x)", "eval", "eval"),
        ("y = 1\nif y:\n    z = %time eval(x)", "eval", "eval"),
        ("!ls \\\n  -l\neval(x)", "eval", "eval"),
        ("y = 1\n!ls | curl x", "curl", "curl"),
        ("%%bash\nls\ncurl x", "curl", "curl"),
        ("y = 1\n%time y", "%time", "%time y"),
        ("y = !ls -l", "!", "!ls -l"),
        ("from os import (\n  system,\n)", "os.system", "system"),
        ("import os, sys", "sys", "sys"),
    ],
)
def test_a_place_is_that_of_the_cell_as_it_was_typed(code, name, text):
    assert place_of(code, name) == text


PIECES = st.sampled_from(
    [
        *("x = 1\n", "é = eval(x)\n", "!ls -l\n", "y = !ls\n", "%time eval(x)\n", "if x:\n    %time y\n", "x?\n", "\n"),
        *("# ü\n", "%%time\n", ">>> eval(x)\n", "    eval(x)\n", "s = '''\n'''\n", "!a \\\n b\n", "\x0c\n", "\r\n"),
        *("f(\n", ")\n", "'"),
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example("%%time\n\n\n  eval(x)")
@example("x = '\u2028'\neval(x)")
@example("\x0c\n\x0c\n!ls -l\n")
@example("!a\x0c\n\r!b\x85c\n%time x")
def test_every_place_lies_in_the_cell(code):
    lines = code.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for seen in facts(code):
        place = seen.place
        assert 1 <= place.line <= place.end_line <= len(lines)
        assert (place.line, place.column) <= (place.end_line, place.end_column)
        assert place.column >= 0


@given(st.lists(PIECES, max_size=8).map("".join))
def test_what_is_taken_for_plain_python_is_what_ipython_would_run(code):
    """The short way, without IPython's transformers, is one only where they change nothing."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return
    if is_plain_python(code):
        assert ast.dump(ast.parse(transform(code).source)) == ast.dump(tree)


@given(st.lists(PIECES, max_size=8).map("".join))
@example("x = 1\n!ls 'a\ny = %time f(\nif x:\n    z = !ls\n")
@example("s = '''\n!ls\n'''\n%time x")
def test_magics_that_are_changed_one_by_one_become_what_ipython_makes_of_all_at_once(code):
    whole = TransformerManager()
    try:
        wanted = whole.transform_cell(code)
    except SyntaxError:
        return
    made = transform(code)
    if made.magic is None:
        assert made.source == wanted


EVERY_SYNTAX = """
match x:
    case True | None: pass
    case {"a": 1, **rest} if rest: pass
    case [1, *others]: pass
    case C(2, y=-3.5j) as z: pass
@d
async def f(a, /, b: int = 1, *c, d=..., **e) -> None:
    global g
    async with a as b, c: await d
    async for i in j: yield i
    return [k async for k in l if k]
class A(B, metaclass=C, **D):
    x: int
    y: int = 1
    def g(self): nonlocal_ = lambda: (yield from self)
try: raise E from e
except (F, G) as h: pass
else: del h, i[1:2, ::3], j.k
finally: assert l, "m"
while n or o and not p < q is not r: break
else: q @= {**a, 'b': c}; r: int; s |= {*t, *u}
if (v := w) if x else y: print(f"{z!r:>{a}}", b"", 0x1, 1e5, 1j, ..., *b, sep='', **c)
for c.d, [e, *f] in g: continue
import h.i as j, k; from ..l import m as n
"""


def test_every_piece_of_syntax_is_walked():
    reading = read(EVERY_SYNTAX, BOUNDS)
    assert reading.nodes > 150 and not {seen.kind for seen in reading.facts} & {Kind.UNPARSED, Kind.LARGE}


# -- what cannot be read


@pytest.mark.parametrize("code", ["x = ", "def", "x = '\0'", "'\ud800'", "(", "%time (", "\\", "\x00"])
def test_what_does_not_parse_is_said_to_be_so(code):
    assert Kind.UNPARSED in {seen.kind for seen in facts(code)}


@pytest.mark.parametrize("code", ["!", "%", "%%", "?"])
def test_magics_without_a_name_are_read(code):
    assert Kind.UNPARSED not in {seen.kind for seen in facts(code)}


@pytest.mark.parametrize(
    "code", ["-" * 50_000 + "1", "+".join("1" * 50_000), "a" + ".a" * 50_000, "if x: pass\nelif " * 3000]
)
def test_what_is_too_deep_for_the_parser_is_too_deep(code):
    """But Python 3.10 reads chains of any length: then they are read."""
    kinds = {seen.kind for seen in facts(code)}
    assert kinds & {Kind.LARGE, Kind.UNPARSED} or code.startswith(("a.", "1+"))


@pytest.mark.parametrize(
    "code", ["'((((((((('", "# (((((((((", "'''\n(((((((((\n'''", '"\\"((((((((("', "'(\\'((((((((' # ((("], ids=repr
)
def test_brackets_in_text_are_no_nesting(code):
    assert all(seen.kind is not Kind.LARGE for seen in read(code, Bounds(5, 1000)).facts)


def test_nesting_is_found_where_it_is_deepest():
    (seen,) = read("x = 1\ny = [[[[[[1]]]]]]", Bounds(5, 1000)).facts
    assert seen == Seen(Kind.LARGE, "nesting", Place(2, 9, 2, 10), "6")


def test_ipython_is_imported_when_the_first_cell_comes_that_needs_it():
    """It costs some 70 ms and brings much with it; a gateway that reads plain cells shall not have it."""
    code = """if 1:
        import sys
        from cellgate.policy.judge import judge
        from cellgate.policy.policies import STRICT
        judge("x = 1", "python", STRICT)
        assert "IPython" not in sys.modules
        judge("%time x", "python", STRICT)
        assert "IPython" in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@given(st.text(alphabet=string.printable + "éü\u202e\u2028\0\ud800", max_size=200))
def test_any_text_is_read(code):
    read(code, BOUNDS)
