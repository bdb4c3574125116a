"""Files that moved are told of, once each, to who audits and who measures; a scope of its own opens them."""

from __future__ import annotations

import io
import tarfile

import pytest

from cellgate.access.scopes import Scope
from cellgate.live.files import PIECE_BYTES
from cellgate.live.happenings import Direction, FileMoved
from tests.support.drivers import driver_params, open_driver
from tests.support.gateway import gateway

BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture(params=driver_params(["process"]))
async def here(request, tmp_path):
    async with gateway(tmp_path, open_driver=lambda: open_driver(request.param)) as here:
        yield here


async def test_what_moved_is_told_with_its_size(here):
    session_id = (await here.ask("POST", "/v1/sessions", {})).json()["id"]
    live = here.manager.find("owner", session_id)
    await live.started()
    told = []
    here.manager.happenings.listen(lambda h: told.append(h) if isinstance(h, FileMoved) else None)
    data, base = b"x" * (PIECE_BYTES + 7), f"/v1/sessions/{session_id}"
    assert (await here.ask("PUT", f"{base}/files/a.bin", data, headers=BYTES)).status == 200
    assert (await here.ask("GET", f"{base}/files/a.bin")).status == 200
    assert (await here.ask("GET", f"{base}/files/a.bin", headers={"Range": "bytes=0-9"})).status == 206
    assert (await here.ask("GET", f"{base}/files/none")).status == 404
    assert [(h.direction, h.path, h.size_bytes) for h in told] == [
        (Direction.IN, "a.bin", len(data)),
        (Direction.OUT, "a.bin", len(data)),
        (Direction.OUT, "a.bin", 10),
    ]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("b.txt"))
    told.clear()
    reply = await here.ask("PUT", f"{base}/archive?path=in&format=tar", packed.getvalue(), headers=BYTES)
    assert reply.status == 200, reply.body
    reply = await here.ask("GET", f"{base}/archive?path=in&format=tar")
    assert [(h.direction, h.path, h.size_bytes) for h in told] == [
        (Direction.IN, "in", len(packed.getvalue())),
        (Direction.OUT, "in", len(reply.body)),
    ]


async def test_who_may_run_code_may_not_by_that_use_the_routes_of_files(here):
    session_id = (await here.ask("POST", "/v1/sessions", {})).json()["id"]
    runs = here.token("owner", Scope.EXECUTE)
    assert (await here.ask("GET", f"/v1/sessions/{session_id}/files", token=runs)).code == "missing_scope"
    assert (await here.ask("GET", f"/v1/sessions/{session_id}", token=runs)).status == 200
