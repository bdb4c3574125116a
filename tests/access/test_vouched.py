"""Whom a proxy or an issuer vouches for is let in as that, and nobody for whom neither does."""

from __future__ import annotations

import http.client
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cellgate.access import keys
from cellgate.access.keys import fetch_keys, open_issuer
from cellgate.access.scopes import Scope
from cellgate.access.vouched import LEEWAY_SECONDS, Issuer, Proxy, Vouched, read_keys, read_networks
from cellgate.errors import UsageError
from cellgate.gateway.auth import Asked, Guard, Principal, Refusal, Way
from cellgate.settings import read_settings

NOW = 1_800_000_000.0
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"iss": "https://id.example.org", "aud": "cellgate", "sub": "ada@example.org", "exp": NOW + 60}


def jwk(key, kid: str, kind=jwt.algorithms.RSAAlgorithm, **more) -> dict:
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, **more}


SET = json.dumps({
    "keys": [
        jwk(KEY, "one", alg="RS256", use="sig"),
        jwk(CURVE, "two", jwt.algorithms.ECAlgorithm),
        jwk(OTHER, "for encryption", use="enc"),
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "what", "kid": "unknown"},
    ]
}).encode()  # fmt: skip


def issuer() -> Issuer:
    return Issuer("https://id.example.org", "cellgate", "sub", read_keys(SET))


def signed(claims=CLAIMS, key=KEY, kid: str = "one", algorithm: str = "RS256", **changes) -> str:
    return jwt.encode({**claims, **changes}, key, algorithm, headers={"kid": kid})


# -- tokens of an issuer -------------------------------------------------------------------------------


def test_a_token_of_the_issuer_names_its_principal_until_it_expires():
    assert issuer().vouches(signed(), NOW) == Vouched("ada@example.org", NOW + 60 + LEEWAY_SECONDS)
    assert issuer().vouches(signed(key=CURVE, kid="two", algorithm="ES256"), NOW) is not None
    assert issuer().vouches(signed(), NOW + 60 + LEEWAY_SECONDS) is None


@pytest.mark.parametrize(
    "token",
    [
        signed(iss="https://evil.example"),
        signed(aud="another"),
        signed(nbf=NOW + 3600),
        signed(sub="a b"),
        signed(sub=7),
        signed(sub=None),
        signed(exp="soon"),
        signed(key=OTHER),  # somebody else's key under this one's name
        signed(key=OTHER, kid="for encryption"),
        signed(kid="none such"),
        signed(key=b"secret" * 8, kid="shared", algorithm="HS256"),
        jwt.encode(CLAIMS, "", "none", headers={"kid": "one"}),
        jwt.encode({name: CLAIMS[name] for name in ("iss", "aud", "sub")}, KEY, "RS256", headers={"kid": "one"}),
        signed()[:-4] + "AAAA",
        "a.b.c",
        "",
        "x" * 10_000,
        signed(padding="x" * 10_000),
    ],
)
def test_nothing_else_is_a_token_of_the_issuer(token):
    assert issuer().vouches(token, NOW) is None


def test_a_public_key_signs_nothing():
    """By the old trick: the key that everybody knows, taken for a shared secret."""
    import base64
    import hashlib
    import hmac

    def part(value) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    pem = jwt.PyJWK(json.loads(SET)["keys"][0]).key.public_numbers()
    body = part({"alg": "HS256", "kid": "one"}) + b"." + part(CLAIMS)
    mac = base64.urlsafe_b64encode(hmac.digest(str(pem).encode(), body, hashlib.sha256)).rstrip(b"=")
    assert issuer().vouches((body + b"." + mac).decode(), NOW) is None


def test_keys_that_were_changed_count_at_once():
    one = issuer()
    one.take(read_keys(json.dumps({"keys": [jwk(OTHER, "next")]}).encode()))
    assert one.vouches(signed(), NOW) is None
    assert one.vouches(signed(key=OTHER, kid="next"), NOW) is not None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": []}', b'{"keys": [{"kty": "oct"}]}'])
def test_what_holds_no_keys_says_what_would_pass(data):
    with pytest.raises(UsageError, match="would pass"):
        read_keys(data)


def test_keys_are_read_from_a_file(tmp_path):
    path = tmp_path / "keys.json"
    with pytest.raises(UsageError, match="cannot be read"):
        fetch_keys(str(path))
    path.write_bytes(SET)
    assert fetch_keys(str(path)).keys() == {"one", "two"}


