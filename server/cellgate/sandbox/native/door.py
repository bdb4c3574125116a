"""The socket at which a warden that outlives its drivers is found, and who may come in.

Who asks is known by the credentials that the kernel keeps from the moment of `connect` (SO_PEERCRED). They cannot
be forged, and they say nothing of who holds the connection later: a process that connects and then changes its
user, or hands the descriptor on, is still who it was. SO_PASSCRED would tell of each packet's sender, and let root
of a user namespace name others; it is not used. Seen from a user namespace, a user who has no number there is 65534.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from cellgate.errors import DriverUnavailable

__all__ = ["Door", "open_door", "peer_uid", "somebody_answers"]

MAX_PATH_BYTES: Final = 107  # sun_path with its closing zero, unix(7)
_BACKLOG: Final = 64  # one driver comes at a time, and a warden that is stopped for a while takes nobody in
_LOCK_SECONDS: Final = 5.0  # held for a millisecond; longer only by somebody who means harm, or by a hung disk
_ANSWER_SECONDS: Final = 1.0  # a warden that does not greet within this is stopped, and lives
_CREDENTIALS: Final = struct.Struct("iII")  # pid, uid, gid


def open_door(path: str, uid: int, seen_inside: Collection[str] = ()) -> socket.socket:
    """A socket that listens at `path`, for that uid and root alone, in place of one that a dead warden left.
    `seen_inside` are the directories of this host that sandboxes see. Raises DriverUnavailable."""
    directory = os.path.dirname(path)
    if not os.path.isabs(path) or len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise _no_door(path, "it is no absolute path, or too long", f"one of up to {MAX_PATH_BYTES} bytes would pass")
    if uid != os.geteuid() and os.geteuid():
        raise _no_door(path, f"only root can open it for uid {uid}", "leave the uid out, or start it as root")
    if any(os.path.realpath(directory) == d or os.path.realpath(directory).startswith(f"{d}/") for d in seen_inside):
        raise _no_door(path, "sandboxes see that directory", "one under /run would pass")
    try:
        with _hold(directory):
            _remove_what_is_dead(path)
            return _listen(path, uid)
    except OSError as error:
        raise _no_door(path, str(error), "a path in a directory of its own would pass") from error


class Door:
    def __init__(self, path: str, listening: socket.socket, uids: Collection[int]) -> None:
        """`uids`: who may come in, by the numbers of this process's user namespace."""
        self.socket = listening
        self.path = path
        self._uids = uids
        self._is = _is_at(path)
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        listening.setblocking(False)

    def answer(self) -> tuple[socket.socket, DriverUnavailable | None] | None:
        """Whoever knocks next, and why he may not come in. None: there is nobody after all."""
        try:
            sock, _ = self.socket.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return None
        uid = peer_uid(sock)
        if uid in self._uids:
            return sock, None
        return sock, _no_door(self.path, f"it is not for uid {uid}", "root, and the user it was started for, may")

    def close(self) -> None:
        """Nobody comes in any more, and nobody sees a door."""
        with suppress(OSError, DriverUnavailable), _hold(os.path.dirname(self.path)):
            if _is_at(self.path) == self._is:
                os.unlink(self.path)  # and not a successor's, who may have found this one dead already
        self.socket.close()
        os.close(self._spare)

    def _turn_away(self) -> None:
        """There is no descriptor left: hang up on whoever waits, or the loop would find him waiting for ever."""
        os.close(self._spare)
        with suppress(OSError):
            self.socket.accept()[0].close()
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def peer_uid(sock: socket.socket) -> int:
    """Who connected; or, asked by whoever connected, who listened."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid


def _listen(path: str, uid: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        mask = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        if uid != os.geteuid():
            os.chown(path, uid, -1, follow_symlinks=False)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _hold(directory: str) -> Iterator[None]:
    """Be the only warden that opens or closes a door in this directory. Raises OSError, or DriverUnavailable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            raise _no_door(directory, "others may put something in its place", "a directory of one's own would pass")
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _remove_what_is_dead(path: str) -> None:
    """A socket at which nobody listens any more. Raises DriverUnavailable if anything else is there."""
    if _is_at(path) is None:
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise _no_door(path, "something else is there, and no socket", "remove it, or name another path")
    if somebody_answers(path):
        raise _no_door(path, "a warden is there already", "connect to it, end it, or name another path")
    os.unlink(path)


def somebody_answers(path: str) -> bool:
    """Whether a warden lives at this path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(_ANSWER_SECONDS)
        try:
            probe.connect(path)
            return bool(probe.recv(1))  # a warden greets; one that is being killed takes a connection, and no more
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            return False
        except OSError:  # it takes its time, or too many wait already
            return True


def _is_at(path: str) -> tuple[int, int] | None:
    """What is there: the file system and the inode, whose number nobody else gets while its socket listens."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _no_door(path: str, missing: str, remedy: str) -> DriverUnavailable:
    return DriverUnavailable("native", f"{path}: {missing}", remedy)
