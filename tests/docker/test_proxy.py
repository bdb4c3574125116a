"""What may be asked of an engine through the proxy: what the driver asks, and nothing that is more."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.docker.container import OWNER, UIDS, Container, Labels
from cellgate.sandbox.docker.driver import DockerDriver
from cellgate.sandbox.docker.engine import Engine, EngineFailed
from cellgate.sandbox.docker.guard import Ask, Refused, Rules, judge, read_ask
from cellgate.sandbox.docker.images import TEMPLATE_LABEL, LinkVersion, Template, usable_images
from cellgate.sandbox.docker.proxy import MAX_HEAD_BYTES, Proxy
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native.rootfs import covers_of_proc
from tests.docker.conftest import OpenDriver
from tests.support.drivers import SMALL

BOUND = 60.0
IMAGE = Template("python", f"sha256:{'1' * 64}", 1, "3.12", "python", "", "", "1")
DIRECTORY = Path("/var/lib/cellgate/gateway/docker")
RULES = Rules(DIRECTORY, "runc", {IMAGE.image: IMAGE}, (UIDS,), frozenset({"/proc/kcore"}))
LABELS = Labels("ab" * 16, str(DIRECTORY), "python", Limits(), UIDS[5], True, "here")


def config(labels: Labels = LABELS, image: str = IMAGE.image, directory: str = "") -> dict[str, Any]:
    """What the driver asks for."""
    place = directory or str(DIRECTORY / labels.id)
    return Container(labels, image, "python", place, "runc", True, ["/proc/kcore", "/proc/keys"]).to_engine()


def create(body: object, name: str = f"cellgate-{LABELS.id}") -> Ask:
    return Ask("POST", "/v1.41/containers/create", {"name": name}, json.dumps(body).encode())


def test_what_the_driver_asks_for_passes_as_it_is():
    verdict = judge(create(config()), RULES)
    assert (json.loads(verdict.ask.body), verdict.container) == (config(), "")


def with_host(**changed: object) -> dict[str, Any]:
    body = config()
    return {**body, "HostConfig": {**body["HostConfig"], **changed}}


@pytest.mark.parametrize(
    "body",
    [
        with_host(Privileged=True),
        with_host(Binds=["/:/host"]),
        with_host(Mounts=[{"Type": "bind", "Source": "/", "Target": "/host"}]),
        with_host(PidMode="host"),
        with_host(NetworkMode="host"),
        with_host(IpcMode="host"),
        with_host(UsernsMode="host"),
        with_host(CapAdd=["SYS_ADMIN"]),
        with_host(CapDrop=[]),
        with_host(SecurityOpt=[]),
        with_host(Devices=[{"PathOnHost": "/dev/sda"}]),
        with_host(Runtime="other"),
        with_host(ReadonlyPaths=[]),
        with_host(MaskedPaths=[]),
        with_host(MaskedPaths="/proc/kcore"),
        with_host(MaskedPaths=["/proc/kcore"]),
        with_host(MaskedPaths=["/sys", "/dev/mqueue", "/proc/kcore", "/proc/self/fd/7"]),
        with_host(MaskedPaths=["/sys", "/dev/mqueue", "/proc/kcore", "/proc/../etc"]),
        with_host(CgroupParent="/"),
        with_host(Memory=0),
        {**config(), "hostconfig": {"Privileged": True}},
        {**config(), "User": "0:0"},
        {**config(), "Image": "debian"},
        {**config(), "Cmd": ["sh"]},
        {**config(), "Entrypoint": ["sh"]},
        {**config(), "Volumes": {"/x": {}}},
        config(directory="/var/lib/cellgate/gateway/docker/../.."),
        config(image=f"sha256:{'2' * 64}"),
        {**config(), "Labels": {**config()["Labels"], "com.docker.compose.project": "another"}},
        {**config(), "Labels": {**config()["Labels"], "io.cellgate.id": 5}},
        {**config(), "Labels": {**config()["Labels"], "io.cellgate.template": ["python"]}},
        {**config(), "Labels": "io.cellgate.id"},
        {},
        [],
        None,
    ],
)
def test_whatever_is_more_or_less_than_that_is_refused(body):
    with pytest.raises(Refused):
        judge(create(body), RULES)


@pytest.mark.parametrize(
    "changed",
    [{"uid": 0}, {"uid": 1000}, {"id": "../" * 10}, {"id": "ab"}, {"owner": "/etc"}, {"template": "other"}],
)
def test_labels_that_are_not_a_sandboxs_of_this_driver_are_refused(changed):
    labels = Labels(**{**vars(LABELS), **changed})
    with pytest.raises(Refused):
        judge(create(config(labels), f"cellgate-{labels.id}"), RULES)


def test_a_container_by_another_name_is_refused():
    with pytest.raises(Refused):
        judge(create(config(), "database"), RULES)


def test_what_is_said_twice_is_handed_on_once():
    """An engine merges two objects of one name, where others take the last."""
    said = json.dumps(config())
    twice = '{"HostConfig": {"Privileged": true}, ' + said[1:]
    verdict = judge(Ask("POST", "/containers/create", {"name": f"cellgate-{LABELS.id}"}, twice.encode()), RULES)
    assert b"Privileged" not in verdict.ask.body


def test_what_a_start_says_of_its_container_is_not_handed_on():
    ask = Ask("POST", f"/v1.41/containers/{'a' * 64}/start", {}, b'{"Privileged": true}')
    verdict = judge(ask, RULES)
    assert (verdict.ask.body, verdict.container) == (b"", "a" * 64)


@pytest.mark.parametrize(
    "line",
    [
        "POST /v1.41/containers/x/start HTTP/1.1",
        f"POST /v1.41/containers/{'a' * 64}/exec HTTP/1.1",
        f"POST /v1.41/containers/{'a' * 64}/attach HTTP/1.1",
        f"POST /v1.41/containers/{'a' * 64}/update HTTP/1.1",
        f"POST /v1.20/containers/{'a' * 64}/start HTTP/1.1",
        f"POST /v1.41/containers/{'a' * 64}/start?checkpoint=mine&checkpoint-dir=/tmp HTTP/1.1",
        f"GET /v1.41/containers/{'a' * 64}/json?size=1 HTTP/1.1",
        f"GET /v1.41/containers/{'a' * 63}/json HTTP/1.1",
        f"GET /v1.41/containers/{'A' * 64}/json HTTP/1.1",
        f"GET /v1.41/../containers/{'a' * 64}/json HTTP/1.1",
        f"GET //containers/{'a' * 64}/json HTTP/1.1",
        f"get /v1.41/containers/{'a' * 64}/json HTTP/1.1",
        f"GET /v2.41/containers/{'a' * 64}/json HTTP/1.1",
        f"GET /v1.41/containers/{'a' * 64}/json;x HTTP/1.1",
        f"GET /v1.41/containers/{'a' * 64}/json#x HTTP/1.1",
        "GET //[ HTTP/1.1",
        "CONNECT /info HTTP/1.1",
        f"GET /v1.41/containers/{'a' * 64}/archive?path=/etc HTTP/1.1",
        f"GET /v1.41/containers/{'a' * 64}%2f..%2fjson/json HTTP/1.1",
        "POST /v1.41/images/create?fromImage=evil HTTP/1.1",
        "POST /v1.41/build HTTP/1.1",
        "GET /v1.41/containers/json HTTP/1.1",
        'GET /v1.41/containers/json?filters={"label":["com.example"]} HTTP/1.1',
        'GET /v1.41/events?filters={"label":{"io.cellgate.owner":false}} HTTP/1.1',
        "GET /v1.41/events HTTP/1.1",
        "GET /v1.41/secrets HTTP/1.1",
        "POST /v1.41/volumes/create HTTP/1.1",
        "GET http://example.com/info HTTP/1.1",
        "GET /info?a=1&a=2 HTTP/1.1",
        "GET /info HTTP/2",
        "nonsense",
    ],
)
def test_what_the_driver_never_asks_is_refused(line):
    with pytest.raises(Refused):
        judge(read_ask(line), RULES)


ASKED = [
    f"GET /v1.41/containers/{'a' * 64}/json HTTP/1.1",
    f"POST /containers/cellgate-{'a' * 32}/kill?signal=SIGINT HTTP/1.1",
    'GET /events?filters={"label":["io.cellgate.owner"]} HTTP/1.1',
]
ODD = '/.%\t\n\r\0;?#&= aA0[]@:\\"{}'


@given(st.sampled_from(ASKED), st.lists(st.tuples(st.integers(0, 80), st.sampled_from(ODD), st.booleans()), max_size=4))
def test_however_a_request_is_bent_it_is_refused_or_a_plain_path_of_the_drivers(line, bends):
    for at, odd, replaces in bends:
        line = line[:at] + odd + line[at + replaces :]
    try:
        verdict = judge(read_ask(line), RULES)
    except Refused:
        return
    assert re.fullmatch(r"(/v1\.\d\d)?/(events|containers/(\w|-)+/(json|kill))", verdict.ask.path, re.ASCII)
    assert verdict.ask.query.keys() <= {"filters", "signal"} and verdict.ask.body == b""


@given(st.lists(st.tuples(st.integers(0, 40_000), st.sampled_from(ODD), st.booleans()), min_size=1, max_size=3))
def test_however_a_container_is_bent_it_is_refused_or_what_its_labels_say(bends):
    ask, said = create(config()), json.dumps(config())
    for at, odd, replaces in bends:
        said = said[: at % len(said)] + odd + said[at % len(said) + replaces :]
    try:
        verdict = judge(replace(ask, body=said.encode()), RULES)
    except Refused:
        return
    body, wanted = json.loads(verdict.ask.body), config()
    assert body["HostConfig"].pop("MaskedPaths")[:3] == wanted["HostConfig"].pop("MaskedPaths")[:3]
    assert body["Labels"].pop("io.cellgate.seen-from") and wanted["Labels"].pop("io.cellgate.seen-from")
    assert body == wanted


# -- before an engine that writes down what it is asked --------------------------------------------------


class Scribe:
    """An engine's socket: answers well whatever is asked, and keeps each request with all that came behind it."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.owner = str(DIRECTORY)
        self.images: list[object] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = json.dumps(self.answer(head.split()[1])).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.write_eof()
        with suppress(OSError):
            self.asked.put_nowait(head + (await reader.read()).decode())
        writer.close()

    def answer(self, target: str) -> object:
        state = {"Running": True, "ExitCode": 0, "OOMKilled": False, "Pid": 7, "Error": ""}
        path = target.partition("?")[0]
        if path.endswith("/images/json"):
            return self.images
        if path.endswith("/containers/json"):
            return []
        about = {"ApiVersion": "1.41", "DefaultRuntime": "runc", "Id": "1"}
        return {**about, "State": state, "Config": {"Labels": {OWNER: self.owner}}, "memory_stats": {"usage": 5}}

    async def next(self, what: str) -> str:
        """The next request about this that comes through, or the proxy's own."""
        while True:
            asked = await asyncio.wait_for(self.asked.get(), BOUND)
            if what in asked.partition("\r\n")[0]:
                return asked


