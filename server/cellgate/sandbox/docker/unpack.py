"""Unpacks images for the native driver, which then needs no engine to run what they hold.

An engine packs an image's files; here those of its directories that hold programs and libraries are written out, as
plain files of whoever unpacks. Whatever an archive says, nothing is written but below the directory that is named.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from cellgate.errors import UsageError
from cellgate.sandbox.docker.engine import Engine
from cellgate.sandbox.docker.images import Template, find_templates
from cellgate.sandbox.native.images import UnpackedImage, find_images, hold, write_about
from cellgate.sandbox.native.rootfs import OF_IMAGES

__all__ = ["extract", "unpack"]

PYTHONS: Final = ("/usr/local/bin/python3", "/usr/bin/python3")  # in the order of an image's PATH
COPY_BYTES: Final = 1 << 20


def unpack(engine: Engine, name: str, images: Path, say: Callable[[str], object]) -> UnpackedImage:
    """The image of this template, below `images`, unless it lies there already. Others of the template are removed,
    but those that a warden holds. Raises EngineFailed, UsageError, DriverUnavailable, OSError."""
    template = find_templates(engine).get(name)
    if template is None:
        raise UsageError(
            f"there is no image {name[:80]!r}; `cellgate images build` makes those that come with Cellgate"
        )
    image, directory = find_images(images).get(name, (None, images))
    if image is not None and image.image == template.image:
        say(f"{name}: it is unpacked already")
    else:
        say(f"{name}: unpacking {template.size_bytes / 1e6:.0f} MB")
        image, directory = _unpack(engine, template, images)
    for other in images.glob(f"{name}-" + "[0-9a-f]" * 12):
        if other != directory and (held := hold(other, alone=True)) is not None:
            shutil.rmtree(other)
            os.close(held)
    return image


def _unpack(engine: Engine, template: Template, images: Path) -> tuple[UnpackedImage, Path]:
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=images) as scratch:
        fresh = Path(scratch, "image")
        with tempfile.TemporaryFile(dir=scratch) as packed:
            engine.save_root(template.image, packed)
            packed.seek(0)
            extract(packed, fresh / "root")
        image = _about(template, fresh / "root")
        write_about(image, fresh)
        fresh.chmod(0o755)
        return image, fresh.rename(image.directory(images))


def _about(template: Template, root: Path) -> UnpackedImage:
    python = next((path for path in PYTHONS if os.path.lexists(root / path.lstrip("/"))), None)
    if python is None:
        raise UsageError(f"the image {template.name} has no Python at {' or '.join(PYTHONS)}")
    packages = dict(line.split("==", 1) for line in template.pins.splitlines())
    return UnpackedImage(template.name, template.image, template.kernel, python, packages)


def extract(packed: IO[bytes], root: Path) -> None:
    """The directories of OF_IMAGES out of a tar. Raises UsageError, with nothing written elsewhere, when something
    in it would lie in what is no directory of its own, or it is no tar."""
    root.mkdir(parents=True)
    root.chmod(0o755)  # whatever the caller's umask is: sessions are other users
    try:
        with tarfile.open(fileobj=packed, mode="r:") as archive:
            _write(archive, root)
    except (tarfile.TarError, FileExistsError, ValueError, OverflowError) as error:  # cut short, or odd in itself
        raise UsageError(f"what the engine packed cannot be read: {error}; it is not unpacked") from error


def _write(archive: tarfile.TarFile, root: Path) -> None:
    directories, files = {""}, set[str]()
    for member, name in _wanted(archive):
        parent = name.rpartition("/")[0]
        if parent not in directories or (member.islnk() and _plain(member.linkname) not in files):
            raise UsageError(f"the image has {name[:200]!r}, where no directory of its own is; it is not unpacked")
        place = root / name
        if member.isdir():
            place.mkdir(exist_ok=name in directories)
            place.chmod(0o755)
            directories.add(name)
        elif member.issym():
            place.symlink_to(member.linkname)
        elif member.islnk():
            os.link(root / _plain(member.linkname), place, follow_symlinks=False)
        elif (content := archive.extractfile(member)) is not None:
            with content, place.open("xb") as file:
                shutil.copyfileobj(content, file, COPY_BYTES)
            place.chmod(0o755 if member.mode & 0o111 else 0o644)
            os.utime(place, (member.mtime, member.mtime))  # by which Python knows that what it compiled is of it
            files.add(name)


def _wanted(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """With the names that they will have. No devices, and nothing that climbs."""
    for member in archive:
        name = _plain(member.name)
        steps = name.split("/")
        if (
            steps[0] in OF_IMAGES
            and ".." not in steps
            and (member.isdir() or member.isreg() or member.issym() or member.islnk())
        ):
            yield member, name


def _plain(name: str) -> str:
    return name.removeprefix("./").strip("/")
