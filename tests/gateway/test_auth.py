"""The guard: whom it lets in, by which way, and what a browser cannot be made to do."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.access.scopes import Scope
from cellgate.access.tokens import Token, make_token
from cellgate.gateway import auth
from cellgate.gateway.auth import COOKIE_SECONDS, GUESS_SECONDS, MAX_GUESSES, Asked, Guard, Principal, Refusal, Way

TOKEN = "a-token-of-many-characters"
NOW = 1_800_000_000.0
OWN = {"host": "localhost:8890", "origin": "http://localhost:8890"}


def guard(**settings) -> Guard:
    return Guard(TOKEN, **settings)


def with_cookie(by: Guard, **facts) -> Asked:
    return dataclasses.replace(Asked(cookie=by.make_cookie(NOW), host="localhost:8890"), **facts)


def code(answer: Principal | Refusal | None) -> str:
    return answer.code if isinstance(answer, Refusal) else "admitted"


# -- tokens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "way"),
    [
        ({"authorization": f"token {TOKEN}"}, Way.HEADER),
        ({"authorization": f"Token {TOKEN}"}, Way.HEADER),
        ({"authorization": f"Bearer {TOKEN}"}, Way.HEADER),
        ({"query_token": TOKEN}, Way.QUERY),
        ({"authorization": "Basic dXNlcjpwYXNz", "query_token": TOKEN}, Way.QUERY),  # a proxy's own
        ({"authorization": "token wrong", "query_token": TOKEN}, Way.QUERY),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_token_opens_in_a_header_and_in_the_query(facts, way, method):
    assert guard().admit(Asked(method, **facts), NOW) == Principal("owner", way)


@given(st.text())
def test_nothing_but_the_token_opens(text):
    for facts in ({"authorization": f"token {text}"}, {"query_token": text}, {"authorization": text}, {"cookie": text}):
        assert isinstance(guard().admit(Asked(**facts), NOW), Refusal) or TOKEN in text


def test_whoever_shows_nothing_is_told_what_would_pass_and_has_guessed_nothing():
    one = guard()
    for _ in range(10 * MAX_GUESSES):
        assert code(one.admit(Asked(), NOW)) == "unauthorized"
    assert code(one.admit(Asked(query_token="wrong"), NOW)) == "wrong_token"


def test_ten_thousand_guesses_are_slowed_down_and_the_right_token_passes_all_the_same():
    one = guard()
    answers = [one.admit(Asked(query_token=f"guess-{n}", remote="192.0.2.7"), NOW) for n in range(10_000)]
    assert [code(answer) for answer in answers[:MAX_GUESSES]] == ["wrong_token"] * MAX_GUESSES
    assert set(answers[MAX_GUESSES:]) == {Refusal("too_many_guesses", int(GUESS_SECONDS))}
    assert code(one.admit(Asked(query_token=TOKEN, remote="192.0.2.7"), NOW)) == "admitted"
    assert code(one.admit(Asked(query_token="wrong", remote="192.0.2.8"), NOW)) == "wrong_token"
    assert code(one.admit(Asked(query_token="wrong", remote="192.0.2.7"), NOW + GUESS_SECONDS)) == "wrong_token"
    assert code(one.admit(Asked(query_token="wrong", remote="192.0.2.7"), NOW + GUESS_SECONDS)) == "too_many_guesses"


def test_all_addresses_of_one_ipv6_network_guess_together():
    one = guard()
    answers = [one.admit(Asked(query_token="wrong", remote=f"2001:db8::{n:x}"), NOW) for n in range(MAX_GUESSES + 1)]
    assert code(answers[-1]) == "too_many_guesses"


def test_what_is_remembered_of_guesses_is_bounded():
    one = guard()
    for n in range(auth.MAX_ADDRESSES + 100):
        one.admit(Asked(query_token="wrong", remote=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"), NOW)
    assert len(one._guesses._spent) == auth.MAX_ADDRESSES


# -- cookies -------------------------------------------------------------------------------------------


def test_a_cookie_opens_until_it_expires_and_an_expired_one_is_no_guess():
    one = guard()
    asked = with_cookie(one)
    assert one.admit(asked, NOW) == Principal("owner", Way.COOKIE)
    assert code(one.admit(asked, NOW + COOKIE_SECONDS - 1)) == "admitted"
    assert code(one.admit(asked, NOW + COOKIE_SECONDS)) == "unauthorized"


def test_a_cookie_outlives_the_server_that_made_it_as_long_as_the_token_is_the_same():
    again, other = guard(), Guard("another-token-of-many-characters")
    assert again.cookie_name == guard().cookie_name != other.cookie_name
    assert code(again.admit(with_cookie(guard()), NOW)) == "admitted"
    assert code(other.admit(with_cookie(guard()), NOW)) == "wrong_token"


@given(st.data())
def test_no_changed_cookie_opens(data):
    one = guard()
    cookie = one.make_cookie(NOW)
    at = data.draw(st.integers(0, len(cookie) - 1))
    put = data.draw(st.characters().filter(lambda char: char != cookie[at]))
    assert code(one.admit(Asked(cookie=cookie[:at] + put + cookie[at + 1 :], host="localhost"), NOW)) != "admitted"


@given(st.integers(0, 10**11))
def test_nobody_prolongs_a_cookie(expires):
    one = guard()
    made = one.make_cookie(NOW)
    forged = f"{expires}.{made.partition('.')[2]}"
    assert forged == made or code(one.admit(Asked(cookie=forged, host="localhost"), NOW)) == "wrong_token"


# -- which page sent it --------------------------------------------------------------------------------

EVIL = "https://evil.example"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "admitted"),  # a page of ours is opened
        ({"origin": EVIL}, "foreign_origin"),
        ({"origin": "null"}, "foreign_origin"),
        ({"origin": ""}, "foreign_origin"),
        ({"fetch_site": "cross-site", "fetch_mode": "no-cors"}, "foreign_origin"),  # <img src=…>
        ({"fetch_site": "same-site", "fetch_mode": "no-cors"}, "foreign_origin"),  # of another port of localhost
        ({"fetch_site": "same-origin", "fetch_mode": "cors"}, "admitted"),
        ({"fetch_site": "cross-site", "fetch_mode": "navigate"}, "admitted"),  # a link to us
        ({"host": "evil.example:8890"}, "foreign_host"),  # whose name was made to point to 127.0.0.1
        ({"host": "evil.example:8890", "origin": "http://evil.example:8890"}, "foreign_host"),
        ({"host": ""}, "foreign_host"),
        ({"host": "127.0.0.1:8890"}, "admitted"),
        ({"host": "[::1]:8890"}, "admitted"),
        ({"host": "lab.localhost:8890"}, "admitted"),
        ({"method": "POST"}, "no_origin"),
        ({"method": "DELETE"}, "no_origin"),
        ({"method": "POST", **OWN}, "admitted"),
        ({"method": "POST", **OWN, "origin": "https://localhost:8890"}, "admitted"),  # TLS ends before us
        ({"method": "POST", **OWN, "origin": "http://localhost:8891"}, "foreign_origin"),
        ({"method": "POST", **OWN, "content_type": "application/json"}, "admitted"),
        ({"method": "POST", **OWN, "content_type": "text/plain;charset=UTF-8"}, "simple_form"),
        ({"method": "POST", **OWN, "content_type": "multipart/form-data; boundary=x"}, "simple_form"),
        ({"is_websocket": True}, "no_origin"),
        ({"is_websocket": True, "origin": "null"}, "foreign_origin"),
        ({"is_websocket": True, "origin": EVIL}, "foreign_origin"),
        ({"is_websocket": True, **OWN}, "admitted"),
    ],
)
def test_with_a_cookie_it_counts_which_page_asks(facts, expected):
    one = guard()
    assert code(one.admit(with_cookie(one, **facts), NOW)) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://trusted.example", "admitted"),
        ("https://TRUSTED.example:443", "admitted"),
        ("http://trusted.example", "foreign_origin"),
        ("https://trusted.example:8443", "foreign_origin"),
        ("https://trusted.example.evil.example", "foreign_origin"),
        ("https://eviltrusted.example", "foreign_origin"),
        ("https://trusted.example@evil.example", "foreign_origin"),
        ("https://trusted.example/", "foreign_origin"),
        ("https://trusted.example\n", "foreign_origin"),
    ],
)
def test_an_allowed_origin_is_that_origin_and_no_other(origin, expected):
    one = guard(allowed_origins=["https://trusted.example"])
    for facts in ({"method": "POST"}, {"is_websocket": True}, {}):
        assert code(one.admit(with_cookie(one, origin=origin, **facts), NOW)) == expected


def test_with_a_token_it_counts_only_for_websockets_which_page_asks():
    one, shown = guard(), {"authorization": f"token {TOKEN}", "host": "localhost:8890"}
    assert code(one.admit(Asked("POST", origin=EVIL, **shown), NOW)) == "admitted"
    assert code(one.admit(Asked(is_websocket=True, **shown), NOW)) == "admitted"
    assert code(one.admit(Asked(is_websocket=True, origin=EVIL, **shown), NOW)) == "foreign_origin"
    assert code(one.admit(Asked(is_websocket=True, origin="null", **shown), NOW)) == "foreign_origin"


def test_a_proxy_on_this_host_may_use_the_name_of_an_allowed_origin():
    one = guard(allowed_origins=["https://lab.example.org"])
    assert code(one.admit(with_cookie(one, host="lab.example.org"), NOW)) == "admitted"
    assert code(one.admit(with_cookie(one, host="lab.example.com"), NOW)) == "foreign_host"


def test_a_server_that_listens_to_others_cannot_know_its_names():
    one = guard(host="0.0.0.0")
    assert code(one.admit(with_cookie(one, host="cellgate.example.org"), NOW)) == "admitted"


# -- login ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "token", "expected"),
    [
        (OWN, TOKEN, "admitted"),
        ({"host": "localhost"}, TOKEN, "admitted"),  # curl sends no Origin
        (OWN, "wrong", "wrong_token"),
        (OWN, "", "wrong_token"),
        ({**OWN, "origin": EVIL}, TOKEN, "foreign_origin"),
        ({**OWN, "origin": "null"}, TOKEN, "foreign_origin"),
        ({"host": "evil.example", "origin": "http://evil.example"}, TOKEN, "foreign_host"),
    ],
)
def test_login(facts, token, expected):
    assert code(guard().admit_login(Asked("POST", **facts), token, NOW)) == expected


def test_the_login_page_is_not_shown_under_a_strangers_name():
    assert code(guard().welcome(Asked(host="evil.example:8890"))) == "foreign_host"
    assert guard().welcome(Asked(host="localhost:8890")) is None


def test_every_refusal_says_what_would_pass():
    for status, sentence in auth.REFUSALS.values():
        assert status in (401, 403, 429)
        assert "pass" in sentence or "wants" in sentence


def test_no_text_of_the_guard_holds_the_token():
    assert TOKEN not in repr(vars(guard()))


# -- tokens of the operator's making -------------------------------------------------------------------


def with_made(principal: str = "ada", **more) -> tuple[Guard, Token, str]:
    token, text = make_token(principal, {Scope.OBSERVE}, now=NOW, **more)
    one = guard()
    one.take([token])
    return one, token, text


def test_a_made_token_opens_for_its_principal_and_its_scopes():
    one, token, text = with_made()
    for facts, way in (({"authorization": f"Bearer {text}"}, Way.HEADER), ({"query_token": text}, Way.QUERY)):
        assert one.admit(Asked(**facts), NOW) == Principal("ada", way, frozenset({Scope.OBSERVE}), token.id)
    assert one.admit_login(Asked(host="localhost"), text, NOW) == Principal("ada", Way.COOKIE, token.scopes, token.id)
    assert one.admit(Asked(query_token=TOKEN), NOW) == Principal("owner", Way.QUERY)


def test_a_made_token_opens_nothing_when_it_has_expired_or_is_revoked_or_gone():
    one, token, text = with_made(expires=NOW + 10)
    asked = Asked(query_token=text)
    assert code(one.admit(asked, NOW + 9)) == "admitted"
    assert code(one.admit(asked, NOW + 10)) == "wrong_token"
    for tokens in ([dataclasses.replace(token, revoked=NOW)], []):
        one.take(tokens)
        assert code(one.admit(asked, NOW)) == "wrong_token"
        assert code(one.admit_login(Asked(host="localhost"), text, NOW)) == "wrong_token"


@given(st.text(alphabet="abcdefghijklmnop0123456789_-", min_size=43, max_size=43))
def test_the_id_of_a_token_opens_nothing(secret):
    one, token, text = with_made()
    shown = f"cg_{token.id}_{secret}"
    assert shown == text or code(one.admit(Asked(query_token=shown), NOW)) == "wrong_token"


def test_a_cookie_stands_for_the_token_it_was_made_for():
    one, token, _ = with_made()
    asked = Asked(cookie=one.make_cookie(NOW, token.id), host="localhost:8890")
    assert one.admit(asked, NOW) == Principal("ada", Way.COOKIE, token.scopes, token.id)
    one.take([dataclasses.replace(token, revoked=NOW)])
    assert code(one.admit(asked, NOW)) != "admitted"
    other, _ = make_token("eve", {Scope.ADMIN}, now=NOW)
    one.take([dataclasses.replace(other, id=token.id)])  # made again under the same id
    assert code(one.admit(asked, NOW)) == "wrong_token"


def test_a_cookie_cannot_be_turned_into_another_tokens():
    one, token, _ = with_made()
    other, _ = make_token("eve", {Scope.ADMIN}, now=NOW)
    one.take([token, other])
    mine = one.make_cookie(NOW, token.id)
    for forged in (mine.replace(token.id, other.id), mine.replace(token.id, "")):
        assert code(one.admit(Asked(cookie=forged, host="localhost"), NOW)) == "wrong_token"


def test_a_servers_own_token_may_look_like_a_made_one():
    own = "cg_abcdefgh_" + "x" * 43
    one = Guard(own)
    assert code(one.admit(Asked(query_token=own), NOW)) == "admitted"
    assert code(one.admit(Asked(query_token=own[:-1] + "y"), NOW)) == "wrong_token"
