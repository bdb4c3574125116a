"""One container as a sandbox: joined by a socket, watched, and cleared away.

A sandbox has a directory, of which the guest may write to a part, where the socket lies on which its kernel host
listens. That is closed to the guest before the guest's first code runs: whoever connects there connects to the kernel
host. What a sandbox was given out for and killed for is written down beside it, for the driver that comes after.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from cellgate.errors import DriverUnavailable, SandboxGone, SandboxStartFailed
from cellgate.sandbox.base import Usage
from cellgate.sandbox.certificate import DeathCertificate, Reason, ResourceEvents, decide
from cellgate.sandbox.docker.container import ETC_FILES, LINK, Labels, wait_status
from cellgate.sandbox.docker.engine import Engine, EngineFailed
from cellgate.sandbox.docker.measure import Meter

__all__ = ["DockerSandbox", "Owner", "make_place", "read_record"]

START_SECONDS: Final = 60.0  # until its socket is there; a second on an idle host
LOOK_SECONDS: Final = 0.005  # between looks for that socket, each of some microseconds
ENGINE_KILLS: Final = (137, 143, 255)  # by SIGKILL, by SIGTERM, and when it does not know
ENDING_SIGNALS: Final = (
    signal.SIGKILL,
    signal.SIGTERM,
)  # with which an engine ends a container, asked or when it stops
DEAF_SECONDS: Final = 0.5  # in which the end is told of a kernel that takes no links because it has ended
OUTLIVED_SECONDS: Final = 0.5  # after a kill for memory: a kernel that lives then was not its victim
DESTROY_SECONDS: Final = 20.0  # for the engine to tell of an end that it was asked for
SOCKET_MODE: Final = 0o711  # of the socket's directory once it is there: to be connected to, and no more


class Owner(Protocol):
    """What a sandbox asks of its driver."""

    @property
    def engine(self) -> Engine: ...

    @property
    def shares_kernel(self) -> bool:
        """Whether what runs in a sandbox are processes of the host's kernel."""
        ...

    def on_end(self, sandbox: DockerSandbox) -> None:
        """It has ended, and was not destroyed yet."""

    def forget(self, sandbox: DockerSandbox) -> None:
        """Nothing of it is left."""


