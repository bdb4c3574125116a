"""The driver `docker`: every sandbox is a container of a Docker engine, in any runtime that the engine knows.

What a container is made of is `container.py`; which images there are, `images.py`; the engine is asked in `engine.py`.
Here they become sandboxes: made, handed out of a pool, joined by a socket, watched, and cleared away.

A sandbox has a directory, whose only guest-visible part holds the socket on which its kernel host listens. It is closed
to the guest before the guest's first code runs, so that whoever connects there connects to the kernel host.

A driver's directory is what its containers name as their owner. One that keeps its sandboxes finds them again by it,
with what each was given out for and killed for, which is written down there; what any other leaves behind is removed by
whichever driver comes next.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cellgate.errors import CellgateError, DriverUnavailable, SandboxGone, SandboxStartFailed, UnknownTemplate
from cellgate.sandbox.base import Sandbox, SandboxSpec, Usage
from cellgate.sandbox.certificate import DeathCertificate, Reason, ResourceEvents, decide
from cellgate.sandbox.docker.container import (
    ETC_FILES,
    LINK,
    OWNER,
    Container,
    Labels,
    is_orphan,
    wait_status,
)
from cellgate.sandbox.docker.engine import Engine, EngineFailed, Event, Facts, Found
from cellgate.sandbox.docker.images import Template, usable_images
from cellgate.sandbox.docker.measure import Meter
from cellgate.sandbox.limits import Limits, check_fits_host
from cellgate.sandbox.native.rootfs import covers_of_proc

__all__ = ["DockerDriver", "DockerSandbox"]

PREFIX: Final = "cellgate-docker-"  # of the directory of a driver that keeps nothing
START_SECONDS: Final = 60.0  # until its socket is there; a second on an idle host
WATCH_SECONDS: Final = 30.0  # until the engine has begun to tell of events
LOOK_SECONDS: Final = 0.005  # between looks for that socket, each of some microseconds
ENGINE_KILLS: Final = (137, 143, 255)  # by SIGKILL, by SIGTERM, and when it does not know
DEAF_SECONDS: Final = 0.5  # in which the end is told of a kernel that takes no links because it has ended
OUTLIVED_SECONDS: Final = 0.5  # after a kill for memory: a kernel that lives then was not its victim
DESTROY_SECONDS: Final = 20.0  # for the engine to tell of an end that it was asked for
TIDY_SECONDS: Final = 60.0  # between looks for containers that nobody wants
PATIENCE_SECONDS: Final = 5.0  # between a failure to refill the pool and the next attempt: no storm of retries
REFILLS: Final = 2  # containers made at once for the pool; more would keep a create waiting
# Of sandboxes, each its own: above those of the native driver, and below 2**31, where the engine's numbers end.
UIDS: Final = range(2_100_000_000, 2_140_000_000)
MAPPED_UIDS: Final = range(10_000, 60_000)  # of an engine that maps 65,536 of them
SOCKET_MODE: Final = 0o711  # of the socket's directory once it is there: to be connected to, and no more
SHARED_KERNEL: Final = ("runc", "io.containerd.runc.v2", "crun", "youki")  # runtimes whose processes are the host's own


class DockerDriver:
    """Whoever started it owes it a `close`."""

    name = "docker"

    def __init__(self, engine: Engine, facts: Facts, directory: Path, *, runtime: str, is_kept: bool) -> None:
        self.facts = facts
        self.runtime = runtime or facts.default_runtime
        self._engine = engine
        self._directory = directory
        self._is_kept = is_kept
        self._seen_from = _seen_from()
        self._loop = asyncio.get_running_loop()
        self._images: dict[str, Template] = {}
        self._known: dict[str, DockerSandbox] = {}  # by container; those that are being made, or ready, too
        self._pools: dict[tuple[str, Limits], _Pool] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._undo = ExitStack()
        self._watching = asyncio.Event()
        self._is_closed = False

    @staticmethod
    async def start(*, runtime: str = "", images: Sequence[str] = (), directory: Path | None = None) -> DockerDriver:
        """Ask the engine of this host, or the one that DOCKER_HOST names. Without a `runtime` its own choice counts;
        `images` are those that may be used, all of `cellgate images ls` when there are none. With a `directory`, which
        must be this driver's alone, its sandboxes outlive it, and the next one there finds them.
        Raises DriverUnavailable, which says what is missing."""
        loop = asyncio.get_running_loop()
        try:
            engine = await loop.run_in_executor(None, Engine.open)
        except EngineFailed as error:
            raise _unavailable(str(error), "start one, or name it in DOCKER_HOST") from error
        try:
            facts = await engine.do(engine.facts)
            if runtime and runtime not in facts.runtimes:
                raise _unavailable(
                    f"the engine knows no runtime {runtime[:80]!r}, only {', '.join(facts.runtimes)}",
                    "register it in /etc/docker/daemon.json",
                )
            found = await engine.do(usable_images, engine, images)
            own = Path(tempfile.mkdtemp(prefix=PREFIX)) if directory is None else directory
            driver = DockerDriver(engine, facts, own, runtime=runtime, is_kept=directory is not None)
        except EngineFailed as error:
            engine.close()
            raise _unavailable(str(error), "see that it runs and that this user may ask it") from error
        except BaseException:
            engine.close()
            raise
        driver._images = found
        try:
            await driver._begin()
        except (EngineFailed, asyncio.TimeoutError) as error:
            await driver.close()
            raise _unavailable(str(error) or "the engine tells of no events", "its log may say why") from error
        except BaseException:
            await driver.close()
            raise
        return driver

    async def _begin(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._undo.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _unavailable(f"{self._directory} is another driver's", "a directory of its own would pass") from error
        self._engine.watch(f"{OWNER}={self._directory}", self._hear)
        await asyncio.wait_for(self._watching.wait(), WATCH_SECONDS)
        await self._meet()
        await self._tidy()
        self._start(self._tidy_for_ever())

    # -- the Driver protocol ---------------------------------------------------------------------------

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(self._images)

    def packages(self, template: str) -> dict[str, str]:
        """What is installed in it, as `cellgate images` wrote it down: versions by name."""
        return dict(line.split("==", 1) for line in self._images[template].pins.splitlines())

    async def create(self, spec: SandboxSpec) -> Sandbox:
        self._check(spec)
        if spec.use_pool and (pool := self._pools.get((spec.template, spec.limits))):
            while pool.ready:
                sandbox = pool.ready.pop(0)
                self._start(self._refill(pool))
                if sandbox.is_ready:
                    sandbox.give_out()
                    return sandbox
        making = self._start(self._make(spec))
        try:
            sandbox = await asyncio.shield(making)
        except asyncio.CancelledError:
            self._start(self._unmake(making))
            raise
        sandbox.give_out()
        return sandbox

    async def keep_pool(self, spec: SandboxSpec, size: int) -> None:
        self._check(spec)
        pool = self._pools.setdefault((spec.template, spec.limits), _Pool(spec, 0, []))
        pool.size = size
        surplus, pool.ready[size:] = pool.ready[size:], []
        await asyncio.gather(*(sandbox.destroy() for sandbox in surplus))
        for _ in range(min(size, REFILLS)):
            self._start(self._refill(pool))

    async def sandboxes(self) -> list[Sandbox]:
        return [one for one in self._known.values() if one.is_given_out and not one.has_ended]

    async def ended(self) -> list[Sandbox]:
        return [one for one in self._known.values() if one.is_given_out and one.has_ended]

    async def close(self) -> None:
        """Let go. Sandboxes of a driver with a directory of its own live on; those that were ready do not, and those
        of any other end now. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        for pool in self._pools.values():
            pool.size = 0
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        ending = [one for one in self._known.values() if not (self._is_kept and one.is_given_out)]
        await asyncio.gather(*(one.destroy() for one in ending))
        self._engine.close()
        for one in self._known.values():
            one.on_loss(_unavailable("this driver was closed", "start another"))
        self._undo.close()
        if not self._is_kept:
            shutil.rmtree(self._directory, ignore_errors=True)

    # -- making ----------------------------------------------------------------------------------------

    def _check(self, spec: SandboxSpec) -> None:
        if spec.template not in self._images:
            raise UnknownTemplate(spec.template, self.templates)
        check_fits_host(spec.limits, host_memory_bytes=self.facts.memory_bytes, host_cpu_cores=self.facts.cpus)

    async def _make(self, spec: SandboxSpec) -> DockerSandbox:
        """One that is ready, and nobody's yet. Raises SandboxStartFailed, and then nothing is left."""
        uids = MAPPED_UIDS if self.facts.maps_uids else UIDS
        labels = Labels(
            id=uuid.uuid4().hex,
            owner=str(self._directory),
            template=spec.template,
            limits=spec.limits,
            uid=secrets.choice(uids),
            is_kept=self._is_kept,
            seen_from=self._seen_from,
        )
        place = self._directory / labels.id
        image = self._images[spec.template]
        hidden = [path for path, _ in covers_of_proc()]
        config = Container(
            labels, image.image, image.kernel, str(place), self.runtime, self.shares_kernel, hidden=hidden
        )
        sandbox: DockerSandbox | None = None
        step = "making its directory"
        try:
            _make_place(place, labels.uid)
            step = "creating its container"
            container = await self._engine.do(self._engine.create, config.to_engine(), config.name)
            sandbox = self._known[container] = DockerSandbox(self, container, labels, place)
            step = "starting its container"
            await self._engine.do(self._engine.start, container)
            step = "waiting for its kernel"
            await sandbox.wait_until_up()
            return sandbox
        except BaseException as error:
            if sandbox is not None:
                await sandbox.destroy()
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, (EngineFailed, OSError)):
                raise SandboxStartFailed(self.name, step, str(error)) from error
            raise

    async def _unmake(self, making: asyncio.Future[DockerSandbox]) -> None:
        """Nobody wants it any more."""
        with suppress(CellgateError):
            await (await making).destroy()

    async def _refill(self, pool: _Pool) -> None:
        """Make what is missing, one after the other."""
        while len(pool.ready) + pool.coming < pool.size:
            pool.coming += 1
            try:
                sandbox = await self._make(pool.spec)
            except SandboxStartFailed:
                await asyncio.sleep(PATIENCE_SECONDS)
                continue
            finally:
                pool.coming -= 1
            if len(pool.ready) < pool.size:
                pool.ready.append(sandbox)
            else:
                await sandbox.destroy()

    # -- what the engine tells -------------------------------------------------------------------------

    def _hear(self, event: Event | None) -> None:
        """On the thread of events."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._on_event, event)

    def _on_event(self, event: Event | None) -> None:
        if self._is_closed:
            return
        if event is None:
            if self._watching.is_set():
                self._start(self._catch_up())
            self._watching.set()
        elif (sandbox := self._known.get(event.container)) is not None:
            if event.action == "oom":
                sandbox.on_memory()
            else:
                self._start(sandbox.on_exit(event.exit_code))

    async def _catch_up(self) -> None:
        """The stream of events begins anew: learn what has happened meanwhile."""
        living = [sandbox for sandbox in self._known.values() if not sandbox.has_ended]
        await asyncio.gather(*(sandbox.look(engine_was_away=True) for sandbox in living))

    async def _meet(self) -> None:
        """Those of a driver before this one. One that nobody was given is nobody's."""
        for found in await self._engine.do(self._engine.containers, f"{OWNER}={self._directory}"):
            labels = Labels.from_engine(found.labels)
            place = self._directory / labels.id if labels and labels.id.isalnum() else None
            record = _read_record(place) if place else None
            if labels is None or place is None or record is None:
                await self._engine.do(self._engine.remove, found.container)
                if place:
                    shutil.rmtree(place, ignore_errors=True)
                continue
            sandbox = self._known[found.container] = DockerSandbox(self, found.container, labels, place, record)
            await sandbox.look()

    # -- what nobody wants -----------------------------------------------------------------------------

    async def _tidy_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            with suppress(EngineFailed):
                await self._tidy()

    async def _tidy(self) -> None:
        """Remove what other drivers left, and what this one could not remove when it wanted to."""
        owners: dict[Path, bool] = {}
        for found in await self._engine.do(self._engine.containers, OWNER):
            labels = Labels.from_engine(found.labels)
            if labels is not None and self._is_unwanted(found, labels, owners):
                await self._engine.do(self._engine.remove, found.container)
        for owner, lives in owners.items():
            if not lives:
                shutil.rmtree(owner, ignore_errors=True)

    def _is_unwanted(self, found: Found, labels: Labels, owners: dict[Path, bool]) -> bool:
        if labels.owner == str(self._directory):
            return found.container not in self._known and not (self._directory / labels.id).exists()
        owner = Path(labels.owner)
        if owner not in owners and owner.parent == Path(tempfile.gettempdir()) and owner.name.startswith(PREFIX):
            owners[owner] = _is_locked(owner)  # one of those that are made below, whatever else a label may name
        return is_orphan(labels, here=self._seen_from, owner_lives=owners.get(owner, True))

    # -- for its sandboxes -----------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def shares_kernel(self) -> bool:
        """Whether what runs in a sandbox are processes of the host's kernel."""
        return self.runtime in SHARED_KERNEL

    def forget(self, sandbox: DockerSandbox) -> None:
        self._known.pop(sandbox.container, None)
        for pool in self._pools.values():
            if sandbox in pool.ready:
                pool.ready.remove(sandbox)
                if not self._is_closed:
                    self._start(self._refill(pool))

    def later(self, seconds: float, function: Any, *args: object) -> None:
        self._loop.call_later(seconds, function, *args)

    def on_ready_death(self, sandbox: DockerSandbox) -> None:
        """One that nobody was given has ended."""
        if any(sandbox in pool.ready for pool in self._pools.values()):
            self._start(sandbox.destroy())

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # who asked may be gone
        return task


