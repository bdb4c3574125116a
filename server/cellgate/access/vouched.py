"""Principals for whom somebody else vouches: a proxy in front of the server, or an issuer of JSON Web Tokens.

Both are off unless the operator names them. Pure: where an issuer's keys come from, and when they are read again, is
in `keys.py`.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cellgate.access.tokens import PRINCIPAL
from cellgate.errors import UsageError

__all__ = ["Issuer", "Proxy", "Vouched", "read_keys", "read_networks"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Those with a key pair. With a shared secret whoever can verify can also sign, and `none` signs nothing.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_SECONDS = 30.0  # that clocks may differ
MAX_TOKEN_CHARS = 8192  # an issuer's have one to two thousand; headers of 64 KiB would have to be verified
MAX_KEYS = 64  # an issuer has two or three while it changes them
_OPTIONS: Any = {  # the time is handed in, and compared here
    "require": ["exp", "iss", "aud"],
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat"), False),
}
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Vouched:
    """Somebody, until then (seconds since 1970; None: as long as whoever vouches says so with each request)."""

    principal: str
    expires: float | None = None


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses, or networks like 10.0.0.0/8. Raises ValueError."""
    return tuple(ipaddress.ip_network(text) for text in texts)


@dataclass(frozen=True)
class Proxy:
    """What stands in these networks says in this header who asks. Whoever can send requests from there can be anybody,
    so it must remove the header from what it is sent."""

    networks: tuple[Network, ...]
    header: str

    def vouches(self, remote: str, said: str | None) -> Vouched | None:
        if said is None or not PRINCIPAL.fullmatch(said):  # two of the header have a comma between them
            return None
        try:
            address = ipaddress.ip_address(remote.partition("%")[0])
        except ValueError:
            return None
        mapped = getattr(address, "ipv4_mapped", None)  # as a socket for both kinds of address has it
        return Vouched(said) if any((mapped or address) in network for network in self.networks) else None


def read_keys(data: bytes) -> dict[str, Any]:
    """The public keys of a JWK set by their ids. Raises UsageError."""
    import jwt  # only with the extra `oidc`

    try:
        rows = json.loads(data)["keys"][:MAX_KEYS]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError("this is no JWK set; an object with a list named keys would pass") from error
    keys: dict[str, Any] = {}
    for row in rows:
        try:
            key = jwt.PyJWK(row)
        except (jwt.PyJWTError, AttributeError, LookupError, TypeError, ValueError):  # of a kind that is not ours
            continue
        if key.algorithm_name in ALGORITHMS and row.get("use", "sig") == "sig":
            keys[str(row.get("kid", ""))] = key
    if not keys:
        raise UsageError(f"there is no key for signatures in it; one for {', '.join(ALGORITHMS)} would pass")
    return keys


class Issuer:
    """Verifies the tokens of one issuer, by the keys that it was given last."""

    def __init__(self, issuer: str, audience: str, claim: str, keys: Mapping[str, Any]) -> None:
        """`claim` is what holds the principal's name."""
        self._issuer = issuer
        self._audience = audience
        self._claim = claim
        self._keys = keys

    def take(self, keys: Mapping[str, Any]) -> None:
        """These count from now on."""
        self._keys = keys

    def vouches(self, text: str, now: float) -> Vouched | None:
        if len(text) > MAX_TOKEN_CHARS or not _TOKEN.fullmatch(text):
            return None
        import jwt

        try:
            key = self._keys.get(str(jwt.get_unverified_header(text).get("kid", "")))
            if key is None:
                return None
            claims = jwt.decode(
                text,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                options=_OPTIONS,
            )
            expires, begins = float(claims["exp"]), float(claims.get("nbf", 0))
        except (jwt.PyJWTError, TypeError, ValueError, OverflowError):
            return None
        name = claims.get(self._claim)
        is_current = begins - LEEWAY_SECONDS <= now < expires + LEEWAY_SECONDS
        if not is_current or not isinstance(name, str) or not PRINCIPAL.fullmatch(name):
            return None
        return Vouched(name, expires + LEEWAY_SECONDS)
