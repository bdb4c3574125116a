"""The Docker engine, as the driver asks it: the one module here that knows the SDK.

Every call blocks, and is made on a small pool of threads of its own; every failure becomes `EngineFailed`, which says
whether the engine answered at all. What is asked, and what follows from an answer, is decided by others.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException

from cellgate.sandbox.native.cgroups import Reading

__all__ = ["Engine", "EngineFailed", "Event", "Facts", "Found", "Image", "State"]

Result = TypeVar("Result")

THREADS: Final = 8  # calls at once; the engine itself starts some five containers a second
CALL_SECONDS: Final = 60.0  # an engine on a busy host takes seconds for a start; what takes a minute has failed
EVENTS: Final = ("die", "kill", "oom")
RETRY_SECONDS: Final = 0.5  # before a stream of events that broke is asked for again
GONE: Final = (404, 409)  # there is no such container, or it runs no more: what was wanted is so


class EngineFailed(Exception):
    """The engine refused, or did not answer (`status` is 0 then)."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself."""

    version: str
    runtimes: tuple[str, ...]
    default_runtime: str
    maps_uids: bool  # in a user namespace of its own, where large numbers mean nobody
    memory_bytes: int
    cpus: int


@dataclass(frozen=True)
class State:
    is_running: bool
    exit_code: int
    was_out_of_memory: bool
    pid: int  # on the engine's host; 0 when it runs no more
    error: str


@dataclass(frozen=True)
class Found:
    """One of a list of containers."""

    container: str
    labels: Mapping[str, str]
    is_running: bool


@dataclass(frozen=True)
class Image:
    id: str
    names: tuple[str, ...]
    labels: Mapping[str, str]
    size_bytes: int


@dataclass(frozen=True)
class Event:
    """What happened to a container. `None` in place of one: the stream begins anew, and something may be missing."""

    container: str
    action: str  # one of EVENTS
    exit_code: int = 0
    signal: int = 0  # that somebody had the engine send, or that the engine sends when it stops; 0 for one unknown


