"""PROTOCOL.md's section on HTTP says what the table of routes does."""

from pathlib import Path

from cellgate.access.scopes import scopes_as_markdown
from cellgate.gateway import auth, bodies
from cellgate.gateway.app import ROUTES
from cellgate.gateway.base import MAX_BODY_BYTES
from cellgate.gateway.kernels import IGNORED_HEADER
from cellgate.gateway.openapi import codes_as_markdown, routes_as_markdown
from cellgate.metrics.prometheus import metrics_as_markdown

PAGE = (Path(__file__).parents[2] / "server" / "PROTOCOL.md").read_text()
WORDS = " ".join(PAGE.split())


def rendered(name: str) -> str:
    _, _, rest = PAGE.partition(f"<!-- {name}: rendered from ")
    return rest.partition("-->\n")[2].partition(f"<!-- end of {name} -->")[0]


def test_routes():
    assert rendered("routes") == routes_as_markdown(ROUTES)


def test_error_codes():
    assert rendered("codes") == codes_as_markdown()


def test_metrics():
    assert rendered("metrics") == metrics_as_markdown()


def test_scopes():
    assert rendered("scopes") == scopes_as_markdown()


def test_the_ways_to_show_who_one_is():
    for way, how in auth.WAYS.items():
        assert f"| {way.value} | {how} |\n" in PAGE


def test_what_is_open_to_anybody():
    names = [f"`{route.path}`" for route in ROUTES if route.handler.is_anonymous]
    assert f"{', '.join(names[:-1])} and {names[-1]} are open to anybody" in WORDS


def test_numbers_and_names_in_the_text():
    assert f"up to {MAX_BODY_BYTES >> 10} KiB" in WORDS
    assert f"nesting beyond {bodies.MAX_DEPTH} levels" in WORDS
    assert f"After {auth.MAX_GUESSES} wrong tokens" in WORDS
    assert f"looked at each {auth.GUESS_SECONDS:g} s" in WORDS
    assert f"the header `{IGNORED_HEADER}`" in WORDS
