"""Every driver, for one suite of sentences. What one does not promise is a row in PROMISES, not an `if` in a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from cellgate.sandbox.base import Driver, Sandbox, SandboxSpec
from cellgate.sandbox.client import KernelClient
from tests.support.drivers import CONTAINERS, DRIVERS, PROMISES, SMALL, Create, driver_params, open_driver


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(what): only for the drivers that promise it, see PROMISES")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, rather than skip, what a driver does not promise: it is no test of that driver."""
    out = [item for item in items for mark in item.iter_markers("promise") if not is_promised(item, mark.args[0])]
    if out:
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


def is_promised(item: pytest.Item, what: str) -> bool:
    return isinstance(item, pytest.Function) and item.callspec.params["shared_driver"] in PROMISES[what]


@pytest_asyncio.fixture(
    scope="session",  # a warden and its zygotes take seconds to start on a busy machine
    loop_scope="session",
    params=driver_params(DRIVERS + CONTAINERS),
)
async def shared_driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    driver = await open_driver(request.param)
    try:
        yield driver
    finally:
        await driver.close()


@pytest.fixture
def driver_name(request: pytest.FixtureRequest, shared_driver: Driver) -> str:
    """What `open_driver` knows it by."""
    name: str = request.node.callspec.params["shared_driver"]
    return name


@pytest.fixture
def driver(shared_driver: Driver) -> Driver:
    """Each driver in turn."""
    return shared_driver


@pytest.fixture
def spec() -> SandboxSpec:
    return SandboxSpec(limits=SMALL)


@pytest_asyncio.fixture(loop_scope="session")
async def create(driver: Driver, spec: SandboxSpec) -> AsyncIterator[Create]:
    """Makes sandboxes that are destroyed afterwards."""
    async with AsyncExitStack() as stack:

        async def create() -> Sandbox:
            sandbox = await driver.create(spec)
            stack.push_async_callback(sandbox.destroy)
            return sandbox

        yield create


@pytest_asyncio.fixture(loop_scope="session")
async def sandbox(create: Create) -> Sandbox:
    return await create()


@pytest_asyncio.fixture(loop_scope="session")
async def kernel(sandbox: Sandbox) -> AsyncIterator[KernelClient]:
    async with KernelClient(sandbox) as kernel:
        yield kernel
