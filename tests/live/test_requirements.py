"""Requirements are held against what is installed; nothing is installed for them."""

from __future__ import annotations

import pytest

from cellgate.live.requirements import installed_packages, normal_name, unmet

INSTALLED = {"numpy": "2.1.0", "scikit-learn": "1.5", "odd": "unknown", "beta": "2.0b1"}


@pytest.mark.parametrize(
    "met",
    [
        *("numpy", "NumPy", "numpy>=2", "numpy~=2.1", "scikit_learn<2", "beta>=1", "numpy[extra]>=2"),
        'absent; python_version < "3"',
    ],
)
def test_what_is_installed_will_do(met):
    assert unmet([met], INSTALLED) == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("pandas", "pandas is not installed"),
        ("numpy<2", "numpy is installed as 2.1.0, which is not <2"),
        ("odd>=1", "odd is installed as unknown, which is not >=1"),
        ("", "no requirement"),
        ("numpy==", "no requirement"),
        ("numpy @ file:///etc/passwd", "would come from elsewhere"),
        ("-r requirements.txt", "no requirement"),
        ("x" * 10_000, "is not installed"),
        ("numpy; " + "(" * 500, "no requirement"),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_told(asked, told):
    [problem] = unmet([asked], INSTALLED)
    assert told in problem
    assert len(problem) < 400


def test_what_is_installed_here_is_found_by_its_normal_name():
    assert installed_packages()["pytest-asyncio"] == pytest.importorskip("pytest_asyncio").__version__
    assert normal_name("Py__test.Asyncio") == "py-test-asyncio"
