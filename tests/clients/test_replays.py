"""What clients send that do not install here, word by word."""

from __future__ import annotations

import json
import urllib.request
from uuid import uuid4

import websockets


async def open_webui(server, code: str) -> tuple[str, str, list[str]]:
    """Open WebUI's code interpreter: no body, the token in each address, a date that is empty, no buffers, a kernel for
    each cell. Gives what it shows: stdout, stderr, results."""
    token = f"?token={server.token}"
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/api/kernels{token}", method="POST")) as response:
        kernel = json.load(response)["id"]
    stdout, stderr, results = "", "", []
    try:
        address = f"{server.url.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels{token}"
        async with websockets.connect(address, additional_headers={}) as websocket:
            msg_id = uuid4().hex
            header = {"msg_id": msg_id, "msg_type": "execute_request", "username": "user", "session": uuid4().hex}
            content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
            content |= {"allow_stdin": False, "stop_on_error": True}
            message = {"header": header | {"date": "", "version": "5.3"}, "parent_header": {}, "metadata": {}}
            await websocket.send(json.dumps(message | {"content": content, "channel": "shell"}))
            while True:
                heard = json.loads(await websocket.recv())
                said = heard["content"]
                if heard.get("parent_header", {}).get("msg_id") != msg_id:
                    continue
                match heard.get("msg_type"):
                    case "stream" if said["name"] == "stdout":
                        stdout += said["text"]
                    case "stream":
                        stderr += said["text"]
                    case "execute_result" | "display_data":
                        results.append(said["data"].get("image/png") or said["data"]["text/plain"])
                    case "error":
                        stderr += "\n".join(said["traceback"])
                    case "status" if said["execution_state"] == "idle":
                        return stdout, stderr, results
    finally:
        ended = urllib.request.Request(f"{server.url}/api/kernels/{kernel}{token}", method="DELETE")
        urllib.request.urlopen(ended).close()


async def test_open_webui_runs_a_cell_in_a_kernel_of_its_own(server):
    for _ in range(3):
        assert await open_webui(server, "x = globals().get('x', 0) + 1\nprint('out')\nx") == ("out\n", "", ["1"])
    assert server.ask("/api/kernels") == []


async def test_open_webui_shows_an_error(server):
    _, stderr, _ = await open_webui(server, "1/0")
    assert "ZeroDivisionError" in stderr


async def test_open_webui_is_told_of_a_kernel_that_dies(server):
    _, stderr, _ = await open_webui(server, "import os; os._exit(3)")
    assert stderr
