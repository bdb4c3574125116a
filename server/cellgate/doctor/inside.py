"""What code in a sandbox finds around itself, as plain facts. Judges nothing.

This file is not imported on the host: its text is run as a cell inside the sandbox, by whatever Python is there, so
it needs nothing but the standard library. Every attempt is harmless where it succeeds, because with the `process`
driver it runs on the host itself, perhaps as root: what is opened for writing is not written to, a call that may
be let through has arguments that make it fail, and what is made is a nameless file or a child that ends at once.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import random
import resource
import select
import signal
import socket
import stat
import struct
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

Given = dict[str, Any]  # what the host wants tried: see `_given` in `examine.py`

CHILD_SECONDS = 8.0  # what a child is tried for takes milliseconds
NO_MEMORY = 12  # the exit status of a child that got a MemoryError
DNS_NAME = "cellgate-doctor.invalid"  # a name that exists nowhere (RFC 6761)
_PR_SET_NAME, _PR_GET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 15, 27, 38
_MAX_LANDLOCK_LAYERS = 16  # LANDLOCK_MAX_NUM_LAYERS of the kernel
_MAX_LISTED = 200

libc = ctypes.CDLL(None, use_errno=True)


# -- who we are ---------------------------------------------------------------------------------------


def identity(given: Given) -> Any:
    libc.prctl(_PR_SET_NAME, given["token"].encode(), 0, 0, 0)  # by this name the host finds this process
    return {
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "uid_map": read("/proc/self/uid_map").split(),
        "becomes_root": child(lambda: [outcome(os.setuid, 0)]),
    }


def kernel(given: Given) -> Any:
    """The kernel that answers, by what it says of itself. One of its own lets its log be read."""
    log = ctypes.create_string_buffer(1 << 12)
    ctypes.CDLL(None).klogctl(3, log, len(log))  # SYSLOG_ACTION_READ_ALL
    return {"release": os.uname().release, "says": log.value.decode(errors="replace")[:200]}


def namespaces(given: Given) -> Any:
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}


def status(given: Given) -> Any:
    """/proc/self/status by name."""
    return dict(line.split(":\t", 1) for line in read("/proc/self/status").splitlines() if ":\t" in line)


def securebits(given: Given) -> Any:
    return libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0)


def entropy(given: Given) -> Any:
    found = {"os.urandom": os.urandom(8).hex(), "random": random.random(), "uuid4": uuid.uuid4().hex}
    if "numpy" in sys.modules:
        found["numpy.random"] = sys.modules["numpy"].random.random()
    return found


def versions(given: Given) -> Any:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("ipykernel", "ipython")}


# -- system calls --------------------------------------------------------------------------------------


def calls(given: Given) -> Any:
    """What became of each call: 0, an errno, or the signal that it earned."""
    wanted: dict[str, list[int]] = given["calls"]
    results: dict[str, Any] = {}
    while left := [name for name in wanted if name not in results]:
        ended = child(lambda: ([name, syscall(*wanted[name])] for name in left))
        results |= dict(ended["said"])
        if len(ended["said"]) < len(left):  # it died of the next one
            results[left[len(ended["said"])]] = {"signal": ended["signal"]}
    return results


def sockets(given: Given) -> Any:
    return {name: outcome(lambda how: socket.socket(*how).close(), how) for name, how in given["sockets"].items()}


def foreign_calls(given: Given) -> Any:
    """getpid in conventions that no table describes, on machines that have them."""
    if platform.machine() != "x86_64":
        return {}

    def int80() -> int:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
        result: int = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
        return min(result, 0)

    return {"x32": child(lambda: [syscall(0x40000000 | 39)]), "i386": child(lambda: [int80()])}


def syscall(number: int, *arguments: int) -> int:
    """0, or the errno."""
    ctypes.set_errno(0)
    values = [ctypes.c_ulong(argument % 2**64) for argument in arguments]
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *values) == -1 else 0


# -- Landlock ------------------------------------------------------------------------------------------


def landlock_layers(given: Given) -> Any:
    """How many rulesets hold this process: the kernel allows so many in all, and we count how many more fit."""

    def count() -> dict[str, int]:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        attributes = ctypes.create_string_buffer(struct.pack("=Q", 1), 8)  # handles LANDLOCK_ACCESS_FS_EXECUTE
        for fitted in range(_MAX_LANDLOCK_LAYERS + 1):
            ruleset = libc.syscall(444, attributes, ctypes.c_size_t(8), 0)
            if ruleset < 0:
                return {"errno": ctypes.get_errno()}
            if libc.syscall(446, ruleset, 0):
                found = ctypes.get_errno()
                return {"layers": _MAX_LANDLOCK_LAYERS - fitted} if found == errno.E2BIG else {"errno": found}
            os.close(ruleset)
        return {"layers": 0}

    return child(lambda: [count()])


# -- files ---------------------------------------------------------------------------------------------


def mounts(given: Given) -> Any:
    """[place, type, is it writable, options] of every mount that can be reached: not of those that others cover."""
    rows = []
    for line in read("/proc/self/mountinfo").splitlines():
        of_mount, _, of_system = line.partition(" - ")
        number, _, _, _, place, options = of_mount.split()[:6]
        kind, _, system_options = of_system.split(" ", 2)
        writable = "rw" in options.split(",") and "rw" in system_options.split(",")
        if number == mount_at(place.encode().decode("unicode_escape").encode("latin-1")):  # a blank comes as \040
            rows.append([place, kind, writable, options.split(",")])
    return rows


def mount_at(place: bytes) -> str | None:
    """The number of the mount that a path leads to; None when it leads nowhere."""
    try:
        fd = os.open(place, os.O_PATH)
    except OSError:
        return None
    try:
        lines = (line.split() for line in read(f"/proc/self/fdinfo/{fd}").splitlines())
        return next(words[1] for words in lines if words[0] == "mnt_id:")
    finally:
        os.close(fd)


def writing(given: Given) -> Any:
    """Making a nameless file in each directory."""
    places = [*given["read_only"], sys.prefix, os.path.dirname(os.__file__)]
    return {place: outcome(lambda p: os.close(os.open(p, os.O_TMPFILE | os.O_WRONLY)), place) for place in places}


def opening(given: Given) -> Any:
    """What lies at each path: absent, refused, empty, or open to reading."""
    return {path: look_at(path) for path in given["secret"]}


def look_at(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return "absent" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "refused"
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            try:
                return "open" if os.listdir(fd) else "empty"
            except OSError:
                return "refused"
        return "empty" if is_null(found) else "open"
    finally:
        os.close(fd)


def steering(given: Given) -> Any:
    """Opening for writing, and not writing, what steers the kernel."""
    return {path: outcome(open_for_writing, path) for path in given["steering"]}


def open_for_writing(path: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        if is_null(os.fstat(fd)):
            raise OSError(errno.ENXIO, "covered")
    finally:
        os.close(fd)


def is_null(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


def places(given: Given) -> Any:
    """Which file system lies behind each place that is written to."""
    return {place: os.stat(place).st_dev for place in ("/tmp", "/dev/shm", os.getcwd())}


def devices(given: Given) -> Any:
    """Device nodes beneath /dev, without the terminals of this sandbox's own pts."""
    found: list[str] = []
    for directory, _, names in os.walk("/dev"):
        for name in names:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and not path.startswith("/dev/pts/"):
                found.append(path)
    return sorted(found)[:_MAX_LISTED]


