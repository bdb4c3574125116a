"""Kernels, notebooks, kernelspecs and status over HTTP, in the shapes that Jupyter's clients know."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from cellgate.errors import StorageFull
from cellgate.gateway.kernels import read_env
from cellgate.gateway.notebooks import MAX_PER_KERNEL, Notebook, Notebooks
from tests.support.drivers import open_driver
from tests.support.gateway import TOKEN, gateway
from tests.support.server import until

DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
async def here(tmp_path):
    async with gateway(tmp_path) as here:
        yield here


# -- kernels -------------------------------------------------------------------------------------------


async def test_a_kernel_is_started_listed_looked_at_and_ended(here):
    reply = await here.ask("POST", "/api/kernels", {"name": "python3", "path": "a/b.ipynb"})
    model = reply.json()
    assert reply.status == 201
    assert reply.headers["Location"] == f"/api/kernels/{model['id']}"
    assert model.keys() == {"id", "name", "last_activity", "execution_state", "connections"}
    assert (model["name"], model["execution_state"], model["connections"]) == ("python3", "starting", 0)
    assert DATE.fullmatch(model["last_activity"])
    await here.manager.find("owner", model["id"]).started()
    [listed] = (await here.ask("GET", "/api/kernels")).json()
    assert listed["execution_state"] == "idle"
    one = (await here.ask("GET", reply.headers["Location"])).json()
    assert listed["id"] == one["id"] == model["id"]
    ended = await here.ask("DELETE", reply.headers["Location"])
    assert (ended.status, ended.body) == (204, b"")
    for method in ("GET", "DELETE"):
        gone = await here.ask(method, reply.headers["Location"])
        assert (gone.status, gone.code) == (404, "unknown_session")
    assert (await here.ask("GET", "/api/kernels")).json() == []


@pytest.mark.parametrize("body", [None, b"", b"{}", b" \n", b'{"name": null, "path": null, "env": null}'])
async def test_an_empty_body_asks_for_the_default(here, body):
    reply = await here.ask("POST", "/api/kernels", body)
    assert (reply.status, reply.json()["name"]) == (201, "python3")


async def test_restart_keeps_the_id_and_interrupt_says_nothing(here):
    path = (await here.ask("POST", "/api/kernels")).headers["Location"]
    interrupted = await here.ask("POST", f"{path}/interrupt")
    assert (interrupted.status, interrupted.body) == (204, b"")
    restarted = await here.ask("POST", f"{path}/restart", b"")
    assert (restarted.status, f"/api/kernels/{restarted.json()['id']}") == (200, path)
    assert restarted.json()["execution_state"] == "idle"
    for action in ("interrupt", "restart"):
        assert (await here.ask("POST", f"/api/kernels/none/{action}")).code == "unknown_session"


async def test_a_path_may_end_with_a_slash_and_head_is_get_without_a_body(here):
    assert (await here.ask("GET", "/api/kernels/")).json() == []
    reply = await here.ask("HEAD", "/api/kernels")
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "2")


@pytest.mark.parametrize("value", [[1], {"a": 1}, "1", None, True, -1, 0.5, 10**30], ids=repr)
async def test_a_limit_that_is_no_number_of_its_kind_is_refused(here, value):
    """Also those that are compared with others."""
    for name in ("pids", "code_bytes", "journal_bytes_per_session", "output_bytes_per_cell"):
        reply = await here.ask("POST", "/api/kernels", {"limits": {name: value}})
        assert (reply.status, reply.code) == (422, "bad_limit")


async def test_limits_may_be_lowered_and_never_raised(here):
    reply = await here.ask("POST", "/api/kernels", {"limits": {"cell_seconds": 1, "pids": 20}})
    live = here.manager.find("owner", reply.json()["id"])
    assert (live.session.limits.cell_seconds, live._spec.limits.pids) == (1, 20)
    for limits in (
        {"pids": 65536},
        {"pids": 0},
        {"pids": True},
        {"pids": "20"},
        {"pids": 1.5},
        {"what": 1},
        {"pids": -1},
    ):
        reply = await here.ask("POST", "/api/kernels", {"limits": limits})
        assert reply.status == 422, limits
        assert reply.code in ("bad_limit", "usage")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "../../x"},
        {"name": "python3\n"},
        {"name": "--privileged "},
        {"name": 7},
        {"name": ["python3"]},
        {"path": "a\nb"},
        {"path": "\ud800"},
        {"path": "x" * 1025},
        {"limits": [1]},
        {"env": ["PATH"]},
        {"env": {"PATH": "/tmp"}},
        {"env": {"LD_PRELOAD": "/tmp/x.so"}},
        {"env": {"PYTHONPATH": "/tmp"}},
        {"env": {"JPY_PARENT_PID": "1"}},
        {"env": {"": "x"}},
        {"env": {"KERNEL_A": 1}},
        {"env": {"KERNEL_A": None}},
        {"env": {"KERNEL_A": "one\ntwo: three"}},
        {"env": {"KERNEL_A": "\x00"}},
        {"env": {"KERNEL_A": "x" * 4097}},
        *({"env": {"KERNEL_UID": uid}} for uid in (" 0", "0", "00", "0x0", "-1", "4294967296", "1e3", "{{7*7}}")),
        *({"env": {"KERNEL_USERNAME": name}} for name in ("{{7*7}}", "$(id)", "`id`", "a;b", "a b", "")),
    ],
    ids=repr,
)
async def test_what_cannot_be_asked_for_is_refused_with_what_would_pass(here, body):
    reply = await here.ask("POST", "/api/kernels", body)
    assert (reply.status, reply.code) == (422, "usage")
    assert "would pass" in reply.json()["message"]
    assert here.manager.sessions("owner") == []


async def test_a_kernel_that_is_not_installed_is_not_found(here):
    reply = await here.ask("POST", "/api/kernels", {"name": "cobol"})
    assert (reply.status, reply.code) == (404, "unknown_kernel")
    assert "python3" in reply.json()["message"]


async def test_what_real_clients_send_unasked_is_left_out_and_told(here):
    """jupyter_server sends every KERNEL_ variable of its own environment; newer ones an id of their choice."""
    env = {"KERNEL_USERNAME": "ada", "KERNEL_WORKING_DIR": "/home/ada/(1)", "KERNEL_odd-name": "x"}
    reply = await here.ask("POST", "/api/kernels", {"name": "python3", "env": env, "kernel_id": "7", "a\nb": 1})
    assert reply.status == 201
    assert reply.headers["Cellgate-Ignored"] == "KERNEL_odd-name, kernel_id"
    wish = here.manager.find("owner", reply.json()["id"]).wish
    assert wish.env == {"KERNEL_USERNAME": "ada", "KERNEL_WORKING_DIR": "/home/ada/(1)"}


def test_variables_are_taken_by_their_names_alone():
    assert read_env({"KERNEL_LAUNCH_TIMEOUT": "40"}) == ({"KERNEL_LAUNCH_TIMEOUT": "40"}, [])
    assert read_env({"KERNEL_": "x", "KERNEL_" + "A" * 61: "x"}) == ({}, ["KERNEL_", "KERNEL_" + "A" * 61])


async def test_a_share_that_is_used_up_says_when_to_come_again(tmp_path):
    async with gateway(tmp_path, sessions_per_principal="2") as here:
        replies = await asyncio.gather(*(here.ask("POST", "/api/kernels") for _ in range(6)))
        assert sorted(reply.status for reply in replies) == [201, 201, 429, 429, 429, 429]
        refused = max(replies, key=lambda reply: reply.status)
        assert (refused.code, refused.headers["Retry-After"]) == ("too_many_sessions", "10")


async def test_a_server_that_is_about_to_stop_starts_nothing(here):
    assert (await here.ask("GET", "/healthz", token=None)).json() == {"status": "ok"}
    here.manager.drain()
    for reply in (await here.ask("POST", "/api/kernels"), await here.ask("GET", "/healthz", token=None)):
        assert (reply.status, reply.code, reply.headers["Retry-After"]) == (503, "draining", "5")


async def test_a_client_that_does_not_wait_for_its_kernel_leaves_it_listed(here):
    """It is found there, and ends when it has been idle for long enough."""
    with socket.create_connection(("127.0.0.1", here.port)) as client:
        client.sendall(f"POST /api/kernels?token={TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        await until(lambda: bool(here.manager.sessions("owner")))
    await until(lambda: here.manager.sessions("owner")[0].execution_state == "idle")
    assert len((await here.ask("GET", "/api/kernels")).json()) == 1


@pytest.mark.parametrize("name", [pytest.param("process"), pytest.param("native", marks=pytest.mark.native)])
async def test_a_real_kernel_is_started_restarted_and_ended(tmp_path, name):
    async with gateway(tmp_path, open_driver=lambda: open_driver(name)) as here:
        path = (await here.ask("POST", "/api/kernels", {"env": {"KERNEL_USERNAME": "ada"}})).headers["Location"]
        assert (await here.ask("POST", f"{path}/interrupt", b"")).status == 204
        assert (await here.ask("POST", f"{path}/restart", b"")).json()["execution_state"] == "idle"
        assert (await here.ask("DELETE", path)).status == 204
        await until(lambda: not here.manager._sessions)


# -- notebooks -----------------------------------------------------------------------------------------

NOTEBOOK = {"path": "work/a.ipynb", "name": "a.ipynb", "type": "notebook", "kernel": {"id": None, "name": "python3"}}


async def test_a_notebook_gets_a_kernel_and_is_found_by_its_path(here):
    reply = await here.ask("POST", "/api/sessions", NOTEBOOK)
    model = reply.json()
    assert (reply.status, reply.headers["Location"]) == (201, f"/api/sessions/{model['id']}")
    assert model.keys() == {"id", "path", "name", "type", "kernel", "notebook"}
    assert model["notebook"] == {"path": "work/a.ipynb", "name": "a.ipynb"}
    await here.manager.find("owner", model["kernel"]["id"]).started()
    model = (await here.ask("GET", reply.headers["Location"])).json()
    assert model["kernel"] == (await here.ask("GET", f"/api/kernels/{model['kernel']['id']}")).json()
    assert model["id"] != model["kernel"]["id"]
    assert (await here.ask("GET", "/api/sessions")).json() == [model]
    again = await here.ask("POST", "/api/sessions", NOTEBOOK)
    assert (again.status, again.json()["id"]) == (201, model["id"])
    assert (await here.ask("DELETE", reply.headers["Location"])).status == 204
    assert (await here.ask("GET", "/api/sessions")).json() == (await here.ask("GET", "/api/kernels")).json() == []
    assert (await here.ask("DELETE", reply.headers["Location"])).code == "unknown_session"


async def test_a_frontend_that_asks_twice_at_once_gets_one_kernel(here):
    replies = await asyncio.gather(*(here.ask("POST", "/api/sessions", NOTEBOOK) for _ in range(5)))
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len(here.manager.sessions("owner")) == 1


async def test_a_console_may_share_the_kernel_of_a_notebook(here):
    notebook = (await here.ask("POST", "/api/sessions", NOTEBOOK)).json()
    console = {"path": "console-1", "type": "console", "kernel": {"id": notebook["kernel"]["id"]}}
    model = (await here.ask("POST", "/api/sessions", console)).json()
    assert (model["kernel"]["id"], model["name"]) == (notebook["kernel"]["id"], "")
    assert "notebook" not in model
    await here.ask("DELETE", f"/api/kernels/{notebook['kernel']['id']}")
    assert (await here.ask("GET", f"/api/sessions/{model['id']}")).code == "unknown_session"
    assert (await here.ask("GET", "/api/sessions")).json() == []


async def test_a_notebook_is_renamed(here):
    path = (await here.ask("POST", "/api/sessions", NOTEBOOK)).headers["Location"]
    model = (await here.ask("PATCH", path, {"path": "b.ipynb", "name": "b.ipynb"})).json()
    assert (model["path"], model["name"], model["type"]) == ("b.ipynb", "b.ipynb", "notebook")
    assert (await here.ask("GET", path)).json() == model
    assert (await here.ask("PATCH", "/api/sessions/none", {"path": "c"})).code == "unknown_session"


async def test_a_notebook_gets_another_kernel_and_the_former_ends_unless_somebody_uses_it(here):
    model = (await here.ask("POST", "/api/sessions", NOTEBOOK)).json()
    path, first = f"/api/sessions/{model['id']}", model["kernel"]["id"]
    second = (await here.ask("PATCH", path, {"kernel": {"name": "python3"}})).json()["kernel"]["id"]
    assert [live.id for live in here.manager.sessions("owner")] == [second]
    await here.ask("POST", "/api/sessions", {"path": "console", "type": "console", "kernel": {"id": second}})
    third = (await here.ask("POST", "/api/kernels")).json()["id"]
    assert (await here.ask("PATCH", path, {"kernel": {"id": third}})).json()["kernel"]["id"] == third
    assert {live.id for live in here.manager.sessions("owner")} == {second, third}
    assert (await here.ask("PATCH", path, {"kernel": {"id": first}})).code == "unknown_session"
    assert (await here.ask("PATCH", path, {"kernel": {"id": third}})).status == 200


async def test_notebooks_of_one_kernel_are_bounded(here):
    kernel_id = (await here.ask("POST", "/api/kernels")).json()["id"]
    for number in range(MAX_PER_KERNEL + 1):
        reply = await here.ask("POST", "/api/sessions", {"path": f"{number}", "kernel": {"id": kernel_id}})
        assert reply.status == (201 if number < MAX_PER_KERNEL else 422)
    [row, *_] = (await here.ask("GET", "/api/sessions")).json()
    assert (await here.ask("PATCH", f"/api/sessions/{row['id']}", {"name": "new"})).json()["name"] == "new"


async def test_a_kernel_whose_row_cannot_be_kept_ends(here, monkeypatch):
    model = (await here.ask("POST", "/api/sessions", NOTEBOOK)).json()

    def fail(_self, _rows):
        raise StorageFull("no room")

    monkeypatch.setattr(Notebooks, "_write", fail)
    for method, path, body in (
        ("POST", "/api/sessions", {"path": "other"}),
        ("PATCH", f"/api/sessions/{model['id']}", {"kernel": {"name": "python3"}}),
    ):
        reply = await here.ask(method, path, body)
        assert (reply.status, reply.code) == (507, "storage_full")
    assert [live.id for live in here.manager.sessions("owner")] == [model["kernel"]["id"]]
    await here.ask("DELETE", f"/api/kernels/{model['kernel']['id']}")
    assert (await here.ask("GET", "/api/sessions")).json() == [], "to forget a row needs no room"


async def test_a_kernel_for_a_notebook_that_is_deleted_meanwhile_ends(here, monkeypatch):
    model = (await here.ask("POST", "/api/sessions", NOTEBOOK)).json()
    path = f"/api/sessions/{model['id']}"
    create = here.manager.create

    async def create_slowly(*given):
        live = await create(*given)
        assert (await here.ask("DELETE", path)).status == 204
        return live

    monkeypatch.setattr(here.manager, "create", create_slowly)
    assert (await here.ask("PATCH", path, {"kernel": {"name": "python3"}})).code == "unknown_session"
    assert here.manager.sessions("owner") == []


@pytest.mark.parametrize(
    "body", [None, {}, {"path": ""}, {"path": 1}, {"path": "a", "kernel": "python3"}, {"type": "x"}]
)
async def test_a_notebook_without_a_path_is_refused(here, body):
    reply = await here.ask("POST", "/api/sessions", body)
    assert (reply.status, reply.code) == (422, "usage")


def test_notebooks_outlive_the_gateway(tmp_path):
    rows = [Notebook(f"{n}", "owner", "k", f"{n}.ipynb", "", "notebook") for n in range(3)]
    notebooks = Notebooks(tmp_path / "notebooks.json")
    for row in rows:
        notebooks.put(row)
    notebooks.forget(["1", "none"])
    assert Notebooks(tmp_path / "notebooks.json").of("owner") == [rows[0], rows[2]]
    assert Notebooks(tmp_path / "notebooks.json").of("somebody else") == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"id": "1"}]', '{"a": 1}', "\udcff"])
def test_a_file_that_makes_no_sense_is_put_aside(tmp_path, text):
    path = tmp_path / "notebooks.json"
    path.write_text(text, errors="surrogateescape")
    assert Notebooks(path).of("owner") == []
    assert path.with_suffix(".corrupt").exists()


def test_a_row_that_cannot_be_kept_is_none(tmp_path):
    notebooks = Notebooks(tmp_path / "gone" / "notebooks.json")
    with pytest.raises(StorageFull):
        notebooks.put(Notebook("1", "owner", "k", "p", "", "notebook"))
    assert notebooks.of("owner") == []


# -- kernelspecs ---------------------------------------------------------------------------------------


async def test_kernelspecs_are_listed_with_their_logos(here):
    said = (await here.ask("GET", "/api/kernelspecs")).json()
    model = said["kernelspecs"][said["default"]]
    assert model == (await here.ask("GET", f"/api/kernelspecs/{said['default']}")).json()
    assert (model["name"], model["spec"]["language"]) == ("python3", "python")
    assert isinstance(model["spec"]["argv"], list)
    assert model["resources"].keys() == {"logo-32x32", "logo-64x64", "logo-svg"}
    for name, url in model["resources"].items():
        logo = await here.ask("GET", url)
        assert logo.headers["Content-Type"] == ("image/svg+xml" if name == "logo-svg" else "image/png")
        assert "sandbox" in logo.headers["Content-Security-Policy"]
        assert len(logo.body) > 100


@pytest.mark.parametrize(
    "path",
    [
        "/kernelspecs/python3/kernel.json",
        "/kernelspecs/python3/..%2f..%2fetc%2fpasswd",
        "/kernelspecs/python3/%2e%2e/x",
        "/kernelspecs/..%2f/logo-svg.svg",
        "/kernelspecs/python3/logo-svg.svg%00",
        "/kernelspecs/python3/logo-svg.svg/x",
    ],
)
async def test_nothing_but_a_logo_is_a_logo(here, path):
    assert (await here.ask("GET", path)).code == "not_found"


async def test_an_unknown_kernelspec_is_not_found(here):
    assert (await here.ask("GET", "/api/kernelspecs/cobol")).code == "unknown_kernel"


# -- the server ----------------------------------------------------------------------------------------


async def test_status_counts(here):
    await here.ask("POST", "/api/kernels")
    said = (await here.ask("GET", "/api/status")).json()
    assert (said["kernels"], said["connections"]) == (1, 0)
    assert said["started"] <= said["last_activity"]
    assert DATE.fullmatch(said["started"])


async def test_jupyters_version_is_told_to_anybody(here):
    assert (await here.ask("GET", "/api", token=None)).json().keys() == {"version"}


async def test_me_says_who_asks_and_what_of_it_is_allowed(here):
    said = (await here.ask("GET", "/api/me?permissions=%7B%22kernels%22%3A%5B%22read%22%2C%22sing%22%5D%7D")).json()
    assert said["identity"]["username"] == "owner"
    assert said["permissions"] == {"kernels": ["read"]}
    assert (await here.ask("GET", "/api/me")).json()["permissions"] == {}
    for text in ("[]", "%7B", "%7B%22a%22:1%7D", "%7B%22a%22:%5B1%5D%7D"):
        assert (await here.ask("GET", f"/api/me?permissions={text}")).code == "usage"
