"""What a client asks for when it wants a session, and how that is kept in the registry. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cellgate.errors import LimitError, UsageError
from cellgate.sandbox.limits import Limits
from cellgate.sessions.limits import SessionLimits, check_together

__all__ = ["Wish", "lowered"]


@dataclass(frozen=True)
class Wish:
    """Whoever parsed it has checked the types; what it may have is checked by `Manager.create`."""

    kernel: str = ""  # a kernelspec's name; "" for the default
    limits: Mapping[str, object] = field(default_factory=dict)  # only lower than the server's
    env: Mapping[str, str] = field(default_factory=dict)  # for the code in the sandbox
    labels: Mapping[str, str] = field(default_factory=dict)  # a notebook's path, name, type: shown again

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if value}

    @staticmethod
    def from_json(spec: Mapping[str, object]) -> Wish:
        """What `to_json` made. What makes no sense is left out: it was written by another version."""
        kernel = spec.get("kernel")
        tables = {name: spec.get(name) for name in ("limits", "env", "labels")}
        known = {name: dict(table) for name, table in tables.items() if isinstance(table, dict)}
        return Wish(kernel if isinstance(kernel, str) else "", **known)


def lowered(wish: Wish, sandbox: Limits, session: SessionLimits) -> tuple[Limits, SessionLimits]:
    """The limits of a session with this wish, on a server with these. Raises LimitError or UsageError."""
    if not wish.limits:
        return sandbox, session
    most = {**sandbox.to_mapping(), **session.to_mapping()}
    for name, value in wish.limits.items():
        if name not in most:
            raise UsageError(f"{name[:80]!r} is no limit of a session; `cellgate settings` lists them")
        if isinstance(value, (int, float)) and value > most[name]:
            raise LimitError(name, value, f"at most the server's own, {most[name]},")
    given = {**most, **wish.limits}
    made = (
        Limits.from_mapping({name: given[name] for name in sandbox.to_mapping()}),
        SessionLimits.from_mapping({name: given[name] for name in session.to_mapping()}),
    )
    check_together({**given, "journal_bytes_total": given["journal_bytes_per_session"]})
    return made
