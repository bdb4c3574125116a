"""What the kernel host costs, alone and without a sandbox: start, latency, throughput, memory.

    python tests/bench/kernel_host.py [TEMPLATE] [start|latency|lines|displays|bytes|memory ...]

The figures are this machine's at this moment; the side-by-side with stock ipykernel is elsewhere.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from cellgate_kernel.link import Message
from cellgate_kernel.message import Status, Tag
from tests.kernels.kernelrig import Client, Rig, Zygote


def pss_kib(pid: int) -> dict[str, int]:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in rollup}


def summary(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[int(len(ordered) * 0.95)]
    print(f"{name:<42} p50 {statistics.median(ordered) * 1e3:7.2f} ms   p95 {p95 * 1e3:7.2f} ms")


def start(zygote: Zygote) -> None:
    times, infos = [], []
    for _ in range(40):
        begin = time.perf_counter()
        with zygote.kernel() as rig:
            rig.client.request("kernel_info_request")
            infos.append(time.perf_counter() - begin)
    for _ in range(40):
        begin = time.perf_counter()
        with zygote.kernel() as rig:
            rig.client.start("1+1")
            until_idle(rig.client)
            times.append(time.perf_counter() - begin)
    summary("fork to kernel_info", infos)
    summary("fork to 1+1, reply and idle", times)


def until_idle(client: Client) -> None:
    """Read until the request is answered and idle, looking at tags only: the client must not be what is measured."""
    assert client.stream is not None
    wanted = 2
    while wanted:
        for event in client.link.receive(client.stream.recv(1 << 20)):
            if isinstance(event, Message):
                tag, _ = Tag.unpack(event.body)
                wanted -= tag.status in (Status.IDLE, Status.OK, Status.ERROR)
        client.acknowledge()


def latency(zygote: Zygote) -> None:
    with zygote.kernel() as rig:
        times = []
        for _ in range(500):
            begin = time.perf_counter()
            rig.client.start("1+1")
            until_idle(rig.client)
            times.append(time.perf_counter() - begin)
        summary("warm 1+1, reply and idle", times[50:])
        times = []
        for _ in range(100):
            begin = time.perf_counter()
            rig.client.request("kernel_info_request")
            times.append(time.perf_counter() - begin)
        summary("kernel_info", times)


def flood(rig: Rig, name: str, code: str, count: int, size: int) -> None:
    """Run code that sends `count` messages; little work per message here, lest the client be what is measured."""
    client = rig.client
    assert client.stream is not None
    begin = time.perf_counter()
    client.start(code)
    messages = total = 0
    done = False
    while not done:
        for event in client.link.receive(client.stream.recv(1 << 20)):
            if isinstance(event, Message):
                tag, rest = Tag.unpack(event.body)
                messages += tag.message_type in ("stream", "display_data")
                total += len(rest)
                done |= tag.status == Status.IDLE
        client.acknowledge()
    took = time.perf_counter() - begin
    rate = f"{size / took / 1e6:8.1f} MB/s" if size else ""
    print(f"{name:<42} {count / took:9.0f} /s {rate}   {messages} messages, {total} bytes")


def lines(zygote: Zygote) -> None:
    with zygote.kernel() as rig:
        for _ in range(3):
            flood(rig, "flushed lines", "for i in range(20000): print(i, flush=True)", 20000, 0)
        flood(rig, "printed lines", "for i in range(200000): print(i)", 200000, 0)


def displays(zygote: Zygote) -> None:
    with zygote.kernel() as rig:
        rig.client.execute("from IPython.display import display")
        for _ in range(2):
            code = "for i in range(20000): display({'text/plain': 'x'}, raw=True)"
            flood(rig, "raw displays", code, 20000, 0)
        flood(rig, "displays of an integer", "for i in range(20000): display(i)", 20000, 0)


def bytes_(zygote: Zygote) -> None:
    with zygote.kernel() as rig:
        for _ in range(3):
            code = "import sys; s = 'x' * 65536\nfor i in range(1600): sys.stdout.write(s); sys.stdout.flush()"
            flood(rig, "100 MB in flushed writes of 64 KB", code, 1600, 1600 * 65536)


def memory(zygote: Zygote) -> None:
    rigs = []
    for _ in range(20):
        manager = zygote.kernel()
        rig = manager.__enter__()
        rig.client.execute("1+1")
        rigs.append((manager, rig))
    own = [pss_kib(rig.pid) for _, rig in rigs]
    for key in ("Pss", "Private_Dirty", "Rss"):
        print(f"{key:<42} {statistics.median(one[key] for one in own) / 1024:7.2f} MiB")
    for manager, _ in rigs:
        manager.__exit__(None, None, None)


KINDS = {"start": start, "latency": latency, "lines": lines, "displays": displays, "bytes": bytes_, "memory": memory}


def main() -> None:
    templates = [name for name in sys.argv[1:] if name not in KINDS]
    zygote = Zygote(*templates[:1])
    for kind in [name for name in sys.argv[1:] if name in KINDS] or KINDS:
        KINDS[kind](zygote)
    zygote.close()


if __name__ == "__main__":
    main()
