"""The drivers by name, for whoever composes a program out of them. Imports a driver only when it is asked for."""

from __future__ import annotations

from cellgate.errors import UsageError
from cellgate.sandbox.base import Driver

__all__ = ["DEFAULT_DRIVER", "DRIVERS", "open_driver"]

DEFAULT_DRIVER = "native"
DRIVERS = ("native", "process")


async def open_driver(name: str) -> Driver:
    """The driver of this name; whoever asked owes it a `close`. There is no falling back to a weaker one.
    Raises UsageError for an unknown name, DriverUnavailable when this host cannot run it."""
    if name == "native":
        from cellgate.sandbox.native.driver import NativeDriver

        return await NativeDriver.start()
    if name == "process":
        from cellgate.sandbox.process import ProcessDriver

        return ProcessDriver()
    raise UsageError(f"there is no driver {name[:80]!r}; known: {', '.join(DRIVERS)}")
