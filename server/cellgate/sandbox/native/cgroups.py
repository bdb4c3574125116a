"""Control groups: what one sandbox may use, what it has used, and the end of everything in it.

Both versions of the kernel's interface: 1, where each controller is a tree of its own, and 2, one tree. What
differs between them is in two values of `Version`: pure functions from limits to file contents and back. All
else is the same: directories are made, descriptors are handed out, small files are read and written.

A sandbox's processes enter by writing b"0" into the descriptors of `Group.entrances`, before they give up the
right to. Who makes groups, when, and what follows from a reading is for others to say. Runs as root (or in a
delegated version 2 tree); uses only the standard library.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.certificate import ResourceEvents
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import linux

__all__ = ["V1", "V2", "Group", "Hierarchy", "Reading", "Setting", "Version", "detect"]

PARENT: Final = "cellgate"  # the group of all groups of sandboxes
SUPERVISOR: Final = "cellgate-supervisor"  # version 2: where the warden's own group puts its processes, see `place_v2`
CPU_PERIOD_US: Final = 100_000  # the kernel's default; shorter means finer sharing and more timer interrupts
KILL_SECONDS: Final = 3.0  # a process that survives SIGKILL for longer hangs in the kernel, and waiting is no help
KILL_AT_ONCE: Final = 256  # descriptors held together; the usual limit on them is 1024
REMOVE_SECONDS: Final = 0.5  # the last process has ended, but the kernel has not yet let go of its group

Read = Callable[[str, str], str]  # (controller, file) -> its text, "" when there is no such file


@dataclass(frozen=True)
class Setting:
    """A file of a group and what is written into it."""

    controller: str
    file: str
    value: bytes
    optional: bool = False  # a kernel may lack it, and the sandbox is sound without


@dataclass(frozen=True)
class Reading:
    """What a group has used, at one time."""

    memory_limit_bytes: int | None
    memory_bytes: int | None  # tmpfs, shared memory and the kernel's own memory on its behalf included
    memory_peak_bytes: int | None
    oom_kills: int
    pids_limit_hits: int
    pids: int  # processes and threads
    cpu_seconds: float

    def events(self, wall_seconds: float = 0.0) -> ResourceEvents:
        """As a death certificate wants it."""
        return ResourceEvents(
            memory_limit_bytes=self.memory_limit_bytes,
            memory_peak_bytes=self.memory_peak_bytes,
            oom_kills=self.oom_kills,
            pids_limit_hits=self.pids_limit_hits,
            cpu_seconds=self.cpu_seconds,
            wall_seconds=wall_seconds,
        )


@dataclass(frozen=True)
class Version:
    """What the two versions of control groups call things. Pure: knows no directory."""

    number: int
    # Where a process with a single thread enters by writing b"0". Version 1's `cgroup.procs` would do as well, but
    # takes a lock over all forks of the host, and waits milliseconds for it; a lone thread needs no such lock.
    entrance: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    settings: Callable[[Limits], tuple[Setting, ...]]
    reading: Callable[[Read], Reading]
    no_forks: Setting
    freeze: Setting
    thaw: Setting
    full_speed: Setting
    is_frozen: Callable[[Read], bool]


def _quota(limits: Limits) -> int:
    return max(1000, round(limits.cpu_cores * CPU_PERIOD_US))  # the kernel takes no less than 1 ms


def _settings_v1(limits: Limits) -> tuple[Setting, ...]:
    memory = b"%d" % limits.memory_bytes
    return (
        Setting("memory", "memory.limit_in_bytes", memory),
        # Memory and swap together, so none is left for swap. After the limit, which may not exceed it.
        Setting("memory", "memory.memsw.limit_in_bytes", memory, optional=True),  # absent: swap is not accounted
        # What waits in TCP and UDP sockets is counted apart here, and not at all without a limit: on its own
        # loopback one sandbox could bring the whole host's TCP to its limit (net.ipv4.tcp_mem).
        Setting("memory", "memory.kmem.tcp.limit_in_bytes", b"%d" % (limits.memory_bytes // 4), optional=True),
        Setting("pids", "pids.max", b"%d" % limits.pids),
        Setting("cpu", "cpu.cfs_quota_us", b"%d" % _quota(limits)),
    )


def _settings_v2(limits: Limits) -> tuple[Setting, ...]:
    # No memory.oom.group: when a child is killed for memory the kernel, and what the user has in it, may live on.
    return (
        Setting("memory", "memory.max", b"%d" % limits.memory_bytes),
        Setting("memory", "memory.swap.max", b"0", optional=True),  # absent: the kernel has no swap
        Setting("pids", "pids.max", b"%d" % limits.pids),
        Setting("cpu", "cpu.max", b"%d %d" % (_quota(limits), CPU_PERIOD_US)),
    )


def _reading_v1(read: Read) -> Reading:
    return Reading(
        memory_limit_bytes=_number(read("memory", "memory.limit_in_bytes")),
        memory_bytes=_number(read("memory", "memory.usage_in_bytes")),
        memory_peak_bytes=_number(read("memory", "memory.max_usage_in_bytes")),
        oom_kills=_entry(read("memory", "memory.oom_control"), "oom_kill"),
        pids_limit_hits=_entry(read("pids", "pids.events"), "max"),
        pids=_number(read("pids", "pids.current")) or 0,
        cpu_seconds=(_number(read("cpuacct", "cpuacct.usage")) or 0) / 1e9,
    )


def _reading_v2(read: Read) -> Reading:
    memory = _number(read("memory", "memory.current"))
    peak = _number(read("memory", "memory.peak"))  # Linux 5.19; before it, what is used now is the best known
    return Reading(
        memory_limit_bytes=_number(read("memory", "memory.max")),
        memory_bytes=memory,
        memory_peak_bytes=memory if peak is None else peak,
        oom_kills=_entry(read("memory", "memory.events"), "oom_kill"),
        pids_limit_hits=_entry(read("pids", "pids.events"), "max"),
        pids=_number(read("pids", "pids.current")) or 0,
        cpu_seconds=_entry(read("cpu", "cpu.stat"), "usage_usec") / 1e6,
    )


def _number(text: str) -> int | None:
    """The number that is all of a file; None for a file that is not there, or says "max"."""
    text = text.strip()
    return int(text) if text.isdigit() else None


def _entry(text: str, key: str) -> int:
    """The number after `key` in a file of "key number" lines; 0 where there is none."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return _number(value) or 0
    return 0