def making_devices(given: Given) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        return outcome(os.mknod, f"{directory}/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def descriptors(given: Given) -> Any:
    """What is open, by what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own
    return found


def environment(given: Given) -> Any:
    """Names and values, also those that the process itself was started with."""
    first = (entry.partition("=") for entry in read("/proc/self/environ").split("\0") if entry)
    return {name: value for name, _, value in first} | dict(os.environ)


# -- network -------------------------------------------------------------------------------------------


def interfaces(given: Given) -> Any:
    return [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]]


def routes(given: Given) -> Any:
    """Connecting a datagram socket, which sends nothing."""
    return {address: outcome(connect, socket.SOCK_DGRAM, [address, 53]) for address in given["addresses"]}


def host_sockets(given: Given) -> Any:
    """Whether what listens on the host answers in here."""
    return {name: outcome(connect, socket.SOCK_STREAM, address) for name, address in given["listeners"].items()}


def connect(kind: int, address: Any) -> None:
    if isinstance(address, str):
        family = socket.AF_UNIX
    else:
        family, address = (socket.AF_INET6 if ":" in address[0] else socket.AF_INET), tuple(address)
    with socket.socket(family, kind) as probe:
        probe.settimeout(1.0)
        probe.connect(address)


def name_lookup(given: Given) -> Any:
    began = time.monotonic()
    result = outcome(socket.getaddrinfo, DNS_NAME, 80)
    return {"result": result, "seconds": time.monotonic() - began}


# -- limits of a process, and process 1 ------------------------------------------------------------------


def rlimits(given: Given) -> Any:
    kinds = ("CORE", "NOFILE", "FSIZE", "MEMLOCK", "RTPRIO", "NICE")
    return {kind: resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))[1] for kind in kinds}


def process_1(given: Given) -> Any:
    """What of process 1 can be looked at; whether it hears a signal of ours; whether it takes in an orphan."""
    entries = {
        name: outcome(lambda p: os.close(os.open(p, os.O_RDONLY)), f"/proc/1/{name}") for name in ("environ", "mem")
    }
    entries |= {name: outcome(os.readlink, f"/proc/1/{name}") for name in ("root", "cwd", "exe")}
    entries["fd"] = outcome(read_a_link, "/proc/1/fd")
    return {
        "entries": entries,
        "signal": outcome(os.kill, 1, 0),
        "orphan": orphan(),
        "name": read("/proc/1/comm").strip(),
    }


def read_a_link(directory: str) -> None:
    names = os.listdir(directory)  # without root its numbers may be listed; what they stand for is another question
    if not names:
        raise OSError(errno.ENOENT, "empty")
    os.readlink(f"{directory}/{names[0]}")


def orphan() -> str:
    """Whether a process without a parent goes to process 1 and is reaped there: reaped, zombie, or who has it."""

    go, told = os.pipe(), os.pipe()
    middle = os.fork()
    if not middle:
        if not (pid := os.fork()):
            os.read(go[0], 1)
            os.write(told[1], struct.pack("=ii", os.getpid(), os.getppid()))
            os._exit(0)
        os._exit(0)
    os.waitpid(middle, 0)
    os.write(go[1], b"1")
    try:
        if not select.select([told[0]], [], [], CHILD_SECONDS)[0]:
            return "silent"
        pid, parent = struct.unpack("=ii", os.read(told[0], 8))
    finally:
        for fd in (*go, *told):
            os.close(fd)
    if parent != 1:
        return f"taken by {parent}"
    deadline = time.monotonic() + 2
    while os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > deadline:
            return "zombie"
        time.sleep(0.002)
    return "reaped"


# -- limits, really hit: in a sandbox that has small ones --------------------------------------------------


def hit_memory(given: Given) -> Any:
    """A child takes twice what all may have."""
    return child(lambda: [len(bytearray(b"x") * (2 * given["limits"]["memory_bytes"]))])


def hit_pids(given: Given) -> Any:
    """Children that wait, until there may be no more."""
    children: list[int] = []
    try:
        for _ in range(given["limits"]["pids"] + 8):
            pid = os.fork()
            if not pid:
                signal.pause()
                os._exit(0)
            children.append(pid)
        return {"made": len(children), "errno": 0}
    except OSError as error:
        return {"made": len(children), "errno": error.errno}
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def hit_cpu(given: Given) -> Any:
    """The share of CPU time that a busy loop gets."""
    began, used = time.monotonic(), time.process_time()
    while time.monotonic() - began < given["cpu_seconds"]:
        pass
    return (time.process_time() - used) / (time.monotonic() - began)


def hit_open_files(given: Given) -> Any:
    opened: list[int] = []
    try:
        while len(opened) < given["limits"]["open_files"] + 8:
            opened.append(os.open("/dev/null", os.O_RDONLY))
        return {"made": len(opened), "errno": 0}
    except OSError as error:
        return {"made": len(opened), "errno": error.errno}
    finally:
        for fd in opened:
            os.close(fd)


def hit_file_size(given: Given) -> Any:
    return fill(os.getcwd(), given["limits"]["file_bytes"] + (1 << 16), given["limits"]["file_bytes"] + (1 << 16))


def hit_workspace(given: Given) -> Any:
    return fill(os.getcwd(), given["limits"]["workspace_bytes"] + (1 << 16), given["limits"]["file_bytes"] // 2)


def hit_shm(given: Given) -> Any:
    return fill("/dev/shm", given["limits"]["shm_bytes"] + (1 << 16), given["limits"]["file_bytes"] // 2)


def hit_inodes(given: Given) -> Any:
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as directory:
        for made in range(given["limits"]["workspace_inodes"] + 8):
            try:
                os.close(os.open(f"{directory}/{made}", os.O_CREAT | os.O_WRONLY))
            except OSError as error:
                return {"made": made, "errno": error.errno}
        return {"made": made + 1, "errno": 0}


def fill(place: str, total: int, each: int) -> dict[str, int]:
    """Write so many bytes there, in files of at most `each`; how many went in, and the errno that ended it."""
    written = 0
    chunk = b"\0" * (1 << 16)
    with tempfile.TemporaryDirectory(dir=place) as directory:
        while written < total:
            with open(f"{directory}/{written}", "wb", buffering=0) as file:
                size = 0
                while size < each and written < total:
                    try:
                        step = file.write(chunk[: each - size])
                    except OSError as error:
                        return {"made": written, "errno": error.errno or -1}
                    size += step
                    written += step
    return {"made": written, "errno": 0}


# -- tools -----------------------------------------------------------------------------------------------


def read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def outcome(attempt: Callable[..., object], *arguments: Any) -> int:
    """0 when it succeeds, else the errno (or another number that is not 0)."""
    try:
        attempt(*arguments)
        return 0
    except OSError as error:
        return error.errno or -1


def child(work: Callable[[], Iterable[object]]) -> dict[str, Any]:
    """What a child says while it works, and how it ended: its exit status, or the signal."""
    source, sink = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            for word in work():
                os.write(sink, json.dumps(word).encode() + b"\n")
        except MemoryError:
            os._exit(NO_MEMORY)
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(sink)
    said = b""
    with open(source, "rb", buffering=0) as reader:
        deadline = time.monotonic() + CHILD_SECONDS
        while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (chunk := reader.read(1 << 16)):
                break
            said += chunk
        else:
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {
        "said": [json.loads(line) for line in said.splitlines()],
        "exit": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
    }


def collect(names: list[str], given: Given) -> dict[str, Any]:
    """The facts of these names. One that cannot be found says why and costs no other."""
    facts: dict[str, Any] = {}
    for name in names:
        try:
            facts[name] = {"found": globals()[name](given)}
        except Exception as error:
            facts[name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
    return facts
