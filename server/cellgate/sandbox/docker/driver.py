"""The driver `docker`: every sandbox is a container of a Docker engine, in any runtime that the engine knows.

What a container is made of is `container.py`; which images there are, `images.py`; the engine is asked in `engine.py`;
one container as a sandbox is `sandbox.py`. Here they are made, handed out of a pool, found again, and tidied up.

A driver's directory is what its containers name as their owner. One that keeps its sandboxes finds them again by it,
with what each was given out for and killed for, which is written down there; what any other leaves behind is removed by
whichever driver comes next.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cellgate.errors import CellgateError, DriverUnavailable, SandboxStartFailed, UnknownTemplate
from cellgate.sandbox.base import Sandbox, SandboxSpec
from cellgate.sandbox.docker.container import (
    MAPPED_UIDS,
    OWNER,
    SHARED_KERNEL,
    UIDS,
    Container,
    Labels,
    is_orphan,
)
from cellgate.sandbox.docker.engine import Engine, EngineFailed, Event, Facts, Found
from cellgate.sandbox.docker.images import Template, usable_images
from cellgate.sandbox.docker.sandbox import DockerSandbox, make_place, read_record
from cellgate.sandbox.limits import Limits, check_fits_host
from cellgate.sandbox.native.rootfs import covers_of_proc

__all__ = ["DockerDriver"]

PREFIX: Final = "cellgate-docker-"  # of the directory of a driver that keeps nothing
WATCH_SECONDS: Final = 30.0  # until the engine has begun to tell of events
TIDY_SECONDS: Final = 60.0  # between looks for containers that nobody wants
PATIENCE_SECONDS: Final = 5.0  # between a failure to refill the pool and the next attempt: no storm of retries
REFILLS: Final = 2  # containers made at once for the pool; more would keep a create waiting


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
                self._start(sandbox.destroy())  # it is in no pool any more, and nobody's
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
        labels = Labels(
            id=uuid.uuid4().hex,
            owner=str(self._directory),
            template=spec.template,
            limits=spec.limits,
            uid=self._free_uid(),
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
            make_place(place, labels.uid)
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

    def _free_uid(self) -> int:
        """One that no living sandbox of this driver has, and hardly one of another's."""
        taken = {sandbox.uid for sandbox in self._known.values()}
        while (uid := secrets.choice(MAPPED_UIDS if self.facts.maps_uids else UIDS)) in taken:
            pass
        return uid

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
        if event is None:
            if self._watching.is_set() and not self._is_closed:
                for known in self._known.values():
                    known.on_absence()
                self._start(self._catch_up())
            self._watching.set()
        elif (sandbox := self._known.get(event.container)) is not None:
            if event.action == "oom":
                sandbox.on_memory()
            elif event.action == "kill":
                sandbox.on_signal(event.signal)
            else:
                self._start(sandbox.on_exit(event.exit_code))

    async def _catch_up(self) -> None:
        """The stream of events begins anew: learn what has happened meanwhile."""
        living = [sandbox for sandbox in self._known.values() if not sandbox.has_ended]
        await asyncio.gather(*(sandbox.look() for sandbox in living))

    async def _meet(self) -> None:
        """Those of a driver before this one. One that nobody was given is nobody's."""
        for found in await self._engine.do(self._engine.containers, f"{OWNER}={self._directory}"):
            labels = Labels.from_engine(found.labels)
            place = self._directory / labels.id if labels and labels.id.isalnum() else None
            record = read_record(place) if place else None
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

    def on_end(self, sandbox: DockerSandbox) -> None:
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
