"""Finds the server of this host, or starts one for as long as it is needed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cellgate.client.errors import NoServer
from cellgate.wire.local import LocalServer, local_state_dir

__all__ = ["StartedServer", "find_server", "start_server"]

START_SECONDS = 60.0  # a cold start takes two on an idle host
END_SECONDS = 15.0  # the server promises ten
POLL_SECONDS = 0.02  # nobody tells us that a file has appeared


def find_server(state_dir: Path | None = None) -> LocalServer | None:
    """The one that serves from there now."""
    return LocalServer.read(state_dir or local_state_dir())


class StartedServer:
    """A server that lives as long as whoever started it, also when that is killed: it ends with its standard input."""

    def __init__(self, process: subprocess.Popen[bytes], server: LocalServer) -> None:
        self._process = process
        self.server = server

    def end(self) -> None:
        """With all its sessions."""
        assert self._process.stdin is not None  # it was asked for
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_server() -> StartedServer:
    """One of our own. Raises NoServer, with what it said."""
    state_dir = local_state_dir()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "cellgate", "serve", "--port", "0", "--state-dir", str(state_dir)),
                *("--end-sessions", "--end-with-stdin"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # Ctrl-C at a terminal is for whoever uses it
        )
        deadline = time.monotonic() + START_SECONDS
        try:
            while time.monotonic() < deadline and process.poll() is None:
                found = find_server(state_dir)
                if found and found.pid == process.pid:
                    return StartedServer(process, found)
                time.sleep(POLL_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.kill()
        process.wait()
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
    raise NoServer(
        f"there is no server here, and none could be started ({words or 'it said nothing'}); "
        "a URL and a token, or CELLGATE_URL and CELLGATE_TOKEN, would pass"
    )