V1: Final = Version(
    number=1,
    entrance="tasks",
    required=("memory", "pids", "cpu"),
    optional=("cpuacct", "freezer"),  # to measure CPU time; to pause
    settings=_settings_v1,
    reading=_reading_v1,
    no_forks=Setting("pids", "pids.max", b"0"),
    freeze=Setting("freezer", "freezer.state", b"FROZEN"),
    thaw=Setting("freezer", "freezer.state", b"THAWED"),
    full_speed=Setting("cpu", "cpu.cfs_quota_us", b"-1"),
    is_frozen=lambda read: read("freezer", "freezer.state").strip() == "FROZEN",  # "FREEZING" on its way there
)

V2: Final = Version(
    number=2,
    entrance="cgroup.procs",
    required=("memory", "pids", "cpu"),
    optional=(),
    settings=_settings_v2,
    reading=_reading_v2,
    no_forks=Setting("pids", "pids.max", b"0"),
    freeze=Setting("cgroup", "cgroup.freeze", b"1"),
    thaw=Setting("cgroup", "cgroup.freeze", b"0"),
    full_speed=Setting("cpu", "cpu.max", b"max"),
    is_frozen=lambda read: _entry(read("cgroup", "cgroup.events"), "frozen") == 1,
)


# Where the groups go.


def detect(root: str = "/sys/fs/cgroup", proc: str = "/proc/self/cgroup") -> Hierarchy:
    """The control groups of this host, nothing made yet. Raises DriverUnavailable, which says what is missing."""
    try:
        with open(proc) as file:
            memberships = parse_memberships(file.read())
    except OSError as error:
        raise _unavailable(f"{proc} cannot be read ({error.strerror})", "use a Linux kernel with cgroups") from error
    if os.path.exists(f"{root}/cgroup.controllers"):
        return _detect_v2(root, memberships.get("", "/"))
    return _detect_v1(root, memberships)


def parse_memberships(text: str) -> dict[str, str]:
    """/proc/self/cgroup: the path of this process per controller, or under "" in the version 2 tree."""
    memberships = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            memberships[controller] = path
    return memberships


