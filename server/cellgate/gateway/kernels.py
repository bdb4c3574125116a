"""/api/kernels as Jupyter has it: start, list, look at, interrupt, restart, delete.

Says what a client may ask for when it starts a kernel; whether it gets it is decided by the Manager.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cellgate.errors import UsageError
from cellgate.gateway.base import RestHandler, timestamp
from cellgate.gateway.bodies import policy_of, table_of, text_of
from cellgate.live.session import LiveSession
from cellgate.live.wish import Wish

__all__ = [
    "ENV_SCHEMA",
    "IGNORED_HEADER",
    "MAX_PATH_CHARS",
    "InterruptHandler",
    "KernelHandler",
    "KernelsHandler",
    "RestartHandler",
    "kernel_model",
    "kernel_name_of",
    "read_env",
]

MAX_PATH_CHARS = 1024  # a notebook's, which is shown again and nothing else
MAX_VALUE_CHARS = 4096  # Linux's own limit of a path, the longest that these variables hold
IGNORED_HEADER = "Cellgate-Ignored"  # names of what was sent and not looked at
MAX_IGNORED = 20

_KERNEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_ENV_NAME = re.compile(r"KERNEL_[A-Z0-9_]{1,60}")
# What some gateways run kernels as. Here they decide nothing, and are still what they say or refused: they stand in the
# environment of code that may believe them.
_ENV_VALUES: dict[str, tuple[re.Pattern[str], str]] = {
    "KERNEL_UID": (re.compile(r"[1-9][0-9]{0,8}"), "a user's number above 0"),
    "KERNEL_GID": (re.compile(r"[1-9][0-9]{0,8}"), "a group's number above 0"),
    "KERNEL_USERNAME": (re.compile(r"[A-Za-z0-9_.@+-]{1,256}"), "letters, digits and . @ + - _"),
}
# The same for the OpenAPI document. What does not match is left out, and refused only outside of KERNEL_.
ENV_SCHEMA: dict[str, object] = {
    "propertyNames": {"pattern": "^KERNEL_"},
    "properties": {name: {"type": "string", "pattern": f"^{row[0].pattern}$"} for name, row in _ENV_VALUES.items()},
    "patternProperties": {f"^{_ENV_NAME.pattern}$": {"type": "string", "maxLength": MAX_VALUE_CHARS}},
}
_FIELDS = {"name", "path", "env", "limits", "policy"}
_SHOWABLE = re.compile(r"[\w.-]{1,60}", re.ASCII)


def kernel_model(live: LiveSession) -> dict[str, object]:
    """As jupyter_server has it."""
    return {
        "id": live.id,
        "name": live.kernel_name,
        "last_activity": timestamp(live.last_activity),
        "execution_state": live.execution_state,
        "connections": live.connections,
    }


def kernel_name_of(fields: Mapping[str, object]) -> str:
    """The kernelspec that is asked for by `name`; "" for the default. Raises UsageError."""
    name = text_of(fields, "name", max_chars=100)
    if name and not _KERNEL_NAME.fullmatch(name):
        raise UsageError(f"name is {name!r}; the name of a kernelspec, as GET /api/kernelspecs lists them, would pass")
    return name


def read_env(asked: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """The variables for the code in the sandbox, and the names of those left out. jupyter_server sends whatever begins
    with KERNEL_ in its own environment, so that of these an odd one is only left out. Raises UsageError."""
    env: dict[str, str] = {}
    ignored: list[str] = []
    for name in asked:
        if not name.startswith("KERNEL_"):
            raise UsageError(f"env has {name[:80]!r}; names that begin with KERNEL_ would pass")
        if not _ENV_NAME.fullmatch(name):
            ignored.append(name)
            continue
        value = text_of(asked, name, max_chars=MAX_VALUE_CHARS, may_be_null=False)
        pattern, accepted = _ENV_VALUES.get(name, (None, ""))
        if pattern and not pattern.fullmatch(value):
            raise UsageError(f"{name} is {value[:80]!r}; {accepted} would pass")
        env[name] = value
    return env, ignored


class KernelsHandler(RestHandler):
    def get(self) -> None:
        self.answer([kernel_model(live) for live in self.manager.sessions(self.principal)])

    async def post(self) -> None:
        fields = self.fields()
        path = text_of(fields, "path", max_chars=MAX_PATH_CHARS)
        env, ignored = read_env(table_of(fields, "env"))
        labels = {"path": path} if path else {}
        limits, policy = table_of(fields, "limits"), policy_of(fields)
        wish = Wish(kernel_name_of(fields), limits, env, labels, policy=policy)
        live = await self.manager.create(self.principal, wish)
        ignored = [name for name in (*fields.keys() - _FIELDS, *ignored) if _SHOWABLE.fullmatch(name)]
        if ignored:
            self.set_header(IGNORED_HEADER, ", ".join(sorted(ignored)[:MAX_IGNORED]))
        self.set_header("Location", f"/api/kernels/{live.id}")
        self.answer(kernel_model(live), 201)


class KernelHandler(RestHandler):
    def get(self, kernel_id: str) -> None:
        self.answer(kernel_model(self.manager.find(self.principal, kernel_id)))

    async def delete(self, kernel_id: str) -> None:
        await self.manager.find(self.principal, kernel_id).delete()
        self.answer_nothing()


class InterruptHandler(RestHandler):
    async def post(self, kernel_id: str) -> None:
        await self.manager.find(self.principal, kernel_id).interrupt()
        self.answer_nothing()


class RestartHandler(RestHandler):
    async def post(self, kernel_id: str) -> None:
        await self.manager.find(self.principal, kernel_id).restart()
        self.answer(kernel_model(self.manager.find(self.principal, kernel_id)))  # it may have been deleted meanwhile
