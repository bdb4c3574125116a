"""Variables of a kernel, asked for over the link, and what a cell has done to them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cellgate_kernel import variables
from tests.kernels.kernelrig import Client, Zygote, cold


def asked(client: Client, **fields: Any) -> dict[str, Any]:
    reply = client.request("variables_request", fields).reply
    assert reply["status"] == "ok", reply
    return reply


def rows(client: Client, **fields: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in asked(client, **fields)["variables"]}


def test_variables_are_told_by_name_type_size_and_a_line(client):
    client.execute(
        "n = 3; text = 'x' * 500; items = [1, 'two', None]; table = {'a': (1,)}; nothing = frozenset()\n"
        "def function(): pass\nclass Class: pass\nimport math\n_hidden = 1"
    )
    answer = asked(client)
    told = {row["name"]: row for row in answer["variables"]}
    assert list(told) == ["n", "text", "items", "table", "nothing", "function", "Class", "math"]
    assert told["n"] == {"name": "n", "type": "int", "repr": "3"}
    assert told["items"] == {"name": "items", "type": "list", "size": 3, "repr": "[1, 'two', None]"}
    assert told["table"]["repr"] == "{'a': (1,)}"
    assert told["nothing"]["repr"] == "frozenset()"
    assert told["text"]["size"] == 500
    assert len(told["text"]["repr"]) == variables.MAX_REPR
    assert told["function"]["repr"] == "<function function>"
    assert told["Class"]["repr"] == "<class Class>"
    assert told["math"]["repr"] == "<module math>"
    assert answer["more"] == 0


def test_no_more_are_told_than_asked_for_and_the_rest_is_counted(client):
    client.execute("for i in range(30): globals()[f'v{i}'] = i\ndel i")
    answer = asked(client, max=10)
    assert (len(answer["variables"]), answer["more"]) == (10, 20)


HOSTILE = """
import sys, time
ran = []
class Trap:
    def _ran(self, *a, **k):
        ran.append(sys._getframe(1).f_code.co_name); print("PRINTED"); time.sleep(1e9)
    __repr__ = __str__ = __len__ = __iter__ = __getattr__ = __eq__ = __hash__ = __bool__ = __format__ = _ran
    __sizeof__ = __reduce__ = __dir__ = __getitem__ = __float__ = __int__ = __index__ = shape = dtype = _ran
    @property
    def __class__(self): return self._ran()
    def __getattribute__(self, name): ran.append(name); raise SystemExit(name)
class Meta(type):
    def __repr__(cls): ran.append('meta'); raise SystemExit
    __str__ = __len__ = __iter__ = __getattr__ = mro_ = __repr__
    @property
    def __name__(cls): ran.append('name'); return 1/0
class Odd(metaclass=Meta): pass
class Alike(type):
    def __eq__(cls, other): ran.append('eq'); return True
    __ne__, __hash__ = __eq__, type.__hash__
class Same(metaclass=Alike):
    def __repr__(self): ran.append('same'); raise SystemExit
    __str__ = __repr__
class TrapDict(dict):
    def __iter__(self): ran.append('iter'); raise SystemExit
    items = keys = __len__ = __repr__ = __getitem__ = get = __iter__
class TrapList(list):
    def __iter__(self): ran.append('iter'); raise SystemExit
    __len__ = __repr__ = __getitem__ = __iter__
class TrapText(str):
    def __str__(self): ran.append('str'); raise SystemExit
    __len__ = __repr__ = __getitem__ = __iter__ = __format__ = __str__
class TrapInt(int):
    def __str__(self): ran.append('int'); raise SystemExit
    __repr__ = __format__ = __index__ = __int__ = bit_length = __str__
class TrapSpace:
    @property
    def __dict__(self): ran.append('dict'); raise SystemExit
