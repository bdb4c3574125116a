"""Where an issuer's keys come from: a file, or a URL that is asked again and again, as issuers change their keys."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellgate.access.vouched import Issuer, read_keys
from cellgate.errors import CellgateError, UsageError

if TYPE_CHECKING:
    from cellgate.settings import Settings

__all__ = ["fetch_keys", "keep_keys", "open_issuer"]

log = logging.getLogger("cellgate.access")

REFRESH_SECONDS = 300.0  # issuers publish a new key a day or more before they use it
FETCH_SECONDS = 10.0  # for a URL to answer
MAX_BYTES = 1 << 20  # a key has half a kilobyte


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Keys come from where the operator said, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def fetch_keys(source: str) -> dict[str, Any]:
    """From a path or an https URL. Waits for it. Raises UsageError."""
    try:
        if source.startswith("https://"):
            with _OPENER.open(source, timeout=FETCH_SECONDS) as answer:
                data = answer.read(MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except (OSError, HTTPException) as error:  # the latter: it broke off, or speaks no HTTP
        raise UsageError(f"the keys cannot be read from {source}: {error}; a JWK set there would pass") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{source} has more than {MAX_BYTES} bytes; a JWK set there would pass")
    return read_keys(data)


async def keep_keys(source: str, take: Callable[[Mapping[str, Any]], object]) -> None:
    """Until cancelled, hand on what is found. Keys that cannot be read stay as they were."""
    trouble = ""
    while True:
        try:
            take(await asyncio.to_thread(fetch_keys, source))
            trouble = ""
        except CellgateError as error:
            if str(error) != trouble:
                trouble = str(error)
                log.error("%s; those that are known stay", trouble)
        await asyncio.sleep(REFRESH_SECONDS)


def open_issuer(settings: Settings) -> Issuer | None:
    """The one that these settings name, with its keys. Raises UsageError."""
    if settings.jwt_keys is None:
        return None
    if settings.jwt_issuer is None or settings.jwt_audience is None:
        raise UsageError("jwt_keys alone says too little; jwt_issuer and jwt_audience with it would pass")
    try:
        import jwt  # noqa: F401
    except ImportError as error:
        raise UsageError("jwt_keys needs PyJWT; `pip install 'cellgate[oidc]'` would pass") from error
    return Issuer(settings.jwt_issuer, settings.jwt_audience, settings.jwt_claim, fetch_keys(settings.jwt_keys))
