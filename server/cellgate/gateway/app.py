"""The table of routes, and the application that serves it. Each operation says here what it may answer; the OpenAPI
document, PROTOCOL.md and the tests of who may ask are made from this table."""

from __future__ import annotations

import json
import logging

from tornado.web import Application

from cellgate.access.scopes import Scope
from cellgate.gateway.agents import AgentsHandler
from cellgate.gateway.assets import AssetHandler, Assets, read_assets
from cellgate.gateway.auth import Guard
from cellgate.gateway.base import Nowhere, Services, log_request
from cellgate.gateway.channels import ChannelsHandler
from cellgate.gateway.home import AdminPageHandler, ConnectHandler, HomeHandler, WatchHandler
from cellgate.gateway.kernels import InterruptHandler, KernelHandler, KernelsHandler, RestartHandler
from cellgate.gateway.kernelspecs import KernelspecHandler, KernelspecsHandler, LogoHandler, Logos, read_logos
from cellgate.gateway.login import LoginHandler, LogoutHandler
from cellgate.gateway.mcp import Calls, McpHandler
from cellgate.gateway.metrics import MetricsHandler, StatsHandler
from cellgate.gateway.notebooks import NotebookHandler, Notebooks, NotebooksHandler
from cellgate.gateway.openapi import Operation, Route, document
from cellgate.gateway.status import (
    ApiHandler,
    DocumentHandler,
    DrainHandler,
    HealthHandler,
    MeHandler,
    QuotasHandler,
    Readiness,
    ReadyHandler,
    StatusHandler,
)
from cellgate.gateway.v1.routes import BEGINS, STARTS, V1_ROUTES
from cellgate.gateway.visitors import Visitors
from cellgate.live.manager import Manager
from cellgate.metrics.meters import Meters
from cellgate.metrics.traces import Traces
from cellgate.settings import Settings

__all__ = ["ROUTES", "make_app"]

_TEXT = {"type": "string"}
_UNKNOWN = ("unknown_session",)