class Engine:
    """Whoever opened it owes it a `close`."""

    def __init__(self, client: docker.APIClient) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(THREADS, "cellgate-docker")
        self._closing = threading.Event()
        self._stream: Any = None  # of events, while one is open
        self._watching: threading.Thread | None = None

    @staticmethod
    def open() -> Engine:
        """The engine that the environment names (DOCKER_HOST), or the host's own. Raises EngineFailed."""
        with _failing():
            client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=CALL_SECONDS)
        client.headers["Connection"] = "close"  # a connection kept would be a descriptor that outlives its use
        return Engine(client)

    def close(self) -> None:
        self._closing.set()
        with suppress(Exception):  # it may never have begun
            self._stream.close()
        self._threads.shutdown(wait=False)
        self._client.close()

    async def do(self, function: Callable[..., Result], *args: object) -> Result:
        """One of the methods below, on a thread. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args))

    # -- what can be asked; each raises EngineFailed ---------------------------------------------------

    def facts(self) -> Facts:
        with _failing():
            info = self._client.info()
        options = " ".join(info.get("SecurityOptions") or ())
        return Facts(
            version=str(info.get("ServerVersion", "")),
            runtimes=tuple(info.get("Runtimes") or ()),
            default_runtime=str(info.get("DefaultRuntime", "")),
            maps_uids="name=userns" in options or "name=rootless" in options,
            memory_bytes=int(info.get("MemTotal") or 0),
            cpus=int(info.get("NCPU") or 0),
        )

    def create(self, config: Mapping[str, Any], name: str) -> str:
        with _failing():
            return str(self._client.create_container_from_config(dict(config), name)["Id"])

    def start(self, container: str) -> None:
        with _failing():
            self._client.start(container)

    def signal(self, container: str, name: str) -> None:
        """Does nothing to one that has ended."""
        with _failing(GONE):
            self._client.kill(container, name)

    def remove(self, container: str) -> None:
        """Whether it runs or not; does nothing when there is none."""
        with _failing(GONE):
            self._client.remove_container(container, force=True, v=True)

    def state(self, container: str) -> State | None:
        """None when there is no such container."""
        try:
            with _failing():
                said = self._client.inspect_container(container)["State"]
        except EngineFailed as error:
            if error.status == 404:
                return None
            raise
        return State(said["Running"], said["ExitCode"], said["OOMKilled"], said["Pid"], said["Error"])

    def reading(self, container: str) -> Reading | None:
        """What it uses, as the engine counts it; None when it runs no more. Not how often it met its limits."""
        try:
            with _failing():
                said = self._client.stats(container, stream=False, one_shot=True)
        except EngineFailed as error:
            if error.status in GONE:
                return None
            raise
        memory, cpu = said.get("memory_stats") or {}, said.get("cpu_stats", {}).get("cpu_usage", {})
        if "usage" not in memory:
            return None
        return Reading(
            memory_limit_bytes=memory.get("limit"),
            memory_bytes=memory["usage"],
            memory_peak_bytes=memory.get("max_usage", memory["usage"]),
            oom_kills=0,
            pids_limit_hits=0,
            pids=said.get("pids_stats", {}).get("current", 0),
            cpu_seconds=cpu.get("total_usage", 0) / 1e9,
        )

    def containers(self, label: str) -> list[Found]:
        """All that bear a label (`name` or `name=value`), those that ended too."""
        with _failing():
            found = self._client.containers(all=True, filters={"label": [label]})
        return [Found(one["Id"], one["Labels"] or {}, one["State"] == "running") for one in found]

    def labels_of(self, container: str) -> Mapping[str, str] | None:
        """None when there is no such container."""
        try:
            with _failing():
                return self._client.inspect_container(container)["Config"]["Labels"] or {}
        except EngineFailed as error:
            if error.status == 404:
                return None
            raise

    def images(self, label: str) -> list[Image]:
        with _failing():
            found = self._client.images(filters={"label": [label]})
        return [Image(one["Id"], tuple(one["RepoTags"] or ()), one["Labels"] or {}, one["Size"]) for one in found]

    # -- images ----------------------------------------------------------------------------------------

    def image_id(self, name: str) -> str | None:
        with _failing():
            found = self._client.images(name)
        return str(found[0]["Id"]) if found else None

    def labels(self, name: str) -> Mapping[str, str] | None:
        """Of an image; None when there is none of this name."""
        with _failing():
            found = self._client.images(name)
        return (found[0]["Labels"] or {}) if found else None

    def pull(self, name: str) -> str:
        """Returns its name."""
        with _failing():
            repository, tag = docker.utils.parse_repository_tag(name)
            self._client.pull(repository, tag or "latest")
        return name

    def import_root(self, root: Path, name: str) -> None:
        with _failing():
            repository, _, tag = name.partition(":")
            self._client.import_image_from_file(str(root), repository=repository, tag=tag)

    def build(self, context: IO[bytes], *, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> None:
        """Without a network, from a tar with a Dockerfile in it."""
        said: list[str] = []
        with _failing():
            for line in self._client.build(
                fileobj=context, custom_context=True, tag=tag, buildargs=dict(arguments), labels=dict(labels),
                rm=True, forcerm=True, network_mode="none", decode=True,
            ):  # fmt: skip
                if "error" in line:
                    raise EngineFailed(f"{line['error']}; it said before: {''.join(said)[-1000:]}", 500)
                said.append(line.get("stream", ""))

    def run(self, image: str, words: list[str]) -> str:
        """What a command in a container prints; it has no network, and nothing of ours."""
        with _failing():
            host = self._client.create_host_config(network_mode="none", log_config={"type": "json-file"})
            container = self._client.create_container(image, words, host_config=host, entrypoint=[])["Id"]
            try:
                self._client.start(container)
                self._client.wait(container)
                return bytes(self._client.logs(container)).decode(errors="replace")
            finally:
                self._client.remove_container(container, force=True)

    def save_root(self, image: str, file: IO[bytes]) -> None:
        """All its files, as a tar."""
        with _failing():
            container = self._client.create_container(image, ["true"], entrypoint=[])["Id"]  # it is never started
            try:
                for piece in self._client.export(container):
                    file.write(piece)
            finally:
                self._client.remove_container(container, force=True)

    def remove_image(self, name: str) -> None:
        with _failing(GONE):
            self._client.remove_image(name)

    # -- events ----------------------------------------------------------------------------------------

    def watch(self, label: str, on_event: Callable[[Event | None], object]) -> None:
        """Call `on_event`, on a thread, for all that happens to containers with this label, until `close`. It is
        called with None whenever the stream has begun, so that what happened before can be looked up."""
        self._watching = threading.Thread(
            target=self._watch, args=(label, on_event), name="cellgate-docker-events", daemon=True
        )
        self._watching.start()

    def _watch(self, label: str, on_event: Callable[[Event | None], object]) -> None:
        filters = {"type": ["container"], "event": list(EVENTS), "label": [label]}
        while not self._closing.is_set():
            since = int(time.time()) - 1  # what happens while the stream is being made is told too
            try:
                self._stream = self._client.events(since=since, filters=filters, decode=True)
                on_event(None)
                for said in self._stream:
                    about = said["Actor"]["Attributes"]
                    numbers = (_number(about.get(name)) for name in ("exitCode", "signal"))
                    on_event(Event(said["Actor"]["ID"], said["Action"], *numbers))
            except Exception:  # of any library on the way; the engine is gone, or we are
                pass
            self._closing.wait(RETRY_SECONDS)


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


@contextmanager
def _failing(passing: Sequence[int] = ()) -> Iterator[None]:
    """Whatever the SDK raises as EngineFailed, but for answers of these statuses, which are as good as success."""
    try:
        yield
    except APIError as error:
        status = error.response.status_code if error.response is not None else 500
        if status not in passing:
            raise EngineFailed(str(error.explanation or error), status) from error
    except (DockerException, requests.RequestException, OSError, ValueError) as error:
        where = os.environ.get("DOCKER_HOST", "/var/run/docker.sock")
        raise EngineFailed(f"the Docker engine at {where} does not answer: {error}") from error
