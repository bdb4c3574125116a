"""Images that the driver native runs: what is written out of them, what is refused, and that it is the same sandbox."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from cellgate.doctor.examine import examine
from cellgate.doctor.report import Standing
from cellgate.errors import DriverUnavailable, SandboxStartFailed, UsageError
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.docker.engine import Engine
from cellgate.sandbox.docker.unpack import extract, unpack
from cellgate.sandbox.native import linux, rootfs
from cellgate.sandbox.native.driver import NativeDriver
from cellgate.sandbox.native.images import UnpackedImage, find_images, hold, write_about
from cellgate.sandbox.native.rootfs import ETC_WRITTEN, OURS, plan_image_root
from cellgate.sandbox.native.zygotes import Zygote
from tests.docker.conftest import directory_in_memory
from tests.support.docker import make_image
from tests.support.native import skip_without_native
from tests.support.server import served

BOUND = 60.0
ABOUT = UnpackedImage("mine", f"sha256:{'1' * 64}", "python", "/usr/bin/python3", {"msgpack": "1.0"})


# -- what is written ---------------------------------------------------------------------------------------


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, link, mode, 1_700_000_000
    info.size = len(name) if kind == tarfile.REGTYPE else 0
    return info


def archive(*entries: tarfile.TarInfo) -> io.BytesIO:
    """In which every file holds its name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for info in entries:
            tar.addfile(info, io.BytesIO(info.name.encode()) if info.isreg() else None)
    packed.seek(0)
    return packed


def test_programs_and_libraries_are_written_and_nothing_else(tmp_path: Path):
    packed = archive(
        entry("usr", tarfile.DIRTYPE),
        entry("usr/bin", tarfile.DIRTYPE, mode=0o700),
        entry("usr/bin/su", mode=0o4755),
        entry("usr/bin/secret", mode=0o600),
        entry("usr/bin/same", tarfile.LNKTYPE, "usr/bin/su"),
        entry("usr/bin/absolute", tarfile.SYMTYPE, "/etc/passwd"),
        entry("usr/null", tarfile.CHRTYPE),
        entry("bin", tarfile.SYMTYPE, "usr/bin"),
        entry("root", tarfile.DIRTYPE),
        entry("root/key"),
    )
    root = tmp_path / "root"
    extract(packed, root)
    assert sorted(os.listdir(root)) == ["bin", "usr"]
    assert sorted(os.listdir(root / "usr")) == ["bin"]
    modes = {path.name: path.lstat().st_mode & 0o7777 for path in (root / "usr/bin").iterdir() if not path.is_symlink()}
    assert modes == {"su": 0o755, "secret": 0o644, "same": 0o755}
    assert (root / "usr/bin/same").read_text() == "usr/bin/su"
    assert os.readlink(root / "usr/bin/absolute") == "/etc/passwd"
    assert (root / "usr/bin/su").stat().st_mtime == 1_700_000_000  # else all that is compiled there is compiled again
    assert (root / "usr/bin").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "entries",
    [
        [entry("usr", tarfile.SYMTYPE, "/outside"), entry("usr/file")],
        [entry("usr/file")],
        [entry("usr", tarfile.DIRTYPE), entry("usr/hard", tarfile.LNKTYPE, "/etc/passwd")],
        [
            entry("usr", tarfile.DIRTYPE),
            entry("usr/soft", tarfile.SYMTYPE, "/etc/passwd"),
            entry("usr/hard", tarfile.LNKTYPE, "usr/soft"),
        ],
        [entry("usr"), entry("usr/file")],
    ],
    ids=["through a link", "in no directory", "a hard link out", "a hard link to a link", "in a file"],
)
def test_what_would_be_written_elsewhere_is_refused(entries, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for info in entries:
        info.linkname = info.linkname.replace("/outside", str(outside))
    with pytest.raises(UsageError, match="no directory of its own"):
        extract(archive(*entries), tmp_path / "root")
    assert os.listdir(outside) == []


def test_a_name_that_climbs_is_left_out(tmp_path: Path):
    extract(archive(entry("usr", tarfile.DIRTYPE), entry("usr/../../climbed"), entry("../up")), tmp_path / "deep/root")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "root", "usr"]


def test_what_cannot_be_read_as_a_tar_of_an_image_is_refused(tmp_path: Path):
    usr, link, file = entry("usr", tarfile.DIRTYPE), entry("usr", tarfile.SYMTYPE, "/"), entry("usr/file")
    odd, late = entry("usr/odd"), entry("usr/late")
    odd.pax_headers, late.pax_headers = {"path": "usr/odd\0"}, {"mtime": "1e300"}
    twice = ([usr, link], [link, usr], [usr, file, file])  # a link for a directory would lead what follows elsewhere
    packed = [archive(*entries).getvalue() for entries in (*twice, [usr, odd], [usr, late])]
    cut_short = archive(usr, file).getvalue()[: 2 * tarfile.BLOCKSIZE + 1]
    for number, said in enumerate((*packed, cut_short, b"no tar")):
        with pytest.raises(UsageError, match="cannot be read"):
            extract(io.BytesIO(said), tmp_path / str(number))


