"""Real clients, unmodified, against a server of which they are told a URL and a token.

`CELLGATE_CLIENTS_AGAINST=jupyter` puts a stock Jupyter server in Cellgate's place: what fails there too is the client's
fault or the test's, unless `PEER_FAULTS` names it. Clients that are written in another language, or want their own
versions of everything, are installed once, into the user's cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
AGAINST = os.environ.get("CELLGATE_CLIENTS_AGAINST", "cellgate")
INSTALL_SECONDS = 300.0
PLAY_SECONDS = 60.0  # several times what it takes on a busy machine

# What a stock Jupyter server is known to do otherwise, by the name of the scenario or the test.
PEER_FAULTS = {
    "megabytes come whole": "it limits the rate of output and drops what is beyond",
    "a network that swallows what was under way": "what was written to a socket counts as delivered",
    "a cell that ends while nobody is connected": "the same: the reply is lost, and the page waits for ever",
    "a page loaded in the middle of a cell": "output that was sent is not kept",
    "a kernel that dies": "the cell gets no reply, no error and no idle",
    "that_dies": "the same",
    "test_an_agent": "the same; and what is printed before a fresh connection has subscribed is lost",
}


@dataclass(frozen=True)
class Server:
    """All that a client is told."""

    url: str  # http://host:port
    token: str
    log: Callable[[], str]  # for who must find out what went wrong

    @property
    def host(self) -> str:
        return self.url.partition("://")[2].rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """What the server itself says, beside the client under test."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            text = response.read()
        return json.loads(text) if text else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.timeout(INSTALL_SECONDS + PLAY_SECONDS))
        reason = next((why for name, why in PEER_FAULTS.items() if name in item.name), None)
        if AGAINST == "jupyter" and reason:
            item.add_marker(pytest.mark.xfail(reason=reason, run=False))


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if AGAINST == "jupyter":
        with stock_server(tmp_path_factory.mktemp("jupyter")) as server:
            yield server
    else:
        from tests.support.server import served

        with contextlib.closing(asyncio.new_event_loop()) as loop:
            stack = contextlib.AsyncExitStack()
            cellgate = loop.run_until_complete(stack.enter_async_context(served()))
            try:
                yield Server(cellgate.url, cellgate.token, cellgate.log)
            finally:
                loop.run_until_complete(stack.aclose())


@pytest.fixture
def server(one_server: Server) -> Iterator[Server]:
    """The server; no kernel that a test leaves there meets the next one."""
    yield one_server
    for kernel in one_server.ask("/api/kernels"):
        with contextlib.suppress(urllib.error.HTTPError):  # it ended meanwhile
            one_server.ask(f"/api/kernels/{kernel['id']}", "DELETE")


@contextlib.contextmanager
def stock_server(directory: Path, *arguments: str, token: str | None = None) -> Iterator[Server]:
    """`jupyter server` as PyPI has it, on a port of its choice, with all that it writes in `directory`. With an empty
    token it is open to all of this host."""
    token = secrets.token_hex(16) if token is None else token
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={directory}", *arguments]
    places = {f"JUPYTER_{kind}_DIR": str(directory / kind.lower()) for kind in ("RUNTIME", "CONFIG", "DATA")}
    log = directory / "log.txt"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env={**os.environ, **places, "JUPYTER_PLATFORM_DIRS": "0"}, stdout=sink, stderr=sink
        )
    try:
        told = directory / "runtime" / f"jpserver-{process.pid}.json"
        wait_for(lambda: told.exists() and told.read_text().endswith("}"), process, log)
        yield Server(json.loads(told.read_text())["url"].rstrip("/"), token, lambda: log.read_text(errors="replace"))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """For what a program does when it has started."""
    deadline = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{process.args!r} did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.02)


# Clients that live in another place


@dataclass(frozen=True)
class Player:
    """Runs programs by a client of its own installation."""

    command: Sequence[str]
    environment: dict[str, str]

    def play(self, server: Server, directory: Path, file: Path, *arguments: str) -> None:
        """A program is told the server after its own arguments; whatever did not hold, it says on its way out."""
        try:
            run = subprocess.run(
                [*self.command, str(file), *arguments, server.url, server.token],
                env={**os.environ, **self.environment},
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=PLAY_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            pytest.fail(f"did not end in {PLAY_SECONDS:g} s:\n{told(late.stdout)}{told(late.stderr)}", pytrace=False)
        if run.returncode:
            pytest.fail(f"{run.stdout}{run.stderr}\nserver's log:\n{server.log()[-4000:]}", pytrace=False)


def told(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


@pytest.fixture(scope="session")
def node() -> Player:
    """Node, with the packages of `node/package-lock.json`."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    version = run("node", "--version")
    if int(version.lstrip("v").partition(".")[0]) < 18:
        pytest.skip(f"needs Node 18 or newer, for fetch; here is {version}")
    lock = (HERE / "node" / "package-lock.json").read_bytes()

    def install(place: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "node" / name, place)
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=place)

    place = installed("node", [lock, version.encode()], install)
    return Player(["node"], {"NODE_PATH": str(place / "node_modules")})


@pytest.fixture(scope="session")
def agents() -> Player:
    """A Python of its own, with the packages of `agents/requirements.txt`."""
    requirements = HERE / "agents" / "requirements.txt"

    def install(place: Path) -> None:
        run(sys.executable, "-m", "venv", str(place))
        run(str(place / "bin/pip"), "install", "--disable-pip-version-check", "-r", str(requirements))

    place = installed("agents", [requirements.read_bytes(), sys.executable.encode(), sys.version.encode()], install)
    return Player([str(place / "bin/python")], {"PYTHONPATH": str(HERE.parents[1])})


def installed(name: str, made_of: list[bytes], install: Callable[[Path], None]) -> Path:
    """The directory of an installation, made by the first who asks; the others, of this run or another, wait for it."""
    key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cellgate-tests"
    place = cache / f"{name}-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            try:
                install(place)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failed:
                pytest.skip(f"cannot install {name}: {failed} {told(failed.stderr)[-1000:]}")
            (place / "complete").touch()
    return place


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL, check=True
    )
    return done.stdout.strip()
