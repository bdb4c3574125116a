"""Every real driver, and the checks that follow each case. `process` is none: it promises nothing of this."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.hostile.arena import HOST_SIDES, Arena, Session
from tests.hostile.differences import ALWAYS_OVER_GVISOR, left_out
from tests.hostile.house import House, Line, Tenant
from tests.support.drivers import driver_params, open_driver
from tests.support.server import served

REAL_DRIVERS = driver_params(HOST_SIDES)
IS_GVISOR_WHOLE = os.environ.get("CELLGATE_HOSTILE_GVISOR") == "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `differences.py` names. All cases of a worker share its loop, and so its drivers: a zygote takes
    longer to make than a case to run."""
    if out := [item for item in items if is_left_out(item)]:
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)
    for item in items:
        if item.path.parent == Path(__file__).parent and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


def is_left_out(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)  # of what has parameters
    driver = callspec.params.get("arena", "") if callspec is not None else ""
    if driver == "docker-runsc" and not IS_GVISOR_WHOLE and item.name.partition("[")[0] not in ALWAYS_OVER_GVISOR:
        return True
    return bool(driver and left_out(driver, item.name))


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=REAL_DRIVERS)
async def arena(request: pytest.FixtureRequest) -> AsyncIterator[Arena]:
    driver = await open_driver(request.param)
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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_house() -> AsyncIterator[House]:
    async with served("--profile", "testing", "--policy", "off") as server:
        house = House(server)
        await house.begin()
        yield house


@pytest_asyncio.fixture(loop_scope="session")
async def house(shared_house: House) -> AsyncIterator[House]:
    """A whole server, and after the case: has the neighbour noticed, is the gateway the same and no larger, does it
    start a fresh session, is nothing left of the others, and was nothing a fault of ours."""
    yield shared_house
    await shared_house.check()


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(house: House) -> AsyncIterator[Tenant]:
    """A session of its own."""
    async with house.tenant() as tenant:
        yield tenant


@pytest_asyncio.fixture(loop_scope="session")
async def line(tenant: Tenant) -> Line:
    """Its client."""
    return await tenant.connect()
