"""The life of a kernel host, from its birth socket on: which kernel it is."""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from .host import Host, Prepared

__all__ = ["run"]


def run(birth_fd: int, prepared: Prepared | None = None, kernel: str = "") -> NoReturn:
    """Be the kernel of one sandbox, on this thread, for good. `prepared` is what a zygote made before the fork;
    `kernel` is a kernelspec's name, to be run whatever the setup says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until there is a kernel to interrupt
    host = Host(socket.socket(fileno=birth_fd))
    host.start()
    ready = prepared.bind(host) if prepared is not None else None  # while the first link is on its way
    setup = host.wait_for_setup()
    setup.apply()
    host.files.begin(os.getcwd())
    kernel = kernel or setup.kernel
    if kernel != "python":
        from . import bridge

        bridge.serve(host, setup, kernel)
    if ready is None:
        from .python import start

        ready = start().bind(host)
    ready.begin(setup)
    host.serve(ready)
