"""Agents over REST whose gateway is killed: what they ask again is not done twice, and what was said comes once."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.server import BOUND, Server, served, until

pytestmark = pytest.mark.native


def events(server: Server, path: str, body: object, last: int) -> Iterator[dict[str, object]]:
    """Of one connection, until it breaks or the server ends it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=BOUND)
    headers = {"Authorization": f"token {server.token}", "Accept": "text/event-stream"}
    headers |= {"Last-Event-ID": str(last)} if last else {}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        while line := response.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()


def follow(server: Server, path: str, body: object, told: list[dict[str, object]]) -> None:
    """Comes again and again until the cell has finished."""
    while not told or told[-1]["event"] != "finished":
        last = int(str(told[-1]["seq"])) if told else 0
        told.extend(event for event in events(server, path, body, last) if "seq" in event)  # as they come


async def test_a_stream_of_a_cell_survives_the_gateway_and_each_event_comes_once():
    async with served() as server:
        session = (await server.fetch("POST", "/v1/sessions", {"idempotency_key": "job"})).json()
        path = f"/v1/sessions/{session['id']}/execute"
        code = "import time\nfor n in range(150):\n    print(n, flush=True)\n    time.sleep(0.02)"
        told: list[dict[str, object]] = []
        following = asyncio.create_task(asyncio.to_thread(follow, server, path, {"code": code, "id": "c"}, told))
        for count in (20, 60, 100):
            await until(lambda count=count: len(told) > count)
            await server.kill_gateway()
        await asyncio.wait_for(following, BOUND)
        assert "".join(str(event["text"]) for event in told if event["event"] == "stdout") == "".join(
            f"{n}\n" for n in range(150)
        )
        assert [event["seq"] for event in told] == sorted({event["seq"] for event in told})
        again = await server.fetch("POST", "/v1/sessions", {"idempotency_key": "job"})
        assert (again.status, again.json()["id"]) == (200, session["id"])
        whole = (await server.fetch("POST", path, {"code": code, "id": "c"})).json()
        assert whole["stdout"] == "".join(f"{n}\n" for n in range(150))


async def test_a_cell_that_was_asked_for_again_after_each_kill_has_run_once():
    async with served() as server:
        session = (await server.fetch("POST", "/v1/sessions", {})).json()
        path = f"/v1/sessions/{session['id']}/execute"
        await server.fetch("POST", path, {"code": "count = 0"})
        for number in range(4):
            body = {"code": "import time\ncount += 1\ntime.sleep(0.2)", "id": f"c{number}"}
            asked = asyncio.create_task(server.fetch("POST", path, body))
            await asyncio.sleep(0.05 * number)
            await server.kill_gateway()
            with suppress(OSError):
                await asked
            await server.wait_ready()
            assert (await server.fetch("POST", path, body)).json()["status"] == "ok"
        assert (await server.fetch("POST", path, {"code": "count"})).json()["result"] == {"text/plain": "4"}


async def test_nothing_is_left_of_a_one_shot_whose_gateway_was_killed():
    async with served() as server:
        asked = asyncio.create_task(server.fetch("POST", "/v1/run", {"code": "import time\ntime.sleep(60)"}))

        async def begun() -> None:
            while not any(
                one["state"] == "busy" for one in (await server.fetch("GET", "/v1/sessions")).json()["sessions"]
            ):
                await asyncio.sleep(0.02)

        await asyncio.wait_for(begun(), BOUND)
        await server.kill_gateway()
        with suppress(OSError):
            await asked
        await server.wait_ready()
        assert (await server.fetch("GET", "/v1/sessions")).json() == {"sessions": []}