ROUTES: tuple[Route, ...] = (
    Route("/", HomeHandler, {
        "GET": Operation(
            "the page with the notebook; with `?token=` sets the cookie", {200: "Page", 303: ""},
            media="text/html", scope=Scope.OBSERVE,
        ),
    }),
    Route("/connect", ConnectHandler, {
        "GET": Operation(
            "how other clients connect, for people", {200: "Page"}, media="text/html", scope=Scope.OBSERVE,
        ),
    }),
    Route("/watch", WatchHandler, {
        "GET": Operation(
            "the page with the notebook, for who has a link to watch one", {200: "Page"}, media="text/html"
        ),
    }),
    Route("/admin", AdminPageHandler, {
        "GET": Operation("the operator's page", {200: "Page"}, media="text/html", scope=Scope.ADMIN),
    }),
    Route("/login", LoginHandler, {
        "GET": Operation("the login page", {200: "Page"}, ("foreign_host",), query={"next": _TEXT}, media="text/html"),
        "POST": Operation(
            "set the cookie, and go on", {303: ""},
            ("foreign_host", "foreign_origin", "wrong_token", "too_many_guesses"),
            body="LoginForm", media="text/html", body_media="application/x-www-form-urlencoded",
        ),
    }),
    Route("/logout", LogoutHandler, {"GET": Operation("forget the cookie", {303: ""})}),
    Route("/healthz", HealthHandler, {
        "GET": Operation("whether new sessions are taken", {200: "Health"}, ("draining",)),
    }),
    Route("/static/{path}", AssetHandler, {
        "GET": Operation("what the page is made of", {200: "Asset", 304: ""}, ("not_found",), media="*/*"),
    }),
    Route("/readyz", ReadyHandler, {
        "GET": Operation(
            "the same, when disk and driver are tried", {200: "Ready"},
            ("draining", "driver_unavailable", "server_full", "storage_full"),
        ),
    }),
    Route("/api", ApiHandler, {"GET": Operation("the version of Jupyter's API", {200: "Api"})}),
    Route("/api/status", StatusHandler, {"GET": Operation("how much goes on", {200: "Status"}, scope=Scope.OBSERVE)}),
    Route("/api/me", MeHandler, {
        "GET": Operation(
            "who asks, and may do what", {200: "Me"}, ("usage",), query={"permissions": _TEXT}, scope=Scope.OBSERVE
        ),
    }),
    Route("/api/kernels", KernelsHandler, {
        "GET": Operation("your kernels", {200: "Kernels"}, scope=Scope.OBSERVE),
        "POST": Operation(
            "start a kernel", {201: "Kernel"}, ("bad_limit", *BEGINS), body="KernelWish", scope=Scope.EXECUTE
        ),
    }),
    Route("/api/kernels/{kernel_id}", KernelHandler, {
        "GET": Operation("one kernel", {200: "Kernel"}, _UNKNOWN, scope=Scope.OBSERVE),
        "DELETE": Operation("end it", {204: ""}, _UNKNOWN, scope=Scope.EXECUTE),
    }),
    Route("/api/kernels/{kernel_id}/interrupt", InterruptHandler, {
        "POST": Operation("interrupt what runs", {204: ""}, _UNKNOWN, scope=Scope.EXECUTE),
    }),
    Route("/api/kernels/{kernel_id}/restart", RestartHandler, {
        "POST": Operation(
            "lose all variables, keep the id", {200: "Kernel"}, (*_UNKNOWN, *STARTS), scope=Scope.EXECUTE
        ),
    }),
    Route("/api/kernels/{kernel_id}/channels", ChannelsHandler, {
        "GET": Operation(
            "a websocket for Jupyter's messages", {101: "", 426: ""}, _UNKNOWN,
            query={"session_id": _TEXT, "after": _TEXT}, scope=Scope.EXECUTE,
        ),
    }),
    Route("/api/kernelspecs", KernelspecsHandler, {
        "GET": Operation("which kernels there are", {200: "Kernelspecs"}, scope=Scope.OBSERVE),
    }),
    Route("/api/kernelspecs/{kernel_name}", KernelspecHandler, {
        "GET": Operation("one of them", {200: "Kernelspec"}, ("unknown_kernel",), scope=Scope.OBSERVE),
    }),
    Route("/kernelspecs/{kernel_name}/{file_name}", LogoHandler, {
        "GET": Operation("its logo", {200: "Picture"}, ("not_found",), media="image/*", scope=Scope.OBSERVE),
    }),
    Route("/api/sessions", NotebooksHandler, {
        "GET": Operation("which notebook uses which kernel", {200: "Notebooks"}, scope=Scope.OBSERVE),
        "POST": Operation(
            "a notebook, and a kernel for it", {201: "Notebook"}, (*_UNKNOWN, *BEGINS), body="NotebookWish",
            scope=Scope.EXECUTE,
        ),
    }),
    Route("/api/sessions/{session_id}", NotebookHandler, {
        "GET": Operation("one notebook", {200: "Notebook"}, _UNKNOWN, scope=Scope.OBSERVE),
        "PATCH": Operation(
            "rename it, or give it another kernel", {200: "Notebook"}, (*_UNKNOWN, *BEGINS), body="NotebookChange",
            scope=Scope.EXECUTE,
        ),
        "DELETE": Operation("forget it, and end its kernel", {204: ""}, _UNKNOWN, scope=Scope.EXECUTE),
    }),
    Route("/v1/sessions/{session_id}/ws", AgentsHandler, {
        "GET": Operation(
            "a websocket for agents", {101: "", 426: ""}, ("no_subprotocol", "usage", *_UNKNOWN),
            query={"client": _TEXT, "since": _TEXT, "role": _TEXT}, scope=Scope.OBSERVE,
        ),
    }),
    *V1_ROUTES,
    Route("/metrics", MetricsHandler, {
        "GET": Operation(
            "how the server fares, for Prometheus", {200: "Metrics"}, media="text/plain", scope=Scope.ADMIN
        ),
    }),
    Route("/v1/quotas", QuotasHandler, {
        "GET": Operation("what you have and have used, and may", {200: "Quotas"}, scope=Scope.OBSERVE),
    }),
    Route("/v1/drain", DrainHandler, {
        "GET": Operation("whether new sessions are taken, and how many there are", {200: "Drain"}, scope=Scope.ADMIN),
        "PUT": Operation("take no new sessions from now on", {200: "Drain"}, scope=Scope.ADMIN),
        "DELETE": Operation("take them again", {204: ""}, scope=Scope.ADMIN),
    }),
    Route("/v1/stats", StatsHandler, {
        "GET": Operation("the same, with the last hour", {200: "Stats"}, scope=Scope.ADMIN),
    }),
    Route("/mcp", McpHandler, {
        "POST": Operation(
            "a message of the Model Context Protocol; a call of a tool is answered by a stream of events",
            {200: "Mcp", 202: ""}, ("not_found",), body="Mcp", scope=Scope.EXECUTE,
        ),
        "DELETE": Operation("end the session of an MCP client", {204: ""}, ("not_found",), scope=Scope.EXECUTE),
    }),
    Route("/v1/openapi.json", DocumentHandler, {
        "GET": Operation("these routes, for programs", {200: "Document"}, scope=Scope.OBSERVE),
    }),
)  # fmt: skip


def make_app(
    manager: Manager,
    guard: Guard,
    settings: Settings,
    logos: Logos | None = None,
    assets: Assets | None = None,
    traces: Traces | None = None,
) -> Application:
    """All that is served for this manager, to whom this guard lets in. `logos`, `assets`: if they were read already;
    `traces`: if any are told."""
    # At a lower level it quotes headers that make no sense, and with them perhaps the token.
    logging.getLogger("tornado.general").setLevel(logging.WARNING)
    services = Services(
        manager=manager,
        guard=guard,
        visitors=Visitors(guard, manager.happenings.tell),
        meters=Meters(manager),
        traces=traces,
        readiness=Readiness(manager),
        settings=settings,
        notebooks=Notebooks(manager.directory / "notebooks.json"),
        logos=read_logos(manager.kernelspecs.values()) if logos is None else logos,
        assets=read_assets() if assets is None else assets,
        calls=Calls(),
        document=json.dumps(document(ROUTES, settings)).encode(),
        scopes={(route.handler, method): row.scope for route in ROUTES for method, row in route.operations.items()},
        paths={route.handler: route.path for route in reversed(ROUTES)},
    )
    return Application(
        [(route.pattern, route.handler) for route in ROUTES],
        default_handler_class=Nowhere,
        log_function=log_request,
        services=services,
    )
