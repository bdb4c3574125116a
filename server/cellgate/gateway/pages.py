"""The few pages a person sees: plain HTML made here, without scripts. What is in them comes from `login` and `home`."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from urllib.parse import urlencode

from tornado.web import HTTPError

from cellgate.gateway.auth import COOKIE_SECONDS, Principal
from cellgate.gateway.base import Problem, RestHandler, problem_of

__all__ = ["PageHandler", "local_path"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #2f6fde; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); }
code, pre { font-family: ui-monospace, monospace; font-size: .875rem; }
pre { padding: .8rem 1rem; border: 1px solid var(--line); border-radius: .5rem; overflow-x: auto; }
input, button { font: inherit; padding: .5rem .75rem; border-radius: .5rem; border: 1px solid var(--line); }
input { width: 100%; box-sizing: border-box; margin: .25rem 0 .75rem; }
button { background: var(--accent); color: #fff; border: 0; cursor: pointer; }
form { max-width: 28rem; } .problem { border-left: 4px solid #c33; padding: .25rem .75rem; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src 'sha256-{_STYLE_HASH}'",
        "img-src data:",  # the icon
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
{head}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
_LOCAL_PATH = re.compile(r"/(?![/\\])[!-~]{0,2000}")


def local_path(text: str) -> str:
    """Where to go on after a login: a path of this server, else its first page. `//host` and `/\\host` are others."""
    return text if _LOCAL_PATH.fullmatch(text) and "\\" not in text else "/"


class PageHandler(RestHandler):
    """Base of what answers a person with a page, and sends whoever is not let in to the login."""

    def show(self, title: str, body: str, *, status: int = 200, head: str = "") -> None:
        """`body` and `head` are HTML; `title` is text."""
        self.set_status(status)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", _POLICY)
        # Without a referrer a browser says `Origin: null` with our own forms.
        self.set_header("Referrer-Policy", "same-origin")
        self.finish(_PAGE.format(title=escape(title), body=body, head=head, style=_STYLE))

    def go_on(self, path: str) -> None:
        """To a page of ours, also when a page of somebody else led here: a cookie that is set now is not sent along a
        redirect of theirs, but with what this page asks for."""
        if self.request.headers.get("Sec-Fetch-Site") == "cross-site":
            link = escape(path)
            self.show(
                "Cellgate", f'<a href="{link}">Go on</a>', head=f'<meta http-equiv="refresh" content="0;url={link}">'
            )
        else:
            self.redirect(path, status=303)

    def set_login_cookie(self, principal: Principal, now: float) -> None:
        """It stands for the token that was shown. Unreadable for scripts, and sent with no request that another site
        makes. Over TLS, when the page that asks came over it, over TLS alone."""
        guard = self.services.guard
        self.set_cookie(
            guard.cookie_name,
            guard.make_cookie(now, principal.token),
            max_age=COOKIE_SECONDS,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self.request.headers.get("Origin", "").startswith("https:"),
        )

    def write_error(self, status_code: int, **kwargs: object) -> None:
        if "text/html" not in self.request.headers.get("Accept", ""):
            super().write_error(status_code, **kwargs)
            return
        info = kwargs.get("exc_info")
        problem = problem_of(info[1] if isinstance(info, tuple) else HTTPError(status_code), self._error_id)
        if problem.code == "unauthorized":
            self.redirect("/login?" + urlencode({"next": local_path(self.request.path)}), status=303)
        else:
            self.show_problem(problem, '<p><a href="/login">Log in</a></p>')

    def show_problem(self, problem: Problem, body: str) -> None:
        self.set_problem(problem)
        sentence = escape(problem.message[:1].upper() + problem.message[1:])
        self.show("Cellgate", f'<p class="problem">{sentence}.</p>\n{body}', status=problem.status)
