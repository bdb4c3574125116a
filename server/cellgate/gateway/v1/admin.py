"""For whoever runs the server: everybody's sessions in numbers, and an end to any; nobody's code or output."""

from __future__ import annotations

from typing import Any

from cellgate.errors import UnknownSession
from cellgate.gateway.base import RestHandler, timestamp
from cellgate.live.session import LiveSession

__all__ = ["AdminHandler", "AdminSessionHandler"]


class AdminHandler(RestHandler):
    def get(self) -> None:
        settings, isolation = self.services.settings, self.manager.isolation
        server = {
            "started": timestamp(self.manager.started),
            "driver": settings.driver,
            "profile": settings.profile,
            "pool_size": settings.pool_size,
            "tier": isolation.tier,
            "is_draining": self.manager.is_draining,
        }
        deaths = [vars(death) for death in reversed(self.services.meters.deaths)]
        self.answer({"server": server, "sessions": list(map(self._row, self.manager.all_sessions())), "deaths": deaths})

    def _row(self, live: LiveSession) -> dict[str, Any]:
        """Use is as it was sampled last: no sandbox is asked because somebody looks."""
        ends, why = live.expires
        tally = self.services.meters.tally
        return {
            "id": live.id,
            "principal": live.principal,
            "name": live.wish.name,
            "kernel": live.kernel_name,
            "state": live.session.state.value,
            "incarnation": live.session.incarnation,
            "created": timestamp(live.created),
            "last_activity": timestamp(live.last_activity),
            "expires": {"at": timestamp(ends), "why": why},
            "clients": live.connections,
            "is_running": live.is_running,
            "waiting": live.session.waiting_cells,
            "memory_bytes": tally.memory.get(live.id),
            "cpu_seconds": tally.cpu.get((live.id, live.session.incarnation)),
            "journal_bytes": live.journal.size_bytes,
            "limits": live.limits,
        }


class AdminSessionHandler(RestHandler):
    async def delete(self, session_id: str) -> None:
        live = next((one for one in self.manager.all_sessions() if one.id == session_id and not one.is_gone), None)
        if live is None:
            raise UnknownSession(session_id)
        await live.delete()
        self.answer_nothing()
