"""Decides who a request comes from, and whether its sender could be a page that misuses somebody's browser.

Whoever shows the server's token is its owner, and whoever shows one that the operator made is whom that was made for:
in a header, in the query, or by a cookie that stands for it. A token in a header or a query was put there by somebody
who knows it. A cookie is sent by a browser unasked, so that with one it also counts which page sent the request; the
same holds for whom a proxy vouches, which knows them by a cookie of its own. A wrong token costs its address a guess.

Pure: takes what a request says and the time, knows no HTTP library. What a route wants, a scope or nobody at all, is
said in their table.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cellgate.access.scopes import ALL_SCOPES, Scope
from cellgate.access.tokens import PRINCIPAL, TOKEN, Token, digest_of
from cellgate.access.vouched import Issuer, Proxy, Vouched

__all__ = [
    "COOKIE_SECONDS",
    "OWNER",
    "REFUSALS",
    "WAYS",
    "Asked",
    "Guard",
    "Principal",
    "Refusal",
    "Way",
]

OWNER = "owner"  # the principal of everybody who has the server's own token
COOKIE_SECONDS = 7 * 86400  # as long as a session may live by default; a browser then asks for the token again
MAX_GUESSES = 20  # wrong tokens from one address in a row: somebody pasted the wrong line more than once
GUESS_SECONDS = 3.0  # until another is looked at; 10,000 guesses take eight hours, and there are 2**256 tokens
MAX_ADDRESSES = 4096  # remembered, some 200 bytes each; who has more of them gains twenty guesses for each


class Way(str, Enum):
    """How a request shows who it is from."""

    HEADER = "header"
    QUERY = "query"
    COOKIE = "cookie"
    PROXY = "proxy"


WAYS: dict[Way, str] = {
    Way.HEADER: "`Authorization: token TOKEN` or `Authorization: Bearer TOKEN`",
    Way.QUERY: "`?token=TOKEN`, for what can send no header; `/?token=TOKEN` sets the cookie",
    Way.COOKIE: "set at login. Only with a Host and an Origin of this server, and no body that a plain form can send",
    Way.PROXY: "a header that a proxy in front sets, if `trusted_proxies` names it; the rest as with the cookie",
}

# Each refusal: its HTTP status, and a sentence that says what would pass.
REFUSALS: dict[str, tuple[int, str]] = {
    "unauthorized": (401, "this server wants its token: `Authorization: token TOKEN`, `?token=TOKEN`, or a login pass"),
    "wrong_token": (
        401,
        "that is no token of this server; the one it printed when it started, or one its operator made, would pass",
    ),
    "too_many_guesses": (429, "too many wrong tokens came from this address; the right one passes at any time"),
    "missing_scope": (403, "this token may not do that; one with the scope that the route names would pass"),
    "foreign_origin": (403, "this page is of another origin; the server's own, or one of allowed_origins, would pass"),
    "no_origin": (403, "a cookie without Origin proves nothing here; a token in the Authorization header would pass"),
    "foreign_host": (403, "this server has another name; localhost, its address, or a host of allowed_origins passes"),
    "simple_form": (403, "any page's form can send this with your cookie; the content type application/json passes"),
}

_PROXY, _ISSUER, _LINK = _VOUCHERS = "proxy", "issuer", "link"  # in place of a token's id, which has eight characters
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_FORM_TYPES = {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"}
_CREDENTIALS = re.compile(r"(?:token|bearer) +(\S+)", re.IGNORECASE)
_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)
_SHARE = re.compile(rf"share\.([0-9a-f-]{{36}})\.([0-9a-f]{{64}})\.({PRINCIPAL.pattern})")
_COOKIE = re.compile(r"([0-9]{1,12})\.([a-z0-9]{0,8})\.([0-9a-f]{64})")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Asked:
    """What counts of a request; a header that was not sent is None."""

    method: str = "GET"
    remote: str = ""  # the address it came from
    host: str = ""
    origin: str | None = None
    authorization: str | None = None
    query_token: str | None = None
    proxy_user: str | None = None  # the value of the header that `Guard.proxy_header` names
    cookie: str | None = None  # the value of the one that bears `Guard.cookie_name`
    content_type: str = ""
    fetch_site: str | None = None  # Sec-Fetch-Site and Sec-Fetch-Mode: browsers send them, pages cannot
    fetch_mode: str | None = None
    is_websocket: bool = False

    @property
    def may_change_something(self) -> bool:
        return self.method not in _SAFE_METHODS


@dataclass(frozen=True)
class Principal:
    """Who a request comes from, how that was shown, and what it opens."""

    name: str
    way: Way
    scopes: frozenset[Scope] = ALL_SCOPES
    token: str = ""  # the id of the one it stands for; "" for the server's own; or how else it is vouched for
    expires: float | None = None  # of those for whom somebody else vouches
    session: str = ""  # the only one that is open to who comes by a link; all of the name's own without


@dataclass(frozen=True)
class Refusal:
    """Why a request goes no further: a code out of `REFUSALS`."""

    code: str
    retry_after: int | None = None  # seconds

    @property
    def status(self) -> int:
        return REFUSALS[self.code][0]

    @property
    def sentence(self) -> str:
        return REFUSALS[self.code][1]


class Guard:
    """Made once from the settings. Remembers wrong guesses, and which tokens there are."""

    def __init__(
        self,
        token: str,
        *,
        allowed_origins: Iterable[str] = (),
        host: str = "127.0.0.1",
        proxy: Proxy | None = None,
        issuer: Issuer | None = None,
        vouched_scopes: frozenset[Scope] = frozenset(),
    ) -> None:
        """`vouched_scopes` are those of whoever comes by the proxy or by the issuer."""
        self._own = Token("", digest_of(token), OWNER, ALL_SCOPES)
        self._tokens: dict[str, Token] = {"": self._own}
        # From its own token alone, so that a server which is started again with it knows its cookies, and one with
        # another token knows none of them.
        self._key = hmac.digest(token.encode(), b"cellgate cookie 1", "sha256")
        # Cookies are shared by all ports of a host: each server's has a name of its own.
        self.cookie_name = f"cellgate-{hmac.digest(self._key, b'name', 'sha256').hex()[:8]}"
        self._allowed = {origin for text in allowed_origins if (origin := _origin(text))}
        self._names = {host.lower(), "localhost", *(origin.host for origin in self._allowed)}
        self._is_local = host == "localhost" or _is_loopback(host)
        self._proxy = proxy
        self._issuer = issuer
        self._vouched_scopes = vouched_scopes
        self._guesses = _Guesses()

    @property
    def proxy_header(self) -> str | None:
        return self._proxy.header if self._proxy else None

    def take(self, tokens: Iterable[Token]) -> None:
        """These count from now on, and no others besides the server's own."""
        self._tokens = {token.id: token for token in tokens} | {"": self._own}

    def admit(self, asked: Asked, now: float) -> Principal | Refusal:
        """Who this is, or why it goes no further. `now` is in seconds since 1970."""
        found = _CREDENTIALS.fullmatch(asked.authorization or "")
        shown = {Way.HEADER: found[1] if found else None, Way.QUERY: asked.query_token}
        principal = self._by_token(shown, now) or self._by_others(asked, shown[Way.HEADER], now)
        if principal is None and asked.cookie and (token := self._find_by_cookie(asked.cookie, now)):
            principal = _principal(token, Way.COOKIE)
        if principal is None:
            is_guess = any(shown.values()) or (asked.cookie and not self._find_by_cookie(asked.cookie, 0))
            return self._guessed(asked.remote, now) if is_guess else Refusal("unauthorized")
        refusal = self._misused(asked) if principal.way in (Way.COOKIE, Way.PROXY) else None
        if asked.is_websocket and asked.origin is not None and not self.trusts_origin(asked.origin, asked.host):
            refusal = Refusal("foreign_origin")  # whoever opened it: what comes back can be read by the page
        return refusal or principal

    def admit_login(self, asked: Asked, token: str, now: float) -> Principal | Refusal:
        """The same for a token that was typed into the login page."""
        refusal = self.welcome(asked)
        if refusal is None and asked.origin is not None and not self.trusts_origin(asked.origin, asked.host):
            refusal = Refusal("foreign_origin")
        if refusal is not None:
            return refusal
        found = self._find(token, now)
        return self._guessed(asked.remote, now) if found is None else _principal(found, Way.COOKIE)

    def still_admits(self, principal: Principal, now: float) -> bool:
        """Whether whoever was let in would be let in now. Cookies expire, and keep no connection from going on."""
        if principal.token in _VOUCHERS:
            return principal.expires is None or now < principal.expires
        token = self._tokens.get(principal.token)
        return token is not None and token.is_good(now)

    def welcome(self, asked: Asked) -> Refusal | None:
        """Whether a browser may be shown the login page: not under a name that somebody else made point here, so that
        nobody types a token into what their page can read (DNS rebinding)."""
        found = _HOST.fullmatch(asked.host)
        name = found[1].lower() if found else ""
        is_ours = name in self._names or name.endswith(".localhost") or _is_loopback(name.strip("[]"))
        return Refusal("foreign_host") if self._is_local and not is_ours else None

    def trusts_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin is our own, by the Host it asked, or one that the settings allow."""
        return self.allows_origin(origin) or _is_own(_origin(origin), host)

    def allows_origin(self, origin: str) -> bool:
        """Whether the settings name it. Never true for `null`, which is every sandboxed page at once."""
        return _origin(origin) in self._allowed

    def make_cookie(self, now: float, token_id: str = "") -> str:
        """The value of a cookie that stands for this token until it expires."""
        expires = str(int(now) + COOKIE_SECONDS)
        return f"{expires}.{token_id}.{self._sign(expires, self._tokens[token_id])}"

    def make_share(self, session_id: str, principal: str) -> str:
        """A token to watch this session of this principal's. It is kept nowhere, and good as long as the session."""
        return f"share.{session_id}.{self._sign_share(session_id, principal)}.{principal}"

    def _sign_share(self, session_id: str, principal: str) -> str:
        return hmac.digest(self._key, f"share {session_id} {principal}".encode(), "sha256").hex()

    def _sign(self, expires: str, token: Token) -> str:
        """By what is kept of the token, too: one that is made again under the same id has other cookies."""
        return hmac.digest(self._key, f"{token.id} {expires} ".encode() + token.digest, "sha256").hex()

    def _by_token(self, shown: Mapping[Way, str | None], now: float) -> Principal | None:
        for way, text in shown.items():
            if text and (token := self._find(text, now)):
                return _principal(token, way)
            if text and (watcher := self._watcher(text, way)):
                return watcher
        return None

    def _watcher(self, shown: str, way: Way) -> Principal | None:
        """Whoever comes by a link to watch a session."""
        found = _SHARE.fullmatch(shown)
        if found is None or not hmac.compare_digest(self._sign_share(found[1], found[3]), found[2]):
            return None
        return Principal(found[3], way, frozenset({Scope.OBSERVE}), _LINK, session=found[1])

    def _by_others(self, asked: Asked, bearer: str | None, now: float) -> Principal | None:
        """Whom an issuer or a proxy vouches for."""
        if self._issuer and bearer and (found := self._issuer.vouches(bearer, now)):
            return self._vouched(found, Way.HEADER, _ISSUER)
        if self._proxy and (found := self._proxy.vouches(asked.remote, asked.proxy_user)):
            return self._vouched(found, Way.PROXY, _PROXY)
        return None

    def _vouched(self, found: Vouched, way: Way, by: str) -> Principal | None:
        if found.principal == OWNER:  # a name that somebody may have chosen there; here it is who has the token
            return None
        return Principal(found.principal, way, self._vouched_scopes, by, found.expires)

    def _find(self, shown: str, now: float) -> Token | None:
        """The token of this text, if it opens anything."""
        made = TOKEN.fullmatch(shown)
        token = self._tokens.get(made[1]) if made else None
        token = token or self._own  # which may look like a made one
        return token if hmac.compare_digest(digest_of(shown), token.digest) and token.is_good(now) else None

    def _find_by_cookie(self, shown: str, now: float) -> Token | None:
        """The same for a cookie."""
        found = _COOKIE.fullmatch(shown)
        token = self._tokens.get(found[2]) if found else None
        if found is None or token is None or not hmac.compare_digest(self._sign(found[1], token), found[3]):
            return None
        return token if now < int(found[1]) and token.is_good(now) else None

    def _guessed(self, remote: str, now: float) -> Refusal:
        wait = self._guesses.failed(remote, now)
        return Refusal("too_many_guesses", math.ceil(wait)) if wait else Refusal("wrong_token")

    def _misused(self, asked: Asked) -> Refusal | None:
        """Whether a page that is not ours may have made the browser send this with its cookie."""
        if refusal := self.welcome(asked):
            return refusal
        if asked.origin is None:
            if asked.is_websocket or asked.may_change_something:
                return Refusal("no_origin")  # browsers send one with these
            is_embedded = asked.fetch_mode not in (None, "navigate")
            return Refusal("foreign_origin") if is_embedded and asked.fetch_site in _OTHER_SITES else None
        if not self.trusts_origin(asked.origin, asked.host):
            return Refusal("foreign_origin")
        if asked.may_change_something and asked.content_type.partition(";")[0].strip().lower() in _FORM_TYPES:
            return Refusal("simple_form")
        return None


