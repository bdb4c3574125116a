"""Finds a policy by what an operator calls it: the name of one that comes with Cellgate, or the path of a TOML file."""

from __future__ import annotations

from pathlib import Path

from cellgate.errors import UsageError
from cellgate.policy.policies import POLICIES, Policy, find_policy, parse_policy

__all__ = ["DEFAULT_POLICY", "is_path", "load_policy"]

DEFAULT_POLICY = "standard"
MAX_POLICY_BYTES = 1 << 20  # a policy file has some lines; whatever is larger is another file


def is_path(name: str) -> bool:
    """Whether this is a file's: what has a dot or a slash in it."""
    return name not in POLICIES and ("/" in name or "." in name)


def load_policy(name: str) -> Policy:
    """Raises UsageError and LimitError."""
    if not is_path(name):
        return find_policy(name)
    try:
        with Path(name).expanduser().open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
        if len(data) > MAX_POLICY_BYTES:
            raise UsageError(f"{name!r} is longer than {MAX_POLICY_BYTES} bytes; a policy file would pass")
        return parse_policy(data.decode(), Path(name).stem)
    except OSError as error:
        raise UsageError(f"cannot read {name!r}: {error.strerror}; a policy file would pass") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name!r} is not UTF-8 (byte {error.start}); a policy file would pass") from error