def test_an_images_links_lead_to_nothing_of_the_host(tmp_path: Path, monkeypatch):
    """Its root is made while the host's files are in sight: links are made anew in it, and not followed."""
    outside, image = tmp_path / "outside", tmp_path / "image"
    (outside / "certs").mkdir(parents=True)
    (outside / "timezone").touch()
    (image / "etc").mkdir(parents=True)
    (image / "etc/magic").touch()
    (image / "etc/ssl").symlink_to(outside)
    (image / "etc/fonts").symlink_to(outside)
    (image / "etc/timezone").symlink_to(outside / "timezone")
    (image / "usr").symlink_to(outside)
    root = plan_image_root(image, "/usr/bin/python3")
    assert root.links == (("/usr", str(outside)),)
    assert all(target.startswith(OURS) for _, target in root.binds)
    mounted: list[str] = []
    monkeypatch.setattr(linux, "mount", lambda source, *rest: mounted.append(source))
    rootfs._fill_etc(tmp_path / "inside", Path(root.etc))
    links = {path.name: os.readlink(path) for path in (tmp_path / "inside").iterdir() if path.is_symlink()}
    assert links == {"fonts": str(outside), "timezone": str(outside / "timezone")}
    assert (set(os.listdir(tmp_path / "inside")) - {*ETC_WRITTEN, *links}, mounted) == ({"magic"}, [])


def test_the_image_that_was_unpacked_last_is_the_templates(tmp_path: Path):
    for at, image in enumerate((ABOUT, replace(ABOUT, image=f"sha256:{'0' * 64}"))):
        directory = image.directory(tmp_path)
        directory.mkdir()
        write_about(image, directory)
        os.utime(directory / "about.json", (at, at))
    image, directory = find_images(tmp_path)["mine"]
    assert (image.image[-1], directory.name) == ("0", "mine-000000000000")
    assert find_images(tmp_path / "none") == {}


def test_an_image_that_others_may_write_is_refused(tmp_path: Path):
    directory = ABOUT.directory(tmp_path)
    directory.mkdir()
    write_about(ABOUT, directory)
    directory.chmod(0o777)
    with pytest.raises(DriverUnavailable, match="may be written by others"):
        find_images(tmp_path)


def test_of_an_image_that_is_being_removed_no_zygote_begins(tmp_path: Path):
    removing = hold(tmp_path, alone=True)
    assert removing is not None
    with pytest.raises(FileNotFoundError, match="is being removed"):
        Zygote("mine", (ABOUT, tmp_path), is_host_root=True, forget=lambda: None)
    os.close(removing)


@pytest.fixture
def images() -> Iterator[Path]:
    """A directory for some, where the driver native runs."""
    skip_without_native()
    with directory_in_memory("cellgate-test-") as directory:
        yield directory


@pytest.mark.native
@pytest.mark.parametrize("links", [{}, {"etc": "/etc"}, {"usr": "/"}, {"usr": "../../..", "bin": "/bin"}], ids=str)
async def test_an_image_in_which_nothing_runs_is_an_error_and_harms_no_other_template(images: Path, links):
    """Nor does it come by the host's files, where it has links in the place of its directories."""
    root = ABOUT.directory(images) / "root"
    root.mkdir(parents=True)
    for name in {"usr", "etc"} - links.keys():
        (root / name).mkdir()
    for name, target in links.items():
        (root / name).symlink_to(target)
    write_about(ABOUT, root.parent)
    driver = await NativeDriver.start(images=images)
    try:
        with pytest.raises(SandboxStartFailed, match="the zygote of mine"):
            await asyncio.wait_for(driver.create(SandboxSpec(template="mine")), BOUND)
        await (await asyncio.wait_for(driver.create(SandboxSpec(template="python")), BOUND)).destroy()
    finally:
        await driver.close()


# -- over an engine, once; then without it -----------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """A state directory with the image of `python` unpacked, where any user may come to it."""
    skip_without_native()
    try:
        make_image("python")
    except DriverUnavailable as error:
        pytest.skip(str(error))
    with directory_in_memory("cellgate-test-") as directory:
        images = directory / "images"
        images.mkdir()
        engine = Engine.open()
        try:
            unpack(engine, "python", images, print)
        finally:
            engine.close()
        yield directory