@dataclass(eq=False)
class _Pool:
    """Ready sandboxes of one kind. They have run nobody's code, are handed out once, and never come back."""

    spec: SandboxSpec
    size: int
    ready: list[DockerSandbox]
    coming: int = 0


class DockerSandbox:
    """See `cellgate.sandbox.base.Sandbox`."""

    driver = "docker"

    def __init__(
        self, owner: DockerDriver, container: str, labels: Labels, place: Path, record: dict[str, Any] | None = None
    ) -> None:
        """`record` is what an earlier driver wrote down of it."""
        record = record or {}
        self.id = labels.id
        self.template = labels.template
        self.limits = labels.limits
        self.container = container
        self.is_given_out = bool(record)
        self._owner = owner
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._death: asyncio.Future[DeathCertificate] = self._loop.create_future()
        self._born = time.time() if not record else float(record.get("born", time.time()))
        self._killed_for = _reason(record.get("killed_for"))
        self._detail = str(record.get("detail", ""))
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
            self._link = _connect(self._place / LINK)
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
        link = link or _connect(self._place / LINK)
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
            raise _unavailable(str(error), "it is killed when the engine is back") from error

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

    def on_memory(self) -> None:
        """Something in it was killed for memory."""
        self._memory_kills += 1
        self._meter.look()
        self._owner.later(OUTLIVED_SECONDS, self._outlive, self._memory_kills)

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
        if not self._owner.shares_kernel and self._memory_kills > self._outlived:
            exit_code = 137  # a kernel of the sandbox's own that loses a part of itself ends in any way
        status, events = wait_status(exit_code), self._events()
        certificate = decide(status, self._killed_for, events, oom_kills_outlived=self._outlived, detail=self._detail)
        self._end(certificate)

    async def look(self, *, engine_was_away: bool = False) -> None:
        """Ask the engine how it stands, and settle what is over. An engine that ends or begins kills its containers, in
        the way that a session could kill itself: what was killed in its absence is laid to it."""
        state = await self._owner.engine.do(self._owner.engine.state, self.container)
        if state is None:
            reason = self._killed_for or Reason.BACKEND_ERROR
            self._end(decide(None, reason, self._events(), detail=self._detail or "its container is gone"))
        elif state.is_running:
            self._meter.pid = state.pid
            self._meter.look()
        elif not self.has_ended:
            self._memory_kills = max(self._memory_kills, int(state.was_out_of_memory))
            if engine_was_away and state.exit_code in ENGINE_KILLS and not self._memory_kills:
                self._killed_for = self._killed_for or Reason.BACKEND_ERROR
                self._detail = self._detail or "the Docker engine was away, and ended it"
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
            self._owner.on_ready_death(self)

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


def _make_place(place: Path, uid: int) -> None:
    place.mkdir(mode=0o700)
    (place / LINK).mkdir()
    (place / LINK).chmod(0o777)  # until the socket is there; nobody but the engine can pass the directory above
    for name, text in ETC_FILES.items():
        (place / name).write_text(text.format(uid=uid))
        (place / name).chmod(0o644)


def _connect(directory: Path) -> socket.socket | None:
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


def _read_record(place: Path) -> dict[str, Any] | None:
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


def _is_locked(owner: Path) -> bool:
    """Whether a driver lives that has this directory."""
    try:
        lock = os.open(owner / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # somebody else's
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _seen_from() -> str:
    """This boot of this host, and the processes of it that are seen from here."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}/{os.stat('/proc/self/ns/mnt').st_ino}"


def _unavailable(missing: str, remedy: str) -> DriverUnavailable:
    return DriverUnavailable("docker", missing, remedy)
