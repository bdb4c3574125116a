"""The routes as data, and the OpenAPI document that is made from them. Pure; the table itself is in `app`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from cellgate.access.scopes import Scope
from cellgate.errors import CellgateError, Fault
from cellgate.gateway.auth import REFUSALS
from cellgate.gateway.base import CODES, PLAIN, Handler
from cellgate.gateway.kernels import ENV_SCHEMA, MAX_PATH_CHARS
from cellgate.sandbox.limits import LimitTable
from cellgate.settings import Settings

__all__ = ["Operation", "Route", "codes_as_markdown", "document", "routes_as_markdown"]

Schema = Mapping[str, Any]
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
        """For tornado. Any text may stand for a parameter: the handler knows what there is."""
        return re.sub(r"\{\w+\}", "([^/]+)", self.path.rstrip("/")) + "/?"

    def codes(self, method: str) -> list[str]:
        """Every error that an operation may end with."""
        operation = self.operations[method]
        codes = ["internal", *operation.codes]
        if "{" in self.path or operation.query:
            codes.append("bad_request")
        if operation.body:
            codes += ["too_large", "usage"] + (["bad_json"] if operation.body_media == "application/json" else [])
        if not self.handler.is_anonymous:
            codes += [code for code in REFUSALS if code not in _OF_CHANGES]
            codes += _OF_CHANGES if method != "GET" else ["no_origin"] if 101 in operation.answers else []
        return sorted(set(codes), key=lambda code: (CODES[code], code))


def document(routes: Iterable[Route], settings: Settings) -> dict[str, object]:
    """In OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cellgate",
            "version": "1",
            "description": "Notebook kernels in sandboxes, as Jupyter's clients ask for them. Every error has a "
            "stable `code`; what messages on a websocket look like is in PROTOCOL.md.",
        },
        "paths": {route.path: _path(route) for route in routes},
        "components": {
            "schemas": {**_SCHEMAS, "KernelWish": _kernel_wish(settings)},
            "securitySchemes": {
                "header": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def _path(route: Route) -> dict[str, object]:
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
    methods: dict[str, object] = {method.lower(): _operation(route, method) for method in route.operations}
    return {**({"parameters": parameters} if parameters else {}), **methods}


def _operation(route: Route, method: str) -> dict[str, object]:
    operation = route.operations[method]
    answers: dict[str, object] = {}
    for status, name in operation.answers.items():
        content = {"content": {operation.media: {"schema": _ref(name)}}} if name else {}
        headers = {"headers": {"Location": {"schema": _TEXT}}} if status in (201, 303) else {}
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
        **({"requestBody": _body(operation)} if operation.body else {}),
        "responses": answers,
    }


def _security(route: Route, operation: Operation) -> list[dict[str, list[str]]]:
    if route.handler.is_anonymous:
        return []
    scopes = [operation.scope.value] if operation.scope else []
    return [{"header": scopes}, {"query": scopes}]


def _body(operation: Operation) -> dict[str, object]:
    is_needed = bool(_SCHEMAS.get(operation.body, {}).get("required"))
    return {"required": is_needed, "content": {operation.body_media: {"schema": _ref(operation.body)}}}


def _error_content(operation: Operation) -> dict[str, object]:
    content: dict[str, object] = {"application/json": {"schema": _ref("Error")}}
    return content | ({operation.media: {"schema": _ref("Page")}} if operation.media == "text/html" else {})


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}, **more}


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_DATE: Schema = {"type": "string", "format": "date-time"}
_NAME: Schema = {"type": ["string", "null"], "maxLength": 100, "pattern": r"^[A-Za-z0-9._-]*$"}
_LABEL: Schema = {"type": ["string", "null"], "maxLength": MAX_PATH_CHARS}
_NOTEBOOK_KERNEL: Schema = {
    "type": ["object", "null"],
    "properties": {"id": {"type": ["string", "null"], "maxLength": 64}, "name": _NAME},
}
_NOTEBOOK_LABELS: Schema = {"name": _LABEL, "type": {"type": ["string", "null"], "maxLength": 64}}

_SCHEMAS: dict[str, Schema] = {
    "Error": _object({
        "code": {"type": "string", "enum": sorted(CODES)},
        "message": {**_TEXT, "description": "what was seen, and what would pass"},
        "fault": {"type": "string", "enum": [fault.value for fault in Fault]},
        "facts": {"type": "object"},
        "reason": {**_TEXT, "description": "the status in HTTP's words, where Jupyter's clients look for it"},
    }),
    "Page": {"type": "string"},
    "Picture": {"type": "string"},
    "Document": {"type": "object"},
    "Health": _object({"status": {"const": "ok"}}),
    "Api": _object({"version": _TEXT}),
    "Status": _object({"started": _DATE, "last_activity": _DATE, "kernels": _COUNT, "connections": _COUNT}),
    "Me": _object({
        "identity": _object({"username": _TEXT, "name": _TEXT, "display_name": _TEXT, "initials": _TEXT}),
        "permissions": {"type": "object", "additionalProperties": {"type": "array", "items": _TEXT}},
    }),
    "Kernel": _object({
        "id": _TEXT,
        "name": _TEXT,
        "last_activity": _DATE,
        "execution_state": {"enum": ["starting", "idle", "busy", "restarting", "dead"]},
        "connections": _COUNT,
    }),
    "Kernels": {"type": "array", "items": _ref("Kernel")},
    "Kernelspec": _object({
        "name": _TEXT,
        "spec": _object({
            "argv": {"type": "array"}, "env": {"type": "object"}, "display_name": _TEXT, "language": _TEXT,
            "interrupt_mode": _TEXT, "metadata": {"type": "object"},
        }),
        "resources": {"type": "object", "additionalProperties": _TEXT},
    }),
    "Kernelspecs": _object({
        "default": _TEXT,
        "kernelspecs": {"type": "object", "additionalProperties": _ref("Kernelspec")},
    }),
    "Notebook": _object({"id": _TEXT, "path": _TEXT, "name": _TEXT, "type": _TEXT, "kernel": _ref("Kernel")}),
    "Notebooks": {"type": "array", "items": _ref("Notebook")},
    "NotebookWish": _object(
        {"path": {"type": "string", "minLength": 1, "maxLength": MAX_PATH_CHARS}},
        {**_NOTEBOOK_LABELS, "kernel": _NOTEBOOK_KERNEL},
    ),
    "NotebookChange": _object({}, {"path": _LABEL, **_NOTEBOOK_LABELS, "kernel": _NOTEBOOK_KERNEL}),
    "LoginForm": _object({"token": _TEXT}, {"next": _TEXT}),
}  # fmt: skip


def _kernel_wish(settings: Settings) -> Schema:
    tables: tuple[LimitTable, ...] = (settings.sandbox, settings.session)
    limits = {
        row.name: {
            "type": "integer" if row.is_whole else "number",
            "minimum": row.minimum,
            "maximum": getattr(table, row.name),  # a client may only lower it
            "description": f"{row.unit}: {row.reason}",
        }
        for table in tables
        for row in table.rows()
    }
    return _object({}, {
        "name": {**_NAME, "description": "of a kernelspec; the default without one"},
        "path": {**_LABEL, "description": "shown again; decides nothing"},
        "env": {"type": ["object", "null"], **ENV_SCHEMA},
        "limits": {"type": ["object", "null"], "properties": limits, "additionalProperties": False},
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