@pytest_asyncio.fixture
async def driver(state: Path) -> AsyncIterator[NativeDriver]:
    driver = await NativeDriver.start(images=state / "images")
    yield driver
    await driver.close()


@pytest.mark.docker
@pytest.mark.native
async def test_a_native_sandbox_runs_what_the_image_holds(driver, state):
    image, directory = find_images(state / "images")["python"]
    sandbox = await driver.create(SandboxSpec(template="python"))
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("import sys; sys.executable", timeout=BOUND)).value == repr(image.python)
        held = (await kernel.execute("open('/etc/os-release').read()", timeout=BOUND)).value
        assert held == repr((directory / "root/etc/os-release").resolve().read_text())
        modules = "import IPython, importlib.metadata as m; (m.version('ipykernel'), IPython.__file__)"
        version, path = eval((await kernel.execute(modules, timeout=BOUND)).value)
        assert version == image.packages["ipykernel"] == driver.packages("python")["ipykernel"]
        assert (directory / "root" / path.strip("/")).is_file()
        program = "import subprocess; subprocess.run(['python3', '-c', 'print(6 * 7)'], capture_output=True).stdout"
        assert (await kernel.execute(program, timeout=BOUND)).value == repr(b"42\n")
    await sandbox.destroy()


@pytest.mark.docker
@pytest.mark.native
async def test_an_image_of_ones_own_is_a_template_beside_the_hosts(state, tmp_path: Path):
    image, directory = find_images(state / "images")["python"]
    mine = replace(image, name="mine")
    mine.directory(tmp_path).mkdir()
    (mine.directory(tmp_path) / "root").symlink_to(directory / "root")
    write_about(mine, mine.directory(tmp_path))
    driver = await NativeDriver.start(images=tmp_path)
    try:
        assert driver.templates == ("python", "python-data", "mine")
        assert [driver.packages(template) is None for template in driver.templates] == [True, True, False]
        sandbox = await driver.create(SandboxSpec(template="mine"))
        async with KernelClient(sandbox) as kernel:
            assert (await kernel.execute("import sys; sys.executable", timeout=BOUND)).value == repr(image.python)
        await sandbox.destroy()
    finally:
        await driver.close()


@pytest.mark.docker
@pytest.mark.native
async def test_all_that_native_promises_holds_in_an_image_too(driver):
    report = await examine(driver)
    bad = [finding for finding in report.findings if finding.promised and finding.mark.value in ("missing", "unknown")]
    assert (report.standing, bad) == (Standing.OK, [])


@pytest.mark.docker
@pytest.mark.native
async def test_what_a_warden_holds_is_not_removed_and_the_same_is_not_unpacked_again(driver, state):
    _, directory = find_images(state / "images")["python"]
    sandbox = await driver.create(SandboxSpec(template="python"))
    assert hold(directory, alone=True) is None
    older, in_use = (replace(ABOUT, name="python", image=f"sha256:{digit * 64}") for digit in "01")
    for image in (older, in_use):
        image.directory(state / "images").mkdir()
    other = hold(in_use.directory(state / "images"))
    said: list[str] = []
    engine = Engine.open()
    try:
        await asyncio.to_thread(unpack, engine, "python", state / "images", said.append)
        with pytest.raises(UsageError, match="no image 'none'"):
            unpack(engine, "none", state / "images", said.append)
    finally:
        engine.close()
    assert said == ["python: it is unpacked already"]
    assert other is not None
    os.close(other)
    assert sorted(os.listdir(state / "images")) == sorted([directory.name, "python-111111111111"])
    in_use.directory(state / "images").rmdir()
    await sandbox.destroy()
    await driver.close()
    held = hold(directory, alone=True)
    assert held is not None
    os.close(held)


@pytest.mark.docker
@pytest.mark.native
async def test_a_servers_sessions_are_of_the_images_that_lie_in_its_state_directory(state):
    image, _ = find_images(state / "images")["python"]
    async with served("--profile", "testing", start=False) as server:
        server.state_dir.mkdir(mode=0o711)
        (server.state_dir / "images").symlink_to(state / "images")
        await server.start()
        ran = await server.fetch("POST", "/v1/run", {"code": "import sys; print(sys.executable)"})
        assert ran.json()["stdout"] == f"{image.python}\n", ran.body
        languages = (await server.fetch("GET", "/v1/languages")).json()["languages"]
        kernels = {kernel["name"]: kernel for language in languages for kernel in language["kernels"]}
        assert kernels["python3"]["packages"]["ipykernel"] == image.packages["ipykernel"]
        assert not any(kernel["is_bridged"] for kernel in kernels.values())  # this host's are not in the image
