"""Cells are judged by `cellgate serve` before their kernel gets them: over real websockets in both of Jupyter's
protocols, with real sandboxes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import websockets

from cellgate.live.judging import NURSERY_NAME, WORKER_NAME
from cellgate.wire.jupyter import Dialect, execute_content, make_message, parse_message
from cellgate_kernel.message import CHANNELS, Channel, join_v1
from tests.support.server import BOUND, Server, served, until

pytestmark = [pytest.mark.native, pytest.mark.asyncio(loop_scope="module")]

NUMBERS = itertools.count(1)
BOTH = pytest.mark.parametrize("dialect", list(Dialect), ids=lambda dialect: dialect.name.lower())


class Talk:
    """One websocket, in either protocol."""

    def __init__(self, websocket, dialect: Dialect) -> None:
        self._websocket = websocket
        self._dialect = dialect
        self.heard: list[dict[str, Any]] = []

    async def send(self, kind: str, content: dict, channel: Channel = Channel.SHELL) -> str:
        msg_id = f"m{next(NUMBERS)}"
        _, parts = make_message(kind, content, channel=channel, msg_id=msg_id, session="s", date="")
        if self._dialect is Dialect.V1:
            await self._websocket.send(b"".join(join_v1(CHANNELS[channel], parts)))
        else:
            names = ("header", "parent_header", "metadata", "content")
            message = {name: json.loads(bytes(part)) for name, part in zip(names, parts)}
            await self._websocket.send(json.dumps({**message, "channel": channel.name.lower()}))
        return msg_id

    async def run(self, code: str, **options) -> list[dict[str, Any]]:
        return await self.answers(await self.send("execute_request", execute_content(code, **options)))

    async def answers(self, msg_id: str) -> list[dict[str, Any]]:
        """All up to both reply and idle."""

        def is_over() -> bool:
            kinds = [m["msg_type"] for m in self.of(msg_id)]
            idle = any(m["content"].get("execution_state") == "idle" for m in self.of(msg_id))
            return idle and any(kind.endswith("_reply") or kind.startswith("comm") for kind in kinds)

        while not is_over():
            data = await asyncio.wait_for(self._websocket.recv(), BOUND)
            if self._dialect is Dialect.V1:
                self.heard.append(dict(parse_message(memoryview(data))))
            else:
                message = json.loads(data)
                self.heard.append({**message, "parent_id": message["parent_header"].get("msg_id", "")})
        return self.of(msg_id)

    def of(self, msg_id: str) -> list[dict[str, Any]]:
        return [m for m in self.heard if m["parent_id"] == msg_id]


@asynccontextmanager
async def talk(server: Server, dialect: Dialect = Dialect.V1, *, kernel: str = "", **wish):
    if not kernel:
        reply = await server.fetch("POST", "/api/kernels", wish)
        assert reply.status == 201, reply.body
        kernel = reply.json()["id"]
    protocols = [dialect.value] if dialect.value else None
    async with websockets.connect(
        server.channels_url(kernel, "me"), max_size=None, subprotocols=protocols
    ) as websocket:
        yield Talk(websocket, dialect)


def reply_of(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return next(m for m in messages if m["msg_type"].endswith("_reply"))


def reason_of(messages: list[dict[str, Any]]) -> str:
    return reply_of(messages)["metadata"].get("cellgate", {}).get("reason", "")


def shown(messages: list[dict[str, Any]]) -> list[str]:
    return [m["content"].get("execution_state") or m["msg_type"] for m in messages]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """For all that leave it as it is."""
    async with served("--profile", "testing") as server:
        yield server


@BOTH
async def test_a_denied_cell_is_told_in_the_clients_own_protocol(server, dialect):
    async with talk(server, dialect, policy="strict") as client:
        assert reason_of(await client.run("x = 40 + 2")) == ""
        denied = await client.run("x = 1\nimport socket")
        assert shown(denied) == ["busy", "error", "execute_reply", "idle"]
        error = denied[1]["content"]
        assert error["ename"] == "PolicyDenied"
        assert "    import socket\n           ^^^^^^" in "\n".join(error["traceback"])
        facts = reply_of(denied)["metadata"]["cellgate"]
        assert (facts["reason"], facts["policy"]) == ("policy_denied", "strict")
        assert [(f["rule"], f["line"]) for f in facts["findings"] if f["rule"] == "module"] == [("module", 2)]
        results = [
            m["content"]["data"]["text/plain"] for m in await client.run("x") if m["msg_type"] == "execute_result"
        ]
        assert results == ["42"]


@BOTH
@pytest.mark.parametrize(
    ("kind", "content", "channel", "denied"),
    [
        ("complete_request", {"code": "eval(x); pri", "cursor_pos": 12}, Channel.SHELL, "complete_reply"),
        ("inspect_request", {"code": "eval(x)", "cursor_pos": 3}, Channel.SHELL, "inspect_reply"),
        ("debug_request", {"type": "request", "command": "debugInfo", "seq": 1}, Channel.CONTROL, "debug_reply"),
        ("comm_open", {"comm_id": "c1", "target_name": "none", "data": {}}, Channel.SHELL, "comm_close"),
    ],
)
async def test_requests_of_each_kind_are_judged(server, dialect, kind, content, channel, denied):
    async with talk(server, dialect, policy="strict") as client:
        heard = await client.answers(await client.send(kind, content, channel))
        answer = next(m for m in heard if m["msg_type"] == denied)
        assert answer["metadata"]["cellgate"]["reason"] == "policy_denied"
        assert answer["metadata"]["cellgate"]["findings"]
        assert answer["content"].get("status", "error") == "error"
    async with talk(server, dialect) as client:  # which the default does not deny
        heard = await client.answers(await client.send(kind, content, channel))
        assert not any(m["metadata"].get("cellgate", {}).get("reason") for m in heard)


async def test_the_default_warns_of_the_network_and_lets_run(server):
    async with talk(server) as client:
        heard = await client.run("import socket\nsocket.socket\nprint(1)")
        notes = [m for m in heard if m["metadata"].get("cellgate", {}).get("note") == "policy_warnings"]
        assert len(notes) == 1
        assert notes[0]["content"]["name"] == "stderr"
        assert reply_of(heard)["content"]["status"] == "ok"


async def test_a_session_only_tightens_and_its_policy_survives_every_end_of_the_gateway():
    async with served("--profile", "testing") as server:
        refused = await server.fetch("POST", "/api/kernels", {"policy": "off"})
        assert (refused.status, refused.json()["code"]) == (422, "usage")
        assert "tighter" in refused.json()["message"]
        made = await server.fetch("POST", "/api/kernels", {"policy": {"deny": ["network"]}})
        kernel = made.json()["id"]
        for kill in (None, server.kill_gateway):
            if kill is not None:
                await kill()
                await server.wait_ready()
            async with talk(server, kernel=kernel) as client:
                assert reason_of(await client.run("import socket")) == "policy_denied"
                assert reply_of(await client.run("1"))["content"]["status"] == "ok"


async def test_a_policy_may_be_a_file_that_only_root_can_read(tmp_path):
    path = tmp_path / "class.toml"
    path.write_text('extends = "standard"\ndeny_modules = ["json"]\n')
    path.chmod(0o600)
    async with served("--profile", "testing", "--policy", str(path)) as server, talk(server) as client:
        assert reason_of(await client.run("import json")) == "policy_denied"
        facts = reply_of(await client.run("import json # again"))["metadata"]["cellgate"]
        assert facts["policy"] == "class"


@pytest.mark.parametrize(("policy", "said"), [("stict", "TOML file"), ("/nonexistent/p.toml", "cannot read")])
async def test_a_policy_that_cannot_be_keeps_a_server_from_starting_and_says_what_would_pass(policy, said):
    async with served("--policy", policy, start=False) as server:
        await server.spawn()
        assert await asyncio.wait_for(server.process.wait(), BOUND) == 2
        server.process = None
        assert said in server.log()


async def test_hostile_text_through_the_websocket_stalls_nobody_and_denies_itself(server):
    nested = "(" * 100_000
    async with talk(server) as bad, talk(server) as good:
        for code in (nested, "\0", "\ud800 = 1", "x = 1 +" * 30_000, "%time " * 30_000):
            await bad.send("execute_request", execute_content(code, stop_on_error=False))
            heard = await good.run(f"len({len(code)} * 'x')")
            assert reply_of(heard)["content"]["status"] == "ok"
        last = await bad.run("1", stop_on_error=False)
        assert reply_of(last)["content"]["status"] == "ok"


async def test_what_is_longer_than_code_may_be_is_refused_before_it_is_read():
    async with served("--profile", "testing", "--code-bytes", "64K") as server, talk(server) as client:
        heard = await client.run("x = 1\n" * 20_000)
        assert reason_of(heard) == "policy_denied"
        assert "65536 would pass" in reply_of(heard)["content"]["evalue"]


async def test_workers_end_with_their_gateway_however_it_ends():
    async with served("--profile", "testing") as server, talk(server) as client:
        await client.run("1 + 1")
        before = judges_of(server.gateway_pid())
        assert {name for _, name in before} == {NURSERY_NAME[:15], WORKER_NAME}
        await server.kill_gateway()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid, _ in before))


async def test_a_killed_worker_costs_no_cell():
    async with served("--profile", "testing") as server, talk(server) as client:
        await client.run("1 + 1")
        for pid, name in judges_of(server.gateway_pid()):
            if name == WORKER_NAME:
                os.kill(pid, signal.SIGKILL)
        assert reply_of(await client.run("1 + 2"))["content"]["status"] == "ok"
        for pid, name in judges_of(server.gateway_pid()):
            if name == NURSERY_NAME[:15]:
                os.kill(pid, signal.SIGKILL)
        assert reply_of(await client.run("1 + 3"))["content"]["status"] == "ok"


def judges_of(pid: int) -> list[tuple[int, str]]:
    """The processes below a gateway that judge, by their names."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                comm, rest = Path("/proc", name, "stat").read_text().split(" (", 1)[1].rsplit(") ", 1)
            except (OSError, IndexError):
                continue
            if comm in (NURSERY_NAME[:15], WORKER_NAME) and pid in ancestors(int(rest.split()[1])):
                found.append((int(name), comm))
    return found


def ancestors(parent: int) -> list[int]:
    """Of a child of this one."""
    found = [parent]
    while found[-1] > 1:
        try:
            stat = Path("/proc", str(found[-1]), "stat").read_text()
        except OSError:
            break
        found.append(int(stat.rsplit(") ", 1)[1].split()[1]))
    return found
