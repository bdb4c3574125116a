"""Run as somebody who is not root, by `test_rootless.py`: says as JSON what a few rows of the hostile suite came to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import cgroups
from cellgate.sandbox.native.driver import NativeDriver

SPEC = SandboxSpec(limits=Limits(memory_bytes=256 << 20, pids=64, workspace_bytes=64 << 20, shm_bytes=32 << 20))
BOUND = 20.0

PROBES = {
    "sum": "1 + 1",
    "ids": "import os; os.getresuid()",
    "map": "open('/proc/self/uid_map').read().split()[0::2]",
    "capabilities": "sum(int(l.split()[1], 16) for l in open('/proc/self/status') if l.startswith('Cap'))",
    "confined": "[l.split()[1] for l in open('/proc/self/status') if l.startswith(('NoNewPrivs', 'Seccomp:'))]",
    "processes": "sum(name.isdecimal() for name in os.listdir('/proc'))",
    "interfaces": "[l.split(':')[0].strip() for l in open('/proc/net/dev').readlines()[2:]]",
    "groups": "open('/proc/self/cgroup').read().count(':/\\n') == open('/proc/self/cgroup').read().count('\\n')",
}
REFUSED = {
    "root": "open('/x', 'w')",
    "packages": "open(os.path.dirname(os.__file__) + '/x', 'w')",
    "core pattern": "open('/proc/sys/kernel/core_pattern', 'w')",
    "shadow": "open('/etc/shadow')",
    "setuid": "os.setuid(0)",
    "mount": "import ctypes\nif ctypes.CDLL(None).mount(0, b'/tmp', b'tmpfs', 0, 0): raise OSError",
    "network": "import socket; socket.create_connection(('192.0.2.1', 9), 2)",
    "process 1": "os.listdir('/proc/1/root')",
    "disk": "open('/work/big', 'wb').write(bytes(100 << 20))",
}
ENDS = {
    "oom": "x = bytearray(b'x' * (400 << 20))",
    "exit": "os._exit(3)",
    "signal": "os.kill(os.getpid(), 11)",
    "deaf": "import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass",
}


async def main() -> dict[str, Any]:
    report: dict[str, Any] = {"uid": os.geteuid()}
    try:
        driver = await NativeDriver.start()
    except DriverUnavailable as error:
        return {"unavailable": str(error)}
    assert driver._warden is not None
    warden = driver._warden.pid
    sandbox = await asyncio.wait_for(driver.create(SPEC), BOUND)
    async with KernelClient(sandbox) as kernel:
        report["probes"] = {name: (await kernel.execute(code, timeout=5)).value for name, code in PROBES.items()}
        report["refused"] = {
            name: (await kernel.execute(f"import os; {code}", timeout=5)).reply.get("ename")
            for name, code in REFUSED.items()
        }
        bomb = "import subprocess\nsubprocess.Popen(['bash', '-c', ':(){ :|:& };:'])"
        await kernel.execute(bomb, timeout=5)
        deadline = time.monotonic() + BOUND
        while not (usage := await sandbox.usage()).pids_limit_hits and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        report["bomb"] = [usage.pids <= 64, usage.pids_limit_hits > 0]
    report["destroyed"] = (await sandbox.destroy()).reason
    report["ends"] = {}
    for name, code in ENDS.items():
        sandbox = await asyncio.wait_for(driver.create(SPEC), BOUND)
        async with KernelClient(sandbox) as kernel:
            result = await kernel.execute(f"import os; {code}", timeout=5 if name != "deaf" else 0.3)
            report["ends"][name] = result.certificate and result.certificate.reason
        await sandbox.destroy()
    parents = set(cgroups.detect().parents.values())
    report["groups left"] = [
        n for p in parents if os.path.isdir(p) for n in os.listdir(p) if n.startswith(f"w{warden}-")
    ]
    last = await driver.create(SPEC)
    async with KernelClient(last) as kernel:
        await kernel.execute("1", timeout=5)
        pids = {int(pid) for p in parents for pid in Path(p, last.id, "cgroup.procs").read_text().split()}
        report["alive"] = len(pids)
        os.kill(warden, signal.SIGKILL)
        report["lost"] = (await asyncio.wait_for(last.wait(), 5)).reason
        deadline = time.monotonic() + 5
        while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        report["outlived"] = [pid for pid in pids if is_alive(pid)]
    await driver.close()
    for parent in parents:  # what a killed warden leaves, an empty group
        for name in os.listdir(parent) if os.path.isdir(parent) else ():
            path = Path(parent, name)
            if path.is_dir():
                path.rmdir()
    return report


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    json.dump(asyncio.run(asyncio.wait_for(main(), 90)), sys.stdout)