trap, odd, odd_class, space, same = Trap(), Odd(), Odd, TrapSpace(), Same()
traps = [Trap(), {'k': Trap()}, TrapText('inside')]
d, l, t, i = TrapDict(a=1), TrapList([1]), TrapText('text'), TrapInt(7)
keyed = {TrapText('key'): 1}
deep = []
for _ in range(100_000): deep = [deep]
loop = []; loop.append(loop)
huge = 10 ** 1_000_000
long = list(range(10 ** 6))
ran.clear()
"""


@pytest.mark.parametrize(
    "name", [None, "trap", "odd", "same", "traps", "d", "l", "t", "i", "keyed", "deep", "loop", "huge"]
)
def test_no_code_of_the_users_runs_when_its_objects_are_looked_at(client, name):
    client.execute(HOSTILE.replace("__eq__ = __hash__ = ", "") if name else HOSTILE)
    answer = client.request("variables_request", {"name": name})
    assert answer.reply["status"] == "ok"
    assert answer.text() == ""
    assert len(json.dumps(answer.reply)) < 100_000
    told = {row["name"]: row for row in answer.reply["variables"]}
    if name is None:
        assert told["t"]["repr"] == "'text'"
        assert told["i"]["repr"] == "7"
        assert told["d"]["repr"] == "{'a': 1}"
        assert told["l"] == {"name": "l", "type": "TrapList", "size": 1, "repr": "[1]"}
        assert told["trap"]["repr"] == "<Trap>"
        assert told["same"]["repr"] == "<Same>"
        assert told["odd_class"]["repr"] == "<class Odd>"
        assert told["huge"]["repr"].startswith("<integer of 33")
    assert client.execute("ran").result == "[]"


def test_an_object_is_shown_by_its_attributes(client):
    client.execute(
        "import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int\n    y: list\np = Point(1, [2]); p._z = 3"
    )
    assert rows(client)["p"]["repr"] == "Point(x=1, y=[2])"


def test_one_variable_is_told_in_detail(client):
    client.execute("x = {'a': [1, 2.5, None, float('nan'), 10**30, b'b'], 'b': {'c': 'd'}}")
    (row,) = asked(client, name="x")["variables"]
    assert row["data"]["a"][:4] == [1, 2.5, None, None]
    assert row["data"]["a"][4] == str(10**30)
    assert row["data"]["b"] == {"c": "d"}
    assert asked(client, name="nothing")["variables"] == []


@pytest.mark.parametrize("name", [None, "x", "y", "z", "keys"])
def test_an_answer_is_small_whatever_there_is(client, name):
    """A host reads 512 KiB of one."""
    client.execute(
        "x = ['\\U0001f600' * 5000] * 5000; y = list(range(10**6)); z = [[[0] * 100] * 100] * 100\n"
        "keys = {'\\U0001f600' * 90 + str(i): i for i in range(5000)}\n"
        "for i in range(1000): globals()[f'v{i}' + '\\u1234' * 5000] = '\\U0001f600' * 500"
    )
    answer = asked(client, **({} if name is None else {"name": name}))
    assert len(json.dumps(answer, ensure_ascii=False).encode()) < 512 << 10
    assert name is None or not answer["variables"][0]["is_whole"]


def test_what_is_asked_for_must_make_sense(client):
    assert client.request("variables_request", {"max": "many"}).reply["status"] == "error"
    assert client.request("variables_request", {"name": 7}).reply["status"] == "error"


@pytest.fixture(scope="module")
def data_zygote():
    pytest.importorskip("pandas")
    zygote = Zygote("python-data")
    yield zygote
    zygote.close()


def test_a_subclass_of_a_librarys_number_is_not_asked(data_zygote):
    with data_zygote.kernel() as rig:
        client = rig.client
        client.execute(
            "import numpy\nran = []\nclass Trap(numpy.int64):\n"
            "    @property\n    def dtype(self): ran.append('dtype'); raise SystemExit\n"
            "    def item(self): ran.append('item'); raise SystemExit\n"
            "x, y = Trap(7), numpy.int64(8)\nran.clear()"
        )
        assert rows(client)["x"]["repr"] == "<Trap>"
        assert rows(client)["y"]["repr"] == "8"
        assert client.execute("ran").result == "[]"


def test_tables_and_arrays_are_known_by_shape_and_data(data_zygote):
    with data_zygote.kernel() as rig:
        client = rig.client
        client.execute(
            "import numpy as np, pandas as pd\n"
            "frame = pd.DataFrame({'a': [1, 2, 3], 'b': ['x', 'y', None], 'c': [0.5, float('nan'), 2]})\n"
            "array = np.arange(1000.0).reshape(10, 100); scalar = np.float64(1.5)\n"
            "series = pd.Series([1, 2, 3], index=[0.5, 700.0, 2.5])  # labels by which a slice would have other rows\n"
            "wide = np.zeros((2, 10**6)); empty = pd.DataFrame(); zero = np.array(5); odd = np.array([object()])\n"
            "twice = pd.DataFrame([[1, 2]], columns=['a', 'a']); when = pd.Timestamp('2026-01-02')"
        )
        told = rows(client)
        assert (told["frame"]["type"], told["frame"]["shape"]) == ("DataFrame", [3, 3])
        assert told["frame"]["repr"].startswith("<3 rows: a int64, b ")
        assert told["array"]["shape"] == [10, 100]
        assert told["array"]["repr"].startswith("<float64: 0.0, 1.0")
        assert told["series"]["repr"] == "<3 × int64>"
        assert told["scalar"]["repr"] == "1.5"
        assert told["odd"]["repr"] == "<object>"
        (row,) = asked(client, name="frame", max=2)["variables"]
        assert [column["name"] for column in row["columns"]] == ["a", "b", "c"]
        assert row["data"] == [{"a": 1, "b": "x", "c": 0.5}, {"a": 2, "b": "y", "c": None}]
        assert not row["is_whole"]
        (row,) = asked(client, name="twice")["variables"]
        assert row["data"] == [{"a": 1, "a.1": 2}]
        assert row["is_whole"]
        (row,) = asked(client, name="wide")["variables"]
        assert not row["is_whole"]
        (row,) = asked(client, name="zero")["variables"]
        assert row["data"] == 5
        (row,) = asked(client, name="series")["variables"]
        assert row["data"] == [1, 2, 3]
        assert asked(client, name="empty")["variables"][0]["data"] == []
        assert told["when"]["repr"] == "Timestamp('2026-01-02 00:00:00')"


def diff_of(client: Client, code: str) -> Any:
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    answer = client.finish(client.send("execute_request", content, metadata={"cellgate": {"diff": True}}))
    reply = next(message for message in answer.messages if message.type == "execute_reply")
    return reply.metadata["cellgate"]["diff"]


def test_a_cells_reply_tells_what_it_bound(client):
    assert diff_of(client, "a = 1; b = [1]; _c = 2") == {"added": ["a", "b"], "changed": [], "removed": []}
    assert diff_of(client, "a = 'other'; b.append(2); c = 3") == {"added": ["c"], "changed": ["a"], "removed": []}
    assert diff_of(client, "del a; 1/0") == {"added": [], "changed": [], "removed": ["a"]}
    assert diff_of(client, "%reset -f")["removed"] == ["b", "c"]


def test_who_does_not_ask_for_a_diff_gets_none(client):
    answer = client.execute("a = 1")
    reply = next(message for message in answer.messages if message.type == "execute_reply")
    assert "diff" not in reply.metadata.get("cellgate", {})


def test_a_diff_keeps_nothing_alive(client):
    diff_of(client, "import weakref\nclass C: pass\nx = C(); gone = weakref.ref(x)")
    assert diff_of(client, "del x; held = gone() is not None")["removed"] == ["x"]
    assert client.execute("held").result == "False"


def test_a_kernel_that_started_cold_answers_too():
    with cold() as rig:
        rig.client.execute("a = 1")
        assert list(rows(rig.client)) == ["a"]
