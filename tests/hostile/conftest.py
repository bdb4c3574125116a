"""Every real driver, and the checks that follow each case. `process` is none: it promises nothing of this."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.drivers import open_driver
from tests.hostile.arena import HOST_SIDES, Arena, Session

REAL_DRIVERS = [pytest.param(name, marks=pytest.mark.native) for name in HOST_SIDES]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All cases of a worker share its loop, and so its drivers: a zygote takes longer to make than a case to run."""
    for item in items:
        if item.path.parent == Path(__file__).parent and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=REAL_DRIVERS)
async def arena(request: pytest.FixtureRequest) -> AsyncIterator[Arena]:
    try:
        driver = await open_driver(request.param)
    except DriverUnavailable as error:
        pytest.skip(str(error))
    try:
        arena = Arena(driver, HOST_SIDES[request.param]())
        await arena.begin()
        yield arena
        await arena.end()
        assert await driver.sandboxes() == []
    finally:
        await driver.close()


@pytest_asyncio.fixture(loop_scope="session")
async def session(arena: Arena) -> AsyncIterator[Session]:
    """A session, and after the case: does it answer or has it ended as said, has the neighbour noticed, is nothing
    left of it, is the host as before, does a new one start."""
    session = await arena.open()
    yield session
    await session.check_and_destroy()
