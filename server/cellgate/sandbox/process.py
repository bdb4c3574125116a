"""The driver `process`: a plain subprocess with resource limits, for trusted code only.

It contains nothing. Code in it runs as the user who started it, sees that user's files and network, and may
signal that user's processes. It is there for hosts that allow nothing better and code that needs nothing
better, so it must be named to be used, and warns.

What it does with each limit, honestly:

    memory_bytes        RLIMIT_DATA of each process alone: private writable memory; more is a MemoryError. Children
                        each have as much again. (RLIMIT_AS would count what numpy only reserves.)
    open_files          RLIMIT_NOFILE
    file_bytes          RLIMIT_FSIZE
    cpu_cores, pids, workspace_bytes, workspace_inodes, shm_bytes
                        not enforced. RLIMIT_NPROC counts all that the user runs on the host, and nothing for root.

What it ends: the kernel's session and process group, and every process that still bears the mark which the
kernel's environment was given, so also daemons that started a session of their own. A process that cleared
its environment as well gets away. All die with the process and the thread that made them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal as signals
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import cellgate_kernel.link
from cellgate.errors import DriverUnavailable, SandboxGone, SandboxStartFailed, UnknownTemplate
from cellgate.sandbox.base import Sandbox, SandboxSpec, Usage
from cellgate.sandbox.certificate import DeathCertificate, Reason, ResourceEvents, decide

__all__ = ["ContainsNothingWarning", "ProcessDriver", "ProcessSandbox"]

TEMPLATES = ("python",)
START_SECONDS = 30.0  # a cold kernel takes half a second, and a minute of work on a busy host is not unheard of
SWEEP_SECONDS = 2.0  # how long what forks faster than it is killed is chased
LOG_TAIL_BYTES = 4096
MARK = "CELLGATE_SANDBOX"  # in the environment: what belongs to which sandbox
PASSED_ON = ("LANG", "LC_ALL", "PATH", "TZ")  # of our own environment; the rest may hold secrets

# Runs in the child before anything of the kernel's, so that no code of ours runs between a fork and an exec.
_PRELUDE = """
import ctypes, os, resource, runpy, signal, sys
parent, root, *limits = sys.argv[1:6]
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(parent):
    os._exit(1)  # it died before we could ask to be told
signal.signal(signal.SIGINT, lambda *_: None)  # until the kernel has a handler of its own, an interrupt is no end
for name, value in zip(("RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE"), (*limits, "0")):
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    value = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)  # never more than we have
    resource.setrlimit(kind, (value, value))
