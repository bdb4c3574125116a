"""What `cellgate serve` decides before it serves: where it listens, where it keeps its state, and as whom."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from cellgate import serve
from cellgate.cli import main
from cellgate.errors import UsageError
from cellgate.gateway.server import Listener
from cellgate.serve import places
from cellgate.serve.listening import Address, address_url, addresses_of, check_exposure, listen
from cellgate.serve.places import ACCOUNT_ID, Account, gateway_account, prepare
from cellgate.settings import read_settings
from tests.support.child import in_child

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes what is somebody else's: root shows it")


@contextmanager
def closing_all(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(sock) for sock in sockets]


# -- listening -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_addresses_that_only_this_host_reaches_need_no_token(host: str):
    check_exposure(host, addresses_of(host, 0), has_token=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "fe80::1", "::ffff:192.0.2.1"])
def test_others_need_a_token_that_somebody_chose(host: str):
    addresses = [Address(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, 0))]
    with pytest.raises(UsageError, match=r"CELLGATE_TOKEN.* would pass"):
        check_exposure(host, addresses, has_token=False)
    check_exposure(host, addresses, has_token=True)


def test_a_name_with_one_address_that_others_reach_is_one_that_others_reach():
    mixed = [Address(socket.AF_INET, ("127.0.0.1", 0)), Address(socket.AF_INET, ("192.0.2.1", 0))]
    with pytest.raises(UsageError):
        check_exposure("mixed.example", mixed, has_token=False)


def test_a_free_port_is_the_same_for_all_addresses_of_a_name():
    with closing_all(listen("localhost", [*addresses_of("127.0.0.1", 0), *addresses_of("127.0.0.2", 0)])) as sockets:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert len(sockets) == 2
        for sock in sockets:
            socket.create_connection(sock.getsockname()).close()


def test_ipv6_is_listened_on_alone():
    with closing_all(listen("::1", addresses_of("::1", 0))) as (sock,):
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        socket.create_connection(sock.getsockname()[:2]).close()


def test_an_address_that_this_host_has_not_is_passed_over_when_it_has_another():
    missing = Address(socket.AF_INET, ("192.0.2.1", 0))
    with closing_all(listen("both", [missing, *addresses_of("127.0.0.1", 0)])) as sockets:
        assert len(sockets) == 1
    with pytest.raises(UsageError, match=r"192\.0\.2\.1 is no address of this host"):
        listen("192.0.2.1", [missing])


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is taken"):
            listen("127.0.0.1", addresses_of("127.0.0.1", port))


def test_a_port_of_the_system_that_a_user_may_not_take_is_said(monkeypatch):
    def refuse(self: object, where: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(UsageError, match="a --port from 1024 on would pass"):
        listen("127.0.0.1", addresses_of("127.0.0.1", 80))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 64 + ".invalid", "a..b"])
def test_a_name_without_an_address_is_said(host: str):
    with pytest.raises(UsageError, match=r"127\.0\.0\.1 would pass"):
        addresses_of(host, 0)


@pytest.mark.parametrize(
    ("host", "token", "url"),
    [
        ("127.0.0.1", "abc", "http://127.0.0.1:80/?token=abc"),
        ("::1", "a&b#c%", "http://[::1]:80/?token=a%26b%23c%25"),
        ("0.0.0.0", None, "http://127.0.0.1:80/"),
        ("::", None, "http://[::1]:80/"),
        ("host.example", None, "http://host.example:80/"),
    ],
)
def test_the_url_is_one_that_a_browser_on_this_host_can_open(host: str, token: str | None, url: str):
    assert address_url(host, 80, token) == url


@pytest.mark.parametrize("spare", [0, 1], ids=["no descriptor is left", "only those that sessions need"])
def test_clients_are_hung_up_on_when_descriptors_run_out(spare: int):
    def crowd() -> list[str]:
        (plain,) = listen("127.0.0.1", addresses_of("127.0.0.1", 0))
        listener = Listener(plain)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        most = clients[-1].fileno() + 1 + spare
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        listener.most_clients = most - spare
        seen = []
        for client in clients:
            try:
                listener.accept()
                seen.append("taken in")
            except BlockingIOError:
                seen.append("nobody there")
            client.settimeout(5.0)
            seen.append("hung up" if client.recv(1) == b"" else "answered")
        return seen

    assert in_child(crowd) == ["nobody there", "hung up"] * 3


# -- the state directory ---------------------------------------------------------------------------------


def test_the_state_of_a_user_is_closed_to_others(tmp_path: Path):
    made = prepare(tmp_path / "a" / "b", None)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (made.top, made.warden.parent, made.gateway)}
    assert modes == {"b": 0o700, "warden": 0o700, "gateway": 0o700}
    assert prepare(tmp_path / "a" / "b", None) == made


@only_root
def test_the_state_of_root_has_a_part_that_is_the_gateways_alone(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(places, "_check_way", lambda top, account: None)
    account = Account(12345, 23456)
    made = prepare(tmp_path / "state", account)
    seen = {path.name: path.stat() for path in (made.top, made.warden.parent, made.gateway)}
    assert {name: (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) for name, found in seen.items()} == {
        "state": (0, 0, 0o711),
        "warden": (0, 0, 0o711),
        "gateway": (12345, 23456, 0o700),
    }
    assert prepare(tmp_path / "state", account) == made
    with pytest.raises(UsageError, match="belongs to uid 12345; one of uid 54321"):
        prepare(tmp_path / "state", Account(54321, 54321))


@only_root
def test_what_a_stranger_put_into_the_state_directory_is_refused(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(places, "_check_way", lambda top, account: None)
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    (state / "gateway").symlink_to("/etc")
    before = os.stat("/etc").st_uid
    with pytest.raises(UsageError, match="is no directory"):
        prepare(state, Account(12345, 12345))
    assert os.stat("/etc").st_uid == before


@only_root
@pytest.mark.parametrize(
    ("mode", "uid", "why"),
    [(0o755, 1000, "others than root may change"), (0o777, 0, "others than root may"), (0o700, 0, "is closed to uid")],
)
def test_roots_state_lies_where_root_alone_decides_and_the_gateway_may_go(mode, uid, why, tmp_path: Path):
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(mode)
    os.chown(above, uid, uid)
    with pytest.raises(UsageError, match=f"{why}.*/var/lib.* would pass"):
        prepare(above / "state", Account(12345, 12345))


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path):
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="may be written by others; one with the mode 700 would pass"):
        prepare(tmp_path, None)


def test_a_file_in_its_place_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no directory"):
        prepare(tmp_path / "file", None)
    with pytest.raises(UsageError, match="another directory would pass"):
        prepare(tmp_path / "file" / "below", None)


def test_a_path_that_is_too_long_for_a_socket_is_refused_before_anything_is_made(tmp_path: Path):
    long = tmp_path / ("x" * 100)
    with pytest.raises(UsageError, match="too long for a socket in it; a shorter path would pass"):
        prepare(long, None)
    assert not long.exists()


# -- the gateway's user ----------------------------------------------------------------------------------


def test_the_gateway_of_root_is_the_user_cellgate_or_a_number_that_is_nobodys(monkeypatch):
    def missing(name: str) -> object:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", missing)
    assert gateway_account() == Account(ACCOUNT_ID, ACCOUNT_ID)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=990, pw_gid=991))
    assert gateway_account() == Account(990, 991)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=0, pw_gid=0))
    with pytest.raises(UsageError, match="one without privileges"):
        gateway_account()


# -- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "can be reached from other hosts, and no token was given"),
        (["--host", "a..b"], "there is no address"),
        (["--port", "66000"], "error[bad_limit]"),
        (["--token", "short"], "(not shown)"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line_with_status_2(words: list[str], said: str, capsys, tmp_path: Path):
    assert main(["serve", "--state-dir", str(tmp_path / "state"), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("driver", "end_sessions", "what"),
    [("native", False, "keeps the sandboxes"), ("native", True, "every session"), ("process", False, "every session")],
)
def test_the_operator_is_told_what_becomes_of_the_sessions(driver: str, end_sessions: bool, what: str):
    settings = read_settings(flags={"driver": driver}, environ={}, file={})
    said = serve.greeting(settings, "http://127.0.0.1:1/", 2, "about", end_sessions)
    assert f"Ctrl-C ends it, and {what}" in said
