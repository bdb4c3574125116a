"""What a browser loads of the page: the files under `static/`. They are read once, before the gateway gives up its
rights, and looked up by name: no request reaches a path. There is nothing secret in them, and anybody gets them: the
frame of an output, whose origin is nobody's, could not show who asks.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from tornado.web import HTTPError

from cellgate.gateway.base import RestHandler

__all__ = ["FRAME_POLICY", "PAGE_POLICY", "Asset", "AssetHandler", "Assets", "read_assets", "send_asset"]

Assets = Mapping[str, "Asset"]

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
_NOT_SERVED = "bundling"  # what `vendor/` is made from

# What the page may load and be led to. A frame with an output has a policy of its own, and may go nowhere else: where a
# frame may be led is decided by `frame-src` here.
PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'nonce-{nonce}'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'self'",
        "frame-ancestors 'none'",
    ]
)
# What an output may do: run scripts, in an origin of nobody, that can load what is here and speak to nobody.
FRAME_POLICY = "; ".join(
    [
        "sandbox allow-scripts",
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src data: blob:",
        "media-src data: blob:",
        "font-src 'self' data:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
    ]
)


@dataclass
class Asset:
    """One file, as it is sent."""

    type: str
    data: bytes

    @cached_property
    def etag(self) -> str:
        return f'"{blake2b(self.data, digest_size=12).hexdigest()}"'

    @cached_property
    def compressed(self) -> bytes:
        """When somebody wants it first."""
        return gzip.compress(self.data, 6, mtime=0)


def read_assets() -> Assets:
    """Of this installation: beside the sources in a checkout, within the package when it was installed."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "static", package.parent.parent / "static")
    folder = next((folder for folder in folders if (folder / "index.html").is_file()), None)
    if folder is None:
        return {}
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in _TYPES)
    named = {str(path.relative_to(folder)): path for path in paths}
    return {
        name: Asset(_TYPES[path.suffix], path.read_bytes())
        for name, path in named.items()
        if not name.startswith(_NOT_SERVED)
    }


class AssetHandler(RestHandler):
    """`/static/{path}`."""

    is_anonymous = True

    async def get(self, path: str) -> None:
        asset = self.services.assets.get(path)
        if asset is None:
            raise HTTPError(404)
        if path == "frame.html":
            self.set_header("Content-Security-Policy", FRAME_POLICY)
        # The frame's fonts and scripts are asked for by an origin of nobody.
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.set_header("Access-Control-Allow-Origin", "*")
        # Asked for again each time, and answered without a body when nothing has changed: an upgrade is seen at once.
        self.set_header("Cache-Control", "no-cache")
        await send_asset(self, asset)


async def send_asset(handler: RestHandler, asset: Asset) -> None:
    headers = handler.request.headers
    handler.set_header("ETag", asset.etag)
    handler.set_header("Vary", "Accept-Encoding")
    handler.set_header("Content-Type", asset.type)
    if asset.etag in headers.get("If-None-Match", ""):
        handler.set_status(304)
        handler.finish()
    elif asset.type != "font/woff2" and "gzip" in headers.get("Accept-Encoding", ""):  # which is compressed by itself
        handler.set_header("Content-Encoding", "gzip")
        await asyncio.to_thread(lambda: asset.compressed)  # 0.1 s for the largest, once
        handler.finish(asset.compressed)
    else:
        handler.finish(asset.data)
