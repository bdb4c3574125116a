"""The seam between Cellgate and whatever makes sandboxes: what every driver offers, and owes.

The conformance suite in `tests/conformance/` holds each driver, the shipped fake included, to these words.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cellgate.sandbox.certificate import DeathCertificate, Reason
from cellgate.sandbox.limits import Limits

__all__ = ["Driver", "HasImages", "KeepsPool", "Sandbox", "SandboxSpec", "Usage"]


@dataclass(frozen=True)
class SandboxSpec:
    """What is asked for. The template names what is already loaded in it; each driver has its own list."""

    template: str = "python"
    limits: Limits = field(default_factory=Limits)
    use_pool: bool = True  # a ready one will do; it has run nobody's code


@dataclass(frozen=True)
class Usage:
    """What a sandbox uses now, children included, as the host counts it (never as the sandbox claims).
    None: this driver does not measure it."""

    memory_bytes: int | None
    memory_peak_bytes: int | None
    cpu_seconds: float
    pids: int
    oom_kills: int
    pids_limit_hits: int
    stopped: bool  # the kernel process stands still (SIGSTOP, a tracer): it will answer nothing


@runtime_checkable
class Sandbox(Protocol):
    """One sandbox with one kernel in it. Made by `Driver.create`; whoever got it owes a `destroy`."""

    @property
    def id(self) -> str: ...
    @property
    def driver(self) -> str: ...
    @property
    def template(self) -> str: ...
    @property
    def limits(self) -> Limits: ...

    async def attach(self) -> socket.socket:
        """A fresh link stream: a non-blocking unix stream socket that the caller owns and closes. The kernel
        takes it up at once and drops any earlier one; what was not acknowledged there comes again.
        Called by KernelConnection. Raises SandboxGone."""
        ...

    async def interrupt(self) -> None:
        """SIGINT to the kernel's process group, from outside, so that it works however busy the kernel is.
        Returns when it is sent, so that it strikes no cell sent later. Does nothing while no cell runs, or
        after the end."""
        ...

    async def kill(self, reason: Reason, detail: str = "") -> None:
        """Ask for the end, for `reason`. The first reason wins; later calls, and calls after the end, change
        nothing. Returns when the kill is sent; `wait` tells when it is over."""
        ...

    async def wait(self) -> DeathCertificate:
        """How it ended, within 2 s of the end. Any number of callers, before or after; cancelling one
        disturbs no other."""
        ...

    async def usage(self) -> Usage:
        """What it uses now, or used last when it has ended."""
        ...

    async def destroy(self) -> DeathCertificate:
        """End it (for `session_deleted`, if it lives) and return when nothing of it is left: no process, no
        directory, no descriptor. May be called again, and finishes even when its caller is cancelled."""
        ...


@runtime_checkable
class Driver(Protocol):
    """Makes sandboxes of one kind. Made and closed by whoever composes the program."""

    @property
    def name(self) -> str: ...

    @property
    def templates(self) -> tuple[str, ...]:
        """What `SandboxSpec.template` may name."""
        ...

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """A sandbox whose kernel has begun and takes an `attach` at once. Nothing stays behind when it fails
        or is cancelled. Raises UnknownTemplate, LimitError, SandboxStartFailed, DriverUnavailable."""
        ...

    async def sandboxes(self) -> list[Sandbox]:
        """The living ones, also those that were made before this program started, if the driver keeps any."""
        ...

    async def ended(self) -> list[Sandbox]:
        """Those that ended and were not destroyed yet, made by whichever program, if the driver keeps any."""
        ...

    async def close(self) -> None:
        """Let go of everything. Whether sandboxes outlive it is the driver's to say."""
        ...


@runtime_checkable
class HasImages(Protocol):
    """A driver of whose templates some or all are images, which do not see this program's own installation."""

    def packages(self, template: str) -> Mapping[str, str] | None:
        """What is installed in an image: versions by name; None for a template that is none."""
        ...


@runtime_checkable
class KeepsPool(Protocol):
    """A driver that can have sandboxes ready before they are asked for."""

    async def keep_pool(self, spec: SandboxSpec, size: int) -> None:
        """Have `size` sandboxes of this kind ready from now on, refilled in the background; 0 ends it.
        Raises UnknownTemplate, LimitError or DriverUnavailable."""
        ...
