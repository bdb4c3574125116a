"""A zygote: a process that has everything a template's kernels need in memory, and is forked for each of them.

It is the warden's child, has one thread and no secret: whatever it knows, every session knows. It talks to the
warden alone, over one packet socket, and is the parent of its kernels: it signals and reaps them, so that a
process id can never mean somebody else. That of an unpacked image goes on in its Python, once it is in its root.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from cellgate.sandbox.native import linux, seccomp
from cellgate.sandbox.native.birth import KernelJob, become_kernel
from cellgate.sandbox.native.commands import MAX_PACKET_BYTES, pack, unpack
from cellgate.sandbox.native.pages import Pages, own_pages
from cellgate.sandbox.native.rootfs import HOME, OURS, WORK, Root, build_root, mount_scratch
from cellgate_kernel.link import Hello, Link, Message
from cellgate_kernel.message import Channel, Status, Tag, join_v1

__all__ = ["Home", "go_on", "run_zygote"]

# What a sandbox's processes start with; nothing of the host's environment reaches them.
_ENVIRONMENT: Final = {
    "HOME": HOME,
    "PWD": WORK,
    "TMPDIR": "/tmp",
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
}
# Chosen before the host's own services when memory runs out for all; a sandbox's own limit comes long before that.
_OOM_SCORE_ADJUSTMENT: Final = "300"


@dataclass(frozen=True)
class Home:
    """Where a zygote settles, and how."""

    mount_point: str  # an empty directory of the host to build the root on
    path: str  # the guests' PATH
    is_host_root: bool  # not merely root of a user namespace


RunKernel = Callable[[int], NoReturn]


def run_zygote(control: socket.socket, template: str, root: Root, home: Home) -> NoReturn:
    """Never returns. Says `rooted`, waits for a word, then says `ready` and serves; or `failed` with the reason."""
    with _telling(control):
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # out of reach in the guests' root
        own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        _enter(control, template, root, home)
        if root.python:
            for fd in (control.fileno(), proc, own_pids):
                os.set_inheritable(fd, True)
            words = (template, int(home.is_host_root), control.fileno(), proc, own_pids)
            os.execv(root.python, [root.python, "-I", "-c", _GO_ON, *map(str, words)])
        _be_zygote(control, template, proc, own_pids, is_host_root=home.is_host_root)


# For the Python of a root, in the place of ours. Both packages find their other modules by themselves then.
_GO_ON: Final = (
    f"import sys; sys.path.insert(0, {OURS!r}); from cellgate.sandbox.native.zygote import go_on;"
    f" sys.path.remove({OURS!r}); go_on(*sys.argv[1:])"
)


def go_on(template: str, is_host_root: str, *fds: str) -> NoReturn:
    """`run_zygote`, in the Python of an image."""
    del sys.argv[1:]
    control_fd, proc, own_pids = map(int, fds)
    for fd in (control_fd, proc, own_pids):
        os.set_inheritable(fd, False)
    control = socket.socket(fileno=control_fd)
    with _telling(control):
        linux.set_name(f"zygote-{template}")
        _be_zygote(control, template, proc, own_pids, is_host_root=bool(int(is_host_root)))


@contextmanager
def _telling(control: socket.socket) -> Iterator[None]:
    """Why this process ends, when it does."""
    try:
        yield
    except ConnectionError:
        os._exit(0)  # the warden is gone
    except BaseException as error:
        control.send(pack({"failed": f"{type(error).__name__}: {error}", "log": traceback.format_exc()[-4000:]}))
        os._exit(1)


def _enter(control: socket.socket, template: str, root: Root, home: Home) -> None:
    """Leave the host's file system and environment for the guests'."""
    linux.set_name(f"zygote-{template}")
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE_ADJUSTMENT)
    os.environ.clear()
    os.environ.update(_ENVIRONMENT, PATH=home.path)
    linux.unshare(linux.CLONE_NEWNS)
    build_root(root, home.mount_point, is_host_root=home.is_host_root)
    control.send(pack({"rooted": True}))
    if not control.recv(MAX_PACKET_BYTES):  # the warden has taken hold of the root meanwhile
        raise ConnectionError
    linux.unshare(linux.CLONE_NEWNS)
    mount_scratch(root)


def _be_zygote(control: socket.socket, template: str, proc: int, own_pids: int, *, is_host_root: bool) -> NoReturn:
    from cellgate_kernel import life, python  # in the guest's root: whatever is loaded later is there too

    zygote = _Zygote(control, proc, own_pids, is_host_root=is_host_root)
    prepared = python.prepare(template)

    def run(birth: int) -> NoReturn:
        life.run(birth, prepared)

    zygote.send_scout(run)
    zygote.serve(run)


class _Zygote:
    def __init__(self, control: socket.socket, proc: int, own_pids: int, *, is_host_root: bool) -> None:
        """`proc` is the host's /proc, `own_pids` what /proc/self/ns/pid is there."""
        self._control = control
        self._is_host_root = is_host_root
        self._pids: dict[str, int] = {}  # of the kernels not yet reaped, by sandbox id
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, _wake_up)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._own_pids = own_pids
        self._filter = seccomp.compile_filter()
        self._proc = proc
        self._pages = Pages(())

    def send_scout(self, run: RunKernel) -> None:
        """Learn from a kernel that nobody uses which pages the others will write to."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        host_end, guest_end = socket.socketpair()
        with ours, theirs, host_end, guest_end:
            pid = os.fork()
            if pid == 0:
                try:
                    host_end.close()
                    self._leave_zygote()
                    run(theirs.detach())
                finally:
                    os._exit(70)
            socket.send_fds(ours, [b"L"], [guest_end.fileno()])
            guest_end.close()
            theirs.close()
            try:
                _run_first_cell(host_end)
                scout = os.open(str(pid), os.O_PATH | os.O_DIRECTORY, dir_fd=self._proc)
                own = os.open("self", os.O_PATH | os.O_DIRECTORY, dir_fd=self._proc)
                self._pages = Pages(own_pages(scout, own))
                os.close(scout)
                os.close(own)
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def serve(self, run: RunKernel) -> NoReturn:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        self._control.send(pack({"ready": True}))
        while True:
            for fd, _ in poll.poll():
                if fd == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                else:
                    self._obey(run)

    def _obey(self, run: RunKernel) -> None:
        packet, fds, _, _ = socket.recv_fds(self._control, MAX_PACKET_BYTES, 16)
        if not packet:
            raise ConnectionError
        request = cast("dict[str, Any]", unpack(packet))  # from the warden, which is believed
        if "fork" in request:
            self._fork(request, fds, run)
        else:
            if pid := self._pids.get(request["signal"]):
                with suppress(ProcessLookupError):  # a moment after its fork it has no group of its own yet
                    os.killpg(pid, request["number"])
            self._control.send(pack({"signalled": request["signal"]}))

    def _fork(self, request: dict[str, Any], fds: list[int], run: RunKernel) -> None:
        birth, init, init_ready, started, *entrances = fds
        name = request["fork"]
        job = KernelJob(  # before the fork: each thing that is done after it is done on pages that are copied for it
            request["open_files"],
            request["file_bytes"],
            entrances,
            self._pages,
            init,
            init_ready,
            started,
            birth,
            self._is_host_root,
            self._filter,
        )
        try:
            linux.setns(init, linux.CLONE_NEWPID)  # where children are born; the zygote itself stays
            try:
                pid = os.fork()
                if pid == 0:
                    self._child(job, run)
            finally:
                linux.setns(self._own_pids, linux.CLONE_NEWPID)
        except OSError as error:
            self._control.send(pack({"unforked": name, "error": str(error)}))
        else:
            self._pids[name] = pid
            self._control.send(pack({"forked": name, "pid": pid}))
        finally:
            for fd in fds:
                os.close(fd)

    def _child(self, job: KernelJob, run: RunKernel) -> NoReturn:
        try:
            self._leave_zygote()
            become_kernel(job, run)
        finally:
            os._exit(70)  # nothing of the zygote may go on in here

    def _leave_zygote(self) -> None:
        """In a child: let go of what is the zygote's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in (self._control.detach(), self._wake, self._waker, self._own_pids, self._proc):
            os.close(fd)
        self._pids.clear()  # the names of other sessions
        os.dup2(0, 2)  # the operator's terminal or log is no place for hostile code to write to

    def _reap(self) -> None:
        names = {pid: name for name, pid in self._pids.items()}
        while self._pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            name = names[pid]
            del self._pids[name]
            self._control.send(pack({"exited": name, "status": status}))


def _run_first_cell(stream: socket.socket) -> None:
    """Be the host of a kernel for one cell: returns when it is idle again."""
    link = Link()
    header = {"msg_id": "scout", "msg_type": "execute_request", "session": "scout", "username": "", "version": "5.3"}
    cell = {"code": "1+1", "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    parts = [pack(header), b"{}", b"{}", pack(cell)]
    request = [Tag(Channel.SHELL, "execute_request", Status.NONE, b"scout").pack(), *join_v1(b"shell", parts)]
    stream.settimeout(30)
    stream.sendall(link.open())
    while data := stream.recv(1 << 16):
        for event in link.receive(data):
            if type(event) is Hello:
                stream.sendall(b"".join(link.send(request)))
            elif type(event) is Message:
                tag, _ = Tag.unpack(event.body)
                if tag.status is Status.IDLE and tag.parent_id == b"scout":
                    return
    raise RuntimeError("the scout ended before it answered")


def _wake_up(signum: int, frame: object) -> None:
    """The signal's byte in the wake-up pipe is all that is wanted."""
