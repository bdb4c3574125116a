"""The pages that run in a browser: at / and /watch, and the operator's at /admin; and that which tells how other
clients connect and which sessions there are."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from html import escape

from tornado.web import HTTPError

from cellgate.gateway.assets import PAGE_POLICY
from cellgate.gateway.auth import Way
from cellgate.gateway.pages import PageHandler
from cellgate.live.session import LiveSession

__all__ = ["AdminPageHandler", "ConnectHandler", "HomeHandler", "WatchHandler"]

_CONNECT = """<p>This server runs notebook kernels, each in a sandbox of its own. Any Jupyter client can use them.</p>
<h2>Connect</h2>
<p>JupyterLab or Jupyter Notebook on your machine, with its kernels here:</p>
<pre>JUPYTER_GATEWAY_AUTH_TOKEN=TOKEN jupyter lab --gateway-url={url}</pre>
<p>VS Code: <i>Select Kernel</i>, <i>Existing Jupyter Server</i>, and this URL. It works for other clients too:</p>
<pre>{url}/?token=TOKEN</pre>
<p>Or by hand:</p>
<pre>curl -X POST -H 'Authorization: token TOKEN' {url}/api/kernels</pre>
<p>TOKEN is in the line that the server printed when it started, or whoever runs it gave you one.</p>
<h2>Sessions</h2>
{sessions}
<p><a href="/logout">Log out</a></p>
"""
_ROW = "<tr><td><code>{id}</code></td><td>{kernel}</td><td>{state}</td><td>{clients}</td><td>{path}</td></tr>"
_HEADING = "<tr><th>id</th><th>kernel</th><th>state</th><th>clients</th><th>notebook</th></tr>"


class ScriptedPage(PageHandler):
    """Base of what answers with a page that scripts of ours make alive."""

    def show_asset(self, name: str) -> None:
        page = self.services.assets.get(name)
        if page is None:  # an installation without it
            raise HTTPError(404)
        nonce = secrets.token_urlsafe(16)
        self.set_header("Content-Type", page.type)
        self.set_header("Content-Security-Policy", PAGE_POLICY.format(nonce=nonce))
        self.set_header("Referrer-Policy", "same-origin")
        self.finish(page.data.replace(b"STYLE-NONCE", nonce.encode()))


class HomeHandler(ScriptedPage):
    def get(self) -> None:
        if self.way is Way.QUERY:  # a URL that holds the token stays in no history, and in no page's sight
            self.set_login_cookie(self.caller, time.time())
            self.go_on("/")
        elif "index.html" not in self.services.assets:  # an installation without the page; the rest of it serves
            self.go_on("/connect")
        else:
            self.show_asset("index.html")


class WatchHandler(ScriptedPage):
    """The same page for anybody: what it may show is said by the token behind the `#`, which stays in the browser."""

    is_anonymous = True

    def get(self) -> None:
        self.show_asset("index.html")


class AdminPageHandler(ScriptedPage):
    def get(self) -> None:
        self.show_asset("admin.html")


class ConnectHandler(PageHandler):
    def get(self) -> None:
        url = f"{self.request.protocol}://{self.request.host}"
        sessions = self.manager.sessions(self.principal)
        self.show("Cellgate", _CONNECT.format(url=escape(url), sessions=_table(sessions)))


def _table(sessions: Sequence[LiveSession]) -> str:
    rows = [
        _ROW.format(
            id=live.id,
            kernel=escape(live.kernel_name),
            state=escape(live.execution_state),
            clients=live.connections,
            path=escape(live.wish.labels.get("path", "")),
        )
        for live in sessions
    ]
    return "\n".join(["<table>", _HEADING, *rows, "</table>"]) if rows else "<p>There are none.</p>"
