"""The read-only root that every sandbox of a template shares, and the private mounts on top of it.

The root is built once per template, in the zygote's own mount namespace, from the host's interpreter and
libraries; a sandbox copies that small mount table and adds what is its own. Nothing here takes a name from a
client: paths come from this interpreter and from the tables below.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

import cellgate_kernel.link
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import linux

__all__ = [
    "ETC_WRITTEN",
    "HOME",
    "OF_IMAGES",
    "OURS",
    "WORK",
    "Mounts",
    "Root",
    "build_root",
    "covers_of_proc",
    "mount_private",
    "mount_scratch",
    "plan_image_root",
    "plan_root",
]

HOME: Final = "/home/user"
WORK: Final = "/work"
# Where a sandbox may write; one tmpfs with one cap on bytes and inodes is behind all three.
WORKSPACE: Final = {"home": HOME, "work": WORK, "tmp": "/tmp"}

# Of the host's system directories only those that hold programs and libraries. A merged /usr has the others as links.
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Of an image these, and what is named below of its /etc.
OF_IMAGES: Final = (*(path.strip("/") for path in _SYSTEM), "opt", "etc")
OURS: Final = "/.cellgate"  # where a root of an image has this program: its kernel host and its half of a zygote

# Of /etc only what libraries look up and what holds no secret: names, not patterns, so that nothing slips in.
_ETC: Final = (
    "alternatives",
    "debian_version",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "os-release",
    "protocols",
    "redhat-release",
    "services",
    "ssl/certs",
    "terminfo",
    "timezone",
    "python3",
    f"python{sys.version_info.major}.{sys.version_info.minor}",
)
ETC_WRITTEN: Final = {
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
    "group": "root:x:0:\nuser:x:1000:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "# This sandbox has no network.\n",
}

_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

# Of /proc a sandbox keeps what tells of its own processes and what programs such as ps, top and psutil read;
# every other entry the host has is covered.
_PROC_KEPT: Final = frozenset(
    (
        "cpuinfo",
        "filesystems",
        "loadavg",
        "meminfo",
        "mounts",
        "net",
        "self",
        "stat",
        "sys",
        "sysvipc",
        "thread-self",
        "uptime",
        "version",
        "vmstat",
    )
)
_COVER_FILE: Final = "/dev/null"
_COVER_DIRECTORY: Final = "/var/empty"

MAX_TERMINALS: Final = 64  # of one sandbox; Linux has some 3000 for all of them
_COPIED_BYTES: Final = 1 << 20  # a file of /etc above this is left out; ld.so.cache, the largest, has some 50 KB
_NOSUID_NODEV: Final = linux.MS_NOSUID | linux.MS_NODEV


@dataclass(frozen=True)
class Root:
    """What a root is made of, all of it decided before anything is mounted."""

    binds: tuple[tuple[str, str], ...]  # host directory -> the same inside
    links: tuple[tuple[str, str], ...]  # path inside -> where it points
    covers: tuple[tuple[str, bool], ...]  # entry of /proc, whether it is a directory
    # Bound directories that lie beneath a directory a sandbox mounts over (an environment in /tmp, say), with a
    # place where they stay reachable, so that they can be bound again on top.
    rebinds: tuple[tuple[str, str], ...] = field(default=())
    etc: str = "/etc"  # the directory of the host of which some files are copied
    python: str = ""  # inside: what goes on in this root; "" for the very process that built it


def plan_root(extra: Iterable[str] = ()) -> Root:
    """Decide what goes into the root: this interpreter, its packages, the system's libraries, and `extra`."""
    links: dict[str, str] = {}
    directories: dict[str, None] = {}

    def add(path: str) -> None:
        real = os.path.realpath(path)
        if real != path and not any(path.startswith(known + "/") for known in directories):
            links[path] = real
        if os.path.isdir(real):
            directories[real] = None

    for path in _SYSTEM:
        if os.path.islink(path):
            links[path] = os.readlink(path)
        elif os.path.isdir(path):
            directories[path] = None
    executable = os.path.dirname(os.path.realpath(sys.executable))
    add(os.path.dirname(executable))  # the installation that a virtual environment's python belongs to
    for path in (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix, *sys.path, *extra):
        if path and os.path.isdir(path):
            add(os.path.abspath(path))
    refused = {"/", "/root", "/home", "/etc", "/var", "/tmp", "/proc", "/sys", "/dev", "/run"}
    tops = [d for d in directories if d not in refused]
    tops = [d for d in tops if not any(d != other and d.startswith(other + "/") for other in tops)]
    links = {
        path: target
        for path, target in links.items()
        if path not in tops and not any(path.startswith(top + "/") for top in tops)
    }
    rebinds = tuple(
        (f"/.root/{number}", top)
        for number, top in enumerate(tops)
        if any(top.startswith(over + "/") for over in WORKSPACE.values())
    )
    return Root(tuple((top, top) for top in tops), tuple(links.items()), covers_of_proc(), rebinds)


