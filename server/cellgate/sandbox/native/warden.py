"""The warden: the one privileged process. It makes sandboxes, holds their birth sockets, and writes how they ended.

It has one thread and one loop. It obeys one driver at a time over a packet socket (`commands.py`, `line.py`), spawns
process 1 of each sandbox itself and has a zygote fork the kernel (`birth.py`). It reads nothing that comes out of a
sandbox, knows no token, and no word of a client's becomes a path, an argument or a uid. When it ends, everything it
made ends too: process 1 of every sandbox dies with it, and whatever lives beside process 1 dies with that.

Started for one driver it ends when that hangs up. Started with `--persist` it has a door (`door.py`), keeps its
sandboxes when the driver hangs up, and also how they end, until a driver has asked it to forget: so a driver may be
killed at any instruction, and the next one misses nothing. A driver that comes while another is there takes its place.

A sandbox's life:

    starting ── kernel locked in ──▶ living ── kernel exits ──▶ ending ── all reaped, cgroup removed ──▶ gone
        └────────── start failed, or killed ──────────────────▶ ending
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from cellgate.errors import (
    CellgateError,
    DriverUnavailable,
    SandboxGone,
    SandboxStartFailed,
    UnknownTemplate,
    UsageError,
)
from cellgate.sandbox.certificate import DeathCertificate, Reason, decide
from cellgate.sandbox.limits import Limits, check_fits_host
from cellgate.sandbox.native import cgroups, commands, seccomp
from cellgate.sandbox.native.birth import OK, InitJob, make_sandbox
from cellgate.sandbox.native.commands import pack
from cellgate.sandbox.native.door import Door
from cellgate.sandbox.native.images import find_images
from cellgate.sandbox.native.line import Asker, Line
from cellgate.sandbox.native.pool import Pool, Pools
from cellgate.sandbox.native.program import Program
from cellgate.sandbox.native.uids import OneUid, UidBlock, Uids
from cellgate.sandbox.native.zygotes import Zygote

__all__ = ["LINGER_SECONDS", "TEMPLATES", "Warden", "remember", "unavailable"]

TEMPLATES: Final = ("python", "python-data")  # of this host's own Python

START_SECONDS: Final = 10.0  # a start takes 10 ms; one that takes this long has been starved or has hung
LINGER_SECONDS: Final = 600.0  # with no driver and no sandbox: a gateway that restarts finds its zygotes warm
MAX_ENDED: Final = 10_000  # ends that no driver has asked to forget, some 500 bytes each; the oldest go first
MAX_LINES: Final = 8  # the driver, its successor, and who looks; then the oldest that is no driver is hung up on
END_SECONDS: Final = 5.0  # for everything to be reaped at the end; a sandbox takes a millisecond
# The link's send buffer on either side. The kernel's default of 208 KiB makes a 1 MiB message wake its reader
# five times; above this nothing is gained.
_LINK_BUFFER_BYTES: Final = 1 << 20


@dataclass
class _Birth:
    """A create that is not answered yet; or one for a pool, which nobody asked for."""

    asker: Asker | None
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
    is_handed_out: bool = False  # else nobody knows of it but the warden
    watchers: list[Asker] = field(default_factory=list)  # of `destroyed`
    interrupting: list[Asker] = field(default_factory=list)  # who waits for the signal to be sent

    def describe(self) -> dict[str, object]:
        end = self.certificate.to_json() if self.certificate else None
        return {"id": self.id, "template": self.template, "limits": self.limits.to_mapping(), "certificate": end}


class Warden:
    def __init__(
        self,
        control: socket.socket | None,
        prefix: str,
        *,
        is_host_root: bool,
        door: Door | None = None,
        linger_seconds: float = LINGER_SECONDS,
        images: Path | None = None,
    ) -> None:
        """`control` is the line of its first driver. With a `door` it outlives its drivers. `images`: where those that
        were unpacked lie; each is a template, in the place of this host's if that has the same name.
        Raises DriverUnavailable, saying what this host lacks."""
        self._prefix = prefix  # of its sandboxes' ids
        self._is_host_root = is_host_root
        self._images = find_images(images) if images is not None else {}
        self._templates = tuple(dict.fromkeys((*TEMPLATES, *self._images)))
        self._selector = selectors.DefaultSelector()
        self._zygotes: dict[str, Zygote] = {}
        self._waiting: dict[str, list[_Birth]] = {}  # creates that came before the template's zygote was ready
        self._sandboxes: dict[str, _Sandbox] = {}
        self._ended: dict[str, dict[str, object]] = {}  # handed out, gone, and not forgotten yet; the oldest first
        self._inits: dict[int, str] = {}
        self._uids: Uids = UidBlock() if is_host_root else OneUid()
        self._next = 0
        self._filter = seccomp.compile_filter()
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._own = os.pidfd_open(os.getpid())
        self._program = Program()
        self._hierarchy = cgroups.detect()
        self._hierarchy.prepare()
        if is_host_root:  # and so sees every process of the host
            self._sweep_dead_wardens()
        wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGCHLD, signal.SIGTERM):  # the number in the pipe is all that is wanted
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the driver's to understand
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._wake = wake
        self._watch(wake, self._reap)
        self._deadlines: dict[str, float] = {}
        self._pools: Pools[_Sandbox] = Pools()
        self._is_ending = False
        self._lines: list[Line] = []  # the oldest first
        self._driver: Line | None = None
        self._door = door
        self._linger_seconds = linger_seconds
        self._idle_since: float | None = None
        if door is not None:
            self._watch(door.socket, self._on_knock)
        if control is not None:
            line = self._greet(control)
            self._driver = line if line.is_open else None

    # -- the loop ------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until there is nobody to serve, or it is told to end; then end everything and return when nothing is left."""
        try:
            while not self._is_over():
                self._turn(self._seconds_left())
        except _ToldToEnd:
            pass
        finally:
            self._end_everything()

    def _is_over(self) -> bool:
        if self._driver is not None:
            return False
        left = self._seconds_left()
        return self._door is None or (left is not None and left <= 0)

    def _seconds_left(self) -> float | None:
        """Until the warden ends itself, unless somebody comes; None while it is wanted."""
        is_wanted = self._driver or any(s.is_handed_out and not s.certificate for s in self._sandboxes.values())
        if is_wanted:
            self._idle_since = None
            return None
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return self._idle_since + self._linger_seconds - time.monotonic()

    def _turn(self, seconds: float | None) -> None:
        """Do what there is to do; wait for it at most so long."""
        now = time.monotonic()
        due = [*self._deadlines.values(), *([refill] if (refill := self._pools.next_due()) is not None else [])]
        waits = [at - now for at in due] + ([seconds] if seconds is not None else [])
        for key, _ in self._selector.select(max(0.0, min(waits)) if waits else None):
            watched = self._selector.get_map().get(key.fd)
            if watched is not None and watched.data == key.data:  # or what came before it has closed it
                cast("Callable[[], None]", key.data)()
        for pool in self._pools.due(time.monotonic()):
            self._order(_Birth(None, pool.command, pool))
        for name, deadline in list(self._deadlines.items()):
            if deadline <= time.monotonic():
                self._on_deadline(name)

    def _watch(self, fd: int | socket.socket, handle: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, handle)

    # -- drivers -------------------------------------------------------------------------------------

    def _on_knock(self) -> None:
        if self._door is None or (came := self._door.answer()) is None:
            return
        sock, refusal = came
        if refusal is not None:
            with sock, suppress(OSError):
                sock.send(unavailable(refusal), socket.MSG_DONTWAIT)
            return
        self._greet(sock)
        if len(self._lines) > MAX_LINES:
            next(line for line in self._lines if line is not self._driver).end()

    def _greet(self, sock: socket.socket) -> Line:
        line = Line(sock, self._selector, self._hear)
        self._lines.append(line)
        line.say(
            {
                "hello": commands.VERSION,
                "is_host_root": self._is_host_root,
                "templates": self._templates,
                "images": {name: str(directory) for name, (_, directory) in self._images.items()},
                "cgroup": self._hierarchy.version.number,
            }
        )
        return line

    def _hear(self, line: Line, packet: bytes) -> None:
        if not packet:
            self._lines.remove(line)
            if line is self._driver:
                self._driver = None
            return
        asker = Asker(line, 0)
        try:
            reference, command = commands.parse_command(packet)
            asker = Asker(line, reference)
            if line is not self._driver and not isinstance(command, commands.Drive):
                raise UsageError("this is not the driver; `drive` first would pass")
            if self._is_ending:
                raise DriverUnavailable("native", "the warden is ending", "start another")
            self._commands[type(command)](self, asker, command)
        except CellgateError as error:
            asker.refuse(error)
        except OSError as error:  # no descriptor or memory for it is left, which is no reason to end everybody
            asker.refuse(DriverUnavailable("native", f"the warden cannot do it now ({error})", "try again"))

    def _drive(self, asker: Asker, command: commands.Drive) -> None:
        if command.version != commands.VERSION:
            missing = f"the warden speaks version {commands.VERSION} and this driver {command.version}"
            raise DriverUnavailable("native", missing, "install both from the same release")
        before, self._driver = self._driver, asker.line
        if before is not None and before is not asker.line:
            before.dismiss({"dismissed": "another driver has taken its place"})
        if before is not asker.line:  # who knows what the one before wanted ready
            for sandbox in self._pools.dissolve():
                self._end(sandbox, Reason.SESSION_DELETED, "it was ready for another driver")
        asker.answer("driving")

    def _shut_down(self, asker: Asker, command: commands.Shutdown) -> None:
        asker.answer("ending")
        raise _ToldToEnd

    def _tell(self, message: dict[str, object]) -> None:
        if self._driver is not None:
            self._driver.say(message)

    # -- commands ------------------------------------------------------------------------------------

    def _create(self, asker: Asker, command: commands.Create) -> None:
        _check(command, self._templates)
        if command.use_pool and (sandbox := self._take_from_pool(command)):
            self._hand_out(sandbox, asker)
        else:
            self._order(_Birth(asker, command))

    def _order(self, birth: _Birth) -> None:
        try:
            zygote = self._zygote(birth.command.template)
        except OSError as error:
            return self._refuse(birth, SandboxStartFailed("native", "beginning a zygote", str(error)))
        if zygote.is_ready:
            self._begin(zygote, birth)
        else:
            self._waiting.setdefault(zygote.template, []).append(birth)

    def _hand_out(self, sandbox: _Sandbox, asker: Asker) -> None:
        if not asker.line.is_open:
            return self._end(sandbox, Reason.SESSION_DELETED, "whoever asked for it is gone")
        sandbox.is_handed_out = True
        link, sandbox.link = sandbox.link, None
        if link is not None:
            with link:
                asker.answer("created", link, id=sandbox.id)

    def _keep_pool(self, asker: Asker, command: commands.KeepPool) -> None:
        kind = commands.Create(command.template, command.limits, use_pool=True)
        _check(kind, self._templates)
        self._pools.keep(kind, command.size)
        asker.answer("pooled")

    def _take_from_pool(self, command: commands.Create) -> _Sandbox | None:
        """The oldest ready one that still stands; those that do not are ended here."""
        while sandbox := self._pools.take(command, time.monotonic()):
            state = _process_state(sandbox.kernel) if sandbox.kernel and not sandbox.fork_over else ""
            if state in ("S", "R", "D"):
                return sandbox
            self._end(sandbox, Reason.BACKEND_ERROR, "it did not stand when it was to be handed out")
        return None

    def _attach(self, asker: Asker, command: commands.Attach) -> None:
        sandbox = self._living(command.id)
        with self._new_link(sandbox) as link:
            asker.answer("attached", link)

    def _interrupt(self, asker: Asker, command: commands.Interrupt) -> None:
        sandbox = self._sandboxes.get(command.id)
        if sandbox and not sandbox.fork_over:
            sandbox.interrupting.append(asker)
            self._signal_kernel(sandbox, signal.SIGINT)
        else:
            asker.answer("interrupted")

    def _kill(self, asker: Asker, command: commands.Kill) -> None:
        sandbox = self._sandboxes.get(command.id)
        if sandbox:
            self._end(sandbox, command.reason, command.detail)

    def _usage(self, asker: Asker, command: commands.Usage) -> None:
        sandbox = self._living(command.id)
        reading = sandbox.group.read()
        state = _process_state(sandbox.kernel) if sandbox.kernel else ""
        if state not in ("", "Z", "X"):
            sandbox.oom_kills_outlived = reading.oom_kills
        asker.answer(
            "usage",
            memory_bytes=reading.memory_bytes,
            memory_peak_bytes=reading.memory_peak_bytes,
            cpu_seconds=reading.cpu_seconds,
            pids=reading.pids,
            oom_kills=reading.oom_kills,
            pids_limit_hits=reading.pids_limit_hits,
            stopped=state in ("T", "t"),
        )

    def _list(self, asker: Asker, command: commands.List) -> None:
        known = [sandbox.describe() for sandbox in self._sandboxes.values() if sandbox.is_handed_out]
        known += self._ended.values()
        for start in range(0, len(known), commands.LIST_PIECE):
            asker.answer("sandboxes", known=known[start : start + commands.LIST_PIECE])
        asker.answer("listed")

    def _destroyed(self, asker: Asker, command: commands.Destroyed) -> None:
        sandbox = self._sandboxes.get(command.id)
        if sandbox is None:
            self._ended.pop(command.id, None)
            asker.answer("gone")
        else:
            sandbox.watchers.append(asker)

    _commands: Final[dict[type, Callable[[Warden, Asker, Any], None]]] = {
        commands.Drive: _drive,
        commands.Create: _create,
        commands.Attach: _attach,
        commands.Interrupt: _interrupt,
        commands.Kill: _kill,
        commands.Usage: _usage,
        commands.List: _list,
        commands.Destroyed: _destroyed,
        commands.KeepPool: _keep_pool,
        commands.Shutdown: _shut_down,
    }

    def _living(self, sandbox_id: str) -> _Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.certificate is not None:
            raise SandboxGone(sandbox_id)
        return sandbox

    # -- zygotes -------------------------------------------------------------------------------------

    def _zygote(self, template: str) -> Zygote:
        """The template's zygote, begun if there is none. It says itself when it is ready."""
        if template in self._zygotes and self._zygotes[template].has_hung_up():
            self._lose_zygote(self._zygotes[template])
        if template not in self._zygotes:
            image = self._images.get(template)
            zygote = Zygote(template, image, is_host_root=self._is_host_root, forget=self._forget)
            self._zygotes[template] = zygote
            self._watch(zygote.socket, lambda: self._hear_zygote(zygote))
        return self._zygotes[template]

    def _forget(self) -> None:
        """In a zygote, which was forked off here."""
        for line in self._lines:
            line.__dict__.clear()  # it may hold words about other sessions
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
        elif "signalled" in said:
            if (sandbox := self._sandboxes.get(said["signalled"])) and sandbox.interrupting:
                sandbox.interrupting.pop(0).answer("interrupted")
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
        if birth.asker is not None:
            birth.asker.refuse(error)
        elif birth.pool is not None:
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
            for fd in entrances:
                passed.callback(os.close, fd)
            ready, init_ready = os.pipe()
            passed.callback(os.close, ready)
            passed.callback(os.close, init_ready)
            started, kernel_started = os.pipe()
            undo.callback(os.close, started)
            passed.callback(os.close, kernel_started)
            calls = make_sandbox(zygote.root, limits, len(entrances), self._filter, is_host_root=self._is_host_root)
            job = InitJob(uid, zygote.root_namespace, entrances, init_ready, self._own)
            pid = self._program.spawn_as_init(calls.pack(job.numbers), job.descriptors, self._own_pids)
            undo.callback(_end_child, pid)
            init = os.pidfd_open(pid)
            passed.callback(os.close, init)
            undo.pop_all()  # from here on the sandbox owns it
            sandbox = _Sandbox(
                name, uid, zygote.template, limits, group, host_birth, pid, time.monotonic(), birth, started, None
            )
            self._sandboxes[name] = sandbox
            self._inits[pid] = name
            self._deadlines[name] = sandbox.began + START_SECONDS
            self._watch(started, lambda: self._on_started(sandbox))
            try:
                zygote.fork(name, limits, [guest_birth.fileno(), init, ready, kernel_started, *entrances])
            except OSError as error:  # it ended just now, or takes no more: it will not tell of this one
                self._fail_start(sandbox, str(error))
                self._on_kernel_over(sandbox, None)
                return
            try:
                sandbox.link = self._new_link(sandbox)
            except (OSError, SandboxGone) as error:  # no descriptors are left, or the kernel has ended
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
        if said != OK or sandbox.certificate is not None:  # it may have started, and ended before this was read
            why = sandbox.detail if said == OK else said.decode(errors="replace")
            self._fail_start(sandbox, why or "the kernel ended without a word")
            return
        birth, sandbox.answer = sandbox.answer, None
        if birth is None:
            return
        if birth.asker is not None:
            self._hand_out(sandbox, birth.asker)
        elif birth.pool is not None and not birth.pool.on_ready(sandbox):
            self._end(sandbox, Reason.SESSION_DELETED, "its pool is full")

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
        for asker in sandbox.interrupting:
            asker.answer("interrupted")
        sandbox.interrupting.clear()
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
        if sandbox.is_handed_out:
            self._tell({"died": sandbox.id, "certificate": sandbox.certificate.to_json()})
        self._end(sandbox, Reason.SESSION_DELETED, "")
        self._clear_away(sandbox)

    def _reap(self) -> None:
        numbers = os.read(self._wake, 4096)
        self._reap_inits()
        if signal.SIGTERM in numbers and not self._is_ending:
            raise _ToldToEnd

    def _reap_inits(self) -> None:
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
        if sandbox.is_handed_out and not sandbox.watchers:
            remember(self._ended, sandbox.id, sandbox.describe(), MAX_ENDED)
        for watcher in sandbox.watchers:
            watcher.answer("gone")

    # -- the end -------------------------------------------------------------------------------------

    def _end_everything(self) -> None:
        """End what there is, see it reaped, tell the driver of it if one is there, and hang up."""
        self._is_ending = True
        if self._door is not None:
            self._selector.unregister(self._door.socket)
            self._door.close()
        self._pools = Pools()
        for sandbox in list(self._sandboxes.values()):
            self._end(sandbox, Reason.SUPERVISOR_LOST, "the warden ends")
        deadline = time.monotonic() + END_SECONDS
        while self._sandboxes and (left := deadline - time.monotonic()) > 0:
            self._turn(left)
        for zygote in list(self._zygotes.values()):
            zygote.end()
        self._hierarchy.close()
        for line in list(self._lines):  # last: to hang up says that nothing is left
            line.end()

    def _sweep_dead_wardens(self) -> None:
        """Cgroups of a warden that was killed; their processes died with it."""
        for name in self._hierarchy.names("w"):
            owner = name[1:].partition("-")[0]
            if owner.isdigit() and _process_state(int(owner)) in ("", "Z", "X"):  # nobody may have waited for it yet
                self._hierarchy.sweep(name)


