"""Look around in sandboxes of a driver, and report what holds there.

Three sandboxes, one after the other gone: one that tells of itself, a neighbour to compare it with, and a small one
whose limits are really hit. What is expected is `probes.py`; what is done inside is `inside.py`, as a cell.
"""

from __future__ import annotations

import json
import platform
import secrets
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

from cellgate.doctor import probes
from cellgate.doctor.host import HostFacts, look_at_host, look_at_process
from cellgate.doctor.probes import PROFILES, SMALL, Facts, Profile, Said, judge
from cellgate.doctor.report import Report, Tier, Unavailable
from cellgate.errors import CellgateError, DriverUnavailable
from cellgate.sandbox.base import Driver, SandboxSpec
from cellgate.sandbox.client import ExecuteResult, KernelClient
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native.syscalls import MACHINES, numbers

__all__ = ["examine", "report_unavailable"]

# Names of functions in inside.py.
TELLING: Final = (
    *(
        "identity",
        "kernel",
        "namespaces",
        "status",
        "securebits",
        "entropy",
        "versions",
        "calls",
        "sockets",
        "foreign_calls",
    ),
    *("landlock_layers", "mounts", "writing", "opening", "steering", "places", "devices", "making_devices"),
    *("descriptors", "environment", "interfaces", "routes", "host_sockets", "name_lookup", "rlimits", "process_1"),
)
COMPARED: Final = ("identity", "namespaces", "entropy", "places")
OF_KERNELS: Final = (
    "hit_pids",
)  # where the kernel is the sandbox's own, the host refuses that one its threads, and it ends
HITTING: Final = ("hit_cpu", "hit_pids", "hit_open_files", "hit_file_size", "hit_workspace", "hit_inodes", "hit_shm")
LAST: Final = ("hit_memory",)  # which may end the sandbox

GVISOR: Final = "runsc"  # the runtime, under which a driver promises something else
CELL_SECONDS: Final = 30.0  # half a second on an idle host
# Read now: a server that measures itself has given up the rights to read its own program by then.
_INSIDE: Final = (resources.files("cellgate.doctor") / "inside.py").read_text(encoding="utf-8")
MIME: Final = "application/vnd.cellgate.facts+json"


async def examine(driver: Driver) -> Report:
    """What this driver gives on this host. Raises CellgateError when no sandbox can be made at all."""
    runtime = getattr(driver, "runtime", "")
    kind = _kind(driver.name, runtime)
    began = time.monotonic()
    host = look_at_host()
    profile = PROFILES.get(kind, Profile(Tier.NONE, ()))
    facts, told = await _gather(driver, host, shares_kernel=kind != "gvisor")
    return Report(
        driver=kind,
        full_tier=profile.tier,
        findings=judge(kind, facts),
        facts=told,
        caveats=profile.caveats,
        seconds=time.monotonic() - began,
        runtime=runtime,
    )


def report_unavailable(driver: str, error: CellgateError, runtime: str = "") -> Report:
    """What can be said of a driver that cannot run here: what the host has, and why that does not do."""
    host_probes = [probe for probe in probes.PROBES if probe.id.startswith("host.")]
    missing, remedy = (
        (error.missing, error.remedy) if isinstance(error, DriverUnavailable) else (str(error), probes.REPORT)
    )
    host = look_at_host()
    kind = _kind(driver, runtime)
    return Report(
        driver=kind,
        full_tier=PROFILES[kind].tier,
        findings=judge(kind, Facts(host), host_probes),
        facts=_facts_of(host),
        unavailable=Unavailable(error.code, missing, remedy),
        runtime=runtime,
    )


def _kind(driver: str, runtime: str) -> str:
    """The name of the Profile that says what is promised."""
    return "gvisor" if runtime == GVISOR else driver


async def _gather(driver: Driver, host: HostFacts, *, shares_kernel: bool) -> tuple[Facts, dict[str, str]]:
    with _listening() as (listeners, canary):
        given = _given(listeners, canary)
        async with AsyncExitStack() as stack:
            kernel, token = await stack.enter_async_context(_sandbox(driver, Limits())), _token()
            neighbour, neighbour_token = await stack.enter_async_context(_sandbox(driver, Limits())), _token()
            inside = await _ask(kernel, TELLING, {**given, "token": token})
            beside = await _ask(neighbour, COMPARED, {**given, "token": neighbour_token})
            outside, outside_neighbour = look_at_process(token), look_at_process(neighbour_token)
        small = await _hit_limits(driver, given, [name for name in HITTING if shares_kernel or name not in OF_KERNELS])
    is_rootless, told = _said_by(driver)
    facts = Facts(
        host,
        inside=inside,
        neighbour=beside,
        small=small,
        outside=outside,
        neighbour_outside=outside_neighbour,
        is_rootless=is_rootless,
        listeners=tuple(listeners),
    )
    return facts, {**_facts_of(host), **told}


