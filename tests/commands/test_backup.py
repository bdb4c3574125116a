"""A backup that was made while the server served is a server's state: what was said is there, and who may ask."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import tarfile
import tempfile
from argparse import Namespace
from pathlib import Path

import pytest
import websockets

from cellgate.access.tokens import TokenStore, make_token
from cellgate.cli import main
from cellgate.commands import backup
from cellgate.serve.places import gateway_account
from tests.support.server import BOUND, served, until


@pytest.fixture
def place():
    """A directory that is open to the user whom a server of root's becomes."""
    with tempfile.TemporaryDirectory(prefix="cellgate-test-") as name:
        os.chmod(name, 0o711)
        yield Path(name)


async def cellgate(*words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cellgate", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), BOUND)
    return process.returncode, said.decode()


@pytest.mark.native
async def test_a_session_lives_on_elsewhere_with_all_that_was_said(place):
    file = place / "backup.tar.gz"
    async with served("--profile", "testing") as server:
        kernel_id = (await server.fetch("POST", "/api/kernels")).json()["id"]
        async with websockets.connect(server.channels_url(kernel_id, "me")) as websocket:
            header = {"msg_id": "m1", "msg_type": "execute_request", "session": "me"}
            content = {"code": "print('for later')"}
            await websocket.send(json.dumps({"channel": "shell", "header": header, "content": content}))
            while "for later" not in str(json.loads(await asyncio.wait_for(websocket.recv(), BOUND)).get("content")):
                pass
        status, _ = await cellgate("token", "create", "ada", "--state-dir", str(server.state_dir))
        assert status == 0
        status, said = await cellgate("backup", str(file), "--state-dir", str(server.state_dir))
        assert status == 0, said
        assert file.stat().st_mode & 0o777 == 0o600

    async with served("--profile", "testing", start=False) as again:
        status, said = await cellgate("restore", str(file), "--state-dir", str(again.state_dir))
        assert status == 0, said
        await again.start()
        assert [row["id"] for row in (await again.fetch("GET", "/api/kernels")).json()] == [kernel_id]
        events = (await again.fetch("GET", f"/v1/sessions/{kernel_id}/events")).body.decode()
        assert "for later" in events
        assert " ada " in (await cellgate("token", "ls", "--state-dir", str(again.state_dir)))[1]
        status, said = await cellgate("audit", "verify", "--state-dir", str(again.state_dir))
        assert (status, "whole" in said) == (0, True)
        await until(lambda: again.gateway_pid() != 0)


def test_a_state_is_never_replaced_and_a_file_neither(place, capsys):
    state = place / "state"
    assert main(["token", "create", "ada", "--state-dir", str(state)]) == 0
    assert main(["backup", str(place / "b.tar.gz"), "--state-dir", str(state)]) == 0
    assert main(["backup", str(place / "b.tar.gz"), "--state-dir", str(state)]) == 2
    assert main(["restore", str(place / "b.tar.gz"), "--state-dir", str(state)]) == 2
    assert "holds a state already" in capsys.readouterr().err
    assert main(["restore", str(place / "b.tar.gz"), "--state-dir", str(place / "other")]) == 0
    store = TokenStore.open(place / "other" / "access" / "tokens.sqlite")
    assert [token.principal for token in store.tokens()] == ["ada"]
    store.close()


def archive_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


GOOD = tarfile.TarInfo("cellgate-backup.json"), b'{"version": 1}'


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([], "no backup"),
        ([(tarfile.TarInfo("gateway/x"), b"x")], "no backup of version 1"),
        ([(tarfile.TarInfo("cellgate-backup.json"), b'{"version": 2}')], "no backup of version 1"),
        ([GOOD, (tarfile.TarInfo("gateway/../../x"), b"x")], "no file of a server's state"),
        ([GOOD, (link("gateway/x"), b"")], "no file of a server's state"),
        ([GOOD, (tarfile.TarInfo("gateway/a/b/c/d/e/f"), b"x")], "no file of a server's state"),
    ],
)
def test_what_is_no_backup_makes_no_state(place, capsys, members, said):
    file = archive_of(place / "x.tar.gz", *members)
    assert main(["restore", file, "--state-dir", str(place / "state")]) == 2
    assert said in capsys.readouterr().err
    assert not (place / "x").exists()


def test_a_backup_that_is_not_there_is_told_and_makes_no_state(place, capsys):
    """It was told as a state directory that cannot be written, which had been made."""
    assert main(["restore", str(place / "x"), "--state-dir", str(place / "state")]) == 2
    assert "x cannot be read: No such file" in capsys.readouterr().err
    assert not (place / "state").exists()


def test_a_backup_that_is_interrupted_leaves_no_file(place, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "add_tree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backup.execute(Namespace(file=place / "b.tar.gz", config=None, state_dir=str(place / "state")))
    assert not (place / "b.tar.gz").exists()


def test_what_is_no_archive_is_told(place, capsys):
    (place / "x").write_bytes(b"what is this?")
    assert main(["restore", str(place / "x"), "--state-dir", str(place / "state")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_backup_that_breaks_off_leaves_nothing_and_a_whole_one_passes_afterwards(place, capsys):
    """Its files stood in the way of the next attempt, and a server started on them had lost the rest."""
    state, file = place / "state", place / "b.tar.gz"
    assert main(["token", "create", "ada", "--state-dir", str(state)]) == 0
    (state / "gateway" / "large").write_bytes(os.urandom(1 << 20))
    if os.geteuid() == 0:
        account = gateway_account()
        os.chown(state / "gateway" / "large", account.uid, account.gid)
    assert main(["backup", str(file), "--state-dir", str(state)]) == 0
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[: len(whole) // 2] + bytes(len(whole) // 2)):
        file.write_bytes(broken)
        assert main(["restore", str(file), "--state-dir", str(place / "other")]) == 2
        assert "cannot be read" in capsys.readouterr().err
        assert [path for path in (place / "other").rglob("*") if not path.is_dir()] == []
    file.write_bytes(whole)
    (place / "other" / "gateway" / "restoring").mkdir()  # as one leaves it that is killed
    assert main(["restore", str(file), "--state-dir", str(place / "other")]) == 0
    found = sorted(path.name for path in (place / "other").rglob("*") if not path.is_dir())
    assert found == ["large", "tokens.sqlite"]
    assert not list((place / "other").rglob("restoring"))


def test_names_that_lead_elsewhere_are_not_followed(place):
    state = place / "state"
    assert main(["token", "create", "ada", "--state-dir", str(state)]) == 0
    (state / "gateway" / "notes").symlink_to("/etc/passwd")
    os.mkfifo(state / "gateway" / "pipe")
    assert main(["backup", str(place / "b.tar.gz"), "--state-dir", str(state)]) == 0
    with tarfile.open(place / "b.tar.gz") as archive:
        assert archive.getnames() == ["cellgate-backup.json", "access/tokens.sqlite"]


def test_a_token_made_while_a_backup_is_made_is_in_it_whole_or_not_at_all(place):
    store = TokenStore.open(place / "tokens.sqlite")
    store.add(make_token("ada", [], now=0.0)[0])
    store.close()
    from cellgate.commands.archive import add_database, begin_archive

    file = io.BytesIO()
    with begin_archive(file) as archive:
        add_database(archive, place / "tokens.sqlite", "access/tokens.sqlite")
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        assert archive.extractfile("access/tokens.sqlite").read(16) == b"SQLite format 3\0"
