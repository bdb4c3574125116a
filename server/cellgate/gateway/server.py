"""Serves one gateway: its sessions, its routes and its listening sockets, from the start until it is told to end.

Who may do what to the process, and what it is replaced by, is in `cellgate.serve`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.web import Application

from cellgate.access.keys import keep_keys
from cellgate.access.scopes import read_scopes
from cellgate.access.tokens import TokenWatch
from cellgate.access.vouched import Issuer, Proxy, read_networks
from cellgate.errors import StorageFull
from cellgate.gateway.app import make_app
from cellgate.gateway.assets import Assets, read_assets
from cellgate.gateway.auth import Guard
from cellgate.gateway.base import MAX_BODY_BYTES
from cellgate.gateway.kernelspecs import Logos, read_logos
from cellgate.gateway.visitors import watch_tokens
from cellgate.live.judging import Judges
from cellgate.live.kernelspecs import Kernelspec, find_kernelspecs
from cellgate.live.manager import Manager, OpenDriver
from cellgate.metrics.traces import Traces
from cellgate.policy.policies import Policy
from cellgate.sandbox.native.warden import TEMPLATES
from cellgate.settings import Settings

__all__ = ["Installed", "Listener", "make_server", "run_gateway"]

log = logging.getLogger("cellgate.gateway")

CLOSE_SECONDS: Final = 8.0  # for sessions to be let go of, or to end, when the server ends; the keeper waits for ten
HEADER_SECONDS: Final = 60.0  # to send a request's head, or to send another; idle clients connect again
BODY_SECONDS: Final = 60.0  # to send its body
MAX_HEADER_BYTES: Final = 64 << 10  # a browser's cookies for all servers on localhost
# Of all descriptors. A session takes three (its link, its journal and its cursors), and those of clients that flood us
# must not leave it without.
CLIENTS_SHARE: Final = 0.75


@dataclass(frozen=True)
class Installed:
    """What a gateway reads of the installation beside its own modules, while it may."""

    kernelspecs: Mapping[str, Kernelspec]
    logos: Logos
    assets: Assets

    @staticmethod
    def read() -> Installed:
        kernelspecs = find_kernelspecs(TEMPLATES)
        return Installed(kernelspecs, read_logos(kernelspecs.values()), read_assets())


async def run_gateway(
    settings: Settings,
    sockets: Iterable[socket.socket],
    token: str,
    open_driver: OpenDriver,
    directory: Path,
    *,
    installed: Installed,
    policy: Policy,
    judges: Judges,
    issuer: Issuer | None = None,
    tokens: Path | None = None,
    make_traces: Callable[[], Traces] | None = None,
    end_sessions: bool = False,
    on_serving: Callable[[], object] = lambda: None,
) -> None:
    """Serve on these sockets, which are listening already, until SIGTERM or SIGINT. Then nobody new is let in, and
    sandboxes are kept, or ended with `end_sessions`; at SIGHUP, for a gateway with other settings, they are kept.
    `tokens`: where the operator's are found; `issuer`: who vouches for others, with its keys; `make_traces`: if any are
    to be told. Raises what `Manager.open` raises, for an OSError StorageFull; and DriverUnavailable when the driver is
    lost and its sandboxes live on."""
    told = asyncio.Event()
    renews = False

    def renew() -> None:
        nonlocal renews
        renews = True
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, renew)
    try:
        manager = await Manager.open(
            settings,
            open_driver,
            directory=directory,
            kernelspecs=installed.kernelspecs,
            policy=policy,
            judges=judges,
        )
    except OSError as error:
        raise StorageFull(str(error)) from error
    server: HTTPServer | None = None
    traces = None if make_traces is None else make_traces()
    watching: list[asyncio.Task[None]] = []
    try:
        guard = make_guard(settings, token, issuer)
        app = make_app(manager, guard, settings, installed.logos, installed.assets, traces)
        if traces is not None:
            manager.happenings.listen(traces.hear)
        if tokens is not None:
            watch = watch_tokens(TokenWatch(tokens), guard, app.settings["services"].visitors)
            watching.append(asyncio.ensure_future(watch))
            await asyncio.sleep(0)  # for its first look, before anybody asks
        watching.append(asyncio.ensure_future(app.settings["services"].meters.watch()))
        if issuer is not None and settings.jwt_keys is not None:
            watching.append(asyncio.ensure_future(keep_keys(settings.jwt_keys, issuer.take)))
        server = make_server(app)
        server.add_sockets([Listener(sock) for sock in sockets])
        if not told.is_set():
            on_serving()
            stop = asyncio.ensure_future(told.wait())
            await asyncio.wait((stop, manager.lost), return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():  # another gateway finds all of it again
                stop.cancel()
                raise manager.lost.result()
    finally:
        manager.drain()
        for task in watching:
            task.cancel()
        if server is not None:
            server.stop()
        try:
            await asyncio.wait_for(manager.close(end_sessions=end_sessions and not renews), CLOSE_SECONDS)
        except asyncio.TimeoutError:
            log.error("sessions were not let go of within %g s; the next start takes them over", CLOSE_SECONDS)
        if traces is not None:
            traces.close()


def make_guard(settings: Settings, token: str, issuer: Issuer | None = None) -> Guard:
    """Who lets in whom these settings let in."""
    proxy = Proxy(read_networks(settings.trusted_proxies), settings.proxy_header) if settings.trusted_proxies else None
    return Guard(
        token,
        allowed_origins=settings.allowed_origins,
        host=settings.host,
        proxy=proxy,
        issuer=issuer,
        vouched_scopes=read_scopes(",".join(settings.vouched_scopes)),
    )


def make_server(application: Application) -> HTTPServer:
    """What takes connections and reads requests, with its limits."""
    return HTTPServer(
        application,
        idle_connection_timeout=HEADER_SECONDS,
        body_timeout=BODY_SECONDS,
        max_header_size=MAX_HEADER_BYTES,
        max_body_size=MAX_BODY_BYTES,  # of a form; handlers that take JSON read on and say why they refuse it
    )


class Listener(socket.socket):
    """A listening socket that turns clients away when there are too many, where tornado would find the same one waiting
    again and again, and no descriptor to take it in."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(fileno=listening.detach())
        self.most_clients = int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * CLIENTS_SHARE)
        self._spare = _open_null()

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            client, address = super().accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
                raise BlockingIOError from error
            raise
        if client.fileno() >= self.most_clients:  # the lowest free number is given out, so this many are in use
            client.close()
            raise BlockingIOError
        return client, address

    def _turn_away(self) -> None:
        """There is no descriptor left: hang up on whoever has waited longest."""
        self._let_go_of_spare()
        with suppress(OSError):
            super().accept()[0].close()
        with suppress(OSError):  # a thread may have been quicker
            self._spare = _open_null()

    def close(self) -> None:
        super().close()
        self._let_go_of_spare()

    def _let_go_of_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
        self._spare = -1


def _open_null() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
