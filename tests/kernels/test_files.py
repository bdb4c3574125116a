"""Files of a sandbox, asked for over the link."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from cellgate_kernel import files
from cellgate_kernel.message import Channel
from tests.kernels.kernelrig import Client


class Asked:
    """The files of one kernel."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __call__(self, op: str, data: bytes | None = None, **fields: object) -> tuple[dict, bytes]:
        """The content of the reply, and its bytes."""
        buffers = None if data is None else [data]
        answer = self.client.finish(self.client.send("files_request", {"op": op, **fields}, Channel.CONTROL, buffers))
        reply = next(message for message in answer.messages if message.type == "files_reply")
        return reply.content, b"".join(reply.buffers)

    def ok(self, op: str, data: bytes | None = None, **fields: object) -> dict:
        content, _ = self(op, data, **fields)
        assert content["status"] == "ok", content
        return content

    def refused(self, op: str, data: bytes | None = None, **fields: object) -> str:
        content, _ = self(op, data, **fields)
        assert content["status"] == "error", content
        assert content["ename"] in files.ERRORS
        return content["ename"]

    def fetch(self, path: str, kind: str) -> bytes:
        handle = self.ok("pack", path=path, format=kind)["handle"]
        whole = b""
        while piece := self("next", handle=handle)[1]:
            whole += piece
        return whole


@pytest.fixture
def work(tmp_path):
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def rig(zygote, work, tmp_path):
    places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    with zygote.kernel({"cwd": str(work), "env": places}) as rig:
        yield rig


@pytest.fixture
def asked(client):
    return Asked(client)


def test_a_file_is_written_in_pieces_renamed_and_read_back(asked, work):
    asked.ok("write", b"hello ", path=".part", create=True)
    asked.ok("write", b"world", path=".part", offset=6)
    entry = asked.ok("rename", path=".part", to="greeting.txt")
    assert (entry["name"], entry["type"], entry["size"]) == ("greeting.txt", "file", 11)
    assert (work / "greeting.txt").read_bytes() == b"hello world"
    content, data = asked("read", path="greeting.txt", offset=3, bytes=5)
    assert data == b"lo wo"
    assert content["version"] == entry["version"]
    assert asked("read", path="greeting.txt", offset=11)[1] == b""


def test_files_are_served_while_a_cell_runs(asked, client, work):
    cell = client.start("print('begun', flush=True)\nwhile True: pass")
    client.await_text("begun")
    asked.ok("write", b"x", path="meanwhile", create=True)
    assert (work / "meanwhile").exists()
    client.interrupt()
    assert client.finish(cell).reply["status"] == "error"


def test_a_directory_is_listed_by_name_and_in_parts(asked, work):
    for number in range(25):
        (work / f"f{number:02}").write_text("x")
    (work / "link").symlink_to("f00")
    os.mkfifo(work / "pipe")
    first = asked.ok("list", path="", max=10)
    assert [entry["name"] for entry in first["entries"]] == [f"f{number:02}" for number in range(10)]
    assert first["more"]
    rest = asked.ok("list", path=".", after="f09")
    assert [(entry["name"], entry["type"]) for entry in rest["entries"]][-3:] == [
        ("f24", "file"), ("link", "link"), ("pipe", "other"),
    ]  # fmt: skip
    assert not rest["more"]


def test_the_directory_stays_where_the_session_began(asked, client, work):
    client.execute("import os; os.chdir('/')")
    asked.ok("mkdir", path="a/b/c")
    assert (work / "a/b/c").is_dir()
    asked.ok("mkdir", path="a/b/c")


