"""Whether this host can run the native driver, asked once."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.drivers import open_driver


@cache
def why_not() -> str | None:
    """What the driver says is missing, or None."""

    async def try_it() -> str | None:
        try:
            driver = await open_driver("native")
        except DriverUnavailable as error:
            return str(error)
        await driver.close()
        return None

    return asyncio.run(try_it())


def skip_without_native() -> None:
    if reason := why_not():
        pytest.skip(reason)
