"""What a server says of itself: /healthz, /readyz, /api, /api/status, /api/me, /v1/quotas, /v1/drain,
/v1/openapi.json."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from cellgate.access.scopes import Scope
from cellgate.errors import Draining, UsageError
from cellgate.gateway.base import RestHandler, timestamp
from cellgate.gateway.bodies import BadJson, read_object
from cellgate.sessions.quotas import seconds_left

__all__ = [
    "ApiHandler",
    "DocumentHandler",
    "DrainHandler",
    "HealthHandler",
    "MeHandler",
    "QuotasHandler",
    "Readiness",
    "ReadyHandler",
    "StatusHandler",
]

if TYPE_CHECKING:
    from cellgate.live.manager import Manager

JUPYTER_VERSION = "2.21.0"  # of jupyter_server, whose answers ours are like; clients ask for it before they trust us
_PERMISSIONS = {  # what there is to be done, in jupyter_server's words, and the scope that it wants
    "api": {"read": Scope.OBSERVE},
    "kernels": {"read": Scope.OBSERVE, "write": Scope.EXECUTE, "execute": Scope.EXECUTE},
    "kernelspecs": {"read": Scope.OBSERVE},
    "sessions": {"read": Scope.OBSERVE, "write": Scope.EXECUTE},
}


class HealthHandler(RestHandler):
    """For whoever decides whether to send clients here."""

    is_anonymous = True

    def get(self) -> None:
        if self.manager.is_draining:
            raise Draining()
        self.answer({"status": "ok"})


class ReadyHandler(RestHandler):
    """The same, when it is really tried: somebody who asked for a session would get one."""

    is_anonymous = True

    async def get(self) -> None:
        await self.services.readiness.check()
        self.answer({"status": "ready"})


class Readiness:
    """Tries it at most once a second, however many ask."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._trying: asyncio.Task[None] | None = None
        self._tried_at = 0.0

    async def check(self) -> None:
        """Raises what `Manager.check_ready` does."""
        now = asyncio.get_running_loop().time()
        if self._trying is None or (self._trying.done() and now >= self._tried_at + 1.0):
            self._tried_at = now
            self._trying = asyncio.ensure_future(self._manager.check_ready())
        await asyncio.shield(self._trying)


class QuotasHandler(RestHandler):
    def get(self) -> None:
        """Of each quota what whoever asks has or has used, and may; two begin anew when the day ends."""
        manager, server = self.manager, self.manager.settings.server
        holding, used = manager.holding(self.principal), manager.accounts.used(self.principal)
        running = sum(live.is_running for live in manager.sessions(self.principal))
        rows = {
            "sessions_per_principal": holding.sessions,
            "cells_per_principal": running,
            "memory_bytes_per_principal": holding.memory_bytes,
            "stored_bytes_per_principal": holding.stored_bytes,
            "cpu_seconds_per_day": round(used.cpu_seconds, 3),
            "wall_seconds_per_day": round(used.wall_seconds, 3),
        }
        quotas = {name: {"used": value, "limit": getattr(server, name)} for name, value in rows.items()}
        self.answer({"principal": self.principal, "quotas": quotas, "day_ends_in_seconds": seconds_left(time.time())})


class DrainHandler(RestHandler):
    """Forgotten when the gateway ends, as when a server is started again."""

    def get(self) -> None:
        self.answer({"draining": self.manager.is_draining, "sessions": len(self.manager.all_sessions())})

    def put(self) -> None:
        self.manager.drain()
        self.get()

    def delete(self) -> None:
        self.manager.undrain()
        self.answer_nothing()


class ApiHandler(RestHandler):
    """Anonymous, as in Jupyter: clients look here whether a server is one at all."""

    is_anonymous = True

    def get(self) -> None:
        self.answer({"version": JUPYTER_VERSION})


class StatusHandler(RestHandler):
    def get(self) -> None:
        manager = self.manager
        sessions = manager.sessions(self.principal)
        last = max((live.last_activity for live in sessions), default=manager.started)
        connections = sum(live.connections for live in sessions)
        said = {"started": timestamp(manager.started), "last_activity": timestamp(last)}
        self.answer({**said, "kernels": len(sessions), "connections": connections})


class MeHandler(RestHandler):
    def get(self) -> None:
        """Of the permissions that `?permissions={"resource": ["action"]}` names, those that are given."""
        name = self.principal
        names = {"username": name, "name": name, "display_name": name.capitalize(), "initials": name[0].upper()}
        permissions = {
            resource: [action for action in actions if _PERMISSIONS.get(resource, {}).get(action) in self.caller.scopes]
            for resource, actions in self._asked_permissions().items()
        }
        self.answer({"identity": {**names, "avatar_url": None, "color": None}, "permissions": permissions})

    def _asked_permissions(self) -> dict[str, list[str]]:
        wrong = UsageError('permissions is something else; an object like {"kernels": ["read"]} would pass')
        try:
            asked = read_object(self.get_query_argument("permissions", "").encode())
        except BadJson as error:
            raise wrong from error
        if not all(isinstance(actions, list) and _are_texts(actions) for actions in asked.values()):
            raise wrong
        return cast("dict[str, list[str]]", asked)


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


class DocumentHandler(RestHandler):
    """The routes, for programs."""

    def get(self) -> None:
        self.finish(self.services.document)
