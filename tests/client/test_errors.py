"""Errors: chosen by the code that a server answers, whatever else it says."""

from __future__ import annotations

import pytest

from cellgate.client import errors
from cellgate.client.errors import CODES, CellFailed, CellgateError, Unavailable, error_of
from cellgate.gateway import base
from cellgate.wire.result import Result


def test_every_code_that_is_known_here_is_one_that_the_server_has():
    said_on_websockets = {"bad_field", "id_taken", "input_unasked", "observer", "unknown_cell", "unknown_op"}
    assert set(CODES) - said_on_websockets <= {*base.CODES, "too_many_clients"}  # which closes one


def test_the_tree_in_the_docstring_is_the_tree():
    kinds = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    drawn = {words[-1].split()[0] for line in errors.__doc__.splitlines() if (words := line.split("── "))[1:]}
    assert drawn == kinds - {"CellgateError"}


def test_an_error_carries_all_that_was_said():
    said = {"code": "server_full", "message": "all 5 sessions exist", "facts": {"count": 5}}
    error = error_of(said, status=503, retry_after=10.0)
    assert type(error) is Unavailable
    assert (error.code, error.message, error.facts) == ("server_full", "all 5 sessions exist", {"count": 5})
    assert (error.status, error.retry_after) == (503, 10.0) and "server_full" in str(error)


@pytest.mark.parametrize("said", [{}, {"code": "from_the_future"}, {"code": 5, "message": None, "facts": "x"}])
def test_whatever_else_a_server_says_is_a_plain_error(said):
    assert type(error_of(said, status=418)) is CellgateError


def test_a_cell_that_failed_says_how():
    raised = CellFailed(Result(status="error", reason="error", error={"name": "NameError", "value": "x"}))
    killed = CellFailed(Result(status="error", reason="oom", sentence="it needed more memory than it may"))
    assert str(raised) == "NameError: x [error]" and str(killed) == "it needed more memory than it may [oom]"


def test_every_name_of_the_package_is_there():
    import cellgate.client

    for name in cellgate.client.__all__:
        assert getattr(cellgate.client, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'AsyncNothing'"):
        cellgate.client.AsyncNothing
