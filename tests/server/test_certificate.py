"""Death certificates: which reason is decided for which facts, and which JSON is one."""

from __future__ import annotations

import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.errors import BadCertificate
from cellgate.sandbox.certificate import MAX_DETAIL_CHARS, DeathCertificate, Reason, ResourceEvents, decide

MiB = 1 << 20
NOTHING = ResourceEvents()
ONE_OOM = ResourceEvents(memory_limit_bytes=256 * MiB, memory_peak_bytes=255 * MiB, oom_kills=1)
KILLED = int(signal.SIGKILL)

# wait status, killed for, events, kills for memory outlived -> reason, exit code, signal
TABLE = {
    "an exit": (3 << 8, None, NOTHING, 0, Reason.KERNEL_EXIT, 3, None),
    "a clean exit": (0, None, NOTHING, 0, Reason.KERNEL_EXIT, 0, None),
    "a signal": (signal.SIGSEGV, None, NOTHING, 0, Reason.KERNEL_SIGNAL, None, signal.SIGSEGV),
    "a signal with a core": (signal.SIGABRT | 0x80, None, NOTHING, 0, Reason.KERNEL_SIGNAL, None, signal.SIGABRT),
    "a SIGKILL nobody asked for": (KILLED, None, NOTHING, 0, Reason.KERNEL_SIGNAL, None, 9),
    "killed for memory": (KILLED, None, ONE_OOM, 0, Reason.OOM, None, 9),
    "a SIGKILL after a child's OOM": (KILLED, None, ONE_OOM, 1, Reason.KERNEL_SIGNAL, None, 9),
    "an exit after a child's OOM": (1 << 8, None, ONE_OOM, 0, Reason.KERNEL_EXIT, 1, None),
    "SIGBUS with a full shm": (signal.SIGBUS, None, ONE_OOM, 0, Reason.KERNEL_SIGNAL, None, signal.SIGBUS),
    "killed for its time": (KILLED, Reason.TIMEOUT_WALL, NOTHING, 0, Reason.TIMEOUT_WALL, None, 9),
    "killed while out of memory": (KILLED, Reason.TIMEOUT_WALL, ONE_OOM, 0, Reason.TIMEOUT_WALL, None, 9),
    "an exit that overtook the kill": (0, Reason.SESSION_DELETED, NOTHING, 0, Reason.SESSION_DELETED, 0, None),
    "a stopped kernel": (KILLED, Reason.KERNEL_UNRESPONSIVE, NOTHING, 0, Reason.KERNEL_UNRESPONSIVE, None, 9),
    "a broken frame": (KILLED, Reason.PROTOCOL_VIOLATION, NOTHING, 0, Reason.PROTOCOL_VIOLATION, None, 9),
    "nobody saw it": (None, None, NOTHING, 0, Reason.SUPERVISOR_LOST, None, None),
    "nobody saw a kill": (None, Reason.SESSION_EXPIRED, NOTHING, 0, Reason.SESSION_EXPIRED, None, None),
    "our failure": (None, Reason.BACKEND_ERROR, NOTHING, 0, Reason.BACKEND_ERROR, None, None),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_facts_decide_the_reason(row):
    status, killed_for, events, outlived, reason, exit_code, number = row
    end = decide(status, killed_for, events, oom_kills_outlived=outlived)
    assert (end.reason, end.exit_code, end.signal) == (reason, exit_code, number)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_told_in_a_sentence(reason: Reason):
    end = DeathCertificate(reason, exit_code=3, signal=11, memory_limit_bytes=MiB)
    assert end.sentence()
    assert DeathCertificate(reason).sentence()


def test_the_resources_are_facts_of_the_certificate():
    events = ResourceEvents(256 * MiB, 255 * MiB, 2, 3, 1.5, 60.0)
    end = decide(KILLED, None, events, detail="why")
    assert end == DeathCertificate(Reason.OOM, None, 9, 256 * MiB, 255 * MiB, 2, 3, 1.5, 60.0, "why")
    assert "limit 256.0 MiB, peak 255.0 MiB" in end.sentence()


def test_what_did_not_end_it_is_a_note():
    events = ResourceEvents(oom_kills=1, pids_limit_hits=7)
    assert decide(0, None, events).notes == ("pids_limit", "oom_child")
    assert decide(KILLED, None, events).notes == ("pids_limit",)
    assert decide(0, None, NOTHING).notes == ()


def test_a_detail_is_cut_to_its_bound():
    assert len(decide(0, None, NOTHING, detail="x" * 10_000).detail) == MAX_DETAIL_CHARS


WHOLE = DeathCertificate(Reason.OOM, None, 9, 256 * MiB, 255 * MiB, 1, 0, 1.5, 60.0, "why").to_json()


@given(
    st.builds(
        DeathCertificate,
        st.sampled_from(Reason),
        st.none() | st.integers(0, 255),
        st.none() | st.integers(1, 64),
        *[st.none() | st.integers(0, 1 << 62)] * 2,
        *[st.integers(0, 1 << 62)] * 2,
        *[st.floats(0, 1e9)] * 2,
        st.text(max_size=MAX_DETAIL_CHARS),
    )
)
def test_a_certificate_goes_through_json_unchanged(end: DeathCertificate):
    assert DeathCertificate.from_json(json.loads(json.dumps(end.to_json()))) == end


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    "value", [True, -1, 10**400, "x" * 501, [], {}, float("nan"), float("inf")], ids=lambda value: repr(value)[:20]
)
def test_a_field_of_the_wrong_kind_is_refused(name: str, value: object):
    with pytest.raises(BadCertificate) as refused:
        DeathCertificate.from_json(WHOLE | {name: value})
    assert refused.value.field == name


@pytest.mark.parametrize("name", WHOLE)
def test_a_missing_field_is_refused(name: str):
    with pytest.raises(BadCertificate):
        DeathCertificate.from_json({key: value for key, value in WHOLE.items() if key != name})


@pytest.mark.parametrize("value", [None, [], "oom", 7, {}, WHOLE | {"more": 1}, WHOLE | {"reason": "tired"}, {1: 2}])
def test_what_is_no_certificate_is_refused(value: object):
    with pytest.raises(BadCertificate):
        DeathCertificate.from_json(value)
