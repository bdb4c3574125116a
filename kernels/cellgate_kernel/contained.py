"""The start of a kernel host in a container that was made for it, as its only program.

The container's maker mounts one empty tmpfs at `WORKSPACE`, for all that a session writes; the image has links that
lead there. Streams are connections to a socket that is listened on here. By then the kernel is warm: whoever can
connect need not wait.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Final, NoReturn

from .life import run
from .python import warm

__all__ = ["WORKSPACE", "main"]

WORKSPACE: Final = "/workspace"
DIRECTORIES: Final = ("home", "work", "tmp")  # the image's links to them are /home/user, /work and /tmp
BACKLOG: Final = 16  # hosts that connect while a cell holds the interpreter; the newest of them counts
NOT_OURS: Final = ("HOSTNAME", "TINI_KILL_PROCESS_GROUP")  # variables of the engine's, and of its process 1


def main(path: str, template: str) -> NoReturn:
    """Be the kernel host of this container, for links that are made at `path`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever connects may interrupt before there is a kernel
    for name in NOT_OURS:
        os.environ.pop(name, None)
    for name in DIRECTORIES:
        os.mkdir(f"{WORKSPACE}/{name}", 0o700)
    os.chdir("/work")
    prepared = warm(template)
    run(_listen(path).detach(), prepared)


def _listen(path: str) -> socket.socket:
    """A socket at `path` for everybody who can reach it there: the directory above it is the maker's to close."""
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0)  # gVisor lets nobody change the mode of a socket that the host sees
    try:
        listening.bind(path)
    finally:
        os.umask(before)
    listening.listen(BACKLOG)
    return listening
