"""Control groups: version 1 and 2 on paper, and the version of this host for real."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import time
import uuid
from pathlib import Path

import pytest

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import cgroups
from cellgate.sandbox.native.cgroups import V1, V2, Hierarchy, PlacementV2, Reading, detect, place_v2

MiB = 1 << 20
LIMITS = Limits(memory_bytes=64 * MiB, cpu_cores=0.5, pids=20)


# On paper: which files get which bytes, and what files say.


def as_files(settings):
    return {s.file: s.value for s in settings}


def test_limits_in_the_words_of_version_1():
    assert as_files(V1.settings(LIMITS)) == {
        "memory.limit_in_bytes": b"67108864",
        "memory.memsw.limit_in_bytes": b"67108864",
        "memory.kmem.tcp.limit_in_bytes": b"16777216",
        "pids.max": b"20",
        "cpu.cfs_quota_us": b"50000",
    }


def test_limits_in_the_words_of_version_2():
    assert as_files(V2.settings(LIMITS)) == {
        "memory.max": b"67108864",
        "memory.swap.max": b"0",
        "pids.max": b"20",
        "cpu.max": b"50000 100000",
    }


def test_the_smallest_share_of_a_core_is_what_the_kernel_takes():
    assert as_files(V1.settings(Limits(cpu_cores=0.01)))["cpu.cfs_quota_us"] == b"1000"


def reader(files):
    return lambda _controller, file: files.get(file, "")


def test_a_reading_of_version_1():
    files = {
        "memory.limit_in_bytes": "67108864\n",
        "memory.usage_in_bytes": "1048576\n",
        "memory.max_usage_in_bytes": "2097152\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        "pids.events": "max 7\n",
        "pids.current": "4\n",
        "cpuacct.usage": "1500000000\n",
    }
    assert V1.reading(reader(files)) == Reading(67108864, 1048576, 2097152, 3, 7, 4, 1.5)


def test_a_reading_of_version_2():
    files = {
        "memory.max": "67108864\n",
        "memory.current": "1048576\n",
        "memory.peak": "2097152\n",
        "memory.events": "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n",
        "pids.events": "max 7\n",
        "pids.current": "4\n",
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\nsystem_usec 1\n",
    }
    assert V2.reading(reader(files)) == Reading(67108864, 1048576, 2097152, 3, 7, 4, 1.5)
    del files["memory.peak"]  # before Linux 5.19
    assert V2.reading(reader(files)).memory_peak_bytes == 1048576
    assert V2.reading(reader(files | {"memory.max": "max\n"})).memory_limit_bytes is None


@pytest.mark.parametrize("version", [V1, V2])
def test_a_group_that_is_gone_reads_as_nothing(version):
    assert version.reading(reader({})) == Reading(None, None, None, 0, 0, 0, 0.0)


def test_memberships_are_read_per_controller():
    text = "4:memory:/a\n3:cpu,cpuacct:/b:c\n1:name=systemd:/\n0::/d\n"
    read = cgroups.parse_memberships(text)
    assert read == {"memory": "/a", "cpu": "/b:c", "cpuacct": "/b:c", "name=systemd": "/", "": "/d"}


@pytest.mark.parametrize(
    ("own", "true_root", "delegated", "top_is_ours", "wanted"),
    [
        pytest.param("/", True, True, True, PlacementV2("/", vacate=False), id="at the true root"),
        pytest.param("/", False, True, False, PlacementV2("/", vacate=True), id="top of a container"),
        pytest.param("/a.service", False, True, True, PlacementV2("/a.service", vacate=True), id="delegated unit"),
        pytest.param(
            "/a.service/cellgate-supervisor", False, False, False, PlacementV2("/a.service", vacate=False), id="again"
        ),
        pytest.param("/session.scope", False, False, True, PlacementV2("/", vacate=False), id="root's shell"),
        pytest.param("/session.scope", False, False, False, None, id="a user's shell"),
    ],
)
def test_where_the_groups_of_version_2_go(own, true_root, delegated, top_is_ours, wanted):
    place = place_v2(own, own_is_true_root=true_root, own_is_delegated=delegated, top_is_ours=top_is_ours)
    assert place == wanted


# Detection over a directory tree.


def test_version_1_goes_beneath_our_own_group_of_each_tree(tmp_path):
    for controller in ("memory/a/b", "pids", "cpu,cpuacct"):
        (tmp_path / "sys" / controller).mkdir(parents=True)
    for name in ("cpu", "cpuacct"):
        (tmp_path / "sys" / name).symlink_to("cpu,cpuacct")
    (tmp_path / "proc").write_text("3:memory:/a/b\n2:pids:/not/visible\n1:cpu,cpuacct:/\n")
    hierarchy = detect(str(tmp_path / "sys"), str(tmp_path / "proc"))
    assert hierarchy.version is V1
    assert hierarchy.parents == {
        "memory": f"{tmp_path}/sys/memory/a/b/cellgate",
        "pids": f"{tmp_path}/sys/pids/cellgate",
        "cpu": f"{tmp_path}/sys/cpu,cpuacct/cellgate",
        "cpuacct": f"{tmp_path}/sys/cpu,cpuacct/cellgate",
    }


def test_a_missing_controller_of_version_1_is_named(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "proc").write_text("1:memory:/\n")
    with pytest.raises(DriverUnavailable, match="no cgroup controller pids, cpu is mounted"):
        detect(str(tmp_path), str(tmp_path / "proc"))


def test_a_missing_controller_of_version_2_is_named(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io\n")
    (tmp_path / "proc").write_text("0::/\n")
    with pytest.raises(DriverUnavailable, match="no controller memory, pids"):
        detect(str(tmp_path), str(tmp_path / "proc"))


def test_without_cgroups_the_error_says_so(tmp_path):
    with pytest.raises(DriverUnavailable, match="cannot be read"):
        detect(str(tmp_path), str(tmp_path / "none"))


@pytest.fixture
def fake_v2(tmp_path, monkeypatch):
    """A directory that grows the files of cgroup version 2, as the kernel does it. Writes land in plain files."""
    root = tmp_path / "cgroup"
    files = [f"cgroup.{name}" for name in ("type", "procs", "controllers", "subtree_control", "kill", "freeze")]
    controlled = ["memory.max", "memory.swap.max", "pids.max", "cpu.max"]
    real_mkdir, real_rmdir = os.mkdir, os.rmdir

    def resolved(path, dir_fd):
        return Path(path if dir_fd is None else f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{path}")

    def mkdir(path, mode=0o777, *, dir_fd=None):
        real_mkdir(path, mode, dir_fd=dir_fd)
        made = resolved(path, dir_fd)
        if root in made.parents:
            for file in files + controlled:
                (made / file).touch()
            (made / "cgroup.controllers").write_text("cpu memory pids")

    def rmdir(path, *, dir_fd=None):
        gone = resolved(path, dir_fd)
        if root in gone.parents and not any(entry.is_dir() for entry in gone.iterdir()):
            for file in gone.iterdir():
                file.unlink()
            real_rmdir(gone)
        else:
            real_rmdir(path, dir_fd=dir_fd)

    root.mkdir()
    for file in files:
        (root / file).touch()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids")
    (tmp_path / "proc").write_text("0::/\n")
    monkeypatch.setattr(cgroups.os, "mkdir", mkdir)
    monkeypatch.setattr(cgroups.os, "rmdir", rmdir)
    return root


def test_version_2_hands_controllers_down_and_sets_limits(fake_v2, tmp_path):
    (fake_v2 / "cgroup.type").unlink()  # the true root
    hierarchy = detect(str(fake_v2), str(tmp_path / "proc"))
    assert hierarchy.version is V2
    hierarchy.prepare()
    group = hierarchy.create("w-1", LIMITS)
    for directory in (fake_v2, fake_v2 / "cellgate"):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    made = fake_v2 / "cellgate" / "w-1"
    assert {name: (made / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")} == {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "pids.max": "20",
        "cpu.max": "50000 100000",
    }
    group.freeze(seconds=0)
    assert (made / "cgroup.freeze").read_text() == "1"
    assert group.kill()
    assert (made / "cgroup.kill").read_text() == "1"
    (fd,) = group.entrances()
    os.write(fd, b"0")
    os.close(fd)
    assert (made / "cgroup.procs").read_text() == "0"
    assert hierarchy.names("w-") == ["w-1"]
    assert group.remove()
    assert group.remove()
    assert hierarchy.names() == []
    hierarchy.close()


def test_version_2_moves_the_processes_of_a_delegated_group_out_of_the_way(fake_v2, tmp_path):
    (fake_v2 / "cgroup.procs").write_text("41\n")  # the top of a container: not the true root
    hierarchy = detect(str(fake_v2), str(tmp_path / "proc"))
    hierarchy.prepare()
    assert (fake_v2 / "cellgate-supervisor" / "cgroup.procs").read_text() == "41"
    hierarchy.close()


def test_a_kernel_without_a_file_that_must_be_is_told(fake_v2, tmp_path, monkeypatch):
    hierarchy = detect(str(fake_v2), str(tmp_path / "proc"))
    needs = dataclasses.replace(V2, settings=lambda _: (cgroups.Setting("cpu", "cpu.other", b""),))
    monkeypatch.setattr(hierarchy, "version", needs)
    with pytest.raises(DriverUnavailable, match=r"have no cpu\.other"):
        hierarchy.prepare()
    hierarchy.close()


# This host's, for real.


def host_hierarchy():
    hierarchy = detect()
    name = f"cellgate-test-{uuid.uuid4().hex[:12]}"
    return Hierarchy(
        hierarchy.version,
        {controller: f"{os.path.dirname(path)}/{name}" for controller, path in hierarchy.parents.items()},
    )


def core_of_version_2():
    """The tree of version 2 that stands beside version 1 on a mixed host: no controllers, but groups and their end."""
    core = dataclasses.replace(V2, required=(), settings=lambda _: ())
    return Hierarchy(core, {"cgroup": f"/sys/fs/cgroup/unified/cellgate-test-{uuid.uuid4().hex[:12]}"})


@pytest.fixture(params=["host", "core of version 2"])
def hierarchy(request):
    if os.getuid() != 0:
        pytest.skip("making cgroups needs root")
    if request.param == "host":
        made = host_hierarchy()
    elif os.path.exists("/sys/fs/cgroup/unified/cgroup.procs"):
        made = core_of_version_2()
    else:
        pytest.skip("cgroup v2 is not mounted here beside v1")
    made.prepare()
    yield made
    made.sweep("")
    made.close()
    assert not any(os.path.exists(parent) for parent in made.parents.values())


def start(group, function):
    """A child in the group that runs `function`; returns its pid when it has entered."""
    fds = group.entrances()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for fd in fds:
                os.write(fd, b"0")
            os.write(writing, b"in")
            function()
        finally:
            os._exit(0)
    for fd in (*fds, writing):
        os.close(fd)
    assert select.select([reading], [], [], 10)[0]
    assert os.read(reading, 2) == b"in"
    os.close(reading)
    return pid


def hang():
    while True:
        signal.pause()


def spread():
    """Forks for ever, as long as anybody lives to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            os.fork()
        except OSError:
            pass