def _detect_v1(root: str, memberships: Mapping[str, str]) -> Hierarchy:
    """Each controller's tree is at `root`/controller; mounted together they are links to one directory.
    The groups go beneath our own, so that whatever limits us limits them too."""
    parents = {}
    for controller in V1.required + V1.optional:
        mount = f"{root}/{controller}"
        own = mount + memberships.get(controller, "/").rstrip("/")
        if os.path.isdir(own):
            parents[controller] = f"{os.path.realpath(own)}/{PARENT}"
        elif os.path.isdir(mount):  # a container that was given the tree, but not its own path in it
            parents[controller] = f"{os.path.realpath(mount)}/{PARENT}"
    if missing := [controller for controller in V1.required if controller not in parents]:
        raise _unavailable(
            f"no cgroup controller {', '.join(missing)} is mounted beneath {root}",
            "mount them there (`mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory`)",
        )
    return Hierarchy(V1, parents)


@dataclass(frozen=True)
class PlacementV2:
    """Where the parent group goes, and whether the processes there must move out of its way first."""

    base: str
    vacate: bool


def place_v2(own: str, *, own_is_true_root: bool, own_is_delegated: bool, top_is_ours: bool) -> PlacementV2 | None:
    """A group of version 2 either holds processes or hands controllers to groups below, save the true root.

    So beneath a group that was delegated to us (a systemd unit with Delegate=yes, or the top of a container)
    our own processes first move to a leaf. The top of the whole tree comes second, because what is there
    escapes the limits of our own unit. None: neither is ours to use.
    """
    if own_is_true_root:
        return PlacementV2("/", vacate=False)
    if os.path.basename(own) == SUPERVISOR:  # an earlier start has done it
        return PlacementV2(os.path.dirname(own), vacate=False)
    if own_is_delegated:
        return PlacementV2(own, vacate=True)
    return PlacementV2("/", vacate=False) if top_is_ours else None


def _detect_v2(root: str, own: str) -> Hierarchy:
    directory = root + own.rstrip("/")
    at_top = own == "/"
    top_is_true_root = not os.path.exists(f"{root}/cgroup.type")  # every other group has that file
    place = place_v2(
        own,
        own_is_true_root=at_top and top_is_true_root,
        own_is_delegated=at_top or _is_delegated(directory),
        top_is_ours=top_is_true_root and os.access(f"{root}/cgroup.subtree_control", os.W_OK),
    )
    if place is None or not os.access(root + place.base.rstrip("/"), os.W_OK):
        raise _unavailable(
            f"the cgroup {own} was not delegated to uid {os.getuid()}",
            "start it as root, or with `systemd-run --user --scope -p Delegate=yes`",
        )
    base = root + place.base.rstrip("/")
    with open(f"{base}/cgroup.controllers") as file:
        available = file.read().split()
    if missing := [controller for controller in V2.required if controller not in available]:
        raise _unavailable(
            f"the cgroup {place.base} has no controller {', '.join(missing)}",
            "have them delegated (systemd: `Delegate=cpu memory pids`) or boot without cgroup_disable=",
        )
    parent = f"{base}/{PARENT}"
    return Hierarchy(V2, dict.fromkeys(("cgroup", *V2.required), parent), vacate=place.vacate)


def _is_delegated(directory: str) -> bool:
    """As systemd marks it; or, for what is older than the mark, a group that root gave to another user."""
    for mark in ("user.delegate", "trusted.delegate"):
        try:
            return os.getxattr(directory, mark) == b"1"
        except OSError:
            pass
    try:
        return os.getuid() != 0 and os.stat(f"{directory}/cgroup.procs").st_uid == os.getuid()
    except OSError:
        return False


def _unavailable(missing: str, remedy: str) -> DriverUnavailable:
    return DriverUnavailable("native", missing, f"{remedy}, or use the docker driver")


# Groups.


