"""The drivers by name, for whoever composes a program out of them. Imports a driver only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cellgate.errors import DriverUnavailable, UsageError

if TYPE_CHECKING:
    from cellgate.sandbox.base import Driver

__all__ = ["DEFAULT_DRIVER", "DRIVERS", "load_docker", "open_driver"]

DEFAULT_DRIVER = "native"
DRIVERS = ("native", "docker", "process")


def load_docker() -> None:
    """All that the driver docker will ever import. Raises DriverUnavailable."""
    try:
        import_module("cellgate.sandbox.docker.driver")
    except ModuleNotFoundError as error:
        missing = f"the package {error.name} is not installed"
        raise DriverUnavailable("docker", missing, "pip install 'cellgate[docker]'") from error


async def open_driver(name: str, *, runtime: str = "") -> Driver:
    """The driver of this name; whoever asked owes it a `close`. There is no falling back to a weaker one. `runtime` is
    what runs the containers of `docker`, its engine's own choice without one.
    Raises UsageError for an unknown name, DriverUnavailable when this host cannot run it."""
    if runtime and name != "docker":
        raise UsageError(f"the driver {name[:80]} has no runtimes; --driver docker has")
    if name == "native":
        from cellgate.sandbox.native.driver import NativeDriver

        return await NativeDriver.start()
    if name == "docker":
        load_docker()
        from cellgate.sandbox.docker.driver import DockerDriver

        return await DockerDriver.start(runtime=runtime)
    if name == "process":
        from cellgate.sandbox.process import ProcessDriver

        return ProcessDriver()
    raise UsageError(f"there is no driver {name[:80]!r}; known: {', '.join(DRIVERS)}")