def _check(command: commands.Create, templates: tuple[str, ...]) -> None:
    """Raises UnknownTemplate or LimitError."""
    if command.template not in templates:
        raise UnknownTemplate(command.template, templates)
    check_fits_host(command.limits, host_memory_bytes=_HOST_MEMORY_BYTES, host_cpu_cores=_HOST_CPU_CORES)


def unavailable(error: CellgateError) -> bytes:
    """The only packet of a warden that cannot serve whoever asks."""
    return pack({"unavailable": error.code, **commands.describe(error)})


def _end_child(pid: int) -> None:
    """One that nobody knows of yet."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def remember(ended: dict[str, dict[str, object]], sandbox_id: str, how: dict[str, object], most: int) -> None:
    """Keep this and the newest before it, so many in all."""
    ended[sandbox_id] = how
    while len(ended) > most:
        del ended[next(iter(ended))]


class _ToldToEnd(Exception):
    """By a command or a signal."""


_SO_SNDBUFFORCE: Final = 32
_HOST_MEMORY_BYTES: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_HOST_CPU_CORES: Final = os.cpu_count() or 1


def _process_state(pid: int) -> str:
    """The letter in /proc/pid/stat, or nothing if it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)  # `open` takes a quarter of a create for it
    except OSError:
        return ""
    try:
        return state_in(os.read(fd, 4096))
    except OSError:
        return ""
    finally:
        os.close(fd)


def state_in(stat: bytes) -> str:
    """One that SIGKILL has struck counts as dead: it may take long to give back what it had, and a look at it
    meanwhile would say that it had outlived what ends it."""
    fields = stat.rpartition(b")")[2].split()
    if len(fields) <= _SIGNALS_AT:
        return ""
    is_dying = int(fields[_FLAGS_AT]) & _PF_EXITING or int(fields[_SIGNALS_AT]) & _SIGKILL_BIT
    return "X" if is_dying else chr(fields[0][0])


_FLAGS_AT, _SIGNALS_AT = 6, 28  # counted from the state; see proc_pid_stat(5)
_PF_EXITING, _SIGKILL_BIT = 0x4, 1 << (signal.SIGKILL - 1)