class Hierarchy:
    """The parent group of all sandboxes, in each tree. `prepare` once, then `create` per sandbox."""

    def __init__(self, version: Version, parents: Mapping[str, str], *, vacate: bool = False) -> None:
        self.version = version
        self.parents = dict(parents)  # controller -> directory; with version 2 the same for all
        self._vacate = vacate
        self._absent: frozenset[str] = frozenset()
        self._fds: dict[str, int] = {}  # directory -> descriptor
        self._fd_of: dict[str, int] = {}  # controller -> descriptor of its directory

    def prepare(self) -> None:
        """Make the parent group and keep it open. May be called again. Raises DriverUnavailable."""
        try:
            if self.version.number == 2:
                self._hand_down_controllers()
            for directory in dict.fromkeys(self.parents.values()):
                _make(directory)
                if directory not in self._fds:
                    self._fds[directory] = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unavailable(f"its cgroups cannot be made ({error})", "start it as root") from error
        self._fd_of = {controller: self._fds[directory] for controller, directory in self.parents.items()}
        self._absent = frozenset(self._check_files())

    def _hand_down_controllers(self) -> None:
        parent = self.parents["cgroup"]
        base = os.path.dirname(parent)
        if self._vacate:
            _make(f"{base}/{SUPERVISOR}")
            for _ in range(10):  # a process may fork while we move it
                if not (pids := _pids(f"{base}/cgroup.procs")):
                    break
                for pid in pids:
                    try:
                        _write(f"{base}/{SUPERVISOR}/cgroup.procs", b"%d" % pid)
                    except ProcessLookupError:
                        pass
        _make(parent)
        handed_down = " ".join(f"+{controller}" for controller in self.version.required).encode()
        _write(f"{base}/cgroup.subtree_control", handed_down)
        _write(f"{parent}/cgroup.subtree_control", handed_down)

    def _check_files(self) -> Iterator[str]:
        """The optional files that this kernel lacks. Raises DriverUnavailable for one it must have."""
        for setting in self.version.settings(Limits()):
            if not os.path.exists(f"{self.parents[setting.controller]}/{setting.file}"):
                if not setting.optional:
                    raise _unavailable(f"this kernel's cgroups have no {setting.file}", "boot a kernel that has it")
                yield setting.file

    def create(self, name: str, limits: Limits) -> Group:
        """A new group with its limits set, and no process yet. The caller owes a `remove`. Raises OSError,
        and leaves nothing then."""
        try:
            return self._create(name, limits)
        except FileNotFoundError:  # another warden ended, and took the empty parent with it
            for fd in self._fds.values():
                os.close(fd)
            self._fds = {}
            self.prepare()
            return self._create(name, limits)

    def _create(self, name: str, limits: Limits) -> Group:
        group = Group(name, self)
        made = []
        try:
            for fd in self._fds.values():
                os.mkdir(name, 0o755, dir_fd=fd)
                made.append(fd)
            for setting in self.version.settings(limits):
                if setting.file not in self._absent:
                    group.write(setting)
        except BaseException:
            for fd in made:
                with suppress(FileNotFoundError):
                    os.rmdir(name, dir_fd=fd)
            raise
        return group

    def names(self, prefix: str = "") -> list[str]:
        """The groups that are there, of this process or of an earlier one."""
        found: set[str] = set()
        for directory in self._fds:
            with os.scandir(directory) as entries:
                found.update(entry.name for entry in entries if entry.is_dir() and entry.name.startswith(prefix))
        return sorted(found)

    def sweep(self, prefix: str) -> list[str]:
        """End and remove all groups whose name begins so, which a dead warden left. Returns those that would
        not go."""
        stuck = []
        for name in self.names(prefix):
            group = Group(name, self)
            group.kill()
            if not group.remove():
                stuck.append(name)
        return stuck

    def close(self) -> None:
        """Let go of the descriptors, and of the parent group if no sandbox is left in it."""
        for directory, fd in self._fds.items():
            os.close(fd)
            try:
                os.rmdir(directory)
            except OSError:
                pass
        self._fds, self._fd_of = {}, {}


