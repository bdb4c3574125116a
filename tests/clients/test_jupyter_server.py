"""`jupyter server --gateway-url`, which speaks the legacy websocket protocol; nbclient, by which `jupyter nbconvert`
executes notebooks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
from dataclasses import replace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.clients.conftest import HERE, PLAY_SECONDS, stock_server
from tests.clients.test_jupyterlab_services import FILE, SCENARIOS


@pytest.fixture(scope="module")
def one_notebook_server(one_server, tmp_path_factory):
    gateway = [f"--gateway-url={one_server.url}", f"--GatewayClient.auth_token={one_server.token}"]
    with stock_server(tmp_path_factory.mktemp("notebook"), *gateway) as server:
        yield server


@pytest.fixture
def notebook_server(server, one_notebook_server):
    """A stock Jupyter server all of whose kernels are the gateway's."""
    return one_notebook_server


# What the notebook server does its own way: it reads binary frames as UTF-8, and reconnects after a while and empty.
NOT_BEHIND = "token|binary|buffers|cut|network|nobody|loaded|dies|death"
BEHIND = [name for name in SCENARIOS if not re.search(NOT_BEHIND, name)]


@pytest.mark.parametrize("scenario", BEHIND)
def test_jupyterlab_before_a_notebook_server(scenario, node, notebook_server, tmp_path):
    """It knows the legacy protocol alone. A page that offers v1 connects twice to it, and it then confuses the two."""
    legacy = replace(node, environment=node.environment | {"LEGACY": "1"})
    legacy.play(notebook_server, tmp_path, FILE, scenario)


def test_kernels_that_the_gateway_ended_are_listed_no_more(server, notebook_server):
    stays, goes = (notebook_server.ask("/api/kernels", "POST", {"name": "python3"})["id"] for _ in range(2))
    assert {kernel["id"] for kernel in notebook_server.ask("/api/kernels")} == {stays, goes}
    server.ask(f"/api/kernels/{goes}", "DELETE")
    assert [kernel["id"] for kernel in notebook_server.ask("/api/kernels")] == [stays]
    notebook_server.ask(f"/api/kernels/{stays}", "DELETE")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.ask(f"/api/kernels/{stays}")


# `jupyter nbconvert --execute`, once with the gateway as its kernels' place, and once with a notebook server between


@pytest.fixture(params=["server", "notebook_server"], ids=["at the gateway", "at a notebook server"])
def execute(request, tmp_path):
    """Executes a notebook; gives it back, with what was said on the way."""
    place = request.getfixturevalue(request.param)

    def execute(*cells: str, **options: object):
        path = tmp_path / "notebook.ipynb"
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=metadata), path)
        options = {"kernel_manager_class": "tests.clients.mended.GatewayKernelManager", **options}
        gateway = {"JUPYTER_GATEWAY_URL": place.url, "JUPYTER_GATEWAY_AUTH_TOKEN": place.token}
        run = subprocess.run(
            [sys.executable, "-m", "nbconvert", "--to=notebook", "--execute", "--inplace", str(path)]
            + [f"--ExecutePreprocessor.{name}={value}" for name, value in options.items()],
            env={**os.environ, **gateway, "PYTHONPATH": str(HERE.parents[1])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PLAY_SECONDS,
            check=False,
        )
        return nbformat.read(path, as_version=4), run

    return execute


def test_a_notebook_is_executed(execute, server):
    cells = [
        "print('out'); import sys; print('err', file=sys.stderr)",
        "from IPython.display import display; shown = display('first', display_id=True)",
        "shown.update('second')",
        "display({'image/png': 'iVBORw0KGgo='}, raw=True)",
        "6 * 7",
    ]
    notebook, run = execute(*cells)
    assert run.returncode == 0, run.stderr
    printed, shown, _, pictured, computed = (cell["outputs"] for cell in notebook["cells"])
    assert {output["name"]: output["text"] for output in printed} == {"stdout": "out\n", "stderr": "err\n"}
    assert shown[0]["data"]["text/plain"] == "'second'"
    assert pictured[0]["data"]["image/png"].strip() == "iVBORw0KGgo="
    assert computed[0]["data"]["text/plain"] == "42"
    assert [cell["execution_count"] for cell in notebook["cells"]] == [1, 2, 3, 4, 5]
    assert server.ask("/api/kernels") == []


def test_an_error_ends_a_notebook(execute):
    notebook, run = execute("1/0", "print('never')")
    assert run.returncode != 0
    assert "ZeroDivisionError" in run.stderr
    assert notebook["cells"][1]["outputs"] == []


def test_errors_that_are_allowed_do_not_end_a_notebook(execute):
    notebook, run = execute("1/0", "print('still')", allow_errors=True)
    assert run.returncode == 0, run.stderr
    assert notebook["cells"][0]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert notebook["cells"][1]["outputs"][0]["text"] == "still\n"


def test_input_is_refused_in_a_notebook_that_nobody_watches(execute):
    _, run = execute("input('?')")
    assert run.returncode != 0
    assert "StdinNotImplementedError" in run.stderr


def test_a_cell_that_takes_too_long_is_interrupted_and_the_notebook_goes_on(execute):
    options = {"timeout": 2, "interrupt_on_timeout": True, "allow_errors": True}
    notebook, run = execute("while True: pass", "print('still')", **options)
    assert run.returncode == 0, run.stderr
    assert notebook["cells"][0]["outputs"][-1]["ename"] == "KeyboardInterrupt"
    assert notebook["cells"][1]["outputs"][0]["text"] == "still\n"


def test_a_kernel_that_dies_fails_its_cell(execute):
    _, run = execute("import os; os._exit(3)", "print('never')")
    assert run.returncode != 0
    assert "never" not in run.stdout
