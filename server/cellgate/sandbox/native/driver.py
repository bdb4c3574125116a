"""The `native` driver: sandboxes made by a warden on this host, asked for over a packet socket.

The unprivileged side of `warden.py`: it turns the Driver protocol into commands, and the warden's packets into
answers. Knows nothing of namespaces or cgroups.

A warden is either this driver's own, and they end together; or it is found at a path, outlives its drivers, and
keeps their sandboxes and how those ended. A driver that was told to go, because another has taken its place, can
say nothing more of its sandboxes, which live on: whatever is asked of it raises DriverUnavailable.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from cellgate.errors import (
    CellgateError,
    DriverUnavailable,
    LimitError,
    SandboxGone,
    SandboxStartFailed,
    UnknownTemplate,
)
from cellgate.sandbox.base import Sandbox, SandboxSpec, Usage
from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native.commands import MAX_PACKET_BYTES, VERSION, pack, unpack
from cellgate.sandbox.native.door import peer_uid
from cellgate.sandbox.native.images import read_about

__all__ = ["NativeDriver", "NativeSandbox", "as_error", "start_warden"]

Said = dict[str, Any]  # a packet of the warden, which is believed

# What the warden is started with. A sandbox's processes can read it in /proc, so it is no more than this.
_ENVIRONMENT: Final = ("PATH", "LANG")
MAX_UNSENT: Final = 10_000  # commands that wait for a warden which does not read: as many as it lets wait for us
_HELLO_SECONDS: Final = 10.0  # from the warden's start to its first word; some 200 ms on an idle host
_LOG_BYTES: Final = 1 << 20  # of what earlier wardens said, kept when another starts; each says next to nothing
_ERRORS: Final[Mapping[str, type[CellgateError]]] = {
    error.code: error for error in (DriverUnavailable, LimitError, SandboxGone, SandboxStartFailed, UnknownTemplate)
}


class _Asked(NamedTuple):
    """A command that is not answered yet."""

    command: Mapping[str, object]
    answer: asyncio.Future[Any]
    spec: SandboxSpec | None  # of a `create`


class NativeDriver:
    """Whoever started or connected it owes it a `close`."""

    name = "native"

    def __init__(self, control: socket.socket, warden: subprocess.Popen[bytes] | None = None) -> None:
        """`warden` is the process that ends with this driver, if one does."""
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._warden = warden
        self._references = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._unsent: deque[bytes] = deque()  # while the socket is full
        self._sandboxes: dict[str, NativeSandbox] = {}
        self.hello: asyncio.Future[Said] = self._loop.create_future()
        # Resolves once, with the reason why nothing can be asked any more: the warden is gone, or has another driver.
        self.lost: asyncio.Future[DriverUnavailable] = self._loop.create_future()
        self._loop.add_reader(control, self._read)

    @staticmethod
    async def start(path: str | None = None, *, uid: int | None = None, images: Path | None = None) -> NativeDriver:
        """Start a warden. Raises DriverUnavailable, which says what this host lacks.

        With a `path` it listens there, for this user, root and `uid`, and lives on when this driver ends, however
        it ends, and whatever is done to its process group. It writes to `path` + ".log" what it cannot tell a driver.
        `images`: where the unpacked ones lie.
        """
        if path is None:
            return await NativeDriver._greeted(*_spawn(_flag("--images", images)))
        loop = asyncio.get_running_loop()
        return await NativeDriver._greeted(await loop.run_in_executor(None, start_warden, path, uid, images))

    @staticmethod
    async def connect(path: str) -> NativeDriver:
        """Drive the warden that listens at `path`, in the place of whoever drove it before. `sandboxes` and `ended`
        tell what it has. Raises DriverUnavailable: there is none, it is not for this user, it speaks another
        version, or it is ending."""
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        try:
            control.connect(path)  # never waits: BlockingIOError says that too many wait there already
        except OSError as error:
            control.close()
            raise DriverUnavailable("native", f"no warden answers at {path}: {error}", "start one there") from error
        if (uid := peer_uid(control)) not in (0, os.geteuid()):  # its packets are believed
            control.close()
            raise DriverUnavailable("native", f"{path} belongs to uid {uid}", "one of root or of this user would pass")
        driver = await NativeDriver._greeted(control)
        try:
            await driver.ask(do="drive", version=VERSION)
            await driver.ask(do="list")
        except BaseException:
            await driver.close()
            raise
        return driver

    @staticmethod
    async def _greeted(control: socket.socket, warden: subprocess.Popen[bytes] | None = None) -> NativeDriver:
        """When the warden has said hello, in a version that this driver speaks. Raises DriverUnavailable."""
        control.setblocking(False)
        driver = NativeDriver(control, warden)
        try:
            hello = await asyncio.wait_for(asyncio.shield(driver.hello), _HELLO_SECONDS)
            if hello["hello"] != VERSION:
                missing = f"the warden speaks version {hello['hello']} and this driver {VERSION}"
                raise DriverUnavailable("native", missing, "install both from the same release")
        except asyncio.TimeoutError:
            await driver.close()
            raise DriverUnavailable("native", "the warden said nothing", "its standard error may say why") from None
        except BaseException:
            await driver.close()
            raise
        return driver

    # -- the Driver protocol -------------------------------------------------------------------------

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(self.hello.result()["templates"])

    def packages(self, template: str) -> Mapping[str, str] | None:
        directory = self.hello.result().get("images", {}).get(template)  # a warden that was here before says nothing
        return None if directory is None else read_about(Path(directory)).packages

    async def create(self, spec: SandboxSpec) -> Sandbox:
        limits = spec.limits.to_mapping()
        created: NativeSandbox = await self.ask(
            spec, do="create", template=spec.template, limits=limits, use_pool=spec.use_pool
        )
        return created

    async def keep_pool(self, spec: SandboxSpec, size: int) -> None:
        """Have `size` sandboxes of this kind ready from now on, refilled in the background; 0 ends it.
        Raises UnknownTemplate, LimitError or DriverUnavailable."""
        await self.ask(do="keep_pool", template=spec.template, limits=spec.limits.to_mapping(), size=size)

    async def sandboxes(self) -> list[Sandbox]:
        return [sandbox for sandbox in self._sandboxes.values() if not sandbox.death.done()]

    async def ended(self) -> list[Sandbox]:
        """Those that ended and were not destroyed yet, also under a driver before this one, or none: `wait` tells
        at once how, and `destroy` has the warden forget it. It keeps some 10,000."""
        return [sandbox for sandbox in self._sandboxes.values() if sandbox.death.done()]

    async def close(self) -> None:
        """Let go. A warden of this driver's own ends, with every sandbox, and this returns when all is cleared away;
        one at a path keeps them. May be called again."""
        self._lose("the driver was closed", lives_on=self._warden is None)
        if self._warden is not None:
            await asyncio.shield(self._loop.run_in_executor(None, self._warden.wait))

    async def shut_down(self) -> None:
        """End the warden and every sandbox; returns when all is cleared away. Raises DriverUnavailable."""
        await self.ask(do="shutdown")
        await asyncio.shield(self.lost)
        await self.close()

    # -- packets -------------------------------------------------------------------------------------

    async def ask(self, spec: SandboxSpec | None = None, /, **command: object) -> Any:
        """Send a command and return its answer. Raises what the warden answered, or DriverUnavailable. `spec` is
        what a sandbox will be."""
        reference = next(self._references)
        self.tell(ref=reference, **command)  # raises: then nobody waits for an answer
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked[reference] = _Asked(command, answer, spec)
        return await answer

    def tell(self, **command: object) -> None:
        """Send a command that is not answered. Raises DriverUnavailable."""
        if self.lost.done():
            raise self.lost.result()
        command.setdefault("ref", 0)
        self._unsent.append(pack(command))
        if len(self._unsent) == 1:  # else the socket is full, and the loop goes on with it
            self._send_unsent()
        elif len(self._unsent) > MAX_UNSENT:  # a storm of thousands is obeyed in a second: it hangs
            self._lose("the warden takes no command any more", lives_on=self._warden is None)
        if self.lost.done():
            raise self.lost.result()

    def _send_unsent(self) -> None:
        """What the socket takes now; it holds some 280 commands. The loop goes on with the rest when it takes more."""
        try:
            while self._unsent and not self.lost.done():
                self._control.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._control, self._send_unsent)
            return
        except OSError:
            self._read()  # its last word says whether it lives on
            self._lose("the warden ended")
            return
        if not self.lost.done():
            self._loop.remove_writer(self._control)

    def _read(self) -> None:
        while not self.lost.done():
            try:
                packet, fds, _, _ = socket.recv_fds(self._control, MAX_PACKET_BYTES, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it hung up with something of ours unread; what it said before is still there
                continue
            except OSError:
                packet, fds = b"", []
            if not packet:
                self._lose("the warden ended")
                return
            link = socket.socket(fileno=fds[0]) if fds else None
            if link is not None:
                link.set_inheritable(False)  # as received it would be, by any program that we start
            self._hear(unpack(packet), link)

    def _hear(self, said: Said, link: socket.socket | None) -> None:
        if "created" in said:
            _, answer, spec = self._asked.pop(said["created"])
            assert spec is not None
            sandbox = NativeSandbox(self, said["id"], spec.template, spec.limits, link)
            self._sandboxes[sandbox.id] = sandbox  # at once: the next packet may say that it died
            if answer.done():  # nobody waits for it any more
                sandbox.begin_to_destroy()
            else:
                answer.set_result(sandbox)
        elif "attached" in said:
            _, answer, _ = self._asked.pop(said["attached"])
            if answer.done() and link is not None:
                link.close()
            elif not answer.done():
                answer.set_result(link)
        elif "died" in said:
            if dead := self._sandboxes.get(said["died"]):
                dead.on_death(DeathCertificate.from_json(said["certificate"]))
        elif "usage" in said:
            self._answer(said.pop("usage"), Usage(**said))
        elif "gone" in said:
            command = self._answer(said["gone"], None)
            self._sandboxes.pop(str(command["id"]), None)
        elif "failed" in said:
            self._answer(said["failed"], as_error(said))
        elif "pooled" in said:
            self._answer(said["pooled"], None)
        elif "interrupted" in said:
            self._answer(said["interrupted"], None)
        elif "sandboxes" in said:
            for known in said["known"]:
                self._meet(known)
        elif "listed" in said:
            self._answer(said["listed"], None)
        elif "driving" in said:
            self._answer(said["driving"], None)
        elif "ending" in said:
            self._answer(said["ending"], None)
        elif "dismissed" in said:
            self._lose(f"the warden has let this driver go: {said['dismissed']}", lives_on=True)
        elif "hello" in said:
            self.hello.set_result(said)
        elif "unavailable" in said and not self.hello.done():
            self.hello.set_exception(as_error(said))

    def _meet(self, known: Said) -> None:
        """A sandbox that another driver made."""
        if known["id"] not in self._sandboxes:
            limits = Limits.from_mapping(known["limits"])
            sandbox = self._sandboxes[known["id"]] = NativeSandbox(self, known["id"], known["template"], limits, None)
            if known["certificate"] is not None:
                sandbox.on_death(DeathCertificate.from_json(known["certificate"]))

    def _answer(self, reference: int, result: object) -> Mapping[str, object]:
        command, answer, _ = self._asked.pop(reference)
        if not answer.done():
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
        return command

    def _lose(self, why: str, *, lives_on: bool = False) -> None:
        """Nothing can be asked any more. The warden is gone, and with it every sandbox; or it `lives_on`, and so do
        they, of which this driver knows no more."""
        if self.lost.done():
            return
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        self._unsent.clear()
        error = DriverUnavailable("native", why, "connect again" if lives_on else "restart cellgate")
        self.lost.set_result(error)
        if not self.hello.done():
            self.hello.set_exception(error)
            self.hello.exception()  # it may be that nobody asks any more
        for sandbox in self._sandboxes.values():
            if lives_on:
                sandbox.on_loss(error)
            else:
                sandbox.on_death(DeathCertificate(Reason.SUPERVISOR_LOST, detail=why))
        for command, answer, _ in self._asked.values():
            if answer.done():
                continue
            if lives_on or "id" not in command:
                answer.set_exception(error)
            elif command["do"] == "destroyed":
                answer.set_result(None)
            else:
                answer.set_exception(SandboxGone(str(command["id"])))
        self._asked.clear()


def start_warden(path: str, uid: int | None = None, images: Path | None = None) -> socket.socket:
    """Start a warden as `NativeDriver.start` does, for whoever has no loop. The socket is its first driver's: a
    packet comes there with `hello`, or with what `as_error` makes the reason why there will be no warden.
    Raises DriverUnavailable."""
    words = ["--persist", os.path.abspath(path), "--detach", *_flag("--for", uid), *_flag("--images", images)]
    with _open_log(f"{path}.log") as log:
        control, starter = _spawn(words, log)
    starter.wait()  # it ends as soon as it has forked
    return control


def _flag(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _spawn(words: Sequence[str], log: IO[bytes] | None = None) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a warden whose first driver is at the other end of the socket. Raises DriverUnavailable."""
    if sys.platform != "linux":
        raise DriverUnavailable("native", f"this is {sys.platform}, not Linux", "use the docker driver")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        warden = subprocess.Popen(
            [sys.executable, "-I", "-m", "cellgate.sandbox.native", str(theirs.fileno()), *words],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            cwd="/",
            start_new_session=True,  # a terminal's Ctrl-C is not meant for it
        )
    return ours, warden


