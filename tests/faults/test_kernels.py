"""Kernels that die or stand still in the middle of a cell, and some that never begin, as a gateway's clients see it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stage import check_rest, create, end_of, kernels, of, reply_of, roaming, text_of
from tests.native.seen import kernel_in, names_of_groups
from tests.support.server import Server, served, until

pytestmark = pytest.mark.native

TOLD_SECONDS = 2.0  # from a kernel's end until its client knows why
STILL_SECONDS = 10.0  # from when it stands still

# What ends a kernel: code in the cell, or a signal from outside; the reason and the name that clients are told.
ENDS = {
    "killed from outside": (signal.SIGKILL, "kernel_signal", "KernelDied"),
    "crashed": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "kernel_signal", "KernelDied"),
    "left": ("import os; os._exit(3)", "kernel_exit", "KernelExited"),
    "out of memory": ("held = []\nwhile True: held.append(bytearray(16 << 20))", "oom", "OutOfMemory"),
    "stopped from outside": (signal.SIGSTOP, "kernel_unresponsive", "KernelUnresponsive"),
}


async def test_however_a_kernel_ends_its_client_knows_why_and_has_another():
    async with served("--memory-bytes", "128M") as server:
        place = await create(server)
        async with roaming(place) as client:
            for how, (cause, reason, name) in ENDS.items():
                await end_of(client.ask("kept = 1"))
                (group,) = names_of_groups(server.warden_pid())
                code = cause if isinstance(cause, str) else "import time; time.sleep(600)"
                cell = client.ask(f"print('here', flush=True)\n{code}")
                waiting = client.ask("2")
                await until(lambda cell=cell: "here" in text_of(client, cell))
                if not isinstance(cause, str):
                    os.kill(kernel_in(group), cause)
                await end_of(cell, STILL_SECONDS if cause is signal.SIGSTOP else TOLD_SECONDS)
                reply = reply_of(client, cell)
                assert (reply.content["ename"], reply.facts["reason"]) == (name, reason), how
                assert [m.type for m in of(client, cell)].count("error") == 1
                await end_of(waiting)
                # ok if it came when the next kernel was on its way already
                assert reply_of(client, waiting).content["status"] in ("aborted", "ok")
                again = client.ask("print('kept' in globals())")
                await end_of(again)
                assert text_of(client, again) == "False\n"
                restarting = [m.facts for _, m in client.seen if m.state == "restarting"]
                assert restarting[-1]["reason"] == reason
                await check_rest(server, {place.kernel_id})


# -- kernels that never begin ------------------------------------------------------------------------------

BROKEN = {
    "no-program": ["/nonexistent/kernel", "-f", "{connection_file}"],
    "exec-format": ["{spec}/rubbish", "-f", "{connection_file}"],
    "ends-at-once": ["python3", "-c", "raise SystemExit(3)", "{connection_file}"],
    "fails-to-import": ["python3", "-c", "import nothing_of_this_name", "{connection_file}"],
}


@pytest.fixture
def installation() -> Iterator[str]:
    """An interpreter beside which kernels are installed that cannot work, and no other test's server finds them."""
    # Not in /tmp, over which a sandbox has its own.
    with tempfile.TemporaryDirectory(prefix="cellgate-test-", dir="/var/tmp") as name:
        prefix = Path(name)
        prefix.chmod(0o755)
        venv.create(prefix, symlinks=True)
        places = [place for place in dict.fromkeys(sys.path) if "site-packages" in place]
        places += [str(Path(__file__).parents[2] / source) for source in ("server", "kernels")]
        (site,) = (prefix / "lib").glob("python*/site-packages")
        (site / "ours.pth").write_text("".join(f"{place}\n" for place in places))
        for spec, argv in BROKEN.items():
            directory = prefix / "share" / "jupyter" / "kernels" / spec
            directory.mkdir(parents=True)
            rubbish = directory / "rubbish"
            rubbish.write_bytes(b"\x00 no program")
            rubbish.chmod(0o755)
            argv = [word.replace("{spec}", str(directory)) for word in argv]
            (directory / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": spec, "language": "none"}))
        yield str(prefix / "bin" / "python")


@pytest.mark.slow
async def test_kernels_that_never_begin_are_given_up_after_some_pauses_and_leave_their_places(installation: str):
    async with served("--sessions-total", str(len(BROKEN)), start=False) as server:
        server.python = installation
        await server.start()
        await asyncio.gather(*(watch_one_be_given_up(server, name) for name in BROKEN))
        assert (await server.fetch("POST", "/api/kernels")).status == 503, "there is no place left"
        for kernel_id in await kernels(server):
            assert (await server.fetch("DELETE", f"/api/kernels/{kernel_id}")).status == 204
        await check_rest(server, ())
        await check_rest(server, {(await create(server)).kernel_id for _ in BROKEN})


async def watch_one_be_given_up(server: Server, name: str) -> None:
    """Its sandbox begins, and the kernel in it does not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    place = await create(server, name=name)
    async with roaming(place) as client:
        cell = client.ask("1")
        await end_of(cell)
        assert reply_of(client, cell).content["status"] in ("error", "aborted")
        await until(lambda: any(m.state == "dead" for _, m in client.seen))
        assert loop.time() - began > 0.5 + 2 + 8, "there were pauses"
        assert sum(m.state == "restarting" for _, m in client.seen) <= 5
        refused = client.ask("2")
        await end_of(refused)
        assert reply_of(client, refused).content["status"] == "error"
        kernel = (await server.fetch("GET", f"/api/kernels/{place.kernel_id}")).json()
        assert kernel["execution_state"] == "dead"
