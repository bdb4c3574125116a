"""The public jupyter_kernel_test suite over our Python kernel, over a stock ipykernel, and over that one bridged.

All run the same tests with the same samples, and the counts are printed.
"""

from __future__ import annotations

import unittest

import jupyter_kernel_test

from tests.support.linked_kernel import LinkedKernel


class Samples(jupyter_kernel_test.KernelTests):
    """What to run, in Python. Every test of the suite has its sample: none is skipped."""

    __test__ = False  # run below, all of them and compared

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [
        {"text": "zi", "matches": {"zip"}},
        {"text": "import json; json.dum", "matches": {"dump", "dumps"}},
    ]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2", "for i in range(3):"]
    invalid_code_samples = ["import = 7q", "1 +* 2"]
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
        {
            "code": "from IPython.display import HTML; HTML('<b>x</b>')",
            "result": "<b>x</b>",
            "mime": "text/html",
        },
    ]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class StockIpykernel(Samples):
    """The measure, as jupyter_client starts it."""


class OurPythonKernel(Samples):
    kernel: LinkedKernel
    arguments: tuple[str, ...] = ()

    @classmethod
    def setUpClass(cls) -> None:
        cls.kernel = LinkedKernel(*cls.arguments)
        cls.kc = cls.kernel.client()
        cls.kc.wait_for_ready(timeout=30)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.kernel.__exit__()


class BridgedIpykernel(OurPythonKernel):
    arguments = ("--kernel", "python3")


def run(tests: type[unittest.TestCase]) -> tuple[set[str], dict[str, str]]:
    """The names of all tests of a class, and what went wrong in which of them or of their parts."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(tests)
    names = {name_of(test) for test in suite}
    result = unittest.TestResult()
    suite.run(result)
    assert not result.skipped, f"no sample for {result.skipped}"
    return names, {name_of(test): text for test, text in [*result.failures, *result.errors]}


def name_of(test: object) -> str:
    assert isinstance(test, unittest.TestCase)
    return test.id().rpartition(f"{__name__}.")[2].partition(".")[2] or test.id()


def test_whatever_a_stock_ipykernel_passes_ours_passes_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # a history of its own
    kernels = {"stock ipykernel": StockIpykernel, "ours": OurPythonKernel, "bridged": BridgedIpykernel}
    results = {who: run(tests) for who, tests in kernels.items()}
    with capsys.disabled():
        print()
        for who, (names, failures) in results.items():
            failed = {name.split()[0] for name in failures}
            print(f"{who}: {len(names - failed)} of {len(names)} tests pass", *sorted(failures), sep="; failed: ")
    all_names, stock_failures = results["stock ipykernel"]
    # IPython numbers the running session 0 when asked for a range of it, which the suite does not expect.
    assert set(stock_failures) <= {"test_history (hist_access_type='range')"}
    for names, failures in results.values():
        assert names == all_names
        assert set(failures) <= set(stock_failures), "\n".join(failures.values())
