"""The `native` driver: sandboxes made by a warden on this host, asked for over a packet socket.

The unprivileged side of `warden.py`: it turns the Driver protocol into commands, and the warden's packets into
answers. Knows nothing of namespaces or cgroups.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

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

__all__ = ["NativeDriver", "NativeSandbox"]

Said = dict[str, Any]  # a packet of the warden, which is believed

# What the warden is started with. A sandbox's processes can read it in /proc, so it is no more than this.
_ENVIRONMENT: Final = ("PATH", "LANG")
_HELLO_SECONDS: Final = 10.0  # from the warden's start to its first word; some 50 ms on an idle host
_ERRORS: Final[Mapping[str, type[CellgateError]]] = {
    error.code: error for error in (DriverUnavailable, LimitError, SandboxGone, SandboxStartFailed, UnknownTemplate)
}


class NativeDriver:
    """Owns a warden: they end together, and every sandbox with them."""

    name = "native"

    def __init__(self, control: socket.socket, warden: subprocess.Popen[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._warden = warden
        self._references = itertools.count(1)
        self._asked: dict[int, tuple[Mapping[str, object], asyncio.Future[Any]]] = {}
        self._sandboxes: dict[str, NativeSandbox] = {}
        self._lost = False
        self.hello: asyncio.Future[Said] = self._loop.create_future()
        self._loop.add_reader(control, self._read)

    @staticmethod
    async def start() -> NativeDriver:
        """Start a warden. Raises DriverUnavailable, which says what this host lacks."""
        if sys.platform != "linux":
            raise DriverUnavailable("native", f"this is {sys.platform}, not Linux", "use the docker driver")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            warden = subprocess.Popen(
                [sys.executable, "-I", "-m", "cellgate.sandbox.native.warden", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C is not meant for it
            )
        driver = NativeDriver(ours, warden)
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

    async def create(self, spec: SandboxSpec) -> Sandbox:
        limits = spec.limits.to_mapping()
        created: NativeSandbox = await self.ask(
            do="create", template=spec.template, limits=limits, use_pool=spec.use_pool
        )
        return created

    async def keep_pool(self, spec: SandboxSpec, size: int) -> None:
        """Have `size` sandboxes of this kind ready from now on, refilled in the background; 0 ends it.
        Raises UnknownTemplate, LimitError or DriverUnavailable."""
        await self.ask(do="keep_pool", template=spec.template, limits=spec.limits.to_mapping(), size=size)

    async def sandboxes(self) -> list[Sandbox]:
        return [sandbox for sandbox in self._sandboxes.values() if not sandbox.death.done()]

    async def close(self) -> None:
        """End the warden, and so every sandbox; returns when all is cleared away. May be called again."""
        self._lose("the driver was closed")
        await asyncio.shield(self._loop.run_in_executor(None, self._warden.wait))

    # -- packets -------------------------------------------------------------------------------------

    async def ask(self, **command: object) -> Any:
        """Send a command and return its answer. Raises what the warden answered, or DriverUnavailable."""
        reference = next(self._references)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked[reference] = command, answer
        self.tell(ref=reference, **command)
        return await answer

    def tell(self, **command: object) -> None:
        """Send a command that is not answered. Raises DriverUnavailable."""
        command.setdefault("ref", 0)
        if self._lost:
            raise DriverUnavailable("native", "its warden is gone", "restart cellgate")
        try:
            self._control.send(pack(command))
        except OSError as error:  # full: it obeys within microseconds, so it hangs, or is gone
            self._lose(f"the warden takes no command any more: {error}")
            raise DriverUnavailable("native", "its warden is gone", "restart cellgate") from error

    def _read(self) -> None:
        while not self._lost:
            try:
                packet, fds, _, _ = socket.recv_fds(self._control, MAX_PACKET_BYTES, 1)
            except BlockingIOError:
                return
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
            command, answer = self._asked.pop(said["created"])
            limits = Limits.from_mapping(command["limits"])  # type: ignore[arg-type]  # as `create` made it
            sandbox = NativeSandbox(self, said["id"], str(command["template"]), limits, link)
            self._sandboxes[sandbox.id] = sandbox  # at once: the next packet may say that it died
            if answer.done():  # nobody waits for it any more
                sandbox.abandon()
            else:
                answer.set_result(sandbox)
        elif "attached" in said:
            _, answer = self._asked.pop(said["attached"])
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
            self._answer(said["failed"], _error(said))
        elif "pooled" in said:
            self._answer(said["pooled"], None)
        elif "interrupted" in said:
            self._answer(said["interrupted"], None)
        elif "hello" in said:
            self.hello.set_result(said)
        elif "unavailable" in said and not self.hello.done():
            self.hello.set_exception(_error(said))

    def _answer(self, reference: int, result: object) -> Mapping[str, object]:
        command, answer = self._asked.pop(reference)
        if not answer.done():
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
        return command

    def _lose(self, why: str) -> None:
        """The warden is gone, and with it every sandbox."""
        if self._lost:
            return
        self._lost = True
        self._loop.remove_reader(self._control)
        self._control.close()
        error = DriverUnavailable("native", why, "restart cellgate")
        if not self.hello.done():
            self.hello.set_exception(error)
            self.hello.exception()  # it may be that nobody asks any more
        for sandbox in self._sandboxes.values():
            sandbox.on_death(DeathCertificate(Reason.SUPERVISOR_LOST, detail=why))
        for command, answer in self._asked.values():
            if answer.done():
                continue
            if command["do"] == "destroyed":
                answer.set_result(None)
            elif command["do"] in ("create", "keep_pool"):
                answer.set_exception(error)
            else:
                answer.set_exception(SandboxGone(str(command["id"])))
        self._asked.clear()


def _error(said: Said) -> CellgateError:
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
            fresh: socket.socket = await self._owner.ask(do="attach", id=self.id)
        except (SandboxGone, DriverUnavailable):
            raise SandboxGone(self.id, self.death.result() if self.death.done() else None) from None
        fresh.setblocking(False)
        return fresh

    async def interrupt(self) -> None:
        if not self.death.done():
            with suppress(SandboxGone, DriverUnavailable):
                await self._owner.ask(do="interrupt", id=self.id)

    async def kill(self, reason: Reason, detail: str = "") -> None:
        if not self.death.done():
            self._owner.tell(do="kill", id=self.id, reason=reason.value, detail=detail)

    async def wait(self) -> DeathCertificate:
        return await asyncio.shield(self.death)

    async def usage(self) -> Usage:
        with suppress(SandboxGone, DriverUnavailable):
            self._usage = await self._owner.ask(do="usage", id=self.id)
        return self._usage

    async def destroy(self) -> DeathCertificate:
        return await asyncio.shield(asyncio.ensure_future(self._destroy()))

    async def _destroy(self) -> DeathCertificate:
        with suppress(DriverUnavailable):
            await self.kill(Reason.SESSION_DELETED)
            await self._owner.ask(do="destroyed", id=self.id)
        self._drop_link()
        return await self.wait()

    def abandon(self) -> None:
        """Its creator was cancelled: end it, and let nobody wait."""
        self._drop_link()
        with suppress(DriverUnavailable):
            self._owner.tell(do="kill", id=self.id, reason=Reason.SESSION_DELETED.value, detail="not wanted any more")

    def on_death(self, certificate: DeathCertificate) -> None:
        if not self.death.done():
            self.death.set_result(certificate)

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