def plan_image_root(image: Path, python: str) -> Root:
    """The same of an unpacked image: its programs and libraries in the place of this host's, and its Python."""
    links = {}
    binds = [
        (str(Path(__file__).parents[2]), f"{OURS}/cellgate"),
        (str(Path(cellgate_kernel.link.__file__).parent), f"{OURS}/cellgate_kernel"),
    ]
    for name in OF_IMAGES:
        if (directory := image / name).is_symlink():
            links[f"/{name}"] = os.readlink(directory)
        elif directory.is_dir() and name != "etc":
            binds.append((str(directory), f"/{name}"))
    return Root(tuple(binds), tuple(links.items()), covers_of_proc(), etc=str(image / "etc"), python=python)


def covers_of_proc() -> tuple[tuple[str, bool], ...]:
    """The entries of this host's /proc that no sandbox is to see, each with whether it is a directory."""
    return tuple(
        (entry.path, entry.is_dir(follow_symlinks=False))
        for entry in os.scandir("/proc")
        if not entry.name.isdigit() and entry.name not in _PROC_KEPT and not entry.is_symlink()
    )


def build_root(root: Root, at: str, *, is_host_root: bool) -> None:
    """In a mount namespace of the caller's own: build the root on the empty directory `at` and make it `/`.

    The caller must have left the host's mount namespace before. Afterwards the host's files are out of reach
    for the caller, and the directory `at` on the host is empty and unused.
    """
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("cellgate", at, "tmpfs", _NOSUID_NODEV, "size=16m,mode=0755")
    inside = Path(at)
    # Root of a user namespace alone may not bind a directory without what is mounted beneath it.
    bind = linux.MS_BIND if is_host_root else linux.MS_BIND | linux.MS_REC
    for source, target in (*root.binds, *((top, hidden) for hidden, top in root.rebinds)):
        place = inside / target.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        linux.mount(source, str(place), None, bind)
    for path, points_to in root.links:
        place = inside / path.lstrip("/")
        with suppress(FileExistsError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(points_to)
    _fill_etc(inside / "etc", Path(root.etc))
    for directory in ("proc", "dev/pts", "dev/shm", "run", "var/empty", *(w.lstrip("/") for w in WORKSPACE.values())):
        (inside / directory).mkdir(parents=True, exist_ok=True)
    if not (inside / "var/tmp").exists():
        (inside / "var/tmp").symlink_to("/tmp")
    for name in _DEVICES:
        (inside / "dev" / name).touch()
    for name, points_to in _DEVICE_LINKS.items():
        (inside / "dev" / name).symlink_to(points_to)
    linux.mount_setattr(
        linux.AT_FDCWD,
        at,
        linux.AT_RECURSIVE,
        linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV,
    )
    for name in _DEVICES:  # after the line above, which would have made them useless
        place = inside / "dev" / name
        linux.mount(f"/dev/{name}", str(place), None, linux.MS_BIND)
        linux.mount_setattr(
            linux.AT_FDCWD,
            str(place),
            0,
            linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC,
            linux.MOUNT_ATTR_NODEV,
        )
    if not is_host_root:  # whoever is root in a user namespace alone may mount a /proc only where one is in sight
        linux.mount("/proc", str(inside / "proc"), None, linux.MS_BIND | linux.MS_REC)
    os.chdir(at)
    linux.pivot_root(".", ".")
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")


def _fill_etc(etc: Path, given: Path) -> None:
    etc.mkdir()
    for name in _ETC:
        source, place = given / name, etc / name
        try:
            mode = source.lstat().st_mode
        except OSError:
            continue
        if not source.parent.resolve().is_relative_to(given.resolve()):  # an image's link, which is of its own root
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISLNK(mode):
            place.symlink_to(os.readlink(source))
        elif stat.S_ISDIR(mode):
            place.mkdir()
            linux.mount(str(source), str(place), None, linux.MS_BIND)
        elif stat.S_ISREG(mode) and source.stat().st_size <= _COPIED_BYTES:
            shutil.copyfile(source, place)
            place.chmod(0o644)
    for name, text in ETC_WRITTEN.items():
        (etc / name).write_text(text)
        (etc / name).chmod(0o644)


Uid_contra = TypeVar("Uid_contra", contravariant=True)


class Mounts(Protocol[Uid_contra]):
    """How mounts are made: at once, or by process 1 later, whose uid is then no number yet."""

    def mount(
        self, source: str, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None
    ) -> None: ...
    def cover(self, source: str, target: str) -> None:
        """Bind one on the other, if that is there."""

    def mkdir(self, path: str, mode: int, *, exist_ok: bool = False) -> None: ...
    def chown(self, path: str, uid: Uid_contra) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...


class _Now:
    mount = staticmethod(linux.mount)
    chmod = staticmethod(os.chmod)

    def cover(self, source: str, target: str) -> None:
        with suppress(FileNotFoundError):
            linux.mount(source, target, None, linux.MS_BIND)

    def mkdir(self, path: str, mode: int, *, exist_ok: bool = False) -> None:
        with suppress(FileExistsError) if exist_ok else nullcontext():
            os.mkdir(path, mode)

    def chown(self, path: str, uid: int) -> None:
        os.chown(path, uid, uid)


def mount_scratch(root: Root) -> None:
    """In a zygote's mounts, once the root was taken hold of: somewhere to write while libraries are imported."""
    _mount_workspace(_Now(), root, "size=64m,mode=0755", 0)


def mount_private(do: Mounts[Uid_contra], root: Root, limits: Limits, uid: Uid_contra) -> None:
    """In a sandbox's own copy of the root's mounts, as root still: what it may write, and its own pts, shm and
    /proc. The last is writable still: the caller has a use for that, and makes it read-only."""
    options = f"size={limits.workspace_bytes},nr_inodes={limits.workspace_inodes},mode=0755"
    _mount_workspace(do, root, options, uid)
    do.mount("shm", "/dev/shm", "tmpfs", _NOSUID_NODEV, f"size={limits.shm_bytes},nr_inodes=4096,mode=1777")
    # Without a maximum one sandbox could hold all terminals that the host has for containers (kernel.pty.max).
    options = f"newinstance,ptmxmode=0666,mode=0620,max={MAX_TERMINALS}"
    do.mount("devpts", "/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, options)
    do.mount("proc", "/proc", "proc", _NOSUID_NODEV | linux.MS_NOEXEC)
    for path, is_directory in root.covers:
        do.cover(_COVER_DIRECTORY if is_directory else _COVER_FILE, path)


def _mount_workspace(do: Mounts[Uid_contra], root: Root, options: str, uid: Uid_contra) -> None:
    """One tmpfs, with a directory of it over each place of WORKSPACE."""
    do.mount("workspace", WORK, "tmpfs", _NOSUID_NODEV, options)
    for name, place in WORKSPACE.items():
        directory = f"{WORK}/{name}"
        do.mkdir(directory, 0o700)
        do.chown(directory, uid)
        if name == "tmp":
            do.chmod(directory, 0o1777)
        if place != WORK:
            do.mount(directory, place, None, linux.MS_BIND)
    do.mount(f"{WORK}/work", WORK, None, linux.MS_BIND)
    for hidden, top in root.rebinds:
        steps = top.split("/")
        for end in range(2, len(steps) + 1):
            do.mkdir("/".join(steps[:end]), 0o755, exist_ok=True)
        do.mount(hidden, top, None, linux.MS_BIND | linux.MS_REC)