@pytest_asyncio.fixture
async def scribe(tmp_path: Path, monkeypatch) -> AsyncIterator[Scribe]:
    """DOCKER_HOST is a proxy before it."""
    scribe, behind, listen = Scribe(), tmp_path / "engine.sock", tmp_path / "proxy.sock"
    async with await asyncio.start_unix_server(scribe.serve, str(behind)):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{behind}")
        proxy = await asyncio.to_thread(Proxy, DIRECTORY)
        async with await asyncio.start_unix_server(proxy.serve, str(listen), limit=MAX_HEAD_BYTES):
            monkeypatch.setenv("DOCKER_HOST", f"unix://{listen}")
            yield scribe
        proxy.close()


MINE = "a" * 64
KILL = f"POST /v1.41/containers/{MINE}/kill?signal=SIGINT HTTP/1.1"


async def test_all_that_a_driver_asks_for_a_containers_life_is_handed_on(scribe: Scribe):
    engine = await asyncio.to_thread(Engine.open)
    for ask in (engine.start, engine.state, engine.reading, engine.labels_of, engine.remove):
        await engine.do(ask, MINE)  # raises for what is refused
    await engine.do(engine.facts)
    await engine.do(engine.containers, OWNER)
    await engine.do(engine.images, TEMPLATE_LABEL)
    await engine.do(engine.signal, MINE, "SIGINT")
    said: asyncio.Queue[object] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    engine.watch(f"{OWNER}={DIRECTORY}", lambda event: loop.call_soon_threadsafe(said.put_nowait, event))
    assert await asyncio.wait_for(said.get(), BOUND) is None  # the stream has begun
    engine.close()
    assert (await scribe.next("/kill")).startswith(KILL)


