"""Where a server keeps what must outlive it, and as whom its gateway runs.

    state directory     of a root server: root's, 0711         of anybody else: that user's, 0700
    ├── warden/         root's, 0711: the socket and its log   "
    ├── images/         root's, 0755: what `cellgate images unpack` made, if it did     "
    ├── access/         root's, the gateway reads it, 0750: tokens
    ├── server.json     its own, 0600, while it serves: `cellgate.wire.local`
    └── gateway/        the gateway's, 0700: registry, journals, and with driver docker the sockets of its containers

Root follows no name through a directory that somebody else may write: it makes `gateway/` and never enters it.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cellgate.errors import UsageError
from cellgate.sandbox.native.door import MAX_PATH_BYTES

__all__ = ["Account", "Places", "engine_group", "gateway_account", "prepare"]

ACCOUNT_NAME = "cellgate"  # as whom a root server's gateway runs, if the host has such a user
ACCOUNT_ID = 1_899_999_999  # else this uid and gid, which nobody hands out: the one below those of the sandboxes

ENGINE_SOCKET = "unix:///var/run/docker.sock"  # where Docker's own tools look for it


@dataclass(frozen=True)
class Account:
    uid: int
    gid: int


@dataclass(frozen=True)
class Places:
    top: Path

    @property
    def gateway(self) -> Path:
        return self.top / "gateway"

    @property
    def tokens(self) -> Path:
        """The file of those that the operator makes."""
        return self.top / "access" / "tokens.sqlite"

    @property
    def images(self) -> Path:
        """Those that were unpacked for the native driver. It is there once one was."""
        return self.top / "images"

    @property
    def warden(self) -> Path:
        """The socket at which the warden is found."""
        return self.top / "warden" / "socket"


def gateway_account() -> Account:
    """For the gateway of a server that root started. Raises UsageError."""
    try:
        found = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        return Account(ACCOUNT_ID, ACCOUNT_ID)
    if found.pw_uid == 0 or found.pw_gid == 0:
        raise UsageError(f"the user {ACCOUNT_NAME} is root; one without privileges, or none, would pass")
    return Account(found.pw_uid, found.pw_gid)


def engine_group(environ: Mapping[str, str]) -> int | None:
    """The group that may ask the Docker engine: a gateway that makes containers keeps it. None when it needs none."""
    kind, _, path = environ.get("DOCKER_HOST", ENGINE_SOCKET).partition("://")
    try:
        return os.stat(path).st_gid if kind == "unix" else None
    except OSError:  # the driver says what it cannot ask
        return None


def prepare(state_dir: Path, account: Account | None) -> Places:
    """Make what is not there yet; `account` is the gateway's when root asks. Raises UsageError."""
    places = Places(Path(os.path.realpath(state_dir)))
    excess = len(os.fsencode(places.warden)) - MAX_PATH_BYTES
    if excess > 0:
        raise UsageError(f"{state_dir} is {excess} bytes too long for a socket in it; a shorter path would pass")
    mode = 0o700 if account is None else 0o711
    try:
        places.top.parent.mkdir(parents=True, exist_ok=True)
        _make(places.top, mode)
        if account is not None:
            _check_way(places.top, account)
        _make(places.warden.parent, mode)
        _make(places.tokens.parent, 0o700)
        if account is not None:
            os.chown(places.tokens.parent, -1, account.gid, follow_symlinks=False)
            places.tokens.parent.chmod(0o750)
        _make(places.gateway, 0o700, account)
    except OSError as error:
        raise UsageError(f"{state_dir} cannot hold the state: {error}; another directory would pass") from error
    return places


def _make(directory: Path, mode: int, account: Account | None = None) -> None:
    """A directory that belongs to us, or to `account`, and that nobody else may write. Raises UsageError, OSError."""
    try:
        directory.mkdir(mode=0o700)
        directory.chmod(mode)
    except FileExistsError:
        pass
    found = directory.lstat()
    if account is not None and found.st_uid == os.geteuid():  # just made, here or by somebody who died over it
        os.chown(directory, account.uid, account.gid, follow_symlinks=False)
        found = directory.lstat()
    owner = account.uid if account is not None else os.geteuid()
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{directory} is no directory; another --state-dir would pass")
    if found.st_uid != owner:
        raise UsageError(f"{directory} belongs to uid {found.st_uid}; one of uid {owner}, or none yet, would pass")
    if found.st_mode & 0o022:
        raise UsageError(f"{directory} may be written by others; one with the mode {mode:o} would pass")


def _check_way(top: Path, account: Account) -> None:
    """What leads there is root's alone to change, and open to the gateway. Raises UsageError."""
    for directory in (top, *top.parents):
        found = directory.stat()
        if found.st_uid or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
            raise UsageError(f"others than root may change {directory}; a state directory in /var/lib would pass")
        if not found.st_mode & (0o010 if found.st_gid == account.gid else 0o001):
            raise UsageError(
                f"{directory} is closed to uid {account.uid}, as whom the gateway runs; "
                f"a state directory in /var/lib, or `chmod o+x {directory}`, would pass"
            )
