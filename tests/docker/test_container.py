"""What a container is made of and what its labels and its end say, decided without an engine."""

from __future__ import annotations

import os

import pytest

from cellgate.sandbox.docker.container import Container, Labels, is_orphan, wait_status
from tests.support.drivers import SMALL

LABELS = Labels("a1", "/state/docker", "python", SMALL, 2_100_000_001, is_kept=False, seen_from="boot/1/2")
CONTAINER = Container(LABELS, "sha256:0", "python", "/state/docker/a1", "runc", True, hidden=["/proc/kcore"])


@pytest.mark.parametrize("code", [*range(129), *range(193, 256)])
def test_an_exit_is_told_by_its_code(code):
    assert os.waitstatus_to_exitcode(wait_status(code)) == code


@pytest.mark.parametrize("number", range(1, 65))
def test_what_a_shell_would_call_a_signal_is_one(number):
    assert os.waitstatus_to_exitcode(wait_status(128 + number)) == -number


def test_labels_come_back_as_they_went():
    assert Labels.from_engine(LABELS.to_engine()) == LABELS


@pytest.mark.parametrize("name", LABELS.to_engine())
def test_labels_that_lack_one_are_nobodys(name):
    found = LABELS.to_engine()
    del found[name]
    assert Labels.from_engine(found) is None


@pytest.mark.parametrize("limits", ["", "[]", "null", '{"memory_bytes": 0}', '{"no_such": 1}', "{", '{"pids": "64"}'])
def test_labels_with_limits_that_are_none_are_nobodys(limits):
    assert Labels.from_engine(LABELS.to_engine() | {"io.cellgate.limits": limits}) is None


@pytest.mark.parametrize(
    "kept, here, lives, orphan",
    [
        (False, "boot/1/2", False, True),
        (False, "boot/1/2", True, False),
        (False, "boot/1/3", False, False),  # what its directory is cannot be told from here
        (True, "boot/1/2", False, False),
    ],
)
def test_only_what_nobody_will_ask_for_is_an_orphan(kept, here, lives, orphan):
    labels = Labels("a1", "/x", "python", SMALL, 1, is_kept=kept, seen_from="boot/1/2")
    assert is_orphan(labels, here=here, owner_lives=lives) is orphan


def test_a_container_has_every_limit_and_no_right():
    host = CONTAINER.to_engine()["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (
        SMALL.memory_bytes,
        SMALL.memory_bytes,
        SMALL.pids,
    )
    assert host["CpuQuota"] == host["CpuPeriod"] * SMALL.cpu_cores
    assert f"size={SMALL.workspace_bytes},nr_inodes={SMALL.workspace_inodes}" in host["Tmpfs"]["/workspace"]
    assert f"size={SMALL.shm_bytes}," in host["Tmpfs"]["/dev/shm"]
    limits = {row["Name"]: (row["Soft"], row["Hard"]) for row in host["Ulimits"]}
    assert limits["nofile"] == (SMALL.open_files,) * 2
    assert limits["fsize"] == (SMALL.file_bytes,) * 2
    assert (host["CapDrop"], host["NetworkMode"], host["ReadonlyRootfs"]) == (["ALL"], "none", True)
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert not {"Privileged", "Devices", "CapAdd", "PidMode", "UsernsMode", "VolumesFrom"} & set(host)


def test_all_that_it_is_given_of_the_host_lies_in_its_own_directory_and_is_read_only_but_its_link():
    for bind in CONTAINER.to_engine()["HostConfig"]["Binds"]:
        source, inside, mode = bind.split(":")
        assert source.startswith("/state/docker/a1/")
        assert mode == ("rw" if inside == "/run/cellgate" else "ro")


def test_a_kernel_of_its_own_has_room_for_its_threads():
    other = Container(LABELS, "sha256:0", "python", "/x", "runsc", False, hidden=[])
    assert other.to_engine()["HostConfig"]["PidsLimit"] > SMALL.pids