@pytest.mark.parametrize(
    "said",
    [
        f"{KILL}\r\n\r\nDELETE /containers/{'b' * 64}?force=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        f"{KILL}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        f"{KILL}\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        f"{KILL}\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"{KILL}\r\nX: y\r\n Content-Length: 7\r\n\r\nhello",
        f"{KILL}\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["a second request", "an upgrade", "pieces", "a line within a line", "a folded line", "a body"],
)
async def test_an_engine_is_told_one_request_in_our_words_whatever_is_wrapped_in_it(scribe: Scribe, said: str):
    reader, writer = await asyncio.open_unix_connection(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    writer.write(said.encode())
    with suppress(ConnectionError):  # what is too much is not read
        await asyncio.wait_for(reader.read(), BOUND)
    writer.close()
    ours = ["Host: docker", "Connection: close", "Content-Type: application/json", "Content-Length: 0", "", ""]
    assert (await scribe.next("/kill")).split("\r\n") == [KILL, *ours]


@pytest.mark.parametrize("ask", [KILL, f"GET /containers/{MINE}/json HTTP/1.1", f"DELETE /containers/{MINE} HTTP/1.1"])
async def test_a_container_of_somebody_else_is_looked_up_and_refused(scribe: Scribe, ask: str):
    scribe.owner = "/somebody/else"
    reader, writer = await asyncio.open_unix_connection(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    writer.write(f"{ask}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), BOUND)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 403 ") and b"somebody" not in answer
    assert (await scribe.next(MINE)).startswith(f"GET /v1.41/containers/{MINE}/json HTTP/1.1")  # asked by the proxy
    assert scribe.asked.empty()


async def test_a_driver_goes_on_with_the_images_that_it_began_with(scribe: Scribe):
    """Those were built anew meanwhile, and bear the names of the former."""

    def config_of(image: str) -> dict[str, Any]:
        hidden = [path for path, _ in covers_of_proc()]
        place = str(DIRECTORY / LABELS.id)
        return Container(LABELS, image, "python", place, "runc", True, hidden).to_engine()

    former, latter, other = (f"sha256:{digit * 64}" for digit in "123")
    engine = await asyncio.to_thread(Engine.open)
    for image in (former, latter):
        labels = {TEMPLATE_LABEL: "python", "io.cellgate.kernel": "python", "io.cellgate.link": LinkVersion}
        scribe.images = [{"Id": image, "RepoTags": ["cellgate/python:latest"], "Labels": labels, "Size": 1}]
        found = await engine.do(usable_images, engine)
        assert found["python"].image == image
    for image in (former, latter):
        await engine.do(engine.create, config_of(image), f"cellgate-{LABELS.id}")
    with pytest.raises(EngineFailed, match="would pass"):
        await engine.do(engine.create, config_of(other), f"cellgate-{LABELS.id}")
    engine.close()


def test_an_engine_that_is_far_away_is_none_to_stand_before(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.example:2375")
    with pytest.raises(EngineFailed, match=r"unix:///var/run/docker\.sock would pass"):
        Proxy(DIRECTORY)


# -- before a real engine ----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def directory_behind_proxy(open_driver: OpenDriver, tmp_path: Path, monkeypatch, request) -> AsyncIterator[Path]:
    """A driver's directory; the proxy for it is the engine that is asked from now on. Its parameter: the runtime."""
    runtime = getattr(request, "param", "runc")
    await (await open_driver(runtime=runtime)).close()  # there is an engine, and an image
    own, listen = tmp_path / "own", tmp_path / "engine.sock"
    words = ["--listen", str(listen), "--directory", str(own), "--images", "python", "--runtime", runtime]
    with subprocess.Popen([sys.executable, "-m", "cellgate.sandbox.docker.proxy", *words]) as proxy:
        try:
            while not answers(listen):
                assert proxy.poll() is None
                await asyncio.sleep(0.02)
            with monkeypatch.context() as patch:
                patch.setenv("DOCKER_HOST", f"unix://{listen}")
                yield own
        finally:
            proxy.terminate()
            assert proxy.wait(BOUND) == 0


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.mark.docker
@pytest.mark.parametrize("directory_behind_proxy", ["runc", "runsc"], indirect=True)
async def test_a_driver_lives_through_the_proxy_and_finds_its_sandboxes_again(directory_behind_proxy, request):
    runtime = request.node.callspec.params["directory_behind_proxy"]
    driver = await DockerDriver.start(directory=directory_behind_proxy, runtime=runtime)
    sandbox, ending = await asyncio.gather(*(driver.create(SandboxSpec(limits=SMALL, use_pool=False)) for _ in "12"))
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("x = 41; x", timeout=BOUND)).value == "41"
    assert (await ending.usage()).memory_bytes
    await ending.kill(Reason.TIMEOUT_WALL)
    assert (await asyncio.wait_for(ending.wait(), BOUND)).reason is Reason.TIMEOUT_WALL
    await ending.destroy()
    await driver.close()
    again = await DockerDriver.start(directory=directory_behind_proxy, runtime=runtime)
    assert [one.id for one in await again.sandboxes()] == [sandbox.id]
    for one in await again.sandboxes():
        assert (await one.destroy()).reason is Reason.SESSION_DELETED
    await again.close()


@pytest.mark.docker
async def test_another_container_of_the_host_is_out_of_reach(directory_behind_proxy, open_driver, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv("DOCKER_HOST")
        other = await open_driver()
        theirs = await other.create(SandboxSpec(limits=SMALL, use_pool=False))
    through = await asyncio.to_thread(Engine.open)
    try:
        for ask in (through.state, through.remove, through.start, through.reading):
            with pytest.raises(EngineFailed, match="owns would pass") as refused:
                await asyncio.to_thread(ask, theirs.container)
            assert refused.value.status == 403
        with pytest.raises(EngineFailed, match="hands on no such thing"):
            await asyncio.to_thread(through.run, "cellgate/python:latest", ["id"])
        assert await asyncio.to_thread(through.containers, f"{OWNER}={directory_behind_proxy}") == []
    finally:
        through.close()
    await theirs.destroy()


@pytest.mark.docker
@pytest.mark.parametrize(
    "said",
    [
        b"x" * 20_000,
        b"GET /info HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"GET /info HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /info HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 0\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
    ],
    ids=["a long head", "a huge body", "less than none", "in pieces", "two sizes", "no text"],
)
async def test_what_is_no_request_is_refused_and_the_proxy_lives(directory_behind_proxy, said):
    path = os.environ["DOCKER_HOST"].removeprefix("unix://")
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(said)
    answer = await asyncio.wait_for(reader.read(), BOUND)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 403 ")
    engine = await asyncio.to_thread(Engine.open)
    assert await asyncio.to_thread(engine.facts)
    engine.close()
