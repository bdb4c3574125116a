"""`python -m cellgate.sandbox.native`: starts a warden, for one driver or as a service that outlives its drivers.

Without root it starts itself again as root of a user namespace of its own. The door is opened before that, with
the host's view of users.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from cellgate.errors import CellgateError, DriverUnavailable
from cellgate.sandbox.native import linux
from cellgate.sandbox.native.door import Door, open_door
from cellgate.sandbox.native.rootfs import plan_root
from cellgate.sandbox.native.warden import LINGER_SECONDS, Warden, unavailable


def main() -> NoReturn:
    options = _parse(sys.argv[1:])
    if options.detach and os.fork():  # in a session that nobody leads: no terminal and no group's end reaches it
        os._exit(0)
    control = _inherited(options.control)
    linux.set_name("cellgate-warden")
    _allow_many_descriptors()
    is_first = options.prefix is None
    if is_first:  # a process id alone comes again, in a container at once, and a driver's records outlive both
        options.prefix = f"w{os.getpid()}-{os.urandom(3).hex()}-"
    with ExitStack() as undo:
        try:
            door = _open_door(options, is_first)
            if door is not None:
                undo.callback(door.close)
            if os.geteuid():
                _start_again_as_root_of_a_namespace(options, control, door)
            warden = Warden(
                control,
                options.prefix,
                is_host_root=is_first,
                door=door,
                linger_seconds=options.linger,
                images=options.images,
            )
        except CellgateError as error:
            if control is not None:
                control.send(unavailable(error))
            else:
                sys.stderr.write(f"cellgate warden: {error}\n")
            sys.exit(1)
        undo.pop_all()  # `serve` closes it
    gc.collect()
    gc.freeze()
    warden.serve()
    sys.exit(0)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cellgate.sandbox.native", description="Start a warden.")
    add = parser.add_argument
    add("control", type=int, nargs="?", metavar="FD", help="obey the driver at the other end of this descriptor")
    add("--persist", metavar="PATH", help="listen there for drivers, and keep sandboxes when one hangs up")
    add("--for", dest="uid", type=int, default=os.geteuid(), help="the uid that may drive it, beside root and its own")
    add("--linger", type=float, default=LINGER_SECONDS, metavar="SECONDS", help="live so long with nothing to do")
    add("--images", type=Path, metavar="DIRECTORY", help="of unpacked images, each of which is a template")
    add("--detach", action="store_true", help="go on as nobody's child")
    add("--prefix", help=argparse.SUPPRESS)  # said by a warden without root, to itself in its user namespace
    add("--door", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.control is None and options.persist is None:
        parser.error("nobody could ask anything of it; FD or --persist would pass")
    return options


def _inherited(fd: int | None) -> socket.socket | None:
    if fd is None:
        return None
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock


def _allow_many_descriptors() -> None:
    """Of which every sandbox costs a few; the soft limit of most hosts is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_door(options: argparse.Namespace, is_first: bool) -> Door | None:
    if options.persist is None:
        return None
    if not is_first:  # in the user namespace, where root of the host has no number, nor has anybody else
        return Door(options.persist, socket.socket(fileno=options.door), {os.geteuid()})
    seen_inside = [directory for directory, _ in plan_root().binds]
    listening = open_door(options.persist, options.uid, seen_inside)
    return Door(options.persist, listening, {0, os.geteuid(), options.uid})


def _start_again_as_root_of_a_namespace(
    options: argparse.Namespace, control: socket.socket | None, door: Door | None
) -> NoReturn:
    """Raises DriverUnavailable where the host does not let users make user namespaces."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWPID)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        if warden := os.fork():  # a process that sends its children into other pid namespaces must own its own
            _stand_for(warden, control, door)
        linux.set_pdeathsig(signal.SIGKILL)
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    except OSError as error:
        remedy = "start cellgate as root, allow them (sysctl user.max_user_namespaces), or use the docker driver"
        raise DriverUnavailable("native", f"this is not root, and user namespaces fail ({error})", remedy) from error
    words = ["--prefix", options.prefix, "--linger", str(options.linger)]
    if options.images is not None:
        words += ["--images", str(options.images)]
    if control is not None:
        control.set_inheritable(True)
        words.append(str(control.fileno()))
    if door is not None:
        door.socket.set_inheritable(True)
        words += ["--persist", door.path, "--door", str(door.socket.fileno())]
    # Only an exec makes the memory itself belong to the namespace, without which a zygote may not join a sandbox.
    os.execv(sys.executable, [sys.executable, "-I", "-m", "cellgate.sandbox.native", *words])


def _stand_for(warden: int, control: socket.socket | None, door: Door | None) -> NoReturn:
    """Be the process that the host knows as the warden: hand on what it is told, end as it ends."""
    for sock in (control, door and door.socket):
        if sock is not None:
            sock.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(warden, signal.SIGTERM))
    _, status = os.waitpid(warden, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
