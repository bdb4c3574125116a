"""Which kernels can be asked for: those of the templates, and what is installed beside this program."""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import pytest

from cellgate.live.kernelspecs import DEFAULT_KERNEL, MAX_SPEC_BYTES, find_kernelspecs, setup_of

SPEC = {"argv": ["x"], "display_name": "Bash", "language": "bash", "metadata": {"a": 1}}


@pytest.fixture
def install(tmp_path: Path):
    def install(name: str, spec: object) -> Path:
        directory = tmp_path / "share" / "jupyter" / "kernels" / name
        directory.mkdir(parents=True)
        (directory / "kernel.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))
        return directory

    return install


def test_python_is_always_there(tmp_path: Path):
    specs = find_kernelspecs(("python",), tmp_path)
    assert list(specs) == [DEFAULT_KERNEL]
    spec = specs[DEFAULT_KERNEL]
    assert (spec.template, spec.bridged, spec.resources) == ("python", "", None)
    assert setup_of(spec, {}) == b""


def test_an_installed_kernel_is_bridged_under_the_name_it_is_installed_by(tmp_path: Path, install):
    directory = install("Bash", SPEC)
    spec = find_kernelspecs(("python",), tmp_path)["bash"]
    assert (spec.name, spec.display_name, spec.language, spec.template) == ("bash", "Bash", "bash", "python")
    assert (spec.metadata, spec.resources) == ({"a": 1}, directory)
    assert msgpack.unpackb(setup_of(spec, {"A": "b"})) == {"kernel": "Bash", "env": {"A": "b"}}


def test_an_installed_python_gives_its_logos_and_does_not_take_our_place(tmp_path: Path, install):
    directory = install("python3", {**SPEC, "display_name": "another"})
    spec = find_kernelspecs(("python",), tmp_path)[DEFAULT_KERNEL]
    assert (spec.bridged, spec.display_name, spec.resources) == ("", "Python 3", directory)


def test_data_kernels_are_offered_with_their_template_alone(tmp_path: Path):
    assert "python-data" not in find_kernelspecs(("python",), tmp_path)
    assert find_kernelspecs(("python", "python-data"), tmp_path)["python-data"].template == "python-data"


@pytest.mark.parametrize(
    "spec",
    ["", "no json", "[]", "{}", '{"display_name": "no language"}', json.dumps(SPEC)[:-1], " " * MAX_SPEC_BYTES + "{}"],
    ids=["empty", "no json", "a list", "an object", "half", "cut off", "huge"],
)
def test_what_is_no_kernelspec_is_not_offered(tmp_path: Path, install, spec: str):
    install("odd", spec)
    assert list(find_kernelspecs(("python",), tmp_path)) == [DEFAULT_KERNEL]


def test_metadata_that_is_no_table_is_left_out(tmp_path: Path, install):
    install("odd", {**SPEC, "metadata": 7})
    assert find_kernelspecs(("python",), tmp_path)["odd"].metadata == {}


def test_odd_names_are_nobodys_path(tmp_path: Path, install):
    """A name is looked up in the table of what is installed, and becomes no path."""
    install("Bash", SPEC)
    specs = find_kernelspecs(("python",), tmp_path)
    assert not {"../bash", "bash/", "", ".", "bash\0"} & set(specs)
