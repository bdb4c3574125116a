"""The routes as data, and the OpenAPI document that is made from them. Pure; the table itself is in `app`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from cellgate.access.scopes import Scope
from cellgate.errors import CellgateError, Fault
from cellgate.gateway.auth import REFUSALS
from cellgate.gateway.base import CODES, PLAIN, Handler
from cellgate.gateway.kernels import ENV_SCHEMA, MAX_PATH_CHARS
from cellgate.gateway.schemas import COUNT, DATE, POLICY, TEXT, Schema, limits_of, object_of, ref
from cellgate.gateway.v1.schemas import v1_schemas
from cellgate.settings import Settings

__all__ = ["STREAMED", "Operation", "Route", "codes_as_markdown", "document", "routes_as_markdown"]

STREAMED = "application/octet-stream"  # a body that is passed on as it comes, and has limits of its own
_OF_CHANGES = ["no_origin", "simple_form"]  # refused only of what may change something


@dataclass(frozen=True)
class Operation:
    """What one method of a route does. Without a scope it lets nobody in, unless the handler `is_anonymous`."""

    summary: str
    answers: Mapping[int, str]  # by status, the schema of what is answered; "" for nothing
    codes: tuple[str, ...] = ()  # of errors, beside those that every route may end with
    body: str = ""  # the schema of what is sent
    query: Mapping[str, Schema] = field(default_factory=dict)
    media: str = "application/json"  # of what is answered
    body_media: str = "application/json"
    scope: Scope | None = None  # what one must have


@dataclass(frozen=True)
class Route:
    """A path, with its parameters in braces."""

    path: str
    handler: type[Handler]
    operations: Mapping[str, Operation]  # by method

    @property
    def pattern(self) -> str:
        """For tornado. Any text may stand for a parameter, in that which is called `path` slashes too: the handler
        knows what there is."""
        return re.sub(r"\{\w+\}", "([^/]+)", self.path.rstrip("/").replace("{path}", "(.+)")) + "/?"

    def codes(self, method: str) -> list[str]:
        """Every error that an operation may end with."""
        operation = self.operations[method]
        codes = ["internal", *operation.codes]
        if "{" in self.path or operation.query:
            codes.append("bad_request")
        if operation.body and operation.body_media != STREAMED:
            codes += ["too_large", "usage"] + (["bad_json"] if operation.body_media == "application/json" else [])
        if not self.handler.is_anonymous:
            codes += [code for code in REFUSALS if code not in _OF_CHANGES]
            codes += _OF_CHANGES if method != "GET" else ["no_origin"] if 101 in operation.answers else []
        return sorted(set(codes), key=lambda code: (CODES[code], code))


def document(routes: Iterable[Route], settings: Settings) -> dict[str, object]:
    """In OpenAPI 3.1."""
    schemas = {**_SCHEMAS, "KernelWish": _kernel_wish(settings), **v1_schemas(settings)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cellgate",
            "version": "1",
            "description": "Notebook kernels in sandboxes, as Jupyter's clients ask for them. Every error has a "
            "stable `code`; what messages on a websocket look like is in PROTOCOL.md.",
        },
        "paths": {route.path: _path(route, schemas) for route in routes},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "header": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def _path(route: Route, schemas: Mapping[str, Schema]) -> dict[str, object]:
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]
    methods: dict[str, object] = {method.lower(): _operation(route, method, schemas) for method in route.operations}
    return {**({"parameters": parameters} if parameters else {}), **methods}


def _operation(route: Route, method: str, schemas: Mapping[str, Schema]) -> dict[str, object]:
    operation = route.operations[method]
    answers: dict[str, object] = {}
    for status, name in operation.answers.items():
        content = {"content": {operation.media: {"schema": ref(name)}}} if name else {}
        headers = {"headers": {"Location": {"schema": TEXT}}} if status in (201, 303) else {}
        answers[str(status)] = {"description": HTTPStatus(status).phrase, **headers, **content}
    by_status: dict[int, list[str]] = {}
    for code in route.codes(method):
        by_status.setdefault(CODES[code], []).append(code)
    for status, codes in by_status.items():
        answers[str(status)] = {"description": ", ".join(codes), "content": _error_content(operation)}
    return {
        "summary": operation.summary,
        "operationId": f"{method.lower()}{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).rstrip('_')}",
        "security": _security(route, operation),
        "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()],
        **({"requestBody": _body(operation, schemas)} if operation.body else {}),
        "responses": answers,
    }


def _security(route: Route, operation: Operation) -> list[dict[str, list[str]]]:
    if route.handler.is_anonymous:
        return []
    scopes = [operation.scope.value] if operation.scope else []
    return [{"header": scopes}, {"query": scopes}]


def _body(operation: Operation, schemas: Mapping[str, Schema]) -> dict[str, object]:
    is_needed = bool(schemas[operation.body].get("required"))
    return {"required": is_needed, "content": {operation.body_media: {"schema": ref(operation.body)}}}


def _error_content(operation: Operation) -> dict[str, object]:
    content: dict[str, object] = {"application/json": {"schema": ref("Error")}}
    return content | ({operation.media: {"schema": ref("Page")}} if operation.media == "text/html" else {})


_NAME: Schema = {"type": ["string", "null"], "maxLength": 100, "pattern": r"^[A-Za-z0-9._-]*$"}
_LABEL: Schema = {"type": ["string", "null"], "maxLength": MAX_PATH_CHARS}
_NOTEBOOK_KERNEL: Schema = {
    "type": ["object", "null"],
    "properties": {"id": {"type": ["string", "null"], "maxLength": 64}, "name": _NAME},
}
_NOTEBOOK_LABELS: Schema = {"name": _LABEL, "type": {"type": ["string", "null"], "maxLength": 64}}

_NUMBER: Schema = {"type": "number"}

_SCHEMAS: dict[str, Schema] = {
    "Error": object_of({
        "code": {"type": "string", "enum": sorted(CODES)},
        "message": {**TEXT, "description": "what was seen, and what would pass"},
        "fault": {"type": "string", "enum": [fault.value for fault in Fault]},
        "facts": {"type": "object"},
        "reason": {**TEXT, "description": "the status in HTTP's words, where Jupyter's clients look for it"},
    }),
    "Mcp": {"type": "object", "description": "of JSON-RPC 2.0"},
    "Page": {"type": "string"},
    "Picture": {"type": "string"},
    "Asset": {"type": "string"},
    "Document": {"type": "object"},
    "Metrics": {"type": "string"},
    "Stats": object_of({name: {"type": "object"} for name in ("now", "counts", "history")}, {"at": {"type": "number"}}),
    "Health": object_of({"status": {"const": "ok"}}),
    "Ready": object_of({"status": {"const": "ready"}}),
    "Quotas": object_of({
        "principal": TEXT,
        "quotas": {"type": "object", "additionalProperties": object_of(dict.fromkeys(("used", "limit"), _NUMBER))},
        "day_ends_in_seconds": COUNT,
    }),
    "Drain": object_of({"draining": {"type": "boolean"}, "sessions": COUNT}),
    "Api": object_of({"version": TEXT}),
    "Status": object_of({"started": DATE, "last_activity": DATE, "kernels": COUNT, "connections": COUNT}),
    "Me": object_of({
        "identity": object_of({"username": TEXT, "name": TEXT, "display_name": TEXT, "initials": TEXT}),
        "permissions": {"type": "object", "additionalProperties": {"type": "array", "items": TEXT}},
    }),
    "Kernel": object_of({
        "id": TEXT,
        "name": TEXT,
        "last_activity": DATE,
        "execution_state": {"enum": ["starting", "idle", "busy", "restarting", "dead"]},
        "connections": COUNT,
    }),
    "Kernels": {"type": "array", "items": ref("Kernel")},
    "Kernelspec": object_of({
        "name": TEXT,
        "spec": object_of({
            "argv": {"type": "array"}, "env": {"type": "object"}, "display_name": TEXT, "language": TEXT,
            "interrupt_mode": TEXT, "metadata": {"type": "object"},
        }),
        "resources": {"type": "object", "additionalProperties": TEXT},
    }),
    "Kernelspecs": object_of({
        "default": TEXT,
        "kernelspecs": {"type": "object", "additionalProperties": ref("Kernelspec")},
    }),
    "Notebook": object_of({"id": TEXT, "path": TEXT, "name": TEXT, "type": TEXT, "kernel": ref("Kernel")}),
    "Notebooks": {"type": "array", "items": ref("Notebook")},
    "NotebookWish": object_of(
        {"path": {"type": "string", "minLength": 1, "maxLength": MAX_PATH_CHARS}},
        {**_NOTEBOOK_LABELS, "kernel": _NOTEBOOK_KERNEL},
    ),
    "NotebookChange": object_of({}, {"path": _LABEL, **_NOTEBOOK_LABELS, "kernel": _NOTEBOOK_KERNEL}),
    "LoginForm": object_of({"token": TEXT}, {"next": TEXT}),
}  # fmt: skip


def _kernel_wish(settings: Settings) -> Schema:
    return object_of({}, {
        "name": {**_NAME, "description": "of a kernelspec; the default without one"},
        "path": {**_LABEL, "description": "shown again; decides nothing"},
        "env": {"type": ["object", "null"], **ENV_SCHEMA},
        "limits": limits_of(settings),
        "policy": POLICY,
    })  # fmt: skip


# -- for people ----------------------------------------------------------------------------------------


def routes_as_markdown(routes: Iterable[Route]) -> str:
    """A line for each operation."""
    lines = ["| method | path | scope | what it does | answers |", "|---|---|---|---|---|"]
    for route in routes:
        for method, operation in route.operations.items():
            own = {CODES[code] for code in operation.codes}
            statuses = ", ".join(str(int(status)) for status in (*operation.answers, *sorted(own)))
            scope = operation.scope or ""
            lines.append(f"| {method} | `{route.path}` | {scope} | {operation.summary} | {statuses} |")
    return "\n".join(lines) + "\n"


def codes_as_markdown() -> str:
    """A line for each code of an error."""
    sentences = dict(PLAIN.values())
    sentences |= {code: sentence for code, (_, sentence) in REFUSALS.items()}
    sentences |= {kind.code: _first_sentence(kind) for kind in _kinds(CellgateError)}
    lines = ["| error code | HTTP status | meaning |", "|---|---|---|"]
    for code, status in sorted(CODES.items(), key=lambda item: (item[1], item[0])):
        meaning = sentences[code]
        lines.append(f"| `{code}` | {status} | {meaning[0].upper()}{meaning[1:].rstrip('.')}. |")
    return "\n".join(lines) + "\n"


def _kinds(kind: type[CellgateError]) -> Iterator[type[CellgateError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def _first_sentence(kind: type[CellgateError]) -> str:
    if kind is CellgateError:
        return kind().text()
    return " ".join((kind.__doc__ or "").partition(".")[0].split())
