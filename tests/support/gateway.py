"""The routes of a gateway with a real manager, in the test's own process, and a client that sees all of an answer.

async with gateway(tmp_path) as here:
    reply = await here.ask("POST", "/api/kernels", {"name": "python3"})
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.netutil import bind_sockets

from cellgate.access.scopes import ALL_SCOPES, Scope, with_implied
from cellgate.access.tokens import Token, make_token
from cellgate.gateway.app import make_app
from cellgate.gateway.auth import Guard
from cellgate.gateway.base import Services
from cellgate.live.manager import Manager
from cellgate.sandbox.base import Driver
from cellgate.sandbox.fake import FakeDriver
from cellgate.settings import read_settings

__all__ = ["TOKEN", "Gateway", "Reply", "gateway"]

TOKEN = "the-token-of-this-test"
BOUND = 30.0  # seconds, for one answer


@dataclass(frozen=True)
class Reply:
    status: int
    headers: HTTPHeaders
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of the error it tells."""
        return self.json()["code"]


@dataclass
class Gateway:
    manager: Manager
    guard: Guard
    services: Services
    port: int
    tokens: list[Token] = field(default_factory=list)  # that were made

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """`body` is sent as JSON, or as it is when it is bytes."""
        sent = {"Authorization": f"token {token}"} if token else {}
        request = HTTPRequest(
            self.origin + path,
            method,
            headers={**sent, **(headers or {})},
            body=None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
            allow_nonstandard_methods=True,
            follow_redirects=False,
            request_timeout=BOUND,
        )
        response = await AsyncHTTPClient().fetch(request, raise_error=False)
        if response.code == 599:
            raise ConnectionError(str(response.error))
        return Reply(response.code, response.headers, response.body)

    def token(self, principal: str, *scopes: Scope) -> str:
        """One that is made for this principal, with these scopes or all."""
        token, text = make_token(principal, with_implied(scopes) or ALL_SCOPES, now=time.time())
        self.tokens.append(token)
        self.guard.take(self.tokens)
        return text

    def cookie(self, now: float) -> dict[str, str]:
        """The headers of a request from our own page, after a login at that time."""
        return {"Cookie": f"{self.guard.cookie_name}={self.guard.make_cookie(now)}", "Origin": self.origin}


async def fake_driver() -> Driver:
    return FakeDriver()


@asynccontextmanager
async def gateway(
    directory: Path, *, open_driver: Callable[[], Awaitable[Driver]] = fake_driver, **flags: str
) -> AsyncIterator[Gateway]:
    """With the profile `testing`; its sessions end with it."""
    settings = read_settings(flags={"profile": "testing", **flags}, environ={}, file={})
    manager = await Manager.open(settings, open_driver, directory=directory)
    guard = Guard(TOKEN, allowed_origins=settings.allowed_origins, host=settings.host)
    app = make_app(manager, guard, settings)
    server = HTTPServer(app, max_body_size=1 << 20)
    sockets = bind_sockets(0, "127.0.0.1")
    try:
        server.add_sockets(sockets)
        yield Gateway(manager, guard, app.settings["services"], sockets[0].getsockname()[1])
    finally:
        server.stop()
        await server.close_all_connections()
        await manager.close(end_sessions=True)
