"""The pages a person sees: a token becomes a cookie, and stays in no URL."""

from __future__ import annotations

import re
import time
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.gateway.pages import local_path
from tests.support.gateway import TOKEN, gateway

HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


async def test_a_person_without_a_cookie_comes_to_the_login_and_from_there_back(here):
    reply = await here.ask("GET", "/v1/openapi.json?x=1", token=None, headers=HTML)
    assert reply.status == 401, "what is for programs stays an error"
    reply = await here.ask("GET", "/", token=None, headers=HTML)
    assert (reply.status, reply.headers["Location"]) == (303, "/login?next=%2F")
    page = (await here.ask("GET", "/login?next=/api/kernels", token=None)).body.decode()
    assert '<input type="hidden" name="next" value="/api/kernels">' in page
    form = urlencode({"token": f" {TOKEN}\n", "next": "/api/kernels"}).encode()
    reply = await here.ask("POST", "/login", form, token=None, headers={"Origin": here.origin})
    assert (reply.status, reply.headers["Location"]) == (303, "/api/kernels")
    cookie = reply.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=604800"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    shown = await here.ask("GET", "/api/kernels", token=None, headers={"Cookie": cookie.partition(";")[0]})
    assert shown.json() == []


@pytest.mark.parametrize(
    ("path", "headers", "status", "sentence"),
    [
        ("/?token=wrong", {}, 401, "no token of this server"),
        ("/login", {"Host": "evil.example"}, 403, "has another name"),
        ("/login?next=%ff", {}, 400, "makes sense"),
    ],
)
async def test_what_keeps_a_person_out_is_told_on_a_page_and_a_program_is_told_as_everywhere(
    here, path, headers, status, sentence
):
    page = await here.ask("GET", path, token=None, headers={**headers, **HTML})
    assert (page.status, page.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert sentence in page.body.decode()
    told = await here.ask("GET", path, token=None, headers=headers)
    assert (told.status, sentence in told.json()["message"]) == (status, True)


async def test_over_tls_the_cookie_is_for_tls_alone(here):
    form = urlencode({"token": TOKEN}).encode()
    headers = {"Origin": f"https://127.0.0.1:{here.port}"}  # TLS ends at a proxy
    assert "Secure" in (await here.ask("POST", "/login", form, token=None, headers=headers)).headers["Set-Cookie"]


async def test_a_url_with_the_token_becomes_one_without(here):
    reply = await here.ask("GET", f"/?token={TOKEN}", token=None, headers=HTML)
    assert (reply.status, reply.headers["Location"]) == (303, "/")
    assert "HttpOnly" in reply.headers["Set-Cookie"]
    assert TOKEN not in str(reply.headers) + reply.body.decode()


async def test_somebody_who_followed_a_link_to_it_is_logged_in_too(here):
    """A browser does not send a strict cookie along a redirect that another site began."""
    reply = await here.ask("GET", f"/?token={TOKEN}", token=None, headers={**HTML, "Sec-Fetch-Site": "cross-site"})
    assert reply.status == 200
    assert '<meta http-equiv="refresh" content="0;url=/">' in reply.body.decode()


@pytest.mark.parametrize(
    ("form", "headers", "status", "sentence"),
    [
        ({"token": "wrong"}, {}, 401, "no token of this server"),
        ({}, {}, 401, "no token of this server"),
        ({"token": TOKEN}, {"Origin": "https://evil.example"}, 403, "another origin"),
        ({"token": TOKEN}, {"Host": "evil.example"}, 403, "has another name"),
    ],
)
async def test_a_login_that_fails_says_why_and_sets_nothing(here, form, headers, status, sentence):
    reply = await here.ask("POST", "/login", urlencode(form).encode(), token=None, headers=headers)
    assert reply.status == status
    assert sentence in reply.body.decode()
    assert "Set-Cookie" not in reply.headers


async def test_guesses_at_the_login_are_slowed_down_too(here):
    for _ in range(21):
        reply = await here.ask("POST", "/login", b"token=wrong", token=None)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "3")


@pytest.mark.parametrize(
    ("body", "status"), [(b"\xff", 422), (b"token=" + b"x" * 70_000, 413), (b"a=1&" * 16_000, 401)]
)
async def test_a_form_that_is_none_is_refused(here, body, status):
    assert (await here.ask("POST", "/login", body, token=None)).status == status


async def test_logout_forgets_the_cookie(here):
    reply = await here.ask("GET", "/logout", token=None)
    assert (reply.status, reply.headers["Location"]) == (303, "/login")
    assert re.match(rf'{here.guard.cookie_name}=""; expires=', reply.headers["Set-Cookie"])


async def test_a_page_says_how_to_connect_and_which_sessions_there_are(here):
    await here.ask("POST", "/api/kernels", {"path": "<script>alert(1)</script>"})
    [live] = here.manager.sessions("owner")
    cookie = here.cookie(time.time())
    page = (await here.ask("GET", "/connect", token=None, headers={**cookie, **HTML})).body.decode()
    assert f"--gateway-url={here.origin}" in page
    assert live.id in page
    assert "&lt;script&gt;" in page and "<script" not in page
    assert TOKEN not in page


async def test_no_host_that_a_client_names_becomes_a_part_of_a_page(here):
    named = {"Host": "a&lt;b"}  # a name may hold these characters
    page = (await here.ask("GET", "/connect", headers=named)).body.decode()
    assert "http://a&amp;lt;b/api/kernels" in page


async def test_the_notebook_page_runs_its_own_scripts_and_no_others(here):
    reply = await here.ask("GET", "/", headers=HTML)
    page = reply.body.decode()
    [nonce] = re.findall(r'name="style-nonce" content="([\w-]+)"', page)
    assert f"script-src 'self'; style-src 'self' 'nonce-{nonce}';" in reply.headers["Content-Security-Policy"]
    assert nonce not in (await here.ask("GET", "/", headers=HTML)).body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", page)
    for name in re.findall(r'(?:src|href)="(static/[^"]+)"', page):
        assert (await here.ask("GET", f"/{name}", token=None)).status == 200


async def test_a_file_of_the_page_is_sent_once(here):
    first = await here.ask("GET", "/static/js/main.js", headers={"Accept-Encoding": "gzip"})
    assert first.headers["X-Consumed-Content-Encoding"] == "gzip", "as tornado's client calls what it has unpacked"
    assert first.body.decode().startswith("// Puts the page together")
    again = await here.ask("GET", "/static/js/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


async def test_an_output_is_shown_in_an_origin_of_nobody(here):
    policy = (await here.ask("GET", "/static/frame.html")).headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';") and "allow-same-origin" not in policy


async def test_a_page_runs_no_scripts_and_its_style_is_the_one_that_is_allowed(here):
    reply = await here.ask("GET", "/login", token=None)
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "<script" not in reply.body.decode()


@given(st.text() | st.from_regex(r"[/\\]{1,3}[a-z.]*(//)?.*", fullmatch=True))
def test_after_a_login_nobody_is_sent_elsewhere(text):
    path = local_path(text)
    assert path == text or path == "/"
    split = urlsplit(path)
    assert (split.scheme, split.netloc) == ("", "")
    assert re.fullmatch(r"/([!-\[\]-~]*)", path) and not path.startswith("//")