def _facts_of(host: HostFacts) -> dict[str, str]:
    return {"Linux": f"{host.kernel} {host.machine}", "Python": platform.python_version()}


def _said_by(driver: Driver) -> tuple[bool, dict[str, str]]:
    """Whether the driver works without root, and what it says of itself."""
    from cellgate.sandbox.native.driver import NativeDriver  # its warden is not started by this

    if not isinstance(driver, NativeDriver):
        return False, {}
    hello = driver.hello.result()
    is_root = bool(hello["is_host_root"])
    return not is_root, {
        "warden": "is root" if is_root else "is rootless (root of a user namespace alone)",
        "cgroup": f"version {hello['cgroup']}",
    }


async def _hit_limits(driver: Driver, given: Mapping[str, object], hitting: Sequence[str]) -> Said:
    """What a sandbox with small limits does when they are reached; that it does not come up says nothing of others."""
    try:
        async with _sandbox(driver, SMALL) as kernel:
            said = await _ask(kernel, tuple(hitting), given)
            last = await _ask(kernel, LAST, given)
    except CellgateError as error:
        return Said({}, str(error))
    return Said({**said.facts, **last.facts}, said.silent_because if not said.facts else last.silent_because)


@asynccontextmanager
async def _sandbox(driver: Driver, limits: Limits) -> AsyncIterator[KernelClient]:
    sandbox = await driver.create(SandboxSpec(limits=limits, use_pool=False))
    try:
        async with KernelClient(sandbox) as kernel:
            yield kernel
    finally:
        await sandbox.destroy()


async def _ask(kernel: KernelClient, names: tuple[str, ...], given: Mapping[str, object]) -> Said:
    """What the functions of these names found inside. A sandbox that ends meanwhile is an answer too."""
    call = f"collect({list(names)!r}, json.loads({json.dumps(given)!r}))"
    show = f"from IPython.display import display\ndisplay({{{MIME!r}: {call}}}, raw=True)"
    try:
        result = await kernel.execute(f"{_INSIDE}\n{show}\n", timeout=CELL_SECONDS, store_history=False)
    except CellgateError as error:
        return Said({}, str(error))
    return read_answer(result, names)


def read_answer(result: ExecuteResult, names: tuple[str, ...]) -> Said:
    """The facts in a cell's outputs, as far as they have the shape of facts."""
    if result.certificate:
        ended: dict[str, dict[str, Any]] = {
            name: {"found": {"sandbox": result.certificate.reason.value}} for name in LAST
        }
        return Said(ended if names == LAST else {}, f"the sandbox ended: {result.certificate.sentence()}")
    for output in result.outputs:
        facts = output["content"].get("data", {}).get(MIME) if output["msg_type"] == "display_data" else None
        if isinstance(facts, dict):
            return Said({name: entry for name, entry in facts.items() if name in names and isinstance(entry, dict)})
    return Said(
        {}, f"its cell ended with {result.status}: {result.text('stderr')[-200:] or result.reply.get('evalue', '')}"
    )


def _token() -> str:
    return f"cg-{secrets.token_hex(6)}"  # 15 characters, all that the name of a process holds


@contextmanager
def _listening() -> Iterator[tuple[dict[str, object], str]]:
    """Sockets that listen on the host, by name, and a file that everybody on it may read: a sandbox is to find none."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cellgate-doctor-")))
        directory.chmod(0o755)
        canary = directory / "canary"
        canary.write_text("a file of the host\n")

        def listen(family: int, address: tuple[str, int] | str) -> object:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.bind(address)
            listener.listen()
            return address if isinstance(address, str) else listener.getsockname()

        by_name = {
            "TCP": listen(socket.AF_INET, ("127.0.0.1", 0)),
            "unix": listen(socket.AF_UNIX, str(directory / "socket")),
            "abstract unix": listen(socket.AF_UNIX, f"\0cellgate-doctor-{secrets.token_hex(6)}"),
        }
        (directory / "socket").chmod(0o666)
        yield by_name, str(canary)


def _given(listeners: Mapping[str, object], canary: str) -> dict[str, object]:
    """What inside.py is to try."""
    machine = platform.machine()
    by_name = numbers(machine) if machine in MACHINES else {}
    return {
        "calls": {name: [by_name[name], *arguments] for name, arguments in probes.CALLS.items() if name in by_name},
        "sockets": probes.SOCKETS,
        "read_only": probes.READ_ONLY,
        "secret": [*probes.HOST_FILES, *probes.HOST_PROC, *probes.SYS, canary],
        "steering": probes.STEERING,
        "addresses": probes.ADDRESSES,
        "listeners": listeners,
        "limits": SMALL.to_mapping(),
        "cpu_seconds": probes.CPU_SECONDS,
        "token": _token(),
    }