class DockerSandbox:
    """See `cellgate.sandbox.base.Sandbox`."""

    driver = "docker"

    def __init__(
        self, owner: Owner, container: str, labels: Labels, place: Path, record: dict[str, Any] | None = None
    ) -> None:
        """`record` is what an earlier driver wrote down of it."""
        record = record or {}
        self.id = labels.id
        self.template = labels.template
        self.limits = labels.limits
        self.uid = labels.uid  # on the engine's host
        self.container = container
        self.is_given_out = bool(record)
        self._owner = owner
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._death: asyncio.Future[DeathCertificate] = self._loop.create_future()
        self._born = time.time() if not record else float(record.get("born", time.time()))
        self._killed_for = _reason(record.get("killed_for"))
        self._detail = str(record.get("detail", ""))
        self._engine_was_away = False  # and has not been asked since
        self._was_told_to_end = False  # by the engine
        self._memory_kills = 0  # as events told them
        self._outlived = 0
        self._meter = Meter(container, 0, owner.shares_kernel)
        self._link: socket.socket | None = None  # the first one, made when it came up
        self._destroying: asyncio.Task[DeathCertificate] | None = None

    @property
    def has_ended(self) -> bool:
        return self._death.done()

    @property
    def is_ready(self) -> bool:
        """Whether its kernel host has spoken, and can be handed out."""
        if self.has_ended or self._link is None:
            return False
        try:
            return bool(self._link.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    async def wait_until_up(self) -> None:
        """Until its kernel host takes links; the directory is closed to it then. Raises SandboxStartFailed."""
        until = self._loop.time() + START_SECONDS
        while self._link is None:
            self._link = connect(self._place / LINK)
            if self._link is not None:
                break
            await asyncio.wait({self._death}, timeout=LOOK_SECONDS)
            if self.has_ended or self._loop.time() > until:
                detail = self._death.result().sentence() if self.has_ended else f"nothing came in {START_SECONDS:g} s"
                raise SandboxStartFailed(self.driver, "waiting for its kernel", detail)
        (self._place / LINK).chmod(SOCKET_MODE)
        await self.look()

    def give_out(self) -> None:
        """It is somebody's from now on, and not to be taken for one of a pool."""
        self.is_given_out = True
        self._write_record()

    # -- the Sandbox protocol --------------------------------------------------------------------------

    async def attach(self) -> socket.socket:
        link, self._link = self._link, None
        if self.has_ended:
            if link is not None:
                link.close()
            raise SandboxGone(self.id, self._death.result())
        link = link or connect(self._place / LINK)
        if link is not None:
            return link
        await asyncio.wait({self._death}, timeout=DEAF_SECONDS)
        if not self.has_ended:
            with suppress(DriverUnavailable):
                await self.kill(Reason.KERNEL_UNRESPONSIVE, "it takes no link any more")
        raise SandboxGone(self.id, self._death.result() if self.has_ended else None)

    async def interrupt(self) -> None:
        if not self._is_over():
            with suppress(EngineFailed):
                await self._owner.engine.do(self._owner.engine.signal, self.container, "SIGINT")

    async def kill(self, reason: Reason, detail: str = "") -> None:
        if self._is_over() or self._killed_for is not None:
            return
        self._killed_for, self._detail = reason, detail
        self._write_record()
        self._meter.look()
        try:
            await self._owner.engine.do(self._owner.engine.signal, self.container, "SIGKILL")
        except EngineFailed as error:
            raise DriverUnavailable("docker", str(error), "it is killed when the engine is back") from error

    async def wait(self) -> DeathCertificate:
        return await asyncio.shield(self._death)

    async def usage(self) -> Usage:
        reading = self._meter.read()
        if reading is None and not self.has_ended:
            with suppress(EngineFailed):
                reading = await self._owner.engine.do(self._owner.engine.reading, self.container)
        return self._meter.usage(reading)

    async def destroy(self) -> DeathCertificate:
        if self._destroying is None:
            self._destroying = self._loop.create_task(self._destroy())
        return await asyncio.shield(self._destroying)

    # -- what becomes of it ----------------------------------------------------------------------------

    def on_absence(self) -> None:
        """The engine was away, and is to be asked what became of it."""
        self._engine_was_away = True

    def on_signal(self, number: int) -> None:
        """The engine sends it this signal: because we asked, or somebody else did, or it stops."""
        self._was_told_to_end |= number in ENDING_SIGNALS

    def on_memory(self) -> None:
        """Something in it was killed for memory."""
        self._memory_kills += 1
        self._meter.look()
        if self._owner.shares_kernel:  # else a part of its own kernel was killed, and it ends of that, soon or late
            self._loop.call_later(OUTLIVED_SECONDS, self._outlive, self._memory_kills)

    def _outlive(self, kills: int) -> None:
        if not self.has_ended:
            self._outlived = max(self._outlived, kills)

    async def on_exit(self, exit_code: int) -> None:
        """Its process 1 has ended with this code."""
        self._meter.look()
        if exit_code == 137 and self._killed_for is None and self._memory_kills <= self._outlived:
            with suppress(EngineFailed):  # the word of a kill for memory may come after that of the end
                state = await self._owner.engine.do(self._owner.engine.state, self.container)
                self._memory_kills += int(state is not None and state.was_out_of_memory and not self._outlived)
        # An engine that stops or begins kills its containers, in the way that a session could kill itself.
        is_engines = (self._was_told_to_end or self._engine_was_away) and exit_code in ENGINE_KILLS
        if is_engines and self._killed_for is None and not self._memory_kills:
            self._killed_for, self._detail = Reason.BACKEND_ERROR, "the Docker engine stopped, or was told to end it"
        if not self._owner.shares_kernel and self._memory_kills > self._outlived:
            exit_code = 137  # a kernel of the sandbox's own that loses a part of itself ends in any way
        status, events = wait_status(exit_code), self._events()
        certificate = decide(status, self._killed_for, events, oom_kills_outlived=self._outlived, detail=self._detail)
        self._end(certificate)

    async def look(self) -> None:
        """Ask the engine how it stands, and settle what is over."""
        state = await self._owner.engine.do(self._owner.engine.state, self.container)
        if state is None:
            reason = self._killed_for or Reason.BACKEND_ERROR
            self._end(decide(None, reason, self._events(), detail=self._detail or "its container is gone"))
        elif state.is_running:
            self._engine_was_away = False
            self._meter.pid = state.pid
            self._meter.look()
        elif not self.has_ended:
            self._memory_kills = max(self._memory_kills, int(state.was_out_of_memory))
            await self.on_exit(state.exit_code)

    def on_loss(self, error: DriverUnavailable) -> None:
        """Its driver is closed, and it lives on."""
        if not self._death.done():
            self._death.set_exception(error)
            self._death.exception()  # it may be that nobody asks any more
        self._drop_link()

    def _events(self) -> ResourceEvents:
        seen = self._meter.last
        kills = max(self._memory_kills, seen.oom_kills if seen else 0)
        peak = seen.memory_peak_bytes if seen else None
        return ResourceEvents(
            memory_limit_bytes=self.limits.memory_bytes,
            memory_peak_bytes=self.limits.memory_bytes if kills else peak,  # what was killed for it had reached it
            oom_kills=kills,
            pids_limit_hits=seen.pids_limit_hits if seen else 0,
            cpu_seconds=seen.cpu_seconds if seen else 0.0,
            wall_seconds=max(0.0, time.time() - self._born),
        )

    def _end(self, certificate: DeathCertificate) -> None:
        if not self._death.done():
            self._death.set_result(certificate)
            self._owner.on_end(self)

    def _is_over(self) -> bool:
        """Raises DriverUnavailable when this driver knows no more of it."""
        return self._death.done() and self._death.result() is not None

    async def _destroy(self) -> DeathCertificate:
        """What the engine does not do now is done when it is tidied: the directory, which says so, goes first."""
        try:
            with suppress(DriverUnavailable):
                await self.kill(Reason.SESSION_DELETED)
            shutil.rmtree(self._place, ignore_errors=True)
            await self.look()  # one that never began has no end to tell of
            await asyncio.wait({self._death}, timeout=DESTROY_SECONDS)
            await self._owner.engine.do(self._owner.engine.remove, self.container)
        except EngineFailed:
            pass
        self._end(decide(None, self._killed_for, self._events(), detail=self._detail))
        self._drop_link()
        self._owner.forget(self)
        return await self.wait()

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _write_record(self) -> None:
        """For the driver that comes after this one."""
        record = {"born": self._born, "killed_for": self._killed_for and self._killed_for.value, "detail": self._detail}
        with suppress(OSError):  # it is being destroyed, or the disk is full: then an heir takes it for nobody's
            fresh = self._place / "record.new"
            fresh.write_text(json.dumps(record))
            fresh.rename(self._place / "record")


def make_place(place: Path, uid: int) -> None:
    place.mkdir(mode=0o700)
    (place / LINK).mkdir()
    (place / LINK).chmod(0o777)  # until the socket is there; nobody but the engine can pass the directory above
    for name, text in ETC_FILES.items():
        (place / name).write_text(text.format(uid=uid))
        (place / name).chmod(0o644)


def connect(directory: Path) -> socket.socket | None:
    """To the socket in it; None when nobody listens there. Its path may be longer than an address can be."""
    try:
        at = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    stream = socket.socket(socket.AF_UNIX)
    try:
        stream.setblocking(False)
        stream.connect(f"/proc/self/fd/{at}/{LINK}")
    except OSError as error:
        stream.close()
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    finally:
        os.close(at)
    return stream


def read_record(place: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((place / "record").read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _reason(value: object) -> Reason | None:
    try:
        return Reason(value) if value else None
    except ValueError:
        return None
