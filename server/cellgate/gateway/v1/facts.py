"""What this server has and allows, for agents to plan by: /v1/languages, /v1/limits, /v1/profiles, /v1/isolation."""

from __future__ import annotations

from itertools import groupby

from cellgate.gateway.v1.sessions import V1Handler
from cellgate.live.kernelspecs import DEFAULT_KERNEL, Kernelspec
from cellgate.settings import PROFILES, limits_of_profile

__all__ = ["IsolationHandler", "LanguagesHandler", "LimitsHandler", "ProfilesHandler"]


class LanguagesHandler(V1Handler):
    def get(self) -> None:
        """Of each language the kernel that is taken when only the language is named comes first."""
        specs = sorted(self.manager.kernelspecs.values(), key=lambda spec: spec.name != DEFAULT_KERNEL)
        specs.sort(key=lambda spec: spec.language.lower())
        by_language = groupby(specs, key=lambda spec: spec.language.lower())
        self.answer(
            {"languages": [{"name": name, "kernels": list(map(_kernel, group))} for name, group in by_language]}
        )


def _kernel(spec: Kernelspec) -> dict[str, object]:
    return {
        "name": spec.name,
        "title": spec.display_name,
        "template": spec.template,
        "is_bridged": bool(spec.bridged),
        "packages": None if spec.packages is None else dict(spec.packages),
    }


class LimitsHandler(V1Handler):
    def get(self) -> None:
        """The server's own: what a session has that asks for nothing, and the most that one may ask for."""
        settings = self.services.settings
        tables = {"sandbox": settings.sandbox, "session": settings.session, "server": settings.server}
        self.answer(
            {
                "limits": [
                    {
                        "name": row.name,
                        "of": of,
                        "value": getattr(table, row.name),
                        "least": row.minimum,
                        "unit": row.unit,
                        "why": row.reason,
                    }
                    for of, table in tables.items()
                    for row in table.rows()
                ]
            }
        )


class ProfilesHandler(V1Handler):
    def get(self) -> None:
        """Each with all its limits; a session that names one has those of them that are lower than the server's."""
        default = self.services.settings.profile
        self.answer({"default": default, "profiles": {name: limits_of_profile(name) for name in PROFILES}})


class IsolationHandler(V1Handler):
    async def get(self) -> None:
        """The first who asks waits some seconds."""
        report = await self.manager.isolation.report()
        self.answer(report.to_json())
