"""Where hostile cells run: one driver, a neighbour who must notice nothing, and what is looked at after each case.

`Arena` is shared by all cases of a worker; `Session` is one sandbox under attack. What only the host can see
(processes, cgroups, files of a session) is asked of a `HostSide`, of which each driver has its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import subprocess
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from cellgate.sandbox.base import Driver, Sandbox, SandboxSpec
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.client import ExecuteResult, KernelClient
from cellgate.sandbox.docker.engine import Engine
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import cgroups

MiB = 1 << 20
LIMITS = Limits(
    memory_bytes=256 * MiB,
    cpu_cores=1.0,
    pids=64,
    open_files=1024,
    workspace_bytes=64 * MiB,
    workspace_inodes=4096,
    shm_bytes=32 * MiB,
)
SPEC = SandboxSpec(limits=LIMITS, use_pool=False)

WALL_SECONDS = 10.0  # a cell is interrupted then, and killed 2 s later, unless a case says less
ANSWER_SECONDS = 2.0  # in which a session that lives answers after the attack
GONE_SECONDS = 3.0  # in which a destroyed session is gone, whatever its processes do
# For the neighbour's cells while the attack goes on, 99 of 100. On an idle machine of two cores the slowest took
# 40 ms; the bound leaves room for other work on the machine.
NEIGHBOUR_SECONDS = 1.0
CANARY_EVERY_SECONDS = 0.1


class HostSide(Protocol):
    """What a driver's host can tell of a sandbox, by its own means."""

    def uid(self, sandbox: Sandbox) -> int | None:
        """The host uid that its processes have; None when it is not the sandbox's alone."""
        ...

    def pids(self, sandbox: Sandbox) -> set[int]: ...

    def leftovers(self, sandbox: Sandbox) -> list[str]:
        """What is still there of a destroyed sandbox."""
        ...

    @property
    def start_seconds(self) -> float:
        """In which a fresh sandbox is there."""
        ...

    @property
    def patience(self) -> float:
        """By which the other bounds are multiplied: what a call costs in a sandbox of this kind on a busy machine."""
        ...


class NativeHost:
    start_seconds = ANSWER_SECONDS
    patience = 1.0

    def __init__(self) -> None:
        self.groups = set(cgroups.detect().parents.values())

    def pids(self, sandbox: Sandbox) -> set[int]:
        found: set[int] = set()
        for group in self.groups:
            with suppress(OSError):
                found.update(map(int, Path(group, sandbox.id, "cgroup.procs").read_text().split()))
        return found

    def uid(self, sandbox: Sandbox) -> int | None:
        uids = {uid for pid in self.pids(sandbox) if (uid := uid_of(pid))}
        return uids.pop() if len(uids) == 1 else None

    def leftovers(self, sandbox: Sandbox) -> list[str]:
        directories = [f"{group}/{sandbox.id}" for group in sorted(self.groups)]
        return [directory for directory in directories if os.path.exists(directory)]


class ContainerHost:
    """Asks the engine, and for processes the cgroup that it names."""

    start_seconds = 15.0  # a second of processor time over gVisor, beside whatever else is tried on this machine

    def __init__(self, *, shares_kernel: bool = True) -> None:
        self.shares_kernel = shares_kernel
        self.patience = 1.0 if shares_kernel else 5.0  # each call goes through a process that traces the guest's

    def uid(self, sandbox: Sandbox) -> int | None:
        if not self.shares_kernel:
            return None  # what the host sees is a kernel, which belongs to nobody
        return next((uid for pid in self.pids(sandbox) if (uid := uid_of(pid))), None)

    def pids(self, sandbox: Sandbox) -> set[int]:
        engine = Engine.open()
        try:
            state = engine.state(f"cellgate-{sandbox.id}")
        finally:
            engine.close()
        if state is None or not state.pid:
            return set()
        group = Path(f"/proc/{state.pid}/cgroup").read_text().partition("pids:")[2].splitlines()[0]
        return set(map(int, Path(f"/sys/fs/cgroup/pids{group}/cgroup.procs").read_text().split()))

    def leftovers(self, sandbox: Sandbox) -> list[str]:
        engine = Engine.open()
        try:
            return [f"container {sandbox.id}"] if engine.state(f"cellgate-{sandbox.id}") else []
        finally:
            engine.close()


