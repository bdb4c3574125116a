"""One principal against another's sessions, on every operation of the OpenAPI document: nothing is seen, guessed or
changed. Whatever route is added is in here by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from uuid import uuid4

import pytest

from cellgate.access.scopes import Scope
from cellgate.gateway.app import ROUTES
from cellgate.gateway.openapi import document
from cellgate.live.session import LiveSession
from cellgate.settings import read_settings
from tests.support.gateway import Gateway, Reply, gateway
from tests.support.live import Client

DOCUMENT = json.loads(json.dumps(document(ROUTES, read_settings(flags={"profile": "testing"}, environ={}, file={}))))
SECRET = "the-secret-of-ada"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
# What a parameter of a path may name, beside ids of what somebody owns: the same for all.
PUBLIC = {"kernel_name": "python3", "file_name": "logo-svg.svg", "path": "index.html"}


def operations() -> Iterator[tuple[str, str]]:
    for path, item in DOCUMENT["paths"].items():
        yield from ((method.upper(), path) for method in item if method != "parameters")


OPERATIONS = [pytest.param(*operation, id=" ".join(operation)) for operation in operations()]
OWNED = [case for case in OPERATIONS if set(re.findall(r"\{(\w+)\}", str(case.values[1]))) - PUBLIC.keys()]


def is_for_admins(method: str, path: str) -> bool:
    return {"header": ["admin"]} in DOCUMENT["paths"][path][method.lower()]["security"]


def resolved(schema: dict) -> dict:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def example(schema: dict, an_id: str) -> object:
    """What would pass, with everything that must be there, and this id wherever one may be."""
    schema = resolved(schema)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if "oneOf" in schema or "anyOf" in schema:
        return example((schema.get("oneOf") or schema["anyOf"])[0], an_id)
    kinds = schema.get("type", "object")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        fields = schema.get("properties", {})
        wanted = [name for name in fields if name in schema.get("required", ()) or holds_id(name, fields[name])]
        return {name: an_id if is_id(name) else example(fields[name], an_id) for name in wanted}
    return {"string": "x", "integer": 1, "number": 1, "boolean": True, "array": [], "null": None}[kind]


def is_id(name: str) -> bool:
    return name == "id" or name.endswith("_id") or name == "session"


def holds_id(name: str, schema: dict) -> bool:
    fields = resolved(schema).get("properties", {})
    return is_id(name) or any(holds_id(inner, fields[inner]) for inner in fields)


async def ask(here: Gateway, method: str, path: str, an_id: str, token: str) -> Reply:
    """With this id wherever the path, the query or the body takes one."""
    operation = DOCUMENT["paths"][path][method.lower()]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    query = "&".join(f"{row['name']}={an_id}" for row in operation["parameters"] if is_id(row["name"]))
    filled = re.sub(r"\{(\w+)\}", lambda found: PUBLIC.get(found[1], an_id), path)
    sent = json.dumps(example(body["schema"], an_id)).encode() if body else b"" if method in ("POST", "PUT") else None
    headers = UPGRADE if "101" in operation["responses"] else {}
    return await here.ask(method, f"{filled}?{query}", sent, token=token, headers=headers)


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


class Ada:
    """Has a kernel, a notebook for it, and something in both that nobody else shall see."""

    def __init__(self, here: Gateway) -> None:
        self.here = here
        self.token = here.token("ada")

    async def moves_in(self) -> None:
        body = {"path": f"{SECRET}.ipynb", "name": SECRET, "kernel": {"name": "python3"}}
        model = (await self.here.ask("POST", "/api/sessions", body, token=self.token)).json()
        self.live: LiveSession = self.here.manager.find("ada", model["kernel"]["id"])
        self.ids = [self.live.id, model["id"]]
        self.client = Client(self.live)
        await self.client.run(f"print({SECRET!r})")
        self.was = self.state()

    def state(self) -> tuple[object, ...]:
        """All that a stranger could have changed."""
        live, core = self.live, self.live.session
        clients = sorted(reader.client for reader in live._audience.readers())
        return core.state, core.incarnation, live.journal.next_seq, dict(live.wish.labels), clients


def told(reply: Reply, an_id: str) -> tuple[int, str]:
    """All that an answer tells, but the id that was asked for, and dates."""
    text = reply.body.decode("utf-8", "replace").replace(an_id, "ID")
    return reply.status, re.sub(r'"[0-9T:.-]+Z"', "DATE", text)


@pytest.mark.parametrize(("method", "path"), OWNED)
async def test_what_is_somebody_elses_is_answered_as_what_is_not_there(here, method, path):
    ada, eve = Ada(here), here.token("eve", Scope.EXECUTE, Scope.FILES)
    await ada.moves_in()
    for theirs in ada.ids:
        nobodys = str(uuid4())
        told_of_theirs = told(await ask(here, method, path, theirs, eve), theirs)
        assert told_of_theirs == told(await ask(here, method, path, nobodys, eve), nobodys)
        assert told_of_theirs[0] == (403 if is_for_admins(method, path) else 404), told_of_theirs
        assert SECRET not in told_of_theirs[1]
    assert ada.state() == ada.was


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_no_answer_holds_anything_of_somebody_elses(here, method, path):
    """Lists, pages, numbers; also where another's id stands in a query or a body."""
    ada, eve = Ada(here), here.token("eve", Scope.EXECUTE, Scope.FILES)
    await ada.moves_in()
    for theirs in ada.ids:
        status, text = told(await ask(here, method, path, theirs, eve), theirs)
        assert SECRET not in text
        assert not any(an_id in text for an_id in ada.ids), (status, text)
    assert ada.state() == ada.was


async def test_the_matrix_would_find_what_it_looks_for(here):
    """The same questions are answered otherwise when she asks them whose it is."""
    ada = Ada(here)
    await ada.moves_in()
    for path, an_id in (("/api/kernels/{kernel_id}", ada.ids[0]), ("/api/sessions/{session_id}", ada.ids[1])):
        assert (await ask(here, "GET", path, an_id, ada.token)).status == 200
    assert SECRET in (await ask(here, "GET", "/api/sessions", ada.ids[0], ada.token)).body.decode()
