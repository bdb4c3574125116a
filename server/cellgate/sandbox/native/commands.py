"""What a driver may ask of the warden: a closed set of typed commands, as one JSON object per packet.

Pure: bytes to commands and answers to bytes. A command's fields are numbers, names out of fixed lists and the
ids that the warden gave out itself; none of them ever becomes a path, an argument or a uid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cellgate.errors import CellgateError, LimitError, UsageError
from cellgate.sandbox.certificate import MAX_DETAIL_CHARS, Reason
from cellgate.sandbox.limits import Limits

__all__ = [
    "LIST_PIECE",
    "MAX_PACKET_BYTES",
    "VERSION",
    "Attach",
    "Command",
    "Create",
    "Destroyed",
    "Drive",
    "Interrupt",
    "KeepPool",
    "Kill",
    "List",
    "Shutdown",
    "Usage",
    "describe",
    "pack",
    "parse_command",
    "unpack",
]

VERSION: Final = 1  # of this protocol; a driver and a warden that differ refuse each other at the first packet
MAX_PACKET_BYTES: Final = 64 << 10  # the longest is a piece of the list of sandboxes
LIST_PIECE: Final = 8  # sandboxes in one: some 500 bytes each, 7 KB with a certificate's longest detail in escapes


@dataclass(frozen=True)
class Drive:
    """Be the driver from now on. Answered by `driving`, or `failed` when another version is spoken. The driver
    before gets the word `dismissed`, and nothing that it sent and that is not read yet will be done."""

    version: int


@dataclass(frozen=True)
class Create:
    """A sandbox. Answered by `created` with the first link's descriptor, or `failed`."""

    template: str
    limits: Limits
    use_pool: bool


@dataclass(frozen=True)
class Attach:
    """A fresh link. Answered by `attached` with its descriptor, or `failed`."""

    id: str


@dataclass(frozen=True)
class Interrupt:
    """SIGINT to the kernel's process group. Answered by `interrupted` when it is sent."""

    id: str


@dataclass(frozen=True)
class Kill:
    """Not answered; `died` follows."""

    id: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Usage:
    """Answered by `usage`, or `failed`."""

    id: str


@dataclass(frozen=True)
class List:
    """The sandboxes that were handed out: the living, and those that ended and were not asked about by
    `destroyed` since, with their certificates. Answered by `sandboxes`, in pieces, and a `listed`."""


@dataclass(frozen=True)
class Destroyed:
    """Tell when nothing of a sandbox is left, and forget how it ended. Answered by `gone`, at once if so already."""

    id: str


@dataclass(frozen=True)
class KeepPool:
    """Keep so many sandboxes of this kind ready. Answered by `pooled`, or `failed`."""

    template: str
    limits: Limits
    size: int


@dataclass(frozen=True)
class Shutdown:
    """End every sandbox, and then the warden, which hangs up. Answered by `ending`."""


Command = Drive | Create | Attach | Interrupt | Kill | Usage | List | Destroyed | KeepPool | Shutdown
_VERBS: Final = "drive, create, keep_pool, attach, interrupt, kill, usage, list, destroyed or shutdown"
MAX_POOL: Final = 1000  # each holds some 8 MiB; more than this is a typing error


def pack(message: Mapping[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def unpack(packet: bytes) -> dict[str, object]:
    """Raises UsageError unless the packet is one JSON object."""
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}; one object per packet would pass") from None
    if not isinstance(message, dict):
        raise UsageError("not an object; one JSON object per packet would pass")
    return message


def parse_command(packet: bytes) -> tuple[int, Command]:
    """The caller's reference and the command. Raises UsageError or LimitError, never anything else."""
    message = unpack(packet)
    reference, verb = message.get("ref"), message.get("do")
    if type(reference) is not int:
        raise UsageError("no reference; a whole number as `ref` would pass")
    if verb == "create":
        return reference, Create(_text(message, "template"), _limits(message), bool(message.get("use_pool")))
    if verb == "keep_pool":
        size = message.get("size")
        if type(size) is not int or not 0 <= size <= MAX_POOL:
            raise LimitError("size", size, f"a whole number from 0 to {MAX_POOL}")
        return reference, KeepPool(_text(message, "template"), _limits(message), size)
    if verb == "list":
        return reference, List()
    if verb == "shutdown":
        return reference, Shutdown()
    if verb == "drive":
        version = message.get("version")
        if type(version) is not int:
            raise UsageError(f"no version; {VERSION} would pass")
        return reference, Drive(version)
    sandbox_id = _text(message, "id")
    if verb == "kill":
        try:
            reason = Reason(message.get("reason"))
        except ValueError:
            raise UsageError(f"no such reason; one of {', '.join(Reason)} would pass") from None
        return reference, Kill(sandbox_id, reason, _text(message, "detail")[:MAX_DETAIL_CHARS])
    for name, kind in (("attach", Attach), ("interrupt", Interrupt), ("usage", Usage), ("destroyed", Destroyed)):
        if verb == name:
            return reference, kind(sandbox_id)
    raise UsageError(f"no such command; {_VERBS} would pass")


def _limits(message: Mapping[str, object]) -> Limits:
    limits = message.get("limits")
    if not isinstance(limits, dict):
        raise LimitError("limits", limits, "an object of numbers by name")
    return Limits.from_mapping(limits)


def _text(message: Mapping[str, object], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{name} is missing; text would pass")
    return value


def describe(error: CellgateError) -> dict[str, object]:
    """An error as its code and facts, from which the driver makes it anew."""
    plain = (bool, int, float, str, tuple)
    return {"code": error.code, "facts": {k: v if isinstance(v, plain) else repr(v) for k, v in error.facts().items()}}
