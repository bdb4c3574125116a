"""What the keeper's child does to be the gateway: gives up its rights, and serves until it is told to end.

A program may lie where only root can enter. So all that is imported or read from there, is, before the rights go.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from cellgate.commands.exits import ExitStatus, status_of_error
from cellgate.errors import CellgateError, DriverUnavailable, UsageError
from cellgate.live import judging
from cellgate.live.judging import Judges
from cellgate.policy.policies import Policy
from cellgate.sandbox.base import Driver
from cellgate.sandbox.drivers import load_docker, open_driver
from cellgate.sandbox.native import linux
from cellgate.sandbox.native.commands import MAX_PACKET_BYTES, unpack
from cellgate.sandbox.native.driver import NativeDriver, as_error
from cellgate.serve.keeper import WARDEN, serving
from cellgate.serve.logs import set_up_logs
from cellgate.serve.places import Account, Places
from cellgate.settings import Settings

__all__ = ["GatewayProcess", "about_native", "load_everything"]

RunGateway = Callable[..., Coroutine[Any, Any, None]]  # `cellgate.gateway.server.run_gateway`, which is imported late
GC_THRESHOLD: Final = (
    10_000  # messages on their way are tuples without cycles: looked at in 700s they cost 6 % of a flood
)
WARDEN_SECONDS: Final = 30.0  # until one that is started has spoken; some 200 ms on an idle host
NAME: Final = "cellgate-gw"  # in `ps`, where the command line is the keeper's
# Imported by others at their first use: by datetime.strptime, by an executor, by codecs.
_LATE: Final = (
    "_strptime",
    "concurrent.futures.thread",
    "encodings.idna",
    "encodings.latin_1",
    "stringprep",
    "tornado.gen",
    "tornado.locale",
    "tornado.platform.asyncio",
    "tornado.template",
    "unicodedata",
)


def load_everything(driver: str = NativeDriver.name) -> RunGateway:
    """All that the gateway will need of the installation; returns what serves. Raises DriverUnavailable."""
    if driver == "docker":
        load_docker()
    for name in _LATE:
        importlib.import_module(name)
    server = importlib.import_module("cellgate.gateway.server")
    run_gateway: RunGateway = partial(server.run_gateway, installed=server.Installed.read())
    judging.preload()
    gc.collect()
    gc.freeze()  # a gateway shares these pages with the keeper, and with its successor
    gc.set_threshold(GC_THRESHOLD)
    return run_gateway


@dataclass(frozen=True)
class GatewayProcess:
    """The gateway as the keeper forks it; the same one again and again."""

    settings: Settings
    policy: Policy
    token: str = field(repr=False)
    places: Places
    account: Account | None
    sockets: list[socket.socket]
    run_gateway: RunGateway
    end_sessions: bool = False
    engine: int | None = None  # the group that may ask a Docker engine, when one makes the sandboxes
    keeper: int = field(default_factory=os.getpid)  # who makes this

    def __call__(self, line: socket.socket) -> int:
        """Be the gateway, until told to end; the exit status."""
        try:
            become(self.account, keeper=self.keeper, engine=self.engine)
            judges = Judges()
            judges.start()
            set_up_logs(self.settings.log_format)
            asyncio.run(self._serve(line, judges))
        except CellgateError as error:
            sys.stderr.write(f"cellgate: error[{error.code}]: {error}\n")
            return int(status_of_error(error))
        return int(ExitStatus.OK)

    async def _serve(self, line: socket.socket, judges: Judges) -> None:
        line.setblocking(False)
        warden = _Warden(self, line)
        await self.run_gateway(
            self.settings,
            self.sockets,
            self.token,
            warden.open_driver,
            self.places.gateway,
            tokens=self.places.tokens,
            policy=self.policy,
            judges=judges,
            end_sessions=self.end_sessions,
            on_serving=lambda: line.send(serving(warden.about)),
        )
        if self.end_sessions:
            await warden.end_if_idle()


class _Warden:
    """The driver, by way of the keeper where it takes rights to start what drives."""

    def __init__(self, process: GatewayProcess, line: socket.socket) -> None:
        self._process = process
        self._line = line
        self._path = str(process.places.warden)
        self.about = process.settings.driver

    async def open_driver(self) -> Driver:
        """One that is in order. Raises DriverUnavailable."""
        settings = self._process.settings
        if settings.driver == "docker":
            return await self._open_docker(settings)
        if settings.driver != NativeDriver.name:
            return await self._open_plain()
        await self._ask_for_warden()
        driver = await NativeDriver.connect(self._path)
        self.about = about_native(driver.hello.result())
        return driver

    async def _open_docker(self, settings: Settings) -> Driver:
        from cellgate.sandbox.docker.driver import DockerDriver

        driver = await DockerDriver.start(
            runtime=settings.runtime, images=settings.images, directory=self._process.places.gateway / "docker"
        )
        self.about = f"docker: engine {driver.facts.version}, runtime {driver.runtime}"
        return driver

    async def _open_plain(self) -> Driver:
        name = self._process.settings.driver
        if not os.access(sys.executable, os.X_OK):
            raise DriverUnavailable(
                name,
                f"uid {os.geteuid()}, as whom the gateway runs, cannot run {sys.executable}",
                "install Cellgate where everybody may read it",
            )
        self.about = f"{name}: it contains nothing, and its kernels end with the gateway"
        return await open_driver(name)

    async def _ask_for_warden(self) -> None:
        """Raises DriverUnavailable: the keeper could start none, or is gone."""
        loop = asyncio.get_running_loop()
        with suppress(BlockingIOError):  # what answers somebody who did not wait for it
            while self._line.recv(MAX_PACKET_BYTES):
                pass
        with suppress(OSError):  # what the keeper had to say is read first
            await loop.sock_sendall(self._line, WARDEN)
        try:
            packet = await asyncio.wait_for(loop.sock_recv(self._line, MAX_PACKET_BYTES), WARDEN_SECONDS)
        except asyncio.TimeoutError:
            missing = f"a warden that was started said nothing in {WARDEN_SECONDS:g} s"
            raise DriverUnavailable("native", missing, f"{self._path}.log may say why") from None
        if not packet:
            raise DriverUnavailable("native", "the keeper of this gateway is gone", "start `cellgate serve` again")
        if said := unpack(packet):
            raise as_error(said)

    async def end_if_idle(self) -> None:
        """The warden too, when it holds nothing of anybody's."""
        if self._process.settings.driver == NativeDriver.name:
            with suppress(DriverUnavailable):  # it has ended already
                driver = await NativeDriver.connect(self._path)
                if not await driver.sandboxes():
                    await driver.shut_down()
                await driver.close()


def become(account: Account | None, *, keeper: int, engine: int | None = None) -> None:
    """Give up what the keeper may and a gateway need not; end when the keeper ends. Raises UsageError."""
    os.setsid()  # a terminal's Ctrl-C is the keeper's to understand
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each session and each client costs one or more
    if account is not None:
        try:
            os.setgroups([] if engine is None else [engine])
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
        except OSError as error:
            raise UsageError(
                f"root cannot become uid {account.uid} here ({error.strerror}); "
                "a user named `cellgate`, or a start by somebody who is not root, would pass"
            ) from error
        linux.set_no_new_privs()
    linux.set_dumpable(False)  # nobody of the same uid reads the token in its memory, and no core file holds it
    linux.set_name(NAME)
    # Sessions live on either way, so nothing is gained by an end that takes time, and a new keeper can begin at once.
    linux.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(ExitStatus.FAILED)


def about_native(hello: Mapping[str, object]) -> str:
    """Of a warden's greeting, what an operator wants to know."""
    how = "as root, a uid for each sandbox" if hello["is_host_root"] else "without root, in a user namespace"
    return f"native: {how}, cgroup version {hello['cgroup']}; `cellgate doctor` tells what holds on this host"
