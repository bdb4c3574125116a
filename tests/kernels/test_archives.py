"""Archives, whatever is in them."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellgate_kernel.archives import BadArchive, pack, read_members, unpack

NAMES = st.sampled_from(["a", "a/b", "../x", "/x", "a//b", "./a", "a/../b", "", "..", "a\\b", "n" * 300, "ä", "a\n"])


def tar_of(names: list[str], compress: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compress else "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    return buffer.getvalue()


def zip_of(names: list[str], compress: bool) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name in dict.fromkeys(names):
            archive.writestr(zipfile.ZipInfo(name or "empty"), name)
    return buffer.getvalue()


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["tar", "zip"]),
    names=st.lists(NAMES, max_size=5),
    compress=st.booleans(),
    damage=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    end=st.integers(0, 20_000),
)
def test_an_archive_is_unpacked_within_its_place_or_refused(kind, names, compress, damage, end):
    data = bytearray((tar_of if kind == "tar" else zip_of)(names, compress))
    for at, value in damage:
        if at < len(data):
            data[at] = value
    with tempfile.TemporaryDirectory() as directory:
        path, to = os.path.join(directory, "archive"), os.path.join(directory, "deep", "to")
        os.makedirs(to)
        Path(path).write_bytes(data[:end] if end < 10_000 else data)
        try:
            members = read_members(path, kind, max_bytes=1 << 20)
            assert sum(member.size for member in members) <= 1 << 20
            unpack(path, kind, members, to)
        except BadArchive as refused:
            assert str(refused)
        assert sorted(os.listdir(directory)) == ["archive", "deep"]
        assert os.listdir(os.path.join(directory, "deep")) == ["to"]
        assert not any(os.path.islink(one) for one in Path(to).rglob("*"))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_what_changes_while_it_is_packed_makes_no_broken_archive(tmp_path, kind):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in "abc":
        (tree / name).write_bytes(bytes(1 << 20))
    pieces = pack(str(tree), kind)
    parts = [next(pieces)]
    (tree / "a").write_bytes(b"")
    (tree / "b").write_bytes(bytes(3 << 20))
    (tree / "c").unlink()
    parts += pieces
    (tmp_path / "archive").write_bytes(b"".join(parts))
    members = read_members(str(tmp_path / "archive"), kind, max_bytes=1 << 30)
    assert [member.name for member in members][:2] == ["a", "b"]
    (tmp_path / "to").mkdir()
    unpack(str(tmp_path / "archive"), kind, members, str(tmp_path / "to"))


def test_a_packer_that_is_given_up_leaves_no_file_open(tmp_path):
    (tmp_path / "big").write_bytes(bytes(2 << 20))
    before = len(os.listdir("/proc/self/fd"))
    for kind in ("tar", "zip"):
        pieces = pack(str(tmp_path), kind)
        next(pieces)
        pieces.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_deep_tree_is_packed_and_unpacked(tmp_path):
    deep = tmp_path / "tree" / "/".join(["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    for kind in ("tar", "zip"):
        (tmp_path / kind).write_bytes(b"".join(pack(str(tmp_path / "tree"), kind)))
        members = read_members(str(tmp_path / kind), kind, max_bytes=1 << 20)
        assert len(members) == 301
        (tmp_path / f"to-{kind}").mkdir()
        unpack(str(tmp_path / kind), kind, members, str(tmp_path / f"to-{kind}"))


@pytest.mark.parametrize("moment", [-9e9, 9e9])
def test_a_file_of_another_age_is_packed_all_the_same(tmp_path, moment):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_text("x")
    os.utime(tmp_path / "tree" / "f", (moment, moment))
    for kind in ("tar", "zip"):
        (tmp_path / kind).write_bytes(b"".join(pack(str(tmp_path / "tree"), kind)))
        assert [member.name for member in read_members(str(tmp_path / kind), kind, max_bytes=9)] == ["f"]
