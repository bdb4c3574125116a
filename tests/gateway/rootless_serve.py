"""Run as somebody who is not root, by `test_serve_rootless.py`: says as JSON what a server of theirs did."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from typing import Any

from websockets.sync.client import connect

BOUND = 30.0


class Serving:
    def __init__(self, state_dir: str, *flags: str) -> None:
        words = [sys.executable, "-B", "-m", "cellgate", "serve", "--port", "0", "--state-dir", state_dir, *flags]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if line.startswith("Ctrl-C"):
                break
        found = re.search(r"http://(\S+)/\?token=(\S+)", self.said)
        self.address, self.token = found.groups() if found else ("", "")

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(BOUND)

    def new_kernel(self) -> str:
        request = urllib.request.Request(f"http://{self.address}/api/kernels?token={self.token}", method="POST")
        with urllib.request.urlopen(request, timeout=BOUND) as response:
            return json.load(response)["id"]

    def run(self, kernel_id: str, code: str) -> str:
        """The text of its result."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request"}
        url = f"ws://{self.address}/api/kernels/{kernel_id}/channels?token={self.token}"
        result = ""
        with connect(url, open_timeout=BOUND) as websocket:
            websocket.send(json.dumps({"header": header, "channel": "shell", "content": {"code": code}}))
            while True:
                message = json.loads(websocket.recv(timeout=BOUND))
                if message["parent_header"].get("msg_id") == header["msg_id"]:
                    result = message["content"].get("data", {}).get("text/plain", result)
                    if message["content"].get("execution_state") == "idle":
                        return result


def main(directory: str) -> dict[str, Any]:
    state_dir = f"{directory}/state"
    first = Serving(state_dir)
    if not first.address:
        return {"failed": first.process.wait(BOUND)}
    kernel_id = first.new_kernel()
    report: dict[str, Any] = {"said": "without root" in first.said, "sum": first.run(kernel_id, "x = 42; 1+1")}
    report["end"] = first.end()
    second = Serving(state_dir, "--end-sessions")
    report["kept"] = second.run(kernel_id, "x")
    names = ("", *sorted(os.listdir(state_dir)))
    report["modes"] = {name: f"{os.stat(os.path.join(state_dir, name)).st_mode & 0o777:o}" for name in names}
    report["end again"] = second.end()
    trusted = Serving(state_dir, "--driver", "process")
    report["trusted"] = [trusted.run(trusted.new_kernel(), "1+1"), "it contains nothing" in trusted.said, trusted.end()]
    return report


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        json.dump(main(directory), sys.stdout)
