"""What a client asks for when it wants a session, and how that is kept in the registry. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cellgate.errors import LimitError, UsageError
from cellgate.sandbox.limits import Limits
from cellgate.sessions.limits import SessionLimits, check_together
from cellgate.settings import limits_of_profile

__all__ = ["Wish", "lowered"]


@dataclass(frozen=True)
class Wish:
    """Whoever parsed it has checked the types; what it may have is checked by `Manager.create`."""

    kernel: str = ""  # a kernelspec's name; "" for the default
    limits: Mapping[str, object] = field(default_factory=dict)  # only lower than the server's
    env: Mapping[str, str] = field(default_factory=dict)  # for the code in the sandbox
    labels: Mapping[str, str] = field(default_factory=dict)  # a notebook's path, name, type: shown again
    name: str = ""  # what its owner calls it; need not be the only one
    metadata: Mapping[str, object] = field(default_factory=dict)  # its owner's; shown again, decides nothing
    profile: str = ""  # whose limits it has, where those are lower than the server's
    idempotency_key: str = ""  # whoever asks with it again means this session
    policy: Mapping[str, object] = field(default_factory=dict)  # only tighter than the server's, in a file's keys
    is_fleeting: bool = False  # nobody knows of it but the gateway that made it: another clears it away

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if value}

    @staticmethod
    def from_json(spec: Mapping[str, object]) -> Wish:
        """What `to_json` made. What makes no sense is left out: it was written by another version."""
        plain = Wish()
        known = {
            name: value
            for name, value in spec.items()
            if name in vars(plain) and isinstance(value, type(getattr(plain, name)))
        }
        return Wish(**known)  # each has the type of its default


def lowered(wish: Wish, sandbox: Limits, session: SessionLimits) -> tuple[Limits, SessionLimits]:
    """The limits of a session with this wish, on a server with these. Raises LimitError or UsageError."""
    if not wish.limits and not wish.profile:
        return sandbox, session
    most = {**sandbox.to_mapping(), **session.to_mapping()}
    profile = limits_of_profile(wish.profile) if wish.profile else {}
    for name, value in wish.limits.items():
        if name not in most:
            raise UsageError(f"{name[:80]!r} is no limit of a session; `cellgate settings` lists them")
        if isinstance(value, (int, float)) and value > most[name]:
            raise LimitError(name, value, f"at most the server's own, {most[name]},")
    given = {**{name: min(value, profile.get(name, value)) for name, value in most.items()}, **wish.limits}
    made = (
        Limits.from_mapping({name: given[name] for name in sandbox.to_mapping()}),
        SessionLimits.from_mapping({name: given[name] for name in session.to_mapping()}),
    )
    check_together(given)
    return made
