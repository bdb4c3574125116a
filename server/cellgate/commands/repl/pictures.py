"""Pictures that a terminal cannot show: put into files, whose paths are shown instead."""

from __future__ import annotations

import binascii
import tempfile
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Pictures"]

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/svg+xml": ".svg"}
MAX_BYTES = 64 << 20  # of one picture: no message is larger


class Pictures:
    """`directory`: where to put them; a new one is made when the first comes."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def keep(self, name: str, data: Mapping[str, Any]) -> Path | None:
        """Write the first picture of a MIME bundle; None when it has none that can be read. Raises OSError."""
        for media, suffix in SUFFIXES.items():
            if media in data and (picture := _bytes_of(media, data[media])) is not None:
                path = self._place() / f"{name}{suffix}"
                path.write_bytes(picture)
                return path
        return None

    def _place(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="cellgate-images-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory


def _bytes_of(media: str, said: object) -> bytes | None:
    if not isinstance(said, str) or len(said) > MAX_BYTES * 4 // 3:
        return None
    if media == "image/svg+xml":
        return said.encode("utf-8", "replace")
    try:
        return b64decode(said, validate=False)
    except binascii.Error:
        return None