HOST_SIDES: dict[str, Callable[[], HostSide]] = {
    "native": NativeHost,
    "docker": ContainerHost,
    "docker-runsc": partial(ContainerHost, shares_kernel=False),
}


def uid_of(pid: int) -> int | None:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/status").read_text().partition("\nUid:")[2].split()[0])
    return None


def belongings_of(uid: int) -> list[str]:
    """Processes, System V ipc and files in public places of a host uid."""
    found = [f"process {name}" for name in os.listdir("/proc") if name.isdecimal() and uid_of(int(name)) == uid]
    for table in ("shm", "sem", "msg"):
        lines = Path(f"/proc/sysvipc/{table}").read_text().splitlines()
        at = lines[0].split().index("uid")
        found += [f"{table} {line.split()[1]}" for line in lines[1:] if line.split()[at] == str(uid)]
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock"):
        with suppress(OSError):
            found += [entry.path for entry in os.scandir(place) if entry.stat(follow_symlinks=False).st_uid == uid]
    return found


class HostCanaries:
    """What no sandbox may change on the host."""

    FILES = ("/etc/passwd", "/etc/hosts", "/proc/sys/kernel/core_pattern")

    def __init__(self) -> None:
        self.before = self._look()

    def check(self) -> None:
        now = self._look()
        assert now == self.before, "the host has changed"

    def _look(self) -> dict[str, str]:
        seen = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.FILES}
        log = subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace", check=False).stdout
        bad = ("BUG:", "Oops", "general protection", "kernel panic", "soft lockup", "refcount_t")
        seen["oopses"] = str(sum(any(word in line for word in bad) for line in log.splitlines()))
        return seen


class Arena:
    """A driver and its neighbour. Made and closed by the fixture."""

    def __init__(self, driver: Driver, host: HostSide) -> None:
        self.driver = driver
        self.host = host
        self.canaries = HostCanaries()

    async def begin(self) -> None:
        self.neighbour_sandbox = await self.driver.create(SPEC)
        self.neighbour = await KernelClient(self.neighbour_sandbox).__aenter__()
        await self.neighbour.execute("secret = 'of the neighbour'; open('file', 'w').write(secret)")

    async def end(self) -> None:
        await self.neighbour.__aexit__()
        await self.neighbour_sandbox.destroy()

    async def open(self) -> Session:
        sandbox = await self.driver.create(SPEC)
        session = Session(self, sandbox)
        await session.begin()
        return session

    async def check_neighbour(self) -> None:
        asked = self.neighbour.execute("secret, open('file').read()")
        result = await asyncio.wait_for(asked, ANSWER_SECONDS * self.host.patience)
        assert result.value == "('of the neighbour', 'of the neighbour')", result

    async def check_fresh(self) -> None:
        sandbox = await asyncio.wait_for(self.driver.create(SPEC), self.host.start_seconds)
        async with KernelClient(sandbox) as kernel:
            first = await asyncio.wait_for(kernel.execute("1+1"), ANSWER_SECONDS * self.host.patience)
            assert first.value == "2", first
        await sandbox.destroy()


