"""/v1/sessions: sessions as agents want them, made, listed, looked at, changed and ended. What is run in them is next
door."""

from __future__ import annotations

from typing import Any

from cellgate.errors import UsageError
from cellgate.gateway.base import RestHandler, timestamp
from cellgate.gateway.bodies import check_names
from cellgate.gateway.v1.wishes import changed, read_wish
from cellgate.live.session import LiveSession
from cellgate.sessions.states import State

__all__ = ["FILTERS", "InterruptHandler", "RestartHandler", "SessionHandler", "SessionsHandler"]

FILTERS = ("state", "name", "kernel", "language")


class V1Handler(RestHandler):
    """What these handlers share."""

    def find(self, session_id: str) -> LiveSession:
        """Raises UnknownSession."""
        return self.manager.find(self.principal, session_id)

    def words(self, *known: str) -> dict[str, str]:
        """The query's words by name, without the token. Raises UsageError for one that nobody looks at."""
        given = {name: self.get_query_argument(name) for name in self.request.query_arguments if name != "token"}
        check_names(given, known)
        return given

    def short(self, live: LiveSession) -> dict[str, Any]:
        """What a list shows of a session."""
        spec = self.manager.kernelspecs[live.kernel_name]
        return {
            "id": live.id,
            "name": live.wish.name,
            "metadata": dict(live.wish.metadata),
            "kernel": spec.name,
            "language": spec.language,
            "state": live.session.state.value,
            "incarnation": live.session.incarnation,
            "created": timestamp(live.created),
            "last_activity": timestamp(live.last_activity),
            "clients": live.connections,
        }

    async def full(self, live: LiveSession) -> dict[str, Any]:
        """All that is known of a session; of its environment the names alone."""
        ends, why = live.expires
        running, usage = live.session.running, await live.usage()
        return {
            **self.short(live),
            "template": self.manager.kernelspecs[live.kernel_name].template,
            "profile": live.wish.profile or self.services.settings.profile,
            "limits": live.limits,
            "env": sorted(live.wish.env),
            "idempotency_key": live.wish.idempotency_key or None,
            "policy": dict(live.wish.policy),
            "expires": {"at": timestamp(ends), "why": why},
            "queue": {"running": running.message.msg_id if running else None, "waiting": live.session.waiting_cells},
            "tier": self.manager.isolation.tier,
            "events": {"first": live.journal.first_seq, "last": live.journal.next_seq - 1},
            "usage": None if usage is None else vars(usage),
        }


class SessionsHandler(V1Handler):
    def get(self) -> None:
        wanted = self.words(*FILTERS)
        if (state := wanted.get("state")) not in (None, *State):
            raise UsageError(f"state is {str(state)[:80]!r}; one of {', '.join(one.value for one in State)} would pass")
        shown = (self.short(live) for live in self.manager.sessions(self.principal))
        self.answer({"sessions": [one for one in shown if wanted.items() <= one.items()]})

    async def post(self) -> None:
        """201 with a new one, 200 with the one that was asked for with this key before."""
        wish = read_wish(self.fields(), self.manager.kernelspecs)
        live, is_new = await self.manager.create_once(self.principal, wish)
        self.set_header("Location", f"/v1/sessions/{live.id}")
        self.answer(await self.full(live), 201 if is_new else 200)


class SessionHandler(V1Handler):
    is_shared = True

    async def get(self, session_id: str) -> None:
        said = await self.full(self.find(session_id))
        if self.caller.session:  # who has a link to watch sees the notebook, and not what its owner keeps beside it
            said |= {"metadata": {}, "env": [], "idempotency_key": None}
        self.answer(said)

    async def patch(self, session_id: str) -> None:
        live = self.find(session_id)
        self.manager.change(live, changed(live.wish, self.fields()))
        self.answer(await self.full(live))

    async def delete(self, session_id: str) -> None:
        await self.find(session_id).delete()
        self.answer_nothing()


class InterruptHandler(V1Handler):
    async def post(self, session_id: str) -> None:
        await self.find(session_id).interrupt()
        self.answer_nothing()


class RestartHandler(V1Handler):
    async def post(self, session_id: str) -> None:
        await self.find(session_id).restart()
        self.answer(await self.full(self.find(session_id)))  # it may have been deleted meanwhile
