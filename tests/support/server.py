"""A real `cellgate serve` for tests, in a state directory of its own, of which nothing is left afterwards.

async with served("--profile", "testing") as server:
    reply = await server.fetch("POST", "/api/kernels")
    async with websockets.connect(server.channels_url(reply.json()["id"])) as websocket:
        ...
    await server.kill_gateway()    # and another takes its place
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.native.driver import NativeDriver

__all__ = ["BOUND", "Reply", "Server", "served", "until"]

BOUND = 30.0  # seconds, for whatever must happen; nothing waits for it to pass
END_SECONDS = 12.0  # the server promises ten
LAST_LINE = "Ctrl-C ends it"  # of what it prints when it serves


async def until(is_so: Callable[[], object], seconds: float = BOUND) -> None:
    """Wait for what nobody reports."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not is_so():
        assert asyncio.get_running_loop().time() < deadline, f"not so after {seconds} s"
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


class Server:
    """`start` and `end` may be called again and again; the state directory and the port stay the same."""

    def __init__(self, directory: Path, flags: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.state_dir = directory / "state"
        self.url = ""  # without a token, and without a slash at its end
        self.token = env.get("CELLGATE_TOKEN", "")
        self.port = 0
        self.greeting = ""  # what it printed
        self.python = sys.executable  # with which it is started
        self.process: asyncio.subprocess.Process | None = None
        self._log = directory / "log"
        self._flags = flags
        ours = {name: value for name, value in os.environ.items() if not _is_setting(name)}
        self._env = {**ours, **env}

    # -- its life

    def allow_descriptors(self, count: int) -> None:
        """It has no more than so many, from its next start on."""
        few = self.state_dir.with_name("python-with-few-descriptors")
        few.write_text(f'#!/bin/sh\nulimit -n {count}\nexec {self.python} "$@"\n')
        few.chmod(0o755)
        self.python = str(few)

    async def start(self, *flags: str) -> None:
        """Returns when it serves. Fails with what it said when it does not."""
        await self.spawn(*flags)
        await asyncio.wait_for(self._read_greeting(), BOUND)
        assert self.greeting, f"it does not serve: {self.log()}"

    async def spawn(self, *flags: str) -> None:
        """The same without waiting for it to serve, or asking that it does."""
        words = ["serve", "--state-dir", str(self.state_dir), "--port", str(self.port), *self._flags, *flags]
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.python, "-m", "cellgate", *words, stdout=asyncio.subprocess.PIPE, stderr=log, env=self._env
            )

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; its exit status. It is killed when it does not."""
        if self.process is None:
            return 0
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), END_SECONDS)
        except asyncio.TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise
        finally:
            self.process = None

    async def wait_ready(self) -> None:
        """Until clients are answered, also while one gateway takes the place of another."""
        deadline = asyncio.get_running_loop().time() + BOUND
        while True:
            try:
                await self.fetch("GET", "/api")
                return
            except OSError:  # the one that took the connection died over it
                assert asyncio.get_running_loop().time() < deadline, self.log()

    def log(self) -> str:
        """All that it wrote to standard error, under all its processes."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    # -- its processes

    @property
    def keeper_pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def gateway_pid(self) -> int:
        """0 while there is none."""
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with suppress(OSError):
                    _, comm, rest = re.split(r" \((.*)\) ", Path("/proc", name, "stat").read_text(), maxsplit=1)
                    state, parent = rest.split()[:2]
                    if comm == "cellgate-gw" and int(parent) == self.keeper_pid and state != "Z":
                        return int(name)
        return 0

    def warden_pid(self) -> int:
        """Of the process that listens in the state directory. 0 when there is none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as knock, suppress(OSError):
            knock.connect(self.warden_path)
            return struct.unpack("iII", knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return 0

    @property
    def warden_path(self) -> str:
        return str(self.state_dir / "warden" / "socket")

    async def kill_gateway(self) -> None:
        """Returns when it is gone; another is on its way then."""
        await until(lambda: self.gateway_pid() != 0)
        pid = self.gateway_pid()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: self.gateway_pid() != pid)

    # -- its clients

    async def fetch(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """One request with the token; `body` is sent as JSON. Raises OSError."""
        return await asyncio.to_thread(self._fetch, method, path, body, headers)

    def _fetch(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        sent = {"Authorization": f"token {self.token}", "Content-Type": "application/json", **headers}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def channels_url(self, kernel_id: str, session_id: str = "") -> str:
        """Where a Jupyter client's websocket goes."""
        session = f"&session_id={session_id}" if session_id else ""
        return f"ws://127.0.0.1:{self.port}/api/kernels/{kernel_id}/channels?token={self.token}{session}"

    # -- within

    async def _read_greeting(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        said = ""
        while line := (await self.process.stdout.readline()).decode():
            said += line
            if line.startswith(LAST_LINE):
                break
        found = re.search(r"^ +(http\S+)$", said, re.MULTILINE)
        self.greeting = said if found else ""
        if found:
            url = urlsplit(found[1])
            self.port, self.url = url.port or 80, f"{url.scheme}://{url.netloc}"
            self.token = parse_qs(url.query).get("token", [self.token])[0]

    async def end_warden(self) -> None:
        """With every sandbox; nothing is left of it then."""
        with suppress(DriverUnavailable):  # there is none
            driver = await NativeDriver.connect(self.warden_path)
            await asyncio.wait_for(driver.shut_down(), BOUND)


def _is_setting(name: str) -> bool:
    return name.startswith("CELLGATE_") and name != "CELLGATE_TEST_RUN"


@asynccontextmanager
async def served(*flags: str, env: Mapping[str, str] | None = None, start: bool = True) -> AsyncIterator[Server]:
    """A server that serves, unless it is not to be started yet. Ends with everything it made. Skips the test where
    there can be no native sandbox."""
    with tempfile.TemporaryDirectory(prefix="cellgate-test-", ignore_cleanup_errors=False) as name:
        directory = Path(name)
        directory.chmod(0o711)  # of root's it is open to the gateway, who is somebody else
        server = Server(directory, flags, env or {})
        try:
            if start:
                try:
                    await server.start()
                except AssertionError:
                    if "error[driver_unavailable]" in server.log():
                        pytest.skip(server.log())
                    raise
            yield server
        finally:
            try:
                await server.end()
            finally:
                await server.end_warden()
                shutil.rmtree(server.state_dir, ignore_errors=True)
