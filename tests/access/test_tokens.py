"""Tokens are shown once and kept as hashes; the file tells whoever reads it at once what was made and revoked."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace

import pytest

from cellgate.access.scopes import ALL_SCOPES, SCOPES, Scope, read_scopes, scopes_as_text
from cellgate.access.tokens import TOKEN, TokenStore, TokenWatch, digest_of, make_token, read_principal
from cellgate.errors import NewerState, StorageFull, UsageError

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.sqlite"


@pytest.fixture
def store(path):
    store = TokenStore.open(path)
    yield store
    store.close()


def a_token(principal: str = "ada", **more):
    return make_token(principal, {Scope.EXECUTE, Scope.OBSERVE}, now=NOW, **more)


def test_a_token_is_long_random_and_begins_with_its_id():
    (one, text), (_, other) = a_token(), a_token()
    assert TOKEN.fullmatch(text)[1] == one.id
    assert text != other
    assert one.digest == digest_of(text)
    assert "digest" not in repr(one)


def test_what_is_kept_tells_nobody_the_token(store, path):
    token, text = a_token(note="for the robot")
    store.add(token)
    assert store.tokens() == [token]
    kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert text.encode() not in kept
    assert text.rpartition("_")[2].encode() not in kept
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_is_good_until_it_expires_or_is_revoked(store):
    token, _ = a_token(expires=NOW + 10)
    assert token.is_good(NOW + 9)
    assert not token.is_good(NOW + 10)
    store.add(token)
    assert store.revoke(token.id, NOW + 1) == replace(token, revoked=NOW + 1)
    assert store.revoke(token.id, NOW + 2).revoked == NOW + 1  # it stays as it was
    assert not store.tokens()[0].is_good(NOW)


def test_what_is_not_there_cannot_be_revoked(store):
    with pytest.raises(UsageError, match="cellgate token ls"):
        store.revoke("nobody", NOW)


def test_a_reader_sees_what_was_written_at_its_next_look(store, path):
    watch = TokenWatch(path)
    token, _ = a_token()
    assert watch.look(NOW) == []
    store.add(token)
    assert watch.look(NOW) == [token]
    store.revoke(token.id, NOW)
    assert watch.look(NOW) == [replace(token, revoked=NOW)]


def test_a_reader_reads_again_only_what_may_have_changed(store, path):
    store.add(a_token()[0])
    watch, written = TokenWatch(path), path.stat().st_mtime
    assert watch.look(written) is not None
    assert watch.look(written + 0.001) is not None  # a second write in the same tick leaves the same times
    assert watch.look(written + 60) is not None
    assert watch.look(written + 61) is None


def test_without_a_file_there_are_no_tokens(path):
    watch = TokenWatch(path)
    assert watch.look(NOW) == []
    assert watch.look(NOW) is None


def test_a_file_that_is_gone_takes_its_tokens_with_it(store, path):
    store.add(a_token()[0])
    watch = TokenWatch(path)
    assert len(watch.look(NOW)) == 1
    path.unlink()
    assert watch.look(NOW) == []


def test_a_file_that_cannot_be_read_is_an_error_and_is_tried_again(store, path):
    watch = TokenWatch(path)
    writer = sqlite3.connect(path)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageFull, match="locked"):
        watch.look(NOW)
    writer.rollback()
    writer.close()
    assert watch.look(NOW) == []


def test_what_is_no_store_is_not_taken_for_one(path):
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(UsageError, match="holds no tokens"):
        TokenStore.open(path)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(NewerState, match="a newer version of Cellgate"):
        TokenStore.open(path)


def test_no_link_leads_to_another_file(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFull):
        TokenStore.open(path)
    assert not os.path.exists(tmp_path / "elsewhere")


def test_a_scope_of_another_version_opens_nothing(store, path):
    store.add(a_token()[0])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE tokens SET scopes = 'conquer'")
    assert store.tokens() == []


# -- scopes and principals -----------------------------------------------------------------------------


def test_scopes_are_read_with_what_they_imply_and_written_without():
    assert read_scopes("execute") == {Scope.EXECUTE, Scope.OBSERVE}
    assert read_scopes("admin, files") == {Scope.ADMIN, Scope.FILES, Scope.OBSERVE}
    for scopes in (ALL_SCOPES, *(read_scopes(scope) for scope in SCOPES)):
        assert read_scopes(scopes_as_text(scopes)) == scopes


@pytest.mark.parametrize("text", ["", " , ", "root", "execute root", "EXECUTE"])
def test_what_is_no_scope_says_what_would_pass(text):
    with pytest.raises(UsageError, match="observe, execute, files, admin would pass"):
        read_scopes(text)


@pytest.mark.parametrize("name", ["ada", "ada@example.org", "team-7.robot+x", "A" * 128])
def test_a_principal_is_a_name_or_an_address(name):
    assert read_principal(name) == name


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\n", "a/b", "ä", "A" * 129, "../etc", "a;b"])
def test_what_could_be_taken_for_something_else_names_nobody(name):
    with pytest.raises(UsageError, match="would pass"):
        read_principal(name)
