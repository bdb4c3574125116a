"""Managers over every driver: the fake, processes, and real sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from cellgate.live.manager import Manager
from cellgate.live.session import LiveSession
from cellgate.sandbox.base import Driver
from tests.support.drivers import DRIVERS, open_driver
from tests.support.live import Client, Lasting, create, open_manager, opener

OpenManager = Callable[..., Awaitable[Manager]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of a worker share its loop, and so its drivers: a zygote takes longer to make than a test to run."""
    for item in items:
        if item.path.parent == Path(__file__).parent and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(
    scope="session",
    loop_scope="session",
    params=[pytest.param(name, marks=[pytest.mark.native] if name == "native" else []) for name in DRIVERS],
)
async def live_driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    driver = await open_driver(request.param)
    try:
        yield driver
    finally:
        await driver.close()


@pytest_asyncio.fixture(loop_scope="session")
async def driver(live_driver: Driver) -> AsyncIterator[Lasting]:
    """Each driver in turn; a test leaves no sandbox in it."""
    yield Lasting(live_driver)
    assert await live_driver.sandboxes() == []


@pytest_asyncio.fixture(loop_scope="session")
async def open_one(tmp_path: Path, driver: Lasting) -> AsyncIterator[OpenManager]:
    """Opens managers, one after the other, on one state directory; what they leave is ended."""
    async with AsyncExitStack() as stack:

        async def open_one(**flags: object) -> Manager:
            manager = await open_manager(tmp_path / "state", opener(driver), **flags)
            stack.push_async_callback(manager.close, end_sessions=True)
            return manager

        yield open_one


@pytest_asyncio.fixture(loop_scope="session")
async def manager(open_one: OpenManager) -> Manager:
    return await open_one()


@pytest_asyncio.fixture(loop_scope="session")
async def live(manager: Manager) -> LiveSession:
    return await create(manager)


@pytest_asyncio.fixture(loop_scope="session")
async def client(live: LiveSession) -> Client:
    return Client(live)
