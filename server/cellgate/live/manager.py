"""All sessions of one gateway: makes them, finds them, and takes over those of a gateway before it.

Decides who may have another session. What a session does is decided in `sessions/` and carried out by `LiveSession`;
what speaks HTTP is above, and calls this.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

from cellgate.audit.writer import AuditLog
from cellgate.errors import (
    CellgateError,
    Draining,
    DriverUnavailable,
    ServerFull,
    StorageFull,
    UnknownKernel,
    UnknownSession,
)
from cellgate.live.accounts import Accounts
from cellgate.live.cursors import Cursors
from cellgate.live.gatekeeper import Gatekeeper
from cellgate.live.happenings import Happenings, LimitHit, SessionCreated, Who
from cellgate.live.isolation import Isolation
from cellgate.live.judging import Judges
from cellgate.live.kernelspecs import DEFAULT_KERNEL, Kernelspec, find_kernelspecs, kernelspecs_of_images, setup_of
from cellgate.live.known import KnownFile
from cellgate.live.oneshots import OneShots
from cellgate.live.scripts import Scripts
from cellgate.live.session import LiveSession, date_now, kernel_ended
from cellgate.live.turns import Turns
from cellgate.live.wish import Wish, lowered
from cellgate.policy.facts import language_named
from cellgate.policy.files import load_policy
from cellgate.policy.policies import Policy, wished
from cellgate.policy.verdicts import Verdict
from cellgate.sandbox.base import Driver, HasImages, KeepsPool, Sandbox, SandboxSpec
from cellgate.sandbox.limits import Limits
from cellgate.sessions.clocks import SteadyClock
from cellgate.sessions.journal import Budget, Journal
from cellgate.sessions.limits import SessionLimits
from cellgate.sessions.quotas import Holding, refusal, spent_refusal
from cellgate.sessions.recovery import Decision, Fate, born_at, decide, newest_incarnation
from cellgate.sessions.registry import Registry, SessionRow
from cellgate.sessions.session import Session
from cellgate.settings import Settings
from cellgate.wire.jupyter import Composer

__all__ = ["Manager", "OpenDriver"]

log = logging.getLogger("cellgate.live")

OpenDriver = Callable[[], Awaitable[Driver]]

HEARTBEAT_SECONDS = 1.0
# Sandboxes made at a time, of a storm of requests: each takes two processes some milliseconds of CPU, and more at once
# make every one later and none earlier.
STARTS_AT_ONCE = 8
MAX_WISHED = 100  # policies that sessions have asked for and that are kept ready; a class has one, or two
DRIVER_SECONDS = 2.0  # for the driver to say which sandboxes there are, when somebody asks whether we are ready
RESERVE_BYTES = 64 << 20  # of the disk: less is gone within seconds, in one cell's output
CURSORS_NAME = "clients.cursors"  # beside the segments of a journal
KNOWN_NAME = "cells.known"  # the same


class Manager:
    """Made by `open`; whoever did owes a `close`. Belongs to one loop."""

    def __init__(
        self,
        settings: Settings,
        open_driver: OpenDriver,
        directory: Path,
        registry: Registry,
        policy: Policy,
        judges: Judges,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.happenings = Happenings()
        self.accounts = Accounts.open(directory / "used.json", time.time())
        self.happenings.listen(self.accounts.hear)
        self._audit: AuditLog | None = None
        self.kernelspecs: dict[str, Kernelspec] = {}
        self.is_draining = False
        self.started = datetime.now(timezone.utc)
        # When its sandboxes live on and nothing can be known of them any more: who serves shall end, and begin again.
        self.lost: asyncio.Future[CellgateError] = asyncio.get_running_loop().create_future()
        self._policy = policy
        self._judges = judges
        self._open_driver = open_driver
        self.directory = directory  # where others keep what belongs to sessions, too
        self._journals = directory / "sessions"
        self._clock = SteadyClock(time.monotonic())
        self._budget = Budget(settings.server.journal_bytes_total)
        self._sessions: dict[str, LiveSession] = {}
        self._coming: list[str] = []  # principals whose sessions are admitted, and not among those yet
        self.isolation = Isolation(self._get_driver, settings.driver)
        self._keys: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self.oneshots = OneShots(self)
        self._driver: Driver | None = None
        self._opening = asyncio.Lock()
        self._starting = Turns(STARTS_AT_ONCE)
        self._running: Counter[str] = Counter()  # cells, by principal
        self._held_back: dict[str, OrderedDict[str, LiveSession]] = {}  # by principal: who waits for a cell's turn
        self._boot_id = _boot_id()
        self._heart: asyncio.Task[None] | None = None

    @staticmethod
    async def open(
        settings: Settings,
        open_driver: OpenDriver,
        *,
        directory: Path,
        kernelspecs: Mapping[str, Kernelspec] | None = None,
        policy: Policy | None = None,
        judges: Judges | None = None,
    ) -> Manager:
        """Ready to serve, with every session that a former gateway left in this directory. `kernelspecs` and `policy`:
        if they were found and read already; else they are now. `judges`: if they were started; they end with it.
        Raises StateDirectoryInUse, NewerState, DriverUnavailable, SandboxStartFailed, or OSError when the directory
        cannot be written."""
        policy = load_policy(settings.policy) if policy is None else policy
        registry = Registry.open(directory)
        manager = Manager(settings, open_driver, directory, registry, policy, judges or Judges())
        try:
            if registry.quarantined:
                manager._put_journals_aside(registry.quarantined)
            manager._journals.mkdir(mode=0o700, exist_ok=True)
            manager._begin_audit()
            driver = await manager._get_driver()
            found = dict(find_kernelspecs(driver.templates) if kernelspecs is None else kernelspecs)
            if isinstance(driver, HasImages):
                known = ((template, driver.packages(template)) for template in driver.templates)
                images = {template: packages for template, packages in known if packages is not None}
                found = {name: spec for name, spec in found.items() if spec.template not in images}
                found |= kernelspecs_of_images(images)
            manager.kernelspecs = {name: spec for name, spec in found.items() if spec.template in driver.templates}
            await manager._recover(driver)
            if not await driver.sandboxes():  # else they are known to work, and clients wait to come back
                await manager._prove()
        except BaseException:
            await manager.close(end_sessions=False)
            raise
        manager._heart = asyncio.get_running_loop().create_task(manager._beat())
        return manager

    # -- for clients ---------------------------------------------------------------------------------

    async def create(self, principal: str, wish: Wish) -> LiveSession:
        """A session whose kernel is on its way: requests wait for it, and `LiveSession.started` does. Nothing is left
        when it fails. Raises LimitError, UsageError, UnknownKernel, TooManySessions, ServerFull, Draining, StorageFull,
        and DriverUnavailable when there is none to ask; what fails later is the session's to tell."""
        kernelspec = self._kernelspec(wish)
        limits = lowered(wish, self.settings.sandbox, self.settings.session)
        policy = self.policy_for(principal, wish.policy)
        self._admit(principal, limits[0])
        self._coming.append(principal)
        try:
            await self._get_driver()
            sandbox = asyncio.ensure_future(self.make_sandbox(SandboxSpec(kernelspec.template, limits[0]), principal))
            try:
                await asyncio.sleep(0)  # it is asked for now: while it is made, the rest is written
                live = self._new(principal, wish, kernelspec, limits, policy)
            except BaseException:
                await _give_up(sandbox)
                raise
        finally:
            self._coming.remove(principal)
        live.begin(sandbox)
        if live.journal.is_degraded:
            await live.delete()
            raise StorageFull("its journal")
        return live

    async def create_once(self, principal: str, wish: Wish) -> tuple[LiveSession, bool]:
        """The same; or, if this principal has a session with the wish's idempotency key already, that one, whatever
        else is asked for now. Whether it is new. A client that was not answered so may ask again."""
        key = wish.idempotency_key
        if not key:
            return await self.create(principal, wish), True
        async with self._keys.setdefault((principal, key), asyncio.Lock()):
            for live in self.sessions(principal):
                if live.wish.idempotency_key == key:
                    return live, False
            return await self.create(principal, wish), True

    @cached_property
    def scripts(self) -> Scripts:
        """Opened when somebody first asks. Raises NewerState, StorageFull."""
        try:
            return Scripts.open(self.directory / "scripts.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise StorageFull(str(error)) from error

    def change(self, live: LiveSession, wish: Wish) -> None:
        """A session is asked for differently now: its name, its metadata, its limits of time. Raises LimitError,
        UsageError, StorageFull."""
        live.change(wish, lowered(wish, self.settings.sandbox, self.settings.session)[1])

    def _new(
        self,
        principal: str,
        wish: Wish,
        kernelspec: Kernelspec,
        limits: tuple[Limits, SessionLimits],
        policy: Policy,
    ) -> LiveSession:
        """In the registry, with its journal; a crash from here on leaves what the next gateway clears away.
        Raises StorageFull."""
        row = SessionRow(
            str(uuid4()),
            principal,
            wish.to_json(),
            created=time.time(),
            created_monotonic=time.monotonic(),
            boot_id=self._boot_id,
        )
        try:
            journal = self._open_journal(row.id, limits[1])
        except OSError as error:
            raise StorageFull(error.strerror or "no reason given") from error
        try:
            self.registry.add(row)
        except sqlite3.Error as error:
            journal.delete()
            raise StorageFull(str(error)) from error
        live = self._live(row, wish, kernelspec, limits, policy, journal)
        self.happenings.tell(SessionCreated(live.who, live.kernel_name))
        return live

    async def validate(self, principal: str, code: str, language: str, wish: Mapping[str, object]) -> Verdict:
        """What would be said of this as a cell in a session with this wish for a policy. Raises UsageError, LimitError,
        PolicyError."""
        policy = self.policy_for(principal, wish)
        return await self._judges.judge(code, language, policy, principal=principal)

    def policy_of(self, principal: str) -> Policy:
        """What the sessions of a principal are given."""
        return self._policy

    def policy_for(self, principal: str, wish: Mapping[str, object]) -> Policy:
        """What a session gets that asks for this on top. The same wish has the same policy, and it is read and packed
        once. Raises UsageError, LimitError."""
        given = self.policy_of(principal)
        if not wish:
            return given
        known: dict[str, Policy] = given.remember("wished", lambda _: {})
        key = json.dumps(wish, sort_keys=True)
        if key not in known:
            if len(known) >= MAX_WISHED:
                known.clear()
            known[key] = wished(given, wish)
        return known[key]

    def find(self, principal: str, session_id: str) -> LiveSession:
        """Raises UnknownSession."""
        live = self._sessions.get(session_id)
        if live is None or live.is_gone or live.principal != principal:
            raise UnknownSession(session_id)
        return live

    def sessions(self, principal: str) -> list[LiveSession]:
        """Oldest first."""
        return [live for live in self._sessions.values() if live.principal == principal and not live.is_gone]

    def all_sessions(self) -> list[LiveSession]:
        """Everybody's, for whoever runs the server."""
        return list(self._sessions.values())

    @property
    def starts_waiting(self) -> int:
        """Kernels that wait for their turn to be started."""
        return self._starting.waiting

    def holding(self, principal: str) -> Holding:
        """What this principal has now."""
        held = self.sessions(principal)
        coming = self._coming.count(principal)
        memory = sum(live.memory_bytes for live in held) + coming * self.settings.sandbox.memory_bytes
        return Holding(len(held) + coming, memory, sum(live.journal.size_bytes for live in held))

    def _admit(self, principal: str, limits: Limits) -> None:
        if self.is_draining:
            raise Draining()
        server = self.settings.server
        if len(self._sessions) + len(self._coming) >= server.sessions_total:
            raise ServerFull(server.sessions_total)
        holding, used = self.holding(principal), self.accounts.used(principal)
        if error := refusal(server, holding, used, memory_bytes=limits.memory_bytes, now=self.accounts.now):
            self.happenings.tell(LimitHit(principal, getattr(error, "quota", "sessions_per_principal"), str(error)))
            raise error

    def _kernelspec(self, wish: Wish) -> Kernelspec:
        spec = self.kernelspecs.get((wish.kernel or DEFAULT_KERNEL).lower())
        if spec is None:
            raise UnknownKernel(wish.kernel, tuple(self.kernelspecs))
        return spec

    # -- for whoever runs the server -----------------------------------------------------------------

    def drain(self) -> None:
        """Admit no new sessions from now on."""
        self.is_draining = True

    def undrain(self) -> None:
        """Admit them again."""
        self.is_draining = False

    async def check_ready(self) -> None:
        """Raises what somebody who asked for a session now would hear of the server: Draining, ServerFull,
        StorageFull, DriverUnavailable."""
        if self.is_draining:
            raise Draining()
        total = self.settings.server.sessions_total
        if len(self._sessions) >= total:
            raise ServerFull(total)
        self._check_disk()
        if self._driver is None:
            raise DriverUnavailable(self.settings.driver, "there is none", "a request for a session looks for one")
        try:
            await asyncio.wait_for(self._driver.sandboxes(), DRIVER_SECONDS)
        except asyncio.TimeoutError:
            missing = f"it has not answered for {DRIVER_SECONDS:g} s"
            raise DriverUnavailable(self.settings.driver, missing, "its log may say why") from None

    def _check_disk(self) -> None:
        """Raises StorageFull."""
        try:
            found = os.statvfs(self.directory)
            probe = self.directory / "ready"
            probe.write_bytes(bytes(4096))
            probe.unlink()
        except OSError as error:
            raise StorageFull(error.strerror or "no reason given") from error
        if found.f_bavail * found.f_frsize < RESERVE_BYTES:
            raise StorageFull(f"less than {RESERVE_BYTES >> 20} MiB are free")
        if any(live.journal.is_degraded for live in self._sessions.values()):
            raise StorageFull("a journal")

    async def close(self, *, end_sessions: bool) -> None:
        """Let go of everything. Sessions live on where the driver keeps their sandboxes, unless they are to end."""
        self.drain()
        if self._heart:
            self._heart.cancel()
        await self.isolation.close()
        if end_sessions:
            await asyncio.gather(*(live.delete() for live in self._sessions.values()))
            while self._sessions:
                await asyncio.sleep(0.01)
        await asyncio.gather(*(live.close() for live in list(self._sessions.values())))
        self._sessions.clear()
        self.accounts.save()
        if self._audit:
            self._audit.close()
        await self._judges.close()
        if self._driver:
            await self._driver.close()
            self._driver = None
        self.registry.close()
        if "scripts" in vars(self):
            self.scripts.close()

    # -- for sessions (Host) -------------------------------------------------------------------------

    def now(self) -> float:
        return self._clock.look(time.monotonic())

    async def make_sandbox(self, spec: SandboxSpec, principal: str) -> Sandbox:
        async with self._starting.of(principal):
            driver = await self._get_driver()
            try:
                return await driver.create(spec)
            except DriverUnavailable as error:  # what made the last one is gone; there may be another
                log.warning("%s", error)
                if self._driver is driver:
                    self._driver = None
                    await driver.close()
                return await (await self._get_driver()).create(spec)

    def lose(self, error: CellgateError) -> None:
        if not self.lost.done():
            self.lost.set_result(error)

    def may_run(self, session: LiveSession) -> bool:
        """Whether a cell of this session may begin now. If not, it is told when one may, in its turn."""
        others = self._running[session.principal] - session.is_running
        if others < self.settings.server.cells_per_principal:
            return True
        self._held_back.setdefault(session.principal, OrderedDict())[session.id] = session
        return False

    def ran(self, session: LiveSession) -> None:
        principal = session.principal
        if session.is_running:
            self._running[principal] += 1
            return
        self._running[principal] -= 1
        if not self._running[principal]:
            del self._running[principal]
        if principal in self._held_back:
            asyncio.get_running_loop().call_soon(self._give_turns, principal)

    def _give_turns(self, principal: str) -> None:
        """To those that wait, in their order. One that needs it no more leaves it to the next."""
        waiting = self._held_back.get(principal)
        while waiting and self._running[principal] < self.settings.server.cells_per_principal:
            _, first = waiting.popitem(last=False)
            first.go_on()
        if not waiting:
            self._held_back.pop(principal, None)

    def forget(self, session: LiveSession) -> None:
        self._sessions.pop(session.id, None)

    def _begin_audit(self) -> None:
        """Raises OSError: nothing is done that could not be told of."""
        if self.settings.audit != "off":
            keep, with_code = self.settings.server.audit_bytes_total, self.settings.audit == "code"
            self._audit = AuditLog.open(self.directory / "audit", keep_bytes=keep, with_code=with_code)
            self.happenings.listen(self._audit.hear)

    def _put_journals_aside(self, registry: Path) -> None:
        """With the registry that named their sessions: nobody could find them, and they would be cleared away."""
        aside = registry.with_name(registry.name.replace(".sqlite", ""))
        with suppress(FileNotFoundError):
            self._journals.rename(aside)
        log.error("the registry could not be read: it lies now at %s, the journals at %s", registry, aside)

    async def _prove(self) -> None:
        """Make one sandbox, and end it, before anybody is told that there is a server: what this host lacks is found
        now, and the first client does not wait for the template. Raises SandboxStartFailed, DriverUnavailable."""
        sandbox = await self.make_sandbox(SandboxSpec(limits=self.settings.sandbox, use_pool=False), "")
        await sandbox.destroy()

    async def _get_driver(self) -> Driver:
        async with self._opening:
            if self._driver is None:
                self._driver = await self._open_driver()
                await self._keep_pool(self._driver)
            return self._driver

    async def _keep_pool(self, driver: Driver) -> None:
        size = self.settings.pool_size
        if isinstance(driver, KeepsPool):  # also to end what a gateway with other settings had asked for
            await driver.keep_pool(SandboxSpec(limits=self.settings.sandbox), size)
        elif size:
            log.warning("the %s driver keeps no pool: sandboxes are made when they are asked for", driver.name)

    # -- within --------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            now = self.now()
            self.accounts.look_after(time.time())
            for live in list(self._sessions.values()):
                try:
                    live.session.withheld = self._withheld(live.principal)
                    live.look_after(now)
                except Exception:  # a fault of ours, and no other session's
                    log.exception("session %s: could not be looked after", live.id)

    def _withheld(self, principal: str) -> str:
        """Why no cell of this principal's is accepted now."""
        spent = spent_refusal(self.settings.server, self.accounts.used(principal), self.accounts.now)
        return str(spent) if spent else ""

    def _live(
        self,
        row: SessionRow,
        wish: Wish,
        kernelspec: Kernelspec,
        limits: tuple[Limits, SessionLimits],
        policy: Policy,
        journal: Journal,
    ) -> LiveSession:
        sandbox, session = limits
        now = self.now()
        born = born_at(row, boot_id=self._boot_id, monotonic=time.monotonic(), wall=time.time(), now=now)
        composer = Composer(uuid4().hex)
        core = Session(
            session,
            composer=composer,
            date=date_now,
            next_seq=journal.next_seq,
            now=now,
            born_at=born,
            may_run=lambda: self.may_run(self._sessions[row.id]),
            judges=not policy.is_off,
        )
        language = language_named(kernelspec.language)
        gatekeeper = Gatekeeper(self._judges, policy, language, Who(row.principal, row.id), self.happenings)
        live = self._sessions[row.id] = LiveSession(
            self,
            row.id,
            row.principal,
            wish,
            kernelspec.name,
            spec=SandboxSpec(kernelspec.template, sandbox),
            setup=setup_of(kernelspec, wish.env),
            session=core,
            composer=composer,
            journal=journal,
            cursors=Cursors(self._journals / row.id / CURSORS_NAME, end=journal.next_seq),
            known=KnownFile(self._journals / row.id / KNOWN_NAME),
            gatekeeper=gatekeeper,
            created=row.created,
        )
        return live

    # -- after another gateway -----------------------------------------------------------------------

    async def _recover(self, driver: Driver) -> None:
        """What the registry, the journals and the driver know, brought together."""
        rows = self.registry.rows()
        wishes = {row.id: Wish.from_json(row.spec) for row in rows}
        names = [path.name for path in sorted(self._journals.iterdir()) if path.is_dir()]
        opened = ((name, self._open_former_journal(name, wishes.get(name, Wish()))) for name in names)
        journals = {name: journal for name, journal in opened if journal is not None}
        known = {sandbox.id: sandbox for sandbox in await driver.sandboxes()}
        known |= {sandbox.id: sandbox for sandbox in await driver.ended()}
        incarnations = {name: newest_incarnation(journal.recovery) for name, journal in journals.items()}
        plan = decide(rows, incarnations, known)
        await asyncio.gather(*(known[sandbox_id].destroy() for sandbox_id in plan.orphans))
        for name in plan.stray_journals:
            journals[name].delete()
        taken_over = [self._try_take_over(decision, journals, known) for decision in plan.decisions]
        await asyncio.gather(*taken_over)
        if taken_over or plan.orphans:
            log.info("took over %d sessions; %d sandboxes were nobody's", len(self._sessions), len(plan.orphans))

    async def _try_take_over(self, decision: Decision, journals: dict[str, Journal], known: dict[str, Sandbox]) -> None:
        """One that fails is left as it is; the next gateway may fare better."""
        try:
            await self._take_over(decision, journals, known)
        except Exception:
            log.exception("session %s is left out", decision.row.id)
            if live := self._sessions.pop(decision.row.id, None):
                await live.close()

    async def _take_over(self, decision: Decision, journals: dict[str, Journal], known: dict[str, Sandbox]) -> None:
        row = decision.row
        journal = journals.get(row.id)
        wish = Wish.from_json(row.spec)
        kernelspec = self.kernelspecs.get((wish.kernel or DEFAULT_KERNEL).lower())
        is_wanted = decision.fate is not Fate.CLEAR_AWAY and not wish.is_fleeting
        if not is_wanted or kernelspec is None or not _is_plain(row.id):
            if sandbox := known.get(row.sandbox_id):
                end = await sandbox.destroy()
                self.happenings.tell(kernel_ended(Who(row.principal, row.id), row.incarnation, end))
            if journal is not None:
                journal.delete()
            self.registry.forget(row.id)
            return
        if journal is None and (journal := self._open_former_journal(row.id, wish)) is None:
            return
        policy = self._former_policy(row.principal, wish)
        live = self._live(row, wish, kernelspec, self._former_limits(wish), policy, journal)
        found = journal.recovery
        problems = live.session.recover(
            found,
            state=row.state,
            incarnation=row.incarnation,
            sandbox_id=row.sandbox_id,
            read=journal.read,
            known=KnownFile(self._journals / row.id / KNOWN_NAME).read(),
        )
        for problem in (*found.damage, *problems):
            log.error("session %s: %s", row.id, problem)
        if decision.fate is Fate.ADOPT:
            await live.adopt(known[row.sandbox_id])
        else:
            live.go_on_without_kernel()

    def _former_policy(self, principal: str, wish: Wish) -> Policy:
        """That which a former gateway gave, or the server's if the wish would be looser than that now."""
        try:
            return self.policy_for(principal, wish.policy)
        except CellgateError:
            return self.policy_of(principal)

    def _former_limits(self, wish: Wish) -> tuple[Limits, SessionLimits]:
        """Those that a former gateway gave, or the server's where they are lower now."""
        try:
            return lowered(wish, self.settings.sandbox, self.settings.session)
        except CellgateError:
            return self.settings.sandbox, self.settings.session

    def _open_former_journal(self, session_id: str, wish: Wish) -> Journal | None:
        """None for one that cannot be had: its session is left out, and may come back when the next gateway starts."""
        try:
            return self._open_journal(session_id, self._former_limits(wish)[1])
        except OSError as error:
            log.error("session %s is left out: its journal cannot be opened: %s", session_id, error)
            return None

    def _open_journal(self, session_id: str, limits: SessionLimits) -> Journal:
        """Raises OSError."""
        limit = limits.journal_bytes_per_session
        return Journal.open(self._journals / session_id, limit_bytes=limit, budget=self._budget)


async def _give_up(coming: asyncio.Future[Sandbox]) -> None:
    """Nobody wants it any more; returns when nothing is left of it."""
    with suppress(CellgateError):
        sandbox = await coming
        await sandbox.destroy()


def _is_plain(session_id: str) -> bool:
    """A row of a registry that somebody damaged may name anything; it becomes a path."""
    return session_id.replace("-", "").isalnum()


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
