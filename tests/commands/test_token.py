"""`cellgate token`: what it prints, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

import pytest

from cellgate.access.tokens import TOKEN, TokenStore
from cellgate.cli import main


@pytest.fixture
def place():
    """A directory that is open to the user whom a server of root's becomes."""
    with tempfile.TemporaryDirectory(prefix="cellgate-test-") as name:
        os.chmod(name, 0o711)
        yield Path(name)


@pytest.fixture
def cellgate(place, capsys):
    def run(*words: str) -> tuple[int, str, str]:
        status = main(["token", *words, "--state-dir", str(place / "state")])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_token_is_printed_alone_and_what_it_opens_beside_it(cellgate):
    status, out, err = cellgate("create", "ada", "--expires", "90d", "--note", "for the robot")
    assert status == 0
    found = TOKEN.fullmatch(out.strip())
    assert f"token {found[1]} of ada: execute,files, until 20" in err
    assert out.strip() not in err


def test_tokens_are_listed_by_their_ids_and_never_whole(cellgate):
    _, text, _ = cellgate("create", "ada", "--scopes", "observe", "--note", "for the robot")
    token_id = TOKEN.fullmatch(text.strip())[1]
    _, out, _ = cellgate("ls")
    heading, row = out.splitlines()
    assert heading.split() == ["ID", "PRINCIPAL", "SCOPES", "CREATED", "EXPIRES", "STATE", "NOTE"]
    assert re.fullmatch(rf"{token_id}  ada +observe +20\S+ \S+ +good +for the robot", row)
    assert text.strip() not in out


def test_a_revoked_token_is_listed_only_among_all(cellgate):
    made = json.loads(cellgate("create", "ada", "--json")[1])
    assert cellgate("revoke", made["text"])[0] == 0  # whoever has it whole need not cut it
    assert json.loads(cellgate("ls", "--json")[1])["tokens"] == []
    [listed] = json.loads(cellgate("ls", "--all", "--json")[1])["tokens"]
    assert (listed["id"], listed["state"]) == (made["token"]["id"], "revoked")
    assert "digest" not in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "a b"], "names no principal"),
        (["create", "ada", "--scopes", "root"], "observe, execute, files, admin would pass"),
        (["create", "ada", "--scopes", ""], "there is no scope"),
        (["create", "ada", "--expires", "tomorrow"], "30m, 12h or 90d"),
        (["create", "ada", "--expires", "0d"], "30m, 12h or 90d"),
        (["create", "ada", "--expires", "99999d"], "up to 3650d"),
        (["create", "ada", "--note", "two\nlines"], "printable characters would pass"),
        (["create", "ada", "--note", "x" * 201], "printable characters would pass"),
        (["revoke", "nobody"], "cellgate token ls"),
        (["burn"], "invalid choice"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_pass(cellgate, words, said):
    status, out, err = cellgate(*words)
    assert (status, out) == (2, "")
    assert said in err


def test_the_state_directory_is_that_of_the_servers_own_settings(place, capsys):
    config = place / "cellgate.toml"
    config.write_text(f'state_dir = "{place / "there"}"\nport = 1\n')
    assert main(["token", "create", "ada", "--config", str(config)]) == 0
    store = TokenStore.open(place / "there" / "access" / "tokens.sqlite")
    assert [token.principal for token in store.tokens()] == ["ada"]
    store.close()
