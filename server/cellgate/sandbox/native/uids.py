"""The host uids that sessions get: no two living sandboxes of this host share one, whoever made them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final, Protocol

from cellgate.errors import DriverUnavailable, SandboxStartFailed

__all__ = ["OneUid", "UidBlock", "Uids"]

# A block per warden, above what distributions, containers and systemd-nspawn hand out.
_FIRST: Final = 1_900_000_000
_PER_WARDEN: Final = 20_000
_BLOCKS: Final = 10_000


class Uids(Protocol):
    def take(self) -> int:
        """Raises SandboxStartFailed when none is free."""
        ...

    def give_back(self, uid: int) -> None: ...


class OneUid:
    """Without root: every session has the host uid of whoever started the warden, which is 0 in the warden's own
    user namespace. What parts them then is their namespaces alone."""

    def take(self) -> int:
        return 0

    def give_back(self, uid: int) -> None:
        pass


class UidBlock:
    """Host uids that no other sandbox on this host has: a block of them is held by a name in the abstract
    namespace of unix sockets, which the kernel frees when the warden ends, however it ends."""

    def __init__(self) -> None:
        """Raises DriverUnavailable when every block is held."""
        self._lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        start = os.getpid() % _BLOCKS
        for step in range(_BLOCKS):
            block = (start + step) % _BLOCKS
            with suppress(OSError):
                self._lock.bind(f"\0cellgate-uids-{block}")
                break
        else:
            raise DriverUnavailable("native", "every block of uids is taken", "end another cellgate")
        first = _FIRST + block * _PER_WARDEN
        self._free = list(range(first + _PER_WARDEN - 1, first - 1, -1))

    def take(self) -> int:
        if not self._free:
            raise SandboxStartFailed("native", "its uid", f"{_PER_WARDEN} sandboxes are alive already")
        return self._free.pop()

    def give_back(self, uid: int) -> None:
        self._free.append(uid)