@pytest.mark.parametrize(
    ("code", "op", "fields"),
    [
        ("no_such_file", "read", {"path": "nothing"}),
        ("no_such_file", "list", {"path": "nothing/"}),
        ("not_a_file", "read", {"path": "directory"}),
        ("not_a_file", "read", {"path": "pipe"}),
        ("not_a_file", "write", {"path": "pipe", "data": b"x"}),
        ("not_a_file", "read", {"path": "/dev/zero"[1:]}),
        ("not_a_directory", "list", {"path": "file"}),
        ("not_a_directory", "read", {"path": "file/inside"}),
        ("not_a_directory", "stat", {"path": "file/"}),
        ("not_a_directory", "mkdir", {"path": "file"}),
        ("not_empty", "delete", {"path": "directory"}),
        ("already_there", "write", {"path": "file", "create": True, "data": b"x"}),
        ("not_a_file", "rename", {"path": "file", "to": "directory"}),
        ("outside", "read", {"path": "/etc/passwd"}),
        ("outside", "read", {"path": "../../etc/passwd"}),
        ("outside", "read", {"path": "elsewhere"}),
        ("outside", "write", {"path": "door/new", "create": True, "data": b"x"}),
        ("outside", "pack", {"path": "/", "format": "tar"}),
        ("bad_path", "read", {"path": "a\0b"}),
        ("bad_path", "read", {"path": "a/" * 3000}),
        ("bad_path", "read", {"path": "n" * 300}),
        ("bad_path", "stat", {"path": "\ud800"}),
        ("bad_path", "stat", {"path": "loop"}),
        ("bad_path", "delete", {"path": "", "recursive": True}),
        ("bad_path", "delete", {"path": "."}),
        ("bad_path", "rename", {"path": "", "to": "x"}),
        ("bad_request", "read", {"path": 7}),
        ("bad_request", "read", {}),
        ("bad_request", "read", {"path": "file", "offset": -1}),
        ("bad_request", "read", {"path": "file", "offset": True}),
        ("bad_request", "read", {"path": "file", "offset": 1 << 70}),
        ("bad_request", "read", {"path": "file", "bytes": 1.5}),
        ("bad_request", "delete", {"path": "file", "recursive": "yes"}),
        ("bad_request", "write", {"path": "big", "create": True, "data": bytes((1 << 20) + 1)}),
        ("bad_request", "dance", {}),
        ("bad_archive", "pack", {"path": "", "format": "rar"}),
        ("bad_archive", "unpack", {"path": "file", "to": "", "format": "zip"}),
        ("bad_archive", "unpack", {"path": "file", "to": "", "format": "tar"}),
        ("unknown_handle", "next", {"handle": 99}),
    ],
)
def test_what_cannot_be_is_refused_by_name(asked, work, code, op, fields):
    (work / "file").write_bytes(b"content that is no archive")
    (work / "directory/inside").mkdir(parents=True)
    os.mkfifo(work / "pipe")
    (work / "dev").mkdir()
    (work / "dev/zero").mkdir()
    (work / "elsewhere").symlink_to("/etc/passwd")
    (work / "door").symlink_to("/usr")
    (work / "loop").symlink_to("loop")
    before = sorted(os.listdir(work))
    data = fields.pop("data", None) if (fields := dict(fields)) else None
    if code == "bad_path" and fields.get("path") == "loop":
        assert asked.refused(op, data, **fields) in ("bad_path", "no_such_file")
    else:
        assert asked.refused(op, data, **fields) == code
    assert sorted(os.listdir(work)) == before


def test_a_closed_directory_and_one_that_is_gone_are_told_apart(asked, client, work):
    (work / "closed").mkdir()
    if os.getuid():
        (work / "closed").chmod(0)
        assert asked.refused("list", path="closed") == "not_permitted"
    client.execute(f"import shutil; shutil.rmtree({str(work)!r})")
    assert asked.refused("read", path="file") == "workspace_gone"
    assert asked.refused("list", path="") == "workspace_gone"
    assert client.execute("1+1").result == "2"


def test_a_file_beyond_the_limit_is_refused_and_the_kernel_lives(asked, client):
    client.execute("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))")
    assert asked.refused("write", b"x" * 2000, path="big", create=True) == "file_too_large"
    assert client.execute("1+1").result == "2"


def test_a_directory_goes_with_all_that_is_in_it_when_that_is_meant(asked, work):
    (work / "d/e").mkdir(parents=True)
    (work / "d/e/f").write_text("x")
    (work / "d/link").symlink_to("/etc")
    asked.ok("delete", path="d", recursive=True)
    assert os.listdir(work) == []
    assert Path("/etc").exists()


def test_a_link_is_removed_and_not_what_it_points_at(asked, work):
    (work / "file").write_text("x")
    (work / "link").symlink_to("file")
    asked.ok("delete", path="link")
    assert os.listdir(work) == ["file"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_comes_back_as_it_went(asked, work, kind):
    (work / "tree/sub").mkdir(parents=True)
    (work / "tree/empty").mkdir()
    (work / "tree/sub/big").write_bytes(os.urandom(3 << 20))
    (work / "tree/räksmörgås.txt").write_text("text")
    (work / "tree/run.sh").write_text("#!/bin/sh")
    (work / "tree/run.sh").chmod(0o755)
    (work / "tree/link").symlink_to("/etc/passwd")
    os.mkfifo(work / "tree/pipe")
    archive = asked.fetch("tree", kind)
    (work / "a").write_bytes(archive)
    (work / "out").mkdir()
    answer = asked.ok("unpack", path="a", to="out", format=kind)
    assert answer["entries"] == 5
    assert sorted(str(path.relative_to(work / "out")) for path in (work / "out").rglob("*")) == [
        "empty", "run.sh", "räksmörgås.txt", "sub", "sub/big",
    ]  # fmt: skip
    assert (work / "out/sub/big").read_bytes() == (work / "tree/sub/big").read_bytes()
    assert (work / "out/run.sh").stat().st_mode & stat.S_IXUSR


def test_what_a_library_packed_is_unpacked_over_what_is_there(asked, work):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("./d/x")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"new"))
    (work / "a.tar.gz").write_bytes(buffer.getvalue())
    (work / "d").mkdir()
    (work / "d/x").write_text("old")
    (work / "d/y").write_text("stays")
    asked.ok("unpack", path="a.tar.gz", to="", format="tar")
    assert (work / "d/x").read_text() == "new"
    assert (work / "d/y").read_text() == "stays"


