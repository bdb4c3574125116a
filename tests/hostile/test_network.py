"""Cells that look for somebody to talk to."""

from __future__ import annotations

import socket
import time

from tests.hostile.arena import Session, text_of

FAST_SECONDS = 1.0  # a refusal is no hang
NOWHERE = {"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "ENETDOWN"}

TALK = """
def tcp(host, port, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.settimeout(5)
        s.connect((host, port))
def udp(host, port, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (host, port))
"""


async def quickly(session: Session, expressions: dict[str, str]) -> dict[str, str]:
    begin = time.monotonic()
    outcomes = await session.attempts(expressions, setup=TALK)
    assert time.monotonic() - begin < FAST_SECONDS + 0.1 * len(expressions)
    return outcomes


async def test_the_internet_is_out_of_reach_at_once(session: Session):
    outcomes = await quickly(
        session,
        {
            "tcp": "tcp('1.1.1.1', 443)",
            "tcp6": "tcp('2606:4700:4700::1111', 443, socket.AF_INET6)",
            "udp": "udp('1.1.1.1', 53)",
            "udp6": "udp('2606:4700:4700::1111', 53, socket.AF_INET6)",
            "broadcast": "udp('255.255.255.255', 67)",
        },
    )
    assert outcomes.pop("broadcast") in {*NOWHERE, "EACCES"}
    assert set(outcomes.values()) <= NOWHERE, outcomes
    assert (await session.attempts({"icmp": "socket.socket(2, 3, 1)", "ping": "socket.socket(2, 2, 1)"})) == {
        "icmp": "EAFNOSUPPORT",
        "ping": "EAFNOSUPPORT",
    }


async def test_there_is_no_interface_but_a_loopback_of_its_own(session: Session):
    """So no packet can leave, whatever names, tunnels or tricks are tried."""
    interfaces = "[line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]"
    routes = "open('/proc/net/route').readlines()[1:]"
    assert await session.value(f"{interfaces}, {routes}") == "(['lo'], [])"
    outcomes = await session.attempts(
        {
            "route": "ioctl(0x890b)",  # SIOCADDRT
            "address": "ioctl(0x8916)",  # SIOCSIFADDR
            "up": "ioctl(0x8914)",  # SIOCSIFFLAGS
            "bridge": "ioctl(0x89a0)",  # SIOCBRADDBR
            "tun": "os.open('/dev/net/tun', os.O_RDWR)",
        },
        setup="import fcntl\ndef ioctl(n): return fcntl.ioctl(socket.socket(2, 2), n, b'eth0' + bytes(60))",
    )
    assert not [name for name, outcome in outcomes.items() if outcome.startswith("did")], outcomes


async def test_names_are_not_resolved_and_resolvers_not_reached(session: Session):
    outcomes = await quickly(
        session,
        {
            "name": "socket.getaddrinfo('example.com', 80)",
            "tunnel": "socket.getaddrinfo('a' * 60 + '.' + 'b' * 60 + '.example.com', 80)",
            "metadata": "socket.getaddrinfo('metadata.google.internal', 80)",
            "docker": "socket.getaddrinfo('host.docker.internal', 80)",
            "mdns": "udp('224.0.0.251', 5353)",
            "llmnr": "udp('224.0.0.252', 5355)",
            "dot": "tcp('9.9.9.9', 853)",
            "resolver": "udp(nameserver, 53)",
            "resolved": "socket.socket(socket.AF_UNIX).connect('/run/systemd/resolve/io.systemd.Resolve')",
        }
        | {"localhost": "socket.getaddrinfo('localhost', 80)[0][4][0]"}
        | {"nameserver": "'nameserver' in open('/etc/resolv.conf').read()"},
    )
    assert outcomes.pop("localhost") in ("did: '127.0.0.1'", "did: '::1'")
    assert outcomes.pop("nameserver") == "did: False"
    assert not [name for name, outcome in outcomes.items() if outcome.startswith("did")], outcomes


async def test_metadata_services_are_out_of_reach_in_every_spelling(session: Session):
    hosts = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376")
    sixes = ("fd00:ec2::254", "::ffff:169.254.169.254", "fe80::a9fe:a9fe%lo")
    outcomes = await quickly(
        session,
        {host: f"tcp({host!r}, 80)" for host in hosts}
        | {host: f"tcp({host!r}, 80, socket.AF_INET6)" for host in sixes},
    )
    assert not [name for name, outcome in outcomes.items() if outcome.startswith("did")], outcomes


async def test_the_hosts_loopback_is_not_the_sandboxs(session: Session):
    with socket.create_server(("0.0.0.0", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        port = server.getsockname()[1]
        abstract.bind(f"\0cellgate-test-{port}")
        abstract.listen()
        server.settimeout(0)
        own = own_addresses()
        hosts = ("127.0.0.1", "0.0.0.0", "localhost", "127.1.2.3", *own)
        outcomes = await quickly(
            session,
            {host: f"tcp({host!r}, {port})" for host in hosts}
            | {"::1": f"tcp('::1', {port}, socket.AF_INET6)"}
            | {"abstract": f"socket.socket(socket.AF_UNIX).connect('\\0cellgate-test-{port}')"},
        )
        assert set(outcomes.values()) <= {"ECONNREFUSED", *NOWHERE}, outcomes
    loopback = """
        import socket
        with socket.create_server(("127.0.0.1", 0)) as s, socket.create_connection(s.getsockname()) as c:
            c.send(b"own"); s.accept()[0].recv(9)
        """
    assert (await session.run(loopback)).status == "ok"  # its own works: kernels need it


def own_addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return []
        return [probe.getsockname()[0]]


async def test_no_socket_of_the_host_is_in_the_file_system(session: Session):
    paths = (
        *("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket"),
        *("/run/systemd/private", "/run/systemd/notify", "/run/user", "/tmp/.X11-unix", "/run/udev", "/dev/log"),
    )
    outcomes = await session.attempts({path: f"os.stat({path!r})" for path in paths})
    assert set(outcomes.values()) == {"ENOENT"}, outcomes
    code = """
        import os, stat
        found = []
        for top, directories, files in os.walk("/"):
            directories[:] = [d for d in directories if top != "/" or d not in ("proc", "usr")]
            found += [f for f in files if stat.S_ISSOCK(os.lstat(os.path.join(top, f)).st_mode)]
        """
    await session.run(code)
    assert await session.value("found") == "[]"


# AF_*: PACKET, NETLINK, ALG, VSOCK, XDP, BLUETOOTH, TIPC, QIPCRTR, RXRPC, KEY, CAN, RDS, PPPOX, NFC, SMC, IB, KCM.
FAMILIES = (17, 16, 38, 40, 44, 31, 30, 42, 33, 15, 29, 21, 24, 39, 43, 27, 41, 6, 9, 4, 5)


async def test_no_family_of_sockets_but_three_and_no_protocol_but_two(session: Session):
    outcomes = await session.attempts(
        {f"family {family}": f"socket.socket({family}, {kind})" for family in FAMILIES for kind in (1, 2, 3, 5)}
        | {"raw": "socket.socket(2, 3, 255)", "raw6": "socket.socket(10, 3, 58)", "sctp": "socket.socket(2, 1, 132)"}
        | {
            "mptcp": "socket.socket(2, 1, 262)",
            "udplite": "socket.socket(2, 2, 136)",
            "dccp": "socket.socket(2, 6, 33)",
        }
        | {"by number": "call(41, 17, 3, 0)", "with high bits": "call(41, 17 | 1 << 32, 3, 0)"}
        | {"pair": "socket.socketpair(17, 3)", "io_uring": "call(425, 8, 0)"}
    )
    refused = {"EAFNOSUPPORT", "EPERM", "EPROTONOSUPPORT", "ENOTSUP", "ENOSYS", "ESOCKTNOSUPPORT"}
    assert set(outcomes.values()) <= refused, outcomes


async def test_nobody_outside_reaches_what_listens_inside(session: Session):
    """Neither the host nor the neighbour."""
    await session.run(
        """
        import socket
        s = socket.create_server(("0.0.0.0", 0))
        a = socket.socket(socket.AF_UNIX); a.bind("\\0open"); a.listen()
        """
    )
    port = int(await session.value("s.getsockname()[1]") or 0)
    reached = f"""
        import socket
        try: socket.create_connection(("127.0.0.1", {port}), 1); print("reached")
        except OSError as error: print("no")
        try: socket.socket(socket.AF_UNIX).connect("\\0open"); print("reached")
        except OSError as error: print("no")
        """
    assert await text_of(session.arena.neighbour, reached) == "no\nno\n"
    with socket.socket() as s:
        s.settimeout(1)
        assert s.connect_ex(("127.0.0.1", port)) != 0
    with socket.socket(socket.AF_UNIX) as s:
        assert s.connect_ex("\0open") != 0


async def test_installing_a_package_says_quickly_that_there_is_no_network(session: Session):
    begin = time.monotonic()
    result = await session.run("%pip install requests")
    assert "no network" in (result.text() + result.text("stderr") + str(result.reply))
    assert time.monotonic() - begin < 2 * FAST_SECONDS
