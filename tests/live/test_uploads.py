"""A file on its way whose sender goes away takes nobody's place and leaves nothing behind."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from cellgate.errors import FileError
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
