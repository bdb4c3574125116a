"""Images that were unpacked, for zygotes that begin in one: a directory each, which is read and never written here.

    images/                       the operator's alone to write
    └── python-data-1b2c3d4e5f60/ its template, and the beginning of its image's id
        ├── about.json            `UnpackedImage`, but for where it lies
        └── root/                 of the image's directories those that hold programs and libraries, and its /etc

`cellgate images unpack` makes them (`docker/unpack.py`). A warden knows those that are there when it starts, and holds
each that it has begun a zygote of, so that nobody removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cellgate.errors import DriverUnavailable

__all__ = ["UnpackedImage", "find_images", "hold", "read_about", "write_about"]

ABOUT: Final = "about.json"
MAX_ABOUT_BYTES: Final = 1 << 20  # a line for each package: a thousand are 30 KB


@dataclass(frozen=True)
class UnpackedImage:
    name: str  # of its template
    image: str  # the id of what was unpacked
    kernel: str  # the template of the kernel host: what it imports before a session begins
    python: str  # the interpreter, as its root has it
    packages: Mapping[str, str]  # versions by name

    def directory(self, images: Path) -> Path:
        return images / f"{self.name}-{self.image.rpartition(':')[2][:12]}"


def write_about(image: UnpackedImage, directory: Path) -> None:
    (directory / ABOUT).write_text(json.dumps(asdict(image), indent=1))


def find_images(images: Path) -> dict[str, tuple[UnpackedImage, Path]]:
    """Each with its directory, by template; of two the one that was unpacked last. Raises DriverUnavailable when
    somebody else could have put them there: what is in them is run by whoever starts zygotes."""
    found: dict[str, tuple[UnpackedImage, Path]] = {}
    for about in sorted(images.glob(f"*/{ABOUT}"), key=lambda path: path.stat().st_mtime_ns):
        for path in (about, about.parent, images):
            status = path.stat()
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                remedy = "one that is root's or this user's, and nobody else's to write, would pass"
                raise DriverUnavailable("native", f"{path} may be written by others", remedy)
        image = read_about(about.parent)
        found[image.name] = image, about.parent
    return found


def read_about(directory: Path) -> UnpackedImage:
    """Raises DriverUnavailable."""
    try:
        with (directory / ABOUT).open("rb") as file:
            said = json.loads(file.read(MAX_ABOUT_BYTES))
        return UnpackedImage(**said)
    except (OSError, ValueError, TypeError) as error:
        remedy = "remove that directory, and `cellgate images unpack` makes it again"
        raise DriverUnavailable("native", f"{directory} tells of no image: {error}", remedy) from error


def hold(directory: Path, *, alone: bool = False) -> int | None:
    """A descriptor that keeps the image's directory from being removed while it is open, or with `alone` from being
    used; None when somebody holds it otherwise. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