def reap(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def only_with_controllers(hierarchy):
    if "memory" not in hierarchy.parents:
        pytest.skip("this tree has no controllers; cgroup v2 is not mounted here with any")


def test_a_child_enters_and_is_seen_and_leaves(hierarchy):
    group = hierarchy.create("t-1", LIMITS)
    pid = start(group, hang)
    assert group.pids() == {pid}
    assert not group.remove(seconds=0.01)
    assert group.kill()
    assert reap(pid) == -signal.SIGKILL
    assert group.remove()
    assert group.remove()
    assert hierarchy.names() == []


def test_a_group_that_is_gone_answers_quietly(hierarchy):
    group = hierarchy.create("t-1", LIMITS)
    group.remove()
    assert group.kill()
    assert group.pids() == set()
    assert group.read().pids == 0


def test_another_process_can_be_added(hierarchy):
    waiting, going = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(going)
        os.read(waiting, 1)
        os._exit(7)
    group = hierarchy.create("t-1", LIMITS)
    group.add(pid)
    assert group.pids() == {pid}
    os.close(going)
    assert reap(pid) == 7
    assert group.remove()
    os.close(waiting)


def test_stopped_and_frozen_processes_die(hierarchy):
    group = hierarchy.create("t-1", LIMITS)
    stopped, frozen = start(group, hang), start(group, hang)
    os.kill(stopped, signal.SIGSTOP)
    assert group.freeze()
    began = time.monotonic()
    assert group.kill()
    assert time.monotonic() - began < 3
    assert [reap(stopped), reap(frozen)] == [-signal.SIGKILL] * 2


def test_a_thawed_process_goes_on(hierarchy):
    reading, writing = os.pipe()

    def answer():
        os.read(reading, 1)
        os._exit(3)

    group = hierarchy.create("t-1", LIMITS)
    pid = start(group, answer)
    assert group.freeze()
    os.write(writing, b"1")
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    group.thaw()
    assert reap(pid) == 3
    os.close(reading)
    os.close(writing)


def test_a_fork_bomb_hits_its_limit_and_ends_within_three_seconds(hierarchy):
    only_with_controllers(hierarchy)
    group = hierarchy.create("t-1", LIMITS)
    pid = start(group, spread)
    deadline = time.monotonic() + 10
    while not group.read().pids_limit_hits:
        assert time.monotonic() < deadline
    assert group.read().pids <= LIMITS.pids
    began = time.monotonic()
    assert group.kill()
    assert time.monotonic() - began < 3
    assert reap(pid) == -signal.SIGKILL
    assert group.remove()


def test_too_much_memory_is_killed_and_counted(hierarchy):
    only_with_controllers(hierarchy)
    group = hierarchy.create("t-1", LIMITS)
    assert reap(start(group, lambda: bytearray(2 * LIMITS.memory_bytes))) == -signal.SIGKILL
    events = group.events(wall_seconds=1.5)
    assert events.oom_kills == 1
    assert events.memory_limit_bytes == LIMITS.memory_bytes
    assert LIMITS.memory_bytes * 0.9 < events.memory_peak_bytes <= LIMITS.memory_bytes
    assert events.wall_seconds == 1.5


def test_cpu_time_is_counted_and_capped(hierarchy):
    only_with_controllers(hierarchy)

    def burn():
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            pass

    group = hierarchy.create("t-1", dataclasses.replace(LIMITS, cpu_cores=0.2))
    began = time.monotonic()
    reap(start(group, burn))
    took = time.monotonic() - began
    assert 0.01 < group.read().cpu_seconds < 0.2 * took + 0.1  # a whole period more may be under way


def test_two_groups_of_one_name_cannot_be(hierarchy):
    group = hierarchy.create("t-1", LIMITS)
    with pytest.raises(FileExistsError):
        hierarchy.create("t-1", LIMITS)
    assert hierarchy.names() == ["t-1"]
    assert group.remove()


def test_a_parent_group_that_another_warden_took_away_is_made_anew(hierarchy):
    for parent in set(hierarchy.parents.values()):
        os.rmdir(parent)
    group = hierarchy.create("t-1", LIMITS)
    assert hierarchy.names() == ["t-1"]
    assert group.remove()


def test_a_group_whose_limits_cannot_be_set_leaves_nothing(hierarchy, monkeypatch):
    impossible = (cgroups.Setting(next(iter(hierarchy.parents)), "cgroup.procs", b"nobody"),)
    monkeypatch.setattr(hierarchy, "version", dataclasses.replace(hierarchy.version, settings=lambda _: impossible))
    with pytest.raises(OSError, match="Invalid argument"):
        hierarchy.create("t-1", LIMITS)
    assert hierarchy.names() == []


def test_a_sweep_ends_what_a_dead_warden_left_and_nothing_else(hierarchy):
    orphan = start(hierarchy.create("w1-a", LIMITS), spread if "pids" in hierarchy.parents else hang)
    hierarchy.create("w1-b", LIMITS)
    other = start(hierarchy.create("w2-a", LIMITS), hang)
    assert hierarchy.sweep("w1-") == []
    assert hierarchy.names() == ["w2-a"]
    assert reap(orphan) == -signal.SIGKILL
    assert os.waitpid(other, os.WNOHANG) == (0, 0)
    hierarchy.sweep("w2-")
    reap(other)


def test_a_number_that_has_passed_to_another_process_is_not_killed():
    pid = os.fork()
    if pid == 0:
        hang()
    cgroups._kill_members([pid], lambda: {pid + 1})
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    cgroups._kill_members([pid], lambda: {pid})
    assert reap(pid) == -signal.SIGKILL
