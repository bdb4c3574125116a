"""What an audit log says of what happens: one object for each happening that it keeps. Pure.

Code is told by its hash, and itself only where the operator wants it. Output is never told.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import fields
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from cellgate.live.happenings import (
    CellAccepted,
    CellRefused,
    ClientJoined,
    FileMoved,
    Happening,
    LimitHit,
    SessionCreated,
    TokenRefused,
    TokenUsed,
    UsageSampled,
    VerdictGiven,
)

__all__ = ["ASKED", "KINDS", "facts_for", "kind_of"]


MAX_CODE_CHARS = 256 << 10  # of one cell's that are kept; each may take six bytes of a line


def kind_of(kind: type) -> str:
    """How a log calls it: `cell_accepted` for CellAccepted."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", kind.__name__).lower()


KINDS: dict[type, str] = {kind: kind_of(kind) for kind in Happening.__args__}


# What a request brings about itself, and at once. What becomes of it later may have had any cause.
ASKED: frozenset[type] = frozenset(
    (
        SessionCreated,
        CellAccepted,
        CellRefused,
        VerdictGiven,
        ClientJoined,
        FileMoved,
        LimitHit,
        TokenUsed,
        TokenRefused,
    )
)


def facts_for(happening: Happening, now: float, request: str = "", *, with_code: bool) -> dict[str, object] | None:
    """`request`: the id of the one that it happened for. None for what is no matter of an audit: samples, and that
    something was allowed, as what follows shows."""
    kind = type(happening)
    if kind is UsageSampled or (isinstance(happening, VerdictGiven) and not happening.denied_by):
        return None
    facts: dict[str, Any] = {"at": _date(now), "what": KINDS[kind]}
    for name in _FIELDS[kind]:
        value = getattr(happening, name)
        if name == "who":
            facts["principal"], facts["session"] = value.principal, value.session
        elif name == "code":
            facts |= _code(value, with_code)
        else:
            facts[name] = round(value, 6) if type(value) is float else value
    if request and kind in ASKED:
        facts["request"] = request
    return facts


_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in KINDS}


def _code(code: str, with_code: bool) -> dict[str, object]:
    data = code.encode("utf-8", "surrogatepass")
    told: dict[str, object] = {"code_sha256": hashlib.sha256(data).hexdigest(), "code_bytes": len(data)}
    if not with_code:
        return told
    return {**told, "code": code[:MAX_CODE_CHARS], **({"code_cut": True} if len(code) > MAX_CODE_CHARS else {})}


def _date(now: float) -> str:
    seconds, rest = divmod(now, 1.0)
    return f"{_second(seconds)}.{int(rest * 1000):03}Z"


@lru_cache(maxsize=1)
def _second(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