def tar_of(*members: tarfile.TarInfo | str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = info.size or (4 if info.isreg() else 0)
            archive.addfile(info, io.BytesIO(bytes(min(info.size, 1 << 20))) if info.isreg() else None)
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_of(*names: str, mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, b"data")
    return buffer.getvalue()


def bomb(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", bytes(8 << 20))
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
            info = tarfile.TarInfo("zeros")
            info.size = 8 << 20
            packed.addfile(info, io.BytesIO(bytes(8 << 20)))
    return buffer.getvalue()


HOSTILE = {
    "a symbolic link": ("tar", tar_of("good", special("l", tarfile.SYMTYPE, "/etc/passwd"))),
    "a hard link": ("tar", tar_of("good", special("l", tarfile.LNKTYPE, "good"))),
    "a device": ("tar", tar_of("good", special("d", tarfile.CHRTYPE))),
    "a pipe": ("tar", tar_of("good", special("p", tarfile.FIFOTYPE))),
    "a way out": ("tar", tar_of("good", "a/../../out")),
    "an absolute name": ("tar", tar_of("good", "/out")),
    "a long name": ("tar", tar_of("good", "n" * 300)),
    "a file that is a directory too": ("tar", tar_of("a", "a/b")),
    "a tar that is cut off": ("tar", tar_of("good", "other")[:700]),
    "a gzip that is cut off": ("tar", bomb("tar")[:-200]),
    "a bomb": ("tar", bomb("tar")),
    "nothing": ("tar", b""),
    "a symbolic link in a zip": ("zip", zip_of("good", "l", mode=0o120777)),
    "a way out of a zip": ("zip", zip_of("good", "../out")),
    "an absolute name in a zip": ("zip", zip_of("good", "/out")),
    "a way out with the other slash": ("zip", zip_of("good", "..\\out")),
    "a zip that is cut off": ("zip", zip_of("good", "other")[:-10]),
    "a zip with a wrong checksum": ("zip", zip_of("good", "other").replace(b"data", b"dada", 1)),
    "a zip bomb": ("zip", bomb("zip")),
    "nothing for a zip": ("zip", b""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_archive_that_is_refused_leaves_nothing(asked, work, tmp_path, what):
    kind, archive = HOSTILE[what]
    (work / "archive").write_bytes(archive)
    (work / "to").mkdir()
    assert asked.refused("unpack", path="archive", to="to", format=kind, max_bytes=4 << 20) == "bad_archive"
    assert os.listdir(work / "to") == []
    assert sorted(os.listdir(work)) == ["archive", "to"]
    assert sorted(os.listdir(tmp_path)) == ["work"]


def test_an_archive_is_not_written_through_a_link(asked, work, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (work / "door").symlink_to(tmp_path / "elsewhere")
    (work / "archive").write_bytes(tar_of("door/x"))
    assert asked.refused("unpack", path="archive", to="", format="tar") == "bad_archive"
    assert os.listdir(tmp_path / "elsewhere") == []


def test_archives_that_nobody_fetches_are_given_up(asked, work):
    (work / "f").write_bytes(bytes(1 << 20))
    handles = [asked.ok("pack", path="f", format="tar")["handle"] for _ in range(files.MAX_PACKING + 1)]
    assert asked.refused("next", handle=handles[0]) == "unknown_handle"
    asked.ok("drop", handle=handles[1])
    assert asked.refused("next", handle=handles[1]) == "unknown_handle"
    assert asked("next", handle=handles[-1])[1]


def test_what_an_asker_left_half_written_goes_after_a_while(asked, work):
    for name in (".cellgate-old", ".cellgate-new"):
        (work / name).write_text("x")
    os.utime(work / ".cellgate-old", (1, 1))
    asked.ok("write", b"x", path="file", create=True)
    assert sorted(os.listdir(work)) == [".cellgate-new", "file"]


def test_many_requests_at_once_are_answered_or_refused(client, work):
    cell = client.start("import re; re.match(r'(a+)+$', 'a' * 24 + 'b')")  # holds the interpreter for a second or so
    asked_for = [client.send("files_request", {"op": "stat", "path": ""}, Channel.CONTROL) for _ in range(200)]
    statuses = [client.finish(one).reply["status"] for one in asked_for]
    assert set(statuses) <= {"ok", "error"}
    assert "ok" in statuses
    client.finish(cell)


def test_without_room_for_a_thread_it_says_so(zygote, work):
    with zygote.kernel({"cwd": str(work)}) as rig:
        asked = Asked(rig.client)
        rig.client.execute(
            'import _thread\ndef start(*a): raise RuntimeError("can\'t start new thread")\n'
            "import cellgate_kernel.files as f\nf._thread = type('t', (), {'start_new_thread': start})"
        )
        content, _ = asked("stat", path="")
        assert (content["status"], content["ename"]) == ("error", "files_failed")
        assert "thread" in content["evalue"]
        rig.client.execute("f._thread = _thread")
        asked.ok("stat", path="")


def test_a_child_that_forked_leaves_the_files_to_the_kernel(asked, client, work):
    asked.ok("stat", path="")
    client.execute("import os\npid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)")
    asked.ok("stat", path="")


def test_user_threads_are_the_users(asked, client):
    asked.ok("stat", path="")
    assert client.execute("import threading; threading.active_count()").result == "1"
