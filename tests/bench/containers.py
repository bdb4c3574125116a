"""What a session costs as a container: from nothing and from the pool to the first `1+1`, a warm one, and memory;
beside the native driver, a plain container that runs Python, and one that has a jupyter_kernel_gateway running.

    python -m tests.bench.containers [COUNT] [ALIVE]

Needs an engine with runc and runsc, and root. Runs by turns, so that whatever else the machine does meets all alike.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from cellgate.sandbox.base import Driver, KeepsPool, SandboxSpec
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.docker.build import Recipe, build
from cellgate.sandbox.docker.driver import DockerDriver
from cellgate.sandbox.docker.engine import Engine
from cellgate.sandbox.docker.images import find_templates, image_name
from cellgate.sandbox.native.driver import NativeDriver
from tests.bench.gateway.client import Address
from tests.bench.gateway.servers import Server, _free_port, answer
from tests.support.docker import open_docker

COLD, POOLED = SandboxSpec(use_pool=False), SandboxSpec()
LAPS = 50
SETTLE_SECONDS = 0.5  # what was destroyed or started has come to rest
GATEWAY = "cellgate-bench-kernel-gateway"


async def first_answer(driver: Driver, spec: SandboxSpec) -> float:
    begin = time.perf_counter()
    sandbox = await driver.create(spec)
    async with KernelClient(sandbox) as kernel:
        assert (await kernel.execute("1+1")).value == "2"
        took = time.perf_counter() - begin
    await sandbox.destroy()
    return took


async def pool_is_full(driver: Driver) -> None:
    if isinstance(driver, DockerDriver):
        while any(len(pool.ready) < pool.size for pool in driver._pools.values()):
            await asyncio.sleep(0.05)
    await asyncio.sleep(SETTLE_SECONDS)


async def warm(driver: Driver) -> list[float]:
    sandbox = await driver.create(COLD)
    laps = []
    async with KernelClient(sandbox) as kernel:
        for _ in range(LAPS):
            begin = time.perf_counter()
            await kernel.execute("1+1")
            laps.append(time.perf_counter() - begin)
    await sandbox.destroy()
    return laps[LAPS // 5 :]


async def memory(driver: Driver, alive: int) -> float:
    """MB for each of many that have answered once, as the control groups count it."""
    async with AsyncExitStack() as stack:
        sandboxes = []
        for _ in range(alive):
            sandbox = await driver.create(COLD)
            stack.push_async_callback(sandbox.destroy)
            async with KernelClient(sandbox) as kernel:
                await kernel.execute("1+1")
            sandboxes.append(sandbox)
        used = [(await sandbox.usage()).memory_bytes or 0 for sandbox in sandboxes]
    return sum(used) / alive / 1e6


def plain_container(engine: Engine, image: str) -> float:
    begin = time.perf_counter()
    assert engine.run(image, ["python3", "-c", "print(1+1)"]).strip() == "2"
    return time.perf_counter() - begin


@asynccontextmanager
async def kernel_gateway(engine: Engine) -> AsyncIterator[Server]:
    """A container that is up, with two kernels started ahead."""
    recipe = Recipe(GATEWAY, "jupyter_kernel_gateway\n", "python")
    image = (await engine.do(build, engine, recipe, print)).image
    address = Address("jupyter_kernel_gateway", _free_port(), secrets.token_urlsafe(24))
    settings = {"ip": "127.0.0.1", "port": address.port, "auth_token": address.token, "prespawn_count": 2}
    flags = [f"--KernelGatewayApp.{name}={value}" for name, value in settings.items()]
    words = ["python3", "-m", "kernel_gateway", *flags]
    config = {
        "Image": image,
        "Entrypoint": [],
        "Cmd": ["sh", "-c", "mkdir -p /workspace/tmp /workspace/home && exec " + " ".join(words)],
        "Env": ["HOME=/workspace/home"],
        "HostConfig": {"NetworkMode": "host", "Tmpfs": {"/workspace": "exec,mode=1777"}},
    }
    container = await engine.do(engine.create, config, GATEWAY)
    try:
        await engine.do(engine.start, container)
        server = Server(address, 0)
        until = time.monotonic() + 60
        while True:
            try:
                async with server.websocket():
                    break
            except (OSError, AssertionError):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)
        yield server
    finally:
        await engine.do(engine.remove, container)
        await engine.do(engine.remove_image, image_name(GATEWAY))  # else it would be a template; its packages stay


async def first_of_gateway(server: Server) -> float:
    begin = time.perf_counter()
    async with server.kernel() as name:
        websocket = await server.open(name, quick_acks=True)
        await answer(websocket)
        took = time.perf_counter() - begin
        await websocket.close()
    return took


async def warm_of_gateway(server: Server) -> list[float]:
    async with server.websocket(quick_acks=True) as websocket:
        return [await answer(websocket) for _ in range(LAPS)]


def tell(what: str, samples: Sequence[float], unit: str = "ms") -> None:
    ordered = sorted(samples)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    scale = 1e3 if unit == "ms" else 1
    middle = statistics.median(ordered) * scale
    print(f"{what:<56} p50 {middle:8.1f} {unit}  p95 {p95 * scale:8.1f} {unit}  n {len(ordered)}", flush=True)


async def main(count: int, alive: int) -> None:
    async with AsyncExitStack() as stack:
        drivers: dict[str, Driver] = {"native": await NativeDriver.start()}
        for runtime in ("runc", "runsc"):
            drivers[runtime] = await open_docker(runtime=runtime)
        for driver in drivers.values():
            stack.push_async_callback(driver.close)
        engine = Engine.open()
        stack.callback(engine.close)
        server = await stack.enter_async_context(kernel_gateway(engine))
        image = (await engine.do(find_templates, engine))["python"].image
        cold: dict[str, list[float]] = {name: [] for name in [*drivers, "plain", "gateway"]}
        for _ in range(count):
            for name, driver in drivers.items():
                cold[name].append(await first_answer(driver, COLD))
            cold["plain"].append(await engine.do(plain_container, engine, image))
            cold["gateway"].append(await first_of_gateway(server))
        for name in drivers:
            tell(f"create to the first 1+1, {name}", cold[name])
        tell("a plain container from create to the end of print(1+1)", cold["plain"])
        tell("a kernel in a jupyter_kernel_gateway container to 1+1", cold["gateway"])
        for name, driver in drivers.items():
            assert isinstance(driver, KeepsPool)
            await driver.keep_pool(POOLED, 2)
            pooled = []
            for _ in range(count):
                await pool_is_full(driver)
                pooled.append(await first_answer(driver, POOLED))
            await driver.keep_pool(POOLED, 0)
            tell(f"out of the pool to the first 1+1, {name}", pooled)
        for name, driver in drivers.items():
            tell(f"a warm 1+1, {name}", await warm(driver))
        tell("a warm 1+1, jupyter_kernel_gateway container", await warm_of_gateway(server))
        for name, driver in drivers.items():
            tell(f"memory of an idle session of {alive}, {name}", [await memory(driver, alive)], "MB")


if __name__ == "__main__":
    count, alive = ([int(word) for word in sys.argv[1:]] + [10, 30][len(sys.argv) - 1 :])[:2]
    asyncio.run(main(count, alive))