class Session:
    """A sandbox under attack, and the neighbour's pulse meanwhile."""

    def __init__(self, arena: Arena, sandbox: Sandbox) -> None:
        self.arena = arena
        self.sandbox = sandbox
        self.kernel = KernelClient(sandbox)
        self.certificate: DeathCertificate | None = None  # once a case has said that it expects the end
        self.uid: int | None = None
        self._pulse: list[float] = []
        self._asked_at: float | None = None  # for a beat that has not come yet
        self._canary: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        await self.kernel.__aenter__()
        assert (await self.kernel.execute("1+1", timeout=WALL_SECONDS)).value == "2"
        self.uid = self.arena.host.uid(self.sandbox)
        self._canary = asyncio.create_task(self._feel_the_pulse())

    async def _feel_the_pulse(self) -> None:
        while True:
            self._asked_at = time.monotonic()
            assert (await self.arena.neighbour.execute("import time; time.time()")).status == "ok"
            self._pulse.append(time.monotonic() - self._asked_at)
            self._asked_at = None
            await asyncio.sleep(CANARY_EVERY_SECONDS)

    # -- for the cases ------------------------------------------------------------------------------

    async def run(self, code: str, *, wall: float = WALL_SECONDS) -> ExecuteResult:
        """Run a cell under the wall time: SIGINT, grace, kill."""
        return await self.kernel.execute(textwrap.dedent(code), timeout=wall)

    async def text(self, code: str, *, wall: float = WALL_SECONDS) -> str:
        """What a cell printed that must end well."""
        return await text_of(self.kernel, code, wall=wall)

    async def value(self, code: str, *, wall: float = WALL_SECONDS) -> str | None:
        result = await self.run(code, wall=wall)
        assert result.status == "ok", result
        return result.value

    async def attempts(self, expressions: Mapping[str, str], *, setup: str = "") -> dict[str, str]:
        """What comes of each expression: the name of its errno or exception, or "did: " and its value."""
        code = ATTEMPT.format(setup=textwrap.dedent(setup), expressions=dict(expressions))
        answer: dict[str, str] = json.loads(await self.text(code))
        return answer

    def died(self, result: ExecuteResult, *reasons: Reason) -> DeathCertificate:
        """The case expects that its session ended so."""
        assert result.certificate is not None, f"it lives: {result.status} {result.reply}"
        assert result.certificate.reason in reasons, result.certificate
        self.certificate = result.certificate
        return result.certificate

    def timed_out(self, result: ExecuteResult) -> bool:
        """The case expects that its time was over; says whether the interrupt was enough."""
        assert result.timed_out, result
        if result.certificate is not None:
            self.died(result, Reason.TIMEOUT_WALL)
            return False
        assert result.reply.get("ename") == "KeyboardInterrupt", result.reply
        return True

    async def expect_death(self, *reasons: Reason, seconds: float = ANSWER_SECONDS) -> DeathCertificate:
        self.certificate = await asyncio.wait_for(self.sandbox.wait(), seconds * self.arena.host.patience)
        assert self.certificate.reason in reasons, self.certificate
        return self.certificate

    # -- after every case -----------------------------------------------------------------------------

    async def check_and_destroy(self) -> None:
        assert self._canary is not None
        try:
            await self._check_itself()
            if self._canary.done():
                self._canary.result()
            self._check_pulse()
            await self.arena.check_neighbour()
        finally:
            self._canary.cancel()
            await self.kernel.__aexit__()
            begin = time.monotonic()
            await self.sandbox.destroy()
            took = time.monotonic() - begin
        assert took < GONE_SECONDS * self.arena.host.patience, f"destroying took {took:.1f} s"
        left = self.arena.host.leftovers(self.sandbox) + (belongings_of(self.uid) if self.uid else [])
        assert not left, f"left behind: {left}"
        self.arena.canaries.check()
        await self.arena.check_fresh()

    async def _check_itself(self) -> None:
        if self.certificate is not None:
            assert await self.sandbox.wait() == self.certificate
            return
        result = await asyncio.wait_for(self.kernel.execute("1+1"), ANSWER_SECONDS * self.arena.host.patience)
        assert result.value == "2", result

    def _check_pulse(self) -> None:
        waits = [*self._pulse, *(() if self._asked_at is None else (time.monotonic() - self._asked_at,))]
        if waits:
            p99 = sorted(waits)[math.ceil(0.99 * len(waits)) - 1]
            assert p99 < NEIGHBOUR_SECONDS * self.arena.host.patience, f"the neighbour waited {p99:.2f} s"


async def text_of(kernel: KernelClient, code: str, *, wall: float = WALL_SECONDS) -> str:
    """What a cell printed that must end well, in any session."""
    result = await kernel.execute(textwrap.dedent(code), timeout=wall)
    assert result.status == "ok", result
    return result.text()


# A cell that tries expressions one by one. `call` is a system call by number, by way of libc's syscall(2).
ATTEMPT = """
import ctypes, errno, json, os, socket, subprocess, sys
_libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    done = _libc.syscall(ctypes.c_long(number), *(
        ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) if isinstance(a, int) else a
        for a in arguments))
    if done == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return done
def read(path):
    with open(path, "rb") as file: return file.read(200)
def write(path, data=b"x"):
    with open(path, "wb") as file: return file.write(data)
{setup}
def _outcome(expression):
    try:
        return "did: " + repr(eval(expression, globals()))[:200]
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except BaseException as error:
        return type(error).__name__
print(json.dumps({{name: _outcome(expression) for name, expression in {expressions!r}.items()}}))
"""
