"""The sockets that clients connect to: which addresses a host name stands for, who can reach those, and taking them.

They are bound once for the life of the server, so that clients wait in the backlog, and are not refused, while one
gateway takes the place of another. Knows nothing of HTTP.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple
from urllib.parse import quote

from cellgate.errors import UsageError

__all__ = ["Address", "address_url", "addresses_of", "check_exposure", "listen"]

BACKLOG = 4096  # clients that connect again at once when a gateway was replaced; Linux cuts it to net.core.somaxconn
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # of a family or an interface that this host has not


class Address(NamedTuple):
    family: socket.AddressFamily
    where: tuple[Any, ...]  # as `bind` takes it

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.ip_address(str(self.where[0]).partition("%")[0])


def addresses_of(host: str, port: int) -> list[Address]:
    """What this host name or address stands for. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"there is no address for the host {host!r} ({error}); 127.0.0.1 would pass") from error
    return list(dict.fromkeys(Address(family, where) for family, _, _, _, where in found))


def check_exposure(host: str, addresses: Iterable[Address], *, has_token: bool) -> None:
    """Others than this host's own users reach a server only by a token that somebody chose. Raises UsageError."""
    if not has_token and not all(address.ip.is_loopback for address in addresses):
        raise UsageError(
            f"{host} can be reached from other hosts, and no token was given; "
            "one that clients must show (CELLGATE_TOKEN) or --host 127.0.0.1 would pass"
        )


def listen(host: str, addresses: Iterable[Address]) -> list[socket.socket]:
    """A listening socket for each address, all on one port; port 0 takes a free one. An address that this host does
    not have is passed over if it has another. Raises UsageError."""
    with ExitStack() as undo:
        sockets: list[socket.socket] = []
        missing: OSError | None = None
        port = 0
        for address in addresses:
            port = port or int(address.where[1])
            try:
                sock = undo.enter_context(_bound(address, port))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise UsageError(_why_not(host, port, error)) from error
                missing = error
                continue
            sockets.append(sock)
            port = sock.getsockname()[1]
        if not sockets:
            raise UsageError(_why_not(host, port, missing or OSError(errno.EADDRNOTAVAIL, "no address")))
        undo.pop_all()
        return sockets


def _bound(address: Address, port: int) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a server before may linger
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 is another address
        sock.bind((address.where[0], port, *address.where[2:]))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; another --port, or 0 for a free one, would pass"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not listen on port {port} of {host}; a --port from 1024 on would pass"
    return f"{host} is no address of this host ({os.strerror(error.errno or 0)}); 127.0.0.1 would pass"


def address_url(host: str, port: int, token: str | None = None) -> str:
    """Where somebody on this host finds the server, with the token if it may be shown."""
    if host in ("0.0.0.0", "::"):  # every address: the nearest will do
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")