_OTHER_SITES = {"cross-site", "same-site"}  # to cookies, all ports of localhost are one site


class _Guesses:
    """How many wrong tokens came from each address: a bucket that leaks one in GUESS_SECONDS."""

    def __init__(self) -> None:
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by address: how many, as of when

    def failed(self, remote: str, now: float) -> float:
        """Count one; the seconds until another is looked at, or 0 if that is at once."""
        address = _network(remote)
        spent, when = self._spent.pop(address, (0.0, now))
        spent = max(0.0, spent - max(0.0, now - when) / GUESS_SECONDS)  # a clock may be set back
        wait = max(0.0, spent + 1 - MAX_GUESSES) * GUESS_SECONDS
        self._spent[address] = (spent if wait else spent + 1, now)
        if len(self._spent) > MAX_ADDRESSES:
            self._spent.popitem(last=False)
        return wait


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int


def _origin(text: str) -> _Origin | None:
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme = found[1].lower()
    return _Origin(scheme, found[2].lower().strip("[]"), int(found[3] or _DEFAULT_PORTS[scheme]))


def _is_own(origin: _Origin | None, host: str) -> bool:
    """By name and port. A proxy in front may speak TLS where we do not, so that the scheme tells nothing."""
    found = _HOST.fullmatch(host)
    if origin is None or found is None:
        return False
    return (origin.host, origin.port) == (found[1].lower().strip("[]"), int(found[2] or _DEFAULT_PORTS[origin.scheme]))


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _network(remote: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: that much is one household."""
    try:
        address = ipaddress.ip_address(remote.partition("%")[0])
    except ValueError:
        return remote[:64]
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def _principal(token: Token, way: Way) -> Principal:
    return Principal(token.principal, way, token.scopes, token.id)
