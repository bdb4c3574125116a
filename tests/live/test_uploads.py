"""A file on its way is whole or not there: when its sender goes away, and when it changes while it is read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from cellgate.errors import BadPath, FileError
from cellgate.live.files import SessionFiles

ENTRY = {"name": "a", "type": "file", "size": 3, "modified": 1.0, "mode": 0o644, "version": "1-1-3"}


class Sandbox:
    """Answers when it is let; knows which files there are."""

    limits = {"file_bytes": 1 << 20, "workspace_bytes": 1 << 20, "workspace_inodes": 100}

    def __init__(self) -> None:
        self.files = {"dir/a": b"old"}
        self.may_answer = asyncio.Event()
        self.asked: list[str] = []

    async def ask(self, msg_type, content, buffers=(), *, channel):
        op, path = content["op"], content["path"]
        self.asked.append(op)
        if op == "write":
            self.files[path] = self.files.get(path, b"") + buffers[0]
        elif op == "delete":
            self.files.pop(path, None)
        elif op in ("rename", "unpack"):
            self.files[content["to"]] = self.files.pop(path)
        await self.may_answer.wait()
        return SimpleNamespace(content={"status": "ok", **ENTRY, "entries": 1, "bytes": 3}, buffers=())

    def file_moved(self, *_) -> None:
        pass


@pytest.mark.parametrize("path", ["..", "a/../b", "a//b", "a/", "a\0b", "\ud800", "é" * 2048])
async def test_a_path_that_no_file_can_have_is_not_asked_for(path):
    """Half a character too: the names of a one-shot's files are keys of JSON, which can say it."""
    sandbox = Sandbox()
    with pytest.raises(BadPath):
        await SessionFiles(sandbox).write_whole(path, b"")
    assert sandbox.asked == []


@pytest.mark.parametrize("asked", ["mkdir", "write"])
@pytest.mark.parametrize("finish", ["write", "commit", "unpack"])
async def test_an_upload_that_is_closed_while_a_piece_is_on_its_way(asked, finish):
    sandbox = Sandbox()
    files = SessionFiles(sandbox)
    upload = files.archive("dir", "tar") if finish == "unpack" else files.upload("dir/a")

    async def send() -> None:
        await upload.write(b"new")
        await (upload.write(b"er") if finish == "write" else getattr(upload, finish)())

    if asked == "write":
        sandbox.may_answer.set()
        sending = asyncio.ensure_future(send())
        while "write" not in sandbox.asked:
            sandbox.may_answer.set()
            await asyncio.sleep(0)
            sandbox.may_answer.clear()
    else:
        sending = asyncio.ensure_future(send())
        await asyncio.sleep(0)
    closing = asyncio.ensure_future(upload.close())
    await asyncio.sleep(0)
    sandbox.may_answer.set()
    await closing
    with pytest.raises(FileError):
        await asyncio.wait_for(sending, 5)
    assert sandbox.files == {"dir/a": b"old"}


@pytest.mark.parametrize("then", [("2-2-6", b"NEW"), ("1-1-6", b"")])
async def test_a_file_that_changes_while_it_is_read_is_no_mixture(then):
    answers = [("1-1-6", b"old"), then]

    class Changing(Sandbox):
        async def ask(self, msg_type, content, buffers=(), *, channel):
            version, data = answers.pop(0)
            said = {"status": "ok", **ENTRY, "size": 6, "version": version}
            return SimpleNamespace(content=said, buffers=(data,))

    with pytest.raises(FileError, match="changed"):
        await SessionFiles(Changing()).read_whole("a", 100)
