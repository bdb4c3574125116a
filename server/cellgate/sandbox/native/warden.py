"""The warden: the one privileged process. It makes sandboxes, holds their birth sockets, and writes how they ended.

It has one thread and one loop. It obeys a driver over one packet socket (`commands.py`), forks process 1 of each
sandbox itself and has a zygote fork the kernel (`birth.py`). It reads nothing that comes out of a sandbox, knows
no token, and no word of a client's becomes a path, an argument or a uid. When it ends, everything it made ends
too: process 1 of every sandbox dies with it, and whatever lives beside process 1 dies with that.

A sandbox's life:

    starting ── kernel locked in ──▶ living ── kernel exits ──▶ ending ── all reaped, cgroup removed ──▶ gone
        └────────── start failed, or killed ──────────────────▶ ending
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, cast

from cellgate.errors import (
    CellgateError,
    DriverUnavailable,
    SandboxGone,
    SandboxStartFailed,
    UnknownTemplate,
)
from cellgate.sandbox.certificate import DeathCertificate, Reason, decide
from cellgate.sandbox.limits import Limits, check_fits_host
from cellgate.sandbox.native import cgroups, commands, linux, seccomp
from cellgate.sandbox.native.birth import OK, InitJob, become_init
from cellgate.sandbox.native.commands import MAX_PACKET_BYTES, pack
from cellgate.sandbox.native.idle import idle_program
from cellgate.sandbox.native.pool import Pool, Pools
from cellgate.sandbox.native.uids import OneUid, UidBlock, Uids
from cellgate.sandbox.native.zygotes import Zygote

__all__ = ["TEMPLATES", "main"]

TEMPLATES: Final = ("python", "python-data")

START_SECONDS: Final = 10.0  # a start takes 10 ms; one that takes this long has been starved or has hung
MAX_UNSAID: Final = 10_000  # answers that wait for a driver which does not read: some 300 bytes each
PARK: Final = b"P"  # to a kernel that is to wait in a pool: warm up before anybody waits
# The link's send buffer on either side. The kernel's default of 208 KiB makes a 1 MiB message wake its reader
# five times; above this nothing is gained.
_LINK_BUFFER_BYTES: Final = 1 << 20


@dataclass
class _Birth:
    """A create that is not answered yet; or one for a pool, which nobody asked for."""

    reference: int
    command: commands.Create
    pool: Pool[_Sandbox] | None = None


@dataclass(eq=False)
class _Sandbox:
    id: str
    uid: int
    template: str
    limits: Limits
    group: cgroups.Group
    birth: socket.socket
    init: int  # pid; 0 once it is reaped
    began: float
    answer: _Birth | None  # what to answer when it has started
    started: int  # the read end on which the kernel says that it is locked in; -1 once read
    link: socket.socket | None  # the driver's end of the first link, until it is handed out
    kernel: int | None = None  # pid, for /proc alone: signals go through the zygote, which reaps it
    fork_over: bool = False  # the zygote has reaped the kernel, or never forked it
    wait_status: int | None = None
    killed_for: Reason | None = None
    detail: str = ""
    failure: str = ""
    oom_kills_outlived: int = 0
    certificate: DeathCertificate | None = None
    watchers: list[int] = field(default_factory=list)  # references of `destroyed`


class Warden:
    def __init__(self, control: socket.socket, prefix: str, *, is_host_root: bool) -> None:
        self._control = control
        self._prefix = prefix  # of its sandboxes' ids
        self._is_host_root = is_host_root
        self._selector = selectors.DefaultSelector()
        self._zygotes: dict[str, Zygote] = {}
        self._waiting: dict[str, list[_Birth]] = {}  # creates that came before the template's zygote was ready
        self._sandboxes: dict[str, _Sandbox] = {}
        self._inits: dict[int, str] = {}
        self._uids: Uids = UidBlock() if is_host_root else OneUid()
        self._next = 0
        self._filter = seccomp.compile_filter()
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._own = os.pidfd_open(os.getpid())
        self._idle = idle_program()
        self._hierarchy = cgroups.detect()
        self._hierarchy.prepare()
        if is_host_root:  # and so sees every process of the host
            self._sweep_dead_wardens()
        wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the driver's to understand
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._wake = wake
        self._watch(wake, self._reap)
        self._watch(control, self._obey)
        self._deadlines: dict[str, float] = {}
        self._pools: Pools[_Sandbox] = Pools()
        self._unsaid: deque[tuple[bytes, socket.socket | None]] = deque()
        self._is_ending = False

    # -- the loop ------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until the driver hangs up; then end everything and return when nothing is left."""
        self._say(
            {
                "hello": commands.VERSION,
                "is_host_root": self._is_host_root,
                "templates": TEMPLATES,
                "cgroup": self._hierarchy.version.number,
            }
        )
        try:
            while True:
                self._turn()
        except _HungUp:
            pass
        finally:
            self._end_everything()

    def _turn(self) -> None:
        due = [*self._deadlines.values(), *([refill] if (refill := self._pools.next_due()) is not None else [])]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        for key, _ in self._selector.select(timeout):
            if self._is_watched(key):
                cast("Callable[[], None]", key.data)()
        for pool in self._pools.due(time.monotonic()):
            self._order(_Birth(0, pool.command, pool))
        for name, deadline in list(self._deadlines.items()):
            if deadline <= time.monotonic():
                self._on_deadline(name)

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        """What came before it in the same turn may have closed it, and its number may be another's by now."""
        try:
            return self._selector.get_key(key.fileobj) is key
        except (KeyError, ValueError):
            return False

    def _watch(self, fd: int | socket.socket, handle: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, handle)

    def _say(self, message: dict[str, object], link: socket.socket | None = None) -> None:
        """Tell the driver. A driver that is stopped for a while loses nothing and holds nobody up."""
        if self._is_ending:
            return
        if self._unsaid or not self._try_to_say(pack(message), link):
            if len(self._unsaid) >= MAX_UNSAID:
                raise _HungUp
            if not self._unsaid:
                self._selector.modify(self._control, selectors.EVENT_READ | selectors.EVENT_WRITE, self._obey)
            self._unsaid.append((pack(message), link.dup() if link else None))

    def _try_to_say(self, packet: bytes, link: socket.socket | None) -> bool:
        fds = array("i", [link.fileno()] if link else [])
        try:  # not socket.send_fds, which drops its flags (CPython up to 3.13 at least) and so waits
            self._control.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _HungUp from error
        return True

    def _say_the_rest(self) -> None:
        while self._unsaid and self._try_to_say(*self._unsaid[0]):
            _, link = self._unsaid.popleft()
            if link is not None:
                link.close()
        if not self._unsaid:
            self._selector.modify(self._control, selectors.EVENT_READ, self._obey)

    def _obey(self) -> None:
        if self._unsaid:
            self._say_the_rest()
        try:
            packet = self._control.recv(MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise _HungUp from error
        if not packet:
            raise _HungUp
        reference = 0
        try:
            reference, command = commands.parse_command(packet)
            self._commands[type(command)](self, reference, command)
        except CellgateError as error:
            self._say({"failed": reference, **commands.describe(error)})

    # -- commands ------------------------------------------------------------------------------------

    def _create(self, reference: int, command: commands.Create) -> None:
        _check(command)
        if command.use_pool and (sandbox := self._take_from_pool(command)):
            self._hand_out(sandbox, reference)
        else:
            self._order(_Birth(reference, command))

    def _order(self, birth: _Birth) -> None:
        zygote = self._zygote(birth.command.template)
        if zygote.is_ready:
            self._begin(zygote, birth)
        else:
            self._waiting.setdefault(zygote.template, []).append(birth)

    def _hand_out(self, sandbox: _Sandbox, reference: int) -> None:
        link, sandbox.link = sandbox.link, None
        if link is not None:
            with link:
                self._say({"created": reference, "id": sandbox.id}, link)

    def _keep_pool(self, reference: int, command: commands.KeepPool) -> None:
        kind = commands.Create(command.template, command.limits, use_pool=True)
        _check(kind)
        self._pools.keep(kind, command.size)
        self._say({"pooled": reference})

    def _take_from_pool(self, command: commands.Create) -> _Sandbox | None:
        """The oldest ready one that still stands; those that do not are ended here."""
        while sandbox := self._pools.take(command, time.monotonic()):
            state = _process_state(sandbox.kernel) if sandbox.kernel and not sandbox.fork_over else ""
            if state in ("S", "R", "D"):
                return sandbox
            self._end(sandbox, Reason.BACKEND_ERROR, "it did not stand when it was to be handed out")
        return None

    def _attach(self, reference: int, command: commands.Attach) -> None:
        sandbox = self._living(command.id)
        with self._new_link(sandbox) as link:
            self._say({"attached": reference}, link)

    def _interrupt(self, reference: int, command: commands.Interrupt) -> None:
        sandbox = self._sandboxes.get(command.id)
        if sandbox and not sandbox.fork_over:
            self._signal_kernel(sandbox, signal.SIGINT)
        self._say({"interrupted": reference})

    def _kill(self, reference: int, command: commands.Kill) -> None:
        sandbox = self._sandboxes.get(command.id)
        if sandbox:
            self._end(sandbox, command.reason, command.detail)

    def _usage(self, reference: int, command: commands.Usage) -> None:
        sandbox = self._living(command.id)
        reading = sandbox.group.read()
        state = _process_state(sandbox.kernel) if sandbox.kernel else ""
        if state not in ("", "Z", "X"):
            sandbox.oom_kills_outlived = reading.oom_kills
        self._say(
            {
                "usage": reference,
                "memory_bytes": reading.memory_bytes,
                "memory_peak_bytes": reading.memory_peak_bytes,
                "cpu_seconds": reading.cpu_seconds,
                "pids": reading.pids,
                "oom_kills": reading.oom_kills,
                "pids_limit_hits": reading.pids_limit_hits,
                "stopped": state in ("T", "t"),
            }
        )

    def _list(self, reference: int, command: commands.List) -> None:
        pooled = {sandbox.id for sandbox in self._pools.ready()}
        for sandbox in self._sandboxes.values():
            if sandbox.certificate is None and sandbox.answer is None and sandbox.id not in pooled:
                limits = sandbox.limits.to_mapping()
                self._say({"sandbox": sandbox.id, "ref": reference, "template": sandbox.template, "limits": limits})
        self._say({"listed": reference})

    def _destroyed(self, reference: int, command: commands.Destroyed) -> None:
        sandbox = self._sandboxes.get(command.id)
        if sandbox is None:
            self._say({"gone": reference})
        else:
            sandbox.watchers.append(reference)

    _commands: Final[dict[type, Callable[[Warden, int, Any], None]]] = {
        commands.Create: _create,
        commands.Attach: _attach,
        commands.Interrupt: _interrupt,
        commands.Kill: _kill,
        commands.Usage: _usage,
        commands.List: _list,
        commands.Destroyed: _destroyed,
        commands.KeepPool: _keep_pool,
    }

    def _living(self, sandbox_id: str) -> _Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.certificate is not None:
            raise SandboxGone(sandbox_id)
        return sandbox

    # -- zygotes -------------------------------------------------------------------------------------

    def _zygote(self, template: str) -> Zygote:
        """The template's zygote, begun if there is none. It says itself when it is ready."""
        if template not in self._zygotes:
            zygote = Zygote(template, is_host_root=self._is_host_root, forget=self._forget)
            self._zygotes[template] = zygote
            self._watch(zygote.socket, lambda: self._hear_zygote(zygote))
        return self._zygotes[template]

    def _forget(self) -> None:
        """In a zygote, which was forked off here."""
        self._selector.close()  # else a kernel's garbage collector does, when the number is another's
        self.__dict__.clear()

    def _hear_zygote(self, zygote: Zygote) -> None:
        said = zygote.hear()
        if said is None:
            self._lose_zygote(zygote)
        elif "forked" in said:
            self._sandboxes[said["forked"]].kernel = said["pid"]
        elif "exited" in said:
            self._on_kernel_over(self._sandboxes[said["exited"]], said["status"])
        elif "unforked" in said:
            sandbox = self._sandboxes[said["unforked"]]
            self._fail_start(sandbox, f"the kernel could not be forked: {said['error']}")
            self._on_kernel_over(sandbox, None)
        elif "ready" in said:
            for birth in self._waiting.pop(zygote.template, []):
                self._begin(zygote, birth)

    def _lose_zygote(self, zygote: Zygote) -> None:
        """It ended: its kernels ended with it, and nobody saw how. The next create begins another."""
        self._selector.unregister(zygote.socket)
        zygote.close()
        del self._zygotes[zygote.template]
        reason = zygote.failure or "it ended without a word"
        for birth in self._waiting.pop(zygote.template, []):
            step = f"the zygote of {zygote.template}"
            self._refuse(birth, SandboxStartFailed("native", step, reason, zygote.log))
        for sandbox in list(self._sandboxes.values()):
            if sandbox.template == zygote.template and not sandbox.fork_over:
                self._end(sandbox, Reason.BACKEND_ERROR, f"the zygote is gone: {reason}")
                self._on_kernel_over(sandbox, None)

    # -- a sandbox's life ----------------------------------------------------------------------------

    def _begin(self, zygote: Zygote, birth: _Birth) -> None:
        """Make a sandbox; the answer comes when it has started. What fails before that leaves nothing."""
        try:
            self._make(zygote, birth)
        except OSError as error:
            self._refuse(birth, SandboxStartFailed("native", "making it", str(error)))
        except CellgateError as error:
            self._refuse(birth, error)

    def _refuse(self, birth: _Birth, error: CellgateError) -> None:
        if birth.pool is None:
            self._say({"failed": birth.reference, **commands.describe(error)})
        else:
            birth.pool.on_failure(time.monotonic())
            sys.stderr.write(f"cellgate warden: the pool could not be filled: {error}\n")
            sys.stderr.flush()

    def _make(self, zygote: Zygote, birth: _Birth) -> None:
        limits = birth.command.limits
        self._next += 1
        name = f"{self._prefix}{self._next}"
        with ExitStack() as undo, ExitStack() as passed:
            uid = self._uids.take()
            undo.callback(self._uids.give_back, uid)
            group = self._hierarchy.create(name, limits)
            undo.callback(group.remove)
            host_birth, guest_birth = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(host_birth.close)
            host_birth.setblocking(False)
            passed.callback(guest_birth.close)
            entrances = group.entrances()
            ready, init_ready = os.pipe()
            started, kernel_started = os.pipe()
            undo.callback(os.close, started)
            for fd in (ready, init_ready, kernel_started, *entrances):
                passed.callback(os.close, fd)
            pid = linux.fork_as_init(self._own_pids)
            if pid == 0:
                try:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    root, namespace = zygote.root, zygote.root_namespace
                    become_init(
                        InitJob(
                            root, limits, uid, namespace, entrances, init_ready, self._own, self._idle, self._filter
                        )
                    )
                finally:
                    os._exit(70)  # nothing of the warden may go on in here
            undo.pop_all()  # from here on the sandbox owns it
            init = os.pidfd_open(pid)
            passed.callback(os.close, init)
            sandbox = _Sandbox(
                name, uid, zygote.template, limits, group, host_birth, pid, time.monotonic(), birth, started, None
            )
            self._sandboxes[name] = sandbox
            self._inits[pid] = name
            self._deadlines[name] = sandbox.began + START_SECONDS
            self._watch(started, lambda: self._on_started(sandbox))
            try:
                zygote.fork(name, limits.to_mapping(), [guest_birth.fileno(), init, ready, kernel_started, *entrances])
                if birth.pool is not None:
                    sandbox.birth.send(PARK)
                sandbox.link = self._new_link(sandbox)
            except (OSError, SandboxGone) as error:  # the zygote ended just now, or our descriptors did
                self._fail_start(sandbox, str(error))

    def _new_link(self, sandbox: _Sandbox) -> socket.socket:
        """A fresh link: one end goes to the kernel, over its birth socket, the other is returned."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            for end in (ours, theirs):
                option = _SO_SNDBUFFORCE if self._is_host_root else socket.SO_SNDBUF
                end.setsockopt(socket.SOL_SOCKET, option, _LINK_BUFFER_BYTES)
            ours.setblocking(False)
            socket.send_fds(sandbox.birth, [b"L"], [theirs.fileno()])
        except OSError as error:  # a kernel that reads its birth socket no more
            ours.close()
            self._end(sandbox, Reason.KERNEL_UNRESPONSIVE, "it takes no link any more")
            raise SandboxGone(sandbox.id) from error
        finally:
            theirs.close()
        return ours

    def _on_started(self, sandbox: _Sandbox) -> None:
        said = os.read(sandbox.started, 512)
        self._forget_start(sandbox)
        if said != OK:
            self._fail_start(sandbox, said.decode(errors="replace") or "the kernel ended without a word")
            return
        birth, sandbox.answer = sandbox.answer, None
        if birth is None:
            return
        if birth.pool is None:
            self._hand_out(sandbox, birth.reference)
        else:
            birth.pool.on_ready(sandbox)

    def _forget_start(self, sandbox: _Sandbox) -> None:
        if sandbox.started >= 0:
            self._selector.unregister(sandbox.started)
            os.close(sandbox.started)
            sandbox.started = -1
            del self._deadlines[sandbox.id]

    def _fail_start(self, sandbox: _Sandbox, why: str) -> None:
        self._forget_start(sandbox)
        sandbox.failure = sandbox.failure or why
        self._end(sandbox, Reason.BACKEND_ERROR, why)

    def _on_deadline(self, name: str) -> None:
        self._fail_start(self._sandboxes[name], f"not ready after {START_SECONDS:.0f} s")

    def _end(self, sandbox: _Sandbox, reason: Reason, detail: str) -> None:
        """Kill it; the first reason wins. Process 1 takes everything in its pid namespace with it."""
        if sandbox.killed_for is None and sandbox.certificate is None:
            sandbox.killed_for, sandbox.detail = reason, detail
        if sandbox.init:
            os.kill(sandbox.init, signal.SIGKILL)  # not reaped yet, so it is surely itself

    def _signal_kernel(self, sandbox: _Sandbox, number: int) -> None:
        self._zygotes[sandbox.template].signal(sandbox.id, number)

    def _on_kernel_over(self, sandbox: _Sandbox, wait_status: int | None) -> None:
        """The zygote reaped the kernel (or never had it): write the certificate, then clear away the rest."""
        sandbox.fork_over = True
        sandbox.wait_status = wait_status
        reading = sandbox.group.read()
        events = reading.events(time.monotonic() - sandbox.began)
        sandbox.certificate = decide(
            wait_status,
            sandbox.killed_for,
            events,
            oom_kills_outlived=sandbox.oom_kills_outlived,
            detail=sandbox.detail,
        )
        self._pools.drop(sandbox)
        if sandbox.answer is None:
            self._say({"died": sandbox.id, "certificate": sandbox.certificate.to_json()})
        self._end(sandbox, Reason.SESSION_DELETED, "")
        self._clear_away(sandbox)

    def _reap(self) -> None:
        os.read(self._wake, 4096)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            name = self._inits.pop(pid, None)  # a zygote tells of its end by hanging up
            if name is not None:
                sandbox = self._sandboxes[name]
                sandbox.init = 0
                if sandbox.answer is not None and not sandbox.fork_over:
                    self._fail_start(sandbox, "process 1 ended")
                self._clear_away(sandbox)

    def _clear_away(self, sandbox: _Sandbox) -> None:
        """When both processes are reaped: nothing lives in the pid namespace any more, so all may go."""
        if sandbox.init or not sandbox.fork_over:
            return
        self._forget_start(sandbox)
        sandbox.birth.close()
        if sandbox.link is not None:
            sandbox.link.close()
        if not sandbox.group.remove():
            sandbox.group.kill()
            sandbox.group.remove()
        self._uids.give_back(sandbox.uid)
        del self._sandboxes[sandbox.id]
        if sandbox.answer is not None:
            why = sandbox.failure or (sandbox.certificate.sentence() if sandbox.certificate else "it ended")
            self._refuse(sandbox.answer, SandboxStartFailed("native", "starting it", why))
        for reference in sandbox.watchers:
            self._say({"gone": reference})

    # -- the end -------------------------------------------------------------------------------------

    def _end_everything(self) -> None:
        """The driver is gone: end what there is, see it reaped, remove its cgroups."""
        self._is_ending = True
        self._selector.unregister(self._control)
        self._pools = Pools()
        for sandbox in list(self._sandboxes.values()):
            self._end(sandbox, Reason.SUPERVISOR_LOST, "the warden ends")
        deadline = time.monotonic() + 5
        while self._sandboxes and time.monotonic() < deadline:
            self._turn()
        for zygote in list(self._zygotes.values()):
            zygote.end()
        self._hierarchy.close()

    def _sweep_dead_wardens(self) -> None:
        """Cgroups of a warden that was killed; their processes died with it."""
        for name in self._hierarchy.names("w"):
            owner = name[1:].partition("-")[0]
            if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
                self._hierarchy.sweep(name)


def _check(command: commands.Create) -> None:
    """Raises UnknownTemplate or LimitError."""
    if command.template not in TEMPLATES:
        raise UnknownTemplate(command.template, TEMPLATES)
    check_fits_host(command.limits, host_memory_bytes=_HOST_MEMORY_BYTES, host_cpu_cores=os.cpu_count() or 1)


class _HungUp(Exception):
    """The driver is gone."""


_SO_SNDBUFFORCE: Final = 32
_HOST_MEMORY_BYTES: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _process_state(pid: int) -> str:
    """The letter in /proc/pid/stat, or nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return chr(file.read().rpartition(b")")[2].split()[0][0])
    except (OSError, IndexError):
        return ""


def _start_again_as_root_of_a_namespace(control: socket.socket, prefix: str) -> NoReturn:
    """Raises DriverUnavailable where the host does not let users make user namespaces."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWPID)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        if warden := os.fork():  # a process that sends its children into other pid namespaces must own its own
            control.close()
            _, status = os.waitpid(warden, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        linux.set_pdeathsig(signal.SIGKILL)
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    except OSError as error:
        remedy = "start cellgate as root, allow them (sysctl user.max_user_namespaces), or use the docker driver"
        raise DriverUnavailable("native", f"this is not root, and user namespaces fail ({error})", remedy) from error
    control.set_inheritable(True)
    # Only an exec makes the memory itself belong to the namespace, without which a zygote may not join a sandbox.
    os.execv(sys.executable, [sys.executable, "-I", "-m", __spec__.name, str(control.fileno()), prefix])


def main() -> NoReturn:
    """`python -m cellgate.sandbox.native.warden FD`: obey the driver at the other end of that descriptor.
    Started without root it starts itself again inside a user namespace, with the prefix of its ids behind FD."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    linux.set_name("cellgate-warden")
    is_host_root = len(sys.argv) == 2 and os.geteuid() == 0
    prefix = f"w{os.getpid()}-" if len(sys.argv) == 2 else sys.argv[2]
    try:
        if os.geteuid():
            _start_again_as_root_of_a_namespace(control, prefix)
        warden = Warden(control, prefix, is_host_root=is_host_root)
    except CellgateError as error:
        control.send(pack({"unavailable": error.code, **commands.describe(error)}))
        sys.exit(1)
    gc.collect()
    gc.freeze()
    warden.serve()
    sys.exit(0)


if __name__ == "__main__":
    main()
