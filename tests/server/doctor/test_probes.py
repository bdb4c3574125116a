"""What each probe makes of facts: of good ones, of those where its layer is broken, of none, of nonsense."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.doctor.host import Outside, numbers_of
from cellgate.doctor.probes import ADDRESSES, PROBES, PROFILES, Facts, Said, judge
from cellgate.doctor.report import Finding, Mark
from cellgate.sandbox.drivers import DRIVERS
from tests.server.doctor.recorded import HOST, INSIDE, NEIGHBOUR, SMALL_ONE, native_facts, said

NATIVE = [probe for probe in PROBES if "native" in probe.promised_by]


def found_by(probe_id: str, facts: Facts, driver: str = "native") -> Finding:
    return next(finding for finding in judge(driver, facts) if finding.id == probe_id)


def marks(facts: Facts, driver: str = "native") -> dict[str, Mark]:
    """Of what this driver promises."""
    return {finding.id: finding.mark for finding in judge(driver, facts) if finding.promised}


def with_change(path: str, value: Any) -> Facts:
    """The good facts but for one, named like `inside.namespaces.user`."""
    whose, name, *keys = path.split(".")
    found = deepcopy({"inside": INSIDE, "neighbour": NEIGHBOUR, "small": SMALL_ONE}[whose])
    if not keys:
        found[name] = value
    else:
        place = found[name]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
    return native_facts(**{whose: said(found)})


def with_host(**changed: Any) -> Facts:
    return native_facts(host=replace(HOST, **changed))


def opened(path: str) -> Facts:
    return with_change("inside.opening", {**INSIDE["opening"], path: "open"})


def mounted(place: str, *, writable: bool, options: list[str]) -> Facts:
    return with_change("inside.mounts", [*INSIDE["mounts"], [place, "ext4", writable, options]])


# For each layer that is promised: facts as they are where it is not there.
BROKEN: dict[str, Facts] = {
    "host.kernel": with_host(kernel="5.10.0-28-amd64"),
    "host.user_namespaces": with_host(max_user_namespaces=0),
    "host.seccomp": with_host(seccomp_actions=()),
    "host.cgroup": with_host(cgroup_controllers=("cpu", "memory")),
    "versions.python": with_change("inside.versions.python", "3.9.18"),
    "versions.ipykernel": with_change("inside.versions.ipykernel", "6.29.5"),
    "versions.ipython": with_change("inside.versions.ipython", "7.34.0"),
    **{
        f"namespaces.{name}": with_change(f"inside.namespaces.{kind}", HOST.namespaces[kind])
        for name, kind in {
            "mount": "mnt",
            "network": "net",
            **{k: k for k in ("user", "pid", "ipc", "uts", "cgroup")},
        }.items()
    },
    "namespaces.neighbour": with_change("neighbour.namespaces.ipc", INSIDE["namespaces"]["ipc"]),
    "user.not_root": native_facts(outside=Outside(1, (0,) * 4, (0,) * 4, ())),
    "user.own_uid": native_facts(neighbour_outside=Outside(1, (1972640000,) * 4, (1,) * 4, ())),
    "user.groups": native_facts(outside=Outside(1, (5,) * 4, (5,) * 4, (27,))),
    "user.inside": with_change("inside.identity.becomes_root.said", [0]),
    "user.one_id": with_change("inside.identity.uid_map", ["0", "0", "4294967295"]),
    "privileges.capabilities": with_change("inside.status.CapBnd", "000001ffffffffff"),
    "privileges.securebits": with_change("inside.securebits", 0),
    "privileges.no_new_privs": with_change("inside.status.NoNewPrivs", "0"),
    "seccomp.filter": with_change("inside.status.Seccomp", "0"),
    "seccomp.namespaces": with_change("inside.calls.unshare", 0),
    "seccomp.mounts": with_change("inside.calls.mount", 14),
    "seccomp.peeking": with_change("inside.calls.ptrace", 0),
    "seccomp.risky": with_change("inside.calls.io_uring_setup", 14),
    "seccomp.sockets": with_change("inside.sockets.vsock", 0),
    "seccomp.conventions": with_change("inside.foreign_calls.i386", {"exit": 0, "said": [0], "signal": None}),
    "landlock.files": with_change("inside.landlock_layers.said", [{"layers": 0}]),
    "landlock.signals": with_change("inside.process_1.signal", 0),
    "filesystem.read_only": with_change("inside.writing./etc", 0),
    "filesystem.writable": mounted("/srv", writable=True, options=["rw", "nosuid"]),
    "filesystem.host_files": opened("/tmp/cellgate-doctor-q5gnfp56/canary"),
    "filesystem.neighbour": with_change("neighbour.places./dev/shm", INSIDE["places"]["/dev/shm"]),
    "devices.list": with_change("inside.devices", [*INSIDE["devices"], "/dev/kvm"]),
    "devices.making": with_change("inside.making_devices", 0),
    "proc.steering": with_change("inside.steering./proc/sys/kernel/core_pattern", 0),
    "proc.host": opened("/proc/kallsyms"),
    "proc.sys": opened("/sys/fs/cgroup"),
    "network.interfaces": with_change("inside.interfaces", ["lo", "eth0"]),
    "network.routes": with_change("inside.routes", {**INSIDE["routes"], ADDRESSES[0]: 0}),
    "network.names": with_change("inside.name_lookup.seconds", 5.0),
    "network.host": with_change("inside.host_sockets.TCP", 0),
    "limits.memory": with_change("small.hit_memory", {"exit": 0, "said": [1], "signal": None}),
    "limits.pids": with_change("small.hit_pids", {"made": 28, "errno": 0}),
    "limits.cpu": with_change("small.hit_cpu", 0.99),
    "limits.workspace": with_change("small.hit_workspace", {"made": 4259840, "errno": 0}),
    "limits.inodes": with_change("small.hit_inodes", {"made": 520, "errno": 0}),
    "limits.shm": with_change("small.hit_shm", {"made": 1114112, "errno": 0}),
    "limits.open_files": with_change("small.hit_open_files", {"made": 136, "errno": 0}),
    "limits.file": with_change("small.hit_file_size", {"made": 1114112, "errno": 0}),
    "limits.core_dumps": with_change("inside.rlimits.CORE", -1),
    "limits.locked_memory": with_change("inside.rlimits.MEMLOCK", 8388608),
    "limits.priority": with_change("inside.rlimits.RTPRIO", 99),
    "init.reaping": with_change("inside.process_1.orphan", "zombie"),
    "init.hidden": with_change("inside.process_1.entries.environ", 0),
    "inheritance.descriptors": with_change("inside.descriptors.9", "/var/lib/cellgate/state.db"),
    "inheritance.environment": with_change("inside.environment.API_KEY", "secret of the host"),
    "inheritance.entropy": with_change("neighbour.entropy.random", INSIDE["entropy"]["random"]),
}
ONLY_WEAKER = {"host.landlock", "filesystem.nosuid"}  # the walls beside it stand


def test_all_that_is_promised_holds_on_the_recorded_host():
    assert {name: mark for name, mark in marks(native_facts()).items() if mark is not Mark.HOLDS} == {}


@pytest.mark.parametrize("probe_id", BROKEN)
def test_a_layer_that_is_not_there_is_missing_and_no_other_is(probe_id):
    changed = {name: mark for name, mark in marks(BROKEN[probe_id]).items() if mark is not Mark.HOLDS}
    beside = {"network.names"} if probe_id == "network.routes" else set()  # a route is a way to name servers
    assert set(changed) - beside == {probe_id}
    assert changed[probe_id] is Mark.MISSING


def test_set_user_id_programs_are_powerless_by_either_of_two_walls():
    facts = mounted("/srv", writable=False, options=["ro"])
    assert marks(facts)["filesystem.nosuid"] is Mark.WEAKER
    without = {**facts.inside.facts, "status": {"found": {**INSIDE["status"], "NoNewPrivs": "0"}}}
    assert marks(replace(facts, inside=Said(without)))["filesystem.nosuid"] is Mark.MISSING


def test_a_kernel_of_its_own_is_known_by_its_own_words():
    gvisor = {"release": "4.4.0", "says": "<6>[   0.000000] Starting gVisor..."}
    for said_of_itself, mark in (
        (gvisor, Mark.HOLDS),
        ({**gvisor, "says": ""}, Mark.MISSING),
        ({**gvisor, "release": HOST.kernel}, Mark.MISSING),
    ):
        found = {**INSIDE, "kernel": said_of_itself}
        assert marks(native_facts(inside=said(found)), "gvisor")["kernel.own"] is mark


def test_every_promised_layer_has_been_seen_broken():
    assert {probe.id for probe in NATIVE} == set(BROKEN) | ONLY_WEAKER


@pytest.mark.parametrize("abi", [0, 1, 5])
def test_an_older_landlock_is_weaker_and_not_missing(abi):
    facts = replace(with_host(landlock_abi=abi))
    weaker = {name for name, mark in marks(facts).items() if mark is not Mark.HOLDS}
    assert weaker == {"host.landlock", "landlock.signals", *(["landlock.files"] if abi == 0 else [])}
    assert all(marks(facts)[name] is Mark.WEAKER for name in weaker)


def test_without_root_sessions_share_a_host_uid_and_it_is_said():
    theirs = Outside(13754, (1001,) * 4, (1001,) * 4, (27,))
    facts = native_facts(is_rootless=True, outside=theirs, neighbour_outside=replace(theirs, pid=13758))
    assert found_by("user.own_uid", facts).mark is Mark.WEAKER
    assert "share one host uid, 1001" in found_by("user.own_uid", facts).seen
    assert found_by("user.groups", facts).mark is Mark.WEAKER
    assert found_by("user.not_root", facts).mark is Mark.HOLDS


def test_a_process_that_the_host_cannot_see_leaves_its_uid_unknown():
    assert found_by("user.not_root", native_facts(outside=None)).mark is Mark.UNKNOWN


def test_a_memory_error_in_each_process_is_less_than_a_limit_on_all():
    facts = with_change("small.hit_memory", {"exit": 12, "said": [], "signal": None})
    assert found_by("limits.memory", facts).mark is Mark.WEAKER


def test_a_sandbox_that_was_ended_for_its_memory_has_its_limit():
    assert found_by("limits.memory", with_change("small.hit_memory", {"sandbox": "oom"})).mark is Mark.HOLDS


# -- nothing said, and nonsense ------------------------------------------------------------------------

MEASURED = [probe.id for probe in NATIVE if not probe.id.startswith("host.")]


def test_what_was_not_answered_is_unknown_and_says_why():
    silent = Said({}, "the sandbox ended: killed by signal 9")
    facts = native_facts(inside=silent, neighbour=silent, small=silent, outside=None, neighbour_outside=None)
    assert {name for name, mark in marks(facts).items() if mark is Mark.UNKNOWN} == set(MEASURED)
    assert "killed by signal 9" in found_by("namespaces.user", facts).seen


@pytest.mark.parametrize("whose, name", [("inside", n) for n in INSIDE] + [("small", n) for n in SMALL_ONE])
def test_a_fact_that_failed_makes_its_probes_unknown_and_no_other(whose, name):
    found = {**(INSIDE if whose == "inside" else SMALL_ONE)}
    entries = {key: {"found": value} for key, value in found.items()} | {name: {"failed": "OSError: no"}}
    changed = {mark for mark in marks(native_facts(**{whose: Said(entries)})).values() if mark is not Mark.HOLDS}
    assert changed <= {Mark.UNKNOWN}


@pytest.mark.parametrize("nothing", [{}, [], "", None, True, 0, 1, "0", [[]], {"said": []}], ids=repr)
def test_no_layer_holds_on_empty_answers(nothing):
    facts = native_facts(
        inside=said(dict.fromkeys(INSIDE, nothing)),
        neighbour=said(dict.fromkeys(NEIGHBOUR, nothing)),
        small=said(dict.fromkeys(SMALL_ONE, nothing)),
        outside=None,
        neighbour_outside=None,
    )
    held = {name for name in MEASURED if marks(facts)[name] is Mark.HOLDS}
    # A number may be the true answer to these.
    assert held <= ({"limits.cpu", "devices.making"} if type(nothing) is int or nothing in (True, "0") else set())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(INSIDE)), json_values)
def test_no_shape_of_a_fact_stops_the_judging(name, value):
    judge("native", native_facts(inside=said({**INSIDE, name: value})))


@given(st.sampled_from(sorted(SMALL_ONE)), json_values)
def test_no_shape_of_a_hit_stops_the_judging(name, value):
    judge("native", native_facts(small=said({**SMALL_ONE, name: value})))


def test_what_a_sandbox_said_comes_as_one_short_line():
    seen = found_by("inheritance.descriptors", with_change("inside.descriptors.9", "/\x1b[31m\n" + "x" * 5000)).seen
    assert seen.isprintable()
    assert len(seen) < 500


# -- the table -----------------------------------------------------------------------------------------


def test_ids_are_unique_and_of_layers_that_stand_together():
    ids = [probe.id for probe in PROBES]
    layers = [probe_id.split(".")[0] for probe_id in ids]
    assert len(set(ids)) == len(ids)
    assert len(set(layers)) == sum(1 for n, layer in enumerate(layers) if n == 0 or layers[n - 1] != layer)


def test_every_driver_has_a_profile_and_the_process_driver_promises_no_containment():
    assert set(PROFILES) == {*DRIVERS, "gvisor"}  # which is the driver docker with the runtime runsc
    promised = {probe.id for probe in PROBES if "process" in probe.promised_by.split()}
    assert {probe_id.split(".")[0] for probe_id in promised} == {"versions", "limits", "inheritance"}
    assert promised & {"limits.memory", "limits.pids", "inheritance.descriptors"} == set()


@pytest.mark.parametrize(
    "text, numbers",
    [("6.1.0-13-amd64", (6, 1, 0, 13)), ("5.15.153.1-WSL2", (5, 15, 153, 1)), ("7.4.0rc1", (7, 4)), ("", ())],
)
def test_versions_are_compared_as_numbers(text, numbers):
    assert numbers_of(text) == numbers