def _open_log(path: str) -> IO[bytes]:
    """Not our own standard error, which would stay open for as long as the warden lives."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DriverUnavailable("native", f"its log: {error}", "a directory of its own would pass") from error
    if os.fstat(fd).st_size > _LOG_BYTES:
        os.ftruncate(fd, 0)
    return os.fdopen(fd, "wb", buffering=0)


def as_error(said: Said) -> CellgateError:
    """What a packet says that failed."""
    kind = _ERRORS.get(said["code"])
    if kind is None:
        return SandboxStartFailed("native", "asking the warden", f"{said['code']}: {said['facts']}")
    facts = said["facts"]
    if kind is SandboxGone:
        return SandboxGone(facts["sandbox_id"])
    if kind is UnknownTemplate:
        return UnknownTemplate(facts["template"], tuple(facts["known"]))
    return kind(**facts)


class NativeSandbox:
    """See `cellgate.sandbox.base.Sandbox`."""

    driver = "native"

    def __init__(
        self, owner: NativeDriver, sandbox_id: str, template: str, limits: Limits, link: socket.socket | None
    ) -> None:
        self.id = sandbox_id
        self.template = template
        self.limits = limits
        self.death: asyncio.Future[DeathCertificate] = asyncio.get_running_loop().create_future()
        self._owner = owner
        self._link = link  # the first one, made with the sandbox
        self._usage = Usage(None, None, 0.0, 0, 0, 0, False)

    async def attach(self) -> socket.socket:
        if self.death.done():
            raise SandboxGone(self.id, self.death.result())
        if self._link is not None:
            link, self._link = self._link, None
            return link
        try:
            fresh: socket.socket | None = await self._owner.ask(do="attach", id=self.id)
        except (SandboxGone, DriverUnavailable):
            raise SandboxGone(self.id, self.death.result() if self.death.done() else None) from None
        if fresh is None:  # the packet came, and what it carried could not be taken
            raise DriverUnavailable("native", "this process may open no more files", "a higher `ulimit -n` would pass")
        fresh.setblocking(False)
        return fresh

    async def interrupt(self) -> None:
        if not self._is_over():
            with suppress(SandboxGone, DriverUnavailable):
                await self._owner.ask(do="interrupt", id=self.id)
            self._is_over()  # raises, if that is why it was not done

    async def kill(self, reason: Reason, detail: str = "") -> None:
        if not self._is_over():
            self._owner.tell(do="kill", id=self.id, reason=reason.value, detail=detail)

    def _is_over(self) -> bool:
        """Raises DriverUnavailable when this driver knows no more of it."""
        return self.death.done() and self.death.result() is not None

    async def wait(self) -> DeathCertificate:
        return await asyncio.shield(self.death)

    async def usage(self) -> Usage:
        with suppress(SandboxGone, DriverUnavailable):
            self._usage = await self._owner.ask(do="usage", id=self.id)
        return self._usage

    async def destroy(self) -> DeathCertificate:
        return await asyncio.shield(self.begin_to_destroy())

    def begin_to_destroy(self) -> asyncio.Future[DeathCertificate]:
        """`destroy`, also where nobody waits for it."""
        destroying = asyncio.ensure_future(self._destroy())
        destroying.add_done_callback(lambda done: done.cancelled() or done.exception())  # who asked may be gone
        return destroying

    async def _destroy(self) -> DeathCertificate:
        with suppress(DriverUnavailable):
            await self.kill(Reason.SESSION_DELETED)
            await self._owner.ask(do="destroyed", id=self.id)
        self._drop_link()
        return await self.wait()

    def on_death(self, certificate: DeathCertificate) -> None:
        if not self.death.done():
            self.death.set_result(certificate)

    def on_loss(self, error: DriverUnavailable) -> None:
        if not self.death.done():
            self.death.set_exception(error)
            self.death.exception()  # it may be that nobody asks any more
        self._drop_link()

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
