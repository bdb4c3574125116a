"""Keeps what each principal has used today, over the end of a gateway: listens to what happens, and writes a file.

What it may use is decided in `sessions/quotas.py`. A gateway that is killed takes up to SAVE_SECONDS of cells' wall
time with it; CPU time is told as a sum by the sandboxes themselves, and is not lost.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from cellgate.live.happenings import CellFinished, Happening, KernelEnded, UsageSampled, Who
from cellgate.sessions.quotas import Ledger, Used

__all__ = ["Accounts"]

log = logging.getLogger("cellgate.live")

SAVE_SECONDS = 10.0
MAX_FILE_BYTES = 16 << 20  # 100,000 principals and kernels


class Accounts:
    """Made by `open`. `now` is in seconds since 1970."""

    def __init__(self, path: Path, ledger: Ledger, now: float) -> None:
        self._path = path
        self._ledger = ledger
        self._saved_at = 0.0
        self._has_news = False
        self.now = now  # of the last `look_after`

    @staticmethod
    def open(path: Path, now: float) -> Accounts:
        """A file that cannot be read begins anew: nobody is locked out for it."""
        ledger = Ledger()
        try:
            with path.open("rb") as file:
                data = json.loads(file.read(MAX_FILE_BYTES))
            if isinstance(data, dict):
                ledger = Ledger.from_json(data)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            log.error("what was used today is not known: %s: %s", path, error)
        return Accounts(path, ledger, now)

    def used(self, principal: str) -> Used:
        return self._ledger.used(principal, self.now)

    def hear(self, happening: Happening) -> None:
        """A listener."""
        if isinstance(happening, CellFinished):
            self._ledger.count_wall(happening.who.principal, happening.wall_seconds, self.now)
        elif isinstance(happening, (UsageSampled, KernelEnded)):
            kernel = _kernel(happening.who, happening.incarnation)
            self._ledger.count_cpu(happening.who.principal, kernel, happening.cpu_seconds, self.now)
            if isinstance(happening, KernelEnded):
                self._ledger.forget_kernel(kernel)
        else:
            return
        self._has_news = True

    def look_after(self, now: float) -> None:
        """To be called about once a second."""
        self.now = now
        if self._has_news and now - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Whole, or not at all. A disk that refuses is tried again later."""
        beside = self._path.with_suffix(".new")
        self._saved_at = self.now
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                json.dump(self._ledger.to_json(), file)
            beside.replace(self._path)
            self._has_news = False
        except OSError as error:
            log.error("what was used today cannot be kept: %s", error)
            with suppress(OSError):
                beside.unlink()


def _kernel(who: Who, incarnation: int) -> str:
    return f"{who.session}/{incarnation}"
