"""What is looked for in a sandbox, as a table; and whether it was found, decided from plain facts. Pure.

A probe names the driver that promises it. Its judge takes `Facts` and says what was seen and how it stands. Facts
come out of a sandbox: their shapes are not believed, and what cannot be read, or was not answered, is unknown, never
good. Where the facts come from is `inside.py` and `host.py`; what becomes of the judgement, `report.py`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cellgate.doctor.host import HostFacts, Outside, numbers_of
from cellgate.doctor.report import Finding, Mark, Tier
from cellgate.sandbox.limits import Limits
from cellgate.terminal import one_line

__all__ = ["PROBES", "PROFILES", "SMALL", "Facts", "Probe", "Profile", "Said", "Unmeasured", "judge"]

KiB, MiB = 1 << 10, 1 << 20
# Of the sandbox in which every limit is hit: small, so that this costs little. A cold kernel needs the memory.
SMALL: Final = Limits(
    memory_bytes=192 * MiB,
    cpu_cores=0.5,
    pids=20,
    open_files=128,
    file_bytes=MiB,
    workspace_bytes=4 * MiB,
    workspace_inodes=512,
    shm_bytes=MiB,
)


# -- facts -------------------------------------------------------------------------------------------


class Unmeasured(Exception):
    """A fact is not there; the text says why."""


@dataclass(frozen=True)
class Said:
    """What one sandbox answered: name -> {"found": fact} or {"failed": why}; and why it may have answered nothing."""

    facts: Mapping[str, Mapping[str, Any]]
    silent_because: str = "it was not asked"

    def __getitem__(self, name: str) -> Any:
        """The fact, of whatever shape. Raises Unmeasured."""
        entry = self.facts.get(name)
        if entry is None:
            raise Unmeasured(self.silent_because)
        if "found" not in entry:
            raise Unmeasured(str(entry.get("failed", "no answer")))
        return entry["found"]


@dataclass(frozen=True)
class Facts:
    """All that there is to judge from."""

    host: HostFacts
    inside: Said = Said({})
    neighbour: Said = Said({})  # another sandbox of the same driver
    small: Said = Said({})  # one with the limits SMALL
    outside: Outside | None = None  # the first one's process, as the host sees it
    neighbour_outside: Outside | None = None
    is_rootless: bool = False  # the warden is root of a user namespace alone
    listeners: tuple[str, ...] = ()  # what listens on the host, by name


Judgement = tuple[Mark, str]  # and what was seen
Judge = Callable[[Facts], Judgement]


def _holds_if(holds: bool, seen: str, otherwise: Mark = Mark.MISSING) -> Judgement:
    return Mark.HOLDS if holds else otherwise, seen


def _whole(value: object) -> int:
    """The number that it is. A text or a truth value is none, and would compare wrongly."""
    if type(value) is not int:
        raise TypeError
    return value


def _seen_from_outside(process: Outside | None) -> Outside:
    if process is None:
        raise Unmeasured("its process cannot be seen from here (another /proc, or mounted with hidepid)")
    return process


def _listed(things: Iterable[object], nothing: str) -> str:
    return ", ".join(map(str, things)) or nothing


# -- what is tried ------------------------------------------------------------------------------------

# name -> arguments with which a kernel that lets the call through fails otherwise than by refusing, or does nothing.
_MINUS_ONE: Final = 2**64 - 1
_Calls = Mapping[str, tuple[int, ...]]
NAMESPACE_CALLS: Final[_Calls] = {"unshare": (0x10000000,), "setns": (_MINUS_ONE, 0), "clone3": (0, 0)}
MOUNT_CALLS: Final[_Calls] = {
    "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 0),
    "pivot_root": (0, 0),
    "chroot": (0,),
    "open_tree": (_MINUS_ONE, 0, 0),
    "move_mount": (_MINUS_ONE, 0, _MINUS_ONE, 0, 0),
    "fsopen": (0, 0),
    "mount_setattr": (_MINUS_ONE, 0, 0, 0, 0),
    "open_by_handle_at": (_MINUS_ONE, 0, 0),
}
PEEKING_CALLS: Final[_Calls] = {
    "process_vm_readv": (0, 0, 0, 0, 0, 0),
    "process_vm_writev": (0, 0, 0, 0, 0, 0),
    "process_madvise": (_MINUS_ONE, 0, 0, 0, 0),
    "pidfd_getfd": (_MINUS_ONE, 0, 0),
    "kcmp": (0, 0, 0, 0, 0),
    "ptrace": (0, 0, 0, 0),  # PTRACE_TRACEME
}
RISKY_CALLS: Final[_Calls] = {
    "bpf": (_MINUS_ONE, 0, 0),
    "perf_event_open": (0, 0, _MINUS_ONE, _MINUS_ONE, 0),
    "io_uring_setup": (1, 0),
    "io_uring_enter": (_MINUS_ONE, 0, 0, 0, 0, 0),
    "userfaultfd": (_MINUS_ONE,),
    "keyctl": (0, _MINUS_ONE - 2, 0),  # the id of the session keyring, if there is one
    "add_key": (0, 0, 0, 0, 0),
    "request_key": (0, 0, 0, 0),
    "memfd_secret": (_MINUS_ONE,),
    "vmsplice": (_MINUS_ONE, 0, 0, 0),
    "fanotify_init": (_MINUS_ONE, 0),
    "finit_module": (_MINUS_ONE, 0, 0),
    "kexec_file_load": (_MINUS_ONE, _MINUS_ONE, 0, 0, _MINUS_ONE),
    "clock_settime": (0, 0),
    "swapon": (0, 0),
    "syslog": (_MINUS_ONE, 0, 0),
}
CALLS: Final[_Calls] = {**NAMESPACE_CALLS, **MOUNT_CALLS, **PEEKING_CALLS, **RISKY_CALLS}
# Absent or refused: whichever the sandbox chose to say.
_REFUSED_CALL: Final = {errno.EPERM, errno.ENOSYS}

# name -> family, type, protocol
SOCKETS: Final[Mapping[str, tuple[int, int, int]]] = {
    "netlink": (16, 3, 0),
    "packet": (17, 3, 0),
    "alg": (38, 5, 0),
    "vsock": (40, 1, 0),
    "xdp": (44, 3, 0),
    "raw": (2, 3, 1),
    "ping": (2, 2, 1),
}
_REFUSED_SOCKET: Final = {
    *(errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EOPNOTSUPP)
}

READ_ONLY: Final = ("/", "/etc", "/usr", "/usr/bin", "/usr/lib", "/var", "/run", "/dev", "/home")
_UNWRITABLE: Final = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}
WRITABLE_MOUNTS: Final = frozenset(("/home/user", "/work", "/tmp", "/dev/shm", "/dev/pts"))
HOST_FILES: Final = (
    *("/etc/shadow", "/etc/sudoers", "/etc/ssh/sshd_config", "/etc/machine-id", "/root/.ssh", "/root/.bashrc"),
    *("/boot", "/var/log", "/var/spool", "/var/run/docker.sock", "/run/dbus", "/run/systemd", "/run/secrets"),
)
HOST_PROC: Final = tuple(
    f"/proc/{name}"
    for name in (
        *("kcore", "kallsyms", "keys", "key-users", "kmsg", "kpagecount", "timer_list", "sched_debug", "slabinfo"),
        *("modules", "interrupts", "iomem", "config.gz", "latency_stats", "sysrq-trigger", "swaps", "partitions"),
    )
)
SYS: Final = ("/sys", "/sys/fs/cgroup", "/sys/firmware", "/sys/kernel")
STEERING: Final = (
    *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory"),
    *("/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/proc/self/uid_map"),
)
DEVICES: Final = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx"))
# Documentation addresses, which belong to nobody (RFC 5737, 3849), and where clouds keep credentials.
ADDRESSES: Final = ("192.0.2.1", "2001:db8::1", "169.254.169.254", "fd00:ec2::254")
CPU_SECONDS: Final = 0.5  # five periods of the quota
_CPU_SLACK: Final = 1.4  # what a quota lets through in so short a time
DNS_SECONDS: Final = 1.0
# What may be the same in here as on the host: it tells nothing.
_COMMON_VARIABLES: Final = frozenset(
    ("PATH", "LANG", "LC_ALL", "TZ", "TERM", "SHELL", "HOME", "USER", "LOGNAME", "PWD")
)


# -- judges --------------------------------------------------------------------------------------------


def _kernel(facts: Facts) -> Judgement:
    return _holds_if(facts.host.kernel_version >= (5, 12), facts.host.kernel)


def _host_landlock(facts: Facts) -> Judgement:
    found = facts.host.landlock_abi
    return _holds_if(
        found >= 6, f"ABI {found}" if found else "this kernel has none, or does not switch it on", Mark.WEAKER
    )


def _host_cgroup(facts: Facts) -> Judgement:
    version, found = facts.host.cgroup_version, facts.host.cgroup_controllers
    return _holds_if(set(found) >= {"memory", "pids", "cpu"}, f"version {version}: {_listed(found, 'no controllers')}")


def _host_seccomp(facts: Facts) -> Judgement:
    wanted = {"errno", "kill_process"}
    missing = sorted(wanted - set(facts.host.seccomp_actions))
    return _holds_if(not missing, f"this kernel lacks {', '.join(missing)}" if missing else ", ".join(sorted(wanted)))


def _host_user_namespaces(facts: Facts) -> Judgement:
    return _holds_if(facts.host.max_user_namespaces > 0, f"up to {facts.host.max_user_namespaces}")


def _processor(facts: Facts) -> Judgement:
    found = facts.host.unmitigated
    return _holds_if(not found, _listed(found, "the kernel reports none"))


def _version(name: str, floor: tuple[int, ...]) -> Judge:
    def judge_version(facts: Facts) -> Judgement:
        found = str(facts.inside["versions"][name])
        return _holds_if(numbers_of(found) >= floor, found)

    return judge_version


def _namespace(kind: str) -> Judge:
    def judge_namespace(facts: Facts) -> Judgement:
        found = str(facts.inside["namespaces"][kind])
        own = found.startswith(f"{kind}:[") and found != facts.host.namespaces[kind]
        return _holds_if(own, found if own else "the host's")

    return judge_namespace


def _neighbour_namespaces(facts: Facts) -> Judgement:
    ours, theirs = facts.inside["namespaces"], facts.neighbour["namespaces"]
    shared = [kind for kind in facts.host.namespaces if ours[kind] == theirs[kind]]
    return _holds_if(not shared, "shared: " + ", ".join(shared) if shared else "none shared")


def _not_root(facts: Facts) -> Judgement:
    uids = set(_seen_from_outside(facts.outside).uids)
    return _holds_if(0 not in uids, f"uid {_listed(sorted(uids), 'unknown')} on the host")


def _own_uid(facts: Facts) -> Judgement:
    uids, theirs = _seen_from_outside(facts.outside).uids, _seen_from_outside(facts.neighbour_outside).uids
    if not set(uids) & set(theirs):
        return Mark.HOLDS, f"{uids[0]}, and {theirs[0]} for a second one"
    seen = f"sessions share one host uid, {uids[0]}"
    return (Mark.WEAKER if facts.is_rootless else Mark.MISSING), seen


def _inside_uid(facts: Facts) -> Judgement:
    found = facts.inside["identity"]
    uids = [_whole(found["uids"][which]) for which in range(3)]
    result = _whole(found["becomes_root"]["said"][0])
    refused = "refused" if result else "allowed"
    return _holds_if(0 not in uids and result != 0, f"uid {_listed(sorted(set(uids)), '')}; setuid(0) {refused}")


def _one_id(facts: Facts) -> Judgement:
    found = [int(word) for word in facts.inside["identity"]["uid_map"]]
    return _holds_if(len(found) == 3 and found[2] == 1, f"{found[2]} mapped")


def _groups(facts: Facts) -> Judgement:
    outside = _seen_from_outside(facts.outside)
    found = [group for group in outside.groups if group not in outside.uids]  # one of the same number is its own
    seen = f"groups {_listed(found, '')} of the host" if found else "none"
    return _holds_if(not found, seen, Mark.WEAKER if facts.is_rootless else Mark.MISSING)


def _capabilities(facts: Facts) -> Judgement:
    status = facts.inside["status"]
    sets = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    kept = [f"{name} {mask:x}" for name, mask in sets.items() if mask]
    return _holds_if(not kept, _listed(kept, "all five sets are empty"))


def _securebits(facts: Facts) -> Judgement:
    wanted = 0xEF  # NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE and KEEP_CAPS off, each locked
    found = _whole(facts.inside["securebits"])
    return _holds_if(found == wanted, f"{found:#x}")


def _status(name: str, wanted: str, meaning: str, otherwise: str) -> Judge:
    def judge_status(facts: Facts) -> Judgement:
        holds = facts.inside["status"][name].strip() == wanted
        return _holds_if(holds, meaning if holds else otherwise)

    return judge_status


def _refused(fact: str, names: Iterable[str], refusals: set[int]) -> Judge:
    """Each of these was refused, by an errno out of `refusals` or by death."""

    def judge_refusals(facts: Facts) -> Judgement:
        found = facts.inside[fact]
        let_through = []
        for name in names:
            result = found[name]
            refused = result["signal"] == 31 if isinstance(result, dict) else _whole(result) in refusals  # SIGSYS
            if not refused:
                let_through.append(name)
        total = len(list(names))
        return _holds_if(
            not let_through, f"let through: {', '.join(let_through)}" if let_through else f"{total} refused"
        )

    return judge_refusals


def _foreign_calls(facts: Facts) -> Judgement:
    if facts.host.machine != "x86_64":
        return Mark.HOLDS, f"{facts.host.machine} has none that is allowed"
    found = facts.inside["foreign_calls"]
    reached = []
    for name in ("x32", "i386"):
        said = found[name]["said"]
        unknown_to_kernel = bool(said) and abs(_whole(said[0])) == errno.ENOSYS
        died = found[name]["signal"] is not None and _whole(found[name]["signal"]) in (11, 31)  # SIGSEGV: not built in
        if not (unknown_to_kernel or died):
            reached.append(name)
    return _holds_if(not reached, f"reached: {', '.join(reached)}" if reached else "x32 and i386: not reached")


def _landlock(facts: Facts) -> Judgement:
    found = facts.inside["landlock_layers"]["said"][0]
    if facts.host.landlock_abi == 0:
        return Mark.WEAKER, "this kernel has no Landlock"
    layers = _whole(found["layers"])
    return _holds_if(layers > 0, f"{layers} rulesets hold it" if layers != 1 else "1 ruleset holds it")


def _scoped_signals(facts: Facts) -> Judgement:
    if facts.host.landlock_abi < 6:
        return Mark.WEAKER, "needs Landlock ABI 6 (Linux 6.12)"
    result = _whole(facts.inside["process_1"]["signal"])
    return _holds_if(result == errno.EPERM, "process 1 cannot be signalled" if result else "process 1 can be signalled")


def _root_is_read_only(facts: Facts) -> Judgement:
    found = facts.inside["writing"]
    for place in READ_ONLY:
        _whole(found[place])  # each was tried
    writable = [place for place, result in found.items() if _whole(result) not in _UNWRITABLE]
    return _holds_if(not writable, f"writable: {_listed(writable, '')}" if writable else f"{len(found)} places refuse")


def _writable_mounts(facts: Facts) -> Judgement:
    found = facts.inside["mounts"]
    writable = {str(place) for place, _, is_writable, _ in found if is_writable is not False}
    beyond = sorted(writable - WRITABLE_MOUNTS)
    if not any(place == "/" for place, *_ in found):
        raise Unmeasured("its list of mounts has no root")
    return _holds_if(not beyond, f"also {_listed(beyond, '')}" if beyond else _listed(sorted(writable), "none"))


def _nosuid(facts: Facts) -> Judgement:
    found = facts.inside["mounts"]
    without = [place for place, _, _, options in found if "nosuid" not in options]
    if not any(place == "/" for place, *_ in found):
        raise Unmeasured("its list of mounts has no root")
    if without and facts.inside["status"].get("NoNewPrivs") == "1":
        return Mark.WEAKER, f"by no_new_privs alone on {_listed(without, '')}"
    return _holds_if(not without, f"not on {_listed(without, '')}" if without else f"on all {len(found)} mounts")


def _own_kernel(facts: Facts) -> Judgement:
    found = facts.inside["kernel"]
    name, release = str(found["says"]), str(found["release"])
    return _holds_if(
        "gVisor" in name and release != facts.host.kernel, f"{release}{', gVisor' if 'gVisor' in name else ''}"
    )


def _out_of_sight(paths: Sequence[str], canary: bool = False) -> Judge:
    def judge_sight(facts: Facts) -> Judgement:
        found = facts.inside["opening"]
        wanted = [*paths, *(p for p in found if p.endswith("/canary"))] if canary else list(paths)
        if canary and len(wanted) == len(paths):
            raise Unmeasured("the file that was laid out for it was not looked for")
        opened = [path for path in wanted if str(found[path]) not in ("absent", "refused", "empty")]
        seen = f"open: {_listed(opened, '')}" if opened else f"{len(wanted)} looked for, none open"
        return _holds_if(not opened, seen)

    return judge_sight


def _neighbour_files(facts: Facts) -> Judgement:
    ours, theirs = (
        {place: _whole(device) for place, device in said["places"].items()} for said in (facts.inside, facts.neighbour)
    )
    if not ours or not theirs:
        raise Unmeasured("its list of places is empty")
    shared = [place for place, device in ours.items() if device in theirs.values()]
    return _holds_if(not shared, f"shared: {_listed(shared, '')}" if shared else ", ".join(ours))


def _devices(facts: Facts) -> Judgement:
    found = {str(path) for path in facts.inside["devices"]}
    beyond = sorted(found - DEVICES)
    if "/dev/null" not in found:
        raise Unmeasured("its list of devices has no null")
    names = [path.removeprefix("/dev/") for path in beyond or sorted(found)]
    return _holds_if(not beyond, f"also {len(beyond)}: {', '.join(names)}" if beyond else ", ".join(names))


def _making_devices(facts: Facts) -> Judgement:
    result = _whole(facts.inside["making_devices"])
    return _holds_if(result != 0, "refused" if result else "allowed")


def _steering(facts: Facts) -> Judgement:
    found = facts.inside["steering"]
    opened = [path for path in STEERING if _whole(found[path]) == 0]
    return _holds_if(
        not opened, f"writable: {_listed(opened, '')}" if opened else f"{len(STEERING)} tried, none writable"
    )


def _interfaces(facts: Facts) -> Judgement:
    found = [str(name) for name in facts.inside["interfaces"]]
    if "lo" not in found:
        raise Unmeasured("its list of interfaces has no loopback")
    return _holds_if(set(found) == {"lo"}, ", ".join(found))


def _routes(facts: Facts) -> Judgement:
    found = facts.inside["routes"]
    reached = [address for address in ADDRESSES if _whole(found[address]) == 0]
    return _holds_if(not reached, f"routes to {_listed(reached, '')}" if reached else f"{len(ADDRESSES)} unreachable")


def _names(facts: Facts) -> Judgement:
    if _routes(facts)[0] is not Mark.HOLDS:
        return Mark.MISSING, "there is a way to name servers"
    found = facts.inside["name_lookup"]
    seconds = float(found["seconds"])
    return _holds_if(
        _whole(found["result"]) != 0 and 0 <= seconds < DNS_SECONDS, f"fails after {seconds * 1000:.0f} ms"
    )


def _host_sockets(facts: Facts) -> Judgement:
    found = facts.inside["host_sockets"]
    if not facts.listeners:
        raise Unmeasured("nothing listened on the host")
    reached = [name for name in facts.listeners if _whole(found[name]) == 0]
    return _holds_if(
        not reached, f"reached: {_listed(reached, '')}" if reached else f"not {', '.join(facts.listeners)}"
    )


def _memory(facts: Facts) -> Judgement:
    found = facts.small["hit_memory"]
    limit = f"{SMALL.memory_bytes // MiB} MiB"
    if found.get("sandbox") == "oom":
        return Mark.HOLDS, f"ended at {limit}"
    if found["signal"] == 9:
        return Mark.HOLDS, f"a child was killed at {limit}"
    if found["exit"] == 12:  # see inside.NO_MEMORY
        return Mark.WEAKER, "MemoryError, but each process may have as much"
    return Mark.MISSING, f"a child took {2 * SMALL.memory_bytes // MiB} MiB of {limit}"


def _hit(fact: str, limit: str, *refusals: int) -> Judge:
    """The attempt to have more was refused, at the limit or before."""

    def judge_hit(facts: Facts) -> Judgement:
        found = facts.small[fact]
        made, result, most = _whole(found["made"]), _whole(found["errno"]), int(getattr(SMALL, limit))
        unit = 1 if most < KiB else KiB
        of = f"{made // unit} of {most // unit}{' KiB' if unit > 1 else ''}"
        return _holds_if(result in refusals and made <= most, f"refused after {of}" if result else f"had {of}")

    return judge_hit


def _cpu(facts: Facts) -> Judgement:
    share = float(facts.small["hit_cpu"])
    return _holds_if(0 <= share <= SMALL.cpu_cores * _CPU_SLACK, f"{share:.2f} of a core, of {SMALL.cpu_cores:g}")


def _rlimits(most: Mapping[str, int]) -> Judge:
    def judge_rlimits(facts: Facts) -> Judgement:
        found = {name: _whole(facts.inside["rlimits"][name]) for name in most}
        seen = ", ".join(f"{name} {'unlimited' if value == -1 else value}" for name, value in found.items())
        return _holds_if(all(0 <= found[name] <= most[name] for name in most), seen)

    return judge_rlimits


def _reaping(facts: Facts) -> Judgement:
    found = str(facts.inside["process_1"]["orphan"])
    return _holds_if(found == "reaped", f"an orphan: {found}")


def _process_1_is_hidden(facts: Facts) -> Judgement:
    entries = facts.inside["process_1"]["entries"]
    opened = [name for name in ("environ", "mem", "root", "cwd", "exe", "fd") if _whole(entries[name]) == 0]
    return _holds_if(
        not opened, f"open: {_listed(opened, '')}" if opened else "environ, mem, root, cwd, exe, fd refused"
    )


def _descriptors(facts: Facts) -> Judgement:
    targets = [str(target) for fd, target in facts.inside["descriptors"].items() if int(fd) >= 0]
    if not targets:
        raise Unmeasured("its list of descriptors is empty")
    files = sorted({target for target in targets if target.startswith("/") and target != "/dev/null"})
    return _holds_if(not files, f"also {_listed(files, '')}" if files else f"{len(targets)}, and no file of the host")


def _environment(facts: Facts) -> Judgement:
    found = facts.inside["environment"]
    if "PATH" not in found:
        raise Unmeasured("its environment has no PATH")
    ours = facts.host.environment.items()
    shared = sorted(name for name, value in ours if name not in _COMMON_VARIABLES and found.get(name) == value)
    return _holds_if(not shared, f"also {_listed(shared, '')}" if shared else f"{len(found)} variables, none of ours")


def _entropy(facts: Facts) -> Judgement:
    ours, theirs = facts.inside["entropy"], facts.neighbour["entropy"]
    same = [name for name in ours if ours[name] == theirs[name]]
    if not ours:
        raise Unmeasured("it gave no random numbers")
    return _holds_if(not same, f"the same twice: {_listed(same, '')}" if same else ", ".join(ours))


# -- the table -------------------------------------------------------------------------------------------

REPORT: Final = "this should hold on every host: please report it, with the output of `cellgate doctor --json`"
_MEASURE: Final = "run it again; if it stays so, please report it, with the output of `cellgate doctor --json`"
_CGROUPS: Final = (
    "have the memory, pids and cpu controllers delegated (systemd: Delegate=cpu memory pids), or start as root"
)
_LANDLOCK: Final = "boot Linux 6.12 or newer with Landlock in `lsm=`; the other walls stand without it"
_ROOT: Final = "start the warden as root, and each session has a host uid of its own and no group"


@dataclass(frozen=True)
class Probe:
    """One thing to look for."""

    id: str  # layer.name, for ever
    title: str
    judge: Judge
    promised_by: str = "native docker"  # names of profiles
    remedy: str = REPORT


_ALL: Final = "native docker gvisor process"
_NATIVE: Final = "native"
_NOSUID: Final = "an engine's own mounts admit them; the driver native mounts nothing so"
_CONTAINED: Final = "native docker gvisor"

PROBES: Final[tuple[Probe, ...]] = (
    Probe("host.kernel", "Linux 5.12 or newer", _kernel, remedy="boot a newer kernel; mount_setattr came with 5.12"),
    Probe(
        "host.user_namespaces",
        "user namespaces",
        _host_user_namespaces,
        _NATIVE,
        remedy="sysctl user.max_user_namespaces=15000",
    ),
    Probe("host.seccomp", "seccomp filters", _host_seccomp, remedy="boot a kernel with CONFIG_SECCOMP_FILTER"),
    Probe("host.cgroup", "cgroups: memory, pids, cpu", _host_cgroup, remedy=_CGROUPS),
    Probe("host.landlock", "Landlock ABI 6 (Linux 6.12)", _host_landlock, _NATIVE, remedy=_LANDLOCK),
    Probe(
        "host.processor", "no known flaw of the processor open", _processor, "", "update its microcode and the kernel"
    ),
    Probe("versions.python", "Python 3.10 or newer", _version("python", (3, 10)), _ALL, "install a newer Python"),
    Probe(
        "versions.ipykernel", "ipykernel 7 or newer", _version("ipykernel", (7,)), _ALL, "pip install 'ipykernel>=7'"
    ),
    Probe("versions.ipython", "IPython 8 or newer", _version("ipython", (8,)), _ALL, "pip install 'ipython>=8'"),
    Probe("kernel.own", "a kernel of its own answers its calls", _own_kernel, "gvisor", "use the runtime runsc"),
    Probe("namespaces.user", "user namespace of its own", _namespace("user"), _NATIVE),
    Probe("namespaces.mount", "mount namespace of its own", _namespace("mnt")),
    Probe("namespaces.pid", "pid namespace of its own", _namespace("pid")),
    Probe("namespaces.network", "network namespace of its own", _namespace("net")),
    Probe("namespaces.ipc", "ipc namespace of its own", _namespace("ipc")),
    Probe("namespaces.uts", "uts namespace of its own", _namespace("uts")),
    Probe("namespaces.cgroup", "cgroup namespace of its own", _namespace("cgroup")),
    Probe("namespaces.neighbour", "none shared with another sandbox", _neighbour_namespaces, _NATIVE),
    Probe("user.not_root", "not root on the host", _not_root, remedy="do not start the warden as root of a container"),
    Probe("user.own_uid", "a host uid of its own", _own_uid, remedy=_ROOT),
    Probe("user.groups", "no groups of the host", _groups, remedy=_ROOT),
    Probe("user.inside", "not root inside, nor able to become it", _inside_uid, _CONTAINED),
    Probe("user.one_id", "one id mapped", _one_id, _NATIVE),
    Probe("privileges.capabilities", "no capability in any set", _capabilities),
    Probe("privileges.securebits", "securebits locked", _securebits, _NATIVE),
    Probe("privileges.no_new_privs", "no_new_privs", _status("NoNewPrivs", "1", "set", "not set")),
    Probe("seccomp.filter", "a filter on system calls", _status("Seccomp", "2", "filtered", "no filter")),
    Probe("seccomp.namespaces", "new namespaces refused", _refused("calls", NAMESPACE_CALLS, _REFUSED_CALL)),
    Probe("seccomp.mounts", "mounts refused", _refused("calls", MOUNT_CALLS, _REFUSED_CALL)),
    Probe("seccomp.peeking", "other processes' memory refused", _refused("calls", PEEKING_CALLS, _REFUSED_CALL)),
    Probe("seccomp.risky", "bpf, io_uring, keyrings ... refused", _refused("calls", RISKY_CALLS, _REFUSED_CALL)),
    Probe("seccomp.sockets", "odd socket families refused", _refused("sockets", SOCKETS, _REFUSED_SOCKET)),
    Probe("seccomp.conventions", "foreign calling conventions refused", _foreign_calls),
    Probe("landlock.files", "held by Landlock rules", _landlock, _NATIVE, remedy=_LANDLOCK),
    Probe("landlock.signals", "signals kept within by Landlock", _scoped_signals, _NATIVE, remedy=_LANDLOCK),
    Probe("filesystem.read_only", "system directories read-only", _root_is_read_only),
    Probe("filesystem.writable", "only home, work, tmp, shm, pts writable", _writable_mounts, _NATIVE),
    Probe("filesystem.nosuid", "set-user-id programs powerless", _nosuid, remedy=_NOSUID),
    Probe("filesystem.host_files", "the host's files out of sight", _out_of_sight(HOST_FILES, canary=True), _CONTAINED),
    Probe("filesystem.neighbour", "no file shared with another sandbox", _neighbour_files),
    Probe("devices.list", "null, zero, full, random, urandom only", _devices),
    Probe("devices.making", "device nodes cannot be made", _making_devices),
    Probe("proc.steering", "/proc/sys not writable", _steering, _NATIVE),
    Probe("proc.host", "what tells of the host is covered", _out_of_sight(HOST_PROC), _CONTAINED),
    Probe("proc.sys", "no /sys", _out_of_sight(SYS)),
    Probe("network.interfaces", "loopback only", _interfaces, _CONTAINED),
    Probe("network.routes", "no route to anywhere", _routes, _CONTAINED),
    Probe("network.names", "name lookups fail at once", _names, _CONTAINED),
    Probe("network.host", "the host's sockets out of reach", _host_sockets, _CONTAINED),
    Probe("limits.memory", "memory, swap and children included", _memory, _CONTAINED, remedy=_CGROUPS),
    Probe("limits.pids", "processes and threads", _hit("hit_pids", "pids", errno.EAGAIN), remedy=_CGROUPS),
    Probe("limits.cpu", "CPU share", _cpu, remedy=_CGROUPS),
    Probe(
        "limits.workspace",
        "bytes in home, work and tmp",
        _hit("hit_workspace", "workspace_bytes", errno.ENOSPC),
        _CONTAINED,
    ),
    Probe("limits.inodes", "files in home, work and tmp", _hit("hit_inodes", "workspace_inodes", errno.ENOSPC)),
    Probe("limits.shm", "bytes in /dev/shm", _hit("hit_shm", "shm_bytes", errno.ENOSPC), _CONTAINED),
    Probe("limits.open_files", "open files", _hit("hit_open_files", "open_files", errno.EMFILE), _ALL),
    Probe("limits.file", "bytes of one file", _hit("hit_file_size", "file_bytes", errno.EFBIG), _ALL),
    Probe("limits.core_dumps", "no core dump, nor a handler for one", _rlimits({"CORE": 1}), _ALL),
    Probe("limits.locked_memory", "no locked memory", _rlimits({"MEMLOCK": 0}), _CONTAINED),
    Probe("limits.priority", "no real-time priority", _rlimits({"RTPRIO": 0, "NICE": 0}), _CONTAINED),
    Probe("init.reaping", "process 1 reaps orphans", _reaping),
    Probe("init.hidden", "process 1 cannot be looked into", _process_1_is_hidden, _NATIVE),
    Probe("inheritance.descriptors", "no open file of the host", _descriptors),
    Probe("inheritance.environment", "none of the host's variables", _environment, _ALL),
    Probe("inheritance.entropy", "random numbers of its own", _entropy, _ALL),
)


@dataclass(frozen=True)
class Profile:
    """What a driver is for."""

    tier: Tier
    caveats: tuple[str, ...]


PROFILES: Final[Mapping[str, Profile]] = {
    "native": Profile(
        Tier.UNTRUSTED,
        (
            "a wall against bugs of the host's kernel, which the sandbox shares; seccomp narrows the way there",
            "silence of side channels: caches, timing and pages shared with neighbours",
            "a hash seed and an address-space layout of its own: those are the template's, equal in all its sandboxes",
        ),
    ),
    "docker": Profile(
        Tier.UNTRUSTED,
        (
            "a wall against bugs of the host's kernel, which the sandbox shares; seccomp narrows the way there",
            "silence of side channels: caches, timing and pages shared with neighbours",
        ),
    ),
    "gvisor": Profile(
        Tier.OWN_KERNEL,
        ("silence of side channels: caches, timing and pages shared with neighbours",),
    ),
    "process": Profile(Tier.TRUSTED, ("containment of any kind: the code has all the rights of whoever started it",)),
}


_MAX_SEEN: Final = 400  # characters: what a sandbox says goes into a table


def judge(driver: str, facts: Facts, probes: Iterable[Probe] = PROBES) -> tuple[Finding, ...]:
    """Every probe, judged from these facts as this driver promises it."""
    return tuple(_finding(probe, driver, facts) for probe in probes)


def _finding(probe: Probe, driver: str, facts: Facts) -> Finding:
    try:
        mark, seen = probe.judge(facts)
    except Unmeasured as why:
        mark, seen = Mark.UNKNOWN, str(why)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
        mark, seen = Mark.UNKNOWN, "the answer has a shape that cannot be read"
    promised = driver in probe.promised_by.split()
    remedy = probe.remedy if mark in (Mark.MISSING, Mark.WEAKER) else _MEASURE
    return Finding(probe.id, probe.title, promised, mark, one_line(seen[:_MAX_SEEN]), remedy)
