"""Makes an IPython kernel ready: once in a zygote, to be forked per session, or at the start of a plain process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from .host import Host
from .shell import SandboxKernel, current
from .streams import Stream

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A kernel that wants only a host."""

    kernel: SandboxKernel

    def bind(self, host: Host) -> SandboxKernel:
        sys.stdout = Stream(host, "stdout", 1, current)
        sys.stderr = Stream(host, "stderr", 2, current)
        self.kernel.bind(host)
        return self.kernel


def prepare(template: str = "python") -> Prepared:
    from traitlets.config import Config

    held: Any = sys.modules.get("debugpy")
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # 10 MB for a debugger that is not offered
    try:
        config = Config()
        config.HistoryManager.hist_file = ":memory:"
        kernel = SandboxKernel.instance(config=config)
    finally:
        if held is None:
            del sys.modules["debugpy"]
        else:
            sys.modules["debugpy"] = held
    return Prepared(kernel)
