"""How a server and those who look for it on the same host find each other: where its state lies when nothing else was
said, and `server.json` in there, readable for its own user alone.

The file tells where it serves, its token, and which process it is. One whose process is not there any more says
nothing: somebody else may have the port now, who must not be shown a token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["LocalServer", "default_state_dir", "local_state_dir"]

FILE_NAME = "server.json"
MAX_FILE_BYTES = 16 << 10  # a URL, a token and two numbers


def local_state_dir() -> Path:
    """Of the server that this user would start."""
    named = os.environ.get("CELLGATE_STATE_DIR")
    return Path(named) if named else default_state_dir(os.environ, is_root=os.geteuid() == 0)


@dataclass(frozen=True)
class LocalServer:
    url: str
    token: str = field(repr=False)
    pid: int
    started: str  # when that process began, as the kernel counts: a number that is given out again is not believed

    @staticmethod
    def read(state_dir: Path) -> LocalServer | None:
        """The one that serves from there now."""
        found = _read(state_dir)
        return found if found and found.is_alive else None

    @staticmethod
    def of_this_process(url: str, token: str) -> LocalServer:
        return LocalServer(url, token, os.getpid(), _start_of(os.getpid()))

    @property
    def is_alive(self) -> bool:
        return self.pid > 0 and self.started == _start_of(self.pid) != ""

    def write(self, state_dir: Path) -> None:
        """Where others of the same user find it. Raises OSError."""
        part = state_dir / f".{FILE_NAME}.{self.pid}"
        part.unlink(missing_ok=True)  # of a process that had this number before us
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file)
        part.replace(state_dir / FILE_NAME)

    def remove(self, state_dir: Path) -> None:
        """Unless a successor has put its own there."""
        if _read(state_dir) == self:
            with suppress(OSError):
                (state_dir / FILE_NAME).unlink()


def default_state_dir(environ: Mapping[str, str], *, is_root: bool) -> Path:
    """Where a server keeps what must outlive it, when nothing else was said."""
    if is_root:  # whose home is closed to the user that the server becomes
        return Path("/var/lib/cellgate")
    state = environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()) / "cellgate"


def _read(state_dir: Path) -> LocalServer | None:
    try:
        with (state_dir / FILE_NAME).open("rb") as file:
            said = json.loads(file.read(MAX_FILE_BYTES))
        return LocalServer(str(said["url"]), str(said["token"]), int(said["pid"]), str(said["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _start_of(pid: int) -> str:
    """In clock ticks since the host started. "" of a process that is not there, or has ended and is not reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()  # any name's bytes
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