class Group:
    """One sandbox's group, in each tree. It is a name and its hierarchy; the state is the kernel's."""

    __slots__ = ("_hierarchy", "name")

    def __init__(self, name: str, hierarchy: Hierarchy) -> None:
        self.name = name
        self._hierarchy = hierarchy

    def entrances(self) -> list[int]:
        """Descriptors into which a process with one thread writes b"0" to enter, all of them. The caller closes
        them."""
        entrance = self._hierarchy.version.entrance
        return [self._open(entrance, os.O_WRONLY, fd) for fd in self._hierarchy._fds.values()]

    def add(self, pid: int) -> None:
        """Bring in another process. Raises OSError: it may have ended."""
        for fd in self._hierarchy._fds.values():
            self._write_at("cgroup.procs", b"%d" % pid, fd)

    def read(self) -> Reading:
        """What it has used. Zero and None for a group that is gone."""
        return self._hierarchy.version.reading(self._read)

    def events(self, wall_seconds: float = 0.0) -> ResourceEvents:
        """`read` as a death certificate wants it; to be asked before `remove`."""
        return self.read().events(wall_seconds)

    def pids(self) -> set[int]:
        """The processes in any of its trees."""
        return {
            int(pid) for fd in self._hierarchy._fds.values() for pid in self._read_at("cgroup.procs", fd).split()
        } - {0}  # 0: a process that our own pid namespace does not see

    def freeze(self, seconds: float = KILL_SECONDS) -> bool:
        """Stop all of it where it stands. True when it does, False when something would not within `seconds`."""
        self.write(self._hierarchy.version.freeze)
        return _wait_until(lambda: self._hierarchy.version.is_frozen(self._read), seconds)

    def thaw(self) -> None:
        self.write(self._hierarchy.version.thaw)

    def kill(self, seconds: float = KILL_SECONDS) -> bool:
        """SIGKILL to everything in it, whatever it forks meanwhile. True when nothing lives, False when
        something would not die within `seconds`; 0 only sends. A zombie does not live: its parent reaps it."""
        try:
            self._write_at("cgroup.kill", b"1", next(iter(self._hierarchy._fds.values())))
        except (FileNotFoundError, PermissionError):  # version 1, before Linux 5.14, or the group is gone
            self._kill_each()
            return _wait_until(lambda: not self._kill_each(), seconds)
        return _wait_until(lambda: not self.pids(), seconds)

    def _kill_each(self) -> bool:
        """Whether there was anything left to kill. With no fork allowed any more, this need not freeze the
        group first, which can hang; what is frozen must be thawed to die, and what has used up its share of the
        processor would wait for more of it to die with."""
        version = self._hierarchy.version
        for setting in (version.no_forks, version.thaw, version.full_speed):
            try:
                self.write(setting)
            except OSError:  # gone, or no such controller
                pass
        pids = list(self.pids())
        for start in range(0, len(pids), KILL_AT_ONCE):
            _kill_members(pids[start : start + KILL_AT_ONCE], self.pids)
        return bool(pids)

    def remove(self, seconds: float = REMOVE_SECONDS) -> bool:
        """Remove its directories; what is already gone is fine. False when something still lives in it."""
        left = set(self._hierarchy._fds.values())

        def is_gone() -> bool:
            for fd in tuple(left):
                try:
                    os.rmdir(self.name, dir_fd=fd)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    continue
                left.discard(fd)
            return not left

        return _wait_until(is_gone, seconds)

    def write(self, setting: Setting) -> None:
        """Raises OSError."""
        fd = self._hierarchy._fd_of.get(setting.controller)
        if fd is None:
            raise OSError(errno.EOPNOTSUPP, f"no cgroup controller {setting.controller} here")
        self._write_at(setting.file, setting.value, fd)

    def _write_at(self, file: str, value: bytes, parent: int) -> None:
        fd = self._open(file, os.O_WRONLY, parent)
        try:
            os.write(fd, value)
        finally:
            os.close(fd)

    def _read(self, controller: str, file: str) -> str:
        fd = self._hierarchy._fd_of.get(controller)
        return "" if fd is None else self._read_at(file, fd)

    def _read_at(self, file: str, parent: int) -> str:
        try:
            fd = self._open(file, os.O_RDONLY, parent)
        except FileNotFoundError:
            return ""
        try:
            parts = []
            while part := os.read(fd, 1 << 16):
                parts.append(part)
            return b"".join(parts).decode()
        except OSError as error:
            if error.errno != errno.ENODEV:  # removed between open and read
                raise
            return ""
        finally:
            os.close(fd)

    def _open(self, file: str, flags: int, parent: int) -> int:
        return os.open(f"{self.name}/{file}", flags | os.O_CLOEXEC, dir_fd=parent)


def _kill_members(pids: Iterable[int], members: Callable[[], set[int]]) -> None:
    """SIGKILL to those of `pids` that are members still once they are held by descriptor, because a number may
    have passed to a process that is none of ours since it was read."""
    with ExitStack() as held:
        fds = {}
        for pid in pids:
            try:
                fds[pid] = linux.pidfd_open(pid)
            except OSError:  # ESRCH: gone; EINVAL: a thread's own number
                continue
            held.callback(os.close, fds[pid])
        for pid in fds.keys() & members():
            try:
                linux.pidfd_send_signal(fds[pid], signal.SIGKILL)
            except ProcessLookupError:
                pass


def _wait_until(is_done: Callable[[], bool], seconds: float) -> bool:
    """Ask at once, then at growing intervals. The kernel tells no descriptor of what is awaited here."""
    deadline = time.monotonic() + seconds
    pause = 0.0002
    while not is_done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


def _make(directory: str) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        pass


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def _pids(path: str) -> list[int]:
    with open(path) as file:
        return [int(line) for line in file]