def test_an_issuer_is_named_whole_or_not_at_all(tmp_path):
    path = tmp_path / "keys.json"
    path.write_bytes(SET)
    assert open_issuer(read_settings(flags={}, environ={}, file={})) is None
    some = {"jwt_keys": str(path), "jwt_issuer": CLAIMS["iss"]}
    with pytest.raises(UsageError, match="jwt_issuer and jwt_audience"):
        open_issuer(read_settings(flags=some, environ={}, file={}))
    one = open_issuer(read_settings(flags={**some, "jwt_audience": "cellgate"}, environ={}, file={}))
    assert one.vouches(signed(), NOW) is not None


# -- proxies -------------------------------------------------------------------------------------------

PROXY = Proxy(read_networks(["10.0.0.0/8", "2001:db8::7"]), "X-Forwarded-User")


@pytest.mark.parametrize("remote", ["10.1.2.3", "2001:db8::7", "::ffff:10.1.2.3"])
def test_a_trusted_proxy_names_who_asks(remote):
    assert PROXY.vouches(remote, "ada") == Vouched("ada")


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        ("192.0.2.7", "ada"),
        ("2001:db8::8", "ada"),
        ("", "ada"),
        ("unix", "ada"),
        ("10.1.2.3", None),
        ("10.1.2.3", ""),
        ("10.1.2.3", "eve,ada"),  # a client's header, and the proxy's
        ("10.1.2.3", "a b"),
    ],
)
def test_nobody_else_does(remote, said):
    assert PROXY.vouches(remote, said) is None


# -- the guard -----------------------------------------------------------------------------------------

SCOPES = frozenset({Scope.OBSERVE, Scope.EXECUTE})
GUARD = Guard("a-token-of-many-characters", proxy=PROXY, issuer=issuer(), vouched_scopes=SCOPES)
BY_PROXY = {"remote": "10.1.2.3", "proxy_user": "ada", "host": "localhost:8890"}


def test_whom_a_proxy_vouches_for_comes_in_with_the_scopes_of_the_settings():
    ada = Principal("ada", Way.PROXY, SCOPES, "proxy")
    assert GUARD.admit(Asked(**BY_PROXY), NOW) == ada
    assert GUARD.still_admits(ada, NOW + 1e9)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"method": "POST"}, "no_origin"),
        ({"method": "POST", "origin": "https://evil.example"}, "foreign_origin"),
        ({"is_websocket": True}, "no_origin"),
        ({"host": "evil.example"}, "foreign_host"),
    ],
)
def test_a_strangers_page_cannot_use_what_the_proxy_vouches_for(facts, code):
    """The proxy knows a browser by a cookie, which is sent unasked."""
    answer = GUARD.admit(Asked(**{**BY_PROXY, **facts}), NOW)
    assert isinstance(answer, Refusal)
    assert answer.code == code


def test_nobody_is_vouched_for_as_the_owner():
    """A name that people may choose where they log in opens no sessions of who has the server's token."""
    assert GUARD.admit(Asked(**{**BY_PROXY, "proxy_user": "owner"}), NOW) == Refusal("unauthorized")
    assert GUARD.admit(Asked(authorization=f"Bearer {signed(sub='owner')}"), NOW) == Refusal("wrong_token")


def test_a_token_counts_before_what_a_proxy_says():
    shown = Asked(**BY_PROXY, authorization="token a-token-of-many-characters")
    assert GUARD.admit(shown, NOW).name == "owner"


def test_whom_an_issuer_vouches_for_is_here_until_the_token_expires():
    ada = GUARD.admit(Asked(authorization=f"Bearer {signed()}"), NOW)
    assert (ada.name, ada.way, ada.scopes, ada.token) == ("ada@example.org", Way.HEADER, SCOPES, "issuer")
    assert GUARD.still_admits(ada, NOW + 60)
    assert not GUARD.still_admits(ada, NOW + 60 + LEEWAY_SECONDS)
    assert isinstance(GUARD.admit(Asked(query_token=signed()), NOW), Refusal)  # URLs stand in logs


def test_without_either_nobody_is_vouched_for():
    plain = Guard("a-token-of-many-characters")
    assert plain.proxy_header is None
    assert plain.admit(Asked(**BY_PROXY), NOW) == Refusal("unauthorized")
    assert plain.admit(Asked(authorization=f"Bearer {signed()}"), NOW) == Refusal("wrong_token")


def test_keys_that_break_off_or_make_no_sense_are_told_of_and_stop_nothing(tmp_path, monkeypatch):
    class Breaking:
        def open(self, *_, **__):
            raise http.client.IncompleteRead(b"")

    monkeypatch.setattr(keys, "_OPENER", Breaking())
    with pytest.raises(UsageError, match="cannot be read"):
        fetch_keys("https://id.example.org/keys")
    with pytest.raises(UsageError, match="no JWK set"):
        read_keys(b"[" * 100_000)