sys.path.append(root)
sys.argv[1:6] = []
runpy.run_module("cellgate_kernel", run_name="__main__", alter_sys=True)
"""


class ContainsNothingWarning(UserWarning):
    """Said whenever a ProcessDriver is made."""


class ProcessDriver:
    """Makes kernels that are plain subprocesses. They end when it is closed, and with the program."""

    name = "process"

    def __init__(self) -> None:
        """Raises DriverUnavailable."""
        if not hasattr(os, "pidfd_open"):
            raise DriverUnavailable(self.name, "there is no pidfd_open", "Linux 5.3 or newer would do")
        warnings.warn(
            "the process driver contains nothing: code in it has all the rights of this user; use it for trusted "
            "code only",
            ContainsNothingWarning,
            stacklevel=2,
        )
        self._kept: dict[str, ProcessSandbox] = {}  # until they are destroyed

    @property
    def templates(self) -> tuple[str, ...]:
        return TEMPLATES

    async def create(self, spec: SandboxSpec) -> ProcessSandbox:
        if spec.template not in TEMPLATES:
            raise UnknownTemplate(spec.template, TEMPLATES)
        sandbox = ProcessSandbox(spec, self._kept)
        try:
            await sandbox.wait_until_up()
        except BaseException:  # a cancellation too leaves nothing behind
            await sandbox.destroy()
            raise
        return sandbox

    async def ended(self) -> list[Sandbox]:
        return []  # it keeps none: whoever made a sandbox knows how it ended

    async def sandboxes(self) -> list[Sandbox]:
        return [sandbox for sandbox in self._kept.values() if not sandbox.has_ended]

    async def close(self) -> None:
        await asyncio.gather(*(sandbox.destroy() for sandbox in list(self._kept.values())))


class ProcessSandbox:
    """See `Sandbox`. A kernel process, its session, and a directory to work in."""

    driver = "process"

    def __init__(self, spec: SandboxSpec, kept: dict[str, ProcessSandbox]) -> None:
        """Start the process. Raises SandboxStartFailed, and then nothing is left."""
        self.id = uuid.uuid4().hex
        self.template = spec.template
        self.limits = spec.limits
        self._kept = kept
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[DeathCertificate] = self._loop.create_future()
        self._born = time.monotonic()
        self._killed_for: Reason | None = None
        self._detail = ""
        self._destroying: asyncio.Task[DeathCertificate] | None = None
        with ExitStack() as undo:
            self._birth, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._birth.close)
            self._birth.setblocking(False)
            self._workspace = tempfile.mkdtemp(prefix="cellgate-")
            undo.callback(shutil.rmtree, self._workspace, ignore_errors=True)
            self._log = undo.enter_context(tempfile.TemporaryFile())
            with theirs:
                self._process = self._spawn(theirs.fileno())
            undo.pop_all()
        self._pid = self._process.pid
        self._pidfd = os.pidfd_open(self._pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._kept[self.id] = self
        self._first_link: socket.socket | None = None
        with suppress(SandboxGone):  # one that ended at once; `wait_until_up` says how
            self._first_link = self._new_link()

    def _spawn(self, birth_fd: int) -> subprocess.Popen[bytes]:
        root = Path(cellgate_kernel.link.__file__).parent.parent
        limits = (self.limits.memory_bytes, self.limits.open_files, self.limits.file_bytes)
        own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        try:
            return subprocess.Popen(
                [
                    *(sys.executable, "-c", _PRELUDE),
                    *(str(os.getpid()), str(root), *map(str, limits)),
                    *("--birth-fd", str(birth_fd)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[birth_fd],
                cwd=self._workspace,
                env=own | {MARK: self.id, "HOME": self._workspace, "TMPDIR": self._workspace},
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxStartFailed("process", "starting the interpreter", str(error)) from error

    async def wait_until_up(self) -> None:
        """Until the kernel has written its first bytes. Raises SandboxStartFailed."""
        link = self._first_link
        if link is None:
            detail = (await self.wait()).sentence()
            raise SandboxStartFailed("process", "waiting for the kernel's first word", detail, self._log_tail())
        spoke = asyncio.Event()
        self._loop.add_reader(link, spoke.set)
        try:
            await asyncio.wait_for(spoke.wait(), START_SECONDS)
            if link.recv(1, socket.MSG_PEEK):
                return
            detail = (await asyncio.wait_for(self.wait(), START_SECONDS)).sentence()
        except asyncio.TimeoutError:
            detail = f"nothing came in {START_SECONDS:g} s"
        finally:
            self._loop.remove_reader(link)
        raise SandboxStartFailed("process", "waiting for the kernel's first word", detail, self._log_tail())

    @property
    def has_ended(self) -> bool:
        return self._ended.done()

    # -- the Sandbox protocol -----------------------------------------------------------------------

    async def attach(self) -> socket.socket:
        if self._ended.done():
            raise SandboxGone(self.id, self._ended.result())
        link, self._first_link = self._first_link, None
        return link or self._new_link()

    async def interrupt(self) -> None:
        self._signal_group(signals.SIGINT)

    async def kill(self, reason: Reason, detail: str = "") -> None:
        if self._killed_for is None and not self._has_exited():
            self._killed_for, self._detail = reason, detail
            self._signal_group(signals.SIGKILL)
            self._kill_members()

    async def wait(self) -> DeathCertificate:
        return await asyncio.shield(self._ended)

    async def usage(self) -> Usage:
        members = dict(self._members())
        facts, kernel = members.values(), members.get(self._pid)
        return Usage(
            memory_bytes=sum(fact.memory_bytes for fact in facts),
            memory_peak_bytes=None,
            cpu_seconds=sum(fact.cpu_seconds for fact in facts),
            pids=sum(fact.threads for fact in facts),
            oom_kills=0,
            pids_limit_hits=0,
            stopped=kernel is not None and kernel.state in "tT",
        )

    async def destroy(self) -> DeathCertificate:
        if self._destroying is None:
            self._destroying = self._loop.create_task(self._destroy())
        return await asyncio.shield(self._destroying)

    # -- behind it ----------------------------------------------------------------------------------

    def _new_link(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                socket.send_fds(self._birth, [b"L"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise SandboxGone(self.id) from error
        return ours

    def _has_exited(self) -> bool:
        if self._ended.done():
            return True
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal_group(self, number: int) -> None:
        if not self._ended.done():  # then it is not reaped either, and its number belongs to nobody else
            with suppress(ProcessLookupError):
                os.killpg(self._pid, number)

    def _on_exit(self) -> None:
        """The kernel is a zombie: end what it left, and only then give its number back."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._signal_group(signals.SIGKILL)
        self._kill_members()
        _, status, used = os.wait4(self._pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)  # else it would wait for it again
        events = ResourceEvents(
            cpu_seconds=used.ru_utime + used.ru_stime,
            wall_seconds=time.monotonic() - self._born,
        )
        self._ended.set_result(decide(status, self._killed_for, events, detail=self._detail))

    async def _destroy(self) -> DeathCertificate:
        await self.kill(Reason.SESSION_DELETED)
        certificate = await self.wait()
        until = time.monotonic() + SWEEP_SECONDS
        while self._kill_members() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self._birth.close()
        if self._first_link:
            self._first_link.close()
        self._log.close()
        shutil.rmtree(self._workspace, ignore_errors=True)
        self._kept.pop(self.id, None)
        return certificate

    def _members(self) -> Iterator[tuple[int, _Facts]]:
        """The living processes of this sandbox."""
        for name in os.listdir("/proc"):
            if name.isdecimal() and (facts := self._member(int(name))):
                yield int(name), facts

    def _member(self, pid: int) -> _Facts | None:
        facts = _read_facts(pid)
        if facts is None or facts.state in "ZX":
            return None
        if facts.session == self._pid and not self._ended.done():  # once it is reaped the number may be another's
            return facts
        return facts if f"{MARK}={self.id}".encode() in _read(f"/proc/{pid}/environ").split(b"\0") else None

    def _kill_members(self) -> bool:
        """One pass over them. Whether there was any."""
        pids = [pid for pid, _ in self._members()]
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                pidfd = os.pidfd_open(pid)
                try:
                    if self._member(pid):  # looked at again, now that the number cannot pass to another
                        signals.pidfd_send_signal(pidfd, signals.SIGKILL)
                finally:
                    os.close(pidfd)
        return bool(pids)

    def _log_tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace")


@dataclass(frozen=True)
class _Facts:
    """What /proc/<pid>/stat says of a process."""

    state: str
    session: int
    cpu_seconds: float
    threads: int
    memory_bytes: int


def _read_facts(pid: int) -> _Facts | None:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()  # the name before may hold anything, ")" too
    if len(fields) < 22:
        return None  # it has ended meanwhile
    return _Facts(
        state=fields[0].decode(),
        session=int(fields[3]),
        cpu_seconds=sum(map(int, fields[11:15])) / _TICKS,  # reaped children included
        threads=int(fields[17]),
        memory_bytes=int(fields[21]) * _PAGE_BYTES,
    )


_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # gone, or not ours to read
        return b""
