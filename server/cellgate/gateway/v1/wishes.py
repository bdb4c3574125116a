"""Reads what an agent asks for when it wants a session, or one changed. Pure; what it may have is decided below."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from cellgate.errors import UsageError
from cellgate.gateway.bodies import check_names, policy_of, table_of, text_of
from cellgate.live.kernelspecs import Kernelspec, choose_kernelspec
from cellgate.live.wish import Wish

__all__ = [
    "CHANGEABLE_LIMITS",
    "ENV_NAME",
    "FORBIDDEN_ENV",
    "MAX_ENV",
    "MAX_KEY_CHARS",
    "MAX_METADATA_BYTES",
    "MAX_NAME_CHARS",
    "MAX_VALUE_CHARS",
    "WISH_NAMES",
    "changed",
    "read_wish",
]

MAX_NAME_CHARS = 200  # what people call a thing
MAX_KEY_CHARS = 128  # a uuid, or what a client makes of a job's name and a step's
MAX_METADATA_BYTES = 8 << 10  # as JSON: who asked, for what; it is sent with every answer about the session
MAX_ENV = 64  # variables; whoever needs more has a file to bring
MAX_VALUE_CHARS = 4096  # a key or a path

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# What steers the programs of the sandbox themselves: the loader, the shell, Python, Jupyter, and where they find their
# files. Another value would break the kernel rather than the sandbox, and its owner would not see why.
FORBIDDEN_ENV = re.compile(
    r"PATH|HOME|PWD|SHELL|USER|LOGNAME|TMPDIR|IFS|ENV|BASH_.*|LD_.*|GLIBC_.*|GCONV_.*|MALLOC_.*"
    r"|PYTHON.*|IPYTHON.*|IPY.*|JPY_.*|JUPYTER_.*|CELLGATE_.*"
)
WISH_NAMES = (
    "kernel",
    "language",
    "template",
    "profile",
    "limits",
    "env",
    "name",
    "metadata",
    "idempotency_key",
    "policy",
)
CHANGEABLE_LIMITS = (  # in a session that exists: those of time alone; a sandbox has its others from birth
    *("cell_seconds", "interrupt_grace_seconds", "idle_seconds", "lifetime_seconds", "notice_seconds"),
)


def read_wish(fields: Mapping[str, object], specs: Mapping[str, Kernelspec]) -> Wish:
    """Raises UsageError, UnknownKernel."""
    check_names(fields, WISH_NAMES)
    words = {name: text_of(fields, name, max_chars=100) for name in ("kernel", "language", "template")}
    return Wish(
        kernel=choose_kernelspec(specs, **words).name,
        limits=table_of(fields, "limits"),
        env=_env_of(fields),
        name=text_of(fields, "name", max_chars=MAX_NAME_CHARS),
        metadata=_metadata_of(fields),
        profile=text_of(fields, "profile", max_chars=100),
        idempotency_key=text_of(fields, "idempotency_key", max_chars=MAX_KEY_CHARS),
        policy=policy_of(fields),
    )


def changed(wish: Wish, fields: Mapping[str, object]) -> Wish:
    """With the name, the metadata and the limits that are named now; the others stay. Raises UsageError."""
    check_names(fields, ("name", "metadata", "limits"))
    limits = table_of(fields, "limits")
    for name in limits:
        if name not in CHANGEABLE_LIMITS:
            raise UsageError(f"{name[:80]!r} cannot be changed any more; of {', '.join(CHANGEABLE_LIMITS)} any can")
    return replace(
        wish,
        name=text_of(fields, "name", max_chars=MAX_NAME_CHARS, default=wish.name),
        metadata=_metadata_of(fields) if fields.get("metadata") is not None else wish.metadata,
        limits={**wish.limits, **limits},
    )


def _env_of(fields: Mapping[str, object]) -> dict[str, str]:
    asked = table_of(fields, "env")
    if len(asked) > MAX_ENV:
        raise UsageError(f"env has {len(asked)} variables; up to {MAX_ENV} would pass")
    for name in asked:
        if not ENV_NAME.fullmatch(name):
            raise UsageError(f"env has {name[:80]!r}; a name of up to 64 letters, digits and _ would pass")
        if FORBIDDEN_ENV.fullmatch(name.upper()):
            raise UsageError(f"env has {name[:80]!r}, which steers the sandbox's own programs; another name would pass")
    return {name: text_of(asked, name, max_chars=MAX_VALUE_CHARS, may_be_null=False) for name in asked}


def _metadata_of(fields: Mapping[str, object]) -> dict[str, object]:
    metadata = table_of(fields, "metadata")
    if (size := len(json.dumps(metadata))) > MAX_METADATA_BYTES:
        raise UsageError(f"metadata has {size} bytes as JSON; up to {MAX_METADATA_BYTES} would pass")
    return metadata
