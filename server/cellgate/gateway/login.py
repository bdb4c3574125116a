"""The token, typed once into a page, becomes a cookie."""

from __future__ import annotations

import time
from html import escape
from urllib.parse import parse_qs

from cellgate.errors import UsageError
from cellgate.gateway.auth import OWNER, Refusal
from cellgate.gateway.base import Refused, problem_of
from cellgate.gateway.pages import PageHandler, local_path

__all__ = ["LoginHandler", "LogoutHandler"]

_FORM = """<p>The token is in the line that the server printed when it started, or whoever runs it gave you one.</p>
<form method="post" action="/login">
<input type="text" name="username" value="{owner}" autocomplete="username" hidden>
<label>Token <input type="password" name="token" autocomplete="current-password" autofocus required></label>
<input type="hidden" name="next" value="{next}">
<button>Log in</button>
</form>
"""
TITLE = "Log in to Cellgate"


def _form(path: str) -> str:
    """HTML. The name is for password managers, which keep nothing without one."""
    return _FORM.format(next=escape(path), owner=OWNER)


class LoginHandler(PageHandler):
    """Anonymous; but not under a name that a stranger made point here."""

    is_anonymous = True

    def prepare(self) -> None:
        super().prepare()
        if not self._finished and (refusal := self.services.guard.welcome(self.asked())):
            raise Refused(refusal)

    def get(self) -> None:
        self.show(TITLE, _form(local_path(self.get_query_argument("next", "/"))))

    def post(self) -> None:
        form = self._sent()
        now = time.time()
        path = local_path(form.get("next", "/"))
        answer = self.services.guard.admit_login(self.asked(), form.get("token", "").strip(), now)
        if isinstance(answer, Refusal):
            self.services.visitors.refuse(answer, self.request.remote_ip or "")
            self.show_problem(problem_of(Refused(answer)), _form(path))
            return
        self.set_login_cookie(answer, now)
        self.redirect(path, status=303)

    def _sent(self) -> dict[str, str]:
        try:
            return {name: values[-1] for name, values in parse_qs(self.body.decode()).items()}
        except ValueError as error:
            raise UsageError("this is no form; `token=TOKEN` would pass") from error


class LogoutHandler(PageHandler):
    is_anonymous = True  # whoever has no cookie loses none

    def get(self) -> None:
        self.clear_cookie(self.services.guard.cookie_name, path="/")
        self.redirect("/login", status=303)
